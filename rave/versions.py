"""Versions of a recording, such as transposed ones, and which recordings are held out.

`rave augment` notes in each version that it writes of which recording beside it that is one, and
headers pass it on. Versions are never divided between training and what is held out, and nothing is
measured on them. A name shows nothing: RECORD~1.WAV and RECORD~2.WAV are two recordings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

VERSION_SUFFIX = ".flac"
NOTE = "version_of"
JOURNAL_NAME = ".augment.jsonl"  # of `rave augment`
VERSION_NAME = re.compile(r"~\d+$")


class Origin(NamedTuple):
    """What a file was made from.

    Attributes:
        recording: Name of the recording, without suffix, the same for all its versions.
        is_version: Whether the file is a version of it, not the recording itself.
    """

    recording: str
    is_version: bool = False


def without_suffix(name: str) -> str:
    """Return a relative posix name without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def origin(path: str, recording: str | None) -> Origin:
    """Return the origin of a file of a header.

    Args:
        path: Of what was made of it; without suffix it is its recording if it is no version.
        recording: As the header states it; None in headers written before 2026-12, which called
            versions what is named a~1.
    """
    if recording is not None:
        return Origin(recording, without_suffix(path) != recording)
    stem = without_suffix(path)
    return Origin(VERSION_NAME.sub("", stem), VERSION_NAME.search(stem) is not None)


def note_of(recording: str) -> str:
    """Return what a version carries: ASCII that holds any name.

    Args:
        recording: Name of the file beside it of which it is a version.
    """
    return json.dumps({NOTE: recording})


def recordings(sources: Mapping[str, Path], results: Mapping[str, str]) -> dict[str, str]:
    """Return the name, without suffix, of the recording that each audio file is or is a version of.

    Args:
        sources: Relative posix names and paths.
        results: Paths of what is made of each, see `rave.batch.result_names`.
    """
    found = {}
    for name, path in sources.items():
        beside = noted(path)
        original = name if beside is None else str(PurePosixPath(name).with_name(beside))
        found[name] = without_suffix(results.get(original, original))
        if beside is None and _is_old_version(name, path):
            found[name] = origin(name, None).recording
    return found


def _is_old_version(name: str, path: Path) -> bool:
    """Return whether `rave augment` wrote a file before 2026-12, without a note.

    Its journal holds the names of recordings, of which none was named as a version then.
    """
    if origin(name, None).is_version:
        for folder in path.parents[: len(PurePosixPath(name).parts)]:
            journal = folder / JOURNAL_NAME
            if journal.is_file():
                return json.dumps(path.relative_to(folder).as_posix()) not in journal.read_text()
    return False


def noted(path: Path) -> str | None:
    """Return the name of the file beside it of which an audio file is a version, or None.

    It is the note that `rave augment` wrote into it.
    """
    import soundfile

    from rave.audio import native_path

    if path.suffix.lower() != VERSION_SUFFIX:
        return None
    try:
        with soundfile.SoundFile(native_path(path)) as file:
            noted = json.loads(file.comment)[NOTE]
            return noted if isinstance(noted, str) and PurePosixPath(noted).name == noted else None
    except (soundfile.LibsndfileError, ValueError, KeyError, TypeError):
        return None


def originals(origins: Mapping[str, Origin]) -> list[str]:
    """Return the names that are no versions; the first version where there is nothing else."""
    known = {found.recording for found in origins.values() if not found.is_version}
    kept = []
    for name, found in origins.items():
        if not found.is_version or found.recording not in known:
            known.add(found.recording)
            kept.append(name)
    return kept


def recording_digest(recording: str) -> bytes:
    """Return 32 bytes of a recording; the lowest are held out."""
    return sha256(recording.encode(errors="surrogateescape")).digest()


def num_held_out(num_recordings: int, held_out_fraction: float) -> int:
    """Return how many of at least 2 recordings are held out: one at least, and never all."""
    return min(max(round(held_out_fraction * num_recordings), 1), num_recordings - 1)


def split_names(
    origins: Mapping[str, Origin], held_out_fraction: float
) -> tuple[list[str], list[str]]:
    """Divide whole recordings into training and held-out ones, the same way for audio and latents.

    The choice depends on each recording's name without its suffix and on nothing else, so that
    adding files moves few others, and a RAVE and a DiffWave trained on one folder hold out the same
    pieces.

    Args:
        origins: Of each name.
        held_out_fraction: Of the number of recordings; at least one is held out if there are two.

    Returns:
        Training names and held-out names, each in the given order; versions of what is held out
        are in neither. With one recording, both name it.
    """
    kept = originals(origins)
    order = sorted({origins[name].recording for name in kept}, key=recording_digest)
    if len(order) < 2:
        return list(origins), kept
    held_out = set(order[: num_held_out(len(order), held_out_fraction)])
    return (
        [name for name in origins if origins[name].recording not in held_out],
        [name for name in kept if origins[name].recording in held_out],
    )


def first_held_out(length: int, held_out_fraction: float) -> int:
    """Return where the held-out end of the only recording begins, of a length from 2."""
    return length - min(max(round(held_out_fraction * length), 1), length - 1)
