# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.preprocess`: spectrograms or controls aligned to the latent frames."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rave.api.result import Result
from rave.cli import command_parser, execute, keywords


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.preprocess",
        "Make what a model can follow, from the audio that was encoded: log-mel spectrograms, or "
        "controls that\none can play or draw. The same command again continues, and adds new and "
        "changed files.",
        "python -m diffwave.preprocess latents recordings spectrograms\n"
        "  python -m diffwave.preprocess latents recordings controls --controls loudness chroma",
    )
    for name, what in (
        ("latents_dir", "folder of rave encode"),
        ("audio_dir", "folder of the audio that was encoded"),
        ("out_dir", "folder to make"),
    ):
        options.add_argument(name, type=Path, metavar=name.upper(), help=what)
    options.add_argument(
        "--controls",
        nargs="*",
        metavar="NAME",
        help="make controls instead of spectrograms: loudness, chroma, onsets (default all three); "
        "a later call may add one",
    )
    options.add_argument(
        "--mel-hop",
        type=int,
        default=256,
        help="samples between frames; must divide the hop of the latents (default 256)",
    )
    options.add_argument("--mels", type=int, default=80, help="mel bands (default 80)")
    options.add_argument(
        "--force", action="store_true", help="replace a folder made with other settings"
    )
    return options


def run(options: argparse.Namespace) -> Result:
    """Make the folder, and report the files."""
    from diffwave.api.preprocess import make_conditions

    return make_conditions(**keywords(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
