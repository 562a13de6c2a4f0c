"""A RAVE, a prior and a diffusion whose every figure of training follows by closed form.

B batch, C channels, T samples, D latent size, N latent frames.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from rave_runs import tiny_parts
from torch import nn
from torch.utils.data import DataLoader
from training_curves import read_curves

from diffwave.schedule import named_schedule
from rave.blocks.posterior import DiagonalGaussian
from rave.trainer import Loaders, fit
from rave.training import RaveSystem

CROP, FRAMES = 4096, 64
# Of the training, and of two held-out batches: crops, gain that they are reproduced with, std.
TRAINING, HELD_OUT = (2, 0.5, 0.5), ((2, 0.5, 0.5), (1, 0.25, 0.1))
MEANS = (1.0, -2.0, 0.0, 3.0)
VARIANCES = (0.4, 8.5, 0.4, 0.7)  # their axes: 85, 92, 96 and 100 %
# By shift in samples of held-out crops: what the second dimension is off by, in deviations.
MOVED = {16: 0.5, CROP // FRAMES // 2: 0.2}
STEPS, PHASE_1_STEPS, BETA, WAVEFORM_WEIGHT = 4, 2, 0.1, 4.0
LOUDNESS, LOGITS = 0.3, (1.0, 2.0)


class KnownDiscriminator(nn.Module):
    """Features are the audio; logits its power, times 1 and times 2."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, audio: torch.Tensor) -> list[list[torch.Tensor]]:
        return [each for features in self.one_by_one(audio) for each in features]

    def one_by_one(self, audio: torch.Tensor) -> Any:
        power = audio.square().mean(dim=(1, 2))
        for factor in LOGITS:
            yield [[audio, audio, factor * self.gain * power]]


class Known:
    """Takes the place of the networks of a RAVE: it is told by the length of a batch what to do."""

    def __init__(self, model: Any) -> None:
        self.model, self.gain = model, nn.Parameter(torch.ones(()))
        model.known_gain = self.gain
        model.encode, model.decode, model.decode_with_bands = self.encode, self.decode, self.both

    def encode(self, audio: torch.Tensor) -> DiagonalGaussian:
        """Return a posterior of the planted means, variances and std."""
        self.audio, (_, self.level, std) = audio, next(b for b in HELD_OUT if b[0] == len(audio))
        mean = planted(count_zeros(audio)).expand(len(audio), -1, -1)
        return DiagonalGaussian(mean, torch.full_like(mean, std))

    def decode(self, latents: torch.Tensor, noise: Any = None) -> torch.Tensor:
        return self.level * self.gain * self.audio

    def both(self, latents: torch.Tensor, noise: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        audio = self.decode(latents)
        return audio, self.model.pqmf.analysis(audio)


def count_zeros(audio: torch.Tensor) -> int:
    """Return how many samples at the end are 0: crops that were moved are filled up."""
    return audio.shape[-1] - int(audio.abs().sum(dim=(0, 1)).nonzero()[-1]) - 1


def planted(shift: int = 0) -> torch.Tensor:
    """Return latents (D, N): of each dimension the planted mean and variance, uncorrelated.

    Moved, they lie between frames, and the second dimension is off.
    """
    signs = [(-1.0) ** (torch.arange(FRAMES) // 2**n) for n in range(len(MEANS))]
    rows = zip(MEANS, VARIANCES, signs, strict=True)
    still = torch.stack([mean + math.sqrt(variance) * sign for mean, variance, sign in rows])
    if not shift:
        return still
    moved = still if shift == min(MOVED) else (still + still.roll(-1, 1)) / 2
    moved[1] += MOVED[shift] * math.sqrt(VARIANCES[1]) * signs[1]
    return moved


def crops(count: int, seed: int) -> torch.Tensor:
    """Return stereo noise (B, 2, T), the right channel softer; each of its power exactly."""
    audio = torch.randn(count, 2, CROP, generator=torch.Generator().manual_seed(seed))
    audio = LOUDNESS * audio / audio.square().mean(dim=2, keepdim=True).sqrt()
    return audio * torch.tensor([1.0, 0.5])[:, None]


def train_rave(folder: Path) -> RaveSystem:
    """Train in both phases, validate at the end, and return what was trained."""
    settings = [f"MAX_STEPS={STEPS}", f"PHASE_1_STEPS={PHASE_1_STEPS}", f"BETA={BETA}"]
    settings += ["NUM_CHANNELS=2", "LEARNING_RATE=1e-12", f"WAVEFORM_WEIGHT={WAVEFORM_WEIGHT}"]
    model, training = tiny_parts(*settings)
    Known(model)
    training = replace(
        training,
        discriminator=KnownDiscriminator(),
        discriminator_every_steps=2,
        discriminator_learning_rate=1e-12,
    )
    held_out = [crops(count, seed) for seed, (count, *_) in enumerate(HELD_OUT)]
    system = RaveSystem(model, training)
    train_known(system, folder, [crops(TRAINING[0], 9)] * STEPS, held_out)
    return system


class Knower(nn.Module):
    """Takes the place of a prior and of a diffusion: the errors of a batch stand in it."""

    num_classes, schedule, conditioners = 7, named_schedule("cosine"), MappingProxyType({})
    prediction, standardizer = "v", None

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return self.gain * batch

    def condition(self, *_: Any) -> None:
        """Return none."""


def train_known(system: Any, folder: Path, training: Any, held_out: list[Any]) -> None:
    """Train a system one step on each of some batches, and validate after the last."""
    loaders = Loaders(
        train=DataLoader(training, batch_size=None), held_out=DataLoader(held_out, batch_size=None)
    )
    steps = len(training)
    fit(system, lambda _: loaders, folder, steps, steps, device="cpu", log_every_steps=1)


def logged(folder: Path) -> dict[str, dict[int, float]]:
    """Return the values by step of every scalar that a training logged, but Lightning's epoch."""
    return {tag: dict(curve) for tag, curve in read_curves(folder).items() if tag != "epoch"}


def events(folder: Path) -> Any:
    """Return TensorBoard's own reader of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"histograms": 0})
    found.Reload()
    return found


def kl_nats(mean: float, variance: float, std: float) -> float:
    """Return the mean KL divergence of N(x, std²) from N(0, 1) where x has a mean and variance."""
    posterior, normal = torch.distributions.Normal, torch.distributions.Normal(0.0, 1.0)
    ends = [mean + sign * math.sqrt(variance) for sign in (-1.0, 1.0)]
    found = [torch.distributions.kl_divergence(posterior(x, std), normal) for x in ends]
    return float(np.mean([float(each) for each in found]))
