"""The training loop's body: loss, optimizer, averaged weights, held-out loss, what was learnt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.utils.data import default_collate

from diffwave.dataset import FixedSegments, Segment, conditions_of
from diffwave.denoiser import add_noise, check_loss, error, stratified_timesteps, target
from diffwave.model import LatentDiffusion
from diffwave.reference_loss import (
    ReferenceLosses,
    SpectralDensity,
    fit_gaussian,
    reference_losses,
)
from diffwave.settings import TrainingSettings

# Added to the seed of each purpose, so that no two draw the same numbers.
NOISE_STREAM, HELD_OUT_STREAM = 1, 2
# Of the cosine's end, relative to LEARNING_RATE.
LAST_LEARNING_RATE = 0.05
# Neighbouring segments overlap, so they must not be divided among halves of a cross-validation.
RUN_OF_SEGMENTS = 8
# Below this a skill may come from the draw of the held-out noise.
SMALLEST_SKILL = 0.02


def generator_for(*numbers: int) -> torch.Generator:
    """Return a CPU generator that follows from whole numbers alone."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) % 2**63)


def averaged_weights(decay: float) -> WeightAveraging:
    """Return the callback that keeps an exponential moving average of the weights.

    The decay grows from 0.1 to `decay`, so that a short training is not averaged with its start.
    """

    def average(kept: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
        count = float(num_averaged)
        return torch.lerp(kept, current, 1.0 - min(decay, (1.0 + count) / (10.0 + count)))

    return WeightAveraging(use_buffers=False, avg_fn=average)


def learning_rate_factor(warmup_steps: int, max_steps: int) -> Callable[[int], float]:
    """Return the learning rate at each step relative to its highest: a rise, then a cosine."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min((step - warmup_steps) / max(max_steps - warmup_steps, 1), 1.0)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return LAST_LEARNING_RATE + (1.0 - LAST_LEARNING_RATE) * cosine

    return factor


def held_out_errors(model: LatentDiffusion, batch: Segment, loss: str, num_segments: int) -> Tensor:
    """Return the error of each held-out segment, (B,), comparable over time and between models.

    Segment i always meets the same noise; its timestep is the middle of one of `num_segments` equal
    parts of the schedule.

    Args:
        model: To measure.
        batch: Of `FixedSegments`.
        loss: mse or l1.
        num_segments: Of all held-out segments.
    """
    latents, mask = _latents(model, batch)
    order = torch.randperm(num_segments, generator=generator_for(HELD_OUT_STREAM))
    index = batch["index"].cpu()
    position = (order[index].double() + 0.5) / num_segments
    timestep = (position * len(model.schedule)).long()
    noise = torch.stack(
        [
            torch.randn(latents.shape[1:], generator=generator_for(HELD_OUT_STREAM, int(i)))
            for i in index
        ]
    )
    return _errors(model, batch, latents, mask, noise, timestep, loss, absent=None)


def _latents(model: LatentDiffusion, batch: Segment) -> tuple[Tensor, Tensor]:
    mask = batch["mask"]
    return model.standardizer.standardize(batch["raw"]) * mask[:, None], mask


def _errors(
    model: LatentDiffusion,
    batch: Segment,
    latents: Tensor,
    mask: Tensor,
    noise: Tensor,
    timestep: Tensor,
    loss: str,
    absent: dict[str, Tensor] | None,
) -> Tensor:
    noise = noise.to(latents.device)
    alpha_bar = model.alpha_bar(timestep)
    # Padding stays zero, as a convolution sees the end of a clip when it generates one.
    noisy = add_noise(latents, noise, alpha_bar) * mask[:, None]
    condition = model.condition(conditions_of(batch), absent, len(latents), latents.shape[2])
    output = model(noisy, timestep, condition)
    wanted = target(model.prediction, latents, noise, alpha_bar)
    return error(check_loss(loss), output.float(), wanted, mask)


class DiffusionSystem(LightningModule):
    """One step of training, and the held-out loss beside its references.

    Args:
        model: To train.
        settings: Of the training.
        references: Losses to compare with.
        num_held_out: Segments of a validation.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        settings: TrainingSettings,
        references: ReferenceLosses,
        num_held_out: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.references = references
        self.num_held_out = num_held_out

    def training_step(self, batch: Segment, batch_idx: int) -> Tensor:
        """Return the loss of one batch; all its randomness follows from (seed, step)."""
        generator = generator_for(self.settings.seed, NOISE_STREAM, self.global_step)
        latents, mask = _latents(self.model, batch)
        batch_size = len(latents)
        timestep = stratified_timesteps(batch_size, len(self.model.schedule), generator)
        noise = torch.randn(latents.shape, generator=generator)
        absent = {
            name: torch.rand(batch_size, generator=generator) < self.settings.condition_dropout
            for name in self.model.conditioners  # each independently of the others
        }
        loss = _errors(
            self.model,
            batch,
            latents,
            mask,
            noise,
            timestep,
            self.settings.loss,
            absent={name: drop.to(latents.device) for name, drop in absent.items()},
        ).mean()
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Segment, batch_idx: int) -> None:
        """Add a batch to the held-out loss."""
        errors = held_out_errors(self.model, batch, self.settings.loss, self.num_held_out)
        self.log("held_out_loss", errors.mean(), batch_size=len(errors), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the references beside the held-out loss."""
        loss = float(self.trainer.callback_metrics["held_out_loss"])
        self.log_dict({f"reference/{k}": v for k, v in asdict(self.references).items()})
        self.log("skill", self.references.skill(loss), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with a rising, then falling learning rate."""
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
    model: LatentDiffusion, training: FixedSegments, held_out: FixedSegments, loss: str
) -> ReferenceLosses:
    """Return the reference losses of held-out segments, from the latents alone."""
    data = SpectralDensity(model.standardizer.latent_size, held_out.num_frames)
    for segments, num_valid_frames in _standardized(model, held_out):
        data.add(segments, num_valid_frames)
    gaussian = fit_gaussian(_standardized(model, training))
    return reference_losses(gaussian, data, model.schedule, model.prediction, check_loss(loss))


def _standardized(
    model: LatentDiffusion, segments: FixedSegments
) -> Iterable[tuple[np.ndarray[Any, Any], float]]:
    for start in range(0, len(segments), RUN_OF_SEGMENTS):
        items = [segments[i] for i in range(start, min(start + RUN_OF_SEGMENTS, len(segments)))]
        latents, mask = _latents(model, default_collate(items))
        yield latents.numpy(), float(mask.sum())


def what_was_learnt(loss: float, references: ReferenceLosses) -> str:
    """Return one line that says what a held-out loss means."""
    skill = references.skill(loss)
    figures = f"white {references.white:.3f} and gaussian {references.gaussian:.3f}"
    if skill > SMALLEST_SKILL:
        return (
            f"Held-out loss {loss:.3f}: below {figures}, skill {skill:.3f}: the model has learned "
            "structure that no linear denoiser has."
        )
    if loss > references.white * (1.0 - SMALLEST_SKILL):
        return (
            f"Held-out loss {loss:.3f} against {figures}, skill {skill:.3f}: no better than taking "
            "the latents for white noise. Train longer, or on more audio."
        )
    if skill > -SMALLEST_SKILL:
        return (
            f"Held-out loss {loss:.3f} against {figures}, skill {skill:.3f}: as good as the best "
            "linear denoiser, not better. Train longer."
        )
    return (
        f"Held-out loss {loss:.3f}: below white {references.white:.3f}, above gaussian "
        f"{references.gaussian:.3f}, skill {skill:.3f}: the model has learned a part of what a "
        "linear denoiser knows. Train longer, or on more audio."
    )
