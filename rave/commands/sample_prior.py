"""`rave sample_prior`: new latents from an autoregressive prior."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import CODEC, add_device, add_seed, command_parser, keywords
from rave.parsing import existing


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave sample_prior`."""
    options = command_parser(
        "rave sample_prior",
        "Generate latents with a prior of `rave train_prior`. `rave decode` turns them into audio.",
        "rave sample_prior runs/prior generated --count 4 --seconds 20 --temperature 0.9",
    )
    options.add_argument(
        "run",
        type=existing("a run of `rave train_prior`, ours or acids-rave's"),
        metavar="RUN",
        help="run of `rave train_prior`, ours or acids-rave's",
    )
    options.add_argument(
        "--codec",
        type=existing(CODEC),
        help="with a prior of acids-rave: the codec run whose latents it was trained on",
    )
    options.add_argument("out", type=Path, metavar="OUT_LATENTS_DIR", help="folder to write")
    options.add_argument("--count", type=int, default=4, help="clips to generate (default 4)")
    options.add_argument(
        "--seconds", type=float, default=10.0, help="length of each clip (default 10)"
    )
    options.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="sampling temperature: below 1 likelier values, 0 only the likeliest, above 1 less "
        "likely ones (default 1)",
    )
    options.add_argument("--force", action="store_true", help="replace clips generated before")
    add_seed(options)
    add_device(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Sample and write a latent folder."""
    from rave.api.sample_prior import sample_prior

    return sample_prior(**keywords(options))
