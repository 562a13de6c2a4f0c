"""Which recordings are held out, and which files are (transposed) versions of a recording.

`rave augment` stores the recording's name in each version, and headers pass it on. A recording and
its versions are never split between training and held-out data, and nothing is measured on
versions. Names of files are not used: RECORD~1.WAV and RECORD~2.WAV are two recordings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rave.files.atomic import built, read_header, write_json

SPLIT_FORMAT, SPLIT_VERSION, SPLIT_NAME = "rave-diffwave-split", 1, "split.json"
VERSION_SUFFIX = ".flac"
NOTE = "version_of"


class Origin(NamedTuple):
    """The recording of a file.

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
        path: Path of its result; without suffix, the recording's name if it is not a version.
        recording: Recording in the header; None in headers of the patched acids-rave, which has no
            versions.
    """
    stem = without_suffix(path)
    return Origin(stem if recording is None else recording, recording not in (None, stem))


def note_of(recording: str) -> str:
    """Return the note that a version stores, in ASCII.

    Args:
        recording: File name of its recording, in the same folder.
    """
    return json.dumps({NOTE: recording})


def recordings(sources: Mapping[str, Path], results: Mapping[str, str]) -> dict[str, str]:
    """Return the recording of each audio file, by its name without suffix.

    Args:
        sources: Relative posix names and paths.
        results: Paths of their results, from `rave.jobs.loop.result_names`.
    """
    found = {}
    for name, path in sources.items():
        beside = noted(path)
        original = name if beside is None else str(PurePosixPath(name).with_name(beside))
        found[name] = without_suffix(results.get(original, original))
    return found


def noted(path: Path) -> str | None:
    """Return the file name of the recording that `rave augment` stored in a version, or None."""
    import soundfile

    from rave.files.atomic import native_path

    if path.suffix.lower() != VERSION_SUFFIX or not path.is_file():
        return None
    try:
        with soundfile.SoundFile(native_path(path)) as file:
            name = json.loads(file.comment)[NOTE]
            return name if isinstance(name, str) and PurePosixPath(name).name == name else None
    except (soundfile.LibsndfileError, ValueError, KeyError, TypeError, RecursionError):
        return None


def originals(origins: Mapping[str, Origin]) -> list[str]:
    """Return the names of recordings; of the first version where the recording is missing."""
    known = {found.recording for found in origins.values() if not found.is_version}
    kept = []
    for name, found in origins.items():
        if not found.is_version or found.recording not in known:
            known.add(found.recording)
            kept.append(name)
    return kept


def recording_digest(recording: str) -> bytes:
    """Return the digest of a recording's name, 32 bytes; the lowest digests are held out."""
    return sha256(recording.encode(errors="surrogateescape")).digest()


def num_held_out(num_recordings: int, held_out_fraction: float) -> int:
    """Return how many of at least 2 recordings are held out: one at least, and never all."""
    return min(max(round(held_out_fraction * num_recordings), 1), num_recordings - 1)


def key_of(digest: bytes) -> int:
    """Return the first 8 bytes of a digest as a number; numbers are ordered as digests are."""
    return int.from_bytes(digest[:8], "big")


@dataclass(frozen=True)
class Split:
    """The held-out recordings of a run, fixed when it begins, so that new files change no other.

    Attributes:
        below: Recordings with a lower key (`key_of` their digest) are held out.
        fraction: Requested fraction of the recordings.
        only: Key of the only recording, whose end is held out; None if there were several.
    """

    below: int
    fraction: float
    only: int | None = None

    @classmethod
    def of(cls, keys: Any, held_out: float | Split) -> Split:
        """Return the split that holds out a fraction of the recordings with these keys.

        At least one if there are two, and never all. A split is returned unchanged.
        """
        if isinstance(held_out, Split):
            return held_out
        known = np.unique(np.asarray(keys, np.uint64))
        if len(known) < 2:
            return cls(round(held_out * (2**64 - 1)), held_out, *known.tolist())
        return cls(int(known[num_held_out(len(known), held_out)]), held_out)

    @classmethod
    def read(cls, run_folder: Path) -> Split | None:
        """Return the split of a run; None if it has none, as a released model.

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
                    f"The data has no recording that this run {what}: held-out recordings were "
                    "chosen by name when the run began. Restore the files that were removed or "
                    "renamed since, or give another --out."
                )


def data_state(keys: Any, lengths: Any, content: object = None) -> dict[str, Any]:
    """Return number and digest of recordings, in any order, which show whether they changed.

    Args:
        keys: Key of each file's recording.
        lengths: Length of each file.
        content: Further content, such as statistics of all files.
    """
    pairs = np.stack([np.asarray(keys, np.uint64), np.asarray(lengths, np.uint64)])
    pairs = pairs[:, np.lexsort(pairs[::-1])]
    digest = sha256(pairs.astype("<u8").tobytes() + repr(content).encode())
    return {"num_recordings": len(np.unique(pairs[0])), "digest": digest.hexdigest()}


def what_changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the notice of a run that continues with other data; both are from `data_state`."""
    counts = [state["num_recordings"] for state in (now, before)]
    what = "in names or content" if len(set(counts)) == 1 else "{} recordings, {} before"
    return (  # losses on other held-out music are not comparable, so best.ckpt is chosen anew
        f"The data has changed since the last checkpoint: {what.format(*counts)}. Held-out "
        "recordings stay held out, training recordings stay in training, and new ones are split by "
        "the same rule. Statistics of the data from the beginning of the run are kept. best.ckpt "
        "is chosen anew."
    )


def recording_keys(origins: Iterable[Origin]) -> NDArray[np.uint64]:
    """Return the key of each file's recording."""
    return np.array([key_of(recording_digest(found.recording)) for found in origins], np.uint64)


def split_names(
    origins: Mapping[str, Origin], held_out: float | Split
) -> tuple[list[str], list[str]]:
    """Divide whole recordings into training and held-out ones, the same way for audio and latents.

    The choice depends only on each recording's name without suffix, so that added files change it
    for few others, and a RAVE and a DiffWave trained on one folder hold out the same recordings.
    With the split of a run, added files change it for no other.

    Args:
        origins: Origin of each name.
        held_out: Fraction of the number of recordings, or the split of a run.

    Returns:
        Training names and held-out names, each in the given order; versions of held-out recordings
        are in neither. A recording whose end is held out is in both.

    Raises:
        ValueError: If a run's split leaves nothing to train on, or nothing held out.
    """
    keys = dict(zip(origins, recording_keys(origins.values()).tolist(), strict=True))
    split = Split.of(list(keys.values()), held_out)
    training = [name for name in origins if not split.holds_out(keys[name])]
    kept_back = [
        name
        for name in originals(origins)
        if split.holds_out(keys[name]) or split.divides(keys[name])
    ]
    if held_out is split:
        split.check(len(training), len(kept_back))
    return training, kept_back


def first_held_out(length: int, held_out_fraction: float) -> int:
    """Return where the held-out end of the only recording begins; its length is at least 2."""
    return length - min(max(round(held_out_fraction * length), 1), length - 1)
