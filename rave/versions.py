"""Versions of a recording, such as transposed ones, and which recordings are held out.

a.flac, a~1.flac, a~2.flac are one recording: `rave augment` names its versions so. They are never
divided between training and what is held out, and nothing is measured on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rave.files import built, read_header, write_json

SPLIT_FORMAT, SPLIT_VERSION, SPLIT_NAME = "rave-diffwave-split", 1, "split.json"
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


def key_of(digest: bytes) -> int:
    """Return the first 8 bytes of a digest as a number; numbers are ordered as digests are."""
    return int.from_bytes(digest[:8], "big")


@dataclass(frozen=True)
class Split:
    """Which recordings are held out: fixed when a run begins, so that new ones move no other.

    Attributes:
        below: Recordings whose key, `key_of` their digest, is lower are held out.
        fraction: Of the recordings that was asked for.
        only: Key of the only recording there was, whose end is held out; None if there were more.
    """

    below: int
    fraction: float
    only: int | None = None

    @classmethod
    def of(cls, keys: Any, held_out: float | Split) -> Split:
        """Return the split that holds out a fraction of the recordings with these keys.

        At least one if there are two, and never all. A split is returned as it is.
        """
        if isinstance(held_out, Split):
            return held_out
        known = np.unique(np.asarray(keys, np.uint64))
        if len(known) < 2:
            return cls(round(held_out * (2**64 - 1)), held_out, *known.tolist())
        return cls(int(known[num_held_out(len(known), held_out)]), held_out)

    @classmethod
    def read(cls, run_folder: Path) -> Split | None:
        """Return the split of a run; None if it has none, as runs from before 2026-12.

        Raises:
            ValueError: If it cannot be read.
        """
        if not (run_folder / SPLIT_NAME).exists():
            return None
        remedy = "Copy it from where the run was made."
        return read_header(
            run_folder / SPLIT_NAME,
            "a run",
            lambda content: built(cls, content),
            remedy,
            format=SPLIT_FORMAT,
            version=SPLIT_VERSION,
        )

    def write(self, run_folder: Path) -> None:
        """Write the split into a run, whole or not at all."""
        tag = {"format": SPLIT_FORMAT, "version": SPLIT_VERSION}
        write_json(run_folder / SPLIT_NAME, {**tag, **asdict(self)})

    def divides(self, key: int) -> bool:
        """Return whether only the end of a recording is held out."""
        return key == self.only

    def holds_out(self, key: int) -> bool:
        """Return whether a whole recording is held out."""
        return key < self.below and key != self.only

    def check(self, num_training: int, num_held_out: int) -> None:
        """Check that there are files to train on, and files that are held out.

        Raises:
            ValueError: If none is left of either.
        """
        for count, what in ((num_training, "may train on"), (num_held_out, "holds out")):
            if not count:
                raise ValueError(
                    f"The data has no recording that this run {what}: which recordings are held "
                    "out follows from their names, and was fixed when the run began. Put back "
                    "what was removed or renamed since, or give another --out."
                )


def data_state(keys: Any, lengths: Any, content: object = None) -> dict[str, Any]:
    """Return what shows whether recordings are the same, in any order: their number and a digest.

    Args:
        keys: Of each file's recording.
        lengths: Of each file.
        content: What was measured of them all, if it was.
    """
    pairs = np.stack([np.asarray(keys, np.uint64), np.asarray(lengths, np.uint64)])
    pairs = pairs[:, np.lexsort(pairs[::-1])]
    digest = sha256(pairs.astype("<u8").tobytes() + repr(content).encode())
    return {"num_recordings": len(np.unique(pairs[0])), "digest": digest.hexdigest()}


def what_changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return what a run that goes on with other data says; both of `data_state`."""
    counts = [state["num_recordings"] for state in (now, before)]
    what = "in names or content" if len(set(counts)) == 1 else "{} recordings, {} before"
    return (  # losses on other held-out music cannot be compared: the best begins anew
        f"The data has changed since the last checkpoint: {what.format(*counts)}. What was held "
        "out stays held out, what was trained on stays so, and new recordings are divided by the "
        "same rule. What was measured of the data when the run began, such as scales, is kept. "
        "best.ckpt is chosen anew."
    )


def recording_keys(names: Iterable[str]) -> NDArray[np.uint64]:
    """Return the key of each file's recording."""
    return np.array([key_of(recording_digest(name)) for name in names], np.uint64)


def split_names(names: Iterable[str], held_out: float | Split) -> tuple[list[str], list[str]]:
    """Divide whole recordings into training and held-out ones, the same way for audio and latents.

    The choice depends on each name without its suffix and on nothing else, so that adding files
    moves few others, and a RAVE and a DiffWave trained on one folder hold out the same pieces. By
    the split of a run, adding files moves no other.

    Args:
        names: Relative posix paths.
        held_out: Fraction of the number of recordings, or the split of a run.

    Returns:
        Training names and held-out names, each in the given order; versions of what is held out
        are in neither. Of a recording of which the end is held out, both name it.

    Raises:
        ValueError: If a run's split leaves nothing to train on, or nothing held out.
    """
    names = list(names)
    keys = dict(zip(names, recording_keys(names).tolist(), strict=True))
    split = Split.of(list(keys.values()), held_out)
    training = [name for name in names if not split.holds_out(keys[name])]
    kept_back = [n for n in originals(names) if split.holds_out(keys[n]) or split.divides(keys[n])]
    if held_out is split:
        split.check(len(training), len(kept_back))
    return training, kept_back


def first_held_out(length: int, held_out_fraction: float) -> int:
    """Return where the held-out end of the only recording begins, of a length from 2."""
    return length - min(max(round(held_out_fraction * length), 1), length - 1)
