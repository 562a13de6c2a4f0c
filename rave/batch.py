"""One loop over many files: progress, resuming, and an account of what was skipped.

What does the work is an `Engine`: this process, or with `rave.ray_engine` many machines.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from rave.files import Journal, source_stamp
from rave.windows import Part


class SkipFile(ValueError):
    """Raised by the work on one file when that file cannot be used; the run goes on without it."""


Work: TypeAlias = Callable[[str, Path], dict[str, Any]]
Outcome: TypeAlias = dict[str, Any] | SkipFile | OSError


@runtime_checkable
class DivisibleWork(Protocol):
    """Work that can be done on parts of a file at once, and gives the same files and records."""

    def __call__(self, name: str, source: Path) -> dict[str, Any]:
        """Do the whole."""

    def num_windows(self, name: str, source: Path) -> int:
        """Return how many windows a file has, or a guess; 1 where nothing is known."""

    def do_part(self, name: str, source: Path, part: Part, path: Path) -> Any:
        """Write what comes of some windows to `path`, and return what `join` needs besides."""

    def join(self, name: str, source: Path, paths: Sequence[Path], results: Sequence[Any]) -> Any:
        """Do the rest, and return the record."""


class Engine(Protocol):
    """What does the work on files."""

    def run(
        self, work: Work, pending: Mapping[str, Path]
    ) -> Generator[tuple[str, Outcome], None, None]:
        """Yield the name of each file, in any order, and what came of it.

        Errors other than a `SkipFile` or `OSError` of the work are raised.
        """


class LocalEngine:
    """Does one file after the other, in this process."""

    def run(
        self, work: Work, pending: Mapping[str, Path]
    ) -> Generator[tuple[str, Outcome], None, None]:
        """Yield the name of each file, in order, and what came of it."""
        for name, source in pending.items():
            yield name, attempt(work, name, source)


def attempt(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the work returns, or the `SkipFile` or `OSError` that it raises."""
    try:
        return work(*arguments)
    except (SkipFile, OSError) as error:
        return error


@dataclass
class BatchReport:
    """What became of every file of a batch.

    Attributes:
        records: Name of each usable file and the record its work returned, now or earlier.
        num_done: Files worked on now.
        num_unchanged: Files done in an earlier run and unchanged since.
        skipped: Name and reason of each file that could not be used.
    """

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_done: int = 0
    num_unchanged: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Any]:
        """Return the counts, and the reason for each skipped file, for `--json`."""
        return {
            "num_done": self.num_done,
            "num_unchanged": self.num_unchanged,
            "num_skipped": len(self.skipped),
            "skipped": self.skipped,
            "notes": self.notes,
        }

    @property
    def notes(self) -> dict[str, list[str]]:
        """Return what a user should know of each file that was used."""
        noted = {name: record.get("notes") for name, record in self.records.items()}
        return {name: notes for name, notes in noted.items() if notes}

    def summary(self, verb: str) -> str:
        """Return one line of counts, and one line for each skipped file and each note."""
        text = f"{verb} {self.num_done} files, {self.num_unchanged} unchanged"
        text += f", {len(self.skipped)} skipped:" if self.skipped else "."
        reasons = [f"  skipped {name}: {reason}" for name, reason in self.skipped.items()]
        notes = [f"  {note}" for notes in self.notes.values() for note in notes]
        return "\n".join([text, *reasons, *notes])


def process_files(
    sources: Mapping[str, Path],
    work: Work,
    output: Callable[[str], Path],
    journal: Journal,
    label: str,
    engine: Engine | None = None,
) -> BatchReport:
    """Do `work` on every source that is not already done and unchanged.

    Args:
        sources: Name of each item (unique, relative, posix) and the file it is made from.
        work: Takes name and source, writes the output whole, returns a JSON-able record.
            Raises `SkipFile`, or an `OSError` that names the source, where the source cannot be
            used; anything else stops the batch.
        output: The file that the work on a name leaves, which must still be there to count as done.
        journal: Where finished items are recorded; closed when the batch ends.
        label: Verb for the progress bar.
        engine: What does the work; None: this process.

    Returns:
        The report, in the order of `sources`.
    """
    from tqdm import tqdm

    report = BatchReport()
    stamps: dict[str, dict[str, int]] = {}
    with (
        closing(journal),
        tqdm(total=len(sources), desc=label, unit="file", file=sys.stderr) as progress,
    ):

        def skip(name: str, error: SkipFile | OSError) -> None:
            reason = _reason(error, sources[name])
            report.skipped[name] = reason
            progress.write(f"skipped {name}: {reason}", file=sys.stderr)
            progress.update()

        for name, source in sources.items():
            record = journal.get(name)
            try:
                stamp = source_stamp(source)
                is_done = record and record.get("source_stamp") == stamp and output(name).exists()
            except OSError as error:
                skip(name, error)
                continue
            if record and is_done:
                report.num_unchanged += 1
                report.records[name] = record
                progress.update()
            else:
                stamps[name] = stamp
        pending = {name: sources[name] for name in stamps}
        with closing((engine or LocalEngine()).run(work, pending)) as outcomes:
            for name, outcome in outcomes:
                if isinstance(outcome, SkipFile | OSError):
                    skip(name, outcome)
                    continue
                record = {**outcome, "source_stamp": stamps[name]}
                journal.add(name, record)
                report.num_done += 1
                report.records[name] = record
                progress.update()
    report.records = {name: report.records[name] for name in sources if name in report.records}
    report.skipped = {name: report.skipped[name] for name in sources if name in report.skipped}
    return report


def _reason(error: SkipFile | OSError, source: Path) -> str:
    """Return why a file is skipped.

    Raises:
        OSError: If it is not the file's fault.
    """
    if isinstance(error, SkipFile):
        return str(error)
    if error.errno == errno.ENAMETOOLONG:
        return f"'{source.name}' has too long a name for what is made of it. Shorten it."
    if Path(str(error.filename)).absolute() == source.absolute():
        return f"'{source.name}' cannot be read ({error.strerror}). Move it elsewhere."
    raise error
