"""`rave train`: train an autoencoder on prepared audio."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.api.train import DATA, train_codec
from rave.cli import RAVE_RUN, add_training, command_parser, keywords
from rave.parsing import existing
from rave.runs.recipes import list_options, list_recipes


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave train`."""
    parser = command_parser(
        "rave train",
        "Train an autoencoder. The same command again resumes where the last checkpoint stopped.",
        "rave train prepared --config tiny --out runs/piano --set MAX_STEPS=7000",
    )
    data = parser.add_argument("data", metavar="DATA", help=f"prepared audio: {DATA}")
    config = parser.add_argument(
        "--config",
        metavar="RECIPE",
        help=f"one of {', '.join(list_recipes('rave'))}; plus options, e.g. v2+causal+noise, from "
        f"{', '.join(list_options('rave'))}; or a .gin file (default v2)",
    )
    # argcomplete's attribute, which argparse's actions do not declare.
    data.completer = config.completer = _recipes_and_files  # type: ignore[attr-defined]
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    parser.add_argument(
        "--data",
        dest="data_of_recipe",
        type=existing(DATA),
        metavar="DATA",
        help="old form of the command: rave train RECIPE --data DATA --out RUN",
    )
    parser.add_argument(
        "--initialise-from",
        type=existing(RAVE_RUN),
        metavar="RUN",
        help="start a new run from the weights of this run of `rave train` or acids-rave; the "
        "recipe must have the same sizes (default: random weights)",
    )
    add_training(parser)
    return parser


def _recipes_and_files(prefix: str, **_: object) -> list[str]:
    """Complete an argument that is a recipe or a path."""
    from argcomplete.completers import FilesCompleter

    return [*list_recipes("rave"), *FilesCompleter()(prefix)]


def run(options: argparse.Namespace) -> Result:
    """Train, and report the last validation."""
    data, config = options.data, options.config or "v2"
    if options.data_of_recipe is not None:
        if options.config is not None:
            raise ValueError(
                f"Two recipes were given, '{data}' and --config {config}. "
                "Write: rave train DATA --config RECIPE --out RUN."
            )
        data, config = options.data_of_recipe, data
    elif not Path(data).exists() and data.partition("+")[0] in list_recipes("rave"):
        raise ValueError(f"'{data}' is a recipe. Write: rave train DATA --config {data} --out RUN.")
    arguments = keywords(options, data=data, config=config)
    del arguments["data_of_recipe"]
    return train_codec(**arguments)
