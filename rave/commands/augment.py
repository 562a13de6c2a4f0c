"""`rave augment`: recordings → the same, with transposed and shifted versions of each."""

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
        "Write every recording and versions of it, named a~1.flac, a~2.flac, …, to train on more "
        "than there is:\nplayed faster or slower, begun a moment later, some upside down in "
        "polarity. Each version holds a note of which recording beside it it is one: versions are\n"
        "never held out, and never trained on where their recording is held out. The same command\n"
        "again continues.",
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
        help="one version for each: how much higher (and faster) it is; 0 only begins later "
        f"(default {' '.join(f'{each:g}' for each in SEMITONES)})",
    )
    parser.add_argument("--force", action="store_true", help="replace versions of other settings")
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Write the recordings and their versions, and report how much there is."""
    from rave.api.augment import augment_folder

    return augment_folder(**keywords(options))
