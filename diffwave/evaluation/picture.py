"""A picture of the ladder: a bar for each rung, and where the lower third ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffwave.evaluation.ladder import GAUSSIAN, GENERATED, HELD_OUT, MODELLED, RECONSTRUCTION
from diffwave.pages.plots import GENERATED as GENERATED_COLOUR
from diffwave.pages.plots import OTHER, REAL, drawn

SIZE_INCHES = (9.0, 4.0)
BESIDE: Any = {"textcoords": "offset points", "color": OTHER}


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the rungs of an evaluation.json into a .png or .svg file."""
    rungs = record["rungs"]
    values = np.array([rung["frechet"] for rung in rungs])
    named = {rung["name"]: rung["frechet"] for rung in rungs}
    colours = [_colour(rung["name"]) for rung in rungs]
    with drawn(path, *SIZE_INCHES) as axes:
        places = np.arange(len(rungs))
        errors = np.array([rung["frechet_std"] for rung in rungs])
        axes.barh(places, values, color=colours, xerr=np.minimum(errors, values), ecolor="#444444")
        nearest, farthest = named[RECONSTRUCTION], named[GAUSSIAN]
        if farthest > nearest:
            bar = nearest + record["position"]["bar"] * (farthest - nearest)
            axes.axvline(bar, color=OTHER, linestyle="--")
            axes.annotate("lower third", (bar, -0.5), xytext=(4, -4), **BESIDE)
        axes.set_yticks(places, [rung["title"] for rung in rungs])
        axes.invert_yaxis()
        patches = rungs[0]["patches"]
        axes.set_xlabel(f"Fréchet distance from the training recordings, {patches} patches of 3 s")


def _colour(name: str) -> str:
    if name.startswith(GENERATED) or name == "following":
        return GENERATED_COLOUR
    return REAL if name in (HELD_OUT, RECONSTRUCTION, MODELLED) else OTHER
