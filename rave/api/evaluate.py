"""How far a folder of audio is from a folder of recordings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from rave.api.result import Result
from rave.audio.formats import AudioError
from rave.audio.io import list_audio_files, read_audio
from rave.files.atomic import write_json
from rave.held_out import without_suffix
from rave.jobs.loop import result_names, skipped_line
from rave.parsing import check_seed, path_or_none

if TYPE_CHECKING:  # torch takes long to import; what is refused without it is refused at once
    from rave.evaluation.folders import Listener, Piece


def evaluate_folder(
    reference_dir: str | Path,
    audio_dir: str | Path,
    *,
    sample_rate: int = 22050,
    patches: int | None = None,
    only: Sequence[str] | None = None,
    follows: str | Path | None = None,
    out: str | Path | None = None,
    seed: int = 0,
) -> Result:
    """Measure how far audio is from reference recordings.

    Args:
        reference_dir: Folder of real audio, of any format.
        audio_dir: Folder to compare with it.
        sample_rate: Sample rate in Hz for spectra, onsets, harmony and loudness; the network always
            gets 16000 Hz.
        patches: Number of 3 s patches per set; only figures computed with the same number are
            comparable. None: the most that half the reference and all of the audio allow.
        only: Names (without suffix) of the files to compare; None: all.
        follows: Recording whose loudness and chroma each file should follow.
        out: JSON file that the figures are written to.
        seed: Random seed of the choice of patches.

    Returns:
        Figures of both folders, their distances, and figures of each pair of files.

    Raises:
        ValueError: If a value or a folder cannot be used, or no file of one is usable.
        OSError: If the figures cannot be written.
    """
    reference_dir, audio_dir = Path(reference_dir), Path(audio_dir)
    out = path_or_none(out)
    follows = path_or_none(follows)
    if not 8000 <= sample_rate <= 96000:
        raise ValueError(f"--sample-rate is {sample_rate}; it must be from 8000 to 96000 Hz.")
    check_seed(seed)
    if out and (out.suffix != ".json" or out.is_dir()):
        raise ValueError(f"--out is '{out}'; name a file that ends in .json.")
    if follows and not follows.is_file():
        raise ValueError(f"The recording to follow, '{follows}', does not exist.")
    from rave.evaluation.folders import Listener, compare, pooled, pooled_notes

    sources = {
        side: _sources(folder, only)
        for side, folder in (("reference", reference_dir), ("audio", audio_dir))
    }
    listener = Listener()
    skipped: dict[str, str] = {}
    pieces = {
        side: _measured(side, files, sample_rate, listener, skipped)
        for side, files in sources.items()
    }
    comparison = compare(pieces["reference"], pieces["audio"], seed, patches)
    figures: dict[str, Any] = {
        side: {
            "num_files": len({p.name for p in these}),
            **pooled(these).figures(),
            **pooled_notes(these).figures(),
        }
        for side, these in pieces.items()
    }
    figures |= {"seed": seed, "distance": comparison.record()}
    lines = [f"{'':44}{'audio':>10}{'reference':>26}"]
    lines += [
        f"{name:44}{_figure(figures['audio'][name]):>10}{_figure(figures['reference'][name]):>26}"
        for name in figures["audio"]
    ]
    lines += [comparison.words(), *_pairs(sources, pieces, sample_rate, figures)]
    if follows:
        lines += _followed(sources["audio"], follows, sample_rate, skipped, figures)
    figures |= {"num_skipped": len(skipped), "skipped": skipped}
    lines += [skipped_line(name, reason) for name, reason in skipped.items()]
    if out:
        write_json(out, figures)
    return Result("\n".join(lines), figures, num_skipped=len(skipped))


def _sources(folder: Path, only: Sequence[str] | None) -> dict[str, Path]:
    """Return the files of a folder by their names with suffix, in sorted order."""
    files = list_audio_files(folder)
    if only:
        stems = result_names(files, "")
        named = {*only} & {*stems.values(), *(without_suffix(name) for name in files)}
        if missing := {*only} - named:
            raise ValueError(
                f"'{folder}' holds no file '{min(missing)}' (--only). Give names of its files, "
                "without suffix."
            )
        files = {n: p for n, p in files.items() if {stems[n], without_suffix(n)} & named}
    return files


def _measured(
    side: str,
    files: dict[str, Path],
    sample_rate_hz: int,
    listener: Listener,
    skipped: dict[str, str],
) -> list[Piece]:
    from rave.evaluation.folders import measure_file

    pieces: list[Piece] = []
    reasons: dict[str, str] = {}
    with tqdm(total=len(files), desc=f"Measuring {side}", unit="file", file=sys.stderr) as bar:
        for name, path in files.items():
            try:
                pieces += measure_file(path, name, sample_rate_hz, listener)
            except AudioError as error:
                reasons[f"{side} '{name}'"] = str(error)
                bar.write(skipped_line(name, error), file=sys.stderr)
            bar.update()
    if not pieces:
        text = " ".join(reasons.values()) if len(reasons) < 4 else f"{len(reasons)} were skipped."
        raise ValueError(f"No file of the {side} can be used. {text}")
    skipped |= reasons
    return pieces


def _pairs(
    sources: dict[str, dict[str, Path]],
    pieces: dict[str, list[Piece]],
    sample_rate_hz: int,
    figures: dict[str, Any],
) -> list[str]:
    """Compare files of the same name, add the figures, and return lines about them."""
    from rave.evaluation.folders import compare_pair, pair_scores

    by_name: dict[str, dict[str, list[Piece]]] = {}
    for side, these in pieces.items():
        by_name[side] = {name: [p for p in these if p.name == name] for name in sources[side]}
    usable = {
        side: {name: path for name, path in files.items() if by_name[side][name]}
        for side, files in sources.items()
    }
    found, left_out = pair_names(*usable.values())
    pairs: dict[str, Any] = {}
    lines: list[str] = []
    for name, (first, second) in found.items():
        paths = usable["reference"][first], usable["audio"][second]
        pair = compare_pair(*paths, sample_rate_hz)
        if pair is None:
            left_out["reference"][first] = left_out["audio"][second] = "their lengths differ"
            continue
        pair |= pair_scores(by_name["reference"][first], by_name["audio"][second])
        pairs[name] = pair
        lines.append(
            f"{name}: {pair['log_spectral_distance_db']:.2f} dB apart (silence "
            f"{pair['silence_would_score_db']:.2f}), level {pair['level_difference_db']:+.1f} dB, "
            f"F1 of notes {pair['note_f1']:.2f}, of frames {pair['frame_f1']:.2f}"
        )
    figures["not_compared_one_by_one"] = left_out
    for side, reasons in left_out.items():
        if reasons and len(reasons) == len(usable[side]):
            lines.append(f"{side}: no file is compared one by one: {next(iter(reasons.values()))}")
            continue
        lines += [
            f"{side} '{name}': not compared one by one, {reason}"
            for name, reason in reasons.items()
        ]
    figures["pairs"] = pairs
    if pairs:
        for name in ("log_spectral_distance_db", "note_f1", "frame_f1"):
            figures[name] = sum(pair[name] for pair in pairs.values()) / len(pairs)
        lines.append(
            f"mean log-spectral distance {figures['log_spectral_distance_db']:.2f} dB, F1 of notes "
            f"{figures['note_f1']:.2f}, of frames {figures['frame_f1']:.2f} over {len(pairs)} files"
        )
    return lines


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def pair_names(
    reference: Iterable[str], audio: Iterable[str]
) -> tuple[dict[str, tuple[str, str]], dict[str, dict[str, str]]]:
    """Pair files with the same name; the suffix may differ where only one pair is possible.

    Returns:
        The two files of each pair, by name (without suffix where that is unique); and for reference
        and audio the reason why each other file has no pair.
    """
    stems = {"reference": result_names(reference, ""), "audio": result_names(audio, "")}
    possible: dict[str, dict[str, set[str]]] = {}
    alike: dict[str, dict[str, list[str]]] = {}
    for side, other in zip(stems, reversed(stems), strict=True):
        by_stem = {stem: name for name, stem in stems[other].items()}
        alike[side] = {}
        for name in stems[other]:
            alike[side].setdefault(without_suffix(name), []).append(name)
        possible[side] = {
            name: {found for found in (by_stem.get(stem), name) if found in stems[other]}
            for name, stem in stems[side].items()
        }
    pairs: dict[str, tuple[str, str]] = {}
    left_out: dict[str, dict[str, str]] = {"reference": {}, "audio": {}}
    for name, others in possible["reference"].items():
        if len(others) == 1 and possible["audio"][other := min(others)] == {name}:
            pairs[stems["reference"][name]] = (name, other)
    paired = {"reference": {r for r, _ in pairs.values()}, "audio": {a for _, a in pairs.values()}}
    for side, other in zip(stems, reversed(stems), strict=True):
        for name in sorted(possible[side].keys() - paired[side]):
            others = possible[side][name] or {*alike[side].get(without_suffix(name), [])}
            free = " or ".join(f"'{each}'" for each in sorted(others - paired[other]))
            reason = (
                f"it may belong to {free}: give the pair one name"
                if free
                else "no file has the same name"
            )
            is_taken = others and not free
            left_out[side][name] = "its file already has a pair" if is_taken else reason
    return pairs, left_out


def _followed(
    files: dict[str, Path],
    recording: Path,
    sample_rate_hz: int,
    skipped: dict[str, str],
    figures: dict[str, Any],
) -> list[str]:
    from rave.evaluation.audio_statistics import followed

    source = read_audio(recording, sample_rate_hz, 1)[0]
    figures["follows"] = {
        name: followed(read_audio(path, sample_rate_hz, 1)[0], source, sample_rate_hz)
        for name, path in files.items()
        if f"audio '{name}'" not in skipped
    }
    return [
        f"{name}: correlation with {recording.name}: loudness {found['loudness']:.2f}, "
        f"chroma {found['chroma']:.2f}"
        for name, found in figures["follows"].items()
    ]
