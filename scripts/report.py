"""Make report.html of a demo folder: one page with everything in it, readable without a network.

python scripts/report.py demo-output
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import Any

import report_models
from demo_walk import JOURNAL, REPORT
from report_html import (
    blend_cards,
    card,
    clip,
    clip_cards,
    commands,
    grid,
    key_figures,
    report_program,
    section,
    signed,
    spectrogram_scale,
    write_page,
)
from training_curves import CODEC_DECIBELS, SKILL, Curves

from rave.audio.io import AudioStream
from rave.audio.sound import sound_of
from rave.files.atomic import read_json
from rave.latents.folder import LatentHeader
from rave.training_audio import brought

TITLE = "New music from a latent space"
INTRODUCTION = (
    "A diffusion model makes new latents out of noise, or out of others; a RAVE autoencoder makes "
    "them audible. All clips were computed here, by the commands at the end, with trained models."
)
SYNTHESIZED = (
    "The recordings that it begins with are synthesized: a piano that is computed, playing the "
    "first bars of three pieces by Bach, and an improvised phrase of strings and bells. "
    "The models were trained on other recordings."
)


def level_notes(folder: Path) -> dict[str, str]:
    """Return what was done to the level of recordings, by name, where anything was."""
    header, notes = LatentHeader.read(folder / "latents"), {}
    for file in header.files:
        if file.gain_db and file.source:
            path = folder / "recordings" / file.source
            level_dbfs = sound_of(AudioStream(path, header.sample_rate_hz, 1)).level_dbfs
            if level_dbfs is not None:
                notes[file.source] = ", " + brought(level_dbfs, file.gain_db)
    return notes


def listening(folder: Path, journal: dict[str, Any]) -> list[str]:
    """Return the sections with players."""
    recordings = folder / "recordings"
    varied, span_s = recordings / journal["varied"], journal["span_s"]
    first, second = (Path(name).stem for name in journal["blended"])
    notes = level_notes(folder)
    parts = [
        section(
            "Out of noise",
            "Latents that the diffusion model made of nothing but noise, decoded.",
            spectrogram_scale(),
            grid(clip_cards(folder / "generated_audio", "Generated")),
        )
    ]
    if journal["followed"]:
        names = report_models.followed(folder / journal["models"])
        followed = card(clip(recordings / journal["followed"], "The recording to follow"))
        parts.append(
            section(
                "After a recording",
                f"The same model, following the {names} of a recording. All else comes "
                "from the music it was trained on.",
                grid([followed, *clip_cards(folder / "following_audio", "After it")]),
            )
        )
    parts += [
        section(
            "Variations",
            "A recording's latents, half of the way into noise and back.",
            grid(
                [
                    card(clip(varied, "The recording")),
                    *clip_cards(folder / "varied_audio", "Variation"),
                ]
            ),
        ),
        section(
            "Inpainting",
            f"What lies between {span_s[0]:g} and {span_s[1]:g} seconds is made anew, to fit what "
            "is around it.",
            grid(
                [
                    card(clip(varied, "The recording", span_s)),
                    *clip_cards(folder / "inpainted_audio", "Made anew within the marks", span_s),
                ]
            ),
        ),
        section(
            "Blends",
            f"{first} and {second} mixed as latents, by the share of the second: along a line "
            "(lerp), along a great circle (slerp), and their mean, as it is and stretched to the "
            "length that latents have.",
            *blend_cards(folder / "blends"),
        ),
        section(
            "Reconstructions",
            "Each recording, and what comes back from its latents. What is missing here, nothing "
            "generated can have.",
            grid(
                (
                    card(
                        clip(recordings / name, "recording"),
                        clip(folder / "reconstructions" / name, "reconstruction"),
                        title=Path(name).stem + notes.get(name, ""),
                    )
                    for name in journal["recordings"]
                ),
                "pairs",
            ),
        ),
    ]
    return parts


def figures_of(journal: dict[str, Any], curves: Curves) -> dict[str, str]:
    """Return the figures at the top of the page."""
    seconds = sum(entry["seconds"] for entry in journal["commands"])
    figures = {
        "recordings": f"{len(journal['recordings'])}",
        "everything took": f"{seconds:.0f} s",
        "seed": f"{journal['seed']}",
    }
    if CODEC_DECIBELS in curves:
        distance_db = curves[CODEC_DECIBELS][-1][1]
        figures[report_models.CROPS.lower()] = f"{distance_db:.1f} dB"
    if SKILL in curves:
        figures["diffusion skill"] = signed(curves[SKILL][-1][1])
    return figures


def write_report(folder: Path) -> Path:
    """Write report.html into a demo folder and return its path.

    Raises:
        ValueError: If the folder is not a finished demo.
    """
    journal = read_json(folder / JOURNAL, "a demo folder")
    models = folder / journal["models"]
    curves = report_models.read_curves_of(models)
    told = f"{INTRODUCTION} {SYNTHESIZED}" if journal["is_synthesized"] else INTRODUCTION
    credit = report_models.credit(models)
    write_page(
        folder / REPORT,
        TITLE,
        f'<p class="lead">{escape(told)}</p>{key_figures(figures_of(journal, curves))}',
        [
            *listening(folder, journal),
            report_models.ladder(models),
            report_models.training(curves),
            report_models.latents(folder, models, journal["varied"]),
            commands(journal),
            f"<section><h2>Whose music</h2>{credit}</section>" if credit else "",
        ],
        "Made by rave-diffwave (Apache-2.0).",
    )
    return folder / REPORT


if __name__ == "__main__":
    sys.exit(report_program(write_report, "report.py", "demo-output"))
