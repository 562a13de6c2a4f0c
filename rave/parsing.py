"""Command lines: a parser that refuses in one line, types of arguments, and what is safe to show.

Needs no torch.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

EXIT_ERROR = 2  # bad input, nothing half-written
MAX_SEED = 2**32 - 1
COMPLETING = "_ARGCOMPLETE"  # in the environment while a shell completes a command line

# What a terminal obeys instead of showing it (C0 but tab and line feed, C1), what reverses text,
# and what some programs take for the end of a line.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    """Return text with control characters as Python writes them."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return `escaped` text with line feeds and tabs escaped, too: a name in a line of ours."""
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


class LinesError(ValueError):
    """Its message has several lines; names in them are of `one_line`."""


class Escaping:
    """A stream of text that writes all as `escaped`, but for the carriage return of a progress bar.

    Args:
        stream: To write to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text. A carriage return is left where it begins it."""
        returned = "\r" if text.startswith("\r") else ""
        self._stream.write(returned + escaped(text[len(returned) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaping() -> Iterator[None]:
    """Let what is written to stdout and stderr be `escaped`.

    It is so for good if the block raises: a traceback that ends the program holds names, too.
    """
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Escaping, former)
    yield
    sys.stdout, sys.stderr = former


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line, and shows its help only when asked."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit; a sentence of our own needs no name of the argument."""
        message = re.sub(r"^argument [^:]+: (?=['A-Z])", "", message)
        self.exit(EXIT_ERROR, f"{self.prog}: error: {one_line(message)}\n")


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


def path_or_none(given: str | Path | None) -> Path | None:
    """Return an optional path of a caller, who may give text."""
    return None if given is None else Path(given)


def check_seed(value: int) -> int:
    """Return a random seed.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise ValueError(f"{value!r} is no seed; 0 to {MAX_SEED} is needed.")
    return value
