"""Raw latents to latents and exactly back: centre, rotate by PCA, keep, whiten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# A component with less than this share of the largest variance is numerical noise.
SMALLEST_SHARE = 1e-9


def check_fidelity(fidelity: float) -> None:
    """Check that a number is a share of variance that can be kept.

    Raises:
        ValueError: If it is not.
    """
    if not 0 < fidelity <= 1:
        raise ValueError(f"FIDELITY is {fidelity}; it must be above 0 and at most 1.")


@dataclass(frozen=True)
class PrincipalDimensions:
    """The directions in which raw latents vary, from the widest on; D dimensions.

    Attributes:
        mean: (D,) of the raw latents.
        variance: (D,) along each direction, falling.
        vectors: (D, D) unit vectors in rows.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    vectors: NDArray[np.float64]

    @classmethod
    def of(cls, arrays: Iterable[NDArray[np.float32]]) -> PrincipalDimensions:
        """Return the principal dimensions of raw latents (D, N), read once, one after the other.

        Raises:
            ValueError: If the latents hold a value that is not finite, or do not vary.
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
                "The training latents do not vary at all, so there is nothing to learn from. "
                "Is the audio silent, or the codec untrained?"
            )
        # The sign of an eigenvector is arbitrary: its largest entry is made positive.
        largest = np.abs(vectors).argmax(axis=1)
        vectors = vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]
        return cls(mean, variances, vectors)

    @property
    def is_real(self) -> NDArray[np.bool_]:
        """Return (D,) whether a direction is more than numerical noise."""
        return np.asarray(self.variance > SMALLEST_SHARE * self.variance[0])

    @property
    def share(self) -> NDArray[np.float64]:
        """Return (D,) the share of the variance that each direction and those before it hold."""
        real = self.variance * self.is_real
        return np.asarray(np.cumsum(real) / real.sum())

    def count(self, fidelity: float) -> int:
        """Return the fewest dimensions that hold a share of the variance in (0, 1]."""
        reached = int(np.argmax(self.share >= fidelity - 1e-12)) + 1  # a count: index plus one
        return min(reached, int(self.is_real.sum()))


class Standardizer(nn.Module):
    """Map raw latents (D dimensions) to K independent dimensions of variance 1, and back.

    The statistics are buffers, so that they travel in the checkpoint. Until `fit` has made them, or
    a checkpoint has brought them, the map is the identity on the first K dimensions.

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
                f"{latent_size} of {raw_size} latent dimensions were asked for; "
                "keep at least 1 and at most all of them."
            )
        self.register_buffer("mean", torch.zeros(raw_size))
        self.register_buffer("basis", torch.eye(latent_size, raw_size))
        self.register_buffer("scale", torch.ones(latent_size))
        self.register_buffer("fidelity", torch.ones(()))

    @classmethod
    def fit(
        cls,
        arrays: Iterable[NDArray[np.float32]],
        fidelity: float,
        latent_size: int | None = None,
    ) -> Standardizer:
        """Return the standardizer of fewest dimensions that reaches a share of the variance.

        Args:
            arrays: Raw latents of each training clip, (D, N). Read once, one after the other.
            fidelity: Share of the variance to keep, in (0, 1].
            latent_size: K, whatever share it holds; None for what `fidelity` asks for.

        Raises:
            ValueError: If the latents hold a value that is not finite, or do not vary, or
                `fidelity` is no such share.
        """
        check_fidelity(fidelity)
        return cls.of(PrincipalDimensions.of(arrays), fidelity, latent_size)

    @classmethod
    def of(
        cls, principal: PrincipalDimensions, fidelity: float, latent_size: int | None = None
    ) -> Standardizer:
        """Return the standardizer of the fewest principal dimensions that reach a share.

        Args:
            principal: Of the training latents.
            fidelity: Share of the variance to keep, in (0, 1].
            latent_size: As of `fit`.
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
        """Return the raw latents (B, D, N) of latents (B, K, N); what was not kept is its mean."""
        return self.basis.T @ (latents * self.scale[:, None]) + self.mean[:, None]


def _mean_and_covariance(
    arrays: Iterable[NDArray[np.float32]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean (D,) and covariance (D, D) over all frames, in one pass.

    Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance" (the rule for
    joining two parts), which unlike plain sums of squares loses nothing to a large mean.
    """
    count = 0
    mean: NDArray[np.float64] = np.zeros(0)
    scatter: NDArray[np.float64] = np.zeros((0, 0))
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
        raise ValueError("There is not one frame of latents to train on. Encode some audio first.")
    return mean, scatter / count
