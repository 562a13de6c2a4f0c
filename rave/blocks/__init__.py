"""What are encoder and decoder made of? One file per family."""
