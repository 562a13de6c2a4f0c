"""Ways to train a codec that `benchmarks.codec_trials` compares.

B batch, C channels, T samples, D latent size, N latent frames.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rave.blocks.posterior import DiagonalGaussian
from rave.latents.shifts import EDGE_FRAMES
from rave.model import RAVE
from rave.training import RaveSystem, RaveTraining

# In the encoder of a codec trained without it, its gradient is then four times that of the rest.
CONSISTENCY_WEIGHT = 3.0


def between(latents: Tensor, share: float) -> Tensor:
    """Return what lies a share of a frame behind each latent frame but the last, (B, D, N − 1)."""
    return (1.0 - share) * latents[..., :-1] + share * latents[..., 1:]


class WaveformFirst(RaveSystem):
    """Phase 2 is not adversarial: a frozen encoder, and a decoder without the waveform distance."""

    def __init__(self, model: RAVE, training: RaveTraining) -> None:
        super().__init__(model, replace(training, phase_1_steps=training.max_steps))
        self.first_steps = training.phase_1_steps

    @property
    def is_encoder_frozen(self) -> bool:
        """Return whether latents stay as they are now."""
        return self.global_step >= self.first_steps

    def training_step(self, audio: Tensor, batch_idx: int) -> Tensor:
        """Make one optimizer step."""
        if self.is_encoder_frozen:
            self.training_recipe = replace(self.training_recipe, waveform_weight=0.0)
        return super().training_step(audio, batch_idx)


class Consistent(RaveSystem):
    """Latents of audio that moves by a part of a frame shall lie between the frames around it.

    The error of a dimension counts relative to the variance of its latents, noise included, so that
    neither small latents nor those drowned in noise pay off or matter.
    """

    posterior: DiagonalGaussian

    def _posterior(self, audio: Tensor) -> DiagonalGaussian:
        self.posterior = super()._posterior(audio)
        return self.posterior

    def _generator_loss(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        loss = super()._generator_loss(audio, generator)
        hop = self.model.hop_samples
        shift = int(torch.randint(1, hop, (), generator=generator))
        moved = self.model.encode(audio[..., shift : audio.shape[-1] - hop + shift]).mean
        error = inconsistency(self.posterior, moved, shift / hop)
        self._log_means({"inconsistency": error})
        return loss + CONSISTENCY_WEIGHT * error


def inconsistency(posterior: DiagonalGaussian, moved: Tensor, share: float) -> Tensor:
    """Return how far latents are from where they are expected, relative to their variance.

    Args:
        posterior: Of the audio, (B, D, N).
        moved: Posterior mean (B, D, N − 1) of the audio from `share` of a frame on.
        share: Above 0 and below 1.

    Returns:
        A scalar ≥ 0; 1.5 to 2 for latents without any relation.
    """
    mean, std = posterior.mean.float(), posterior.std.float()
    errors = (moved.float() - between(mean, share))[..., EDGE_FRAMES:-EDGE_FRAMES].square()
    variances = mean.var(dim=(0, 2)) + std.square().mean(dim=(0, 2))
    return (errors.mean(dim=(0, 2)) / variances).mean()


class Equivariant(RaveSystem):
    """In half of the steps, latents between frames are decoded, and compared with moved audio.

    Source: Kouzelis et al. 2025, EQ-VAE, arXiv:2502.09509.
    Differs: time moves, by a part of a frame; images are scaled and turned there.
    """

    def _generator_loss(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        if torch.rand((), generator=generator) < 0.5:
            return super()._generator_loss(audio, generator)
        hop, batch = self.model.hop_samples, self.global_batch
        shift = int(torch.randint(1, hop, (), generator=generator))
        moved = audio[..., shift : audio.shape[-1] - hop + shift]
        posterior = self._posterior(audio)
        latents = between(self._latents(posterior, generator), shift / hop)
        reconstruction = self._reconstruct(latents, moved, generator, batch)
        distance = self.audio_distance(moved, reconstruction, generator, batch)
        penalty = self.model.bottleneck.penalty(posterior, generator, batch)
        self._log_means({"moved_spectral_distance": distance})
        return distance + self.training_recipe.beta_at(self.global_step) * penalty
