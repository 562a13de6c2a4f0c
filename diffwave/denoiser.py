"""Targets of a denoising network and the conversions between them, for training and sampling.

With a = sqrt(alpha_bar) and s = sqrt(1 - alpha_bar), noisy = a·latents + s·noise, and the target is

    epsilon   noise                 (Ho et al. 2020, arXiv:2006.11239)
    v         a·noise - s·latents   (Salimans & Ho 2022, arXiv:2202.00512)
    x0        latents
    flow      noise - latents       (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023,
                                    arXiv:2209.03003)

Flow matching is defined on a straight path, (1 - tau)·latents + tau·noise. With tau = s / (a + s)
the point on this path is noisy / (a + s), so the network can have the same input as for the other
predictions, with power 1 at each timestep.
"""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from diffwave.schedule import NoiseSchedule

Prediction = Literal["epsilon", "v", "x0", "flow"]


def check_choice(kind: str, name: str, choices: Any) -> None:
    """Check that a name is one of the choices of a literal type.

    Raises:
        ValueError: If it is not; the message lists the choices.
    """
    if name not in get_args(choices):
        raise ValueError(
            f"There is no {kind} '{name}'. Choose one of: {', '.join(get_args(choices))}."
        )


def check_prediction(prediction: str, schedule: NoiseSchedule) -> Prediction:
    """Return the name of a prediction, if it can be used with a schedule.

    Raises:
        ValueError: If there is no such prediction, or it is epsilon and the schedule ends in pure
            noise, where the noise does not determine the latents.
    """
    check_choice("prediction", prediction, Prediction)
    if prediction == "epsilon" and schedule.is_zero_terminal:
        raise ValueError(
            "PREDICTION='epsilon' cannot be used with a schedule that ends in pure noise. Choose "
            "PREDICTION='v', or another SCHEDULE such as 'audioldm'."
        )
    return cast(Prediction, prediction)


def scales(alpha_bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales of latents and noise, each (B, 1, 1).

    Args:
        alpha_bar: (B,) float64 on the CPU, so that 1 - alpha_bar is exact enough.
        like: Tensor with the dtype and device of the result.
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
    """Return the target of the network, (B, K, N)."""
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
    """Return the denoised latents that follow from a network's output, (B, K, N)."""
    if prediction == "x0":
        return output
    a, s = scales(alpha_bar, noisy)
    if prediction == "flow":
        return (noisy - s * output) / (a + s)
    return (noisy - s * output) / a if prediction == "epsilon" else a * noisy - s * output


def noise_from(prediction: Prediction, output: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the noise that follows from a network's output, (B, K, N)."""
    if prediction == "epsilon":
        return output
    a, s = scales(alpha_bar, noisy)
    if prediction == "flow":
        return (noisy + a * output) / (a + s)
    return (noisy - a * output) / s if prediction == "x0" else s * noisy + a * output


def error_gain(prediction: Prediction, alpha_bar: Tensor) -> Tensor:
    """Return the error of the denoised latents for an error of 1 in a network's output.

    Args:
        prediction: Prediction of the network.
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


def stratified_timesteps(batch_size: int, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """Return one random timestep per item, spread evenly over the schedule: (B,) int64.

    Each item has its own part of the schedule, in random order, so that the loss varies less from
    batch to batch. All timesteps are equally likely.
    """
    offset = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    order = torch.randperm(batch_size, generator=generator)
    position = (order + offset) / batch_size
    return (position * num_timesteps).long().clamp(max=num_timesteps - 1)
