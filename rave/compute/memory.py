"""Memory allocation of the process."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TWO_GIB = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB of freed memory for the next tensor.

    Otherwise each large tensor gets new pages, which the system clears one by one when they are
    written: that took a third of a training step of v2 in phase 2. Does nothing on other systems.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, TWO_GIB)
        mallopt(M_MMAP_MAX, 0)
