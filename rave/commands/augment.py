"""`rave augment`: recordings → the same, with transposed and shifted versions of each."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rave.api.result import Result
from rave.cli import AUDIO_FOLDER, add_seed, command_parser
from rave.held_out import JOURNAL_NAME, VERSION_SUFFIX, note_of, noted
from rave.parsing import existing

SEMITONES = (-2.0, -1.0, 0.0, 0.0, 1.0, 2.0)
MAX_SEMITONES = 12.0
# A version begins up to this later: more than a latent frame, which so falls elsewhere.
MAX_SHIFT_S = 0.1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser(
        "rave augment",
        "Write every recording and versions of it, named a~1.flac, a~2.flac, …, to train on more "
        "than there is:\nplayed faster or slower, begun a moment later, some upside down in "
        "polarity. Each version holds a note of which recording beside it it is one: versions are\n"
        "never held out, and never trained on where their recording is held out. The same command\n"
        "again continues.",
        "rave augment recordings augmented --semitones -1 0 1",
    )
    parser.add_argument(
        "audio_dir",
        type=existing(AUDIO_FOLDER),
        metavar="AUDIO_DIR",
        help="folder of audio of any format",
    )
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="folder to write")
    parser.add_argument(
        "--semitones",
        type=float,
        nargs="+",
        default=list(SEMITONES),
        metavar="N",
        help="one version for each: how much higher (and faster) it is; 0 only begins later "
        f"(default {' '.join(f'{each:g}' for each in SEMITONES)})",
    )
    parser.add_argument("--force", action="store_true", help="replace versions of other settings")
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Write the recordings and their versions, and report how much there is.

    Raises:
        ValueError: If folders or options cannot be used, or no file is usable.
        OSError: If the folder cannot be written; what was finished is kept.
    """
    from rave.audio.io import list_audio_files
    from rave.files.atomic import check_output_folder, remove_partials
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files

    folder: Path = options.out_dir
    for semitones in options.semitones:
        if not abs(semitones) <= MAX_SEMITONES:
            raise ValueError(
                f"--semitones {semitones:g} was given; -{MAX_SEMITONES:g} to {MAX_SEMITONES:g} is "
                "possible."
            )
    sources = list_audio_files(options.audio_dir)
    for name, source in sources.items():
        if (original := noted(source)) is not None:
            raise ValueError(
                f"'{name}' is a version of '{original}' that `rave augment` wrote. Give the folder "
                "of the recordings themselves."
            )
    check_output_folder(folder, options.audio_dir)
    settings = {"semitones": options.semitones, "seed": options.seed}
    journal = Journal(folder / JOURNAL_NAME, settings, force=options.force)
    remove_partials(folder)
    copies, versions = names_of(sources, len(options.semitones))

    def work(name: str, source: Path) -> dict[str, Any]:
        copy = folder / copies[name]
        paths = [folder / path for path in versions[name]]
        return write_versions(name, source, copy, paths, options.semitones, options.seed)

    others = {name: {"others": paths} for name, paths in versions.items()}
    report = process_files(sources, work, copies, journal, "Augmenting", _check, known=others)
    report.remove_stale()
    report.check_any(str(len(sources)), "Augmented")
    duration_s = sum(record["duration_s"] for record in report.records.values())
    recorded_s = sum(record["recorded_s"] for record in report.records.values())
    text = (
        f"{report.summary('Augmented')}\n'{folder}' holds {duration_s / 60:.1f} minutes, of "
        f"{recorded_s / 60:.1f} recorded."
    )
    figures = {**report.figures, "duration_s": duration_s, "recorded_s": recorded_s}
    written = {
        path: levels
        for record in report.records.values()
        for path, levels in zip(record["others"], record["levels"], strict=True)
    }
    return Result(text, figures, num_skipped=len(report.skipped), written=written)


def _check(record: dict[str, Any]) -> None:
    from rave.audio.blocks import WRITTEN
    from rave.files.atomic import check_record

    check_record(record, recorded_s=float, duration_s=float, levels=list[dict[str, Any]])
    for _, level in zip(record["others"], record["levels"], strict=True):
        check_record(level, **WRITTEN)


def names_of(
    sources: Iterable[str], num_versions: int
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the names of the copy and of the versions of each recording, no two of them one file.

    a.wav and a~1.flac, a~2.flac …; a.wav~1.flac where others have these names.
    """
    from rave.jobs.loop import distinct_names, fitted

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
    """Write a recording, as it is, and its versions, each whole or not at all.

    Args:
        name: Of the recording; the randomness follows from it.
        source: Audio file.
        copy: Where the recording goes.
        versions: Where each version goes, in the same folder.
        semitones: Of each version.
        seed: Of shifts and polarities.

    Returns:
        `recorded_s` and `duration_s`, the seconds of the recording, and with its versions; `levels`
        of each version, see `rave.audio.blocks.Quantizer.figures`.

    Raises:
        AudioError: If the file cannot be used.
        OSError: If a file cannot be written.
    """
    import numpy as np

    from rave.audio.blocks import Quantizer, from_sample
    from rave.audio.formats import AudioError, decode_blocks
    from rave.audio.io import AudioStream, write_audio
    from rave.files.atomic import atomic_write

    rate_hz, first = next(decode_blocks(source), (0, None))
    if first is None:
        raise AudioError(f"'{source.name}' holds no samples. Put a whole copy in its place.")
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
            raise AudioError(f"'{source.name}' has no FLAC: {error}") from error
        levels.append(quantizer.figures)
        duration_s += num_samples / rate_hz
    with atomic_write(copy, is_durable=False) as temporary:  # last: where it is, all versions are
        shutil.copyfile(source, temporary)
    return {"recorded_s": recorded_s, "duration_s": duration_s, "levels": levels}
