"""Picture of a run's diagnosis: six plots of the model, and two of what its codec decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diffwave.pages.plots import COLOURS, GENERATED, OTHER, REAL, draw_notes, drawn

COLUMN_INCHES, HEIGHT_INCHES = 4.5, 7.5


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the figures of a `RunDiagnosis` into a .png or .svg file."""
    phase, notes = figures["phase"], figures["notes"]
    columns = 3 if phase is None else 4
    with drawn(path, columns * COLUMN_INCHES, HEIGHT_INCHES, 2, columns) as axes:
        _magnitudes(axes[0, 0], figures["network"])
        _skill(axes[0, 1], figures)
        _timesteps(axes[0, 2], figures["network"]["told"])
        _trace(axes[1, 0], figures["sampling"])
        _autocorrelation(axes[1, 1], figures["samples"])
        _spread(axes[1, 2], figures["samples"])
        if phase is not None:
            _phase(axes[0, 3], phase)
            _notes(axes[1, 3], notes)


def _magnitudes(axes: Axes, network: dict[str, Any]) -> None:
    level = network["levels"][len(network["levels"]) // 2]
    for name, colour in zip(level["blocks"][0], COLOURS, strict=True):
        values = [block[name] for block in level["blocks"]]
        if None not in values:
            axes.plot(values, color=colour, marker="o", markersize=3, label=name)
    axes.set(
        title=f"Through the network, log-SNR {level['log_snr']:+.1f}",
        xlabel="block",
        ylabel="root mean square",
        yscale="log",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0.4 * axes.get_ylim()[0])  # room for the legend
    axes.legend(ncols=3, loc="lower left")


def _skill(axes: Axes, figures: dict[str, Any]) -> None:
    levels = [each["log_snr"] for each in figures["by_log_snr"]]
    skill = [each["skill"] for each in figures["by_log_snr"]]
    axes.plot(levels, skill, color=REAL, marker="o", markersize=3, label="skill")
    axes.axhline(0.0, color=OTHER, linewidth=1)
    axes.set(title="What is learned, by noise level", xlabel="log-SNR", ylabel="skill")
    axes.set_ylim(min(-0.1, *skill), 1.0)
    axes.legend(loc="upper left")
    if figures["conditioner"] is None:
        return
    gains = axes.twinx()
    gains.grid(visible=False)
    gains.spines["right"].set_visible(True)
    curves = figures["conditioner"]["curves"]
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[1 + index % (len(COLOURS) - 1)]
        label = f"gain {name}"
        gains.plot(
            curve["log_snr"], curve["gain"], "--", color=colour, marker="s", ms=3, label=label
        )
    gains.set(ylabel="conditioner gain", yscale="log")
    highest = max(max(curve["gain"]) for curve in curves.values())
    gains.set_ylim(0.8, max(2.0, 1.3 * highest))
    gains.legend(loc="upper right")


def _timesteps(axes: Axes, shifted: dict[str, Any]) -> None:
    right = shifted["shifts"].index(0.0)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(shifted["error"])))
    for level, errors, colour in zip(shifted["log_snr"], shifted["error"], colours, strict=True):
        axes.plot(
            shifted["shifts"],
            np.asarray(errors) / errors[right],
            color=colour,
            marker="o",
            markersize=3,
            label=f"log-SNR {level:+.0f}",
        )
    axes.axhline(1.0, color=OTHER, linewidth=1)
    axes.set(
        title="Error with a wrong timestep",
        xlabel="shift, share of the schedule",
        ylabel="error relative to the right timestep",
    )
    axes.set_ylim(0.5, 2.0)
    axes.legend()


def _trace(axes: Axes, sampling: dict[str, Any]) -> None:
    axes.plot(sampling["expected"], "--", color=OTHER, label="as the schedule has it")
    axes.plot(sampling["noisy"], color=GENERATED, marker="o", ms=3, label="noisy latents")
    axes.plot(sampling["denoised"], color=REAL, marker="o", ms=3, label="denoised latents")
    axes.plot(sampling["linear"], ":", color=REAL, label="those of a linear denoiser")
    axes.set(title="Sampling", xlabel="step", ylabel="root mean square")
    axes.set_ylim(bottom=0.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def _autocorrelation(axes: Axes, samples: dict[str, Any] | None) -> None:
    axes.set(title="Autocorrelation, mean of the channels", xlabel="frames later")
    if samples is None:
        return
    for name, colour in (("held_out", REAL), ("training", OTHER), ("generated", GENERATED)):
        axes.plot(
            samples["lags"],
            samples[name]["autocorrelation"],
            color=colour,
            marker="o",
            markersize=3,
            label=name.replace("_", "-"),
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(samples["lags"], [str(lag) for lag in samples["lags"]])
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)
    axes.legend()


def _spread(axes: Axes, samples: dict[str, Any] | None) -> None:
    axes.set(title="Mean and std of each channel", xlabel="channel")
    if samples is None:
        return
    shifts = (("held_out", REAL, -0.2), ("training", OTHER, 0.0), ("generated", GENERATED, 0.2))
    for name, colour, shift in shifts:
        mean, std = (samples[name][each] for each in ("mean", "std"))
        axes.errorbar(
            np.arange(len(mean)) + shift,
            mean,
            std,
            fmt="o",
            color=colour,
            markersize=3,
            label=name.replace("_", "-"),
        )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.15 * (high - low))  # room for the legend
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(ncols=3, loc="upper left")


def _phase(axes: Axes, phase: dict[str, Any]) -> None:
    """Draw what each principal axis keeps, where the sound moves."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(phase["shifts"])))
    for shift, by_axis, colour in zip(phase["shifts"], phase["by_axis"], colours, strict=True):
        places = range(1, len(by_axis) + 1)
        label = f"{shift} samples" if shift > 1 else "1 sample"
        axes.plot(places, by_axis, color=colour, marker="o", ms=2, label=label)
    axes.axhline(0.0, color=OTHER, linewidth=1)
    axes.set(
        title="Variance kept if the sound moves",
        xlabel="principal axis, largest variance first",
        ylabel="explained variance",
    )
    axes.set_ylim(-3.0, 1.05)  # with room for the legend
    axes.legend(loc="lower left", ncols=2)


def _notes(axes: Axes, notes: dict[str, Any] | None) -> None:
    if notes is None:
        axes.set_axis_off()
        return
    for name, colour, shift, label in (
        ("held_out", REAL, 0.2, "held-out latents, decoded"),
        ("followed", GENERATED, -0.2, "what follows them"),
    ):
        shifted = [(start, end, pitch + shift) for start, end, pitch in notes["rolls"][name]]
        draw_notes(axes, shifted, colour, label)
    score = notes["followed"]["note_f1"]
    axes.set(title=f"Notes, F1 {score:.2f}", xlabel="seconds", ylabel="MIDI pitch")
    axes.margins(y=0.2)
    axes.legend(loc="upper left", ncols=2)
