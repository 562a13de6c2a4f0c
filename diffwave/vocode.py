"""Audio from a waveform run of lmnt diffwave: what `python -m diffwave.inference` does with one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.parsing import one_line

if TYPE_CHECKING:
    from torch import Tensor

    from diffwave.upstream.vocoder import Vocoder

USED_OPTIONS = {
    "run",
    "out",
    "count",
    "seconds",
    "from_audio",
    "spectrogram",
    "is_fast",
    "seed",
    "device",
    "force",
    "json",
    "verbose",
}
SUFFIXES = (".wav", ".flac")
SPEC, JOURNAL_NAME = ".spec.npy", ".inference.jsonl"


@dataclass(frozen=True)
class Audible:
    """What is to be made.

    Attributes:
        num_samples: Of each item.
        spectrogram: (1, M, F) to follow, or None.
    """

    num_samples: int
    spectrogram: Tensor | None


def vocode(options: argparse.Namespace, vocoder: Vocoder, defaults: argparse.Namespace) -> Result:
    """Write audio of a waveform run.

    Args:
        options: Of the command.
        vocoder: The run.
        defaults: What the options are where none is given.

    Raises:
        ValueError: If an option does not belong to such a run, or an input does not fit it.
        AudioError: If the audio to follow cannot be read.
    """
    from tqdm import tqdm

    from rave.compute.device import choose_device
    from rave.files.atomic import check_no_source

    device = choose_device(options.device)
    for name in sorted(vars(options).keys() - USED_OPTIONS):
        if getattr(options, name) != getattr(defaults, name):
            raise ValueError(
                f"'{options.run}' is a model of audio; it knows no --{_option(name)}. Its options "
                "are --spectrogram or --from-audio, --seconds, --count, --fast and --seed."
            )
    vocoder.model.to(device)
    vocoder.model.steps_of(_betas(options, vocoder))  # its checks only
    if any(
        path is not None and path.is_dir() for path in (options.spectrogram, options.from_audio)
    ):
        return _vocode_folder(options, vocoder)
    count = 1 if options.count is None else options.count
    paths = _outputs(options.out, count, options.force)
    check_no_source(paths, [path for path in (options.spectrogram, options.from_audio) if path])
    task = _task(options, vocoder)
    num_steps = len(_betas(options, vocoder))
    items, written = [], {}
    with tqdm(desc="audio", total=count * num_steps, unit="step", file=sys.stderr) as bar:
        for index, path in enumerate(paths):
            seed = options.seed + index
            written[str(path)] = _write(path, vocoder, task, seed, options.is_fast, bar.update)
            items.append({"file": str(path), "peak": written[str(path)]["peak"]})
    duration_s = task.num_samples / vocoder.sample_rate_hz
    lines = [
        f"Made {count} of {duration_s:.2f} s at {vocoder.sample_rate_hz} Hz:",
        *(f"  {one_line(item['file'])}: peak {item['peak']:.2f}" for item in items),
    ]
    figures = {**_figures(options, vocoder), "duration_s": duration_s, "items": items}
    return Result("\n".join(lines), figures, written=written)


def _vocode_folder(options: argparse.Namespace, vocoder: Vocoder) -> Result:
    """Write the audio of every spectrogram, or of every recording, of a folder.

    Each is what the command makes of that file alone.
    """
    from rave.audio.blocks import WRITTEN
    from rave.audio.io import list_audio_files
    from rave.files.atomic import check_output_folder, check_record, remove_partials
    from rave.files.errors import SkipFile
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files, result_names

    folder: Path = options.from_audio if options.spectrogram is None else options.spectrogram
    if options.count is not None:
        raise ValueError(f"--count does not go with a folder ('{folder}'): one each is made.")
    _check_condition(options, vocoder)
    check_output_folder(options.out, folder)
    if options.spectrogram is None:
        sources = list_audio_files(folder)
    else:
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*" + SPEC)}
        sources = {name.removesuffix(SPEC): path for name, path in sorted(found.items())}
    if not sources:
        raise ValueError(f"'{folder}' holds no files that end in {SPEC}.")
    paths = result_names(sources, ".wav")
    outputs = {name: options.out / path for name, path in paths.items()}
    settings = {
        "run": vocoder.stamp,
        "is_audio": options.spectrogram is None,
        "is_fast": options.is_fast,
        "seed": options.seed,
    }
    journal = Journal(options.out / JOURNAL_NAME, settings, force=options.force)
    there = [path for path in outputs.values() if path.exists()]
    if there and not journal.path.exists() and not options.force:
        raise ValueError(f"'{there[0]}' exists; add --force to replace it, or name another folder.")
    remove_partials(options.out)

    def work(name: str, source: Path) -> dict[str, Any]:
        try:
            task = _following(source, vocoder, is_audio=options.spectrogram is None)
        except ValueError as error:
            raise SkipFile(str(error)) from error
        return _write(outputs[name], vocoder, task, options.seed, options.is_fast)

    report = process_files(sources, work, paths, journal, "audio", partial(check_record, **WRITTEN))
    report.remove_stale()
    report.check_any(f"'{folder}'", "Made audio of")
    items = [
        {"file": str(outputs[name]), "peak": record["peak"]}
        for name, record in report.records.items()
    ]
    figures = {**_figures(options, vocoder), **report.figures, "items": items}
    written = {str(outputs[name]): record for name, record in report.records.items()}
    return Result(report.summary("Made audio of"), figures, len(report.skipped), written=written)


def _betas(options: argparse.Namespace, vocoder: Vocoder) -> list[float]:
    return vocoder.model.fast_betas if options.is_fast else vocoder.model.betas


def _figures(options: argparse.Namespace, vocoder: Vocoder) -> dict[str, Any]:
    return {
        "kind": "audio",
        "sample_rate_hz": vocoder.sample_rate_hz,
        "num_steps": len(_betas(options, vocoder)),
        "train_steps": vocoder.num_steps,
    }


def _write(
    path: Path,
    vocoder: Vocoder,
    task: Audible,
    seed: int,
    is_fast: bool,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Write one file; return its `rave.audio.blocks.Quantizer.figures`."""
    import torch

    from rave.audio.io import write_audio

    device = vocoder.model.step_table.device
    spectrogram = None if task.spectrogram is None else task.spectrogram.to(device)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, task.num_samples, generator=generator).to(device)
    audio = vocoder.model.sample(noise, spectrogram, generator, is_fast, progress)
    block = audio.cpu().numpy()
    return write_audio(path, [block], vocoder.sample_rate_hz, 1, task.num_samples).figures


def _option(name: str) -> str:
    names = {"continued": "continue", "from_s": "from", "to_s": "to"}
    return names.get(name, name.replace("_", "-"))


def _outputs(out: Path, count: int, is_forced: bool) -> list[Path]:
    """Return the files to write: OUT itself if it is named as one, else files in the folder OUT."""
    if count < 1:
        raise ValueError(f"--count is {count}; at least 1 is needed.")
    is_file = out.suffix.lower() in SUFFIXES
    if is_file and count > 1:
        raise ValueError(f"--count {count} needs a folder to write into, not '{out}'.")
    if not is_file and out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file; give a folder, or a name that ends in .wav or .flac.")
    paths = [out] if is_file else [out / f"generated_{index:03d}.wav" for index in range(count)]
    there = [path for path in paths if path.exists()]
    if there and not is_forced:
        raise ValueError(f"'{there[0]}' exists; add --force to replace it, or name another.")
    return paths


def _task(options: argparse.Namespace, vocoder: Vocoder) -> Audible:
    _check_condition(options, vocoder)
    if vocoder.num_samples is not None:
        if options.seconds is None:
            return Audible(vocoder.num_samples, None)
        if not 0 < options.seconds < float("inf"):
            raise ValueError(f"--seconds is {options.seconds}; a number above 0 is needed.")
        return Audible(max(round(options.seconds * vocoder.sample_rate_hz), 1), None)
    if options.spectrogram is not None:
        return _following(options.spectrogram, vocoder, is_audio=False)
    return _following(options.from_audio, vocoder, is_audio=True)


def _check_condition(options: argparse.Namespace, vocoder: Vocoder) -> None:
    """Check that there is something to follow, exactly if the model takes it."""
    if vocoder.num_samples is not None:
        for name, value in (
            ("--spectrogram", options.spectrogram),
            ("--from-audio", options.from_audio),
        ):
            if value is not None:
                raise ValueError(f"'{options.run}' was trained without spectrograms: no {name}.")
        return
    if options.seconds is not None:
        raise ValueError("--seconds does not go with a spectrogram, which has a length of its own.")
    if (options.spectrogram is None) == (options.from_audio is None):
        raise ValueError(
            f"'{options.run}' makes audio of a spectrogram: add --spectrogram F.spec.npy, or "
            "--from-audio F (not both), a file or a folder."
        )
    if options.spectrogram is None and not vocoder.has_known_window:
        raise ValueError(
            "The run was trained on spectrograms of another window than 1024 samples, which cannot "
            "be made here. Give one with --spectrogram."
        )


def _following(path: Path, vocoder: Vocoder, *, is_audio: bool) -> Audible:
    import torch

    from diffwave.upstream.waveform import HOP_SAMPLES

    read = _spectrogram_of if is_audio else _read_spectrogram
    found = read(path, vocoder)
    return Audible(found.shape[1] * HOP_SAMPLES, found[None].to(torch.float32))


def _read_spectrogram(path: Path, vocoder: Vocoder) -> Tensor:
    import numpy as np
    import torch

    from diffwave.conditions.spectrogram import open_spectrogram

    found = np.array(open_spectrogram(path, vocoder.model.num_mels, None))
    if found.shape[1] == 0 or not np.isfinite(found).all():
        raise ValueError(f"'{path}' holds no frames, or values that are no numbers.")
    return torch.from_numpy(found)


def _spectrogram_of(path: Path, vocoder: Vocoder) -> Tensor:
    import torch

    from diffwave.conditions.spectrogram import LogMel
    from diffwave.upstream.waveform import HOP_SAMPLES
    from rave.audio.io import read_audio

    transform = LogMel(vocoder.sample_rate_hz, HOP_SAMPLES, vocoder.model.num_mels)
    audio = read_audio(path, vocoder.sample_rate_hz, 1)[0]
    return torch.from_numpy(transform.of_lmnt_diffwave(audio))
