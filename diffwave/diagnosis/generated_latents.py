"""How generated latents compare with the training latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rave.latents.folder import LatentHeader

BLOCK_FRAMES = 4096
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
        warning = (
            f"its level is {level:.2f} of the training latents'; expect silence or noise. Ask for "
            "more steps; if that changes nothing, train longer."
        )
    elif shift > FAR_MEAN:
        warning = (
            f"the mean of a dimension is {shift:.1f} training std off; expect a foreign sound. "
            "Try another seed, or less guidance."
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
