"""Storage of the page: a numbered folder for each input sound and each result.

FOLDER/001-sound/audio/a.wav, latents/      an input sound and its latents
FOLDER/002-vary/NAME.wav, latents/          a result and its latents
FOLDER/002-vary/command.txt, made.json      the commands that make it, and the text on the page
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
    """An input sound.

    Attributes:
        audio: Audio file.
        latents: File of its latents.
        seconds: Duration in seconds.
        warnings: Changes made to it, and warnings of its commands.
    """

    audio: Path
    latents: Path
    seconds: float
    warnings: list[str]


@dataclass(frozen=True)
class Record:
    """Text on the page about a result.

    Attributes:
        title: Short description.
        seconds: Duration in seconds.
        seed: Random seed.
        command: Shell lines that make it again, in the folder `again`.
        warnings: Warnings of its commands.
    """

    title: str
    seconds: float
    seed: int
    command: str
    warnings: list[str]


@dataclass(frozen=True)
class Output(Record):
    """A result in its folder.

    Attributes:
        audio: WAV file.
        latents: File of its latents, if it has one.
    """

    audio: Path
    latents: Path | None


def file_name(text: str, max_bytes: int) -> str:
    """Return text as a file name without suffix that is valid on every system; maybe empty."""
    words = re.sub(r"[^\w.-]+", "_", text).strip("._-")
    return words.encode()[:max_bytes].decode(errors="ignore")


@contextlib.contextmanager
def new_folder(parent: Path, kind: str) -> Iterator[Path]:
    """Make the next numbered folder; remove it if the block fails.

    Raises:
        OSError: If it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    newest = max(_numbered(parent), default=(0, parent))[0]
    for number in itertools.count(newest + 1):
        folder = parent / f"{number:03d}-{kind}"
        with contextlib.suppress(FileExistsError):  # another page uses this folder too
            folder.mkdir()
            break
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def store(folder: Path, audio: Path, record: Record) -> Output:
    """Rename a result by its title and write its record.

    Args:
        folder: Folder of `new_folder`.
        audio: The file in its folder `audio` to keep.
        record: Text on the page about it.

    Raises:
        OSError: If a file cannot be written.
    """
    number, _, _ = folder.name.partition("-")
    name = f"{number}_{file_name(record.title, 120)}_seed_{record.seed}.wav"
    audio.rename(folder / name)
    shutil.rmtree(folder / "audio")
    (folder / "command.txt").write_text(record.command + "\n")
    write_json(folder / RECORD, asdict(record))
    return _read(folder)


def newest_results(parent: Path, count: int) -> list[Output]:
    """Return at most `count` results of a folder, the newest first."""
    found: list[Output] = []
    for _, folder in sorted(_numbered(parent), reverse=True):
        if len(found) == count:
            break
        with contextlib.suppress(ValueError, TypeError, OSError):  # an input sound, or incomplete
            found.append(_read(folder))
    return found


def _read(folder: Path) -> Output:
    record = built(Record, read_json(folder / RECORD, "a result"))
    audio = next(folder.glob("*.wav"), None)
    if audio is None:
        raise ValueError(f"'{folder}' holds no WAV.")
    latents = next(folder.glob("latents/*.npy"), None)
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return Output(**values, audio=audio, latents=latents)


def _numbered(parent: Path) -> list[tuple[int, Path]]:
    found = ((re.match(r"\d+(?=-)", path.name), path) for path in parent.glob("*-*"))
    return [(int(number[0]), path) for number, path in found if number]
