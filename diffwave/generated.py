"""The folder of generated latents, and how they compare with the training latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rave.latents import GENERATED, HEADER_NAME, LatentFile, LatentHeader

BLOCK_FRAMES = 4096
CLIPS = "generated_*.npy"
# Told as far off: level of all dimensions beyond these factors of the training latents' level.
QUIET, LOUD = 0.5, 2.0
# or a mean of a dimension this many of its standard deviations away.
FAR_MEAN = 2.0


def compare(raw: NDArray[Any], header: LatentHeader) -> dict[str, Any]:
    """Return figures of generated latents against the training latents' statistics.

    Args:
        raw: (D, N) raw latents, may be memory-mapped.
        header: Of the training latents.

    Returns:
        `level`, the root mean square of the deviation from the training mean, relative to the
        training latents'; `largest_shift`, of a dimension's mean in its training std; `mean` and
        `std` of each dimension; `warning`, None where all is near.

    Raises:
        ValueError: If values are not finite.
    """
    known_mean, known_std = np.asarray(header.statistics.mean), np.asarray(header.statistics.std)
    total, squares = np.zeros(len(raw)), np.zeros(len(raw))
    for block in _blocks(raw):
        difference = block - known_mean[:, None]
        total += difference.sum(axis=1)
        squares += np.square(difference).sum(axis=1)
    difference, power = total / raw.shape[1], squares / raw.shape[1]
    if not np.isfinite(power).all():
        raise ValueError(
            "The model generated values that are not finite. Train it longer or with a lower "
            "LEARNING_RATE, or use more sampling steps."
        )
    known_power = max(float(np.square(known_std).mean()), 1e-30)
    level = float(np.sqrt(power.mean() / known_power))
    varies = varying(known_std)
    shift = float(np.abs(difference[varies] / known_std[varies]).max())
    warning = None
    if not QUIET <= level <= LOUD:
        warning = f"its level is {level:.2f} of the training latents'; expect silence or noise."
    elif shift > FAR_MEAN:
        warning = (
            f"the mean of a dimension is {shift:.1f} training std off; expect a foreign sound."
        )
    std = np.sqrt(np.maximum(power - np.square(difference), 0.0))
    return {
        "level": level,
        "largest_shift": shift,
        "mean": [round(float(value), 5) for value in difference + known_mean],
        "std": [round(float(value), 5) for value in std],
        "warning": warning,
    }


def varying(training_std: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which dimensions (D,) vary in training, relative to the one that varies most."""
    return np.asarray(training_std > 1e-3 * training_std.max())


def _blocks(raw: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, raw.shape[1], BLOCK_FRAMES):
        yield np.asarray(raw[:, start : start + BLOCK_FRAMES], dtype=np.float64)


def check_output(folder: Path, is_forced: bool) -> None:
    """Check that generated latents may be written into a folder.

    Clips without a header are of a command that was interrupted; this one makes them again.

    Raises:
        ValueError: If it is a file, holds latents of real audio, or is not empty and not forced.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file; a folder is needed for the latents.")
    if (folder / HEADER_NAME).exists() and LatentHeader.read(folder).contents != GENERATED:
        raise ValueError(
            f"'{folder}' holds latents of real audio, which are never overwritten. "
            "Choose another folder."
        )
    if is_forced or not folder.exists():
        return
    other = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if HEADER_NAME not in other:
        other = [name for name in other if not fnmatch(name, CLIPS)]
    if other:
        what = "latents" if HEADER_NAME in other else f"other files (first: '{other[0]}')"
        raise ValueError(
            f"'{folder}' already holds {what}. Choose another folder, or add --force to write "
            "into it."
        )


def clear(folder: Path) -> None:
    """Remove what an earlier command generated in a folder."""
    (folder / HEADER_NAME).unlink(missing_ok=True)  # a header must not outlive its latents
    for path in folder.glob(CLIPS):
        path.unlink()


def write_header(folder: Path, num_frames: dict[str, int], header: LatentHeader, seed: int) -> None:
    """Write the header of generated latents.

    Args:
        folder: Holds them.
        num_frames: Of each file.
        header: Of the training latents.
        seed: That they were generated from.
    """
    files = [
        LatentFile(name, count, None, header.sample_rate_hz, count * header.hop_samples)
        for name, count in num_frames.items()
    ]
    replace(header, contents=GENERATED, files=files, seed=seed).write(folder)


def find_header(path: Path) -> LatentHeader | None:
    """Return the header of the latent folder that a file lies in, if it lies in one."""
    for folder in path.resolve().parents:
        if (folder / HEADER_NAME).exists():
            return LatentHeader.read(folder)
    return None
