"""Plots of the experiments' page."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from diffwave.pages.plots import (
    COLOURS,
    GENERATED,
    INK,
    INLINE_INCHES,
    REAL,
    Curve,
    inline_svg,
    legend_above,
    line,
)

# Line style and colour by the style of a curve; other curves take `COLOURS` in turn.
LOOKS = {"predicted": ("--", INK), "diary": ("-", GENERATED), "ours": ("-", REAL)}
# A name in a legend of two columns may have so many letters.
LONG_NAME = 24
LEGEND_LINE_INCHES = 0.18


def plot(picture: dict[str, Any]) -> str:
    """Return a `Picture` as SVG."""
    curves = picture["lines"]
    num_columns = 1 if max(len(name) for name, *_ in curves) > LONG_NAME else 2

    def draw(axes: Axes) -> None:
        number = 0
        for name, x, y, style in curves:
            number += style not in LOOKS
            other = ("-", COLOURS[(number - 1) % len(COLOURS)])
            linestyle, colour = LOOKS.get(style, other)
            points = [(at, value) for at, value in zip(x, y, strict=True) if value is not None]
            line(axes, points, colour, name, linestyle=linestyle)
        axes.set(xlabel=picture["x_label"], ylabel=picture["y_label"])
        if picture["is_log_y"]:
            axes.set_yscale("log")
        legend_above(axes, num_columns)

    legend_inches = LEGEND_LINE_INCHES * -(-len(curves) // num_columns)
    return inline_svg(draw, picture["title"], INLINE_INCHES[1] + legend_inches)


def scatter(points: Curve, label: str) -> str:
    """Return predicted against measured losses, with the line on which they are equal."""
    ends = (0.0, max(max(pair) for pair in points) * 1.08)

    def draw(axes: Axes) -> None:
        axes.plot(ends, ends, color=INK, linestyle="--")
        line(axes, points, GENERATED, marker="o", linestyle="", alpha=0.7, markersize=5)
        axes.set(xlabel="predicted", ylabel="measured", xlim=ends, ylim=ends)

    return inline_svg(draw, label)
