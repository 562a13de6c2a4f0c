"""A lock for the only writer of a folder, and a journal of its finished items."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rave.files.atomic import atomic_write, check_inside, regular, sync

try:
    import fcntl
except ImportError:  # on Windows nothing is locked
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

SYNC_EVERY_S = 1.0


class FolderLock:
    """Locks a folder until `release` or the end of the process.

    The folder itself is locked, so that no lock file remains in it (filelock would leave one). File
    systems without locks are not locked. Files in the folder are replaced, so that links to files
    are not followed; other links that lead out of it are refused.

    Args:
        folder: Folder; made if it is missing.

    Raises:
        ValueError: If another run, in this process or another, has locked it, or a link in it leads
            to a folder outside, or to nothing, so that something would be written there.
        OSError: If it cannot be made or opened.
    """

    def __init__(self, folder: Path) -> None:
        self._handle: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        check_links(folder)
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


def check_own(outputs: Iterable[Path], journal: Path, command: str, *, is_forced: bool) -> None:
    """Check that a command replaces only files that it wrote itself.

    Args:
        outputs: The files that it will write.
        journal: Its journal; there if it wrote into the folder before.
        command: Its name, for the message.
        is_forced: Whether anything may be replaced.

    Raises:
        ValueError: If one of the files exists and there is no journal.
    """
    found = next((path for path in outputs if path.exists()), None)
    if found and not is_forced and not journal.exists():
        raise ValueError(
            f"'{found}' exists, and `{command}` did not write it. Choose another output folder, or "
            "add --force to replace it."
        )


def check_links(folder: Path) -> None:
    """Check that files written into a folder stay inside it; links to files are replaced.

    Raises:
        ValueError: If a link in it leads to a folder outside, or to nothing.
    """
    within, waiting = folder.resolve(), [str(folder)]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                found = list(entries)
        except (FileNotFoundError, PermissionError):  # such as lost+found; nothing is written there
            continue
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif entry.is_symlink() and not os.path.isfile(entry.path):
                target = os.path.realpath(entry.path)
                if not Path(target).is_relative_to(within):
                    raise ValueError(
                        f"'{entry.path}' is a link to '{target}', outside the folder to write. "
                        "Remove it, or give another output folder."
                    )


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a folder while the block runs; see `FolderLock`."""
    lock = FolderLock(folder)
    try:
        yield
    finally:
        lock.release()


class Journal:
    """An append-only record of finished items, one JSON line each, that survives any kill.

    It is written within about a second (a new one at once), and by `close`. The files that items
    name as `path` and `others` are synced first, so that they exist even after a power cut. Only
    one thread may use it.

    The first line holds the settings of the work. A journal with other settings is refused, or
    replaced if `force` is set. Until `close` no other run may write into its folder.

    Args:
        path: The journal file; made by the first `add`.
        settings: JSON-able settings that all items share.
        force: Replace a journal with other settings.

    Attributes:
        replaced: Records of the journal that was replaced.

    Raises:
        ValueError: If the journal has other settings (the message names both sides), or another run
            is writing into its folder.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *, force: bool = False) -> None:
        self.path = path
        self._settings = json.loads(json.dumps(settings))
        self._records: dict[str, dict[str, Any]] = {}
        self.replaced: list[dict[str, Any]] = []
        self._is_begun = False
        self._pending: deque[tuple[str, dict[str, Any]]] = deque()
        self._writing = threading.Lock()
        self._timer: threading.Timer | None = None
        self._error: OSError | None = None
        self._lock = FolderLock(path.parent) if path.parent.exists() else None
        try:
            if path.exists():
                self._read(force)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Write pending items, and let others write into the folder.

        Raises:
            OSError: If it cannot be written.
        """
        if (timer := self._timer) is not None:
            timer.cancel()
        try:
            self._write()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _read(self, force: bool) -> None:
        entries: list[Any] = []
        damaged: tuple[int, Exception] | None = None
        with regular(self.path).open(errors="replace") as file:
            for number, line in enumerate(file):
                if damaged is not None:  # only the last line may be cut off, by a kill
                    raise ValueError(
                        f"'{self.path}' is damaged at line {damaged[0] + 1}. Delete the folder "
                        f"'{self.path.parent}' and run the command again."
                    ) from damaged[1]
                try:
                    entry = json.loads(line)
                    if number:  # names are checked, as commands delete files that journals name
                        entry = _typed(entry["name"], str), _typed(entry["record"], dict)
                        for name in (entry[0], *_files(entry[1])):
                            check_inside(name)
                    else:
                        entry = _typed(entry["settings"], dict)
                    entries.append(entry)
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    damaged = number, error
                    del entries[number:]
        if not entries:
            return
        found, needed = entries[0], self._settings
        if found != needed:
            if force:
                self.replaced = [record for _, record in entries[1:]]
                self._rewrite()
                return
            names = sorted(set(found) | set(needed))
            differing = [
                f"{name} {found.get(name)!r}, now {needed.get(name)!r}"
                for name in names
                if found.get(name) != needed.get(name)
            ]
            raise ValueError(
                f"'{self.path.parent}' was made with other settings ({'; '.join(differing)}). "
                "Choose another output folder, or add --force to replace its content."
            )
        self._records = dict(entries[1:])
        self._rewrite()

    def _rewrite(self) -> None:
        self._lock = self._lock or FolderLock(self.path.parent)
        with atomic_write(self.path) as temporary, temporary.open("w") as file:
            file.write(json.dumps({"settings": self._settings}) + "\n")
            file.writelines(_line(*item) for item in self._records.items())
        self._is_begun = True

    @property
    def names(self) -> list[str]:
        """Return the names of the finished items."""
        return list(self._records)

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """Return the records of the finished items."""
        return dict(self._records)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return the record of a finished item, or None."""
        return self._records.get(name)

    def forget(self, names: Iterable[str]) -> None:
        """Remove some items from the finished ones."""
        names = set(names)
        if names & set(self._records):
            self._write()
            self._records = {k: v for k, v in self._records.items() if k not in names}
            self._rewrite()

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Record that item `name` is finished.

        Raises:
            OSError: If the journal, or an earlier item, cannot be written to disk.
        """
        if not self._is_begun:
            self._rewrite()
        self._records[name] = record
        self._pending.append((name, record))
        if self._error is not None or len(self._records) == 1:
            self._write()
        elif self._timer is None:
            self._timer = threading.Timer(SYNC_EVERY_S, self._write_later)
            self._timer.daemon = True
            self._timer.start()

    def _write_later(self) -> None:
        self._timer = None  # later items start another timer
        try:
            self._write()
        except OSError as error:  # raised by the next `add`
            self._error = error

    def _write(self) -> None:
        """Sync the files of pending items, then write the items."""
        with self._writing:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            items = [self._pending.popleft() for _ in range(len(self._pending))]
            if not items:
                return
            folder = self.path.parent
            paths = [folder / name for _, record in items for name in _files(record)]
            paths = [path for path in paths if path.exists()]
            sync(paths)
            sync({path.parent for path in paths})
            with self.path.open("a") as file:
                file.writelines(_line(*item) for item in items)
            sync([self.path])


def _line(name: str, record: dict[str, Any]) -> str:
    return json.dumps({"name": name, "record": record}) + "\n"


def _files(record: dict[str, Any]) -> list[str]:
    """Return the files that a journal item names, relative to its folder."""
    path = [record["path"]] if "path" in record else []
    return [_typed(name, str) for name in (*path, *_typed(record.get("others", []), list))]


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"it holds a {type(value).__name__} instead of a {kind.__name__}")
    return value
