"""`rave preprocess`: audio files of any format → the prepared folder that training reads."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import AUDIO_FOLDER, add_engine, command_parser, open_engine
from rave.parsing import existing, one_line

if TYPE_CHECKING:
    from rave.audio.prepared import PreparedHeader
    from rave.jobs.loop import BatchReport

JOURNAL_NAME = ".preprocess.jsonl"
# Of a file.
FIGURES: dict[str, Any] = {"num_samples": int, "peak": float, "num_limited_samples": int}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser(
        "rave preprocess",
        "Decode, mix and resample a folder of audio into a folder that `rave train` reads.\n"
        "The same command again continues, and takes in what was added or changed.",
        "rave preprocess recordings prepared --sample-rate 48000 --channels 2",
    )
    parser.add_argument(
        "audio_dir",
        type=existing(AUDIO_FOLDER),
        metavar="AUDIO_DIR",
        help="folder of audio of any format",
    )
    parser.add_argument("prepared_dir", type=Path, metavar="PREPARED_DIR", help="folder to make")
    parser.add_argument(
        "--sample-rate",
        type=int,
        default=44100,
        metavar="HZ",
        help="in Hz (default 44100; the recipes small and tiny are made for 22050)",
    )
    parser.add_argument(
        "--channels", type=int, default=1, metavar="N", help="1 mono, 2 stereo (default 1)"
    )
    parser.add_argument(
        "--force", action="store_true", help="make PREPARED_DIR anew if its settings differ"
    )
    add_engine(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Prepare the audio and report what became of every file.

    Raises:
        ValueError: If the folders or settings cannot be used, or no file is usable.
        OSError: If the prepared folder cannot be written; what was finished is kept.
    """
    from rave.audio.io import check_rate_and_channels, list_audio_files
    from rave.audio.prepared import HEADER_NAME, PreparedFile, PreparedHeader
    from rave.files.atomic import check_output_folder, check_record, remove_partials
    from rave.held_out import recordings
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files, result_names

    folder: Path = options.prepared_dir
    settings = {"sample_rate_hz": options.sample_rate, "num_channels": options.channels}
    check_rate_and_channels(**settings)
    sources = list_audio_files(options.audio_dir)
    check_output_folder(folder, options.audio_dir)
    engine = open_engine(options)
    journal = Journal(folder / JOURNAL_NAME, settings, force=options.force)
    remove_partials(folder)

    paths = result_names(sources, ".pcm")
    # Before 2026-12 these were a.wav.pcm.
    old = [name for name, record in journal.records.items() if "path" not in record]
    report = process_files(
        sources,
        Preparing(folder, paths, options.sample_rate, options.channels),
        paths,
        journal,
        "Preparing",
        partial(check_record, **FIGURES),
        engine,
        header=HEADER_NAME,
    )
    report.check_any(f"'{options.audio_dir}'", "Prepared")
    origins = recordings({name: sources[name] for name in report.records}, paths)
    files = []
    for name, record in report.records.items():
        figures = {key: record[key] for key in FIGURES}
        files.append(
            PreparedFile(name=name, path=record["path"], recording=origins[name], **figures)
        )
    header = PreparedHeader(**settings, files=files, skipped=report.skipped)
    header.write(folder)
    report.stale += [folder / name for name in {f"{name}.pcm" for name in old} - {*paths.values()}]
    num_removed = report.remove_stale()
    return _result(folder, header, report, num_removed)


@dataclass(frozen=True)
class Preparing:
    """The work on one audio file.

    A file is done as a whole: decoding and resampling run from its beginning, and are all there is.

    Args:
        folder: To write into.
        paths: Of the samples of each file, relative to it.
        sample_rate_hz: Wanted.
        num_channels: Wanted.
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
        from rave.audio.blocks import Quantizer
        from rave.audio.io import AudioStream
        from rave.files.atomic import atomic_write

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
    lines += [f"  silent {one_line(name)}: used all the same" for name in silent]
    if num_removed:
        lines.append(
            f"  removed {num_removed} results of audio files that are gone or have other neighbours"
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
