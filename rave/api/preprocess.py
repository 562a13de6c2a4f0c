"""Audio files of any format → the prepared folder that training reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rave.api.result import Result
from rave.audio.blocks import Quantizer
from rave.audio.io import AudioStream, check_rate_and_channels, list_audio_files
from rave.audio.prepared import HEADER_NAME, PreparedFile, PreparedHeader
from rave.files.atomic import atomic_write, check_output_folder, check_record, remove_partials
from rave.held_out import recordings
from rave.jobs.journal import Journal
from rave.jobs.loop import BatchReport, Engine, process_files, result_names
from rave.parsing import one_line

JOURNAL_NAME = ".preprocess.jsonl"
# Figures of each file's record.
FIGURES: dict[str, Any] = {"num_samples": int, "peak": float, "num_limited_samples": int}


def preprocess_folder(
    audio_dir: str | Path,
    prepared_dir: str | Path,
    *,
    sample_rate: int = 44100,
    channels: int = 1,
    force: bool = False,
    engine: Engine | None = None,
) -> Result:
    """Decode, mix and resample a folder of audio into a folder that training reads.

    Files that are done and unchanged are not prepared again.

    Args:
        audio_dir: Folder of audio files of any format.
        prepared_dir: Folder to write.
        sample_rate: Sample rate of the prepared audio in Hz.
        channels: 1 mono, 2 stereo.
        force: Rebuild `prepared_dir` if its settings differ.
        engine: Engine that processes the files; None: this process, one file after the other.

    Returns:
        Counts of files, what was skipped, total duration, and peak of each file.

    Raises:
        ValueError: If the folders or settings cannot be used, or no file is usable.
        OSError: If the prepared folder cannot be written; what was finished is kept.
    """
    audio_dir, folder = Path(audio_dir), Path(prepared_dir)
    settings = {"sample_rate_hz": sample_rate, "num_channels": channels}
    check_rate_and_channels(**settings)
    sources = list_audio_files(audio_dir)
    check_output_folder(folder, audio_dir)
    journal = Journal(folder / JOURNAL_NAME, settings, force=force)
    remove_partials(folder)

    paths = result_names(sources, ".pcm")
    report = process_files(
        sources,
        Preparing(folder, paths, sample_rate, channels),
        paths,
        journal,
        "Preparing",
        partial(check_record, **FIGURES),
        engine,
        header=HEADER_NAME,
    )
    report.check_any(f"'{audio_dir}'", "Prepared")
    origins = recordings({name: sources[name] for name in report.records}, paths)
    files = []
    for name, record in report.records.items():
        figures = {key: record[key] for key in FIGURES}
        files.append(
            PreparedFile(name=name, path=record["path"], recording=origins[name], **figures)
        )
    header = PreparedHeader(**settings, files=files, skipped=report.skipped)
    header.write(folder)
    num_removed = report.remove_stale()
    return _result(folder, header, report, num_removed)


@dataclass(frozen=True)
class Preparing:
    """Prepare one audio file.

    Files are not divided: decoding and resampling, which are all the work, run from the beginning.

    Args:
        folder: Folder to write into.
        paths: Path of the samples of each file, relative to it.
        sample_rate_hz: Sample rate of the prepared audio.
        num_channels: Channels of the prepared audio.
    """

    folder: Path
    paths: Mapping[str, str]
    sample_rate_hz: int
    num_channels: int

    def __call__(self, name: str, source: Path) -> dict[str, Any]:
        """Write the samples of one audio file, whole or not at all.

        Returns:
            `num_samples`, `peak` and `num_limited_samples`, as in `rave.dataset.PreparedFile`, and
            `notes`.

        Raises:
            AudioError: If the file cannot be used.
            OSError: If the samples cannot be written.
        """
        quantize = Quantizer()
        num_samples = 0
        path = self.folder / self.paths[name]
        with atomic_write(path, is_durable=False) as temporary, temporary.open("wb") as file:
            stream = AudioStream(source, self.sample_rate_hz, self.num_channels)
            for block in stream:
                file.write(quantize(block).tobytes())
                num_samples += block.shape[1]
        return {
            "num_samples": num_samples,
            **quantize.figures,
            "notes": stream.notes,
        }


def _result(folder: Path, header: PreparedHeader, report: BatchReport, num_removed: int) -> Result:
    duration_s = sum(file.num_samples for file in header.files) / header.sample_rate_hz
    silent = [file.name for file in header.files if file.peak == 0]
    lines = [report.summary("Prepared")]
    lines += [f"  silent {one_line(name)}: used nevertheless" for name in silent]
    if num_removed:
        lines.append(
            f"  removed {num_removed} results of audio files that are gone or were renamed"
        )
    lines.append(
        f"'{folder}' holds {len(header.files)} files, {duration_s / 60:.1f} minutes, "
        f"{header.sample_rate_hz} Hz, {header.num_channels} channel(s)."
    )
    figures = {
        **report.figures,
        "num_files": len(header.files),
        "duration_s": duration_s,
        "silent": silent,
        "num_removed": num_removed,
    }
    return Result("\n".join(lines), figures, len(report.skipped), written=report.records)
