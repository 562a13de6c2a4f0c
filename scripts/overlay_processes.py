"""Train in one and in two processes, and draw the curves over each other.

    python scripts/overlay_processes.py RECORDINGS --out overlay

A third training has one process and another number of threads, which also changes the order of
additions: it differs by rounding only. The same command continues.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from training_curves import CODEC_TRAIN, DIFFUSION_TRAIN, Curves, read_curves

from diffwave.pages.plots import GENERATED, OTHER, REAL, drawn, line

PICTURE = "overlay.png"
RAVE, DIFFWAVE = "rave", "diffwave"
TAGS = {RAVE: CODEC_TRAIN, DIFFWAVE: DIFFUSION_TRAIN}
# Number of processes and threads of each.
SIDES = {"alone": (1, 1), "two processes": (2, 1), "alone, two threads": (1, 2)}
COLORS = dict(zip(SIDES, (REAL, GENERATED, OTHER), strict=True))
RATE_HZ = 22050


def train(recordings: Path, out: Path, num_steps: int) -> None:
    """Train all runs that do not exist."""
    steps, prepared, latents = f"MAX_STEPS={num_steps}", out / "prepared", out / "latents"
    _call(1, "rave.main_cli", "preprocess", recordings, prepared, f"--sample-rate={RATE_HZ}")
    for side, (num_processes, num_threads) in SIDES.items():
        words = ["train", prepared, "--config", "tiny", "--out", out / f"{RAVE} {side}"]
        often = "training.RaveTraining.log_every_steps=5", f"VALIDATE_EVERY_STEPS={num_steps}"
        words += [*_sets(steps, f"PHASE_1_STEPS={num_steps // 2}", *often), "--device", "cpu"]
        _call(num_threads, "rave.main_cli", *words, "--devices", num_processes)
    _call(2, "rave.main_cli", "encode", out / f"{RAVE} alone", recordings, latents)
    for side, (num_processes, num_threads) in SIDES.items():
        words = [latents, "--out", out / f"{DIFFWAVE} {side}", "--config", "tiny"]
        often = "LOG_EVERY=5", f"VALIDATE_EVERY={num_steps}"
        words += [*_sets(steps, *often), "--device", "cpu"]
        _call(num_threads, "diffwave.train", *words, "--devices", num_processes)


def _sets(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _call(num_threads: int, module: str, *words: Any) -> None:
    command = [sys.executable, "-m", module, *map(str, words)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(num_threads)})


def differences(one: Curves, two: Curves, tag: str) -> list[tuple[int, float]]:
    """Return (step, difference) of two curves, relative to the first."""
    pairs = zip(one[tag], two[tag], strict=True)
    return [(step, abs(b - a) / abs(a)) for (step, a), (_, b) in pairs]


def draw(out: Path) -> dict[str, dict[str, list[float]]]:
    """Draw the curves, and return the differences of each from the first."""
    all_differences: dict[str, dict[str, list[float]]] = {}
    with drawn(out / PICTURE, 10, 5.5, 2, 2, height_ratios=(2, 1)) as rows:
        for number, (name, tag) in enumerate(TAGS.items()):
            curves = {side: read_curves(out / f"{name} {side}") for side in SIDES}
            all_differences[name] = {}
            for side, curve in curves.items():
                apart = differences(curves["alone"], curve, tag)
                all_differences[name][side] = [value for _, value in apart]
                width = 3.0 if side == "alone" else 1.0
                line(rows[0, number], curve[tag], COLORS[side], side, linewidth=width)
                if side != "alone":
                    line(rows[1, number], apart, COLORS[side], linewidth=width)
            rows[0, number].set(title=f"{name}: {tag}")
            rows[1, number].set(xlabel="step", ylabel="relative difference", yscale="log")
        rows[0, 0].legend()
    return all_differences


def main() -> None:
    """Train, draw and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recordings", type=Path, help="folder of audio")
    parser.add_argument(
        "--out", type=Path, default=Path("overlay"), help="folder (default overlay)"
    )
    parser.add_argument("--steps", type=int, default=400, help="steps per training (default 400)")
    options = parser.parse_args()
    train(options.recordings, options.out, options.steps)
    for name, sides in draw(options.out).items():
        for side, values in sides.items():
            spread = f"median {median(values):.1e}, at most {max(values):.1e}"
            print(f"{name}, {side}, difference from alone: {spread}")


if __name__ == "__main__":
    main()
