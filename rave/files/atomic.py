"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

PARTIAL_PREFIX = ".partial-"
LARGEST = {int: 2**64 - 1, float: sys.float_info.max}
SYNC_THREADS = 16  # file systems commit concurrent requests together, 20 times as fast


def sync(paths: Iterable[Path]) -> None:
    """Write files, and the names in folders, to disk, so that they survive a power cut.

    Windows cannot do this for folders, and some file systems cannot do it at all.

    Raises:
        OSError: If one is missing or cannot be written.
    """
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        list(pool.map(_sync, paths))


def _sync(path: Path) -> None:
    is_windows = os.name == "nt"
    if is_windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_write(path: Path, *, is_durable: bool = True) -> Iterator[Path]:
    """Yield a path beside `path`; rename it onto `path` if the block succeeds, else delete it.

    Args:
        path: Final file. Missing parent folders are made. A link there is replaced, not followed.
        is_durable: `sync` the file before the rename, and the folder after it. False: for one of
            many files that a `Journal` syncs, or that can be made again.

    Yields:
        Path to write to. It has the suffix of `path`, so format-by-suffix writers work.

    Raises:
        OSError: If the folder cannot be made or written (disk full, read-only).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _partial(path)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        if is_durable:
            sync([temporary])
        os.replace(temporary, path)
        if is_durable:
            sync([path.parent])
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; rename it to `path` if the block succeeds, else delete it.

    Its content is synced (`sync`) before the rename, and its name after it.

    Args:
        path: Final folder, new or empty. Missing parent folders are made.

    Yields:
        Folder to fill.

    Raises:
        OSError: If the folder cannot be made or written, or `path` is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _partial(path)
    temporary.mkdir()
    try:
        yield temporary
        sync([temporary, *temporary.rglob("*")])
        if path.is_dir():
            path.rmdir()
        os.replace(temporary, path)
        sync([path.parent])
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path) -> None:
    """Refuse a path where `atomic_folder` cannot make a folder.

    Raises:
        ValueError: If it is a file, or a folder that is not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"'{path}' exists and is not an empty folder. Choose another name.")


def _partial(path: Path) -> Path:
    """Return a new name beside `path`.

    (`tempfile` makes private files, and reading the umask means setting it, for all threads.)
    """
    return path.with_name(f"{PARTIAL_PREFIX}{secrets.token_urlsafe(6)}{path.suffix}")


def remove_partials(folder: Path) -> None:
    """Remove temporary files of `atomic_write` and `atomic_folder` that a killed program left."""
    for path in list(folder.rglob(f"{PARTIAL_PREFIX}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def check_output_folder(folder: Path, *sources: Path | None) -> None:
    """Check that an output folder is a folder, and not inside a source folder.

    Raises:
        ValueError: If `folder` is a file, or is one of `sources` or inside it.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file; the output is a folder. Choose another name.")
    for source in sources:
        if source and folder.resolve().is_relative_to(source.resolve()):
            raise ValueError(
                f"The output folder '{folder}' is inside the input folder '{source}'. "
                "Choose one outside, so that output is never read as input."
            )


def check_no_source(outputs: Iterable[Path], sources: Iterable[Path]) -> None:
    """Check that no output would overwrite a source.

    Raises:
        ValueError: If one would; the message names it.
    """
    originals = {path.resolve() for path in sources}
    for output in outputs:
        if output.resolve() in originals:
            raise ValueError(
                f"'{output}' would overwrite its source. Choose another name or folder."
            )


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` as indented JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def regular(path: Path) -> Path:
    """Return `path` if it is a regular file, which can be read without blocking.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is a folder, a pipe, a socket or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"'{path}' is not a file but a folder, a pipe or a device. Remove it.")
    return path


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: If the file is missing or not JSON; the message states that it is not `what`.
    """
    try:
        return json.loads(regular(path).read_text(), parse_constant=_no_number)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"'{path}' does not exist, so '{path.parent}' is not {what}.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not valid JSON ({error}), so it is not {what}.") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def read_header(
    path: Path, what: str, build: Callable[[dict[str, Any]], T], remedy: str, **tag: Any
) -> T:
    """Return what `build` returns for the header of a folder.

    Args:
        path: The JSON file.
        what: What its folder is, e.g. "a latent folder".
        build: Takes the content without the tag; a `TypeError`, `KeyError` or `ValueError` means
            that content is missing or invalid.
        remedy: What the user should do, e.g. "Encode again."
        tag: `format` and `version` that the header must have.

    Raises:
        ValueError: If the file is missing, has another format or version, or is incomplete.
    """
    content = read_json(path, what)
    if not isinstance(content, dict) or content.pop("format", None) != tag["format"]:
        raise ValueError(f"'{path}' is not the header of {what}. {remedy}")
    version = content.pop("version", None)
    if version != tag["version"]:
        raise ValueError(
            f"'{path.parent}' is {what} of format {version}; this program reads {tag['version']}. "
            f"{remedy} Or install the version of rave-diffwave that wrote it."
        )
    try:
        return build(content)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"'{path}' is not a complete header of {what} ({error}). {remedy}"
        ) from error


def built(record_class: type[T], content: Any) -> T:
    """Return a dataclass built from JSON content; each value has the declared type.

    Raises:
        TypeError: If a value has another type, is missing, or is unknown to the class.
    """
    if not isinstance(content, dict):
        raise TypeError(f"a {record_class.__name__} is {_shown(content)}")
    types = _types(record_class)  # type: ignore[arg-type]  # a class is hashable
    values = {name: typed(value, types.get(name, Any), name) for name, value in content.items()}
    return record_class(**values)


_types = cache(get_type_hints)  # looked up for each of many files


def typed(value: Any, needed: Any, name: str) -> Any:
    """Return a JSON value if it has the needed type; numbers must be finite and fit 64 bits.

    Raises:
        TypeError: If it has another type; the message names it.
    """
    kind, arguments = get_origin(needed), get_args(needed)
    if is_dataclass(needed):
        return built(needed, value)  # type: ignore[arg-type]  # a class, no instance
    if kind is list and isinstance(value, list):
        return [typed(item, arguments[0], name) for item in value]
    if kind is tuple and isinstance(value, list) and len(value) == len(arguments):
        return tuple(typed(*item, name) for item in zip(value, arguments, strict=True))
    if kind is dict and isinstance(value, dict):
        return {key: typed(item, arguments[1], name) for key, item in value.items()}
    if kind in (Union, UnionType) and (value is None) <= (type(None) in arguments):
        return value if value is None else typed(value, arguments[0], name)
    if type(value) in (int, float) and not abs(value) <= LARGEST[type(value)]:
        raise TypeError(f"{name} is {_shown(value)}")
    if needed is Any or type(value) is needed or (needed is float and type(value) is int):
        return value
    raise TypeError(f"{name} is {_shown(value)}")


def check_record(record: dict[str, Any], **types: Any) -> None:
    """Check the fields that a command reads from a journal record, and their types.

    Raises:
        TypeError: If a value has another type.
        KeyError: If a field is missing that may not be None.
    """
    for name, needed in types.items():
        is_optional = type(None) in get_args(needed)
        typed(record.get(name) if is_optional else record[name], needed, name)


def _shown(value: Any) -> str:
    return text if len(text := repr(value)) < 40 else text[:36] + " ..."


def check_inside(name: str) -> None:
    """Check that a name, perhaps from an untrusted file, stays inside its folder.

    `A:B.wav` is allowed where drives have no letters; `/B.wav` is refused everywhere.

    Raises:
        ValueError: If it leads out of the folder, here or on Windows.
    """
    windows = PureWindowsPath(name)
    parts = {*PurePosixPath(name).parts, *windows.parts}
    has_drive = os.name == "nt" and windows.drive
    if windows.root or has_drive or ".." in parts or not parts or "\0" in name:
        raise ValueError(f"the name '{name}' leads out of its folder")


def remove_header(path: Path) -> None:
    """Remove a folder's header durably, before the files that it names are replaced."""
    if path.exists() or path.is_symlink():
        path.unlink()
        sync([path.parent])


def digest(path: Path) -> str:
    """Return the SHA-256 of a small file, or an empty string if there is none.

    Compute it before the file is read: a change in between is then noticed at the next run.
    """
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def source_stamp(path: Path) -> dict[str, int]:
    """Return the size in bytes and modification time in ns, which show whether a file changed."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def native_path(path: Path) -> Path | bytes:
    """Return a path in the form for libsndfile: on POSIX, names are bytes that need not be text."""
    return os.fsencode(path) if os.name == "posix" else path
