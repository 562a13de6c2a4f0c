"""Our model with one thing changed at a time, as the diary changed it in its own.

The parts are the product's: standardizer, network, conditioner, targets, schedules, stratified
timesteps, averaged weights. What the product has no setting for is put around its layers here.

B batch, K latent size, N latent frames, H hidden channels.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffwave.conditioner import SpectrogramConditioner
from diffwave.dataset import RUN_OF_SEGMENTS
from diffwave.denoiser import (
    Prediction,
    add_noise,
    check_prediction,
    noise_from,
    stratified_timesteps,
)
from diffwave.experiments.closed_forms import without_roots
from diffwave.experiments.data import ClipSet, Data
from diffwave.model import STEP_SCALE
from diffwave.network import DiffWave
from diffwave.objective import LossKind, Objective
from diffwave.reference_loss import (
    ReferenceLosses,
    SpectralDensity,
    fit_gaussian,
    reference_losses,
)
from diffwave.schedule import NoiseSchedule, cosine_schedule, linear_schedule
from diffwave.standardizer import Standardizer
from diffwave.training import generator_for, learning_rate_factor

TRAINING_STREAM, HELD_OUT_STREAM = 21, 22
FIDELITY = 0.99
CURVE_POINTS = 40
CNN_CHANNELS = 64


@dataclass(frozen=True)
class OurRun:
    """One training of our model.

    Attributes:
        num_steps: Steps of AdamW.
        batch_size: Clips in a batch.
        learning_rate: At its highest; it rises for a tenth of the steps and falls as a cosine.
        hidden_channels: H.
        num_blocks: Residual blocks.
        schedule: None for the cosine, else first beta and last beta.
        num_timesteps: T.
        prediction: epsilon, v or x0.
        loss: mse or l1.
        precision: float32 or bfloat16.
        condition_channels: 0 for a model without conditions.
        extra_conditioner_layers: Convolutions added to the conditioner.
        condition_gain: Above 0, y becomes (y + gain · condition) / 2.
        batch_norm: "", "output", "y", "output and skips" or "everywhere".
        scaled: "", "first" or "every": blocks whose tensors are brought to one magnitude.
        body: "diffwave", "flattened" (one channel of K·N places) or "cnn".
        has_roots: False to mix without square roots.
        is_timestep_shared: One timestep for the whole batch.
        condition_dropout: How often an item is trained without its condition.
        ema_decay: Decay of the averaged weights.
        seed: Seed of weights, clips, noise and timesteps.
    """

    num_steps: int = 400
    batch_size: int = 8
    learning_rate: float = 2e-3
    hidden_channels: int = 64
    num_blocks: int = 8
    schedule: tuple[float, float] | None = None
    num_timesteps: int = 1000
    prediction: Prediction = "v"
    loss: LossKind = "mse"
    precision: str = "float32"
    condition_channels: int = 0
    extra_conditioner_layers: int = 0
    condition_gain: float = 0.0
    batch_norm: str = ""
    scaled: str = ""
    body: str = "diffwave"
    has_roots: bool = True
    is_timestep_shared: bool = False
    condition_dropout: float = 0.1
    ema_decay: float = 0.99
    seed: int = 0

    @property
    def is_conditional(self) -> bool:
        """Return whether the model takes spectrograms."""
        return self.condition_channels > 0

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """Return the schedule, as the ratio of signal to noise makes it."""
        if self.schedule is None:
            schedule = cosine_schedule(self.num_timesteps)
        else:
            schedule = linear_schedule(*self.schedule, self.num_timesteps)
        return schedule if self.has_roots else without_roots(schedule)


class OurModel(nn.Module):
    """Standardizer, network and conditioner of one run.

    Args:
        run: The training whose model to build.
        standardizer: Fitted.
        data: Gives the sizes, and the spectrograms' statistics to a conditioner.
    """

    def __init__(self, run: OurRun, standardizer: Standardizer, data: Data) -> None:
        super().__init__()
        self.run = run
        self.schedule = run.noise_schedule
        self.objective = Objective(check_prediction(run.prediction, self.schedule), run.loss)
        self.standardizer = standardizer
        self.conditioner = _conditioner(run, data) if run.is_conditional else None
        size = standardizer.latent_size
        length = size * data.num_frames if run.body == "flattened" else data.num_frames
        if run.body == "cnn":
            self.network: nn.Module = OurCNN(size)
        else:
            self.network = DiffWave(
                1 if run.body == "flattened" else size,
                run.num_blocks,
                run.hidden_channels,
                length,
                condition_channels=run.condition_channels,
            )
            change_blocks(self.network, run)

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the prediction, (B, K, N), at timesteps (B,)."""
        if not self.run.has_roots:
            # alpha_bar·latents + (1 − alpha_bar)·noise, as the same ratio at another size.
            signal = self.schedule.alpha_bar[timestep]
            size = 1.0 / (signal.sqrt() + (1.0 - signal).sqrt())
            noisy = noisy * size.float()[:, None, None]
        step = ((timestep + 1).double() * (STEP_SCALE / len(self.schedule))).float()
        if self.run.body == "flattened":
            flat: Tensor = self.network(noisy.flatten(1)[:, None], step, condition)
            return flat.reshape(noisy.shape)
        prediction: Tensor = self.network(noisy, step, condition)
        return prediction

    def predict_noise(
        self, noisy: Tensor, timestep: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Return the noise that the prediction stands for, (B, K, N)."""
        output = self(noisy, timestep, condition)
        alpha_bar = self.schedule.alpha_bar[timestep]
        return noise_from(self.objective.prediction, output, noisy, alpha_bar)

    def condition(self, clips: ClipSet, index: Tensor, is_absent: Tensor | None) -> Tensor | None:
        """Return the condition of some clips, (B, condition_channels, N), if there is one."""
        if self.conditioner is None:
            return None
        assert clips.spectrograms is not None
        condition: Tensor = self.conditioner(clips.spectrograms[index], is_absent)
        return condition


class OurCNN(nn.Module):
    """Three convolutions with as many channels out as in, the timestep as one more channel."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(latent_size + 1, CNN_CHANNELS, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(CNN_CHANNELS, CNN_CHANNELS, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(CNN_CHANNELS, latent_size, 3, padding=1),
        )

    def forward(self, noisy: Tensor, step: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the prediction, (B, K, N)."""
        level = (step / STEP_SCALE)[:, None, None].expand(-1, 1, noisy.shape[2])
        return self.layers(torch.cat([noisy, level], dim=1))


def change_blocks(network: DiffWave, run: OurRun) -> None:
    """Put the diary's batch norms, gains and scalings around the layers of a network of ours."""
    channels = run.hidden_channels
    for index, block in enumerate(network.blocks):
        if run.batch_norm in ("y", "everywhere"):
            _wrap(block, "dilated", nn.BatchNorm1d(2 * channels))
        if run.batch_norm == "everywhere":
            _wrap(block, "output", nn.BatchNorm1d(2 * channels), before=nn.BatchNorm1d(channels))
        if run.batch_norm in ("output", "output and skips"):
            halves = [nn.BatchNorm1d(channels), nn.Identity()]
            if run.batch_norm == "output and skips":
                halves[1] = nn.BatchNorm1d(channels)
            _wrap(block, "output", Halves(halves))
        if run.scaled == "every" or (run.scaled == "first" and index == 0):
            for name in ("dilated", "step", "condition"):
                _wrap(block, name, ToOneMagnitude())
        if run.condition_gain:
            _wrap(block, "dilated", Times(0.5))
            _wrap(block, "condition", Times(0.5 * run.condition_gain))


def _wrap(block: nn.Module, name: str, after: nn.Module, before: nn.Module | None = None) -> None:
    layer = getattr(block, name)
    if layer is not None:
        setattr(block, name, nn.Sequential(before or nn.Identity(), layer, after))


class Halves(nn.Module):
    """Two layers, one for each half of the channels."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return both halves, joined."""
        parts = zip(self.layers, x.chunk(2, dim=1), strict=True)
        return torch.cat([layer(half) for layer, half in parts], dim=1)


class Times(nn.Module):
    """A factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the tensor times the factor."""
        return self.factor * x


class ToOneMagnitude(nn.Module):
    """Brings a tensor to a root mean square of 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the tensor, scaled."""
        return x / x.square().mean().sqrt().clamp(min=1e-8)


def _conditioner(run: OurRun, data: Data) -> SpectrogramConditioner:
    header, clips = data.spectrogram_header, data.training
    if header is None or clips.spectrograms is None:
        raise ValueError("This experiment needs spectrograms. Add --spectrograms DIR.")
    channels = run.condition_channels
    conditioner = SpectrogramConditioner(
        header.num_mels, channels, header.hop_samples, header.mel_hop_samples
    )
    conditioner.fit(clips.spectrograms.numpy())
    for _ in range(run.extra_conditioner_layers):
        conditioner.layers.extend([nn.SiLU(), nn.Conv1d(channels, channels, 3, padding=1)])
    return conditioner


def build(run: OurRun, data: Data) -> OurModel:
    """Return the model with fresh weights that follow from the seed."""
    standardizer = Standardizer.fit((clip.numpy() for clip in data.training.raw), FIDELITY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return OurModel(run, standardizer, data)


def train(run: OurRun, data: Data) -> tuple[OurModel, dict[str, Any]]:
    """Return the model with averaged weights, in evaluation mode, and its figures."""
    model = build(run, data)
    averaged = deepcopy(model)
    parameters = model.parameters()
    optimizer = torch.optim.AdamW(parameters, run.learning_rate, weight_decay=0.01, fused=True)
    factor = learning_rate_factor(run.num_steps // 10, run.num_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    latents = model.standardizer.standardize(data.training.raw)
    losses, start = [], time.process_time()
    for step in range(run.num_steps):
        generator = generator_for(run.seed, TRAINING_STREAM, step)
        index = torch.randint(len(latents), (run.batch_size,), generator=generator)
        if run.is_timestep_shared:
            timestep = torch.randint(len(model.schedule), (1,), generator=generator)
            timestep = timestep.expand(run.batch_size)
        else:
            timestep = stratified_timesteps(run.batch_size, len(model.schedule), generator)
        noise = torch.randn(latents[index].shape, generator=generator)
        absent = torch.rand(run.batch_size, generator=generator) < run.condition_dropout
        condition = model.condition(data.training, index, absent)
        errors = _errors(model, latents[index], noise, timestep, condition)
        optimizer.zero_grad()
        errors.mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        decay = min(run.ema_decay, (1.0 + step) / (10.0 + step))
        _average(averaged, model, decay)
        losses.append(errors.detach().mean().item())
    stride = max(run.num_steps // CURVE_POINTS, 1)
    averaged.eval().requires_grad_(False)
    figures = {
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "latent_size": model.standardizer.latent_size,
        "train_seconds": time.process_time() - start,
        "curve": [
            [at + stride, sum(losses[at : at + stride]) / stride]
            for at in range(0, run.num_steps - stride + 1, stride)
        ],
    }
    return averaged, figures


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, current in zip(averaged.parameters(), model.parameters(), strict=True):
        kept.lerp_(current, 1.0 - decay)
    for held, now in zip(averaged.buffers(), model.buffers(), strict=True):
        held.copy_(now)


def _errors(
    model: OurModel, latents: Tensor, noise: Tensor, timestep: Tensor, condition: Tensor | None
) -> Tensor:
    """Return each item's error, (B,)."""
    mask = torch.ones(len(latents), latents.shape[2])
    with torch.autocast("cpu", torch.bfloat16, enabled=model.run.precision == "bfloat16"):
        return model.objective.losses(model, latents, mask, noise, timestep, condition)


@torch.no_grad()
def evaluate(model: OurModel, data: Data, num_items: int) -> dict[str, Any]:
    """Return the held-out loss, its references, and the effect of the condition.

    Returns:
        `loss`, `zero`, `white`, `gaussian`, `skill`; `condition_gain`, the loss with another clip's
        spectrogram over that with the right one; `condition_effect`, the change of the prediction
        relative to it.
    """
    run, clips = model.run, data.held_out
    index = torch.arange(num_items) % len(clips)
    latents = model.standardizer.standardize(clips.raw[index])
    order = torch.randperm(num_items, generator=generator_for(run.seed, HELD_OUT_STREAM))
    timestep = ((order.double() + 0.5) / num_items * len(model.schedule)).long()
    noise = torch.randn(latents.shape, generator=generator_for(run.seed, HELD_OUT_STREAM, 1))
    right = model.condition(clips, index, None)
    loss = float(_errors(model, latents, noise, timestep, right).mean())
    references = measure_references(model, data)
    figures = {"loss": loss, **asdict(references), "skill": references.skill(loss)}
    if run.is_conditional:
        foreign = model.condition(clips, (index + len(clips) // 2) % len(clips), None)
        swapped = float(_errors(model, latents, noise, timestep, foreign).mean())
        noisy = add_noise(latents, noise, model.schedule.alpha_bar[timestep])
        one, other = (model(noisy, timestep, condition) for condition in (right, foreign))
        figures["condition_gain"] = swapped / loss
        figures["condition_effect"] = float((other - one).norm() / one.norm())
    return figures


def measure_references(model: OurModel, data: Data) -> ReferenceLosses:
    """Return zero, white and gaussian losses on the held-out clips for the model's objective."""
    training, held_out = (
        model.standardizer.standardize(side.raw).numpy() for side in (data.training, data.held_out)
    )
    density = SpectralDensity(model.standardizer.latent_size, data.num_frames)
    density.add(held_out, held_out.shape[0] * held_out.shape[2])
    parts = (training[at : at + RUN_OF_SEGMENTS] for at in range(0, len(training), RUN_OF_SEGMENTS))
    gaussian = fit_gaussian((part, part.shape[0] * part.shape[2]) for part in parts)
    return reference_losses(gaussian, density, model.schedule, model.objective)
