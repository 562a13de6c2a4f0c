"""Pictures of the demo's report: SVG plots that follow the page's colours, and spectrograms as PNG.

T is a number of audio samples, D the latent size, N a number of latent frames.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rave.compute.numba_safe import librosa

Array = NDArray[Any]
# (step, value) pairs.
Curve = Sequence[tuple[int, float]]

REAL, GENERATED = "#3f86e0", "#e5792b"
# Drawn with this colour, text and axes take the colour of the page's text.
INK = "#010203"
FIGURE_INCHES = (4.9, 3.1)
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
    "legend.fontsize": 9,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    "grid.color": INK,
}

NUM_MELS, STFT_SAMPLES, SPECTROGRAM_HOP = 96, 2048, 512
# Of a mel band; a sine at full scale has 0 dB. The same for every picture, so that they compare.
SPECTROGRAM_RANGE_DB = (-95.0, -20.0)
COLOURS = "magma"


def _plot(
    draw: Any,
    label: str,
    num_plots: int = 1,
    row_inches: float = FIGURE_INCHES[1],
    **figure_options: Any,
) -> str:
    """Return an inline SVG of what `draw(axes)` draws; `label` is what a screen reader says."""
    width, height = FIGURE_INCHES[0], row_inches
    style: Any = {**STYLE, "svg.hashsalt": label}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height * num_plots), layout="constrained")
        draw(figure.subplots(num_plots, 1, **figure_options))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # they repeat from plot to plot
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _legend(axes: Axes, num_columns: int = 2) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=num_columns, borderaxespad=0.2)


def loss_curve(
    train: Curve, held_out: Curve, references: Mapping[str, float], y_label: str, label: str
) -> str:
    """Return a training curve with held-out values and reference losses, each a labelled line."""

    def draw(axes: Axes) -> None:
        if train:
            axes.plot(*zip(*train, strict=True), color=REAL, linewidth=1.4, label="training")
        axes.plot(
            *zip(*held_out, strict=True),
            color=GENERATED,
            marker="o",
            markersize=4,
            label=f"held out: {held_out[-1][1]:.3g}",
        )
        dashes = ((1, 2), (6, 3), (3, 1.5))
        for (name, value), dash in zip(references.items(), dashes, strict=False):
            axes.axhline(value, color=INK, linewidth=1.3, dashes=dash, label=f"{name} {value:.3f}")
        axes.set_xlabel("training steps")
        axes.set_ylabel(y_label)
        axes.set_xlim(left=0)
        _legend(axes)

    return _plot(draw, label)


def latent_profile(real: Array, generated: Array, order: Array, label: str) -> str:
    """Return mean, spread and extremes of each latent dimension as SVG.

    Args:
        real: (D, N).
        generated: (D, N).
        order: (D,), the dimensions from left to right.
        label: Says what there is to see.
    """

    def draw(axes: Sequence[Axes]) -> None:
        position = np.arange(len(order))
        sides = (("real", real, REAL, -0.17), ("generated", generated, GENERATED, 0.17))
        for name, latents, colour, shift in sides:
            rows = latents[order]
            axes[0].errorbar(
                position + shift,
                rows.mean(axis=1),
                rows.std(axis=1),
                fmt="o",
                markersize=3,
                linewidth=1.4,
                color=colour,
                label=name,
            )
            deviation = np.abs(rows - real[order].mean(axis=1, keepdims=True))
            spread = np.maximum(real[order].std(axis=1), 1e-9)
            axes[1].plot(
                position + shift,
                deviation.max(axis=1) / spread,
                "o",
                markersize=4,
                color=colour,
                label=name,
            )
        _legend(axes[0])
        axes[0].set_ylabel("mean ± std")
        axes[1].set_ylabel("largest deviation, in real std")
        axes[1].set_ylim(bottom=0)
        axes[1].set_xlabel("latent dimension, the most informative first")

    return _plot(draw, label, num_plots=2, sharex=True)


def latent_histogram(real: Array, generated: Array, label: str) -> str:
    """Return histograms of standardized latents, of any shape, over N(0, 1), as SVG."""

    def draw(axes: Axes) -> None:
        edges = np.linspace(-5, 5, 81)
        bins = edges.tolist()
        for name, values, colour in (("real", real, REAL), ("generated", generated, GENERATED)):
            axes.hist(
                values.ravel(),
                bins,
                density=True,
                histtype="stepfilled",
                alpha=0.25,
                color=colour,
                label=name,
            )
            axes.hist(values.ravel(), bins, density=True, histtype="step", color=colour)
        density = np.exp(-np.square(edges) / 2) / np.sqrt(2 * np.pi)
        axes.plot(edges, density, color=INK, linewidth=1.3, linestyle="--", label="N(0, 1)")
        axes.set_xlabel("deviation from the dimension's mean, in its std")
        axes.set_ylabel("density")
        _legend(axes, 3)

    return _plot(draw, label)


def mel_spectrogram_db(audio: Array, sample_rate_hz: int) -> Array:
    """Return the level of each mel band of audio (T,), (NUM_MELS, frames), low bands first."""
    window = np.hanning(STFT_SAMPLES + 1)[:-1]
    spectrum = librosa.stft(
        audio.astype(np.float32), n_fft=STFT_SAMPLES, hop_length=SPECTROGRAM_HOP, window=window
    )
    power = np.square(np.abs(spectrum) / (window.sum() / 2))
    filters = librosa.filters.mel(
        sr=sample_rate_hz, n_fft=STFT_SAMPLES, n_mels=NUM_MELS, norm=None, dtype=np.float64
    )
    level_db: Array = 10 * np.log10(filters @ power + 1e-12)
    return level_db


def spectrogram_png(audio: Array, sample_rate_hz: int) -> bytes:
    """Return a PNG of the log-mel spectrogram of audio (T,), in the colours of `colour_ramp`."""
    low, high = SPECTROGRAM_RANGE_DB
    level = (mel_spectrogram_db(audio, sample_rate_hz) - low) / (high - low)
    indices = (255 * np.clip(level, 0, 1)).astype(np.uint8)[::-1]
    image = Image.fromarray(indices).convert("P")
    palette = matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3]
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def colour_ramp(num_stops: int = 9) -> str:
    """Return the colours of the spectrograms, quiet to loud, as a CSS gradient."""
    colours = matplotlib.colormaps[COLOURS](np.linspace(0, 1, num_stops), bytes=True)
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b, _ in colours)
    return f"linear-gradient(to right, {stops})"


def skill_curve(skill: Curve, levels: Mapping[float, float], label: str) -> str:
    """Return skill over training steps and, if known, over noise levels at the end, as SVG.

    Args:
        skill: Held-out skill.
        levels: Log-SNR to skill.
        label: Says what there is to see.
    """

    def draw(found: Any) -> None:
        axes = found if levels else [found]
        axes[0].plot(*zip(*skill, strict=True), color=GENERATED, marker="o", markersize=3)
        axes[0].set_xlabel("training steps")
        if levels:
            axes[1].plot(*zip(*sorted(levels.items()), strict=True), color=REAL, marker="o")
            axes[1].set_xlabel("log-SNR: form on the left, detail on the right")
        for each in axes:
            each.axhline(0, color=INK, linewidth=1.0, dashes=(3, 2))
            each.set_ylabel("skill")

    # Two rows are a little higher than the one of the curve beside them.
    return _plot(draw, label, 2, row_inches=1.9) if levels else _plot(draw, label)


def trajectories(real: Array, generated: Array, frame_rate_hz: float, label: str) -> str:
    """Return the course of the first axes over time, a row each, as SVG.

    Args:
        real: (K, N).
        generated: (K, N'), with the same K.
        frame_rate_hz: Of both.
        label: Says what there is to see.
    """

    def draw(found: Any) -> None:
        rows = np.atleast_1d(found)
        for index, axes in enumerate(rows):
            for name, values, colour in (
                ("recording", real, REAL),
                ("generated", generated, GENERATED),
            ):
                time_s = np.arange(values.shape[1]) / frame_rate_hz
                axes.plot(time_s, values[index], color=colour, linewidth=1.1, label=name)
            axes.set_ylabel(f"axis {index + 1}")
        _legend(rows[0])
        rows[-1].set_xlabel("seconds")

    return _plot(draw, label, len(real), row_inches=1.15, sharex=True)


def trajectory_plane(real: Array, generated: Array, label: str) -> str:
    """Return frames (K, N) in the plane of the first two axes, as SVG; with one axis, over itself.

    Args:
        real: (K, N).
        generated: (K, N'), with the same K.
        label: Says what there is to see.
    """

    def draw(axes: Axes) -> None:
        for name, values, colour in (
            ("recordings", real, REAL),
            ("generated", generated, GENERATED),
        ):
            second = values[min(1, len(values) - 1)]
            axes.plot(values[0], second, color=colour, linewidth=0.5, alpha=0.35)
            axes.plot(values[0], second, ".", color=colour, markersize=2.5)
            axes.plot([], [], "o", color=colour, markersize=5, label=name)
        axes.set_xlabel("axis 1")
        axes.set_ylabel("axis 2")
        axes.set_aspect("equal", adjustable="datalim")
        _legend(axes)

    return _plot(draw, label, row_inches=4.6)
