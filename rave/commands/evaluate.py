"""`rave evaluate`: how far a folder of audio is from a folder of recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import AUDIO_FOLDER, add_seed, command_parser, keywords
from rave.parsing import existing

SAMPLE_RATE_HZ = 22050


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave evaluate`."""
    parser = command_parser(
        "rave evaluate",
        "Report how far audio is from reference recordings: Fréchet distance of the embeddings of "
        "a network that\ntags music (musicnn, works offline), and distances of spectra, onsets, "
        "harmony, loudness and notes.\nFiles with the same name (whatever the suffix) are also "
        "compared one by one, over their first 10 minutes:\nlog-spectral distance (mean over STFTs "
        "of size 2048, 1024, 512 and 256; floor 60 dB below the loudest bin),\nlevel difference, "
        "and F1 of notes and frames.",
        "rave evaluate recordings reconstructions --out evaluation.json",
    )
    parser.add_argument(
        "reference_dir", type=existing(AUDIO_FOLDER), help="folder of real audio, any format"
    )
    parser.add_argument("audio_dir", type=existing(AUDIO_FOLDER), help="folder to compare with it")
    parser.add_argument(
        "--sample-rate",
        type=int,
        default=SAMPLE_RATE_HZ,
        help="sample rate in Hz for spectra, onsets, harmony and loudness; the network always gets "
        f"16000 Hz (default {SAMPLE_RATE_HZ})",
    )
    parser.add_argument(
        "--patches",
        type=int,
        metavar="N",
        help="number of 3 s patches per set; only figures computed with the same number are "
        "comparable (default: the most that half the reference and all of the audio allow)",
    )
    parser.add_argument(
        "--only", nargs="*", metavar="NAME", help="compare only these files (names without suffix)"
    )
    parser.add_argument(
        "--follows",
        type=Path,
        metavar="FILE",
        help="recording whose loudness and chroma each file should follow",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the figures here")
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Measure both folders, and report their distances."""
    from rave.api.evaluate import evaluate_folder

    return evaluate_folder(**keywords(options))
