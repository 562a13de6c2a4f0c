"""Pictures of a diagnosis of latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from diffwave.diagnosis.generated import GeneratedDiagnosis
from diffwave.diagnosis.latents import WHITE_DIMENSION_SHARE, LatentDiagnosis

PANEL_INCHES = (4.6, 3.6)
MODELLED, NOISE, LEFT_OUT = "#3f86e0", "#e5792b", "#b5bcc4"
# Principal dimensions whose correlation over time is drawn, each in its own shade.
NUM_CURVES = 8


def draw(found: LatentDiagnosis, path: Path) -> None:
    """Draw variances, correlation over time and reference losses into a .png or .svg file."""
    width, height = PANEL_INCHES
    figure = Figure(figsize=(3 * width, height), layout="constrained")
    dimensions, time, losses = figure.subplots(1, 3)

    share = 100 * found.variance / found.variance.sum()
    number, count = np.arange(1, len(share) + 1), found.latent_size
    is_white = found.white_shares > WHITE_DIMENSION_SHARE
    for rows, colour, label in (
        (number[:count][~is_white], MODELLED, "modelled"),
        (number[:count][is_white], NOISE, "modelled, white noise"),
        (number[count:], LEFT_OUT, "left out"),
    ):
        if len(rows):
            dimensions.bar(rows, share[rows - 1], color=colour, label=f"{label}: {len(rows)}")
    dimensions.set_yscale("log")
    dimensions.set_ylim(bottom=max(share.min() / 2, 1e-4))
    dimensions.set_xlabel("principal dimension")
    dimensions.set_ylabel("share of the variance, %")
    dimensions.set_title("Dimensions")
    dimensions.legend(frameon=False)

    seconds = np.arange(found.memory.correlation.shape[1]) / found.header.frame_rate_hz
    drawn = min(NUM_CURVES, count)
    for index in reversed(range(drawn)):
        shade = 1.0 - 0.75 * index / drawn
        time.plot(
            seconds,
            found.memory.correlation[index],
            color=MODELLED,
            alpha=shade,
            linewidth=1.2,
            label=f"principal dimension {index + 1}" if index == 0 else None,
        )
    segment = found.recipe.segment_frames / found.header.frame_rate_hz
    time.axvline(segment, color="black", linestyle="--", linewidth=1, label="length of a segment")
    time.axhline(0, color="black", linewidth=0.5)
    time.set_xlim(0, min(1.5 * segment, seconds[-1]))
    time.set_xlabel("seconds later")
    time.set_ylabel("correlation")
    time.set_title(f"Memory (first {drawn} dimensions)")
    time.legend(frameon=False)

    curve = found.curve
    for values, style, label in (
        (curve.white, "--", "white noise (and predicting nothing)"),
        (curve.gaussian, "-", "best linear denoiser"),
    ):
        losses.plot(curve.log_snr, values, style, color=MODELLED, label=label)
    losses.fill_between(curve.log_snr, curve.gaussian, curve.white, color=MODELLED, alpha=0.12)
    losses.set_xlabel("log-SNR (noise on the left, music on the right)")
    losses.set_ylabel("held-out loss, v, mse")
    losses.set_ylim(bottom=0)
    losses.set_title("What there is to learn")
    losses.legend(frameon=False)
    _save(figure, path)


def draw_generated(found: GeneratedDiagnosis, path: Path) -> None:
    """Draw the level of each dimension beside that of the training latents."""
    figure = Figure(figsize=(2 * PANEL_INCHES[0], PANEL_INCHES[1]), layout="constrained")
    axes = figure.subplots()
    number = np.arange(1, len(found.rms) + 1)
    std = np.asarray(found.header.statistics.std)
    axes.bar(number - 0.2, std, 0.4, color=LEFT_OUT, label="training latents")
    axes.bar(number + 0.2, found.rms, 0.4, color=MODELLED, label="generated latents")
    axes.set_xlabel("raw dimension")
    axes.set_ylabel("level about the training mean")
    axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
