"""Errors that a loop over many files goes on after."""


class SkipFile(ValueError):
    """Raised by the work on one file when that file cannot be used; the run goes on without it."""
