"""Errors after which a loop over many files continues."""


class SkipFile(ValueError):
    """Raised by the work on one file that cannot be used; the batch continues without it."""
