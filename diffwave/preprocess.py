# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.preprocess`: spectrograms or controls aligned to a latent folder's frames."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import command_parser, execute
from rave.files.atomic import check_record

if TYPE_CHECKING:
    from rave.latents.folder import LatentHeader

JOURNAL_NAME = ".preprocess.jsonl"
WAVEFORM_RATE_HZ = 22050  # lmnt diffwave's
CHECK = partial(check_record, num_frames=int)


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.preprocess",
        "Make what a model can follow of the audio that latents were encoded from: log-mel "
        "spectrograms,\nor controls that one can play or draw. The same command again continues, "
        "and takes in what was added\nor changed.",
        "python -m diffwave.preprocess latents recordings spectrograms\n"
        "  python -m diffwave.preprocess latents recordings controls --controls loudness chroma\n"
        "  python -m diffwave.preprocess recordings spectrograms --waveform",
    )
    options.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="LATENTS_DIR, what rave encode wrote (left out with --waveform); AUDIO_DIR, what it "
        "encoded; OUT_DIR, folder to make",
    )
    options.add_argument(
        "--waveform",
        action="store_true",
        dest="is_waveform",
        help="make FILE.spec.npy of every audio file, for models of audio as lmnt diffwave trains; "
        "OUT_DIR may be AUDIO_DIR",
    )
    options.add_argument("--sample-rate", type=int, help="in Hz, of --waveform (default 22050)")
    options.add_argument(
        "--controls",
        nargs="*",
        metavar="NAME",
        help="make a folder of controls, not of spectrograms: loudness, chroma, onsets (default "
        "all three); a later call may add one",
    )
    options.add_argument(
        "--mel-hop",
        type=int,
        default=256,
        help="samples between frames; must divide the hop of the latents (default 256)",
    )
    options.add_argument("--mels", type=int, default=80, help="mel bands (default 80)")
    options.add_argument(
        "--force", action="store_true", help="make the folder anew if its settings differ"
    )
    return options


def run(options: argparse.Namespace) -> Result:
    """Make the folder and report what became of every file."""
    from rave.files.atomic import check_output_folder
    from rave.latents.folder import LatentHeader

    _name_folders(options)
    if options.is_waveform:
        return _make_waveform_spectrograms(options)
    header = LatentHeader.read(options.latents)
    if not options.audio.is_dir():
        raise ValueError(f"'{options.audio}' is not a folder. Give the folder that was encoded.")
    sources = {file.path: file.source for file in header.files if file.source}
    if not sources:
        raise ValueError(f"'{options.latents}' holds no latents that were encoded from audio.")
    check_output_folder(options.out, options.audio)
    check_output_folder(options.out, options.latents)
    if options.controls is None:
        return _make_spectrograms(options, header, sources)
    return _make_controls(options, header, sources)


def _name_folders(options: argparse.Namespace) -> None:
    names = ["latents", "audio", "out"][1 if options.is_waveform else 0 :]
    if len(options.folders) != len(names):
        needed = " ".join(f"{name.upper()}_DIR" for name in names)
        raise ValueError(f"{len(options.folders)} folders were given; {needed} are needed.")
    vars(options).update(zip(names, options.folders, strict=True))
    if options.is_waveform and options.controls is not None:
        raise ValueError("--waveform makes spectrograms, not --controls.")
    if options.sample_rate is not None and not options.is_waveform:
        raise ValueError("--sample-rate belongs to --waveform: latents have the codec's.")


def _make_waveform_spectrograms(options: argparse.Namespace) -> Result:
    from diffwave.conditions.spectrogram import LogMel
    from diffwave.upstream.waveform import HOP_SAMPLES
    from rave.audio.io import list_audio_files, read_audio
    from rave.files.atomic import check_output_folder, remove_partials
    from rave.files.errors import SkipFile
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files, result_names
    from rave.latents.folder import write_latents

    if options.mel_hop != HOP_SAMPLES:
        raise ValueError(f"--mel-hop is {options.mel_hop}; of --waveform it is {HOP_SAMPLES}.")
    rate_hz = WAVEFORM_RATE_HZ if options.sample_rate is None else options.sample_rate
    if options.mels < 1:
        raise ValueError(f"--mels is {options.mels}; at least 1 is needed.")
    if options.out.resolve() != options.audio.resolve():
        check_output_folder(options.out, options.audio)
    sources = list_audio_files(options.audio)
    paths = result_names(sources, ".spec.npy", is_whole_name=True)
    transform = LogMel(rate_hz, options.mel_hop, options.mels)
    settings = {"sample_rate_hz": rate_hz, "num_mels": options.mels}
    journal = Journal(options.out / JOURNAL_NAME, settings, force=options.force)
    remove_partials(options.out)

    def work(name: str, source: Path) -> dict[str, Any]:
        audio = read_audio(source, rate_hz, 1)[0]
        try:
            mel = transform.of_lmnt_diffwave(audio)
        except ValueError as error:
            raise SkipFile(str(error)) from error
        path = options.out / paths[name]
        return {"num_frames": write_latents(path, [mel], options.mels, is_durable=False)}

    report = process_files(sources, work, paths, journal, "Spectrograms", CHECK)
    report.remove_stale()
    report.check_any(f"'{options.audio}'", "Made spectrograms of")
    figures = {"folder": str(options.out), **settings, **report.figures}
    return Result(report.summary("Made spectrograms of"), figures, len(report.skipped))


def _make_spectrograms(
    options: argparse.Namespace, header: LatentHeader, sources: dict[str, str]
) -> Result:
    from diffwave.conditioner import whole_ratio
    from diffwave.conditions.controls import HEADER_NAME as OTHERS
    from diffwave.conditions.spectrogram import HEADER_NAME as OURS
    from diffwave.conditions.spectrogram import LogMel, SpectrogramHeader, write_spectrogram
    from rave.files.atomic import remove_partials
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files

    ratio = whole_ratio(header.hop_samples, options.mel_hop)
    if options.mels < 1:
        raise ValueError(f"--mels is {options.mels}; at least 1 is needed.")
    _check_kind(options.out, OTHERS, "controls; add --controls, or choose")
    num_frames = {file.path: file.num_frames for file in header.files}
    transform = LogMel(header.sample_rate_hz, options.mel_hop, options.mels)
    settings = {
        **_origin(header),
        "mel_hop_samples": options.mel_hop,
        "num_mels": options.mels,
    }
    journal = Journal(options.out / JOURNAL_NAME, settings, force=options.force)
    remove_partials(options.out)

    def work(name: str, source: Path) -> dict[str, Any]:
        num_mel_frames = num_frames[name] * ratio
        write_spectrogram(
            options.out / name, source, transform, header.sample_rate_hz, num_mel_frames
        )
        return {"num_frames": num_frames[name]}

    audio = {path: options.audio / source for path, source in sources.items()}
    paths = {path: path for path in sources}
    made_of = {path: {"source": source} for path, source in sources.items()}
    report = process_files(
        audio, work, paths, journal, "Spectrograms", CHECK, header=OURS, known=made_of
    )
    report.check_any(f"'{options.audio}'", "Made spectrograms of")
    files = {name: record["num_frames"] for name, record in report.records.items()}
    SpectrogramHeader(
        **settings,
        files=files,
        skipped=report.skipped,
        sources={name: sources[name] for name in files},
    ).write(options.out)
    report.remove_stale()
    figures = {
        "folder": str(options.out),
        "num_mels": options.mels,
        "mel_frames_per_latent_frame": ratio,
        **report.figures,
    }
    return Result(report.summary("Made spectrograms of"), figures, len(report.skipped))


def _make_controls(
    options: argparse.Namespace, header: LatentHeader, sources: dict[str, str]
) -> Result:
    from dataclasses import replace

    from diffwave.conditions.controls import HEADER_NAME as OURS
    from diffwave.conditions.controls import (
        NUM_CHANNELS,
        ControlHeader,
        check_controls,
        write_control,
    )
    from diffwave.conditions.spectrogram import HEADER_NAME as OTHERS
    from rave.files.atomic import remove_partials
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files

    names = check_controls(options.controls)
    _check_kind(options.out, OTHERS, "spectrograms; choose")
    num_frames = {file.path: file.num_frames for file in header.files}
    journal = Journal(options.out / JOURNAL_NAME, _origin(header), force=options.force)
    made = {name.partition("/")[0] for name in journal.names}
    names = check_controls([*names, *made])  # those of an earlier call are kept up to date
    remove_partials(options.out)
    items = {
        f"{name}/{path}": options.audio / source
        for path, source in sources.items()
        for name in names
    }

    def work(item: str, source: Path) -> dict[str, Any]:
        name, _, path = item.partition("/")
        rate_hz, hop = header.sample_rate_hz, header.hop_samples
        write_control(options.out / item, source, name, rate_hz, hop, num_frames[path])
        return {"num_frames": num_frames[path]}

    paths = {item: item for item in items}
    made_of = {item: {"source": sources[item.partition("/")[2]]} for item in items}
    report = process_files(
        items, work, paths, journal, "Controls", CHECK, header=OURS, known=made_of
    )
    skipped = {item.partition("/")[2]: reason for item, reason in report.skipped.items()}
    if len(skipped) == len(sources):
        replace(report, records={}).check_any(f"'{options.audio}'", "Made")
    files = {path: num_frames[path] for path in sources if path not in skipped}
    controls = {name: NUM_CHANNELS[name] for name in names}
    ControlHeader(
        **_origin(header),
        controls=controls,
        files=files,
        skipped=skipped,
        sources={path: sources[path] for path in files},
    ).write(options.out)
    report.remove_stale()
    figures = {"folder": str(options.out), "controls": names, **report.figures}
    summary = report.summary(f"Made {', '.join(names)}:")
    return Result(summary, figures, len(skipped))


def _origin(header: LatentHeader) -> dict[str, Any]:
    return {
        "codec": header.codec,
        "sample_rate_hz": header.sample_rate_hz,
        "hop_samples": header.hop_samples,
    }


def _check_kind(folder: Path, other_header: str, what: str) -> None:
    """Check that a folder does not hold the other kind of conditions."""
    if (folder / other_header).exists():
        raise ValueError(f"'{folder}' holds {what} another folder.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
