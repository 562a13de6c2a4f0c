# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.evaluate`: measure how good the generated music is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rave.api.result import Result
from rave.cli import (
    AUDIO_FOLDER,
    CODEC,
    DIFFUSION_RUN,
    LATENTS,
    add_device,
    add_seed,
    command_parser,
    execute,
    keywords,
)
from rave.parsing import existing

PROG = "python -m diffwave.evaluate"


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        PROG,
        "Measure how far generated music is from the recordings that a run was trained on, on a "
        "ladder: held-out\nrecordings, the codec's reconstructions of them, generated music, "
        "Gaussian latents, noise; all of the\nsame length. Also report which notes are kept, the "
        "spread over seeds, diversity, and whether training\nmusic is copied (docs/evaluation.md).",
        f"{PROG} runs/diffusion latents recordings --codec runs/rave",
    )
    options.add_argument("run", type=existing(DIFFUSION_RUN), metavar="RUN", help=DIFFUSION_RUN)
    options.add_argument(
        "latents_dir",
        type=existing(LATENTS),
        metavar="LATENTS_DIR",
        help="latents that the run was trained on",
    )
    options.add_argument(
        "audio_dir",
        type=existing(AUDIO_FOLDER),
        metavar="AUDIO_DIR",
        help="recordings that these latents were encoded from",
    )
    options.add_argument(
        "--codec",
        type=existing(CODEC),
        required=True,
        metavar="RUN",
        help="run of rave train, or a .ts file (it runs code: open only files you trust)",
    )
    options.add_argument("--count", type=int, default=10, help="clips per rung (default 10)")
    options.add_argument(
        "--seconds", type=float, default=24.0, help="length of a clip in seconds (default 24)"
    )
    options.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="number of sets of generated clips; their spread is reported (default 3)",
    )
    options.add_argument(
        "--patches",
        type=int,
        metavar="N",
        help="number of 3 s patches per distance; only figures computed with the same number are "
        "comparable (default: all patches of a rung)",
    )
    options.add_argument("--steps", type=int, default=50, help="sampling steps (default 50)")
    options.add_argument(
        "--guidance",
        action="append",
        default=[],
        metavar="[NAME=]SCALE",
        help="guidance scale of all conditions, or of one (may be repeated)",
    )
    for name in ("spectrograms", "controls"):
        options.add_argument(
            f"--{name}",
            type=existing("a folder of diffwave.preprocess"),
            metavar="DIR",
            help=f"{name} that the run was trained on, if they have moved",
        )
    options.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for evaluation.json and ladder.png (default RUN/evaluation)",
    )
    add_seed(options)
    add_device(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Measure the ladder, write figures and picture, and report the result."""
    from diffwave.api.evaluate import evaluate_run

    return evaluate_run(**keywords(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
