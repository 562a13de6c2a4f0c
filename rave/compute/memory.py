"""How the process takes memory from the system."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TWO_GIB = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor, up to 2 GiB, instead of handing it back.

    Otherwise each large tensor is made of new pages, which the system clears one by one as they are
    written: that took a third of a training step of v2 in phase 2. Elsewhere nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, TWO_GIB)
        mallopt(M_MMAP_MAX, 0)
