"""All that a checkpoint holds: standardizer, schedule, network and conditioner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffwave.conditioner import SpectrogramConditioner
from diffwave.denoiser import check_prediction, denoised_from
from diffwave.network import DiffWave
from diffwave.schedule import NoiseSchedule
from diffwave.standardizer import Standardizer

# The network sees the position in the schedule on this scale, however many timesteps there are.
STEP_SCALE = 1000.0


class LatentDiffusion(nn.Module):
    """A denoising network with the schedule and the statistics it was trained on.

    Args:
        standardizer: Raw latents to latents.
        network: Over the standardizer's K dimensions.
        schedule: Saved with the weights, since a model can only be sampled with its own.
        prediction: epsilon, v, x0 or flow.
        conditioner: None for a model without conditions.

    Raises:
        ValueError: If the parts do not fit each other.
    """

    def __init__(
        self,
        standardizer: Standardizer,
        network: DiffWave,
        schedule: NoiseSchedule,
        prediction: str,
        conditioner: SpectrogramConditioner | None = None,
    ) -> None:
        super().__init__()
        if network.latent_size != standardizer.latent_size:
            raise ValueError(
                f"The network has {network.latent_size} channels, the standardizer keeps "
                f"{standardizer.latent_size} dimensions; they must be the same."
            )
        self.prediction = check_prediction(prediction, schedule)
        self.standardizer = standardizer
        self.network = network
        self.schedule = schedule
        self.conditioner = conditioner

    def get_extra_state(self) -> Tensor:
        """Return the schedule for the checkpoint: (T,) float64, which no device need support."""
        return self.schedule.alpha_bar

    def set_extra_state(self, state: Tensor) -> None:
        """Take the schedule from a checkpoint."""
        self.schedule = NoiseSchedule(state)

    @property
    def is_conditional(self) -> bool:
        """Return whether the model takes spectrograms."""
        return self.conditioner is not None

    def alpha_bar(self, timestep: Tensor) -> Tensor:
        """Return the signal power at timesteps: (B,) int64 to (B,) float64 on the CPU."""
        return self.schedule.alpha_bar[timestep.cpu()]

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the network's prediction.

        Args:
            noisy: (B, K, N).
            timestep: (B,) int64, 0 to T - 1.
            condition: (B, H, N) from the conditioner, if there is one.
        """
        position = (timestep + 1).double().cpu() * (STEP_SCALE / len(self.schedule))
        step = position.to(device=noisy.device, dtype=torch.float32)
        output: Tensor = self.network(noisy, step, condition)
        return output

    def denoise(
        self,
        noisy: Tensor,
        timestep: Tensor,
        condition: Tensor | None = None,
        guidance_scale: float = 1.0,
    ) -> Tensor:
        """Return the model's guess of the latents without noise, (B, K, N).

        Args:
            noisy: (B, K, N).
            timestep: (B,) int64, 0 to T - 1.
            condition: (B, H, N), if the model has a conditioner.
            guidance_scale: 1 takes the condition as it is, more exaggerates it, 0 ignores it.

        Source: Ho & Salimans 2022, arXiv:2207.12598, equation 6, with scale = 1 + w.
        """
        if self.conditioner is None or condition is None or guidance_scale == 1.0:
            output = self(noisy, timestep, condition)
        else:
            absent = self.conditioner.absent(noisy.shape[0], noisy.shape[2])
            both = self(
                torch.cat([noisy, noisy]),
                torch.cat([timestep, timestep]),
                torch.cat([absent, condition]),
            )
            without, with_condition = both.chunk(2)
            output = without + guidance_scale * (with_condition - without)
        return denoised_from(self.prediction, output, noisy, self.alpha_bar(timestep))
