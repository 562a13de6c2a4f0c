"""Training of RAVE in two phases: spectral distance, then adversarial with a frozen encoder.

B batch, C channels, T samples, D latent size, N latent frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.audio.derivative import derivative
from rave.augmentation import Augmentations
from rave.blocks.posterior import DiagonalGaussian
from rave.compute.distributed import ONE_PROCESS, GlobalBatch
from rave.compute.strategy import TrainingSystem
from rave.discriminator import CombinedDiscriminator
from rave.latents.shifts import EDGE_FRAMES, explained, shift_errors
from rave.losses import (
    SpectralDistance,
    discriminator_hinge_loss,
    feature_matching,
    log_spectral_distance_db,
    waveform_distance,
)
from rave.model import RAVE

FIDELITIES = (0.80, 0.90, 0.95, 0.99)
NUM_LOGGED_CROPS = 4


@dataclass(frozen=True)
class RaveTraining:
    """Training settings of a recipe.

    Attributes:
        seed: Random seed of the first weights, the crops, the latents' noise and the scales drawn.
        discriminator: Discriminator of phase 2.
        audio_distance: On the full band.
        band_distance: On the bands, or None to leave it out.
        augmentations: Augmentations of the crops trained on.
        max_steps: Steps of both phases together.
        phase_1_steps: Steps before the adversarial phase.
        batch_size: Crops per step.
        crop_samples: Length of a crop.
        learning_rate: Highest rate of encoder and decoder.
        warmup_steps: Steps from 0 to that rate.
        final_rate_factor: Share of it that is left at the end of phase 1, along a half cosine.
        precision: "32-true", "bf16-mixed", or "auto": bfloat16 where the processor is fast in it.
        waveform_weight: Weight of the waveform distance, which falls with the learning rate.
        discriminator_learning_rate: Constant.
        beta_initial: Weight of the bottleneck's penalty, as the KL divergence, at the first step.
        beta: Weight after `beta_warmup_steps`, reached along a straight line in the logarithm.
        beta_warmup_steps: See `beta`.
        feature_matching_weight: Phase 2.
        adversarial_weight: Phase 2.
        num_skipped_features: First features of each sub-discriminator not to match.
        is_feature_matching_relative: Relative to the size of the real features.
        discriminator_every_steps: In phase 2, train the discriminator once every so many steps.
        gradient_clip_norm: Largest gradient norm of encoder and decoder together.
        held_out_fraction: Fraction of the files that is held out.
        max_held_out_crops: Crops of a validation, spread over the held-out files.
        validate_every_steps: Steps between validations.
        log_every_steps: Steps between points of the curves.
    """

    seed: int
    discriminator: CombinedDiscriminator
    audio_distance: SpectralDistance
    band_distance: SpectralDistance | None
    augmentations: Augmentations
    max_steps: int
    phase_1_steps: int
    batch_size: int
    crop_samples: int
    learning_rate: float
    warmup_steps: int
    final_rate_factor: float
    precision: str
    waveform_weight: float
    discriminator_learning_rate: float
    beta_initial: float
    beta: float
    beta_warmup_steps: int
    feature_matching_weight: float
    adversarial_weight: float
    num_skipped_features: int
    is_feature_matching_relative: bool
    discriminator_every_steps: int
    gradient_clip_norm: float
    held_out_fraction: float
    max_held_out_crops: int
    validate_every_steps: int
    log_every_steps: int

    def learning_rate_factor(self, step: int) -> float:
        """Return the share of `learning_rate` at a step: warm-up, half cosine, then constant."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.decay_factor(step)

    def decay_factor(self, step: int) -> float:
        """Return 1 until the warm-up is over, then a half cosine, then what is left."""
        span = max(self.phase_1_steps - self.warmup_steps, 1)
        progress = min(max(step - self.warmup_steps, 0) / span, 1.0)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.final_rate_factor + (1.0 - self.final_rate_factor) * cosine

    def beta_at(self, step: int) -> float:
        """Return the weight of the KL divergence at a step."""
        progress = min((step + 1) / max(self.beta_warmup_steps, 1), 1.0)
        first, last = math.log(self.beta_initial), math.log(self.beta)
        return math.exp(first + progress * (last - first))


class RaveSystem(TrainingSystem):
    """The model with its losses and optimizers.

    Every step draws from a generator seeded by (seed, step): a resumed run continues exactly.

    Args:
        model: Model to train.
        training: The recipe.

    Raises:
        ValueError: If crops are too short for the spectral distances, or no whole latent frames.

    Source: Caillon & Esling 2021, arXiv:2111.05011, section 3.
    Differs: the multiband distance is not restricted to samples whose receptive field lies inside
        the crop; a crop's edge is heard as the edge of a file is.
    """

    def __init__(self, model: RAVE, training: RaveTraining) -> None:
        super().__init__()
        _check_crop(model, training)
        self.automatic_optimization = False
        self.model, self.training_recipe = model, training
        self.discriminator = training.discriminator
        self.audio_distance, self.band_distance = training.audio_distance, training.band_distance
        self._posteriors: list[DiagonalGaussian] = []
        half = model.hop_samples // 2
        # Held-out crops moved by samples: where between two frames latents are expected, and they.
        self._moved: dict[str, tuple[int, float, list[Tensor]]] = {
            "16_samples": (16, 0.0, []),
            "half_a_hop": (half, half / model.hop_samples, []),
        }

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return Adam for encoder and decoder, and Adam for the discriminator."""
        recipe = self.training_recipe
        parts = (
            (self.model, recipe.learning_rate),
            (self.discriminator, recipe.discriminator_learning_rate),
        )
        return [
            torch.optim.Adam(part.parameters(), lr=rate, betas=(0.5, 0.9), fused=True)
            for part, rate in parts
        ]

    @property
    def is_adversarial(self) -> bool:
        """Return whether training is in phase 2."""
        return self.global_step >= self.training_recipe.phase_1_steps

    @property
    def is_encoder_frozen(self) -> bool:
        """Return whether latents stay as they are now."""
        return self.is_adversarial and self.model.bottleneck.is_encoder_frozen_in_phase_2

    def training_step(self, audio: Tensor, batch_idx: int) -> Tensor:
        """Make one optimizer step on a process's shard, (B, C, T) audio; return its loss."""
        recipe, batch = self.training_recipe, self.global_batch
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.global_step)
        shape = batch.size(len(audio)), 1, 1
        signs = batch.shard(torch.randint(0, 2, shape, generator=generator) * 2 - 1)
        # The ear does not distinguish polarity; the network should not, either.
        audio = self._known(audio) * signs.to(audio)
        generator_optimizer, discriminator_optimizer = cast(list[Any], self.optimizers())
        is_discriminator_step = (
            self.is_adversarial and self.global_step % recipe.discriminator_every_steps == 0
        )
        for group in generator_optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.learning_rate_factor(self.global_step)
        optimizer = discriminator_optimizer if is_discriminator_step else generator_optimizer
        optimizer.zero_grad(set_to_none=True)
        if is_discriminator_step:
            loss = self._discriminator_backward(audio, generator)
            batch.average_gradients(self.discriminator.parameters())
        else:
            loss = self._generator_loss(audio, generator)
            self.manual_backward(loss)
            batch.average_gradients(self.model.parameters())
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.gradient_clip_norm)
        optimizer.step()
        return loss.detach()

    def _log_means(self, values: dict[str, Tensor]) -> None:
        """Log the means of what all processes found."""
        stacked = torch.stack([v.detach().to(self.device, torch.float32) for v in values.values()])
        means = dict(zip(values, self.global_batch.mean(stacked), strict=True))
        self.log_dict({f"train/{name}": mean for name, mean in means.items()})
        if "loss" in means:
            self.log("loss", means["loss"], prog_bar=True, logger=False)

    def _known(self, audio: Tensor) -> Tensor:
        """Return audio as the model reads it: itself or its derivative (silence before a crop)."""
        return derivative(audio) if self.model.is_derivative else audio

    def _posterior(self, audio: Tensor) -> DiagonalGaussian:
        if not self.is_encoder_frozen:
            return self.model.encode(audio)
        self.model.encoder.eval()  # its batch normalisation stops learning, too
        with torch.no_grad():  # frozen: the latents that are learnt in phase 1 stay
            return self.model.encode(audio)

    def _discriminator_backward(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss, its gradients computed of one discriminator after another."""
        with torch.no_grad():
            latents = self._latents(self._posterior(audio), generator)
            reconstruction = self._reconstruct(latents, audio, generator, self.global_batch)
        total = torch.zeros((), device=self.device)
        for features in self.discriminator.one_by_one(torch.cat([audio, reconstruction])):
            logits = [each[-1].chunk(2) for each in features]
            loss = torch.stack([discriminator_hinge_loss(*pair) for pair in logits]).sum()
            self.manual_backward(loss)  # now: together they would hold twice the memory
            total += loss.detach()
        self._log_means({"discriminator_loss": total})
        return total

    def _latents(self, posterior: DiagonalGaussian, generator: torch.Generator) -> Tensor:
        latents = posterior.sample(generator, self.global_batch)
        return self.model.with_noise_rows(latents, generator, self.global_batch)

    def _reconstruct(
        self, latents: Tensor, audio: Tensor, generator: torch.Generator, batch: GlobalBatch
    ) -> Tensor:
        noise = self.model.band_noise(latents, generator, batch)
        return self.model.decode(latents, noise)[..., : audio.shape[-1]].float()

    def _generator_loss(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        recipe, batch = self.training_recipe, self.global_batch
        posterior = self._posterior(audio)
        latents = self._latents(posterior, generator)
        noise = self.model.band_noise(latents, generator, batch)
        if self.band_distance is None:
            reconstruction = self.model.decode(latents, noise)
        else:
            reconstruction, bands = self.model.decode_with_bands(latents, noise)
        reconstruction = reconstruction[..., : audio.shape[-1]].float()
        distance = self.audio_distance(audio, reconstruction, generator, batch)
        values = {"spectral_distance": distance}
        if self.band_distance is not None:
            target = self.model.pqmf.analysis(audio)
            values["band_spectral_distance"] = self.band_distance(target, bands, generator, batch)
        loss = torch.stack(list(values.values())).sum()
        if recipe.waveform_weight:
            values["waveform_distance"] = waveform_distance(audio, reconstruction, batch)
            weight = recipe.waveform_weight * recipe.decay_factor(self.global_step)
            loss = loss + weight * values["waveform_distance"]
        beta = recipe.beta_at(self.global_step)
        bottleneck = self.model.bottleneck
        penalty = bottleneck.penalty(posterior, generator, batch)
        if self.is_adversarial:
            self.discriminator.requires_grad_(False)
            with torch.no_grad():  # nothing is learnt of the real audio's
                real = self.discriminator(audio)
            fake = self.discriminator(reconstruction)
            self.discriminator.requires_grad_(True)
            values["feature_matching"] = feature_matching(
                real,
                fake,
                recipe.num_skipped_features,
                is_relative=recipe.is_feature_matching_relative,
                batch=batch,
            )
            values["adversarial"] = -torch.stack([f[-1].mean() for f in fake]).sum()
            loss = loss + recipe.feature_matching_weight * values["feature_matching"]
            loss = loss + recipe.adversarial_weight * values["adversarial"]
        if not self.is_encoder_frozen:
            loss = loss + beta * penalty
            bottleneck.learn(posterior, generator, batch)
        values |= {bottleneck.penalty_name: penalty, "beta": torch.tensor(beta), "loss": loss}
        self._log_means(values)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the posteriors of the last validation."""
        self._posteriors.clear()
        for *_, found in self._moved.values():
            found.clear()

    def validation_step(self, audio: Tensor, batch_idx: int) -> None:
        """Measure the reconstruction of held-out audio (B, C, T) from the posterior mean."""
        audio = self._known(audio)
        posterior = self.model.encode(audio)
        generator = torch.Generator().manual_seed(self.training_recipe.seed)
        latents = self.model.with_noise_rows(posterior.mean, generator)
        reconstruction = self._reconstruct(latents, audio, generator, ONE_PROCESS)
        self._posteriors.append(posterior)
        for shift, _, found in self._moved.values():
            moved = functional.pad(audio[..., shift:], (0, shift))
            found.append(self.model.encode(moved).mean)
        decibels = log_spectral_distance_db(audio, reconstruction).mean()
        level = 20 * torch.log10(_rms(reconstruction) / _rms(audio))
        figures = {
            "held_out/spectral_distance": self.audio_distance(audio, reconstruction),
            "held_out/log_spectral_distance_db": decibels,
            "held_out/level_db": level,
        }
        self.log_dict(figures, batch_size=len(audio))
        self.log(
            "held_out_loss",
            figures["held_out/spectral_distance"],
            batch_size=len(audio),
            logger=False,
        )
        if batch_idx == 0:
            self._log_audio(audio[:NUM_LOGGED_CROPS], reconstruction[:NUM_LOGGED_CROPS])

    def on_validation_epoch_end(self) -> None:
        """Fit the principal axes of the posterior means, and log what the latents carry."""
        mean = torch.cat([p.mean.float().transpose(1, 2).flatten(0, 1) for p in self._posteriors])
        update_latent_axes(self.model, mean)
        for fidelity in FIDELITIES:
            name = f"latents/dimensions_{round(100 * fidelity)}"
            self.log(name, float(num_dimensions(self.model.fidelity, fidelity)))
        still = [each for p in self._posteriors for each in p.mean.float().cpu().numpy()]
        for name, (_, share, found) in self._moved.items():
            moved = [each for batch in found for each in batch.float().cpu().numpy()]
            if moved[0].shape[1] > 2 * EDGE_FRAMES + 1:
                self.log(f"latents/moved_{name}", explained(*shift_errors(still, moved, share)))
        kl = torch.cat(
            [p.kl().float().transpose(1, 2).flatten(0, 1) for p in self._posteriors]
        ).mean(0)
        self.log("latents/kl", kl.sum())
        board = self._board()
        if board is not None:
            step = self.global_step
            board.add_histogram("latents/latent_mean", self.model.latent_mean, step)
            board.add_histogram("latents/fidelity", self.model.fidelity, step)
            board.add_histogram("latents/kl_of_dimension", kl, step)
        self._posteriors.clear()

    def _log_audio(self, audio: Tensor, reconstruction: Tensor) -> None:
        board = self._board()
        if board is None:
            return
        for name, batch in (("original", audio), ("reconstruction", reconstruction)):
            joined = batch.mean(dim=1).flatten().clamp(-1, 1).cpu()
            board.add_audio(
                f"held_out/{name}", joined[None], self.global_step, self.model.sample_rate_hz
            )

    def _board(self) -> Any:
        return None if self.logger is None else cast(Any, self.logger).experiment


def _rms(audio: Tensor) -> Tensor:
    return audio.square().mean().sqrt().clamp_min(1e-8)


@torch.no_grad()
def update_latent_axes(model: RAVE, rows: Tensor) -> None:
    """Set `latent_mean`, `latent_pca` and `fidelity` of a model from posterior means, (rows, D)."""
    mean = rows.mean(dim=0)
    covariance = (rows - mean).T.double() @ (rows - mean).double() / max(len(rows) - 1, 1)
    variances, axes = torch.linalg.eigh(covariance)
    variances, axes = variances.flip(0).clamp_min(0), axes.flip(1).T
    signs = torch.where(axes.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    model.latent_mean.copy_(mean)
    model.latent_pca.copy_(axes * signs)
    model.fidelity.copy_(variances.cumsum(0) / variances.sum().clamp_min(1e-20))


def num_dimensions(fidelity: Tensor, share: float) -> int:
    """Return how many axes carry `share` of the variance; `fidelity` is cumulative, (D)."""
    return min(int((fidelity < share).sum()) + 1, len(fidelity))


def _check_crop(model: RAVE, training: RaveTraining) -> None:
    """Check that a crop is whole latent frames and holds the largest STFT of each distance."""
    bands = training.band_distance
    needed = max(training.audio_distance.scales) // 2 + 1
    if bands is not None:
        needed = max(needed, model.pqmf.num_bands * (max(bands.scales) // 2 + 1))
    if training.crop_samples < needed:
        raise ValueError(
            f"Crops of {training.crop_samples} samples are too short for the spectral distances of "
            f"this recipe; {needed} are needed. Raise CROP_SAMPLES, or lower SCALES."
        )
    if training.crop_samples % model.hop_samples:
        fitting = -(-training.crop_samples // model.hop_samples) * model.hop_samples
        raise ValueError(
            f"Crops of {training.crop_samples} samples are not a multiple of the model's hop of "
            f"{model.hop_samples} samples. Set CROP_SAMPLES to {fitting}."
        )
