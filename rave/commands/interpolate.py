"""`rave interpolate`: blend recordings in the latent space."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import (
    CODEC,
    add_backend,
    add_device,
    add_level,
    add_seed,
    add_weights,
    command_parser,
    keywords,
)
from rave.parsing import existing


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave interpolate`."""
    parser = command_parser(
        "rave interpolate",
        "Blend recordings in the latent space. Two recordings: N steps along a line (lerp) and "
        "along a great circle (slerp). Two or more: their mean, plain and rescaled to the length "
        "of their latents. All are cut to the shortest.",
        "rave interpolate runs/piano a.wav b.wav blends --steps 5",
    )
    parser.add_argument(
        "codec",
        type=existing(CODEC),
        help="run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only "
        "files you trust)",
    )
    parser.add_argument(
        "audio", type=existing("audio files"), nargs="+", help="two or more audio files"
    )
    parser.add_argument("out_dir", type=Path, help="folder to write; must be empty or new")
    parser.add_argument(
        "--steps", type=int, default=5, help="number of blends from A to B (default 5)"
    )
    parser.add_argument(
        "--weight",
        type=float,
        metavar="W",
        help="with two recordings: write only the blends at W (0: all A, 1: all B)",
    )
    add_level(parser)
    parser.add_argument("--force", action="store_true", help="replace files in the folder")
    add_weights(parser)
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Blend, and report latent length and audio level per blend."""
    from rave.api.interpolate import interpolate_audio

    return interpolate_audio(**keywords(options))
