"""Make report.html of a demo that trained: one page, readable without a network.

python scripts/report_train.py demo-train-output
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from demo_walk import JOURNAL, REPORT
from numpy.typing import NDArray
from report_html import (
    blend_cards,
    card,
    clip,
    clip_cards,
    commands,
    grid,
    key_figures,
    picture_figure,
    plot_figure,
    report_program,
    scroll_table,
    section,
    signed,
    spectrogram_scale,
    write_page,
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

from rave.evaluation.audio_statistics import measure
from rave.files.atomic import read_json
from rave.latent_dataset import LatentDataset

# Of the diffusion model; its figures lie beside it.
DIAGNOSIS = Path("runs/diffwave/diagnosis/diagnosis.png")
REFERENCES = ("zero", "white", "gaussian")
MAX_PAIRS = 4

INTRODUCTION = (
    "A RAVE autoencoder learned to turn these recordings into latents and back; a DiffWave "
    "diffusion model learned what such latents look like and made new ones out of noise; the "
    "autoencoder made them audible. All of it was computed here, by the commands at the end."
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
    generated = clip_cards(folder / "generated_audio", "Out of noise")
    followed = card(clip(folder / "audio" / journal["followed"], "The recording to follow"))
    following = clip_cards(folder / "generated_conditioned_audio", "After it")
    return "".join(
        [
            section(
                "Reconstructions",
                "Recordings that training never saw, and what comes back from their latents. "
                "Whatever is missing here, nothing generated can have.",
                spectrogram_scale(),
                grid(pairs, "pairs"),
            ),
            section(
                "Generated",
                "New music: latents that the diffusion model made out of noise, decoded.",
                grid(generated),
            ),
            section(
                "Generated after a recording",
                "The same model, following the spectrogram of a recording that it has not seen.",
                grid([followed, *following]),
            ),
            section(
                "Blends",
                "Two recordings mixed as latents, by the share of the second: along a line (lerp), "
                "along a great circle (slerp), and their mean, as it is and stretched to the "
                "length that latents have.",
                *blend_cards(folder / "interpolation"),
            ),
        ]
    )


def training(folder: Path, codec: Curves, diffusion: Curves) -> str:
    """Return the section with the training curves, and the diagnosis of the diffusion model."""
    references = {name: diffusion[f"{REFERENCE}{name}"][-1][1] for name in REFERENCES}
    skill = diffusion[SKILL][-1][1]
    diffusion_plot = loss_curve(
        diffusion.get(DIFFUSION_TRAIN, []),
        diffusion[DIFFUSION_HELD_OUT],
        references,
        "loss",
        "Training curve of the diffusion model, with its reference losses",
    )
    plots = codec_plot(codec) + plot_figure(
        diffusion_plot,
        f"The diffusion model. {_verdict(folder)} Skill {signed(skill)}: the share of the gaussian "
        "loss that is gone; "
        "0 is no better than the best linear denoiser, 1 is perfect, below 0 is worse. "
        "The model sees the spectrogram, the references do not.",
    )
    return section(
        "Training",
        "A loss alone says little. Zero is the loss of predicting nothing, white that of the best "
        "guess if latents were white noise, gaussian that of the best linear denoiser.",
        grid([plots], "plots"),
        picture_figure(folder / DIAGNOSIS, _findings(folder)),
    )


def _verdict(folder: Path) -> str:
    """Return what the training said of its held-out loss."""
    path = folder / "runs" / "diffwave" / "skill.json"
    return str(read_json(path, "a run")["verdict"]) if path.exists() else ""


def _findings(folder: Path) -> str:
    """Return what the diagnosis of the diffusion model has found, in a line."""
    record = read_json((folder / DIAGNOSIS).with_suffix(".json"), "a diagnosis")
    names = [finding["name"] for finding in record["findings"]]
    told = f"found: {', '.join(names)}" if names else "none of the ten known failures shows"
    return (
        f"Diagnosis of the diffusion model: {told}. Magnitudes by block; what is learned, and how "
        "much the condition counts, at each noise level; what it does when told a wrong timestep; "
        "levels while sampling; generated latents beside real ones."
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
    plots = plot_figure(
        profile, "Each dimension's mean and std, and how far its most extreme frame lies."
    ) + plot_figure(
        histogram,
        f"{int(kept.sum())} of {len(kept)} dimensions, each standardized by the real ones.",
    )
    return section(
        "Latents",
        f"The recordings' latents carry {statistics.information.sum():.1f} nats a frame in "
        f"{int(is_informative.sum())} informative dimensions of {len(is_informative)}, at "
        f"{LatentDataset(folder / 'latents').header.frame_rate_hz:.1f} frames a second.",
        grid([plots], "plots"),
        table(folder, centre, spread, kept),
    )


def table(folder: Path, centre: NDArray[Any], spread: NDArray[Any], kept: NDArray[Any]) -> str:
    """Return a table that compares real and generated audio and latents."""
    heads = (
        "",
        "clips",
        "level dBFS",
        "centroid Hz",
        "flatness",
        "latents' mean",
        "latents' std",
        "largest",
    )
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
            signed(means["level_dbfs"], 1),
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
    return scroll_table(
        "Means over files. Latents in std of the recordings': how far the dimensions' "
        "means lie from theirs, the spread, and the largest value.",
        heads,
        rows,
    )


def figures_of(folder: Path, journal: dict[str, Any], codec: Curves, diffusion: Curves) -> str:
    """Return the figures at the top of the page."""
    durations = [soundfile.info(path).duration for path in (folder / "audio").rglob("*.wav")]
    header = LatentDataset(folder / "latents").header
    informative = int(header.statistics.is_informative.sum())
    seconds = sum(entry["seconds"] for entry in journal["commands"])
    figures = {
        "recordings": f"{len(durations)}, {sum(durations) / 60:.1f} min",
        "everything took": f"{seconds / 60:.1f} min",
        "informative dimensions": f"{informative} of {header.latent_size}",
        CROPS.lower(): f"{codec[CODEC_DECIBELS][-1][1]:.1f} dB",
        "diffusion skill": signed(diffusion[SKILL][-1][1]),
        "seed": f"{journal['seed']}",
    }
    return key_figures(figures)


def write_report(folder: Path) -> Path:
    """Write report.html into a demo folder and return its path.

    Raises:
        ValueError: If the folder is not a finished demo.
    """
    journal = read_json(folder / JOURNAL, "a demo folder")
    codec, diffusion = (read_curves(folder / "runs" / name) for name in ("rave", "diffwave"))
    figures = figures_of(folder, journal, codec, diffusion)
    write_page(
        folder / REPORT,
        "New music from a latent space",
        f'<p class="lead">{escape(INTRODUCTION)}</p>{figures}',
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
