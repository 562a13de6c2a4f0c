"""The latent folder: one float32 .npy (latent_size, frames) per audio file and one latents.json.

    LATENTS_DIR/
      latents.json          header: format version, codec, rate, hop, statistics, files
      a.npy, sub/b.npy      one array per audio file, mirroring the audio tree

numpy alone can read it. D is the latent size, N a number of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rave.audio.io import MAX_SAMPLE_RATE_HZ
from rave.files.atomic import (
    atomic_write,
    built,
    check_inside,
    read_header,
    regular,
    write_json,
)
from rave.held_out import Origin, origin
from rave.latents.identity import CodecIdentity
from rave.latents.statistics import LatentStatistics

FORMAT, VERSION, HEADER_NAME = "rave-latents", 1, "latents.json"
SHARDS_NAME = "shards.json"  # of a sharded set, see rave.latents.shards
POSTERIOR_MEAN, POSTERIOR_SAMPLE, GENERATED = "posterior mean", "posterior sample", "generated"
MAX_OPEN = 128  # arrays of one kind; a process may open 1024 files on most systems
MAX_GAIN_DB = 400.0  # audio of more than that from any training level is no audio


@dataclass(frozen=True)
class LatentFile:
    """One array of the folder.

    Attributes:
        path: Relative to the folder, posix, ending in .npy.
        num_frames: Latent frames N.
        source: Audio file it was made from, relative to the audio folder; None if generated.
        source_sample_rate_hz: Rate of that file; the codec's if generated.
        source_num_samples: Its length in samples at that rate.
        gain_db: Gain that brought the audio to the codec's training level; decoding takes it
            back.
        recording: Path, without suffix, of the recording that it is or is a version of; None: see
            `rave.held_out.origin`.
    """

    path: str
    num_frames: int
    source: str | None
    source_sample_rate_hz: int
    source_num_samples: int
    gain_db: float = 0.0  # left out of latents.json where it is 0
    recording: str | None = None

    @property
    def origin(self) -> Origin:
        """Return which recording it is, or is a version of."""
        return origin(self.path, self.recording)


@dataclass(frozen=True)
class LatentHeader:
    """Content of latents.json.

    Attributes:
        codec: Fingerprint of the codec's weights.
        codec_path: Where the codec was when the folder was written; only for messages.
        sample_rate_hz: Sample rate of the codec.
        hop_samples: Audio samples per latent frame.
        latent_size: D.
        contents: POSTERIOR_MEAN, POSTERIOR_SAMPLE or GENERATED.
        statistics: Statistics of the real music; in a generated folder, of the training latents.
        files: One entry per array.
        seed: Random seed of the samples, if any.
        skipped: Audio files that could not be encoded, and why.
    """

    codec: str
    codec_path: str
    sample_rate_hz: int
    hop_samples: int
    latent_size: int
    contents: str
    statistics: LatentStatistics
    files: list[LatentFile]
    seed: int | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> CodecIdentity:
        """Return which codec the latents are of."""
        return CodecIdentity(
            self.codec, self.sample_rate_hz, self.hop_samples, self.latent_size, self.codec_path
        )

    @property
    def frame_rate_hz(self) -> float:
        """Return latent frames per second."""
        return self.identity.frame_rate_hz

    def write(self, folder: Path) -> None:
        """Write latents.json into `folder`, whole or not at all."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for file in content["files"]:
            if not file["gain_db"]:
                del file["gain_db"]
        write_json(folder / HEADER_NAME, content)

    @classmethod
    def read(cls, folder: Path) -> LatentHeader:
        """Return the header of a latent folder.

        Raises:
            ValueError: If the folder has no latents.json, or one that this program cannot read; or
                if it is a sharded set.
        """
        if is_sharded(folder):
            raise ValueError(
                f"'{folder}' is a sharded set of latents; a latent folder is needed here. Give the "
                f"one that it was made from, or make it again: rave unshard {folder} LATENTS_DIR"
            )

        def build(content: dict[str, Any]) -> LatentHeader:
            header = built(cls, content)
            header.check()
            return header

        return read_header(
            folder / HEADER_NAME,
            "a latent folder",
            build,
            "Encode again.",
            format=FORMAT,
            version=VERSION,
        )

    def check(self) -> None:
        """Check sizes and paths, which commands rely on; the header may be untrusted.

        Raises:
            ValueError: If sizes are invalid or contradict each other, or a file lies elsewhere.
        """
        s = self.statistics
        for values in (s.mean, s.std, s.posterior_std, s.kl):
            if len(values) != self.latent_size:
                raise ValueError(f"statistics of {len(values)} of {self.latent_size} dimensions")
        if min(self.sample_rate_hz, self.hop_samples, self.latent_size) < 1:
            raise ValueError("a size that is not positive")
        for file in self.files:
            check_inside(file.path)
            rate_hz = file.source_sample_rate_hz
            if min(file.num_frames, file.source_num_samples) < 0:
                raise ValueError(f"'{file.path}' has a negative length")
            if not 0 < rate_hz <= MAX_SAMPLE_RATE_HZ:
                raise ValueError(f"'{file.path}' has a sample rate of {rate_hz} Hz")
            if abs(file.gain_db) > MAX_GAIN_DB:
                raise ValueError(f"'{file.path}' has a gain of {file.gain_db} dB")


def read_latents(
    path: Path, latent_size: int, num_frames: int | None = None
) -> NDArray[np.float32]:
    """Return one array of a latent folder, memory-mapped and read-only, (D, N).

    Raises:
        ValueError: If the file is missing, is no float array of D rows, or has another length than
            its header says.
    """
    try:
        array = open_array(path)
    except ValueError as error:
        raise ValueError(f"Cannot read latents '{path}' ({error}). Encode again.") from error
    shape = (latent_size, array.shape[-1] if num_frames is None else num_frames)
    if array.ndim != 2 or array.shape != shape or array.dtype != np.float32:
        raise ValueError(
            f"'{path}' holds {array.dtype} {array.shape}; float32 {shape} is needed. Encode again."
        )
    return array


def open_array(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file, memory-mapped and read-only; objects in it are not made.

    Raises:
        ValueError: If the file cannot be read, or is not an array of numbers.
    """
    try:
        with np.errstate(over="raise"):  # of a size that no file has
            array: NDArray[Any] = np.lib.format.open_memmap(regular(path), mode="r")
    except Exception as error:  # numpy raises many types for a damaged header
        raise ValueError(str(error)) from error
    return array


class OpenArrays:
    """The arrays that were opened last: to open one takes longer than to read a segment of it.

    Each holds a file open, so they are few. A copy of this, as for another process, begins empty.
    """

    def __init__(self) -> None:
        self._opened: dict[Path, NDArray[np.float32]] = {}

    def get(self, path: Path, opened: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the array of a file, which `opened` opens where it is not open."""
        found = self._opened.pop(path, None)
        self._opened[path] = found = opened() if found is None else found
        if len(self._opened) > MAX_OPEN:
            del self._opened[next(iter(self._opened))]
        return found

    def __reduce__(self) -> tuple[type[OpenArrays], tuple[()]]:
        return OpenArrays, ()


def write_latents(
    path: Path,
    blocks: Iterable[NDArray[np.float32]],
    latent_size: int,
    *,
    is_durable: bool = True,
) -> int:
    """Write one array (D, N) from blocks (D, n), whole or not at all; return N.

    `is_durable` is that of `rave.files.atomic.atomic_write`.

    Frames are contiguous on disk (Fortran order), so that any number of them is written and read
    without holding the others.
    """
    num_frames = 0
    with (
        atomic_write(path, is_durable=is_durable) as temporary,
        temporary.open("wb") as file,
    ):
        write_array_header(file, latent_size, 0)  # room for the last one
        for block in blocks:
            file.write(np.ascontiguousarray(block.T, dtype="<f4").tobytes())
            num_frames += block.shape[1]
        file.seek(0)
        write_array_header(file, latent_size, num_frames)
    return num_frames


def write_array_header(file: IO[bytes], latent_size: int, num_frames: int) -> None:
    """Write the .npy header of latents (D, N); numpy leaves room in it for any N."""
    header = {"descr": "<f4", "fortran_order": True, "shape": (latent_size, num_frames)}
    np.lib.format.write_array_header_1_0(file, header)


def is_sharded(folder: Path) -> bool:
    """Return whether a folder is a sharded set of latents and no latent folder."""
    return (folder / SHARDS_NAME).exists() and not (folder / HEADER_NAME).exists()


def find_header(path: Path) -> tuple[LatentHeader, float] | None:
    """Return the header of the latent folder that a file lies in, and the file's gain in dB.

    None if it lies in no such folder.
    """
    path = path.resolve()
    for folder in path.parents:
        if (folder / HEADER_NAME).exists():
            header = LatentHeader.read(folder)
            name = path.relative_to(folder).as_posix()
            return header, sum(file.gain_db for file in header.files if file.path == name)
    return None
