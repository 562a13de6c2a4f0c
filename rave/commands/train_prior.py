"""`rave train_prior`: train an autoregressive prior on latents."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.api.train_prior import train_prior
from rave.cli import add_training, command_parser, keywords
from rave.latents.storage import latents_place


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave train_prior`."""
    options = command_parser(
        "rave train_prior",
        "Train an autoregressive prior on latents; `rave sample_prior` generates new latents with "
        "it.\nThe same command again resumes from the last checkpoint.",
        "rave train_prior latents --out runs/prior --set MAX_STEPS=5000",
    )
    options.add_argument(
        "latents",
        type=latents_place,
        metavar="LATENTS",
        help="folder that `rave encode` or `rave shard` wrote, or an address such as s3://bucket/set",
    )
    options.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    options.add_argument(
        "--config",
        default="prior/default",
        metavar="RECIPE",
        help="prior/default: as large as acids-rave's, for a GPU (default); prior/tiny: minutes "
        "on a CPU; or a .gin file",
    )
    add_training(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Train, and report the held-out loss."""
    return train_prior(**keywords(options))
