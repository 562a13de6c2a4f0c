"""Small runs that have learned, on latents of known law: one follows a loudness, one notes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from diffwave_data import HOP, RATE_HZ, autoregression, write_latent_folder
from numpy.typing import NDArray

from diffwave import train
from diffwave.conditions.controls import LOUDNESS, ControlHeader
from diffwave.conditions.spectrogram import SpectrogramHeader
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


# A run that plays: each latent dimension is a pitch that sounds where it is above 0.5.
PITCHES = (45, 52, 58, 65, 71)
MELS_PER_FRAME = 2


def train_playing(folder: Path) -> Path:
    """Return a small run that follows a spectrogram of the notes that its latents play."""
    arrays: dict[str, NDArray[np.float32]] = {}
    rng = np.random.default_rng(1)
    for file in range(NUM_FILES):
        rows = np.zeros((len(PITCHES), NUM_FRAMES), dtype=np.float32)
        for row in rows:
            start = int(rng.integers(16))
            while start < NUM_FRAMES:
                stop = start + int(rng.integers(5, 12))
                row[start:stop] = 1.0
                start = stop + int(rng.integers(8, 24))
        noise = 0.05 * rng.standard_normal(rows.shape)
        arrays[f"{file}.npy"] = rows + noise.astype(np.float32)
    header = write_latent_folder(folder / "latents", arrays)
    for name, array in arrays.items():
        mels = np.repeat(array, MELS_PER_FRAME, axis=1)
        write_latents(folder / "spectrograms" / name, [mels], len(PITCHES))
    files = {file.path: file.num_frames for file in header.files}
    made_for = header.codec, RATE_HZ, HOP, HOP // MELS_PER_FRAME, len(PITCHES)
    SpectrogramHeader(*made_for, files).write(folder / "spectrograms")
    options = [text for setting in SMALL for text in ("--set", setting)]
    paths = [str(folder / "latents"), "--out", str(folder / "run")]
    paths += ["--spectrograms", str(folder / "spectrograms")]
    assert train.main([*paths, "--device", "cpu", *options]) == 0
    return folder / "run"
