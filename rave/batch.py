"""One loop over many files: progress, resuming, and an account of what was skipped."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rave.files import Journal, source_stamp


class SkipFile(ValueError):
    """Raised by the work on one file when that file cannot be used; the run goes on without it."""


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
        }

    def summary(self, verb: str) -> str:
        """Return one line of counts, and one line for each skipped file."""
        text = f"{verb} {self.num_done} files, {self.num_unchanged} unchanged"
        if not self.skipped:
            return text + "."
        reasons = [f"  skipped {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([f"{text}, {len(self.skipped)} skipped:", *reasons])


def process_files(
    sources: Mapping[str, Path],
    work: Callable[[str, Path], dict[str, Any]],
    output: Callable[[str], Path],
    journal: Journal,
    label: str,
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

    Returns:
        The report; its records are in the order of `sources`.
    """
    from tqdm import tqdm

    report = BatchReport()
    with (
        closing(journal),
        tqdm(total=len(sources), desc=label, unit="file", file=sys.stderr) as progress,
    ):
        for name, source in sources.items():
            record = journal.get(name)
            try:
                stamp = source_stamp(source)
                if record and record.get("source_stamp") == stamp and output(name).exists():
                    report.num_unchanged += 1
                else:
                    record = {**work(name, source), "source_stamp": stamp}
                    journal.add(name, record)
                    report.num_done += 1
                report.records[name] = record
            except (SkipFile, OSError) as error:
                reason = _reason(error, source)
                report.skipped[name] = reason
                progress.write(f"skipped {name}: {reason}", file=sys.stderr)
            progress.update()
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
    if str(error.filename) == str(source):
        return f"'{source.name}' cannot be read ({error.strerror}). Mend or remove it."
    raise error
