"""The training objective: prediction, loss, and its weighting over noise levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from diffwave.denoiser import Prediction, add_noise, check_choice, error_gain, target
from diffwave.schedule import NoiseSchedule

LossKind = Literal["mse", "l1"]
Weighting = Literal["none", "min-snr"]
# Of min-SNR: the signal-to-noise ratio above which the weight of an error is constant.
MIN_SNR_GAMMA = 5.0


class Model(Protocol):
    """A network (noisy, timestep, condition) → prediction, with the schedule of its timesteps."""

    schedule: NoiseSchedule

    def __call__(self, noisy: Tensor, timestep: Tensor, condition: Tensor | None, /) -> Tensor:
        """Return the prediction, (B, K, N)."""


@dataclass(frozen=True)
class Objective:
    """Prediction, loss and weighting of a training.

    Attributes:
        prediction: Prediction of the network: epsilon, v, x0 or flow.
        loss: mse or l1.
        weighting: Weighting of the loss over noise levels: none or min-snr.

    Raises:
        ValueError: If there is no such prediction, loss or weighting.
    """

    prediction: Prediction
    loss: LossKind = "mse"
    weighting: Weighting = "none"

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, Prediction)
        check_choice("loss", self.loss, LossKind)
        check_choice("weighting", self.weighting, Weighting)

    def losses(
        self,
        model: Model,
        latents: Tensor,
        mask: Tensor,
        noise: Tensor,
        timestep: Tensor,
        condition: Tensor | None,
    ) -> Tensor:
        """Return the loss of each item of a batch, (B,).

        Args:
            model: Model to train or measure.
            latents: (B, K, N), standardized.
            mask: (B, N), 1 where a frame exists and 0 where it is padding.
            noise: (B, K, N) from N(0, 1).
            timestep: (B,) int64, 0 to T - 1.
            condition: (B, H, N), if the model takes conditions.
        """
        noise, alpha_bar = noise.to(latents.device), model.schedule.alpha_bar[timestep.cpu()]
        # Padding stays zero, as at the end of a generated clip.
        noisy = add_noise(latents, noise, alpha_bar) * mask[:, None]
        output = model(noisy, timestep, condition).float()
        errors = self.errors(output, target(self.prediction, latents, noise, alpha_bar), mask)
        return self.weight(alpha_bar).to(latents) * errors

    def errors(self, output: Tensor, expected: Tensor, mask: Tensor) -> Tensor:
        """Return the unweighted mean error (B,) of outputs (B, K, N) where the mask (B, N) is 1.

        Raises:
            ValueError: If shapes differ: a broadcast would hide a network that learns nothing.
        """
        if output.shape != expected.shape:
            raise ValueError(
                f"The network's output {tuple(output.shape)} and its target "
                f"{tuple(expected.shape)} differ in shape."
            )
        difference = output - expected
        errors = difference.square() if self.loss == "mse" else difference.abs()
        return (errors * mask[:, None]).sum(dim=(1, 2)) / (mask.sum(dim=1) * output.shape[1])

    def weight(self, alpha_bar: Tensor) -> Tensor:
        """Return the weight of an error at noise levels, (B,).

        min-snr weights the squared error of the denoised latents by min(SNR, 5) for every
        prediction. So the weight of the squared error of the network's output is

            epsilon   min(SNR, 5) / SNR
            v         min(SNR, 5) / (SNR + 1)
            x0        min(SNR, 5)
            flow      min(SNR, 5) / (sqrt(SNR) + 1)^2

        and the weight of its absolute error is the square root. With weighting none, the squared
        error of the latents has the weight SNR, SNR + 1, 1 or (sqrt(SNR) + 1)^2. With min-snr, pure
        noise has the weight 0.

        Args:
            alpha_bar: (B,) float64 signal power.

        Source: Hang et al. 2023, arXiv:2303.09556, section 3.4.
        """
        if self.weighting == "none":
            return torch.ones_like(alpha_bar)
        snr = alpha_bar / (1.0 - alpha_bar)
        squared = snr.clamp(max=MIN_SNR_GAMMA) * error_gain(self.prediction, alpha_bar).square()
        return squared if self.loss == "mse" else squared.sqrt()
