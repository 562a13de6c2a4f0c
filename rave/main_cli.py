# PYTHON_ARGCOMPLETE_OK
"""The `rave` command: one verb for each step of the path."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from rave.cli import complete, execute
from rave.parsing import COMPLETING, EXIT_ERROR, one_line, print_version

AVAILABLE_SCRIPTS = {
    "augment": "write transposed and shifted versions of recordings, as extra training data",
    "preprocess": "turn a folder of audio into prepared audio for training",
    "train": "train an autoencoder on prepared audio",
    "encode": "turn a folder of audio into latents",
    "shard": "pack folders of latents into a few large files, for training on many clips",
    "unshard": "unpack a sharded set into a folder of latents",
    "decode": "turn a folder of latents into audio",
    "generate": "pass recordings through an autoencoder, audio to audio",
    "transcribe": "write the notes of recordings as MIDI",
    "interpolate": "blend recordings in the latent space",
    "evaluate": "measure how far audio is from reference recordings",
    "app": "play with a trained autoencoder and diffusion model in the browser",
    "train_prior": "train an autoregressive prior on latents",
    "sample_prior": "generate latents with a prior",
    "export": "write a trained autoencoder for nn~, TorchScript, ONNX or acids-rave",
}
HELP = "usage: rave COMMAND …    (rave COMMAND --help shows more; rave --version)\n\n" + "\n".join(
    f"  {name:12} {what}" for name, what in AVAILABLE_SCRIPTS.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if COMPLETING in os.environ:
        complete(_whole_parser(os.environ["COMP_LINE"].split()[1:2]))
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0 if arguments else EXIT_ERROR
    if arguments[0] == "--version":
        print_version()
        return 0
    if arguments[0] not in AVAILABLE_SCRIPTS:
        print(
            f"rave: error: there is no command '{one_line(arguments[0])}'. "
            f"Choose one of: {', '.join(AVAILABLE_SCRIPTS)}.",
            file=sys.stderr,
        )
        return EXIT_ERROR
    module = command_module(arguments[0])
    return execute(module.parser(), module.run, arguments[1:])


def command_module(name: str) -> ModuleType:
    """Return the module of a command, which has `parser()` and `run(options)`."""
    if name == "app":  # The page plays with models of both packages.
        from diffwave.app import __main__ as app

        return app
    return importlib.import_module(f"rave.commands.{name}")


def _whole_parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of all commands, for completion; only the named ones have options."""
    parser = argparse.ArgumentParser("rave")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for name, what in AVAILABLE_SCRIPTS.items():
        options = [command_module(name).parser()] * (name in names)
        commands.add_parser(name, help=what, parents=options, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
