"""Recordings → the recordings and transposed, shifted versions of each."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rave.api.result import Result
from rave.audio.blocks import WRITTEN, Quantizer, from_sample
from rave.audio.formats import AudioError, decode_blocks
from rave.audio.io import AudioStream, list_audio_files, write_audio
from rave.files.atomic import atomic_write, check_output_folder, check_record, remove_partials
from rave.held_out import VERSION_SUFFIX, note_of, noted
from rave.jobs.journal import Journal
from rave.jobs.loop import distinct_names, fitted, process_files
from rave.parsing import check_seed

JOURNAL_NAME = ".augment.jsonl"
MAX_SEMITONES = 12.0
# A version starts up to this much later: more than a latent frame, so that frames fall elsewhere.
MAX_SHIFT_S = 0.1


def augment_folder(
    audio_dir: str | Path,
    out_dir: str | Path,
    *,
    semitones: Sequence[float] = (-2.0, -1.0, 0.0, 0.0, 1.0, 2.0),
    force: bool = False,
    seed: int = 0,
) -> Result:
    """Copy every recording, and write versions of it (a~1.flac, …) as extra training data.

    A version plays faster or slower, starts a moment later, and may have inverted polarity. It
    stores the name of its recording: versions are never held out, and are not trained on where
    their recording is held out. Files that are done and unchanged are not written again.

    Args:
        audio_dir: Folder of audio files of any format.
        out_dir: Folder to write.
        semitones: One version per value: semitones up (and faster); 0 only shifts the start.
        force: Replace versions made with other settings.
        seed: Random seed of shifts and polarities.

    Returns:
        Counts of files, what was skipped, and the seconds recorded and written.

    Raises:
        ValueError: If folders or semitones cannot be used, or no file is usable.
        OSError: If the folder cannot be written; what was finished is kept.
    """
    check_seed(seed)
    audio_dir, folder = Path(audio_dir), Path(out_dir)
    for each in semitones:
        if not abs(each) <= MAX_SEMITONES:
            raise ValueError(
                f"--semitones {each:g} was given; it must be from -{MAX_SEMITONES:g} to "
                f"{MAX_SEMITONES:g}."
            )
    sources = list_audio_files(audio_dir)
    for name, source in sources.items():
        if (original := noted(source)) is not None:
            raise ValueError(
                f"'{name}' is a version of '{original}' that `rave augment` wrote. Give the folder "
                "of the original recordings."
            )
    check_output_folder(folder, audio_dir)
    settings = {"semitones": list(map(float, semitones)), "seed": seed}
    journal = Journal(folder / JOURNAL_NAME, settings, force=force)
    remove_partials(folder)
    copies, versions = names_of(sources, len(semitones))

    def work(name: str, source: Path) -> dict[str, Any]:
        copy = folder / copies[name]
        paths = [folder / path for path in versions[name]]
        return write_versions(name, source, copy, paths, semitones, seed)

    others = {name: {"others": paths} for name, paths in versions.items()}
    report = process_files(sources, work, copies, journal, "Augmenting", _check, known=others)
    report.remove_stale()
    report.check_any(str(len(sources)), "Augmented")
    duration_s = sum(record["duration_s"] for record in report.records.values())
    recorded_s = sum(record["recorded_s"] for record in report.records.values())
    text = (
        f"{report.summary('Augmented')}\n'{folder}' holds {duration_s / 60:.1f} minutes, "
        f"{recorded_s / 60:.1f} of them recordings."
    )
    figures = {**report.figures, "duration_s": duration_s, "recorded_s": recorded_s}
    written = {
        path: levels
        for record in report.records.values()
        for path, levels in zip(record["others"], record["levels"], strict=True)
    }
    return Result(text, figures, num_skipped=len(report.skipped), written=written)


def _check(record: dict[str, Any]) -> None:
    check_record(record, recorded_s=float, duration_s=float, levels=list[dict[str, Any]])
    for _, level in zip(record["others"], record["levels"], strict=True):
        check_record(level, **WRITTEN)


def names_of(
    sources: Iterable[str], num_versions: int
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return distinct file names for the copy and the versions of each recording.

    a.wav and a~1.flac, a~2.flac …; a.wav~1.flac where others have these names.
    """

    def copy_name(name: str, level: int) -> str:
        suffix = PurePosixPath(name).suffix
        return fitted(f"{name}.{level + 1}", suffix) if level else name

    def version_name(item: str, level: int) -> str:
        name, _, number = item.rpartition("~")
        stem = name if level else str(PurePosixPath(name).with_suffix(""))
        further = f".{level}" if level > 1 else ""
        return fitted(stem, f"{further}~{number}{VERSION_SUFFIX}")

    sources = sorted(sources)
    folders = {str(folder) for name in sources for folder in PurePosixPath(name).parents}
    copies = distinct_names(sources, copy_name, folders)
    items = [f"{name}~{number}" for name in sources for number in range(1, num_versions + 1)]
    names = distinct_names(items, version_name, {*folders, *copies.values()})
    versions = {
        name: [names[f"{name}~{number}"] for number in range(1, num_versions + 1)]
        for name in sources
    }
    return copies, versions


def write_versions(
    name: str,
    source: Path,
    copy: Path,
    versions: Sequence[Path],
    semitones: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """Copy a recording and write its versions, each whole or not at all.

    Args:
        name: Name of the recording; random values depend on it.
        source: Audio file.
        copy: Where the recording goes.
        versions: Where each version goes, in the same folder.
        semitones: Transposition of each version.
        seed: Random seed of shifts and polarities.

    Returns:
        `recorded_s` and `duration_s`, the seconds without and with versions; `levels` of each
        version, from `rave.audio.blocks.Quantizer.figures`.

    Raises:
        AudioError: If the file cannot be used.
        OSError: If a file cannot be written.
    """
    rate_hz, first = next(decode_blocks(source), (0, None))
    if first is None:
        raise AudioError(f"'{source.name}' holds no samples. Replace it with a complete copy.")
    stream = AudioStream(source, rate_hz, len(first))
    length = sum(block.shape[1] for block in stream)
    recorded_s = duration_s = length / rate_hz
    levels: list[dict[str, Any]] = []
    for number, (path, transposition) in enumerate(zip(versions, semitones, strict=True), 1):
        rng = np.random.default_rng([seed, number, *name.encode(errors="surrogateescape")])
        begin, sign = int(rng.uniform(0, MAX_SHIFT_S) * rate_hz), rng.choice([-1.0, 1.0])
        speed = 2 ** (transposition / 12)
        num_samples = int(length / speed) - begin
        if num_samples < 1:
            levels.append(Quantizer().figures)
            path.unlink(missing_ok=True)
            continue
        faster = AudioStream(source, round(rate_hz / speed), len(first))
        blocks = (np.float32(sign) * block for block in from_sample(faster, begin))
        note = note_of(copy.name)
        try:
            quantizer = write_audio(
                path, blocks, rate_hz, len(first), num_samples, note, is_durable=False
            )
        except ValueError as error:
            raise AudioError(f"'{source.name}' cannot be written as FLAC: {error}") from error
        levels.append(quantizer.figures)
        duration_s += num_samples / rate_hz
    with atomic_write(copy, is_durable=False) as temporary:  # last: if it exists, so do versions
        shutil.copyfile(source, temporary)
    return {"recorded_s": recorded_s, "duration_s": duration_s, "levels": levels}
