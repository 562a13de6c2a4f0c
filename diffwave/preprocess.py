"""`python -m diffwave.preprocess`: spectrograms aligned to the frames of a latent folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rave.command import Result, command_parser, execute

JOURNAL_NAME = ".preprocess.jsonl"


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.preprocess",
        "Make log-mel spectrograms of the audio that latents were encoded from, for a model that "
        "follows them.\nThe same command again continues, and takes in what was added or changed.",
        "python -m diffwave.preprocess latents recordings spectrograms",
    )
    options.add_argument("latents", type=Path, metavar="LATENTS_DIR", help="what rave encode wrote")
    options.add_argument("audio", type=Path, metavar="AUDIO_DIR", help="what it encoded")
    options.add_argument("out", type=Path, metavar="SPECTROGRAMS_DIR", help="folder to make")
    options.add_argument(
        "--mel-hop",
        type=int,
        default=256,
        help="samples between frames; must divide the hop of the latents (default 256)",
    )
    options.add_argument("--mels", type=int, default=80, help="mel bands (default 80)")
    options.add_argument(
        "--force", action="store_true", help="make the folder anew if its settings differ"
    )
    return options


def run(options: argparse.Namespace) -> Result:
    """Make the spectrograms and report what became of every file."""
    from diffwave.conditioner import whole_ratio
    from diffwave.spectrogram import LogMel, SpectrogramHeader, write_spectrogram
    from rave.batch import process_files
    from rave.files import Journal, check_output_folder, remove_partials
    from rave.latents import LatentHeader

    header = LatentHeader.read(options.latents)
    ratio = whole_ratio(header.hop_samples, options.mel_hop)
    if options.mels < 1:
        raise ValueError(f"--mels is {options.mels}; at least 1 is needed.")
    if not options.audio.is_dir():
        raise ValueError(f"'{options.audio}' is not a folder. Give the folder that was encoded.")
    num_frames = {file.path: file.num_frames for file in header.files}
    sources = {file.path: options.audio / file.source for file in header.files if file.source}
    if not sources:
        raise ValueError(f"'{options.latents}' holds no latents that were encoded from audio.")
    check_output_folder(options.out, options.audio)
    check_output_folder(options.out, options.latents)
    transform = LogMel(header.sample_rate_hz, options.mel_hop, options.mels)
    settings = {
        "codec": header.codec,
        "sample_rate_hz": header.sample_rate_hz,
        "hop_samples": header.hop_samples,
        "mel_hop_samples": options.mel_hop,
        "num_mels": options.mels,
    }
    journal = Journal(options.out / JOURNAL_NAME, settings, force=options.force)
    remove_partials(options.out)

    def work(name: str, source: Path) -> dict[str, Any]:
        num_mel_frames = num_frames[name] * ratio
        write_spectrogram(
            options.out / name, source, transform, header.sample_rate_hz, num_mel_frames
        )
        return {"num_frames": num_frames[name]}

    report = process_files(sources, work, lambda name: options.out / name, journal, "Spectrograms")
    if not report.records:
        raise ValueError(
            f"No file of '{options.audio}' can be used. {report.summary('Made spectrograms of')}"
        )
    files = {name: record["num_frames"] for name, record in report.records.items()}
    SpectrogramHeader(**settings, files=files, skipped=report.skipped).write(options.out)
    figures = {
        "folder": str(options.out),
        "num_mels": options.mels,
        "mel_frames_per_latent_frame": ratio,
        **report.figures,
    }
    return Result(report.summary("Made spectrograms of"), figures, len(report.skipped))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
