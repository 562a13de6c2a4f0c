# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.train`: train a diffusion model on a folder of latents."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffwave.api.train import train_diffusion
from rave.api.result import Result
from rave.cli import add_training, command_parser, execute, keywords
from rave.latents.storage import latents_place
from rave.parsing import existing
from rave.runs.recipes import list_recipes


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.train",
        "Train a diffusion model on the latents that `rave encode` wrote. The same command again "
        "resumes.",
        "python -m diffwave.train latents --out runs/piano --set MAX_STEPS=5000",
    )
    options.add_argument(
        "latents",
        type=latents_place,
        metavar="LATENTS",
        help="folder of rave encode or rave shard, or an address such as s3://bucket/set",
    )
    options.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="run folder to write"
    )
    options.add_argument(
        "--config",
        default="default",
        metavar="RECIPE",
        help=f"{', '.join(list_recipes('diffwave'))}, or a .gin file (default default)",
    )
    options.add_argument(
        "--spectrograms",
        type=existing("a folder of diffwave.preprocess"),
        metavar="DIR",
        help="folder of diffwave.preprocess, for a model that follows spectrograms",
    )
    options.add_argument(
        "--controls",
        type=str,
        nargs="+",
        metavar=("DIR", "NAME"),
        help="folder of diffwave.preprocess --controls, for a model that follows all its controls "
        "or the named ones",
    )
    options.add_argument(
        "--labels",
        action="store_true",
        help="follow class labels: the names of the top folders in LATENTS",
    )
    add_training(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Train, and report what was learnt."""
    controls, *names = options.controls or [None]
    return train_diffusion(**keywords(options, controls=controls, control_names=names))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
