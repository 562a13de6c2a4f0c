"""The loop over many files: names of results, progress, resuming, skipped files.

An `Engine` runs the work: in this process, or on many machines (`rave.jobs.ray_engine`).
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, runtime_checkable
from unicodedata import normalize

from rave.files.atomic import check_inside, remove_header, source_stamp, typed
from rave.files.errors import SkipFile
from rave.jobs.journal import Journal
from rave.jobs.windows import Part
from rave.parsing import LinesError, one_line

MAX_NAME_BYTES = 255  # limit of ext4, XFS, APFS and NTFS (which counts characters)


Work: TypeAlias = Callable[[str, Path], dict[str, Any]]
Outcome: TypeAlias = dict[str, Any] | SkipFile | OSError


@runtime_checkable
class DivisibleWork(Protocol):
    """Work that can process parts of a file in parallel, with the same files and records."""

    def __call__(self, name: str, source: Path) -> dict[str, Any]:
        """Process a whole file, and return its record."""

    def num_windows(self, name: str, source: Path) -> int:
        """Return the number of windows in a file, or an estimate; 1 if unknown."""

    def do_part(self, name: str, source: Path, part: Part, path: Path) -> Any:
        """Write the result of some windows to `path`, and return what else `join` needs."""

    def join(self, name: str, source: Path, paths: Sequence[Path], results: Sequence[Any]) -> Any:
        """Join the parts, and return the record."""


class Engine(Protocol):
    """Runs the work on files."""

    def run(
        self, work: Work, pending: Mapping[str, Path]
    ) -> Generator[tuple[str, Outcome], None, None]:
        """Yield the name of each file, in any order, and its outcome.

        Errors of the work other than `SkipFile` and `OSError` are raised.
        """


class LocalEngine:
    """Processes one file after the other, in this process."""

    def run(
        self, work: Work, pending: Mapping[str, Path]
    ) -> Generator[tuple[str, Outcome], None, None]:
        """Yield the name of each file, in order, and its outcome."""
        for name, source in pending.items():
            yield name, attempt(work, name, source)


def attempt(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the work returns, or the `SkipFile` or `OSError` that it raises."""
    try:
        return work(*arguments)
    except (SkipFile, OSError) as error:
        return error


def skipped_line(name: str, reason: object) -> str:
    """Return the line that reports a skipped file."""
    return one_line(f"skipped {name}: {reason}")


@dataclass
class BatchReport:
    """The outcome of a batch.

    Attributes:
        records: Record of each usable file, by name, from this run or an earlier one.
        num_done: Files processed now.
        num_unchanged: Files done in an earlier run and unchanged since.
        skipped: Name and reason of each file that could not be used.
        stale: Results of earlier runs that are not results of these sources.
    """

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_done: int = 0
    num_unchanged: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    stale: list[Path] = field(default_factory=list)

    def remove_stale(self) -> int:
        """Remove stale files, which no header names any more, and return their number."""
        found = [path for path in self.stale if path.is_file()]
        for path in found:
            path.unlink()
        return len(found)

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
        """Return the notes for the user about each usable file."""
        notes_of = {name: record.get("notes") for name, record in self.records.items()}
        return {name: notes for name, notes in notes_of.items() if notes}

    def check_any(self, sources: str, verb: str) -> None:
        """Check that at least one file was usable.

        Raises:
            LinesError: If none of `sources` was; the message gives the reason for each.
        """
        if not self.records:
            raise LinesError(f"No file of {one_line(sources)} can be used. {self.summary(verb)}")

    def summary(self, verb: str) -> str:
        """Return one line of counts, then one line per skipped file and per note."""
        text = f"{verb} {self.num_done} files, {self.num_unchanged} unchanged"
        text += f", {len(self.skipped)} skipped:" if self.skipped else "."
        reasons = [f"  {skipped_line(name, reason)}" for name, reason in self.skipped.items()]
        notes = [f"  {one_line(note)}" for notes in self.notes.values() for note in notes]
        return "\n".join([text, *reasons, *notes])


def process_files(
    sources: Mapping[str, Path],
    work: Work,
    results: Mapping[str, str],
    journal: Journal,
    label: str,
    check: Callable[[dict[str, Any]], object],
    engine: Engine | None = None,
    *,
    header: str | None = None,
    known: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> BatchReport:
    """Run `work` on every source that is not already done and unchanged.

    Args:
        sources: Name of each item (unique, relative, posix) and its source file.
        work: Takes name and source, writes the output whole, returns a JSON-able record.
            Raises `SkipFile`, or an `OSError` that names the source, if the source cannot be used;
            any other error stops the batch.
        results: Result file of each name, relative to the journal's folder, from `result_names`. An
            item counts as done only if this file exists.
        journal: Journal of finished items; closed when the batch ends.
        label: Verb for the progress bar.
        check: Checks the fields of a record. If it raises `TypeError`, `KeyError` or `ValueError`,
            the record is dropped and the work is done again.
        engine: Engine that runs the work; None: this process.
        header: File in the journal's folder that names the results. It is removed before one of
            them is replaced, so that it never names a missing file.
        known: Further fields of the record of a name; if an earlier record differs, the work is
            done again. `others` are further files that the work may write.

    Returns:
        The report, in the order of `sources`. Each record names its result as `path`.
    """
    from tqdm import tqdm

    report = BatchReport()
    folder = journal.path.parent
    planned = {name: {"path": results[name], **known.get(name, {})} for name in sources}
    former = journal.records
    # The name of a result depends on neighbouring files, so it changes as files come and go.
    journal.forget(
        name
        for name, record in former.items()
        if name not in planned
        or not planned[name].items() <= record.items()
        or not _is_record(record, check)
    )
    stamps: dict[str, dict[str, int]] = {}
    with (
        closing(journal),
        tqdm(total=len(sources), desc=label, unit="file", file=sys.stderr) as progress,
    ):

        def skip(name: str, error: SkipFile | OSError) -> None:
            reason = _reason(error, sources[name])
            report.skipped[name] = reason
            progress.write(skipped_line(name, reason), file=sys.stderr)
            progress.update()

        for name, source in sources.items():
            record = journal.get(name)
            try:
                _check_name(name)
                stamp = source_stamp(source)
                is_done = (
                    record
                    and record.get("source_stamp") == stamp
                    and (folder / results[name]).exists()
                )
            except (SkipFile, OSError) as error:
                skip(name, error)
                continue
            if record and is_done:
                report.num_unchanged += 1
                report.records[name] = record
                progress.update()
            else:
                stamps[name] = stamp
        pending = {name: sources[name] for name in stamps}
        if header and any(n in former or (folder / results[n]).exists() for n in pending):
            remove_header(folder / header)
        journal.forget(pending)  # not finished until they are processed again
        with closing((engine or LocalEngine()).run(work, pending)) as outcomes:
            for name, outcome in outcomes:
                if isinstance(outcome, SkipFile | OSError):
                    skip(name, outcome)
                    continue
                record = {**outcome, **planned[name], "source_stamp": stamps[name]}
                journal.add(name, record)
                report.num_done += 1
                report.records[name] = record
                progress.update()
    report.records = {name: report.records[name] for name in sources if name in report.records}
    report.skipped = {name: report.skipped[name] for name in sources if name in report.skipped}
    report.stale = _stale(folder, [*former.values(), *journal.replaced], planned.values())
    return report


def _is_record(record: dict[str, Any], check: Callable[[dict[str, Any]], object]) -> bool:
    """Return whether a record, perhaps of an untrusted journal, has the fields of the command."""
    try:
        check(record)
        typed(record.get("notes"), list[str] | None, "notes")
    except (TypeError, KeyError, ValueError):
        return False
    return True


def _check_name(name: str) -> None:
    try:
        check_inside(name)
    except ValueError as error:
        raise SkipFile(f"{error}, on Windows at least. Rename it.") from error


def _stale(
    folder: Path, former: Iterable[dict[str, Any]], planned: Iterable[dict[str, Any]]
) -> list[Path]:
    """Return the files that former records name and planned ones do not, on any file system."""

    def paths(records: Iterable[dict[str, Any]]) -> set[str]:
        return {
            path
            for record in records
            for path in (*([record["path"]] if "path" in record else []), *record.get("others", []))
        }

    kept = paths(planned)
    same_keys: dict[str, list[Path]] = {}
    for path in kept:
        same_keys.setdefault(name_key(path), []).append(folder / path)
    return [
        folder / path
        for path in sorted(paths(former) - kept)
        if not any(
            other.exists() and (folder / path).exists() and other.samefile(folder / path)
            for other in same_keys.get(name_key(path), [])
        )
    ]


def _reason(error: SkipFile | OSError, source: Path) -> str:
    """Return why a file is skipped.

    Raises:
        OSError: If the cause is not the file.
    """
    if isinstance(error, SkipFile):
        return str(error)
    if error.errno == errno.ENAMETOOLONG:
        return f"The name of '{source.name}' is too long for its result. Shorten it."
    if Path(str(error.filename)).absolute() == source.absolute():
        return f"'{source.name}' cannot be read ({error.strerror}). Move it elsewhere."
    raise error


def name_key(name: str) -> str:
    """Return a key that is equal for names that some file systems treat as equal.

    They differ in case (Windows, macOS) or in their Unicode form (macOS).
    """
    return normalize("NFC", normalize("NFD", name).casefold())


def result_names(
    sources: Iterable[str], suffix: str, *, is_whole_name: bool = False
) -> dict[str, str]:
    """Return the name of the result of each file of a tree; all commands use this rule.

    a.flac → a.npy; where stems collide a.flac.npy; where these collide a.flac.2.npy and so on. No
    two results are the same file or a folder of the tree, on any file system; see `name_key`.

    Args:
        sources: Relative posix names, unique, in any order.
        suffix: Suffix of the results, with its dot. Too long names are cut and get a digest.
        is_whole_name: Begin with a.flac.npy.
    """

    def candidate(source: str, level: int) -> str:
        stem = source if level or is_whole_name else str(PurePosixPath(source).with_suffix(""))
        number = level + is_whole_name
        return fitted(f"{stem}.{number}" if number > 1 else stem, suffix)

    sources = sorted(sources)
    folders = {str(folder) for name in sources for folder in PurePosixPath(name).parents}
    return distinct_names(sources, candidate, folders)


def distinct_names(
    items: Iterable[str], candidate: Callable[[str, int], str], taken: Iterable[str]
) -> dict[str, str]:
    """Return a name for each item, distinct by `name_key`.

    Args:
        items: Unique items, in order of precedence.
        candidate: Takes item and level, from 0; the names of an item differ between levels.
        taken: Names that no item may have.
    """
    items, taken_keys = list(items), {name_key(name) for name in taken}
    levels = dict.fromkeys(items, 0)
    names = {item: candidate(item, 0) for item in items}
    keys = {item: name_key(name) for item, name in names.items()}
    while True:
        sharing: dict[str, list[str]] = {}
        for item, key in keys.items():
            sharing.setdefault(key, []).append(item)
        raised: list[str] = []
        for key, members in sharing.items():
            if key in taken_keys:
                raised += members
            elif len(members) > 1:
                raised += [item for item in members if not levels[item]] or members[1:]
        if not raised:
            return names
        for item in raised:
            levels[item] += 1
            names[item] = candidate(item, levels[item])
            keys[item] = name_key(names[item])


def fitted(name: str, suffix: str) -> str:
    """Return a relative name with a suffix, cut if it is too long for file systems."""
    folder, slash, base = name.rpartition("/")
    encoded, room = base.encode(errors="surrogateescape"), MAX_NAME_BYTES - len(suffix.encode())
    if len(encoded) > room:
        digest = f"-{sha256(encoded).hexdigest()[:8]}"
        base = encoded[: room - len(digest)].decode(errors="ignore") + digest
    return f"{folder}{slash}{base}{suffix}"
