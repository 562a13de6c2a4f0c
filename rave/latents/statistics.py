"""Statistics of latents, by dimension. D latent size, N latent frames."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rave.compute.arrays import Float32Array, Float64Array
from rave.files.atomic import typed

# A dimension with less information is masked by the noise of its own posterior.
INFORMATIVE_NATS = 0.05


@dataclass(frozen=True)
class LatentStatistics:
    """Per-dimension statistics over all frames of a folder; lists of D numbers.

    Attributes:
        mean: Mean of the posterior mean.
        std: Standard deviation of the posterior mean.
        posterior_std: Root mean square of the posterior std; 1 in a collapsed dimension.
        kl: Mean KL divergence of the posterior from N(0, 1), nats per frame.
        num_frames: Frames counted.
    """

    mean: list[float]
    std: list[float]
    posterior_std: list[float]
    kl: list[float]
    num_frames: int

    @property
    def information(self) -> Float64Array:
        """Return (D,) nats per frame that each dimension carries, seen as a Gaussian channel.

        ½·ln(1 + std² / noise_std²). The KL does not measure it: a posterior that is narrower than
        the prior, but the same for every sound, has a KL and is uninformative.
        """
        information: Float64Array = 0.5 * np.log1p(
            np.square(np.asarray(self.std) / np.maximum(self.noise_std, 1e-12))
        )
        return information

    @property
    def noise_std(self) -> Float64Array:
        """Return (D,) the geometric mean of the posterior std, that of an ordinary frame.

        A few frames with a huge std, unlike the training audio, hardly change it. It follows from
        the definition of the KL, 2·kl = E[mean² + variance − 1 − ln variance].
        """
        rms = np.asarray(self.posterior_std)
        power = np.square(self.mean) + np.square(self.std) + np.square(rms)
        log_variance = power - 1.0 - 2.0 * np.asarray(self.kl)
        # A geometric mean is never above the root mean square.
        return np.exp(np.minimum(0.5 * log_variance, np.log(np.maximum(rms, 1e-12))))

    @property
    def is_informative(self) -> NDArray[np.bool_]:
        """Return (D,) whether each dimension carries information."""
        return self.information > INFORMATIVE_NATS


class StatisticsAccumulator:
    """Sums over frames from which `LatentStatistics` are computed; sums of files can be added."""

    def __init__(self, latent_size: int) -> None:
        self._sums = np.zeros((4, latent_size))
        self._num_frames = 0

    def add(self, mean: Float32Array, std: Float32Array) -> None:
        """Count frames. `mean` and `std` of the posterior, each (D, N)."""
        self.add_sums(self.sums_of(mean, std), mean.shape[1])

    def add_sums(self, sums: NDArray[Any], num_frames: int) -> None:
        """Count frames by their sums from `sums_of`."""
        self._sums += sums
        self._num_frames += num_frames

    @staticmethod
    def sums_of(mean: Float32Array, std: Float32Array) -> Float64Array:
        """Return the sums over frames, (4, D). `mean` and `std` of the posterior, each (D, N)."""
        centre, variance = mean.astype(np.float64), np.square(std.astype(np.float64))
        power = np.square(centre)
        kl = 0.5 * (power + variance - 1.0 - np.log(variance))
        return np.stack([value.sum(axis=1) for value in (centre, power, variance, kl)])

    def record(self) -> dict[str, Any]:
        """Return the sums as JSON-able data, small and fast to read: a journal has one per file."""
        packed = self._sums.astype("<f8").tobytes()
        return {"sums": b64encode(packed).decode(), "num_frames": self._num_frames}

    def merge(self, record: dict[str, Any]) -> None:
        """Add the sums that another accumulator recorded.

        Raises:
            ValueError, TypeError, KeyError: If it is not such a record.
        """
        values = np.frombuffer(b64decode(record["sums"]), "<f8").reshape(self._sums.shape)
        if not np.isfinite(values).all():
            raise ValueError("sums that are not finite")
        self.add_sums(values, typed(record["num_frames"], int, "num_frames"))

    def statistics(self) -> LatentStatistics:
        """Return the statistics of all frames counted."""
        total, squares, variance, kl = self._sums / max(self._num_frames, 1)
        std = np.sqrt(np.maximum(squares - np.square(total), 0.0))
        return LatentStatistics(
            mean=total.tolist(),
            std=std.tolist(),
            posterior_std=np.sqrt(variance).tolist(),
            kl=kl.tolist(),
            num_frames=self._num_frames,
        )
