"""Plots of the demo's report, each as SVG for its page.

D is the latent size, K a number of principal axes, N a number of latent frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffwave.pages.plots import (
    GENERATED,
    INK,
    REAL,
    Array,
    Curve,
    draw_notes,
    inline_svg,
    legend_above,
    line,
)
from rave.notes.note import Note


def loss_curve(
    train: Curve, held_out: Curve, references: Mapping[str, float], y_label: str, name: str
) -> str:
    """Return a training curve with held-out values and reference losses, each a labelled line."""

    def draw(axes: Axes) -> None:
        line(axes, train, REAL, "training")
        label = f"held out: {held_out[-1][1]:.3g}"
        line(axes, held_out, GENERATED, label, marker="o", markersize=4)
        dashes = ((1, 2), (6, 3), (3, 1.5))
        for (reference, value), dash in zip(references.items(), dashes, strict=False):
            axes.axhline(value, color=INK, dashes=dash, label=f"{reference} {value:.3f}")
        axes.set(xlabel="training steps", ylabel=y_label, xlim=(0, None))
        legend_above(axes)

    return inline_svg(draw, name)


def piano_rolls(rows: Mapping[str, Sequence[Note]], label: str) -> str:
    """Return piano rolls on one scale of time and pitch, one below the other, as SVG.

    Args:
        rows: The notes of each recording by its title; the first is real.
        label: Name for screen readers.
    """

    def draw(axes: Sequence[Axes]) -> None:
        for number, (each, (title, notes)) in enumerate(zip(axes, rows.items(), strict=True)):
            spans = ((note.start_s, note.end_s, note.pitch) for note in notes)
            draw_notes(each, spans, GENERATED if number else REAL)
            each.set(title=title, ylabel="MIDI pitch")
        axes[-1].set_xlabel("seconds")

    return inline_svg(draw, label, 1.7 * len(rows), len(rows), sharex=True, sharey=True)


def latent_profile(real: Array, generated: Array, order: Array, label: str) -> str:
    """Return mean, spread and extremes of each latent dimension as SVG.

    Args:
        real: (D, N).
        generated: (D, N).
        order: (D,), the dimensions from left to right.
        label: Name for screen readers.
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
                color=colour,
                label=name,
            )
            deviation = np.abs(rows - real[order].mean(axis=1, keepdims=True))
            spread = np.maximum(real[order].std(axis=1), 1e-9)
            largest = deviation.max(axis=1) / spread
            axes[1].plot(position + shift, largest, "o", markersize=4, color=colour)
        legend_above(axes[0])
        axes[0].set_ylabel("mean ± std")
        axes[1].set(ylabel="largest deviation, in real std", ylim=(0, None))
        axes[1].set_xlabel("latent dimension, the most informative first")

    return inline_svg(draw, label, 6.2, 2, sharex=True)


def latent_histogram(real: Array, generated: Array, label: str) -> str:
    """Return histograms of standardized latents, of any shape, over N(0, 1), as SVG."""

    def draw(axes: Axes) -> None:
        edges = np.linspace(-5, 5, 81)
        bins = edges.tolist()
        for name, values, colour in (("real", real, REAL), ("generated", generated, GENERATED)):
            looks: Any = {"density": True, "color": colour}
            filled: Any = {"histtype": "stepfilled", "alpha": 0.25, "label": name}
            axes.hist(values.ravel(), bins, **looks, **filled)
            axes.hist(values.ravel(), bins, **looks, histtype="step")
        density = np.exp(-np.square(edges) / 2) / np.sqrt(2 * np.pi)
        axes.plot(edges, density, color=INK, linestyle="--", label="N(0, 1)")
        axes.set(xlabel="deviation from the dimension's mean, in its std", ylabel="density")
        legend_above(axes, 3)

    return inline_svg(draw, label)


def skill_curve(skill: Curve, levels: Mapping[float, float], label: str) -> str:
    """Return skill over training steps and, if known, over noise levels at the end, as SVG.

    Args:
        skill: Held-out skill.
        levels: Log-SNR to skill.
        label: Name for screen readers.
    """

    def draw(found: Any) -> None:
        axes = found if levels else [found]
        line(axes[0], skill, GENERATED, marker="o", markersize=3)
        axes[0].set_xlabel("training steps")
        if levels:
            line(axes[1], sorted(levels.items()), REAL, marker="o")
            axes[1].set_xlabel("log-SNR: form on the left, detail on the right")
        for each in axes:
            each.axhline(0, color=INK, linewidth=1.0, dashes=(3, 2))
            each.set_ylabel("skill")

    # Two rows are a little higher than the one of the curve beside them.
    return inline_svg(draw, label, 3.8, 2) if levels else inline_svg(draw, label)


def trajectories(real: Array, generated: Array, frame_rate_hz: float, label: str) -> str:
    """Return the course of the first axes over time, a row each, as SVG.

    Args:
        real: (K, N).
        generated: (K, N'), with the same K.
        frame_rate_hz: Frame rate of both.
        label: Name for screen readers.
    """

    def draw(found: Any) -> None:
        rows = np.atleast_1d(found)
        sides = (("recording", real, REAL), ("generated", generated, GENERATED))
        for index, axes in enumerate(rows):
            for name, values, colour in sides:
                time_s = np.arange(values.shape[1]) / frame_rate_hz
                axes.plot(time_s, values[index], color=colour, linewidth=1.1, label=name)
            axes.set_ylabel(f"axis {index + 1}")
        legend_above(rows[0])
        rows[-1].set_xlabel("seconds")

    return inline_svg(draw, label, 1.15 * len(real), len(real), sharex=True)


def trajectory_plane(real: Array, generated: Array, label: str) -> str:
    """Return frames (K, N) in the plane of the first two axes, as SVG; with one axis, over itself.

    Args:
        real: (K, N).
        generated: (K, N'), with the same K.
        label: Name for screen readers.
    """

    def draw(axes: Axes) -> None:
        sides = (("recordings", real, REAL), ("generated", generated, GENERATED))
        for name, values, colour in sides:
            second = values[min(1, len(values) - 1)]
            axes.plot(values[0], second, color=colour, linewidth=0.5, alpha=0.35)
            axes.plot(values[0], second, ".", color=colour, markersize=2.5)
            axes.plot([], [], "o", color=colour, markersize=5, label=name)
        axes.set(xlabel="axis 1", ylabel="axis 2")
        axes.set_aspect("equal", adjustable="datalim")
        legend_above(axes)

    return inline_svg(draw, label, 4.6)
