"""A picture of the training curves of a released model."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
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

from diffwave.pages.plots import GENERATED, OTHER, REAL, drawn, line

PICTURE = "curves.svg"
PANEL_INCHES = (3.3, 2.7)


def draw_curves(curves: Curves, path: Path) -> None:
    """Draw the curves of an autoencoder and, if it has them, of a diffusion model."""
    panels = [_decibels, _spectra]
    if SKILL in curves:
        panels += [_losses, _skill]
    width, height = PANEL_INCHES
    with drawn(path, width * len(panels), height, 1, len(panels)) as row:
        for draw, axes in zip(panels, row, strict=True):
            draw(axes, curves)


def _decibels(axes: Axes, curves: Curves) -> None:
    line(axes, curves.get(CODEC_DECIBELS, ()), GENERATED)
    axes.set(xlabel="autoencoder, step", title="held-out crops, dB", ylim=(0, None))


def _spectra(axes: Axes, curves: Curves) -> None:
    line(axes, curves.get(CODEC_TRAIN, ()), REAL, "training", linewidth=0.7)
    line(axes, curves.get(CODEC_HELD_OUT, ()), GENERATED, "held out")
    axes.set(xlabel="autoencoder, step", title="spectral distance", ylim=(0, None))
    axes.legend()


def _losses(axes: Axes, curves: Curves) -> None:
    line(axes, curves.get(DIFFUSION_TRAIN, ()), REAL, "training", linewidth=0.7)
    line(axes, curves.get(DIFFUSION_HELD_OUT, ()), GENERATED, "held out")
    for name, dashes in (("white", (1, 2)), ("gaussian", (4, 2))):
        line(axes, curves.get(REFERENCE + name, ()), OTHER, name, dashes=dashes)
    axes.set(xlabel="diffusion, step", title="loss", ylim=(0, None))
    axes.legend()


def _skill(axes: Axes, curves: Curves) -> None:
    line(axes, sorted(skill_by_level(curves).items()), GENERATED, marker="o")
    axes.axhline(0, color=OTHER, dashes=(4, 2))
    axes.set(xlabel="log-SNR: form on the left, detail on the right", title="skill at the end")
