"""One writer at a time: a second run into a folder is refused, not mixed with the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows nothing is locked
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Holds a folder until `release`, or until the process ends, however it does.

    The folder itself is locked: nothing is left in it. Where its file system has no locks, nothing
    is. (filelock locks a file of its own, which would stay in each output folder.)

    Args:
        folder: Made if it is missing.

    Raises:
        ValueError: If another run, in this process or another, holds it.
        OSError: If it cannot be made or opened.
    """

    def __init__(self, folder: Path) -> None:
        self._handle: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            return
        self._handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ValueError(
                f"Another run is writing into '{folder}'. Wait until it has ended, or choose "
                "another folder."
            ) from None
        except OSError:
            self.release()  # a file system without locks

    def release(self) -> None:
        """Let others write into the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.release()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for as long as the block runs; see `FolderLock`."""
    lock = FolderLock(folder)
    try:
        yield
    finally:
        lock.release()
