"""`rave decode`: a folder of latents → a folder of audio of the same names, lengths and rates."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import (
    CODEC,
    LATENTS,
    add_backend,
    add_decoding,
    add_device,
    add_engine,
    add_seed,
    add_weights,
    command_parser,
    keywords,
    open_engine,
)
from rave.parsing import existing


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave decode`."""
    parser = command_parser(
        "rave decode",
        "Write the audio of every latent file as 16-bit WAV, with the name, length and sample rate "
        "of the audio it was encoded from.",
        "rave decode runs/piano latents reconstructions",
    )
    parser.add_argument(
        "codec",
        type=existing(CODEC),
        help="run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only "
        "files you trust)",
    )
    parser.add_argument("latents_dir", type=existing(LATENTS), help="folder of latents")
    parser.add_argument("out_audio_dir", type=Path, help="folder to write")
    add_decoding(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace audio made with other settings"
    )
    add_weights(parser)
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    add_engine(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Decode, and report levels and anything that looks wrong."""
    from rave.api.decode import decode_folder
    from rave.latents.bending import parse_bend

    bend = parse_bend(options.shift, options.scale)
    engine = open_engine(options.engine, options.address, options.cpus_per_worker, options.device)
    return decode_folder(**keywords(options, shift=bend.shift, scale=bend.scale, engine=engine))
