"""`rave augment`: recordings → the same, with transposed and shifted versions of each."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rave.command import AUDIO_FOLDER, Result, add_seed, command_parser, existing

JOURNAL_NAME = ".augment.jsonl"
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
        "polarity. Versions are never held\nout, and never trained on where their recording is "
        "held out. The same command again continues.",
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
    from rave.audio import list_audio_files
    from rave.batch import process_files
    from rave.files import Journal, check_output_folder, remove_partials

    folder: Path = options.out_dir
    for semitones in options.semitones:
        if not abs(semitones) <= MAX_SEMITONES:
            raise ValueError(
                f"--semitones {semitones:g} was given; -{MAX_SEMITONES:g} to {MAX_SEMITONES:g} is "
                "possible."
            )
    sources = list_audio_files(options.audio_dir)
    _check_names(sources)
    check_output_folder(folder, options.audio_dir)
    settings = {"semitones": options.semitones, "seed": options.seed}
    journal = Journal(folder / JOURNAL_NAME, settings, force=options.force)
    remove_partials(folder)
    report = process_files(
        sources,
        lambda name, source: write_versions(source, folder, name, options.semitones, options.seed),
        lambda name: folder / name,
        journal,
        "Augmenting",
    )
    if not report.records:
        raise ValueError(f"No file of {len(sources)} can be used. {report.summary('Augmented')}")
    duration_s = sum(record["duration_s"] for record in report.records.values())
    recorded_s = sum(record["recorded_s"] for record in report.records.values())
    text = (
        f"{report.summary('Augmented')}\n'{folder}' holds {duration_s / 60:.1f} minutes, of "
        f"{recorded_s / 60:.1f} recorded."
    )
    figures = {**report.figures, "duration_s": duration_s, "recorded_s": recorded_s}
    return Result(text, figures, num_skipped=len(report.skipped))


def _check_names(names: Iterable[str]) -> None:
    """Check that no recording is named as a version, and that no two would share versions."""
    from rave.versions import is_version, original_name

    known: dict[str, str] = {}
    for name in names:
        if is_version(name):
            raise ValueError(
                f"'{name}' is named as a version. Give the folder of the recordings themselves, or "
                "rename it."
            )
        other = known.setdefault(original_name(name), name)
        if other != name:
            raise ValueError(f"Versions of '{other}' and '{name}' would share names. Rename one.")


def write_versions(
    source: Path, folder: Path, name: str, semitones: Iterable[float], seed: int
) -> dict[str, Any]:
    """Write a recording, as it is, and its versions, each whole or not at all.

    Args:
        source: Audio file.
        folder: To write into.
        name: Of the recording in the folder.
        semitones: One version for each.
        seed: Of shifts and polarities.

    Returns:
        `recorded_s` and `duration_s`, the seconds of the recording, and with its versions.

    Raises:
        AudioError: If the file cannot be used.
        OSError: If a file cannot be written.
    """
    import numpy as np

    from rave.audio import AudioStream, write_audio
    from rave.audio_blocks import from_sample
    from rave.audio_formats import AudioError, decode_blocks
    from rave.files import atomic_write
    from rave.versions import version_name

    rate_hz, first = next(decode_blocks(source), (0, None))
    if first is None:
        raise AudioError(f"'{source.name}' holds no samples. Put a whole copy in its place.")
    stream = AudioStream(source, rate_hz, len(first))
    length = sum(block.shape[1] for block in stream)
    recorded_s = duration_s = length / rate_hz
    for number, transposition in enumerate(semitones, 1):
        rng = np.random.default_rng([seed, number, *name.encode()])
        begin, sign = int(rng.uniform(0, MAX_SHIFT_S) * rate_hz), rng.choice([-1.0, 1.0])
        speed = 2 ** (transposition / 12)
        num_samples = int(length / speed) - begin
        if num_samples < 1:
            continue
        faster = AudioStream(source, round(rate_hz / speed), len(first))
        blocks = (np.float32(sign) * block for block in from_sample(faster, begin))
        path = folder / version_name(name, number, ".flac")
        try:
            write_audio(path, blocks, rate_hz, len(first), num_samples)
        except ValueError as error:
            raise AudioError(f"'{source.name}' has no FLAC: {error}") from error
        duration_s += num_samples / rate_hz
    with atomic_write(folder / name) as temporary:  # last: where it is, all versions are
        shutil.copyfile(source, temporary)
    return {"recorded_s": recorded_s, "duration_s": duration_s}
