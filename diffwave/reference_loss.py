"""Reference losses: the losses of three predictors that need no training.

    zero      predicts 0
    white     assumes that the data are independent N(0, 1) numbers
    gaussian  the best linear denoiser: uses the covariance over channels and time

They are computed from the latents alone, before training. Only a loss below `gaussian` shows that a
model has learnt musical structure; `skill` is this as one number. At one noise level the skill for
squared errors is the same for all predictions and weightings; over a whole schedule it is averaged
with weights that depend on them. S segments, K latent size, N frames of a segment, F temporal
frequencies, T timesteps or other noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffwave.denoiser import Prediction
from diffwave.objective import LossKind, Objective
from diffwave.schedule import NoiseSchedule
from rave.compute.arrays import Float64Array, FloatArray

# Largest number of training segments from which the covariance is estimated.
REFERENCE_SEGMENTS = 4096
# Candidates for the estimate of the covariance; cross-validation on training segments selects one.
SHRINKAGES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SMOOTHINGS = (0, 1, 2, 4, 8)
# Noise levels per block, so that the errors of all modes fit into memory.
LEVELS_AT_ONCE = 32


@dataclass(frozen=True)
class ReferenceLosses:
    """The losses of the three predictors, for one schedule, prediction, loss and weighting."""

    zero: float
    white: float
    gaussian: float

    def skill(self, loss: float) -> float:
        """Return the skill of a loss: 0 if it equals `gaussian`, 1 if there is no error."""
        return 1.0 - loss / self.gaussian


@dataclass(frozen=True)
class LossCurve:
    """The losses of the three predictors at T noise levels, each (T,).

    Attributes:
        alpha_bar: Signal power at each level.
        zero: Loss of predicting 0.
        white: Loss of the denoiser that assumes white noise as data.
        gaussian: Loss of the best linear denoiser.
    """

    alpha_bar: Float64Array
    zero: Float64Array
    white: Float64Array
    gaussian: Float64Array

    @property
    def log_snr(self) -> Float64Array:
        """Return the log signal-to-noise ratio of each level, -inf for pure noise."""
        log_snr: Float64Array = torch.logit(torch.from_numpy(self.alpha_bar)).numpy()
        return log_snr

    def skill(self, loss: Float64Array) -> Float64Array:
        """Return the skill of losses (T,) at each level."""
        return 1.0 - loss / self.gaussian

    @classmethod
    def concatenate(cls, curves: Sequence[LossCurve]) -> LossCurve:
        """Return the levels of several curves as one curve."""
        parts = [(curve.alpha_bar, curve.zero, curve.white, curve.gaussian) for curve in curves]
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def mean(self) -> ReferenceLosses:
        """Return the losses averaged over the levels."""
        return ReferenceLosses(
            float(self.zero.mean()), float(self.white.mean()), float(self.gaussian.mean())
        )


class SpectralDensity:
    """Cross-power of the channels at each temporal frequency, summed over segments.

    Args:
        latent_size: K.
        num_frames: N.
    """

    def __init__(self, latent_size: int, num_frames: int) -> None:
        num_frequencies = num_frames // 2 + 1
        self.num_frames = num_frames
        self.num_valid_frames = 0.0
        self._sum = np.zeros((num_frequencies, latent_size, latent_size), dtype=np.complex128)

    def add(self, segments: FloatArray, num_valid_frames: float) -> None:
        """Add segments (S, K, N), which are zero where they are padding."""
        spectrum = np.fft.rfft(segments.astype(np.float64), axis=2).transpose(2, 1, 0)
        self._sum += spectrum @ spectrum.conj().transpose(0, 2, 1)
        self.num_valid_frames += num_valid_frames

    def __add__(self, other: SpectralDensity) -> SpectralDensity:
        total = SpectralDensity(self._sum.shape[1], self.num_frames)
        total._sum = self._sum + other._sum
        total.num_valid_frames = self.num_valid_frames + other.num_valid_frames
        return total

    @property
    def density(self) -> NDArray[np.complex128]:
        """Return the cross-spectral density (F, K, K); it is the identity for N(0, 1) data."""
        return self._sum / max(self.num_valid_frames, 1.0)

    @property
    def weights(self) -> Float64Array:
        """Return each frequency's share of all frequencies, negative ones included: (F,), sum 1."""
        weights = np.full(len(self._sum), 2.0)
        weights[0] = 1.0
        if self.num_frames % 2 == 0:
            weights[-1] = 1.0
        return weights / self.num_frames


@dataclass(frozen=True)
class GaussianModel:
    """Data as a stationary Gaussian process: a variance in each of K modes at each frequency.

    Attributes:
        variance: (F, K).
        modes: (F, K, K) unitary, modes in columns.
    """

    variance: Float64Array
    modes: NDArray[np.complex128]

    def power_in_modes(self, data: SpectralDensity) -> Float64Array:
        """Return the power of data in these modes, (F, K)."""
        conjugate = self.modes.conj()
        power: Float64Array = np.einsum("fkj,fkj->fj", conjugate, data.density @ self.modes).real
        return power


def fit_gaussian(runs: Iterable[tuple[FloatArray, float]]) -> GaussianModel:
    """Return the Gaussian model of training segments.

    The density is smoothed over frequency and shrunk towards white data. Cross-validation between
    two halves of the segments selects how much.

    Args:
        runs: At least one group of neighbouring segments (S, K, N), each with its number of frames
            that are not padding. Every second group belongs to the same half.
    """
    halves: list[SpectralDensity] = []
    for index, (segments, num_valid_frames) in enumerate(runs):
        if not halves:
            halves = [SpectralDensity(*segments.shape[1:]) for _ in range(2)]
        halves[index % 2].add(segments, num_valid_frames)
    first, second = halves
    if second.num_valid_frames == 0:  # too little data for an estimate
        return _gaussian(first, 0, 1.0)

    def left_out_error(smoothing: int, shrinkage: float) -> float:
        alpha_bar = np.linspace(0.05, 0.95, 10)
        model = _gaussian(first, smoothing, shrinkage)
        power = model.power_in_modes(second)
        errors = mode_error("v", alpha_bar[:, None, None], model.variance, power)
        return float((first.weights * errors.mean(axis=2)).sum(axis=1).mean())

    smoothing = min(SMOOTHINGS, key=lambda s: left_out_error(s, 0.03))
    shrinkage = min(SHRINKAGES, key=lambda s: left_out_error(smoothing, s))
    return _gaussian(first + second, smoothing, shrinkage)


def _gaussian(data: SpectralDensity, smoothing: int, shrinkage: float) -> GaussianModel:
    density = data.density
    if smoothing:
        width = min(smoothing, len(density) - 1)
        window = np.bartlett(2 * width + 3)[1:-1]
        # Both ends continue with negative frequencies: conjugates in reverse order.
        below, above = density[1 : width + 1][::-1].conj(), density[-width - 1 : -1][::-1].conj()
        padded = np.concatenate([below, density, above])
        count = len(density)
        density = sum(w * padded[i : i + count] for i, w in enumerate(window / window.sum()))
    density = (1.0 - shrinkage) * density + shrinkage * np.eye(density.shape[1])
    variance, modes = np.linalg.eigh(density)
    return GaussianModel(np.maximum(variance, 0.0), modes)


def mode_error(
    prediction: Prediction,
    alpha_bar: Float64Array,
    assumed: Float64Array | float,
    actual: Float64Array | float,
) -> Float64Array:
    """Return the mean squared error of a linear denoiser in one mode.

    Args:
        prediction: Prediction of the denoiser.
        alpha_bar: Signal power, in [0, 1).
        assumed: Variance of the data for which the denoiser is optimal.
        actual: Power of the data. If both are equal, this is the Wiener filter, the best denoiser
            of Gaussian data.
    """
    noise_power = 1.0 - alpha_bar
    v_error = (noise_power * actual + alpha_bar * np.square(assumed)) / np.square(
        alpha_bar * assumed + noise_power
    )
    if prediction == "v":
        return np.asarray(v_error)
    if prediction == "flow":
        return np.asarray(v_error * np.square(np.sqrt(alpha_bar) + np.sqrt(noise_power)))
    return np.asarray(v_error * (alpha_bar if prediction == "epsilon" else noise_power))


def channel_errors(
    gaussian: GaussianModel,
    held_out: SpectralDensity,
    alpha_bar: Float64Array,
    prediction: Prediction,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return each channel's mean squared errors at some noise levels.

    Args:
        gaussian: Gaussian model of training segments.
        held_out: Density of segments that were not used to fit it.
        alpha_bar: (T,) signal power of the levels.
        prediction: Prediction of the training.

    Returns:
        Errors of predicting 0, of assuming white data, and of the best linear denoiser, (T, K)
        each.
    """
    weights = held_out.weights
    power = (weights @ np.einsum("fkk->fk", held_out.density).real)[None]
    column = alpha_bar[:, None]
    a, s = np.sqrt(column), np.sqrt(1.0 - column)
    zero = {
        "epsilon": np.ones_like(column * power),
        "v": np.square(a) + np.square(s) * power,
        "x0": np.ones_like(column) * power,
        "flow": np.ones_like(column) + power,
    }[prediction]
    white = mode_error(prediction, column, 1.0, power)
    in_modes = gaussian.power_in_modes(held_out)
    # Contribution of each mode to each channel, (F·K, K).
    share = weights[:, None, None] * np.square(np.abs(gaussian.modes))
    share = share.transpose(0, 2, 1).reshape(-1, share.shape[1])
    variance, in_modes = gaussian.variance.ravel(), in_modes.ravel()
    parts = np.array_split(column, -(-len(column) // LEVELS_AT_ONCE))
    linear = [mode_error(prediction, part, variance, in_modes) @ share for part in parts]
    return zero, white, np.concatenate(linear)


def loss_curve(
    gaussian: GaussianModel,
    held_out: SpectralDensity,
    alpha_bar: Float64Array,
    objective: Objective,
) -> LossCurve:
    """Return the three losses on held-out data at some noise levels.

    The mean squared errors of these linear denoisers are exact for any distribution of the data.
    The L1 losses are sqrt(2/pi) times the root of the mean squared error, averaged over channels.
    They are exact if a channel's residual is Gaussian and stationary.

    Args:
        gaussian: Gaussian model of training segments.
        held_out: Density of segments that were not used to fit it.
        alpha_bar: (T,) signal power of the levels.
        objective: Objective of the training.
    """
    errors = channel_errors(gaussian, held_out, alpha_bar, objective.prediction)
    weight = objective.weight(torch.from_numpy(alpha_bar)).numpy()
    return LossCurve(alpha_bar, *(weight * _loss(squared, objective.loss) for squared in errors))


def reference_losses(
    gaussian: GaussianModel,
    held_out: SpectralDensity,
    schedule: NoiseSchedule,
    objective: Objective,
) -> ReferenceLosses:
    """Return the three losses on held-out data, averaged over the timesteps of a schedule.

    Args:
        gaussian: Gaussian model of training segments.
        held_out: Density of segments that were not used to fit it.
        schedule: Noise schedule of the training.
        objective: Objective of the training.
    """
    return loss_curve(gaussian, held_out, schedule.alpha_bar.numpy(), objective).mean()


def _loss(mean_squared_errors: Float64Array, loss: LossKind) -> Float64Array:
    """Return the loss (T,) of mean squared errors (T, K)."""
    if loss == "mse":
        return np.asarray(mean_squared_errors.mean(axis=1))
    return np.asarray(math.sqrt(2.0 / math.pi) * np.sqrt(mean_squared_errors).mean(axis=1))
