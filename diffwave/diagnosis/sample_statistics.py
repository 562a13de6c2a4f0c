"""Distances of generated from real latents: sliced Wasserstein, mean, std, autocorrelation.

S segments, K latent size, N frames of a segment, W frames of a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rave.compute.arrays import FloatArray

NUM_DIRECTIONS = 256
LAGS = (1, 2, 4, 8, 16)


def windows(segments: FloatArray, num_frames: int) -> FloatArray:
    """Return all adjacent windows of segments (S, K, N), as points (S·(N // W), K·W)."""
    count = segments.shape[2] // num_frames
    cut = segments[:, :, : count * num_frames]
    parts = cut.reshape(*cut.shape[:2], count, num_frames).transpose(0, 2, 1, 3)
    points: FloatArray = parts.reshape(-1, segments.shape[1] * num_frames)
    return points


def sliced_wasserstein(one: FloatArray, other: FloatArray, num_frames: int, seed: int = 0) -> float:
    """Return the sliced Wasserstein distance between the windows of two sets of segments.

    Along each of 256 random directions both sets are sorted and compared rank by rank. Two finite
    sets of the same law are not at distance 0: compare with the distance of real from real.

    Args:
        one: (S, K, N) segments.
        other: (S', K, N') segments.
        num_frames: Window length W. 1 compares single frames, more also compares their order.
        seed: Random seed of the directions; distances are comparable only with the same seed.

    Returns:
        Root of the mean square over ranks and directions, in units of the values.

    Source: Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3, section 2.2.
    """
    first, second = windows(one, num_frames), windows(other, num_frames)
    directions = np.random.default_rng(seed).standard_normal((first.shape[1], NUM_DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    projected = [np.sort(each @ directions, axis=0) for each in (first, second)]
    count = min(len(first), len(second))
    # From the larger set, the ranks at the same quantiles as those of the smaller one.
    one_by_one = [
        each[((np.arange(count) + 0.5) * len(each) / count).astype(int)] for each in projected
    ]
    return float(np.sqrt(np.square(one_by_one[0] - one_by_one[1]).mean()))


def autocorrelation(segments: FloatArray) -> FloatArray:
    """Return the autocorrelation of each channel at `LAGS`, (K, number of lags)."""
    centred = segments - segments.mean(axis=(0, 2), keepdims=True)
    power = np.square(centred).mean(axis=(0, 2))
    return np.stack(
        [(centred[:, :, lag:] * centred[:, :, :-lag]).mean(axis=(0, 2)) / power for lag in LAGS],
        axis=1,
    )


@dataclass(frozen=True)
class SampleStatistics:
    """Distances of generated segments from real ones; 0 is best.

    Attributes:
        frames: Sliced Wasserstein distance of single frames.
        windows: Sliced Wasserstein distance of windows of 16 frames.
        mean: Root mean square difference of the channels' means.
        std: The same of the channels' standard deviations.
        autocorrelation: The same of their autocorrelations at `LAGS`.
    """

    frames: float
    windows: float
    mean: float
    std: float
    autocorrelation: float


def compare(generated: FloatArray, real: FloatArray) -> SampleStatistics:
    """Return the distances of generated segments (S, K, N) from real ones (S', K, N')."""

    def distance(one: FloatArray, other: FloatArray) -> float:
        return float(np.sqrt(np.square(one - other).mean()))

    return SampleStatistics(
        sliced_wasserstein(generated, real, 1),
        sliced_wasserstein(generated, real, 16),
        distance(generated.mean(axis=(0, 2)), real.mean(axis=(0, 2))),
        distance(generated.std(axis=(0, 2)), real.std(axis=(0, 2))),
        distance(autocorrelation(generated), autocorrelation(real)),
    )
