"""`rave generate`: audio → its reconstruction by the autoencoder; encode and decode in one."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import (
    CODEC,
    add_backend,
    add_decoding,
    add_device,
    add_level,
    add_seed,
    add_weights,
    command_parser,
    keywords,
)
from rave.parsing import existing


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave generate`."""
    parser = command_parser(
        "rave generate",
        "Write the autoencoder's reconstruction of each audio file as 16-bit WAV, with the same "
        "name, length and sample rate. Equals `rave encode` and then `rave decode`. The output "
        "folder keeps the latents in .latents, so that the same command continues. Sources are "
        "never overwritten.",
        "rave generate runs/piano recordings solo.flac reconstructions",
    )
    parser.add_argument(
        "codec",
        type=existing(CODEC),
        help="run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only "
        "files you trust)",
    )
    parser.add_argument(
        "inputs",
        type=existing("audio files, or folders of them"),
        nargs="+",
        help="audio files and folders of them",
    )
    parser.add_argument("out_audio_dir", type=Path, help="folder to write")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="draw from the posterior, as acids-rave does, instead of decoding its mean",
    )
    add_decoding(parser)
    add_level(parser)
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    add_weights(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Encode, decode, and report both."""
    from rave.api.generate import generate_audio
    from rave.latents.bending import parse_bend

    bend = parse_bend(options.shift, options.scale)
    return generate_audio(**keywords(options, shift=bend.shift, scale=bend.scale))
