"""Calls of the Python API as the page makes them, each with the command line that does the same."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffwave.api.inference import Watch
from rave.api.result import Result

# A warning of a command; its source, and perhaps the name of a file, stand before it.
WARNING = re.compile(r"(?:^|[\s:])\w*[Ww]arning: (?:[^:]+\.\w{2,5}: )?(.+)")
# Options whose names differ from those of the arguments.
OPTIONS = {"continued": "continue", "from_s": "from", "to_s": "to"}
# Called with the share that is done and the seconds left; None while it waits for other work.
Report = Callable[[float, float | None], None]
TURN_S = 0.1  # between two checks whether a waiting job is stopped


@dataclass(frozen=True)
class Command:
    """A call of a function of the Python API.

    Attributes:
        words: The command line that does the same.
        call: Makes the call; its argument is called after each step of a sampler.
    """

    words: tuple[str, ...]
    call: Callable[[Watch], Result]


class Stopped(Exception):
    """Raised inside a call that the user stopped."""


class Job:
    """A running request: it reports progress, collects warnings, and can be stopped.

    Args:
        report: Called after each step of the sampler, and when the job must wait.

    Attributes:
        warnings: Warnings of its commands, each once.
    """

    def __init__(self, report: Report | None = None) -> None:
        self._report, self._stop = report, threading.Event()
        self._started = time.monotonic()
        self.warnings: list[str] = []

    def warn(self, texts: Iterable[str]) -> None:
        """Add warnings of a command."""
        self.warnings += [text for text in dict.fromkeys(texts) if text not in self.warnings]

    @contextlib.contextmanager
    def turn(self, working: threading.Lock) -> Iterator[None]:
        """Wait until no other job runs, then run the block.

        Raises:
            Stopped: If it was stopped while it waited.
        """
        if not working.acquire(blocking=False):
            if self._report is not None:
                self._report(0.0, None)
            while not working.acquire(timeout=TURN_S):
                self.check()
        self._started = time.monotonic()
        try:
            yield
        finally:
            working.release()

    def stop(self) -> None:
        """Stop the job before its next step."""
        self._stop.set()

    def check(self) -> None:
        """Raise if the job is to stop.

        Raises:
            Stopped: If it is.
        """
        if self._stop.is_set():
            raise Stopped

    def watch(self, done: int, total: int) -> None:
        """Report a step, as the `watch` of `diffwave.api.inference.generate`.

        Raises:
            Stopped: If the job is to stop.
        """
        self.check()
        if self._report is not None:
            elapsed = time.monotonic() - self._started
            self._report(done / total, elapsed / done * (total - done))


class _Copied(io.TextIOBase):
    """Standard error, with a copy of the text that one thread writes."""

    def __init__(self, to: Any) -> None:
        self.text = io.StringIO()
        self._to, self._thread = to, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() == self._thread:
            self.text.write(text)
        self._to.write(text)
        return len(text)

    def flush(self) -> None:
        self._to.flush()

    def isatty(self) -> bool:
        return bool(self._to.isatty())


@contextlib.contextmanager
def _warnings_to(job: Job) -> Iterator[None]:
    """Give a job the warnings that commands write to standard error."""
    copied = _Copied(sys.stderr)
    with contextlib.redirect_stderr(copied):
        yield
    found = (WARNING.search(line) for line in re.split("[\r\n]", copied.text.getvalue()))
    job.warn(each[1] for each in found if each)


def run_command(command: Command, job: Job, stem: str = "*") -> Result:
    """Make a call; one at a time, since standard error is read meanwhile.

    Args:
        command: The call.
        job: May stop it, and gets its warnings.
        stem: Pattern of the names, without suffix, of the files whose warnings are wanted.

    Raises:
        ValueError: If it refuses, or could not use a file.
        OSError: If a file cannot be read or written.
        Stopped: If it was stopped.
    """
    job.check()
    with _warnings_to(job):
        result = command.call(job.watch)
    for name, texts in result.figures.get("warnings", {}).items():
        job.warn(texts if fnmatch.fnmatch(Path(name).stem, stem) else ())
    if result.num_skipped:
        raise ValueError("; ".join(map(str, result.figures["skipped"].values())))
    return result


def command(
    program: Sequence[str],
    function: Callable[..., Result],
    *places: Path | Sequence[Path],
    is_watched: bool = False,
    **options: Any,
) -> Command:
    """Return a call and its command line.

    Args:
        program: First words of the command line.
        function: Function of the Python API.
        places: Its paths.
        is_watched: Whether it takes `watch`.
        options: Its other arguments.
    """

    def call(watch: Watch) -> Result:
        return function(*places, **options, **({"watch": watch} if is_watched else {}))

    return Command((*program, *_typed(places, options)), call)


def _typed(places: Sequence[Path | Sequence[Path]], options: Mapping[str, Any]) -> list[str]:
    words = [str(one) for each in places for one in ([each] if isinstance(each, Path) else each)]
    for name, value in options.items():
        option = f"--{OPTIONS.get(name, name).replace('_', '-')}"
        if value is True:
            words.append(option)
        elif name == "label":  # may begin as an option does
            words.append(f"{option}={value}")
        elif isinstance(value, Mapping):
            words += [word for k, v in value.items() for word in (option, f"{k}={v:g}")]
        elif isinstance(value, list):
            words += [word for each in value for word in (option, str(each))]
        else:
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def rounded(value: float, digits: int = 6) -> float:
    """Return a number as the command line of a call shows it."""
    return float(f"{value:.{digits}g}")


def as_typed(commands: Sequence[Command]) -> str:
    """Return commands as lines for a shell."""
    return "\n".join(shlex.join(command.words) for command in commands)


def short(path: Path) -> str:
    """Return a path, relative if it is below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
