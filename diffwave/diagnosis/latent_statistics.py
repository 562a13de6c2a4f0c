"""Memory of latents and their distance from a normal distribution: figures without a model.

C channels, L lags, N frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rave.compute.arrays import Float64Array, FloatArray

# Lags are summed up to this many memories; beyond, estimates are little but noise.
WINDOW = 5


@dataclass(frozen=True)
class Memory:
    """Correlation of each channel with itself over time.

    Attributes:
        correlation: (C, L) correlation of each channel with itself, 0 to L - 1 frames later.
        frames: (C,) sum of the squared correlations over all lags, in both directions.
        is_whole: (C,) False where the memory is longer than L lags can show.
    """

    correlation: Float64Array
    frames: Float64Array
    is_whole: NDArray[np.bool_]


def memory(blocks: Iterable[Float64Array], num_lags: int) -> Memory:
    """Return the memory of channels.

    Squares are summed, so that an oscillating channel, whose plain sum would be near 0, counts as
    predictable. White noise has a memory of 1 frame, an autoregression of coefficient m one of
    (1 + m²) / (1 - m²) frames.

    Args:
        blocks: Blocks (C, N) of neighbouring frames with mean 0; one block at least.
        num_lags: Number of lags L.

    Source: Sokal 1997, "Monte Carlo methods in statistical mechanics", section 3 (how far to sum).
        Differs: squares.
    """
    total: Float64Array | float = 0.0
    count: Float64Array | float = 0.0
    for block in blocks:
        num_frames = block.shape[1]
        size = 2 ** int(num_frames + num_lags - 1).bit_length()  # padded: no circular correlation
        power = np.square(np.abs(np.fft.rfft(block, size, axis=1)))
        total = total + np.fft.irfft(power, size, axis=1)[:, :num_lags]
        count = count + np.maximum(num_frames - np.arange(num_lags), 0)
    covariance = np.asarray(total) / np.maximum(count, 1)
    correlation = covariance / np.maximum(covariance[:, :1], 1e-30)
    up_to = 2.0 * np.cumsum(np.square(correlation), axis=1) - 1.0
    is_enough = np.asarray(np.arange(num_lags) >= WINDOW * up_to)
    is_whole = np.asarray(is_enough.any(axis=1))
    last = np.where(is_whole, is_enough.argmax(axis=1), num_lags - 1)
    return Memory(correlation, up_to[np.arange(len(up_to)), last], is_whole)


def distance_from_normal(values: FloatArray) -> Float64Array:
    """Return the distance from N(0, 1) of each channel of (C, N), of mean 0 and variance 1.

    Returns:
        (C,) Kolmogorov's distance: the largest difference between the share of frames below a value
        and that of a normal distribution, 0 to 1.
    """
    from scipy import stats

    # The distance is exact; "asymp" concerns only its probability, which is not used.
    tests = [stats.ks_1samp(each, stats.norm.cdf, method="asymp") for each in values]
    return np.array([test.statistic for test in tests])
