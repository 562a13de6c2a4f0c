"""What a network is trained for: its prediction, and how errors of it count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from diffwave.denoiser import Prediction, add_noise, check_choice, error_gain, target
from diffwave.schedule import NoiseSchedule

LossKind = Literal["mse", "l1"]
Weighting = Literal["none", "min-snr"]
# Of min-SNR: the signal-to-noise ratio above which an error of the latents weighs no more.
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
        prediction: What the network predicts: epsilon, v, x0 or flow.
        loss: mse or l1.
        weighting: Of the loss over noise levels: none or min-snr.

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
            model: To train or measure.
            latents: (B, K, N), standardized.
            mask: (B, N), 1 where a frame exists and 0 where it is padding.
            noise: (B, K, N) from N(0, 1).
            timestep: (B,) int64, 0 to T - 1.
            condition: (B, H, N), if the model takes conditions.
        """
        noise, alpha_bar = noise.to(latents.device), model.schedule.alpha_bar[timestep.cpu()]
        # Padding stays zero, as a convolution sees the end of a clip when it generates one.
        noisy = add_noise(latents, noise, alpha_bar) * mask[:, None]
        output = model(noisy, timestep, condition).float()
        errors = self.errors(output, target(self.prediction, latents, noise, alpha_bar), mask)
        return self.weight(alpha_bar).to(latents) * errors

    def errors(self, output: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
        """Return the mean error of each (B, K, N) over the frames of its mask (B, N), unweighted.

        Raises:
            ValueError: If shapes differ: a broadcast would hide a network that learns nothing.
        """
        if output.shape != wanted.shape:
            raise ValueError(
                f"The network's output {tuple(output.shape)} and its target {tuple(wanted.shape)} "
                "differ in shape."
            )
        difference = output - wanted
        each = difference.square() if self.loss == "mse" else difference.abs()
        return (each * mask[:, None]).sum(dim=(1, 2)) / (mask.sum(dim=1) * output.shape[1])

    def weight(self, alpha_bar: Tensor) -> Tensor:
        """Return the weight of an error at noise levels, (B,).

        min-snr counts the squared error of the latents min(SNR, 5) times, whatever is predicted;
        the squared error of the network's output counts

            epsilon   min(SNR, 5) / SNR
            v         min(SNR, 5) / (SNR + 1)
            x0        min(SNR, 5)
            flow      min(SNR, 5) / (sqrt(SNR) + 1)^2

        times, and the absolute error the root of that. Without weights the squared error of the
        latents counts SNR, SNR + 1, 1 and (sqrt(SNR) + 1)^2 times. Pure noise counts nothing under
        min-snr.

        Args:
            alpha_bar: (B,) float64 signal power.

        Source: Hang et al. 2023, arXiv:2303.09556, section 3.4.
        """
        if self.weighting == "none":
            return torch.ones_like(alpha_bar)
        snr = alpha_bar / (1.0 - alpha_bar)
        squared = snr.clamp(max=MIN_SNR_GAMMA) * error_gain(self.prediction, alpha_bar).square()
        return squared if self.loss == "mse" else squared.sqrt()
