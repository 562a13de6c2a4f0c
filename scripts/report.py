"""Write report.html into a demo folder: one page that holds everything and needs no network.

python scripts/report.py demo-output
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import report_models
from demo_walk import JOURNAL, REPORT
from report_html import (
    BLENDS,
    blend_cards,
    card,
    clip,
    clip_cards,
    commands,
    report_program,
    spectrogram_scale,
)
from training_curves import CODEC_DECIBELS, SKILL, Curves

from diffwave.pages.markup import grid, paragraph, section, signed, write_page
from rave.audio.io import AudioStream
from rave.audio.sound import sound_of
from rave.files.atomic import read_json
from rave.latents.folder import LatentHeader
from rave.training_audio import brought

TITLE = "New music from a latent space"
INTRODUCTION = (
    "A diffusion model makes new latents from noise or from other latents. A RAVE autoencoder "
    "decodes them to audio. The commands at the end computed all clips here, with trained models."
)
SYNTHESIZED = (
    "The input recordings are synthesized: a computed piano that plays the first bars of three "
    "pieces by Bach, and an improvised phrase of strings and bells. The models were trained on "
    "other recordings."
)


def level_notes(folder: Path) -> dict[str, str]:
    """Return the change of level of each recording whose level was changed, by name."""
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
            "From noise",
            paragraph("Latents that the diffusion model made from noise alone, decoded."),
            spectrogram_scale(),
            grid(clip_cards(folder / "generated_audio", "Generated")),
        )
    ]
    if journal["followed"]:
        names = report_models.followed(folder / journal["models"])
        followed = card(clip(recordings / journal["followed"], "The recording to follow"))
        parts.append(
            section(
                "Following a recording",
                paragraph(
                    f"The same model follows the {names} of a recording. Everything else comes "
                    "from its training music."
                ),
                grid([followed, *clip_cards(folder / "following_audio", "Following it")]),
            )
        )
    parts += [
        section(
            "Variations",
            paragraph("A recording's latents, noised halfway and denoised."),
            grid(
                [
                    card(clip(varied, "The recording")),
                    *clip_cards(folder / "varied_audio", "Variation"),
                ]
            ),
        ),
        section(
            "Inpainting",
            paragraph(
                f"The span from {span_s[0]:g} to {span_s[1]:g} seconds is generated to fit the "
                "music around it."
            ),
            grid(
                [
                    card(clip(varied, "The recording", span_s)),
                    *clip_cards(folder / "inpainted_audio", "Inpainted between the marks", span_s),
                ]
            ),
        ),
        section(
            "Blends",
            paragraph(f"The latents of {first} and {second}. {BLENDS}"),
            *blend_cards(folder / "blends"),
        ),
        section(
            "Reconstructions",
            paragraph(
                "Each recording, and the same decoded from its latents. What is missing here is "
                "missing in all generated music."
            ),
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
        "total time": f"{seconds:.0f} s",
        "seed": f"{journal['seed']}",
    }
    if CODEC_DECIBELS in curves:
        distance_db = curves[CODEC_DECIBELS][-1][1]
        figures[report_models.CROPS.lower()] = f"{distance_db:.1f} dB"
    if SKILL in curves:
        figures["diffusion skill"] = signed(f"{curves[SKILL][-1][1]:.3f}")
    return figures


def write_report(folder: Path) -> Path:
    """Write report.html into a demo folder and return its path.

    Raises:
        ValueError: If the folder is not a finished demo.
    """
    journal = read_json(folder / JOURNAL, "a demo folder")
    models = folder / journal["models"]
    curves = report_models.read_curves_of(models)
    credit = report_models.credit(models)
    write_page(
        folder / REPORT,
        TITLE,
        f"{INTRODUCTION} {SYNTHESIZED}" if journal["is_synthesized"] else INTRODUCTION,
        figures_of(journal, curves),
        [
            *listening(folder, journal),
            report_models.notes(folder, journal["recordings"], journal["followed"])
            if journal["followed"]
            else "",
            report_models.ladder(models),
            report_models.training(curves),
            report_models.latents(folder, models, journal["varied"]),
            commands(journal),
            section("Whose music", *credit) if credit else "",
        ],
        "Made by rave-diffwave (Apache-2.0).",
    )
    return folder / REPORT


if __name__ == "__main__":
    sys.exit(report_program(write_report, "report.py", "demo-output"))
