"""Predictions from a schedule alone: losses and sampling of a model that learned no music.

T timesteps, B items in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from diffwave.objective import LossKind
from diffwave.schedule import NoiseSchedule
from rave.compute.arrays import Float64Array

# Mean of |x| where x is N(0, 1).
MEAN_ABSOLUTE = math.sqrt(2.0 / math.pi)


def zero_loss(loss: LossKind) -> float:
    """Return the loss of predicting no noise at all, whatever the schedule."""
    return 1.0 if loss == "mse" else MEAN_ABSOLUTE


def white_errors(schedule: NoiseSchedule, loss: LossKind) -> Float64Array:
    """Return the loss at each timestep of the best guess of the noise in white data, (T,)."""
    alpha_bar = schedule.alpha_bar.numpy()
    return alpha_bar if loss == "mse" else MEAN_ABSOLUTE * np.sqrt(alpha_bar)


def white_loss(schedule: NoiseSchedule, loss: LossKind) -> float:
    """Return the mean of `white_errors` over the schedule."""
    return float(white_errors(schedule, loss).mean())


def broadcast_loss(schedule: NoiseSchedule, loss: LossKind, num_channels: int) -> float:
    """Return the best loss of one channel broadcast over the noise of many, on white data.

    All that one channel can say is the mean noise of the channels, a share of 1 / channels of it.
    """
    alpha_bar = schedule.alpha_bar.numpy()
    errors = 1.0 - (1.0 - alpha_bar) / num_channels
    return float(errors.mean() if loss == "mse" else MEAN_ABSOLUTE * np.sqrt(errors).mean())


def without_roots(schedule: NoiseSchedule) -> NoiseSchedule:
    """Return the schedule that mixing by alpha_bar and 1 − alpha_bar amounts to.

    Only the ratio of signal to noise counts: alpha_bar² / (alpha_bar² + (1 − alpha_bar)²).
    """
    alpha_bar = schedule.alpha_bar
    return NoiseSchedule(alpha_bar.square() / (alpha_bar.square() + (1.0 - alpha_bar).square()))


def share_of_timesteps_seen(num_draws: int, num_timesteps: int) -> float:
    """Return the share of timesteps that random draws have met at least once."""
    return 1.0 - (1.0 - 1.0 / num_timesteps) ** num_draws


def spread_of_loss(errors: Float64Array, batch_size: int) -> dict[str, float]:
    """Return the standard deviation of a batch's loss that the draw of the timesteps causes.

    Args:
        errors: (T,) loss at each timestep.
        batch_size: B.

    Returns:
        For one timestep for the whole batch, one for each item, and one for each item from its own
        B-th part of the schedule.
    """
    strata = np.array_split(errors, batch_size)
    within = float(np.mean([np.var(stratum) for stratum in strata]))
    spread = float(np.std(errors))
    return {
        "one for the batch": spread,
        "one for each item": spread / math.sqrt(batch_size),
        "stratified": math.sqrt(within / batch_size),
    }


def bounded_loss(schedule: NoiseSchedule, loss: LossKind) -> float:
    """Return the best loss of an answer in [0, 1] from one noisy number alone, timestep unknown.

    What the diary's CNN could reach on white data: there x is N(0, 1) at every timestep, and the
    noise in it N(sqrt(1 − alpha_bar)·x, alpha_bar). Both losses are convex in the answer.
    """
    x = np.linspace(-5.0, 5.0, 201)
    answers = np.linspace(0.0, 1.0, 101)
    alpha_bar = schedule.alpha_bar.numpy()[:, None, None]
    total: Float64Array = np.zeros((len(x), len(answers)))
    for part in np.array_split(alpha_bar, max(len(alpha_bar) // 20, 1)):
        off = np.sqrt(1.0 - part) * x[:, None] - answers
        if loss == "mse":
            total += (off**2 + part).sum(axis=0)
        else:
            total += _mean_absolute(off, np.sqrt(part)).sum(axis=0)
    weights = np.exp(-np.square(x) / 2)
    return float((total.min(axis=1) / len(alpha_bar) * weights).sum() / weights.sum())


def _mean_absolute(mean: Float64Array, std: Float64Array) -> Float64Array:
    """Return E|N(mean, std²)|."""
    from scipy.special import erf

    z = mean / std
    value: Float64Array = std * MEAN_ABSOLUTE * np.exp(-(z**2) / 2) + mean * erf(z / math.sqrt(2))
    return value


def sampled_std(
    schedule: NoiseSchedule,
    gain: Callable[[int, float], float],
) -> Float64Array:
    """Return the standard deviation of x after each step of ancestral sampling, (T + 1,).

    For a model whose prediction of the noise is a multiple of its input, so that x stays Gaussian:

        x ← (x − beta / sqrt(1 − alpha_bar) · gain · x) / sqrt(alpha) + posterior noise

    Args:
        schedule: Schedule of the sampler.
        gain: Takes the timestep and the present standard deviation; returns that multiple. The
            white model's is sqrt(1 − alpha_bar) of the schedule that it was trained on.
    """
    alpha_bar, betas = schedule.alpha_bar.numpy(), schedule.betas.numpy()
    std, found = 1.0, [1.0]
    for timestep in reversed(range(len(schedule))):
        noise_power = 1.0 - alpha_bar[timestep]
        kept = 1.0 - betas[timestep] / math.sqrt(noise_power) * gain(timestep, std)
        variance = (kept * std) ** 2 / (1.0 - betas[timestep])
        variance += posterior_variance(alpha_bar, betas, timestep)
        std = math.sqrt(variance)
        found.append(std)
    return np.array(found)


def posterior_variance(alpha_bar: Float64Array, betas: Float64Array, timestep: int) -> float:
    """Return the variance of the noise that an ancestral step adds; none at the last step.

    Source: Ho et al. 2020, arXiv:2006.11239, equation 7.
    """
    if timestep == 0:
        return 0.0
    before = 1.0 - alpha_bar[timestep - 1]
    return float(before / (1.0 - alpha_bar[timestep]) * betas[timestep])


def clamped_std(schedule: NoiseSchedule, limit: float) -> Float64Array:
    """Return the standard deviation of x if it is cut to ± limit after every step, (T + 1,).

    For a model that predicts nothing. The law of one number is carried from step to step on a grid,
    whose ends hold what was cut.
    """
    from scipy.special import ndtr

    alpha_bar, betas = schedule.alpha_bar.numpy(), schedule.betas.numpy()
    grid = np.linspace(-limit, limit, 401)
    edges = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    law: Float64Array | None = None
    found = [1.0]
    for timestep in reversed(range(len(schedule))):
        std = max(math.sqrt(posterior_variance(alpha_bar, betas, timestep)), 1e-9)
        grow = 1.0 / math.sqrt(1.0 - betas[timestep])
        if law is None:  # x is N(0, 1) before the first step
            law = np.diff(ndtr(edges / math.hypot(grow, std)))
        else:
            law = law @ np.diff(ndtr((edges - grow * grid[:, None]) / std), axis=1)
        found.append(float(np.sqrt((law * grid**2).sum())))
    return np.array(found)


def share_cut(limit: float) -> float:
    """Return the share of N(0, 1) numbers beyond ± limit."""
    return 1.0 - math.erf(limit / math.sqrt(2))


def length_of_mean(num_clips: int) -> float:
    """Return the length of a mean of independent vectors, relative to theirs."""
    return 1.0 / math.sqrt(num_clips)


def blend_length(weight: float) -> float:
    """Return the length of a straight blend of two independent vectors, relative to theirs."""
    return math.hypot(1.0 - weight, weight)


def amplification(schedule: NoiseSchedule) -> float:
    """Return by how much sampling amplifies an error that the model never corrects."""
    return float(1.0 / math.sqrt(float(schedule.alpha_bar[-1])))


def expected_extreme(num_values: int) -> float:
    """Return the median of the largest the largest of so many N(0, 1) numbers is, either sign."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + 0.5 * 0.5 ** (1.0 / num_values)))
