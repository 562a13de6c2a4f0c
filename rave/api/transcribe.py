"""Audio → MIDI: the notes that are heard in recordings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.files.atomic import check_output_folder, check_record, remove_partials
from rave.files.errors import SkipFile
from rave.jobs.journal import Journal, check_own
from rave.jobs.loop import process_files, result_names

if TYPE_CHECKING:
    from rave.audio.io import AudioStream
    from rave.compute.arrays import Float32Array
    from rave.notes.transcriber import Transcriber

JOURNAL_NAME = ".transcribed.jsonl"
MIDI_SUFFIXES = (".mid", ".midi")


def transcribe_audio(audio: str | Path, out: str | Path, *, force: bool = False) -> Result:
    """Write the notes of a recording, or of each recording of a folder, as MIDI.

    Args:
        audio: Audio file, or folder of them.
        out: MIDI file to write, ending in .mid; for a folder a folder, which the same call
            completes.
        force: Replace what is in the way.

    Returns:
        Counts of files, and the number of notes of each.

    Raises:
        ValueError: If audio or output cannot be used.
        OSError: If the output cannot be written; what was finished is kept.
    """
    audio, out = Path(audio), Path(out)
    if audio.is_dir():
        return _transcribe_folder(audio, out, force)
    if out.suffix.lower() not in MIDI_SUFFIXES:
        raise ValueError(f"The output is '{out}'; for an audio file name one that ends in .mid.")
    if out.is_dir() or (out.exists() and not force):
        raise ValueError(f"'{out}' exists. Choose another name, or add --force to replace it.")
    work = _Transcribing(out.parent, {audio.name: out.name}, is_progress_shown=True)
    try:
        record = work(audio.name, audio)
    except SkipFile as error:
        raise ValueError(str(error)) from error
    num_notes = {audio.name: record["num_notes"]}
    return Result(
        f"'{out}' holds {record['num_notes']} notes of {record['duration_s']:.1f} s.",
        {"num_done": 1, "num_notes": num_notes},
        warnings=_warnings({audio.name: record}),
    )


def _transcribe_folder(audio: Path, out: Path, is_forced: bool) -> Result:
    from rave.audio.io import list_audio_files

    sources = list_audio_files(audio)
    check_output_folder(out, audio)
    if out.suffix.lower() in MIDI_SUFFIXES:
        raise ValueError(f"'{audio}' is a folder, so the output is one too, not '{out}'.")
    names = result_names(sources, ".mid")
    outputs = (out / path for path in names.values())
    check_own(outputs, out / JOURNAL_NAME, "rave transcribe", is_forced=is_forced)
    journal = Journal(out / JOURNAL_NAME, {"transcriber": "basic-pitch"}, force=is_forced)
    remove_partials(out)
    report = process_files(
        sources,
        _Transcribing(out, names),
        names,
        journal,
        "Transcribing",
        lambda record: check_record(record, num_notes=int, duration_s=float),
    )
    report.check_any(f"'{audio}'", "Transcribed")
    report.remove_stale()
    num_notes = {name: record["num_notes"] for name, record in report.records.items()}
    return Result(
        f"{report.summary('Transcribed')}\n'{out}' holds {len(num_notes)} MIDI files, "
        f"{sum(num_notes.values())} notes.",
        {**report.figures, "num_notes": num_notes},
        num_skipped=len(report.skipped),
        warnings=_warnings(report.records),
    )


def _warnings(records: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    return {
        name: ["no note was heard in it. Is it silent, or without pitch?"]
        for name, record in records.items()
        if not record["num_notes"]
    }


@dataclass(frozen=True)
class _Transcribing:
    """The work on one recording.

    Args:
        folder: Folder to write into.
        paths: MIDI file of each recording, relative to it.
        is_progress_shown: Show how many seconds of each recording were heard.
    """

    folder: Path
    paths: dict[str, str] = field(default_factory=dict)
    is_progress_shown: bool = False

    @cached_property
    def _transcriber(self) -> Transcriber:
        from rave.notes.transcriber import Transcriber

        return Transcriber()

    def __call__(self, name: str, source: Path) -> dict[str, Any]:
        """Write the notes of one recording, whole or not at all.

        Raises:
            SkipFile: If it cannot be used.
            OSError: If the MIDI file cannot be written.
        """
        from rave.audio.io import AudioStream
        from rave.notes.midi import write_midi
        from rave.notes.transcriber import SAMPLE_RATE_HZ

        stream = AudioStream(source, SAMPLE_RATE_HZ, 1)
        found = self._transcriber.transcribe(self._shown(stream, name))
        write_midi(self.folder / self.paths[name], found.notes)
        return {"num_notes": len(found.notes), "duration_s": round(found.duration_s, 3)}

    def _shown(self, stream: AudioStream, name: str) -> Iterator[Float32Array]:
        from tqdm import tqdm

        from rave.notes.transcriber import SAMPLE_RATE_HZ

        blocks = iter(stream)
        first = list(islice(blocks, 1))  # no bar for what cannot be read
        with tqdm(
            desc=name, unit="s", file=sys.stderr, disable=not self.is_progress_shown
        ) as progress:
            for block in chain(first, blocks):
                yield block
                progress.update(round(block.shape[1] / SAMPLE_RATE_HZ, 1))
