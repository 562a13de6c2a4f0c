"""Pictures of the experiments' page: SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DIARY, OURS = "#e5792b", "#3f86e0"
# Drawn with this colour, text and axes take the colour of the page's text.
INK = "#010203"
OTHERS = ("#e5792b", "#3f86e0", "#9a6fd0", "#2f9e6e", "#c2477f", "#8a7a3c", "#5a6b7b")
FIGURE_INCHES = (4.9, 3.1)
# A name in a legend of two columns may have so many letters.
LONG_NAME = 24
LEGEND_LINE_INCHES = 0.18
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.formatter.useoffset": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}


def plot(picture: dict[str, Any]) -> str:
    """Return a `Picture` as SVG."""
    lines = picture["lines"]
    num_columns = 1 if max(len(name) for name, *_ in lines) > LONG_NAME else 2

    def draw(axes: Axes) -> None:
        number = 0
        for name, x, y, style in lines:
            pairs = [(at, value) for at, value in zip(x, y, strict=True) if value is not None]
            look: dict[str, Any] = {"label": name, "linewidth": 1.5}
            if style == "predicted":
                look |= {"color": INK, "linestyle": "--", "linewidth": 1.3}
            elif style in ("diary", "ours"):
                look["color"] = DIARY if style == "diary" else OURS
            else:
                look["color"] = OTHERS[number % len(OTHERS)]
                number += 1
            axes.plot(*zip(*pairs, strict=True), **look)
        axes.set_xlabel(picture["x_label"])
        axes.set_ylabel(picture["y_label"])
        if picture["is_log_y"]:
            axes.set_yscale("log")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=num_columns, borderaxespad=0.2)

    return _svg(draw, picture["title"], LEGEND_LINE_INCHES * -(-len(lines) // num_columns))


def scatter(points: Sequence[tuple[float, float]], label: str) -> str:
    """Return predicted against measured losses, with the line on which they are equal."""

    def draw(axes: Axes) -> None:
        low, high = 0.0, max(max(pair) for pair in points) * 1.08
        axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle="--")
        predicted, measured = zip(*points, strict=True)
        axes.plot(predicted, measured, "o", color=DIARY, alpha=0.7, markersize=5)
        axes.set_xlabel("predicted")
        axes.set_ylabel("measured")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)

    return _svg(draw, label)


def _svg(draw: Callable[[Axes], None], label: str, legend_inches: float = 0.0) -> str:
    style: Any = {**STYLE, "svg.hashsalt": label}
    with matplotlib.rc_context(style):
        width, height = FIGURE_INCHES
        figure = Figure(figsize=(width, height + legend_inches), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # they repeat from plot to plot
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
