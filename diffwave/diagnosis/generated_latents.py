"""How generated latents compare with the training latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rave.compute.arrays import Float64Array
from rave.latents.folder import LatentHeader

BLOCK_FRAMES = 4096
# Warned of: a level outside these factors of the training latents' level,
QUIET, LOUD = 0.5, 2.0
# or a mean of a dimension this many of its standard deviations away.
FAR_MEAN = 2.0


def compare(raw: NDArray[Any], header: LatentHeader) -> dict[str, Any]:
    """Return figures of generated latents against the training latents' statistics.

    Args:
        raw: (D, N) raw latents, may be memory-mapped.
        header: Header with the statistics of the training latents.

    Returns:
        `level`, the root mean square of the deviation from the training mean, relative to the
        training latents'; `largest_shift`, of a dimension's mean in its training std; `mean` and
        `std` of each dimension; `warning`, None if all of it is near.

    Raises:
        ValueError: If values are not finite.
    """
    train_mean, train_std = np.asarray(header.statistics.mean), np.asarray(header.statistics.std)
    total, squares = np.zeros(len(raw)), np.zeros(len(raw))
    for block in _blocks(raw):
        difference = block - train_mean[:, None]
        total += difference.sum(axis=1)
        squares += np.square(difference).sum(axis=1)
    difference, power = total / raw.shape[1], squares / raw.shape[1]
    if not np.isfinite(power).all():
        raise ValueError(
            "The model generated values that are not finite. Train it longer or with a lower "
            "LEARNING_RATE, or use more sampling steps."
        )
    train_power = max(float(np.square(train_std).mean()), 1e-30)
    level = float(np.sqrt(power.mean() / train_power))
    varies = varying(train_std)
    shift = float(np.abs(difference[varies] / train_std[varies]).max())
    warning = None
    if not QUIET <= level <= LOUD:
        warning = (
            f"its level is {level:.2f} of the training latents'; expect silence or noise. Use "
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
        "mean": [round(float(value), 5) for value in difference + train_mean],
        "std": [round(float(value), 5) for value in std],
        "warning": warning,
    }


def varying(training_std: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which dimensions (D,) vary in training, relative to the one that varies most."""
    return np.asarray(training_std > 1e-3 * training_std.max())


def _blocks(raw: NDArray[Any]) -> Iterator[Float64Array]:
    for start in range(0, raw.shape[1], BLOCK_FRAMES):
        yield np.asarray(raw[:, start : start + BLOCK_FRAMES], dtype=np.float64)
