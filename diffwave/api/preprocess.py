"""Make spectrograms or controls for a model to follow, aligned to the latent frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rave.api.result import Result
from rave.files.atomic import check_output_folder, check_record, remove_partials
from rave.latents.folder import LatentHeader

JOURNAL_NAME = ".preprocess.jsonl"
CHECK = partial(check_record, num_frames=int)


@dataclass(frozen=True)
class ConditionFolders:
    """The folders from which conditions are made, and the one to make.

    Attributes:
        header: Header of the latents.
        audio: Folder of the audio that was encoded.
        out: Folder to make.
        sources: Audio file of each latent file, relative to `audio`.
    """

    header: LatentHeader
    audio: Path
    out: Path
    sources: dict[str, str]


def make_conditions(
    latents_dir: str | Path,
    audio_dir: str | Path,
    out_dir: str | Path,
    *,
    controls: Sequence[str] | None = None,
    mel_hop: int = 256,
    mels: int = 80,
    force: bool = False,
) -> Result:
    """Write log-mel spectrograms, or controls, of the audio that was encoded to latents.

    The same call again continues, and adds new and changed files.

    Args:
        latents_dir: Folder of latents.
        audio_dir: Folder of the audio that was encoded.
        out_dir: Folder to make.
        controls: Names of controls: loudness, chroma, onsets; empty for all three. Controls of an
            earlier call are also updated. None: spectrograms.
        mel_hop: Samples between frames of a spectrogram; must divide the hop of the latents.
        mels: Mel bands of a spectrogram.
        force: Replace a folder made with other settings.

    Returns:
        Figures: number of files, and the reason for each skipped file.

    Raises:
        ValueError: If a value is not possible, or a folder or all of its files cannot be used.
        OSError: If a file cannot be written.
    """
    latents, audio, out = Path(latents_dir), Path(audio_dir), Path(out_dir)
    header = LatentHeader.read(latents)
    if not audio.is_dir():
        raise ValueError(f"'{audio}' is not a folder. Give the folder of the encoded audio.")
    sources = {file.path: file.source for file in header.files if file.source}
    if not sources:
        raise ValueError(f"'{latents}' holds no latents that were encoded from audio.")
    check_output_folder(out, audio)
    check_output_folder(out, latents)
    folders = ConditionFolders(header, audio, out, sources)
    if controls is None:
        return _make_spectrograms(folders, mel_hop, mels, force)
    return _make_controls(folders, controls, force)


def _make_spectrograms(folders: ConditionFolders, mel_hop: int, mels: int, force: bool) -> Result:
    from diffwave.conditioner import whole_ratio
    from diffwave.conditions.controls import HEADER_NAME as CONTROLS_HEADER
    from diffwave.conditions.spectrogram import HEADER_NAME as MELS_HEADER
    from diffwave.conditions.spectrogram import LogMel, SpectrogramHeader, write_spectrogram
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files

    header, sources, out = folders.header, folders.sources, folders.out
    ratio = whole_ratio(header.hop_samples, mel_hop)
    if mels < 1:
        raise ValueError(f"--mels is {mels}; at least 1 is needed.")
    _check_kind(out, CONTROLS_HEADER, "controls. Add --controls, or choose")
    num_frames = {file.path: file.num_frames for file in header.files}
    transform = LogMel(header.sample_rate_hz, mel_hop, mels)
    settings = {**_origin(header), "mel_hop_samples": mel_hop, "num_mels": mels}
    journal = Journal(out / JOURNAL_NAME, settings, force=force)
    remove_partials(out)

    def work(name: str, source: Path) -> dict[str, Any]:
        num_mel_frames = num_frames[name] * ratio
        write_spectrogram(out / name, source, transform, header.sample_rate_hz, num_mel_frames)
        return {"num_frames": num_frames[name]}

    audio = {path: folders.audio / source for path, source in sources.items()}
    paths = {path: path for path in sources}
    origins = {path: {"source": source} for path, source in sources.items()}
    report = process_files(
        audio, work, paths, journal, "Spectrograms", CHECK, header=MELS_HEADER, known=origins
    )
    report.check_any(f"'{folders.audio}'", "Made spectrograms of")
    files = {name: record["num_frames"] for name, record in report.records.items()}
    SpectrogramHeader(
        **settings,
        files=files,
        skipped=report.skipped,
        sources={name: sources[name] for name in files},
    ).write(out)
    report.remove_stale()
    figures = {
        "folder": str(out),
        "num_mels": mels,
        "mel_frames_per_latent_frame": ratio,
        **report.figures,
    }
    return Result(report.summary("Made spectrograms of"), figures, len(report.skipped))


def _make_controls(folders: ConditionFolders, controls: Sequence[str], force: bool) -> Result:
    from diffwave.conditions.controls import HEADER_NAME as CONTROLS_HEADER
    from diffwave.conditions.controls import (
        NUM_CHANNELS,
        ControlHeader,
        check_controls,
        write_control,
    )
    from diffwave.conditions.spectrogram import HEADER_NAME as MELS_HEADER
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files

    header, sources, out = folders.header, folders.sources, folders.out
    names = check_controls(controls)
    _check_kind(out, MELS_HEADER, "spectrograms. Choose")
    num_frames = {file.path: file.num_frames for file in header.files}
    journal = Journal(out / JOURNAL_NAME, _origin(header), force=force)
    earlier = {name.partition("/")[0] for name in journal.names}
    names = check_controls([*names, *earlier])  # also updates the controls of an earlier call
    remove_partials(out)
    items = {
        f"{name}/{path}": folders.audio / source
        for path, source in sources.items()
        for name in names
    }

    def work(item: str, source: Path) -> dict[str, Any]:
        name, _, path = item.partition("/")
        rate_hz, hop = header.sample_rate_hz, header.hop_samples
        write_control(out / item, source, name, rate_hz, hop, num_frames[path])
        return {"num_frames": num_frames[path]}

    paths = {item: item for item in items}
    origins = {item: {"source": sources[item.partition("/")[2]]} for item in items}
    report = process_files(
        items, work, paths, journal, "Controls", CHECK, header=CONTROLS_HEADER, known=origins
    )
    skipped = {item.partition("/")[2]: reason for item, reason in report.skipped.items()}
    if len(skipped) == len(sources):
        replace(report, records={}).check_any(f"'{folders.audio}'", "Made")
    files = {path: num_frames[path] for path in sources if path not in skipped}
    channels = {name: NUM_CHANNELS[name] for name in names}
    ControlHeader(
        **_origin(header),
        controls=channels,
        files=files,
        skipped=skipped,
        sources={path: sources[path] for path in files},
    ).write(out)
    report.remove_stale()
    figures = {"folder": str(out), "controls": names, **report.figures}
    summary = report.summary(f"Made {', '.join(names)}:")
    return Result(summary, figures, len(skipped))


def _origin(header: LatentHeader) -> dict[str, Any]:
    return {
        "codec": header.codec,
        "sample_rate_hz": header.sample_rate_hz,
        "hop_samples": header.hop_samples,
    }


def _check_kind(folder: Path, other_header: str, other_kind: str) -> None:
    """Check that a folder does not hold the other kind of conditions."""
    if (folder / other_header).exists():
        raise ValueError(f"'{folder}' holds {other_kind} another folder.")
