# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.diagnose`: diagnose latents before a training, or a trained run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rave.api.result import Result
from rave.cli import CODEC, add_device, add_seed, command_parser, execute, keywords
from rave.parsing import existing
from rave.runs.recipes import list_recipes

LATENTS_OR_RUN = "a folder that rave encode, diffwave.inference or diffwave.train wrote"


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.diagnose",
        "Report whether latents can be learned, before any training; or what a run has learned,\n"
        "and which of the known failures it has (docs/diagnosis.md). Findings are no error: the "
        "exit code is 0.",
        "python -m diffwave.diagnose latents\n"
        "  python -m diffwave.diagnose runs/diffusion --codec runs/rave",
    )
    options.add_argument(
        "path",
        type=existing(LATENTS_OR_RUN),
        metavar="LATENTS_DIR|RUN",
        help=LATENTS_OR_RUN,
    )
    options.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for diagnosis.json and diagnosis.png (default RUN/diagnosis; for latents: "
        "none)",
    )
    latents = options.add_argument_group("for latents")
    latents.add_argument(
        "--config",
        metavar="RECIPE",
        help=f"recipe of the planned training: {', '.join(list_recipes('diffwave'))}, or a .gin "
        "file (default default)",
    )
    latents.add_argument(
        "--set",
        dest="settings",
        action="append",
        metavar="NAME=VALUE",
        help="change a value of the recipe, e.g. FIDELITY=0.9 (may be repeated)",
    )
    runs = options.add_argument_group("for a run")
    for name in ("latents", "spectrograms", "controls"):
        runs.add_argument(
            f"--{name}",
            type=existing("a folder that diffwave.preprocess or rave encode wrote"),
            metavar="DIR",
            help=f"{name} that it was trained on, if they have moved",
        )
    runs.add_argument(
        "--codec",
        type=existing(CODEC),
        metavar="RUN",
        help="run of rave train, or .ts file: report whether generated latents decode to silence, "
        "and whether what follows a recording has its notes",
    )
    add_seed(options)
    add_device(options)
    options.set_defaults(seed=None, device=None)  # so that latents can refuse them
    return options


def run(options: argparse.Namespace) -> Result:
    """Diagnose latents or a run, and write the figures."""
    from diffwave.api.diagnose import diagnose_folder

    return diagnose_folder(**keywords(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
