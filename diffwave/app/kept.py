"""What the page keeps: a numbered folder for each sound that was given, and each that was made.

FOLDER/001-sound/audio/a.wav, latents/      a sound that was given, and its latents
FOLDER/002-vary/NAME.wav, latents/          what was made, named after what it is
FOLDER/002-vary/command.txt, made.json      what makes it again, and what the page says of it
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rave.files.atomic import built, read_json, write_json

RECORD = "made.json"


@dataclass(frozen=True)
class Sound:
    """A sound that was given.

    Attributes:
        audio: Its file.
        latents: The file of its latents.
        seconds: Its length.
        warnings: What was done to it on the way in, and what its commands warned of.
    """

    audio: Path
    latents: Path
    seconds: float
    warnings: list[str]


@dataclass(frozen=True)
class Record:
    """What the page says of a sound that was made.

    Attributes:
        title: What it is, in a few words.
        seconds: Its length.
        seed: Of the noise in it.
        command: Shell lines that make it again, in the folder `again`.
        warnings: What its commands warned of.
    """

    title: str
    seconds: float
    seed: int
    command: str
    warnings: list[str]


@dataclass(frozen=True)
class Made(Record):
    """A sound that was made.

    Attributes:
        audio: Its file, a WAV.
        latents: The file of its latents, if it has one.
    """

    audio: Path
    latents: Path | None


def file_name(text: str, max_bytes: int) -> str:
    """Return text as a file's name that every system takes, without a suffix; maybe empty."""
    words = re.sub(r"[^\w.-]+", "_", text).strip("._-")
    return words.encode()[:max_bytes].decode(errors="ignore")


@contextlib.contextmanager
def new_folder(parent: Path, kind: str) -> Iterator[Path]:
    """Make the next numbered folder; remove it if what fills it fails.

    Raises:
        OSError: If it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    newest = max(_numbered(parent), default=(0, parent))[0]
    for number in itertools.count(newest + 1):
        folder = parent / f"{number:03d}-{kind}"
        with contextlib.suppress(FileExistsError):  # another page keeps its sounds here too
            folder.mkdir()
            break
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def keep(folder: Path, audio: Path, record: Record) -> Made:
    """Name what a folder's commands made after what it is, and note what the page says of it.

    Args:
        folder: Of `new_folder`.
        audio: What is kept of its folder `audio`.
        record: What the page says of it.

    Raises:
        OSError: If something cannot be written.
    """
    number, _, _ = folder.name.partition("-")
    name = f"{number}_{file_name(record.title, 120)}_seed_{record.seed}.wav"
    audio.rename(folder / name)
    shutil.rmtree(folder / "audio")
    (folder / "command.txt").write_text(record.command + "\n")
    write_json(folder / RECORD, asdict(record))
    return _read(folder)


def kept(parent: Path, count: int) -> list[Made]:
    """Return the newest sounds that were made, at most `count`, the newest first."""
    found: list[Made] = []
    for _, folder in sorted(_numbered(parent), reverse=True):
        if len(found) == count:
            break
        with contextlib.suppress(ValueError, TypeError, OSError):  # a sound, or not whole
            found.append(_read(folder))
    return found


def _read(folder: Path) -> Made:
    record = built(Record, read_json(folder / RECORD, "a result"))
    audio = next(folder.glob("*.wav"), None)
    if audio is None:
        raise ValueError(f"'{folder}' holds no WAV.")
    latents = next(folder.glob("latents/*.npy"), None)
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return Made(**values, audio=audio, latents=latents)


def _numbered(parent: Path) -> list[tuple[int, Path]]:
    found = ((re.match(r"\d+(?=-)", path.name), path) for path in parent.glob("*-*"))
    return [(int(number[0]), path) for number, path in found if number]
