"""Storage of a sharded set: a folder, or an address that fsspec supports.

Remote files are copied as a whole. The copies used last stay in a temporary folder, which is
removed when the program ends; after a `kill -9` it remains.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

from rave.files.atomic import PARTIAL_PREFIX, atomic_write
from rave.parsing import existing


def is_address(place: Path | str) -> bool:
    """Return whether a place is an address such as s3://bucket/set."""
    return isinstance(place, str) and "://" in place


def latents_place(text: str) -> Path | str:
    """Return an address unchanged, and anything else as a path, which must exist."""
    if is_address(text):
        return text
    return existing("a folder that `rave encode` or `rave shard` wrote")(text)


class LocalStorage:
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return where a file is."""
        return self.folder / name

    def expect(self, name: str) -> None:
        """Do nothing: local files need not be fetched."""


class RemoteStorage:
    """Copies of the files at an address, of which a limited number is kept.

    Processes that fork or unpickle this object share the copies.

    Args:
        address: Address, such as s3://bucket/set.
        max_copies: Number of copies, not counting those in `kept`.
        kept: Names of files that are never removed.

    Raises:
        ValueError: If fsspec, or the package that it needs for this protocol, does not support it.
    """

    def __init__(self, address: str, max_copies: int, kept: tuple[str, ...] = ()) -> None:
        self.address, self.max_copies, self.kept = address, max_copies, kept
        self._connect()
        self.folder = Path(tempfile.mkdtemp(prefix="rave-shards-"))
        self._cleaner = weakref.finalize(self, _remove_if_mine, self.folder, os.getpid())

    def _connect(self) -> None:
        import fsspec

        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise ValueError(f"Cannot open '{self.address}': {error}.") from error
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_files", "_root", "_lock", "_cleaner"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def path(self, name: str) -> Path:
        """Return where the copy of a file is; it is made if there is none.

        Raises:
            OSError: If the file is not there, or cannot be copied.
        """
        path = self.folder / name
        if not self._is_fresh(path):
            with self._lock:  # wait for a file that is being copied
                if not self._is_fresh(path):
                    self._make_room()
                    with atomic_write(path, is_durable=False) as temporary:
                        self._copy(name, temporary)
        return path

    def _copy(self, name: str, path: Path) -> None:
        try:
            self._files.get_file(f"{self._root}/{name}", str(path))
        except FileNotFoundError as error:  # fsspec's says no more than a path
            raise FileNotFoundError(
                f"'{self.address}/{name}' does not exist. Give the address of a whole sharded set."
            ) from error

    def expect(self, name: str) -> None:
        """Begin to copy a file in the background, as it will soon be read."""
        if not (self.folder / name).exists():
            threading.Thread(target=self._fetch_quietly, args=(name,), daemon=True).start()

    def _fetch_quietly(self, name: str) -> None:
        with contextlib.suppress(Exception):  # reading the file will raise the error
            self.path(name)

    def _is_fresh(self, path: Path) -> bool:
        """Return whether a copy exists, and mark it as used."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self) -> None:
        copies = [
            (status.st_mtime_ns, path)
            for path in self.folder.iterdir()
            if path.name not in self.kept and not path.name.startswith(PARTIAL_PREFIX)
            if (status := _status(path)) is not None
        ]
        for _, path in sorted(copies)[: max(len(copies) - self.max_copies + 1, 0)]:
            path.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # removed by another process
        return None


def _remove_if_mine(folder: Path, process: int) -> None:
    """Remove a folder of copies, unless this process is a child of the one that made it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def open_storage(
    place: Path | str, max_copies: int, kept: tuple[str, ...]
) -> LocalStorage | RemoteStorage:
    """Return the storage of a folder or an address; file:// is a folder.

    Raises:
        ValueError: If the address's protocol is not supported.
    """
    if isinstance(place, str) and place.startswith("file://"):
        place = Path(place.removeprefix("file://"))
    if is_address(place):
        return RemoteStorage(str(place).rstrip("/"), max_copies, kept)
    return LocalStorage(Path(place))
