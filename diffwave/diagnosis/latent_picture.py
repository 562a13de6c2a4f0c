"""Pictures of a diagnosis of latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from diffwave.diagnosis.generated import GeneratedDiagnosis
from diffwave.diagnosis.latents import WHITE_DIMENSION_SHARE, LatentDiagnosis
from diffwave.pages.plots import GENERATED, OTHER, REAL, drawn

SIZE_INCHES, GENERATED_INCHES = (13.5, 3.75), (9.0, 3.6)
# Principal dimensions whose correlation over time is drawn, each in its own shade.
NUM_CURVES = 8


def draw(found: LatentDiagnosis, path: Path) -> None:
    """Draw variances, correlation over time and reference losses into a .png or .svg file."""
    with drawn(path, *SIZE_INCHES, 1, 3) as axes:
        _variances(axes[0], found)
        _memory(axes[1], found)
        _losses(axes[2], found)


def _variances(axes: Axes, found: LatentDiagnosis) -> None:
    share = 100 * found.variance / found.variance.sum()
    number, count = np.arange(1, len(share) + 1), found.latent_size
    is_white = found.white_shares > WHITE_DIMENSION_SHARE
    for rows, colour, label in (
        (number[:count][~is_white], REAL, "modelled"),
        (number[:count][is_white], GENERATED, "modelled, white noise"),
        (number[count:], OTHER, "left out"),
    ):
        if len(rows):
            axes.bar(rows, share[rows - 1], color=colour, label=f"{label}: {len(rows)}")
    axes.set(title="Dimensions", xlabel="principal dimension", ylabel="share of the variance, %")
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(share.min() / 2, 1e-4))
    axes.legend()


def _memory(axes: Axes, found: LatentDiagnosis) -> None:
    seconds = np.arange(found.memory.correlation.shape[1]) / found.header.frame_rate_hz
    num_curves = min(NUM_CURVES, found.latent_size)
    for index in reversed(range(num_curves)):
        shade = 1.0 - 0.75 * index / num_curves
        label = f"principal dimension {index + 1}" if index == 0 else None
        curve = found.memory.correlation[index]
        axes.plot(seconds, curve, color=REAL, alpha=shade, linewidth=1.2, label=label)
    segment_s = found.recipe.segment_frames / found.header.frame_rate_hz
    axes.axvline(segment_s, color=OTHER, linestyle="--", linewidth=1, label="length of a segment")
    axes.axhline(0, color=OTHER, linewidth=0.5)
    axes.set(title=f"Memory (first {num_curves} dimensions)", xlabel="seconds later")
    axes.set(ylabel="correlation", xlim=(0, min(1.5 * segment_s, seconds[-1])))
    axes.legend()


def _losses(axes: Axes, found: LatentDiagnosis) -> None:
    curve, white = found.curve, "white noise (and predicting nothing)"
    axes.plot(curve.log_snr, curve.white, "--", color=REAL, label=white)
    axes.plot(curve.log_snr, curve.gaussian, color=REAL, label="best linear denoiser")
    axes.fill_between(curve.log_snr, curve.gaussian, curve.white, color=REAL, alpha=0.12)
    axes.set(title="What there is to learn", ylabel="held-out loss, v, mse")
    axes.set_xlabel("log-SNR (noise on the left, music on the right)")
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_generated(found: GeneratedDiagnosis, path: Path) -> None:
    """Draw the level of each dimension beside that of the training latents."""
    number, std = np.arange(1, len(found.rms) + 1), found.header.statistics.std
    with drawn(path, *GENERATED_INCHES) as axes:
        axes.bar(number - 0.2, std, 0.4, color=REAL, label="training latents")
        axes.bar(number + 0.2, found.rms, 0.4, color=GENERATED, label="generated latents")
        axes.set(xlabel="raw dimension", ylabel="level about the training mean")
        axes.legend()
