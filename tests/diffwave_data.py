"""Small latents whose law is known, and a tiny training on them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rave.latents.folder import POSTERIOR_MEAN, LatentFile, LatentHeader, write_latents
from rave.latents.statistics import StatisticsAccumulator

RATE_HZ, HOP = 16000, 1024
TINY = [
    "MAX_STEPS=8",
    "BATCH_SIZE=4",
    "SEGMENT_FRAMES=16",
    "NUM_BLOCKS=2",
    "HIDDEN_CHANNELS=8",
    "VALIDATE_EVERY=3",
    "HELD_OUT_SEGMENTS=4",
    "LOG_EVERY=1",
    "WARMUP_STEPS=2",
    "CONDITION_CHANNELS=4",
]


def autoregression(
    latent_size: int, num_frames: int, memory: float, seed: int
) -> NDArray[np.float32]:
    """Return a stationary process of variance 1: z[n] = memory · z[n - 1] + white noise."""
    noise = np.random.default_rng(seed).standard_normal((latent_size, num_frames))
    values = noise.copy()
    for n in range(1, num_frames):
        values[:, n] = memory * values[:, n - 1] + np.sqrt(1 - memory**2) * noise[:, n]
    return values.astype(np.float32)


def write_latent_folder(
    folder: Path,
    arrays: dict[str, NDArray[np.float32]],
    codec: str = "c0dec",
    contents: str = POSTERIOR_MEAN,
) -> LatentHeader:
    """Write arrays (D, N) as a latent folder; `a.npy` is of `a.wav`, `a~1.npy` of a version."""
    latent_size = len(next(iter(arrays.values())))
    sums, files = StatisticsAccumulator(latent_size), []
    for path, array in arrays.items():
        num_frames = array.shape[1]
        write_latents(folder / path, [array], latent_size)
        sums.add(array, np.full_like(array, 0.5))
        source = str(Path(path).with_suffix(".wav"))
        recording = re.sub(r"~\d+$", "", path.removesuffix(".npy"))
        length = num_frames * HOP
        files.append(LatentFile(path, num_frames, source, RATE_HZ, length, recording=recording))
    header = LatentHeader(
        codec, "runs/codec", RATE_HZ, HOP, latent_size, contents, sums.statistics(), files
    )
    header.write(folder)
    return header


def settings(*more: str) -> list[str]:
    """Return the command-line options of a tiny training."""
    return [text for setting in (*TINY, *more) for text in ("--set", setting)]
