"""`python -m diffwave`: list the programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rave.parsing import add_version

PROGRAMS = {
    "preprocess": "make spectrograms or controls for a model to follow",
    "train": "train a diffusion model on latents",
    "inference": "generate latents, or edit existing ones",
    "vocode": "generate audio with a waveform run of lmnt diffwave, or make spectrograms for it",
    "evaluate": "measure how far generated music is from recordings",
    "diagnose": "report what can be learned from latents, or what a run has learned",
    "export": "write a run for nn~, or for the patched lmnt diffwave",
    "experiments": "repeat the experiments of the research diary on your latents",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """List the programs, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m diffwave",
        usage="python -m diffwave.PROGRAM …    (python -m diffwave.PROGRAM --help shows more)",
        epilog="\n".join(f"  {name:12} {what}" for name, what in PROGRAMS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser)
    parser.parse_args(arguments)
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
