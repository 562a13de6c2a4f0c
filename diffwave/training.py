"""The training step and validation: loss, optimizer, EMA weights, held-out loss, references."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from diffwave.dataset import (
    FixedSegments,
    Segment,
    conditions_of,
    standardized,
    standardized_runs,
)
from diffwave.denoiser import stratified_timesteps
from diffwave.model import LatentDiffusion
from diffwave.objective import Objective
from diffwave.reference_loss import (
    LossCurve,
    ReferenceLosses,
    SpectralDensity,
    fit_gaussian,
    loss_curve,
    reference_losses,
)
from diffwave.settings import TrainingSettings
from diffwave.skill import skill_bins
from rave.compute.strategy import TrainingSystem

# Part of the seed of each purpose, so that no two draw the same numbers.
NOISE_STREAM, HELD_OUT_STREAM = 1, 2
# Learning rate at the end of the cosine, relative to LEARNING_RATE.
LAST_LEARNING_RATE = 0.05


def generator_for(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded by whole numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) % 2**63)


def averaged_weights(decay: float) -> WeightAveraging:
    """Return the callback that keeps an exponential moving average (EMA) of the weights.

    The decay rises from 0.1 to `decay`, so that the average soon forgets the initial weights.
    """

    def average(kept: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
        count = float(num_averaged)
        return torch.lerp(kept, current, 1.0 - min(decay, (1.0 + count) / (10.0 + count)))

    return WeightAveraging(use_buffers=False, avg_fn=average)


def learning_rate_factor(warmup_steps: int, max_steps: int) -> Callable[[int], float]:
    """Return the learning rate at each step, relative to the highest: linear rise, then cosine."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min((step - warmup_steps) / max(max_steps - warmup_steps, 1), 1.0)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return LAST_LEARNING_RATE + (1.0 - LAST_LEARNING_RATE) * cosine

    return factor


def held_out_timesteps(num_segments: int, num_timesteps: int) -> Tensor:
    """Return the timestep of each held-out segment, (S,) int64.

    Each is the middle of one of `num_segments` equal parts of the schedule, in random order.
    """
    order = torch.randperm(num_segments, generator=generator_for(HELD_OUT_STREAM))
    return ((order.double() + 0.5) / num_segments * num_timesteps).long()


def held_out_errors(
    model: LatentDiffusion, batch: Segment, num_segments: int, objective: Objective
) -> Tensor:
    """Return the loss of each held-out segment, (B,), comparable over time and between models.

    Segment i always gets the same noise and the same timestep of `held_out_timesteps`.

    Args:
        model: Model to measure.
        batch: Batch of `FixedSegments`.
        num_segments: Number of all held-out segments.
        objective: Objective of the training.
    """
    latents = standardized(model.standardizer, batch)
    index = batch["index"].cpu()
    timestep = held_out_timesteps(num_segments, len(model.schedule))[index]
    noise = torch.stack(
        [
            torch.randn(latents.shape[1:], generator=generator_for(HELD_OUT_STREAM, int(i)))
            for i in index
        ]
    )
    condition = model.condition(conditions_of(batch), None, len(latents), latents.shape[2])
    return objective.losses(model, latents, batch["mask"], noise, timestep, condition)


def dropped_conditions(
    names: Sequence[str], batch_size: int, dropout: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return which conditions each item of a batch is trained without, (B,) bool by name.

    A share `dropout` of the items gets no condition. With several conditions, the same share gets
    some of them, each with a probability of one half.
    """
    drawn = torch.rand(batch_size, generator=generator)
    is_without_any, is_partial = drawn < dropout, (drawn >= dropout) & (drawn < 2 * dropout)
    if len(names) < 2:
        return dict.fromkeys(names, is_without_any)
    halves = {name: torch.rand(batch_size, generator=generator) < 0.5 for name in names}
    return {name: is_without_any | (is_partial & half) for name, half in halves.items()}


class DiffusionSystem(TrainingSystem):
    """The training step, and the held-out loss with its references.

    Args:
        model: Model to train.
        settings: Settings of the training.
        references: Reference losses over the whole schedule.
        levels: Reference losses of each held-out segment at its own noise level.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        settings: TrainingSettings,
        references: ReferenceLosses,
        levels: LossCurve,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.objective = settings.objective(model.prediction)
        self.references = references
        self.levels = levels
        self._errors: list[Tensor] = []

    def training_step(self, batch: Segment, batch_idx: int) -> Tensor:
        """Return the loss of one batch; all random numbers depend only on (seed, step)."""
        generator = generator_for(self.settings.seed, NOISE_STREAM, self.global_step)
        latents = standardized(self.model.standardizer, batch)
        batch_size, shard = self.global_batch.size(len(latents)), self.global_batch.shard
        timestep = stratified_timesteps(batch_size, len(self.model.schedule), generator)
        noise = torch.randn((batch_size, *latents.shape[1:]), generator=generator)
        absent = dropped_conditions(
            list(self.model.conditioners), batch_size, self.settings.condition_dropout, generator
        )
        own = {name: shard(drop).to(latents.device) for name, drop in absent.items()}
        condition = self.model.condition(conditions_of(batch), own, len(latents), latents.shape[2])
        loss = self.objective.losses(
            self.model, latents, batch["mask"], shard(noise), shard(timestep), condition
        ).mean()
        self.log("train_loss", self.global_batch.mean(loss), prog_bar=True)
        return loss

    def validation_step(self, batch: Segment, batch_idx: int) -> None:
        """Add a batch to the held-out loss."""
        errors = held_out_errors(self.model, batch, len(self.levels.alpha_bar), self.objective)
        self._errors.append(errors.cpu())
        self.log("held_out_loss", errors.mean(), batch_size=len(errors), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the references and the skill, and the held-out loss and skill over log-SNR."""
        errors = torch.cat(self._errors).double().numpy()
        self._errors.clear()
        for level in skill_bins(errors, self.levels):
            self.log(f"held_out_loss_at_log_snr/{level.log_snr:+d}", level.loss)
            self.log(f"skill_at_log_snr/{level.log_snr:+d}", level.skill)
        loss = float(self.trainer.callback_metrics["held_out_loss"])
        self.log_dict({f"reference/{k}": v for k, v in asdict(self.references).items()})
        self.log("skill", self.references.skill(loss), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with warmup and cosine decay of the learning rate."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        factor = learning_rate_factor(settings.warmup_steps, settings.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def measure_references(
    model: LatentDiffusion,
    training: FixedSegments,
    held_out: FixedSegments,
    objective: Objective,
) -> tuple[ReferenceLosses, LossCurve]:
    """Return the reference losses of held-out segments, from the latents alone.

    Returns:
        Reference losses of all segments over the whole schedule; and of each segment, from its own
        spectrum, at its timestep in `held_out_errors`.
    """
    gaussian = fit_gaussian(standardized_runs(model.standardizer, training))
    timesteps = held_out_timesteps(len(held_out), len(model.schedule))
    total = SpectralDensity(model.standardizer.latent_size, held_out.num_frames)
    levels = []
    segments = standardized_runs(model.standardizer, held_out, run_of_segments=1)
    for (segment, num_valid_frames), timestep in zip(segments, timesteps, strict=True):
        data = SpectralDensity(*segment.shape[1:])
        data.add(segment, num_valid_frames)
        total += data
        alpha_bar = model.schedule.alpha_bar[timestep][None].numpy()
        levels.append(loss_curve(gaussian, data, alpha_bar, objective))
    references = reference_losses(gaussian, total, model.schedule, objective)
    return references, LossCurve.concatenate(levels)
