"""A picture of how a released model was trained: the curves of `curves.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from training_curves import (
    CODEC_DECIBELS,
    CODEC_HELD_OUT,
    CODEC_TRAIN,
    DIFFUSION_HELD_OUT,
    DIFFUSION_TRAIN,
    REFERENCE,
    SKILL,
    Curves,
    skill_by_level,
)

from diffwave.diagnosis.run_picture import GENERATED, OTHER, REAL, STYLE

PICTURE = "curves.svg"
PANEL_INCHES = (3.3, 2.7)


def draw_curves(curves: Curves, path: Path) -> None:
    """Draw the curves of an autoencoder and, if there are, of a diffusion model as SVG."""
    panels = [_decibels, _spectra]
    if SKILL in curves:
        panels += [_losses, _skill]
    width, height = PANEL_INCHES
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": PICTURE}):
        figure = Figure(figsize=(width * len(panels), height), layout="constrained")
        rows: Any = figure.subplots(1, len(panels))
        for draw, axes in zip(panels, rows, strict=True):
            draw(axes, curves)
        metadata: Any = {"Date": None}
        figure.savefig(path, format="svg", metadata=metadata)


def _line(axes: Axes, curves: Curves, tag: str, **style: Any) -> None:
    if curves.get(tag):
        axes.plot(*zip(*curves[tag], strict=True), **style)


def _decibels(axes: Axes, curves: Curves) -> None:
    _line(axes, curves, CODEC_DECIBELS, color=GENERATED)
    axes.set(xlabel="autoencoder, step", title="held-out crops, dB", ylim=(0, None))


def _spectra(axes: Axes, curves: Curves) -> None:
    _line(axes, curves, CODEC_TRAIN, color=REAL, linewidth=0.7, label="training")
    _line(axes, curves, CODEC_HELD_OUT, color=GENERATED, label="held out")
    axes.set(xlabel="autoencoder, step", title="spectral distance", ylim=(0, None))
    axes.legend()


def _losses(axes: Axes, curves: Curves) -> None:
    _line(axes, curves, DIFFUSION_TRAIN, color=REAL, linewidth=0.7, label="training")
    _line(axes, curves, DIFFUSION_HELD_OUT, color=GENERATED, label="held out")
    for name, dashes in (("white", (1, 2)), ("gaussian", (4, 2))):
        _line(axes, curves, REFERENCE + name, color=OTHER, dashes=dashes, label=name)
    axes.set(xlabel="diffusion, step", title="loss", ylim=(0, None))
    axes.legend()


def _skill(axes: Axes, curves: Curves) -> None:
    axes.plot(
        *zip(*sorted(skill_by_level(curves).items()), strict=True), color=GENERATED, marker="o"
    )
    axes.axhline(0, color=OTHER, dashes=(4, 2))
    axes.set(xlabel="log-SNR: form on the left, detail on the right", title="skill at the end")
