"""Sharded sets of synthetic clips, written as `rave shard` does but without the folder between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import numpy as np
from diffwave_data import HOP, RATE_HZ, autoregression, write_latent_folder
from numpy.typing import NDArray

from rave.latents.folder import POSTERIOR_MEAN, LatentFile, LatentHeader, write_latents
from rave.latents.shard_writer import Clip, finish, write_shard
from rave.latents.statistics import LatentStatistics

SIZE = 16


def name_of(number: int) -> str:
    """Return the path of a clip: 1000 a folder."""
    return f"{number // 1000:04d}/{number:07d}.npy"


def array_of(number: int, latent_size: int = SIZE) -> NDArray[np.float32]:
    """Return a clip of 32 to 64 frames; what it holds tells its number."""
    num_frames = 32 + number % 33
    array = np.sin(np.arange(latent_size * num_frames, dtype=np.float32) + number % 97)
    array = array.reshape(num_frames, latent_size).T
    array[0, 0] = number
    return array


def file_of(number: int) -> LatentFile:
    """Return what the header says of a clip."""
    num_frames, name = 32 + number % 33, name_of(number)
    return LatentFile(name, num_frames, name[:-4] + ".flac", RATE_HZ, num_frames * HOP)


def header_of(num_frames: int, files: list[LatentFile]) -> LatentHeader:
    """Return the header of such clips."""
    ones = [1.0] * SIZE
    statistics = LatentStatistics([0.0] * SIZE, ones, [0.1] * SIZE, ones, num_frames)
    return LatentHeader("c0dec", "codec", RATE_HZ, HOP, SIZE, POSTERIOR_MEAN, statistics, files)


def write_set(folder: Path, num_clips: int, clips_per_shard: int) -> int:
    """Write a sharded set of so many clips; return its frames."""
    order = np.random.default_rng(0).permutation(num_clips)

    def clips(numbers: NDArray[np.int64]) -> Iterator[Clip]:
        for number in numbers:
            yield Clip(file_of(int(number)), array_of(int(number)))

    parts = [
        order[first : first + clips_per_shard] for first in range(0, num_clips, clips_per_shard)
    ]
    shards = [write_shard(folder, n, clips(part), SIZE) for n, part in enumerate(parts)]
    num_frames = sum(shard.num_frames for shard in shards)
    finish(folder, header_of(num_frames, []), shards)
    return num_frames


def write_plain(folder: Path, num_clips: int) -> None:
    """Write the latent folder of the same clips."""
    files = [file_of(number) for number in range(num_clips)]
    for number, file in enumerate(files):
        write_latents(folder / file.path, [array_of(number)], SIZE)
    header_of(sum(file.num_frames for file in files), files).write(folder)


LONG = "a folder with a long name " * 5 + "/" + "é.wav " * 20 + "~2.npy"
NAMES = (
    *("a.npy", "a~1.npy", "a~2.npy", "b.flac.npy", "b.wav.npy", "sub/c.npy", "sub/c~1.npy"),
    *("other/only~3.npy", "other/only~1.npy", "ünïcode/d.npy", "sub/e.npy", LONG),
)


def write_folder(folder: Path, names: Sequence[str] = NAMES, seed: int = 0) -> LatentHeader:
    """Write a latent folder of names that are hard to get right."""
    arrays = {
        name: autoregression(4, 40 + 7 * (number % 60), 0.9, seed + number) + 1
        for number, name in enumerate(names)
    }
    return write_latent_folder(folder, arrays)


def in_memory(folder: Path) -> str:
    """Copy a folder to an address that fsspec knows."""
    address = f"memory://{folder.name}-{folder.stat().st_ino}"
    fsspec.filesystem("memory").put(f"{folder}/", f"{address}/", recursive=True)
    return address
