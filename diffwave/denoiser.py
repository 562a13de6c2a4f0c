"""Targets of a denoising network and the ways between them, for training and sampling alike.

With a = sqrt(alpha_bar) and s = sqrt(1 - alpha_bar), noisy = a·latents + s·noise, and the target is

    epsilon   noise                 (Ho et al. 2020, arXiv:2006.11239)
    v         a·noise - s·latents   (Salimans & Ho 2022, arXiv:2202.00512)
    x0        latents
    flow      noise - latents       (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023,
                                    arXiv:2209.03003)

Flow matching is defined on a straight path, (1 - tau)·latents + tau·noise. With tau = s / (a + s)
that is noisy / (a + s), so the network keeps the input it has for every other prediction, of
power 1 at each timestep.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor

from diffwave.schedule import NoiseSchedule

Prediction = Literal["epsilon", "v", "x0", "flow"]
LossKind = Literal["mse", "l1"]
Weighting = Literal["none", "min-snr"]
# Of min-SNR: the signal-to-noise ratio above which an error of the latents weighs no more.
MIN_SNR_GAMMA = 5.0


def check_prediction(prediction: str, schedule: NoiseSchedule) -> Prediction:
    """Return the name of a prediction, if it can be used with a schedule.

    Raises:
        ValueError: If there is no such prediction, or the schedule ends in pure noise, where
            epsilon says nothing about the latents.
    """
    if prediction not in get_args(Prediction):
        raise ValueError(
            f"There is no prediction '{prediction}'. "
            f"Choose one of: {', '.join(get_args(Prediction))}."
        )
    if prediction == "epsilon" and schedule.is_zero_terminal:
        raise ValueError(
            "The schedule ends in pure noise, from which an epsilon-prediction cannot tell the "
            "latents. Choose PREDICTION='v', or another SCHEDULE such as 'audioldm'."
        )
    return cast(Prediction, prediction)


def check_loss(loss: str) -> LossKind:
    """Return the name of a loss.

    Raises:
        ValueError: If there is no such loss.
    """
    if loss not in get_args(LossKind):
        raise ValueError(f"There is no loss '{loss}'. Choose one of: mse, l1.")
    return cast(LossKind, loss)


def check_weighting(weighting: str) -> Weighting:
    """Return the name of a weighting of the loss.

    Raises:
        ValueError: If there is no such weighting.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(
            f"There is no weighting '{weighting}'. Choose one of: {', '.join(get_args(Weighting))}."
        )
    return cast(Weighting, weighting)


def scales(alpha_bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales of latents and noise, each (B, 1, 1).

    Args:
        alpha_bar: (B,) float64 on the CPU, where 1 - alpha_bar is exact enough.
        like: Gives dtype and device.
    """
    signal, noise = alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()
    return (
        signal.to(dtype=like.dtype, device=like.device)[:, None, None],
        noise.to(dtype=like.dtype, device=like.device)[:, None, None],
    )


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return noisy latents (B, K, N); `alpha_bar` (B,) is the signal power left in each item."""
    a, s = scales(alpha_bar, latents)
    return a * latents + s * noise


def target(prediction: Prediction, latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return what the network is to predict, (B, K, N)."""
    if prediction == "epsilon":
        return noise
    if prediction == "x0":
        return latents
    if prediction == "flow":
        return noise - latents
    a, s = scales(alpha_bar, latents)
    return a * noise - s * latents


def denoised_from(
    prediction: Prediction, output: Tensor, noisy: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Return the latents that a network's output stands for, (B, K, N)."""
    if prediction == "x0":
        return output
    a, s = scales(alpha_bar, noisy)
    if prediction == "flow":
        return (noisy - s * output) / (a + s)
    return (noisy - s * output) / a if prediction == "epsilon" else a * noisy - s * output


def noise_from(prediction: Prediction, output: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the noise that a network's output stands for, (B, K, N)."""
    if prediction == "epsilon":
        return output
    a, s = scales(alpha_bar, noisy)
    if prediction == "flow":
        return (noisy + a * output) / (a + s)
    return (noisy - a * output) / s if prediction == "x0" else s * noisy + a * output


def error_gain(prediction: Prediction, alpha_bar: Tensor) -> Tensor:
    """Return how large an error of the latents is, for an error of 1 of a network's output.

    Args:
        prediction: What the output is.
        alpha_bar: (B,) signal power, in [0, 1); above 0 for epsilon.

    Returns:
        (B,).
    """
    a, s = alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()
    if prediction == "x0":
        return torch.ones_like(s)
    if prediction == "v":
        return s
    return s / a if prediction == "epsilon" else s / (a + s)


def squared_error_weight(weighting: Weighting, prediction: Prediction, alpha_bar: Tensor) -> Tensor:
    """Return what the squared error of a network's output counts, (B,).

    min-snr counts the squared error of the latents min(SNR, 5) times, whatever is predicted:

        epsilon   min(SNR, 5) / SNR
        v         min(SNR, 5) / (SNR + 1)
        x0        min(SNR, 5)
        flow      min(SNR, 5) / (sqrt(SNR) + 1)^2

    Without weights the squared error of the latents counts SNR, SNR + 1, 1 and (sqrt(SNR) + 1)^2
    times. Pure noise counts nothing under min-snr.

    Args:
        weighting: none or min-snr.
        prediction: What the output is.
        alpha_bar: (B,) float64 signal power.

    Source: Hang et al. 2023, arXiv:2303.09556, section 3.4.
    """
    if weighting == "none":
        return torch.ones_like(alpha_bar)
    snr = alpha_bar / (1.0 - alpha_bar)
    return snr.clamp(max=MIN_SNR_GAMMA) * error_gain(prediction, alpha_bar).square()


def error_weight(kind: LossKind, squared_weight: Tensor) -> Tensor:
    """Return what an error counts: its difference is scaled before the square, or before |·|."""
    return squared_weight if kind == "mse" else squared_weight.sqrt()


def error(kind: LossKind, output: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Return each item's mean error over the frames that exist.

    Args:
        kind: mse or l1.
        output: (B, K, N) of the network.
        wanted: (B, K, N) the target.
        mask: (B, N), 1 where a frame exists and 0 where it is padding.

    Returns:
        (B,).

    Raises:
        ValueError: If shapes differ: a broadcast would hide a network that learns nothing.
    """
    if output.shape != wanted.shape:
        raise ValueError(
            f"The network's output {tuple(output.shape)} and its target {tuple(wanted.shape)} "
            "differ in shape."
        )
    difference = output - wanted
    each = difference.square() if kind == "mse" else difference.abs()
    return (each * mask[:, None]).sum(dim=(1, 2)) / (mask.sum(dim=1) * output.shape[1])


def stratified_timesteps(batch_size: int, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """Return one random timestep per item, spread evenly over the schedule: (B,) int64.

    Each item has its own stratum, in random order, so that the loss of a batch varies little with
    the draw. Each timestep is as likely as any other.
    """
    offset = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    order = torch.randperm(batch_size, generator=generator)
    position = (order + offset) / batch_size
    return (position * num_timesteps).long().clamp(max=num_timesteps - 1)
