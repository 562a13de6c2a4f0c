"""Audio to train on: the prepared folder of `rave preprocess`, or a database of acids-rave.

    PREPARED_DIR/
      prepared.json               header: format version, rate, channels, files
      a.pcm, sub/b.pcm            16-bit little-endian samples, channels interleaved

numpy alone can read it: `np.fromfile(path, "<i2").reshape(-1, num_channels)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rave.audio.blocks import FULL_SCALE
from rave.compute.arrays import Float32Array
from rave.files.atomic import built, check_inside, read_header, write_json
from rave.held_out import Origin, origin

FORMAT, VERSION, HEADER_NAME = "rave-prepared-audio", 1, "prepared.json"
SAMPLE_BYTES = 2


@dataclass(frozen=True)
class PreparedFile:
    """One file of a prepared folder.

    Attributes:
        name: The audio file it was made from, relative to the audio folder.
        path: Its samples, relative to the prepared folder.
        num_samples: Its length at the prepared rate.
        peak: Largest magnitude before limiting; 1.0 is full scale, 0.0 is silence.
        num_limited_samples: Samples limited to full scale.
        recording: Path, without suffix, of its recording (itself, or that of which it is a
            version).
    """

    name: str
    path: str
    num_samples: int
    peak: float
    num_limited_samples: int
    recording: str

    @property
    def origin(self) -> Origin:
        """Return its recording, and whether it is a version of it."""
        return origin(self.path, self.recording)


@dataclass(frozen=True)
class PreparedHeader:
    """Content of prepared.json.

    Attributes:
        sample_rate_hz: Sample rate of all files.
        num_channels: Number of channels of all files.
        files: One entry per audio file.
        skipped: Audio files that could not be used, and why.
    """

    sample_rate_hz: int
    num_channels: int
    files: list[PreparedFile]
    skipped: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write prepared.json into `folder`, whole or not at all."""
        write_json(folder / HEADER_NAME, {"format": FORMAT, "version": VERSION, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> PreparedHeader:
        """Return the header of a prepared folder.

        Raises:
            ValueError: If the folder has no prepared.json, or one that this program cannot read.
        """

        def build(content: dict[str, Any]) -> PreparedHeader:
            header = built(cls, content)
            for file in header.files:
                check_inside(file.path)
            return header

        return read_header(
            folder / HEADER_NAME,
            "a folder that `rave preprocess` wrote",
            build,
            "Run it again.",
            format=FORMAT,
            version=VERSION,
        )


class StoredFile(Protocol):
    """A file of an `AudioStore`."""

    @property
    def name(self) -> str:
        """Return its unique name, for messages."""

    @property
    def num_samples(self) -> int:
        """Return its length at the rate of the store."""

    @property
    def origin(self) -> Origin:
        """Return its recording, and whether it is a version of it."""


class AudioStore(Protocol):
    """Audio to train on, with random access."""

    sample_rate_hz: int
    num_channels: int

    @property
    def files(self) -> Sequence[StoredFile]:
        """Return its files."""

    def check(self, file: Any) -> None:
        """Check that the audio of a file exists, or raise `ValueError`."""

    def read(self, file: Any, start: int, count: int) -> Float32Array:
        """Return samples `start` to `start + count` of a file, (C, count), in [-1, 1)."""


class PreparedAudio:
    """The audio of a prepared folder; an `AudioStore`.

    Args:
        folder: A prepared folder.

    Raises:
        ValueError: If it is not a prepared folder.
    """

    def __init__(self, folder: Path) -> None:
        header = PreparedHeader.read(folder)
        self.folder = folder
        self.sample_rate_hz = header.sample_rate_hz
        self.num_channels = header.num_channels
        self.files = header.files

    def check(self, file: PreparedFile) -> None:
        """Check that the samples of a file exist.

        Raises:
            ValueError: If samples are missing.
        """
        path = self.folder / file.path
        needed = file.num_samples * self.num_channels * SAMPLE_BYTES
        found = path.stat().st_size if path.is_file() else None
        if found != needed:
            what = "does not exist" if found is None else f"has {found} bytes, not {needed}"
            raise ValueError(f"'{path}' {what}. Delete the file and run `rave preprocess` again.")

    def read(self, file: PreparedFile, start: int, count: int) -> Float32Array:
        """Return samples `start` to `start + count` of a file, (C, count), in [-1, 1)."""
        samples = np.fromfile(
            self.folder / file.path,
            dtype="<i2",
            count=count * self.num_channels,
            offset=start * self.num_channels * SAMPLE_BYTES,
        )
        return samples.reshape(-1, self.num_channels).T.astype(np.float32) / np.float32(FULL_SCALE)
