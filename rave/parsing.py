"""Command-line parsing: one-line errors, argument types, and escaping of untrusted names.

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

EXIT_ERROR = 2  # bad input, no half-written files
MAX_SEED = 2**32 - 1
COMPLETING = "_ARGCOMPLETE"  # environment variable, set while a shell completes a command line

# Control characters (C0 without tab and line feed, C1), marks that reverse the direction of text,
# and characters that some programs treat as line ends.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    """Return text with control characters escaped as in Python."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return `escaped` text with line feeds and tabs escaped, too, for names within a line."""
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


class LinesError(ValueError):
    """An error whose message has several lines; `one_line` was applied to names in it."""


class Escaping:
    """A text stream that escapes control characters, except a progress bar's carriage return.

    Args:
        stream: Stream to write to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; a leading carriage return is kept."""
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
    """Escape control characters on stdout and stderr.

    This stays so if the block raises: the traceback that ends the process may show names, too.
    """
    original = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Escaping, original)
    yield
    sys.stdout, sys.stderr = original


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and that shows its help only on request."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit; before a full sentence the argument's name is dropped."""
        message = re.sub(r"^argument [^:]+: (?=['A-Z])", "", message)
        self.exit(EXIT_ERROR, f"{self.prog}: error: {one_line(message)}\n")


def print_version() -> None:
    """Print the version of this project."""
    print(f"rave-diffwave {metadata.version('rave-diffwave')}")


class _Version(argparse.Action):
    """Print the version, which is looked up only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print_version()
        parser.exit()


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`."""
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")


def existing(what: str) -> Callable[[str], Path]:
    """Return an argument type: a path that must exist; `what` names it in the error."""

    def path(text: str) -> Path:
        if not Path(text).exists() and COMPLETING not in os.environ:
            raise argparse.ArgumentTypeError(f"'{text}' does not exist. Give {what}.")
        return Path(text)

    return path


def one_of(what: str, names: Sequence[str]) -> dict[str, Any]:
    """Return type and choices of an argument that takes one of `names`."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(
                f"There is no {what} '{text}'. Choose one of: {', '.join(names)}."
            )
        return text

    return {"type": name, "choices": names}


def device_name(text: str) -> str:
    """Return a valid device name, whether or not this machine has the device."""
    if not re.fullmatch(r"auto|(cpu|mps|cuda)(:\d+)?", text):
        raise argparse.ArgumentTypeError(
            f"There is no device '{text}' here. Choose auto, cpu, cuda, cuda:N or mps."
        )
    return text


def seed(text: str) -> int:
    """Return a random seed, parsed."""
    if text.isdecimal() and len(text) <= len(str(MAX_SEED)) and int(text) <= MAX_SEED:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a seed; give 0 to {MAX_SEED}")


def path_or_none(path: str | Path | None) -> Path | None:
    """Return an optional path, given as text or `Path`."""
    return None if path is None else Path(path)


def check_seed(value: int) -> int:
    """Return `value`, a random seed.

    Raises:
        ValueError: If it is not an integer from 0 to `MAX_SEED`.
    """
    if not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise ValueError(f"{value!r} is not a seed; give 0 to {MAX_SEED}.")
    return value
