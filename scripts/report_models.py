"""Sections of the report about the models: evaluation, training curves, latents, credits.

K is a number of principal axes, N a number of latent frames.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report_html import plain
from report_plots import loss_curve, piano_rolls, skill_curve, trajectories, trajectory_plane
from training_curves import (
    CODEC_DECIBELS,
    CODEC_HELD_OUT,
    CODEC_TRAIN,
    CURVES,
    SKILL,
    Curves,
    skill_by_level,
)

from diffwave.pages.markup import escape, figure, grid, paragraph, section, signed, table
from rave.compute.arrays import Float32Array
from rave.files.atomic import read_json
from rave.latent_dataset import LatentDataset
from rave.notes.transcriber import Transcription

CROPS = "Log-spectral distance, held-out crops"
EVALUATION, CARD = "evaluation.json", "README.md"
MAX_AXES, MAX_FRAMES = 4, 216
# What `python -m diffwave.evaluate` measures beside the Fréchet distance, with units.
VIEWS = {"spectral": "dB", "onset": "octaves", "chroma": "%", "loudness": "dB"}
OWN = ("generated", "following")
# Of the ladder's picture: nothing is drawn shorter than this share of the largest distance.
SMALLEST = 1e-3


def read_curves_of(models: Path) -> Curves:
    """Return the training curves that a model was released with; none if it has none."""
    path = models / CURVES
    return read_json(path, "a released model") if path.exists() else {}


def ladder(models: Path) -> str:
    """Return the section with the ladder, empty if the model was not evaluated."""
    path = models / EVALUATION
    if not path.exists():
        return ""
    from diffwave.evaluation.figures import reading

    evaluation = read_json(path, "a released model")
    rungs = evaluation["rungs"]
    return section(
        "How good is it?",
        paragraph(
            "Fréchet distance to the training recordings, measured on the features of a network "
            "that tags music. Smaller is nearer. Held-out recordings and their reconstructions are "
            "at the top, random latents and noise at the bottom. All rungs have the same length."
        ),
        _bars(rungs, evaluation["position"]),
        paragraph(" ".join(reading(evaluation))),
        _views(rungs),
    )


def _bars(rungs: Sequence[Mapping[str, Any]], position: Mapping[str, Any]) -> str:
    """Return the rungs' distances as bars on a logarithmic scale, with a mark at the goal."""
    values = {rung["name"]: float(rung["frechet"]) for rung in rungs}
    largest = max(values.values())
    floor = max(min(values.values()), SMALLEST * largest)

    def place(value: float) -> str:
        """Return the length of a value's bar; the smallest has a tenth of the width."""
        share = math.log(max(value, floor) / floor) / max(math.log(largest / floor), 1e-9)
        return f"{10 + 90 * share:.1f}%"

    mark = ""
    if position["value"] is not None:
        nearest, farthest = (values[name] for name in ("reconstruction", "gaussian"))
        goal = nearest + position["bar"] * (farthest - nearest)
        mark = f'<s style="left: {place(goal)}" title="to be under: {plain(goal)}"></s>'
    rows = [
        f'<li class="{"own" if rung["name"] in OWN else ""}"><span>{escape(rung["title"])}</span>'
        f'<i><b style="width: {place(values[rung["name"]])}"></b>{mark}</i>'
        f"<span>{plain(rung['frechet'])} ± {plain(rung['frechet_std'])}</span></li>"
        for rung in rungs
    ]
    note = "Logarithmic scale. Generated music should stay left of the mark." if mark else ""
    bars = f'<ol class="ladder" aria-label="Fréchet distances">{"".join(rows)}</ol>'
    return figure(bars, note)


def _views(rungs: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for rung in rungs:
        numbers = [rung[name] for name in VIEWS]
        rows.append([rung["title"], *("–" if n is None else f"{n:.2f}" for n in numbers)])
    heads = ["", *(f"{name}, {unit}" for name, unit in VIEWS.items())]
    caption = (
        "A second view, without a network: distances of spectra, onsets, harmony and loudness to "
        "those of the training recordings. Smaller is nearer."
    )
    return figure(table("Second view", heads, rows), caption, "table")


def notes(folder: Path, recordings: Sequence[str], followed: str) -> str:
    """Return the section about notes: of recordings, reconstructions, and what follows one.

    Args:
        folder: Folder of the demo.
        recordings: Names of the recordings.
        followed: The one that generated music follows.
    """
    from rave.audio.io import AudioStream
    from rave.notes.scores import note_scores
    from rave.notes.transcriber import SAMPLE_RATE_HZ, Transcriber

    transcriber = Transcriber()

    def heard(path: Path) -> Transcription:
        return transcriber.transcribe(AudioStream(path, SAMPLE_RATE_HZ, 1))

    real = {name: heard(folder / "recordings" / name) for name in recordings}
    decoded = {name: heard(folder / "reconstructions" / name) for name in recordings}
    following = heard(min((folder / "following_audio").glob("*.wav")))
    pairs = {f"{Path(name).stem}, reconstruction": (real[name], decoded[name]) for name in real}
    pairs[f"{Path(followed).stem}, generated to follow it"] = real[followed], following
    scores = {name: note_scores(*pair) for name, pair in pairs.items()}
    rows = [[name, f"{s['note_f1']:.2f}", f"{s['frame_f1']:.2f}"] for name, s in scores.items()]
    rolls = {
        "recording": real[followed].notes,
        "reconstruction": decoded[followed].notes,
        "generated, following it": following.notes,
    }
    return section(
        "Notes",
        paragraph(
            "How many notes of the recordings are kept, heard by a network that transcribes music. "
            "F1 of notes counts those of equal pitch whose onsets are within 50 ms; 1 is all."
        ),
        figure(
            table("Notes kept", ["", "F1 of notes", "F1 of frames"], rows),
            "Compared with the recording.",
            "table",
        ),
        grid(
            [figure(piano_rolls(rolls, "Piano rolls"), f"{Path(followed).stem}, as it is heard.")],
            "plots",
        ),
    )


def training(curves: Curves) -> str:
    """Return the section with the curves of both trainings, empty if there are none."""
    plots = []
    if CODEC_HELD_OUT in curves:
        plots.append(codec_plot(curves))
    if SKILL in curves:
        plot = skill_curve(
            curves[SKILL], skill_by_level(curves), "Skill of the diffusion model over steps"
        )
        last = signed(f"{curves[SKILL][-1][1]:.3f}")
        plots.append(
            figure(
                plot,
                f"The diffusion model. Skill on held-out music at the end: {last}; 0 is no better "
                "than the best linear denoiser, 1 is perfect.",
            )
        )
    if not plots:
        return ""
    return section(
        "How it was trained",
        paragraph("Curves of both trainings. Neither model was trained on the held-out music."),
        grid(plots, "plots"),
    )


def codec_plot(curves: Curves) -> str:
    """Return the training curve of an autoencoder."""
    plot = loss_curve(
        curves.get(CODEC_TRAIN, []),
        curves[CODEC_HELD_OUT],
        {},
        "spectral distance",
        "Training curve of the autoencoder: spectral distance over steps",
    )
    distance_db = curves[CODEC_DECIBELS][-1][1]
    return figure(
        plot,
        f"The autoencoder. {CROPS} at the end of the training: {distance_db:.2f} dB. For whole "
        "files, as in model cards and rave evaluate, it is smaller: all below the loudest part by "
        "60 dB is left out, and the loudest part of a crop is quieter than that of its file.",
    )


def latents(folder: Path, models: Path, varied: str) -> str:
    """Return the section with the diffusion model's input: trajectories along principal axes.

    Args:
        folder: Folder of the demo.
        models: Folder that holds diffusion/.
        varied: Name of the recording whose trajectory is shown.
    """
    from diffwave.run import open_run

    model = open_run(models / "diffusion").model

    def standardized(name: str) -> Float32Array:
        """Return a file's raw latents (D, N) as input of the model, (K, N)."""
        import torch

        raw = torch.from_numpy(np.load(folder / name))[None]
        found: Float32Array = model.standardizer.standardize(raw)[0].numpy()
        return found

    def all_of(name: str) -> Float32Array:
        files = LatentDataset(folder / name).header.files
        return np.concatenate([standardized(f"{name}/{file.path}") for file in files], axis=1)

    header = LatentDataset(folder / "latents").header
    recording = standardized(f"latents/{Path(varied).stem}.npy")[:MAX_AXES, :MAX_FRAMES]
    generated = standardized("generated/generated_000.npy")[:MAX_AXES, :MAX_FRAMES]
    lines = trajectories(
        recording,
        generated,
        header.frame_rate_hz,
        "The first principal axes of a recording's latents and of generated ones over time",
    )
    plane = trajectory_plane(
        all_of("latents"),
        all_of("generated"),
        "Recordings' and generated latents in the plane of the first two principal axes",
    )
    standardizer = model.standardizer
    return section(
        "Latents",
        paragraph(
            f"The input of the diffusion model: the {standardizer.raw_size} latents of the "
            f"autoencoder, rotated to the {standardizer.latent_size} informative principal axes "
            f"and scaled, {header.frame_rate_hz:.1f} frames per second."
        ),
        grid(
            [
                figure(
                    lines,
                    f"{Path(varied).stem} and the first generated clip along the widest axes, in "
                    "standard deviations of the training music.",
                ),
                figure(plane, "All recordings and all generated clips, axis 1 against 2."),
            ],
            "plots",
        ),
    )


def followed(models: Path) -> str:
    """Return the names of the diffusion model's conditions, joined by "and"."""
    from diffwave.run import open_run

    return " and ".join(open_run(models / "diffusion").model.conditioners)


def credit(models: Path) -> list[str]:
    """Return the section `## Data…` of the model card as paragraphs; none if it has none.

    Links become their texts and addresses.
    """
    path = models / CARD
    found = None
    if path.exists():
        found = re.search(r"^## Data[^\n]*\n(.*?)(?=^## |\Z)", path.read_text(), re.DOTALL | re.M)
    if found is None:
        return []
    text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"\1 (\2)", found[1])
    parts = [" ".join(part.split()) for part in text.replace("**", "").split("\n\n")]
    return [paragraph(part) for part in parts if part]
