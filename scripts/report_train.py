"""Write report.html into the folder of a demo that trained: one page that needs no network.

python scripts/report_train.py demo-train-output
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from demo_walk import JOURNAL, REPORT
from numpy.typing import NDArray
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
from report_models import CROPS, codec_plot
from report_plots import latent_histogram, latent_profile, loss_curve
from training_curves import (
    CODEC_DECIBELS,
    DIFFUSION_HELD_OUT,
    DIFFUSION_TRAIN,
    REFERENCE,
    SKILL,
    Curves,
    read_curves,
)

from diffwave.pages.markup import (
    figure,
    grid,
    image,
    paragraph,
    section,
    signed,
    table,
    write_page,
)
from rave.evaluation.audio_statistics import measure
from rave.files.atomic import read_json
from rave.latent_dataset import LatentDataset

# Of the diffusion model; its figures lie beside it.
DIAGNOSIS = Path("runs/diffwave/diagnosis/diagnosis.png")
REFERENCES = ("zero", "white", "gaussian")
MAX_PAIRS = 4

INTRODUCTION = (
    "A RAVE autoencoder learned to turn these recordings into latents and back. A DiffWave "
    "diffusion model learned the distribution of the latents and made new ones from noise. The "
    "autoencoder decoded them to audio. The commands at the end computed all of it here."
)


@dataclass(frozen=True)
class Group:
    """Audio of one kind, for the table: its name, its folder, and the folder of its latents."""

    name: str
    audio: str
    latents: str | None


GROUPS = (
    Group("recordings", "audio", "latents"),
    Group("reconstructions", "reconstructions", None),
    Group("generated", "generated_audio", "generated"),
    Group("generated, following", "generated_conditioned_audio", "generated_conditioned"),
)


def read_all_latents(folder: Path) -> NDArray[Any]:
    """Return all clips of a latent folder joined, (D, N)."""
    dataset = LatentDataset(folder)
    return np.concatenate([dataset.array(index) for index in range(len(dataset))], axis=1)


def listening(folder: Path, journal: dict[str, Any]) -> str:
    """Return the sections with players."""
    pairs = [
        card(
            clip(folder / "audio" / name, "recording"),
            clip(folder / "reconstructions" / name, "reconstruction"),
            title=Path(name).stem,
        )
        for name in journal["held_out"][:MAX_PAIRS]
    ]
    generated = clip_cards(folder / "generated_audio", "From noise")
    followed = card(clip(folder / "audio" / journal["followed"], "The recording to follow"))
    following = clip_cards(folder / "generated_conditioned_audio", "Following it")
    return "".join(
        [
            section(
                "Reconstructions",
                paragraph(
                    "Recordings outside the training data, and the same decoded from their "
                    "latents. What is missing here is missing in all generated music."
                ),
                spectrogram_scale(),
                grid(pairs, "pairs"),
            ),
            section(
                "Generated",
                paragraph("Latents that the diffusion model made from noise, decoded."),
                grid(generated),
            ),
            section(
                "Following a recording",
                paragraph(
                    "The same model follows the spectrogram of a recording outside its training "
                    "data."
                ),
                grid([followed, *following]),
            ),
            section(
                "Blends",
                paragraph(f"The latents of two recordings. {BLENDS}"),
                *blend_cards(folder / "interpolation"),
            ),
        ]
    )


def training(folder: Path, codec: Curves, diffusion: Curves) -> str:
    """Return the section with the training curves, and the diagnosis of the diffusion model."""
    references = {name: diffusion[f"{REFERENCE}{name}"][-1][1] for name in REFERENCES}
    diffusion_plot = loss_curve(
        diffusion.get(DIFFUSION_TRAIN, []),
        diffusion[DIFFUSION_HELD_OUT],
        references,
        "loss",
        "Training curve of the diffusion model, with its reference losses",
    )
    skill = signed(f"{diffusion[SKILL][-1][1]:.3f}")
    diffusion_figure = figure(
        diffusion_plot,
        f"The diffusion model. {_verdict(folder)} Skill {skill}: the share by which the loss is "
        "below gaussian. 0 equals the best linear denoiser, 1 is perfect, below 0 is worse. "
        "The model sees the spectrogram; the references do not.",
    )
    findings = _findings(folder)
    return section(
        "Training",
        paragraph(
            "Reference losses give the loss a scale. Zero is the loss of predicting 0, white the "
            "best loss if latents were white noise, gaussian that of the best linear denoiser."
        ),
        grid([codec_plot(codec), diffusion_figure], "plots"),
        figure(image((folder / DIAGNOSIS).read_bytes(), findings), findings, "card wide"),
    )


def _verdict(folder: Path) -> str:
    """Return the training's verdict on its held-out loss."""
    path = folder / "runs" / "diffwave" / "skill.json"
    return str(read_json(path, "a run")["verdict"]) if path.exists() else ""


def _findings(folder: Path) -> str:
    """Return the findings of the diffusion model's diagnosis as a caption."""
    record = read_json((folder / DIAGNOSIS).with_suffix(".json"), "a diagnosis")
    names = [finding["name"] for finding in record["findings"]]
    found = f"found: {', '.join(names)}" if names else "none of the twelve known failures found"
    return (
        f"Diagnosis of the diffusion model: {found}. Magnitudes by block; skill and gain of the "
        "condition by noise level; error with a wrong timestep; levels while sampling; generated "
        "latents beside real ones."
    )


def latents(folder: Path) -> str:
    """Return the section with the statistics of latents and audio."""
    real = read_all_latents(folder / "latents")
    generated = read_all_latents(folder / "generated")
    statistics = LatentDataset(folder / "latents").header.statistics
    order = np.argsort(-statistics.information, kind="stable")
    is_informative = statistics.is_informative
    kept = is_informative if is_informative.any() else np.ones_like(is_informative)
    centre = real.mean(axis=1, keepdims=True)
    spread = np.maximum(real.std(axis=1, keepdims=True), 1e-9)
    standard_real, standard_generated = (
        ((raw - centre) / spread)[kept] for raw in (real, generated)
    )
    profile = latent_profile(
        real, generated, order, "Mean, spread and extremes of each latent dimension"
    )
    histogram = latent_histogram(
        standard_real, standard_generated, "Histogram of standardized latents"
    )
    plots = (
        figure(profile, "Mean, std and largest deviation of each dimension."),
        figure(
            histogram,
            f"{int(kept.sum())} of {len(kept)} dimensions, each standardized by the real ones.",
        ),
    )
    return section(
        "Latents",
        paragraph(
            f"The recordings' latents carry {statistics.information.sum():.1f} nats per frame in "
            f"{int(is_informative.sum())} informative dimensions of {len(is_informative)}, at "
            f"{LatentDataset(folder / 'latents').header.frame_rate_hz:.1f} frames per second."
        ),
        grid(plots, "plots"),
        _comparison(folder, centre, spread, kept),
    )


def _comparison(
    folder: Path, centre: NDArray[Any], spread: NDArray[Any], kept: NDArray[Any]
) -> str:
    """Return a table that compares real and generated audio and latents."""
    heads = ["", "clips", "level dBFS", "centroid Hz", "flatness"]
    heads += ["latents' mean", "latents' std", "largest"]
    rows = []
    for group in GROUPS:
        paths = sorted((folder / group.audio).rglob("*.wav"))
        figures = []
        for path in paths:
            audio, sample_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
            figures.append(measure(audio.mean(axis=1), sample_rate_hz).figures())
        means = {
            n: float(np.mean([f[n] for f in figures]))
            for n in ("level_dbfs", "centroid_hz", "flatness")
        }
        cells = [
            f"{len(paths)}",
            signed(f"{means['level_dbfs']:.1f}"),
            f"{means['centroid_hz']:.0f}",
            f"{means['flatness']:.3f}",
        ]
        if group.latents is None:
            cells += ["–"] * 3
        else:
            values = ((read_all_latents(folder / group.latents) - centre) / spread)[kept]
            numbers = (np.abs(values.mean(axis=1)).mean(), values.std(), np.abs(values).max())
            cells += [f"{number:.2f}" for number in numbers]
        rows.append([group.name, *cells])
    caption = (
        "Means over files. Latents in standard deviations of the recordings': mean distance of the "
        "dimensions' means from theirs, std, and largest value."
    )
    return figure(table("Real and generated", heads, rows), caption, "table")


def figures_of(
    folder: Path, journal: dict[str, Any], codec: Curves, diffusion: Curves
) -> dict[str, str]:
    """Return the figures at the top of the page."""
    durations = [soundfile.info(path).duration for path in (folder / "audio").rglob("*.wav")]
    header = LatentDataset(folder / "latents").header
    informative = int(header.statistics.is_informative.sum())
    seconds = sum(entry["seconds"] for entry in journal["commands"])
    return {
        "recordings": f"{len(durations)}, {sum(durations) / 60:.1f} min",
        "total time": f"{seconds / 60:.1f} min",
        "informative dimensions": f"{informative} of {header.latent_size}",
        CROPS.lower(): f"{codec[CODEC_DECIBELS][-1][1]:.1f} dB",
        "diffusion skill": signed(f"{diffusion[SKILL][-1][1]:.3f}"),
        "seed": f"{journal['seed']}",
    }


def write_report(folder: Path) -> Path:
    """Write report.html into a demo folder and return its path.

    Raises:
        ValueError: If the folder is not a finished demo.
    """
    journal = read_json(folder / JOURNAL, "a demo folder")
    codec, diffusion = (read_curves(folder / "runs" / name) for name in ("rave", "diffwave"))
    write_page(
        folder / REPORT,
        "New music from a latent space",
        INTRODUCTION,
        figures_of(folder, journal, codec, diffusion),
        [
            listening(folder, journal),
            training(folder, codec, diffusion),
            latents(folder),
            commands(journal),
        ],
        "Made by rave-diffwave.",
    )
    return folder / REPORT


if __name__ == "__main__":
    sys.exit(report_program(write_report, "report_train.py", "demo-train-output"))
