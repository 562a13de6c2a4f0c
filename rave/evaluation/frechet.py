"""The Fréchet and the kernel distance of two sets of embeddings, and how exact they are.

P patches, E embedding size. A group is the embeddings (P, E) of one piece of audio: patches of one
piece resemble each other, so pieces are drawn, not patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rave.compute.arrays import FloatArray

# Draws of sets of equal size, and draws of pieces with replacement.
NUM_DRAWS, NUM_BOOTSTRAPS = 20, 200
# The distance is extrapolated from sets with these shares of the patches.
SIZES = (1.0, 0.75, 0.5)
# For halves of 15 minutes of piano, the extrapolated distance, which should be 0, was 4 to 72 with
# sets of 60 patches (at distances of 85 to 119), and -19 to 2 with sets of 146 (at 22 to 42).
FEWEST_FOR_LINE = 100
INTERVAL_PERCENT = (2.5, 97.5)
# The kernel distance needs all pairs of patches, so it is of no more than these: 100 minutes.
KERNEL_SCALE, MOST_FOR_KERNEL = 100.0, 2000


def frechet_distance(one: FloatArray, other: FloatArray) -> float:
    """Return the Fréchet distance of the Gaussians with the mean and covariance of two sets.

    Args:
        one: (P, E), P of 2 or more.
        other: (P', E).

    Source: Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X; for embeddings of audio, Kilgour
    et al. 2019, arXiv:1812.08466. Differs: for covariances AᵀA and BᵀB the trace of the root of
    their product is the sum of the singular values of ABᵀ, which needs no matrix root.
    """
    factors: list[Any] = [
        np.linalg.qr((each - each.mean(axis=0)) / np.sqrt(len(each) - 1.0), mode="r")
        for each in (np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64))
    ]
    means = one.mean(axis=0, dtype=np.float64) - other.mean(axis=0, dtype=np.float64)
    power = sum(float(np.square(factor).sum()) for factor in factors)
    shared = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    return max(float(np.square(means).sum() + power - 2.0 * shared), 0.0)


def kernel_distance(one: FloatArray, other: FloatArray, bandwidth: float) -> float:
    """Return the Kernel Audio Distance of two sets: 100 times the unbiased squared MMD.

    Independent patches would not raise it where sets are small, but patches of one piece are alike
    and do. It is negative at times where both sets are alike.

    Args:
        one: (P, E), P of 2 or more.
        other: (P', E), P' of 2 or more.
        bandwidth: Standard deviation of the Gaussian kernel.

    Source: Chung et al. 2025, arXiv:2502.15602, section 4; Gretton et al. 2012, equation 3.
    """
    from scipy.spatial.distance import cdist, pdist

    def kernel(squared: FloatArray) -> float:
        return float(np.exp(-squared / (2 * bandwidth**2)).mean())

    within = kernel(pdist(one, "sqeuclidean")) + kernel(pdist(other, "sqeuclidean"))
    return KERNEL_SCALE * (within - 2.0 * kernel(cdist(one, other, "sqeuclidean")))


def kernel_bandwidth(reference: FloatArray) -> float:
    """Return the median distance between two embeddings of the reference (P, E)."""
    from scipy.spatial.distance import pdist

    return max(float(np.median(pdist(reference))), 1e-12)


@dataclass(frozen=True)
class Spread:
    """A Kernel Audio Distance, and how far it can be trusted.

    Attributes:
        distance: Between all patches of both sets, or 2000 random ones of a larger set.
        std: Standard deviation of the distance over draws of pieces with replacement.
        bandwidth: Of the kernel.
    """

    distance: float
    std: float
    bandwidth: float


def estimate_kernel(
    one: Sequence[FloatArray], other: Sequence[FloatArray], size: int, seed: int
) -> Spread:
    """Return the Kernel Audio Distance of two sets of groups, the first being the reference.

    Args:
        one: Groups.
        other: Groups.
        size: Patches per set that are drawn with replacement; 2000 if it is larger.
        seed: Random seed of the draws.
    """
    rng, size = np.random.default_rng(seed), min(size, MOST_FOR_KERNEL)
    joined = [
        np.concatenate(each)
        if count_patches(each) <= MOST_FOR_KERNEL
        else _draw(each, MOST_FOR_KERNEL, rng)
        for each in (one, other)
    ]
    bandwidth = kernel_bandwidth(joined[0])
    redrawn = [
        kernel_distance(_redraw(one, size, rng), _redraw(other, size, rng), bandwidth)
        for _ in range(NUM_BOOTSTRAPS)
    ]
    distance = kernel_distance(joined[0], joined[1], bandwidth)
    return Spread(distance, float(np.std(redrawn)), bandwidth)


@dataclass(frozen=True)
class Estimate:
    """A Fréchet distance of sets of equal size.

    Attributes:
        distance: Mean over draws of `size` patches per set.
        std: Standard deviation of the distance over draws of pieces with replacement.
        interval: Interval around the distance that holds 95 % of these draws.
        unbiased: Distance extrapolated to infinite sets; None if there are too few patches.
        size: Patches per set.
    """

    distance: float
    std: float
    interval: tuple[float, float]
    unbiased: float | None
    size: int


def estimate(
    one: Sequence[FloatArray], other: Sequence[FloatArray], size: int, seed: int
) -> Estimate:
    """Return the distance of two sets of groups at a given number of patches.

    The distance of small sets is too large, as their means and covariances are inexact. The error
    is proportional to 1 / size: figures are comparable at one size only, and a line through
    several sizes extrapolates to infinite sets.

    Args:
        one: Groups.
        other: Groups.
        size: Patches per set, 2 or more, no more than either holds.
        seed: Random seed of the draws.

    Source: Chong & Forsyth 2020, arXiv:1911.07023, section 3; for audio Gui et al. 2023,
    arXiv:2311.01616.
    """
    rng = np.random.default_rng(seed)

    def mean_distance(count: int) -> float:
        draws = [(_draw(one, count, rng), _draw(other, count, rng)) for _ in range(NUM_DRAWS)]
        return float(np.mean([frechet_distance(*draw) for draw in draws]))

    counts = [max(round(size * part), 2) for part in SIZES]
    distances = [mean_distance(count) for count in counts]
    unbiased = None
    if size >= FEWEST_FOR_LINE:
        slope_and_rest = np.polyfit(1.0 / np.asarray(counts), distances, 1)
        unbiased = max(float(slope_and_rest[1]), 0.0)
    redrawn = [
        frechet_distance(_redraw(one, size, rng), _redraw(other, size, rng))
        for _ in range(NUM_BOOTSTRAPS)
    ]
    # Pieces that are drawn twice make a set effectively smaller, so only the spread is used.
    low, high = np.percentile(redrawn, INTERVAL_PERCENT) - np.mean(redrawn) + distances[0]
    interval = (max(float(low), 0.0), float(high))
    return Estimate(distances[0], float(np.std(redrawn)), interval, unbiased, size)


def count_patches(groups: Sequence[FloatArray]) -> int:
    """Return how many patches there are."""
    return sum(len(group) for group in groups)


def _draw(groups: Sequence[FloatArray], count: int, rng: np.random.Generator) -> FloatArray:
    """Return `count` patches of pieces in random order, each piece once."""
    order = rng.permutation(len(groups))
    return np.concatenate([groups[index] for index in order])[:count]


def _redraw(groups: Sequence[FloatArray], count: int, rng: np.random.Generator) -> FloatArray:
    """Return `count` patches of pieces, which may be drawn more than once."""
    chosen: list[FloatArray] = []
    while count_patches(chosen) < count:
        chosen.append(groups[int(rng.integers(len(groups)))])
    return np.concatenate(chosen)[:count]
