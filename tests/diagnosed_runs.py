"""A small run that has learned, on latents of known law that follow a loudness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from diffwave_data import HOP, RATE_HZ, autoregression, write_latent_folder
from numpy.typing import NDArray

from diffwave import train
from diffwave.conditions.controls import LOUDNESS, ControlHeader
from rave.latents.folder import write_latents

SMALL = [
    "MAX_STEPS=300",
    "BATCH_SIZE=16",
    "SEGMENT_FRAMES=64",
    "NUM_BLOCKS=3",
    "HIDDEN_CHANNELS=48",
    "LEARNING_RATE=4e-3",
    "WARMUP_STEPS=30",
    "EMA_DECAY=0.98",
    "FIDELITY=1.0",
    "VALIDATE_EVERY=300",
    "HELD_OUT_FRACTION=0.34",
    "HELD_OUT_SEGMENTS=64",
    "LOG_EVERY=100",
    "CONDITION_CHANNELS=8",
    "CONDITION_DROPOUT=0.3",
]
NUM_FILES, NUM_FRAMES = 6, 1500
MEMORIES = (0.95, 0.9, 0.8)
# Of the raw dimensions: neither 1 nor alike, so that a lost standardization shows.
SCALES = np.array([9.0, 6.0, 0.5], dtype=np.float32)[:, None]


def write_folders(folder: Path) -> None:
    """Write latents that are processes of known memory, and a loudness that tells of the first."""
    arrays: dict[str, NDArray[np.float32]] = {}
    for file in range(NUM_FILES):
        rows = [autoregression(1, NUM_FRAMES, m, 9 * file + i) for i, m in enumerate(MEMORIES)]
        arrays[f"{file}.npy"] = np.concatenate(rows) * SCALES + 1.0
    header = write_latent_folder(folder / "latents", arrays)
    for name, array in arrays.items():
        noise = np.random.default_rng(NUM_FRAMES).standard_normal((1, NUM_FRAMES))
        told = array[:1] / SCALES[0] + 0.3 * noise.astype(np.float32)
        write_latents(folder / "controls" / LOUDNESS / name, [told], 1)
    files = {file.path: file.num_frames for file in header.files}
    ControlHeader(header.codec, RATE_HZ, HOP, {LOUDNESS: 1}, files).write(folder / "controls")


def train_healthy(folder: Path) -> Path:
    """Return a small run that has learned, beside its latents and controls; some ten seconds."""
    write_folders(folder)
    options = [text for setting in SMALL for text in ("--set", setting)]
    paths = [str(folder / "latents"), "--out", str(folder / "run")]
    paths += ["--controls", str(folder / "controls"), LOUDNESS]
    assert train.main([*paths, "--device", "cpu", *options]) == 0
    return folder / "run"
