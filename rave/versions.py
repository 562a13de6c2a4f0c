"""Versions of a recording, such as transposed ones, and which recordings are held out.

a.flac, a~1.flac, a~2.flac are one recording: `rave augment` names its versions so. They are never
divided between training and what is held out, and nothing is measured on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import PurePosixPath

VERSION_NAME = re.compile(r"~\d+$")


def version_name(name: str, number: int, suffix: str) -> str:
    """Return the name of a version, from 1, of the file of a name."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}~{number}{suffix}"))


def original_name(name: str) -> str:
    """Return the name, without suffix, of the recording that a file is, or is a version of."""
    return VERSION_NAME.sub("", str(PurePosixPath(name).with_suffix("")))


def is_version(name: str) -> bool:
    """Return whether a file is named as a version of a recording."""
    return VERSION_NAME.search(PurePosixPath(name).stem) is not None


def originals(names: Iterable[str]) -> list[str]:
    """Return the names that are no versions; the first version where there is nothing else."""
    names = list(names)
    known = {original_name(name) for name in names if not is_version(name)}
    kept = []
    for name in names:
        if not is_version(name) or original_name(name) not in known:
            known.add(original_name(name))
            kept.append(name)
    return kept


def recording_digest(name: str) -> bytes:
    """Return 32 bytes of a recording, the same for its versions; the lowest are held out."""
    return sha256(original_name(name).encode(errors="surrogateescape")).digest()


def num_held_out(num_recordings: int, held_out_fraction: float) -> int:
    """Return how many of at least 2 recordings are held out: one at least, and never all."""
    return min(max(round(held_out_fraction * num_recordings), 1), num_recordings - 1)


def split_names(names: Iterable[str], held_out_fraction: float) -> tuple[list[str], list[str]]:
    """Divide whole recordings into training and held-out ones, the same way for audio and latents.

    The choice depends on each name without its suffix and on nothing else, so that adding files
    moves few others, and a RAVE and a DiffWave trained on one folder hold out the same pieces.

    Args:
        names: Relative posix paths.
        held_out_fraction: Of the number of recordings; at least one is held out if there are two.

    Returns:
        Training names and held-out names, each in the given order; versions of what is held out
        are in neither. With one recording, both name it.
    """
    names = list(names)
    recordings = originals(names)
    if len(recordings) < 2:
        return names, recordings
    order = sorted(recordings, key=recording_digest)
    count = num_held_out(len(recordings), held_out_fraction)
    held_out = {original_name(name) for name in order[:count]}
    return (
        [name for name in names if original_name(name) not in held_out],
        [name for name in recordings if original_name(name) in held_out],
    )


def first_held_out(length: int, held_out_fraction: float) -> int:
    """Return where the held-out end of the only recording begins, of a length from 2."""
    return length - min(max(round(held_out_fraction * length), 1), length - 1)
