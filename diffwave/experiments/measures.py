"""Measurements on trained models beside their loss: sampling, magnitudes, spread, encodings.

Each function takes a `Lab`, which trains what is needed or has it from an earlier experiment, and
returns rows and pictures. B batch, D latent size, K standardized size, N latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffwave.experiments import our_model
from diffwave.experiments.closed_forms import (
    amplification,
    clamped_std,
    expected_extreme,
    sampled_std,
    share_cut,
)
from diffwave.experiments.data import Data
from diffwave.experiments.diary_training import DiaryRun, ancestral
from diffwave.experiments.results import Picture, ResultRow
from diffwave.schedule import NoiseSchedule, linear_schedule
from diffwave.training import generator_for

SAMPLE_STREAM = 31
NUM_SAMPLES = 2
# Of the model that was trained on single rows.
NUM_ROWS = 8
TRACE_POINTS = 60
Rows = tuple[list[ResultRow], list[Picture]]


class Lab(Protocol):
    """Where trained models come from."""

    data: Data

    def figures(self, run: DiaryRun | our_model.OurRun) -> dict[str, Any]:
        """Return the figures of a training."""

    def diary(self, run: DiaryRun) -> tuple[nn.Module, dict[str, Any]]:
        """Return the trained network of a run and its figures."""

    def ours(self, run: our_model.OurRun) -> tuple[our_model.OurModel, dict[str, Any]]:
        """Return our trained model of a run and its figures."""


def _noise(data: Data, run: DiaryRun) -> Tensor:
    generator = generator_for(run.seed, SAMPLE_STREAM)
    count, rows = NUM_SAMPLES, data.latent_size
    if run.item_rows is not None:
        count, rows = NUM_ROWS, run.item_rows
    return torch.randn(count, rows, data.num_frames, generator=generator)


def sample_diary(
    lab: Lab,
    run: DiaryRun,
    schedule: NoiseSchedule | None = None,
    *,
    clamp: float | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    spectrogram: Tensor | None = None,
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Return samples of a trained diary model and the trace of `ancestral`."""
    network, _ = lab.diary(run)

    def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
        predicted: Tensor = network(noisy, timestep, spectrogram)
        return predicted.expand_as(noisy)

    return ancestral(
        predict,
        schedule or run.noise_schedule,
        _noise(lab.data, run),
        run.seed,
        clamp=clamp,
        transform=transform,
    )


@torch.no_grad()
def sample_ours(
    lab: Lab,
    run: our_model.OurRun,
    schedule: NoiseSchedule | None = None,
    *,
    clamp: float | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    condition: Tensor | None = None,
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Return samples of ours by the diary's sampler, and its trace.

    A schedule that ends in pure noise has no noise to predict there; its last timestep is left out.
    """
    model, _ = lab.ours(run)
    shape = (NUM_SAMPLES, model.standardizer.latent_size, lab.data.num_frames)
    noise = torch.randn(shape, generator=generator_for(run.seed, SAMPLE_STREAM))
    used = schedule or model.schedule
    if used.is_zero_terminal:
        used = NoiseSchedule(used.alpha_bar[:-1])

    def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
        return model.predict_noise(noisy, timestep, condition)

    return ancestral(predict, used, noise, run.seed, clamp=clamp, transform=transform)


def sample_figures(sample: Tensor) -> dict[str, float]:
    """Return the spread and the extremes of samples."""
    return {
        "std": float(sample.std()),
        "min": float(sample.min()),
        "max": float(sample.max()),
    }


def white_gain(schedule: NoiseSchedule) -> Callable[[int, float], float]:
    """Return the factor of the best model of white data on its input, at each timestep."""
    scale = (1.0 - schedule.alpha_bar).sqrt().tolist()
    return lambda timestep, std: scale[timestep]


def no_gain(timestep: int, std: float) -> float:
    """Return 0: a model that predicts nothing."""
    return 0.0


def trace_line(
    name: str, values: list[float], style: str
) -> tuple[str, list[float], list[float], str]:
    """Return a trace as a line of at most `TRACE_POINTS` points over the share of steps made."""
    last = len(values) - 1
    stride = max(last // TRACE_POINTS, 1)
    places = sorted({*range(0, last + 1, stride), last})
    return name, [float(at) for at in places], [values[at] for at in places], style


def sampling_range(lab: Lab, diary: DiaryRun, ours: our_model.OurRun) -> Rows:
    """Measure the range of samples with and without the clamp to ±1, and times 4."""
    schedule = diary.noise_schedule
    clamped, trace = sample_diary(lab, diary, clamp=1.0)
    free, free_trace = sample_diary(lab, diary)
    our_free, _ = sample_ours(lab, ours)
    our_clamped, _ = sample_ours(lab, ours, clamp=1.0)
    wanted_clamped = clamped_std(schedule, 1.0)
    wanted_free = sampled_std(schedule, no_gain)
    real = lab.data.held_out.sampled
    rows = [
        ResultRow(
            "encoded clips",
            "min and max about ±4",
            {"extreme of as many N(0, 1)": expected_extreme(real[0].numel())},
            {
                "std": float(real.std()),
                "extreme, mean of clips": float(real.abs().amax((1, 2)).mean()),
            },
        ),
        ResultRow(
            "samples, x clamped to ±1 after each step",
            "min and max exactly ±1",
            {"std": float(wanted_clamped[-1]), "share of N(0, 1) that ±1 cuts": share_cut(1.0)},
            sample_figures(clamped),
            sample_figures(our_clamped),
        ),
        ResultRow(
            "the same samples × 4",
            "no larger sound",
            {"std": 4 * float(wanted_clamped[-1])},
            sample_figures(4 * clamped),
            sample_figures(4 * our_clamped),
        ),
        ResultRow(
            "samples without a clamp",
            "",
            {"std": float(wanted_free[-1]), "1/√ᾱ at the last timestep": amplification(schedule)},
            sample_figures(free),
            sample_figures(our_free),
        ),
    ]
    picture = Picture(
        "Size of x while sampling a model that predicts nothing",
        "sampling steps made",
        "root mean square of x",
        [
            trace_line("free, predicted", wanted_free.tolist(), "predicted"),
            trace_line("free", [x for x, _ in free_trace], "diary"),
            trace_line("clamped, predicted", wanted_clamped.tolist(), "predicted"),
            trace_line("clamped", [x for x, _ in trace], "other"),
        ],
        is_log_y=True,
    )
    return rows, [picture]


def sampling_schedules(lab: Lab, runs: list[tuple[str, str, DiaryRun, our_model.OurRun]]) -> Rows:
    """Measure samples of models that were trained and sampled with one schedule each."""
    rows, lines = [], []
    for label, saw, diary, ours in runs:
        sample, trace = sample_diary(lab, diary)
        our_sample, _ = sample_ours(lab, ours)
        wanted = sampled_std(diary.noise_schedule, white_gain(diary.noise_schedule))
        rows.append(
            ResultRow(
                label,
                saw,
                {
                    "std, perfect model of white data": float(wanted[-1]),
                    "1/√ᾱ, errors grow by": amplification(diary.noise_schedule),
                },
                {**sample_figures(sample), "norm at the start": _norm(trace[0][0], sample)}
                | {"norm at the end": _norm(trace[-1][0], sample)},
                sample_figures(our_sample),
            )
        )
        lines.append(trace_line(label, [x for x, _ in trace], "other"))
    picture = Picture(
        "Size of x while sampling, own schedule",
        "sampling steps made",
        "root mean square of x",
        lines,
        is_log_y=True,
    )
    return rows, [picture]


def _norm(rms: float, sample: Tensor) -> float:
    """Return the norm of one item, as the diary wrote it down."""
    return rms * math.sqrt(sample[0].numel())


def foreign_schedule(
    lab: Lab,
    diary: DiaryRun,
    ours: our_model.OurRun,
    others: list[tuple[str, str, tuple[float, float, int]]],
) -> Rows:
    """Measure samples with another schedule than that of the training."""
    rows, lines = [], []
    gain = white_gain(diary.noise_schedule)
    for label, saw, betas in others:
        schedule = linear_schedule(*betas)
        sample, trace = sample_diary(lab, diary, schedule)
        our_sample, our_trace = sample_ours(lab, ours, schedule)
        wanted = sampled_std(schedule, gain)
        rows.append(
            ResultRow(
                label,
                saw,
                {"std, perfect model of white data": float(wanted[-1])},
                {**sample_figures(sample), "steps made": len(trace) - 1},
                {**sample_figures(our_sample), "steps made": len(our_trace) - 1},
            )
        )
        lines.append(trace_line(f"{label}, predicted", wanted.tolist(), "predicted"))
        lines.append(trace_line(label, [x for x, _ in trace], "other"))
    title = "Size of x while sampling with another schedule"
    return rows, [
        Picture(title, "sampling steps made", "root mean square of x", lines, is_log_y=True)
    ]


def power_transform(
    lab: Lab, diary: DiaryRun, ours: our_model.OurRun, foreign: tuple[float, float, int]
) -> Rows:
    """Measure samples where each prediction is made normal by a power transform."""
    rows, lines = [], []
    for label, schedule in (
        ("own schedule", diary.noise_schedule),
        ("foreign schedule", linear_schedule(*foreign)),
    ):
        plain, plain_trace = sample_diary(lab, diary, schedule)
        sample, trace = sample_diary(lab, diary, schedule, transform=made_normal)
        our_sample, _ = sample_ours(lab, ours, schedule, transform=made_normal)
        wanted = sampled_std(schedule, lambda timestep, std: 1.0 / std)
        rows.append(
            ResultRow(
                f"prediction made normal, {label}",
                "",
                {"std": float(wanted[-1])},
                {**sample_figures(sample), "std without": float(plain.std())},
                sample_figures(our_sample),
            )
        )
        lines.append(trace_line(f"{label}, predicted", wanted.tolist(), "predicted"))
        lines.append(trace_line(label, [x for x, _ in trace], "diary"))
        lines.append(trace_line(f"{label}, without", [x for x, _ in plain_trace], "other"))
    title = "Size of x while sampling, predictions made normal"
    return rows, [
        Picture(title, "sampling steps made", "root mean square of x", lines, is_log_y=True)
    ]


def made_normal(prediction: Tensor) -> Tensor:
    """Return a prediction after a Yeo-Johnson transform, brought to mean 0 and variance 1.

    Source: Yeo & Johnson 2000, "A new family of power transformations", equation 2.1; the
    exponent by maximum likelihood. The diary used the implementation of scikit-learn.
    """
    import numpy as np
    from scipy.stats import yeojohnson

    values = prediction.double().numpy().ravel()
    if not np.isfinite(values).all() or values.std() < 1e-12:
        return prediction
    changed, _ = yeojohnson((values - values.mean()) / values.std())
    changed = (changed - changed.mean()) / max(float(changed.std()), 1e-12)
    return torch.from_numpy(changed.reshape(prediction.shape)).float()


@torch.no_grad()
def sample_conditions(lab: Lab, runs: list[tuple[str, str, DiaryRun, our_model.OurRun]]) -> Rows:
    """Measure how much samples differ that follow two spectrograms, from the same noise."""
    rows = []
    for label, saw, diary, ours in runs:
        model, figures = lab.ours(ours)
        _, diary_figures = lab.diary(diary)
        clips = lab.data.held_out
        assert clips.spectrograms is not None
        pair = [0, len(clips) // 2]
        samples = [
            sample_diary(lab, diary, spectrogram=clips.spectrograms[[index] * NUM_SAMPLES])[0]
            for index in pair
        ]
        ours_samples = [
            sample_ours(
                lab,
                ours,
                condition=model.condition(clips, torch.tensor([index] * NUM_SAMPLES), None),
            )[0]
            for index in pair
        ]
        rows.append(
            ResultRow(
                label,
                saw,
                {},
                {
                    "loss with another spectrogram / with the right one": diary_figures[
                        "condition_gain"
                    ],
                    "change of the prediction": diary_figures["condition_effect"],
                    "change of a sample": _change(*samples),
                },
                {
                    "loss with another spectrogram / with the right one": figures["condition_gain"],
                    "change of the prediction": figures["condition_effect"],
                    "change of a sample": _change(*ours_samples),
                },
            )
        )
    return rows, []


def _change(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / one.norm())
