"""Command lines: a parser that refuses in one line, and types of arguments. Needs no torch."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

EXIT_ERROR = 2  # bad input, nothing half-written
MAX_SEED = 2**32 - 1
COMPLETING = "_ARGCOMPLETE"  # in the environment while a shell completes a command line


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line, and shows its help only when asked."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit; a sentence of our own needs no name of the argument."""
        message = re.sub(r"^argument [^:]+: (?=['A-Z])", "", message)
        self.exit(EXIT_ERROR, f"{self.prog}: error: {message}\n")


def print_version() -> None:
    """Print the version of this project."""
    print(f"rave-diffwave {metadata.version('rave-diffwave')}")


class _Version(argparse.Action):
    """Print the version, which is looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print_version()
        parser.exit()


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`."""
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")


def existing(what: str) -> Callable[[str], Path]:
    """Return a type of argument: a path that must exist; `what` is needed there."""

    def path(text: str) -> Path:
        if not Path(text).exists() and COMPLETING not in os.environ:
            raise argparse.ArgumentTypeError(f"'{text}' does not exist. Give {what}.")
        return Path(text)

    return path


def one_of(what: str, names: Sequence[str]) -> dict[str, Any]:
    """Return type and choices of an argument that is one of some names."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(
                f"There is no {what} '{text}'. Choose one of: {', '.join(names)}."
            )
        return text

    return {"type": name, "choices": names}


def device_name(text: str) -> str:
    """A type of argument: the name that a device has, whether or not it is here."""
    if not re.fullmatch(r"auto|(cpu|mps|cuda)(:\d+)?", text):
        raise argparse.ArgumentTypeError(
            f"There is no device '{text}' here. Choose auto, cpu, cuda, cuda:N or mps."
        )
    return text


def seed(text: str) -> int:
    """A type of argument: a random seed."""
    if text.isdecimal() and len(text) <= len(str(MAX_SEED)) and int(text) <= MAX_SEED:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is no seed; 0 to {MAX_SEED} is needed")
