"""`rave augment`: recordings → the recordings and transposed, shifted versions of each."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import AUDIO_FOLDER, add_seed, command_parser, keywords
from rave.parsing import existing

SEMITONES = (-2.0, -1.0, 0.0, 0.0, 1.0, 2.0)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser(
        "rave augment",
        "Copy every recording, and write transposed and shifted versions of it (a~1.flac, "
        "a~2.flac, …) as extra\ntraining data. A version plays faster or slower, starts a moment "
        "later, and may have inverted polarity.\nIt stores the name of its recording: versions are "
        "never held out, and are not trained on where their\nrecording is held out. The same "
        "command again continues.",
        "rave augment recordings augmented --semitones -1 0 1",
    )
    parser.add_argument(
        "audio_dir",
        type=existing(AUDIO_FOLDER),
        metavar="AUDIO_DIR",
        help="folder of audio of any format",
    )
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="folder to write")
    parser.add_argument(
        "--semitones",
        type=float,
        nargs="+",
        default=list(SEMITONES),
        metavar="N",
        help="one version per value: semitones up (and faster); 0 only shifts the start "
        f"(default {' '.join(f'{each:g}' for each in SEMITONES)})",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace versions made with other settings"
    )
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Write the recordings and their versions, and report their duration."""
    from rave.api.augment import augment_folder

    return augment_folder(**keywords(options))
