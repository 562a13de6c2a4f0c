"""Raw latents to latents and back: centre, rotate by PCA, keep the first dimensions, whiten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rave.compute.arrays import Float32Array, Float64Array

# A component with less than this share of the largest variance is numerical noise.
SMALLEST_SHARE = 1e-9


def check_fidelity(fidelity: float) -> None:
    """Check that a fidelity is in (0, 1].

    Raises:
        ValueError: If it is not.
    """
    if not 0 < fidelity <= 1:
        raise ValueError(f"FIDELITY is {fidelity}; it must be above 0 and at most 1.")


@dataclass(frozen=True)
class PrincipalDimensions:
    """The principal directions of raw latents, by falling variance; D dimensions.

    Attributes:
        mean: (D,) mean of the raw latents.
        variance: (D,) variance along each direction, falling.
        vectors: (D, D) unit vectors in rows.
    """

    mean: Float64Array
    variance: Float64Array
    vectors: Float64Array

    @classmethod
    def of(cls, arrays: Iterable[Float32Array]) -> PrincipalDimensions:
        """Return the principal dimensions of raw latents (D, N), which are read once, in order.

        Raises:
            ValueError: If a value is not finite, or the latents do not vary.
        """
        mean, covariance = _mean_and_covariance(arrays)
        if not np.isfinite(covariance).all():
            raise ValueError(
                "The training latents hold values that are not finite (NaN or infinite). "
                "Encode the audio again."
            )
        variances, vectors = np.linalg.eigh(covariance)
        variances, vectors = variances[::-1], vectors.T[::-1]
        if variances[0] <= 1e-12 * (1.0 + float(np.square(mean).max())):
            raise ValueError(
                "The training latents do not vary at all. Check that the audio is not silent and "
                "that the codec is trained."
            )
        # The sign of an eigenvector is arbitrary; make its largest entry positive.
        largest = np.abs(vectors).argmax(axis=1)
        vectors = vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]
        return cls(mean, variances, vectors)

    @property
    def is_real(self) -> NDArray[np.bool_]:
        """Return (D,) whether each direction is more than numerical noise."""
        return np.asarray(self.variance > SMALLEST_SHARE * self.variance[0])

    @property
    def share(self) -> Float64Array:
        """Return (D,) the cumulative share of the variance."""
        real = self.variance * self.is_real
        return np.asarray(np.cumsum(real) / real.sum())

    def count(self, fidelity: float) -> int:
        """Return the smallest number of dimensions that holds a share of the variance in (0, 1]."""
        count = int(np.argmax(self.share >= fidelity - 1e-12)) + 1
        return min(count, int(self.is_real.sum()))


class Standardizer(nn.Module):
    """Map raw latents (D dimensions) to K uncorrelated dimensions of variance 1, and back.

    The statistics are buffers, so that the checkpoint contains them. Before they are fitted or
    loaded, the map is the identity on the first K dimensions.

    Args:
        raw_size: D.
        latent_size: K, at most D.

    Attributes:
        fidelity: Share of the raw variance that the K dimensions hold.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    fidelity: Tensor

    def __init__(self, raw_size: int, latent_size: int) -> None:
        super().__init__()
        if not 1 <= latent_size <= raw_size:
            raise ValueError(
                f"The latent size is {latent_size}; it must be from 1 to the {raw_size} raw "
                "dimensions."
            )
        self.register_buffer("mean", torch.zeros(raw_size))
        self.register_buffer("basis", torch.eye(latent_size, raw_size))
        self.register_buffer("scale", torch.ones(latent_size))
        self.register_buffer("fidelity", torch.ones(()))

    @classmethod
    def fit(
        cls,
        arrays: Iterable[Float32Array],
        fidelity: float,
        latent_size: int | None = None,
    ) -> Standardizer:
        """Return the standardizer with the fewest dimensions that hold a share of the variance.

        Args:
            arrays: Raw latents of each training clip, (D, N), which are read once, in order.
            fidelity: Share of the variance to keep, in (0, 1].
            latent_size: K; None to choose it by `fidelity`.

        Raises:
            ValueError: If a value is not finite, the latents do not vary, or `fidelity` is not in
                (0, 1].
        """
        check_fidelity(fidelity)
        return cls.of(PrincipalDimensions.of(arrays), fidelity, latent_size)

    @classmethod
    def of(
        cls, principal: PrincipalDimensions, fidelity: float, latent_size: int | None = None
    ) -> Standardizer:
        """Return the standardizer with the fewest principal dimensions that hold a share.

        Args:
            principal: Principal dimensions of the training latents.
            fidelity: Share of the variance to keep, in (0, 1].
            latent_size: K; None to choose it by `fidelity`.
        """
        latent_size = latent_size or principal.count(fidelity)
        fitted = cls(len(principal.mean), latent_size)
        fitted.mean.copy_(torch.from_numpy(principal.mean))
        fitted.basis.copy_(torch.from_numpy(principal.vectors[:latent_size].copy()))
        fitted.scale.copy_(torch.from_numpy(np.sqrt(principal.variance[:latent_size])))
        fitted.fidelity.fill_(float(principal.share[latent_size - 1]))
        return fitted

    @property
    def raw_size(self) -> int:
        """Return D."""
        return self.basis.shape[1]

    @property
    def latent_size(self) -> int:
        """Return K."""
        return self.basis.shape[0]

    def standardize(self, raw: Tensor) -> Tensor:
        """Return the latents (B, K, N) of raw latents (B, D, N)."""
        centred = raw - self.mean[:, None]
        return (self.basis @ centred) / self.scale[:, None]

    def unstandardize(self, latents: Tensor) -> Tensor:
        """Return raw latents (B, D, N) of latents (B, K, N); dropped dimensions get their mean."""
        return self.basis.T @ (latents * self.scale[:, None]) + self.mean[:, None]

    def project(self, raw: Tensor) -> Tensor:
        """Return raw latents (B, D, N) with the K dimensions only; the others get their mean."""
        return self.unstandardize(self.standardize(raw))


def _mean_and_covariance(
    arrays: Iterable[Float32Array],
) -> tuple[Float64Array, Float64Array]:
    """Return mean (D,) and covariance (D, D) over all frames, in one pass.

    Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance" (merging of
    two parts). Unlike plain sums of squares, it stays exact with a large mean.
    """
    count = 0
    mean: Float64Array = np.zeros(0)
    scatter: Float64Array = np.zeros((0, 0))
    for array in arrays:
        part = np.asarray(array, dtype=np.float64)
        if part.shape[1] == 0:
            continue
        part_mean = part.mean(axis=1)
        centred = part - part_mean[:, None]
        part_scatter = centred @ centred.T
        if count == 0:
            count, mean, scatter = part.shape[1], part_mean, part_scatter
            continue
        total = count + part.shape[1]
        shift = part_mean - mean
        scatter = scatter + part_scatter + np.outer(shift, shift) * (count * part.shape[1] / total)
        mean = mean + shift * (part.shape[1] / total)
        count = total
    if count == 0:
        raise ValueError("The training latents have no frames. Encode some audio first.")
    return mean, scatter / count
