"""`rave encode`: a folder of audio → a folder of latents."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import (
    AUDIO_FOLDER,
    CODEC,
    add_backend,
    add_device,
    add_engine,
    add_level,
    add_seed,
    add_weights,
    command_parser,
    keywords,
    open_engine,
)
from rave.parsing import existing


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave encode`."""
    parser = command_parser(
        "rave encode",
        "Write the latents of every audio file: one .npy per file, and latents.json. "
        "Files that are already encoded and unchanged are skipped.",
        "rave encode runs/piano recordings latents",
    )
    parser.add_argument(
        "codec",
        type=existing(CODEC),
        help="run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only "
        "files you trust)",
    )
    parser.add_argument("audio_dir", type=existing(AUDIO_FOLDER), help="folder of audio files")
    parser.add_argument("latents_dir", type=Path, help="folder to write")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="draw from the posterior instead of writing its mean (not for training a diffusion "
        "model: collapsed dimensions turn to white noise)",
    )
    add_level(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace latents made with other settings"
    )
    add_weights(parser)
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    add_engine(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Encode, and report figures of the latents."""
    from rave.api.encode import encode_folder

    engine = open_engine(options.engine, options.address, options.cpus_per_worker, options.device)
    return encode_folder(**keywords(options, engine=engine))
