"""Import librosa, which compiles and caches functions, in one process at a time.

numba caches compiled functions on disk. If two processes compile librosa for the first time at the
same time, each may write half of a function's cache; a process that loads the halves later crashes
(numba/numba issue 10128). Import librosa only from here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Dependencies of librosa that compile nothing: imported before the lock, so that nobody waits.
import numba  # noqa: F401
import scipy.signal  # noqa: F401

try:
    import fcntl
except ImportError:  # on Windows nothing is locked
    fcntl = None  # type: ignore[assignment]


@contextmanager
def _alone() -> Iterator[None]:
    spec = importlib.util.find_spec("librosa")
    if fcntl is None or spec is None or spec.origin is None:
        yield
        return
    with open(spec.origin, "rb") as file:
        with suppress(OSError):  # of a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


with _alone():
    import librosa
    import librosa.core.audio  # these compile such functions; librosa itself loads them late
    import librosa.core.pitch
    import librosa.util.utils

__all__ = ["librosa"]
