"""How a training would use latents, and which losses to expect of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import get_args

import torch

from diffwave.denoiser import Prediction
from diffwave.objective import LossKind, Objective
from diffwave.reference_loss import GaussianModel, SpectralDensity, reference_losses
from diffwave.schedule import COSINE, SCHEDULES, NoiseSchedule, named_schedule


@dataclass(frozen=True)
class Recipe:
    """How a training would use the latents; the defaults are those of the recipe `default`.

    Attributes:
        fidelity: Share of the variance to model.
        held_out_fraction: Share of the files kept for validation.
        held_out_segments: Number of segments of a validation.
        segment_frames: Latent frames per segment.
        schedule: Noise schedule.
        objective: Prediction, loss and weighting.
    """

    fidelity: float = 0.99
    held_out_fraction: float = 0.1
    held_out_segments: int = 128
    segment_frames: int = 128
    schedule: NoiseSchedule = field(default_factory=lambda: named_schedule(COSINE))
    objective: Objective = field(default_factory=lambda: Objective("v"))

    @property
    def schedule_name(self) -> str:
        """Return the name of the schedule, if it has one."""
        for name in SCHEDULES:
            if torch.equal(named_schedule(name).alpha_bar, self.schedule.alpha_bar):
                return name
        return "another"


@dataclass(frozen=True)
class ExpectedLoss:
    """The three reference losses of a training with one objective."""

    schedule: str
    prediction: str
    loss: str
    weighting: str
    zero: float
    white: float
    gaussian: float


@dataclass(frozen=True)
class ScheduleEnd:
    """The signal that a schedule leaves at its last timestep.

    Attributes:
        schedule: Name of the schedule.
        num_timesteps: Number of timesteps T.
        signal: Signal power left, of 1.
        snr_db: Signal-to-noise ratio; None if no signal is left.
    """

    schedule: str
    num_timesteps: int
    signal: float
    snr_db: float | None


def schedule_end(name: str) -> ScheduleEnd:
    """Return the signal that a schedule leaves at its last timestep."""
    schedule = named_schedule(name)
    signal = float(schedule.alpha_bar[-1])
    snr_db = 10.0 * math.log10(signal / (1.0 - signal)) if signal > 0 else None
    return ScheduleEnd(name, len(schedule), signal, snr_db)


def expected_losses(
    gaussian: GaussianModel,
    held_out: SpectralDensity,
    name: str,
    schedule: NoiseSchedule,
    objective: Objective,
) -> ExpectedLoss:
    """Return the reference losses of one objective.

    Args:
        gaussian: Gaussian model of the training segments.
        held_out: Spectral density of the held-out segments.
        name: Name of the schedule.
        schedule: Noise schedule of the training.
        objective: Objective of the training.
    """
    losses = reference_losses(gaussian, held_out, schedule, objective)
    return ExpectedLoss(name, **asdict(objective), **asdict(losses))


def all_expected_losses(
    gaussian: GaussianModel, held_out: SpectralDensity, names: Iterable[str] = SCHEDULES
) -> Iterator[ExpectedLoss]:
    """Yield the losses of schedules, for every kind of loss and prediction that they allow."""
    for name in names:
        schedule = named_schedule(name)
        for loss in get_args(LossKind):
            for prediction in get_args(Prediction):
                if prediction != "epsilon" or not schedule.is_zero_terminal:
                    objective = Objective(prediction, loss)
                    yield expected_losses(gaussian, held_out, name, schedule, objective)
