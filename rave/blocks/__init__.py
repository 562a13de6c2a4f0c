"""Which layers do encoder and decoder have? One file per family."""
