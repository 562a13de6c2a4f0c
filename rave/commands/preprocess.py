"""`rave preprocess`: audio files of any format → the prepared folder that training reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import AUDIO_FOLDER, add_engine, command_parser, keywords, open_engine
from rave.parsing import existing


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser(
        "rave preprocess",
        "Decode, mix and resample a folder of audio into a folder that `rave train` reads.\n"
        "The same command again continues, and updates added and changed files.",
        "rave preprocess recordings prepared --sample-rate 48000 --channels 2",
    )
    parser.add_argument(
        "audio_dir",
        type=existing(AUDIO_FOLDER),
        metavar="AUDIO_DIR",
        help="folder of audio of any format",
    )
    parser.add_argument("prepared_dir", type=Path, metavar="PREPARED_DIR", help="folder to write")
    parser.add_argument(
        "--sample-rate",
        type=int,
        default=44100,
        metavar="HZ",
        help="sample rate in Hz (default 44100; recipes small, waveform and tiny: 22050)",
    )
    parser.add_argument(
        "--channels", type=int, default=1, metavar="N", help="1 mono, 2 stereo (default 1)"
    )
    parser.add_argument(
        "--force", action="store_true", help="rebuild PREPARED_DIR if its settings differ"
    )
    add_engine(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Prepare the audio, and report the result per file."""
    from rave.api.preprocess import preprocess_folder

    engine = open_engine(options.engine, options.address, options.cpus_per_worker)
    return preprocess_folder(**keywords(options, engine=engine))
