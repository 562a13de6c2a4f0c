# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.export`: a run → a .ts file for nn~, or a run of patched lmnt diffwave."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rave.api.result import Result
from rave.cli import CODEC, DIFFUSION_RUN, command_parser, execute, keywords
from rave.parsing import existing, one_of


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.export",
        "Write a trained diffusion model with its codec as TorchScript for nn~ (Max, PureData, "
        "SuperCollider):\nits method sample plays endless music. Or write weights.pt and "
        "latents.json for lmnt diffwave with the\npatches of this project: it can generate with "
        "the model, or train it further with a new optimizer.",
        "python -m diffwave.export runs/piano living_22050.ts --codec runs/rave\n"
        "  python -m diffwave.export runs/piano lmnt-piano",
    )
    options.add_argument("run", type=existing(DIFFUSION_RUN), metavar="RUN", help=DIFFUSION_RUN)
    options.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="file to write for nn~ (name.ts), or folder for lmnt diffwave",
    )
    options.add_argument("--force", action="store_true", help="replace an earlier export")
    live = options.add_argument_group("for nn~")
    live.add_argument(
        "--codec",
        type=existing(CODEC),
        help="codec of the run's latents: a run of `rave train` or of acids-rave, or a .ts of "
        "acids-rave (it runs code: open only files you trust)",
    )
    live.add_argument(
        "--ema",
        action="store_true",
        help="use the averaged weights, if the codec is a run of acids-rave",
    )
    live.add_argument("--steps", type=int, help="sampling steps (default 8)")
    live.add_argument(
        "--sampler",
        **one_of("sampler for nn~", ("dpm-solver++", "ddim")),
        help="sampler (default dpm-solver++)",
    )
    live.add_argument(
        "--window",
        type=float,
        metavar="S",
        help="seconds sampled at a time; with conditions, this adds to the latency (default two "
        "receptive fields, at least 64 latent frames)",
    )
    live.add_argument(
        "--noise-seed",
        type=int,
        metavar="SEED",
        help="random seed, 0 or more, for the same music each time (default: new music each time)",
    )
    live.add_argument(
        "--host-rate",
        type=int,
        metavar="HZ",
        help="sample rate of the host, twice or four times the codec's (default: the codec's)",
    )
    return options


def run(options: argparse.Namespace) -> Result:
    """Write the file or the folder, and report its content."""
    from diffwave.api.export import export_run

    return export_run(**keywords(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
