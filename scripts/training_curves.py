"""Training curves: read from TensorBoard's files, and kept as JSON beside a released model.

A curve is a list of (step, value) pairs, named by its tag.
"""

from __future__ import annotations

import math
from pathlib import Path

CURVES = "curves.json"
MAX_POINTS = 300
SIGNIFICANT_DIGITS = 5

# Tags. Of an autoencoder:
CODEC_TRAIN, CODEC_HELD_OUT = "train/spectral_distance", "held_out/spectral_distance"
CODEC_DECIBELS = "held_out/log_spectral_distance_db"
# Of a diffusion model:
DIFFUSION_TRAIN, DIFFUSION_HELD_OUT, SKILL = "train_loss", "held_out_loss", "skill"
SKILL_AT_LEVEL, REFERENCE = "skill_at_log_snr/", "reference/"

Curves = dict[str, list[tuple[int, float]]]


def read_curves(run: Path) -> Curves:
    """Return the scalars of a run's TensorBoard files.

    Raises:
        ValueError: If the run has none.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tb_logging

    tb_logging.get_logger().setLevel("ERROR")  # it warns of every point that a resumed run repeats
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    if not tags:
        raise ValueError(f"'{run / 'tensorboard'}' holds no curves. Train the run first.")
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def skill_by_level(curves: Curves) -> dict[float, float]:
    """Return the skill at the end of the training by log-SNR; empty if it was not measured."""
    return {
        float(tag.removeprefix(SKILL_AT_LEVEL)): curve[-1][1]
        for tag, curve in curves.items()
        if tag.startswith(SKILL_AT_LEVEL)
    }


def thinned(curves: Curves) -> Curves:
    """Return curves of at most `MAX_POINTS` points, evenly spread, with the first and the last.

    Curves with values that are not finite, and Lightning's epoch, are left out.
    """
    thin = {}
    for tag, curve in curves.items():
        if tag == "epoch" or not all(math.isfinite(value) for _, value in curve):
            continue
        count = min(len(curve), MAX_POINTS)
        chosen = [curve[round(i * (len(curve) - 1) / max(count - 1, 1))] for i in range(count)]
        thin[tag] = [(step, float(f"{value:.{SIGNIFICANT_DIGITS}g}")) for step, value in chosen]
    return thin
