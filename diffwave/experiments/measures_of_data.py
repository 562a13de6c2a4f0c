"""Measurements of the draw of timesteps, and of encodings without any model.

B batch, D latent size, N latent frames, S clips.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffwave.experiments.closed_forms import (
    blend_length,
    expected_extreme,
    length_of_mean,
    share_of_timesteps_seen,
    spread_of_loss,
    white_errors,
)
from diffwave.experiments.diary_training import DiaryRun, diary_loss, in_items, mix
from diffwave.experiments.measures import Lab, Rows
from diffwave.experiments.our_model import OurRun
from diffwave.experiments.results import Picture, ResultRow
from diffwave.training import generator_for
from rave.latents.blending import lerp, mean, mean_of_length, slerp
from rave.latents.folder import POSTERIOR_MEAN

DRAW_STREAM = 41
NUM_DRAWS = 150
NUM_BLENDS = 3
# Of the diary: 9,000 clips in batches of 64.
DIARY_STEPS, DIARY_BATCH, DIARY_TIMESTEPS = 141, 64, 1000


@torch.no_grad()
def timesteps(lab: Lab, shared: DiaryRun, each: DiaryRun, ours: dict[str, OurRun]) -> Rows:
    """Measure the effect of one timestep per batch: on the curve, the draw and the loss."""
    errors = white_errors(shared.noise_schedule, "l1")
    batch = shared.batch_size
    wanted = spread_of_loss(errors, batch)
    measured = _spread(lab, each, batch)
    rows = [
        ResultRow(
            f"spread of a batch's loss, {how}",
            "curve choppy" if how == "one for the batch" else "",
            {"std": wanted[how]},
            {"std": measured[how]},
            note=f"Batches of {batch}; the prediction is for white data and counts the draw of the "
            "timesteps only.",
        ).judge()
        for how in wanted
    ]
    for label, draws in (
        ("timesteps met in the diary's epoch, one a batch", DIARY_STEPS),
        ("the same, one an item", DIARY_STEPS * DIARY_BATCH),
    ):
        generator = generator_for(0, DRAW_STREAM, draws)
        met = torch.randint(DIARY_TIMESTEPS, (draws,), generator=generator).unique().numel()
        rows.append(
            ResultRow(
                label,
                "only a fraction" if draws == DIARY_STEPS else "",
                {"share": share_of_timesteps_seen(draws, DIARY_TIMESTEPS)},
                {"share": met / DIARY_TIMESTEPS},
            ).judge()
        )
    for label, run, our in (
        ("trained with one a batch", shared, ours["shared"]),
        ("trained with one an item", each, ours["each"]),
    ):
        figures, our_figures = lab.figures(run), lab.figures(our)
        rows.append(
            ResultRow(
                label,
                "should be tested" if run is shared else "",
                {"white": float(errors.mean())},
                {"held-out loss": figures["loss_collapsed"] or figures["loss"]}
                | _met_and_not(lab, run),
                {name: our_figures[name] for name in ("skill", "loss", "gaussian")},
            )
        )
    curves = []
    for name, run, style in (("one a batch", shared, "diary"), ("one an item", each, "other")):
        curve: list[list[float]] = lab.figures(run)["curve"]
        steps, losses = zip(*curve, strict=True)
        curves.append((name, [float(step) for step in steps], list(losses), style))
    title = "Training loss of the diary's model"
    return rows, [Picture(title, "training steps", "loss (L1)", curves)]


def _spread(lab: Lab, run: DiaryRun, batch_size: int) -> dict[str, float]:
    """Return the standard deviation of the trained model's loss over draws of a batch."""
    curve = _losses(lab, run, range(len(run.noise_schedule)), NUM_DRAWS)
    timestep, loss = (np.array(values) for values in zip(*curve, strict=True))
    order = np.argsort(timestep)
    values = np.interp(np.arange(len(run.noise_schedule)), timestep[order], loss[order])
    random = np.random.default_rng(DRAW_STREAM)
    total = len(values)
    draws = {
        "one for the batch": random.integers(total, size=(4000, 1)),
        "one for each item": random.integers(total, size=(4000, batch_size)),
        "stratified": (
            (np.arange(batch_size) + random.random((4000, batch_size))) / batch_size * total
        ).astype(int),
    }
    return {name: float(values[places].mean(axis=1).std()) for name, places in draws.items()}


def _losses(
    lab: Lab, run: DiaryRun, candidates: range | list[int], count: int
) -> list[tuple[int, float]]:
    """Return timesteps, evenly taken from some, with the held-out loss at each."""
    network, _ = lab.diary(run)
    clips = lab.data.held_out
    alpha_bar = run.noise_schedule.alpha_bar
    found = []
    for number in range(count):
        timestep = torch.tensor([candidates[number * len(candidates) // count]])
        latents = clips.sampled[number % len(clips)][None]
        generator = generator_for(run.seed, DRAW_STREAM, number)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = mix(latents, noise, alpha_bar[timestep], run.has_roots)
        errors = diary_loss(run.loss, in_items(run, network, noisy, timestep), noise)
        collapsed = lab.data.is_collapsed
        kept = errors[:, collapsed] if bool(collapsed.any()) else errors
        found.append((int(timestep), float(kept.mean())))
    return found


def _met_and_not(lab: Lab, run: DiaryRun) -> dict[str, float]:
    """Return the loss above white at timesteps that training met, and at those it did not."""
    met = {int(value) for value in lab.figures(run)["timesteps_met"]}
    white = white_errors(run.noise_schedule, "l1")
    missed = [value for value in range(len(white)) if value not in met]
    figures = {}
    for name, candidates in (("met", sorted(met)), ("not met", missed)):
        if len(candidates) >= 16:
            pairs = _losses(lab, run, candidates, 64)
            excess = [loss - white[timestep] for timestep, loss in pairs]
            figures[f"above white where {name}"] = float(np.mean(excess))
    return figures


def early(lab: Lab, runs: list[DiaryRun], seen: tuple[str, ...]) -> Rows:
    """Measure the loss at the beginning of a training, and draw loss by timestep."""
    rows, lines = [], []
    for run, saw in zip(runs, seen, strict=True):
        curve: list[list[float]] = lab.figures(run)["curve"]
        count = max(len(curve) // 8, 1)
        white = white_errors(run.noise_schedule, "l1")
        rows.append(
            ResultRow(
                f"T = {len(white)}, training loss of the first eighth",
                saw,
                {"white": float(white.mean())},
                {"loss": float(np.mean([loss for _, loss in curve[:count]]))},
            )
        )
        steps, losses = zip(*curve, strict=True)
        lines.append((f"T = {len(white)}", [float(step) for step in steps], list(losses), "other"))
    pictures = [Picture("Training loss", "training steps", "loss (L1)", lines)]
    for run in runs:
        pairs: list[list[float]] = lab.figures(run)["by_timestep"]
        places, losses = zip(*pairs, strict=True)
        white = white_errors(run.noise_schedule, "l1")
        pictures.append(
            Picture(
                f"Held-out loss by timestep, T = {len(white)}",
                "timestep",
                "loss (L1)",
                [
                    (
                        "white, predicted",
                        list(map(float, range(0, len(white), 10))),
                        [float(value) for value in white[::10]],
                        "predicted",
                    ),
                    ("diary's model", list(map(float, places)), list(losses), "diary"),
                ],
            )
        )
    return rows, pictures


def encodings(lab: Lab) -> Rows:
    """Measure how normal encodings, their means and their blends are."""
    data = lab.data
    real = data.held_out.sampled
    collapsed = data.is_collapsed
    rows = [
        ResultRow(
            "posterior samples",
            "almost a perfect normal distribution, min and max about ±4",
            {"kurtosis": 3.0, "extreme of a clip": expected_extreme(real[0].numel())},
            _shape(real),
            note="Each dimension brought to variance 1; 3 is the kurtosis of a Gaussian.",
        )
    ]
    if bool(collapsed.any()) and not bool(collapsed.all()):
        for label, kept in (
            ("of them, dimensions that carry nothing", collapsed),
            ("of them, dimensions that carry something", ~collapsed),
        ):
            rows.append(
                ResultRow(
                    label,
                    "",
                    {"kurtosis": 3.0, "correlation of neighbouring frames": 0.0},
                    {"dimensions": int(kept.sum()), **_shape(real[:, kept])},
                )
            )
    raw = data.held_out.raw
    if data.header.contents == POSTERIOR_MEAN and not bool(collapsed.all()):
        kept = raw[:, ~collapsed]
        kept = (kept - kept.mean((0, 2))[:, None]) / kept.std((0, 2))[:, None]
        rows.append(ResultRow("posterior means, the same dimensions", "", {}, {}, _shape(kept)))
    rows += _blends(lab)
    return rows, []


def _shape(values: Tensor) -> dict[str, float]:
    """Return figures of (S, D, N)."""
    values = values.double()
    centred = values - values.mean((0, 2))[:, None]
    variance = centred.square().mean((0, 2))
    neighbours = (centred[..., 1:] * centred[..., :-1]).mean((0, 2)) / variance
    kurtosis = centred.pow(4).mean((0, 2)) / variance.square()
    return {
        "kurtosis": float(kurtosis.mean()),
        "extreme of a clip": float(values.abs().amax((1, 2)).mean()),
        "correlation of neighbouring frames": float(neighbours.mean()),
    }


def _blends(lab: Lab) -> list[ResultRow]:
    clips = [clip.numpy() for clip in lab.data.held_out.sampled[:NUM_BLENDS]]
    clips *= -(-NUM_BLENDS // len(clips))
    clips = clips[:NUM_BLENDS]
    length = float(np.mean([np.linalg.norm(clip, axis=0).mean() for clip in clips]))

    def relative(blend: np.ndarray) -> float:
        return float(np.linalg.norm(blend, axis=0).mean()) / length

    one, other = clips[0], clips[1]
    return [
        ResultRow(
            f"mean of {NUM_BLENDS} encodings",
            "a bad mashup",
            {"length of a frame, relative": length_of_mean(NUM_BLENDS)},
            {"length of a frame, relative": relative(mean(clips))},
            {"brought to their length": relative(mean_of_length(clips))},
        ),
        ResultRow(
            "half-way between two encodings",
            "to be found out",
            {"length of a frame, relative": blend_length(0.5)},
            {"length of a frame, relative": relative(lerp(one, other, 0.5))},
            {"along a great circle": relative(slerp(one, other, 0.5))},
        ),
    ]
