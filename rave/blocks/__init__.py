"""Encoder and decoder parts, one file per family."""
