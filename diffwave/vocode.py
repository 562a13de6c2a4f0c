"""Audio from a waveform run of lmnt diffwave: what `python -m diffwave.inference` does with one."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rave.command import Result

if TYPE_CHECKING:
    from torch import Tensor

    from diffwave.lmnt_waveform import Vocoder

USED_OPTIONS = {
    "run", "out", "count", "seconds", "from_audio", "spectrogram", "is_fast",
    "seed", "device", "force", "json", "verbose",
}  # fmt: skip
SUFFIXES = (".wav", ".flac")


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
    import torch
    from tqdm import tqdm

    from rave.audio import write_audio
    from rave.device import choose_device

    device = choose_device(options.device)
    for name in sorted(vars(options).keys() - USED_OPTIONS):
        if getattr(options, name) != getattr(defaults, name):
            raise ValueError(
                f"'{options.run}' is a model of audio; it knows no --{_option(name)}. Its options "
                "are --spectrogram or --from-audio, --seconds, --count, --fast and --seed."
            )
    count = 1 if options.count is None else options.count
    paths = _outputs(options.out, count, options.force)
    task = _task(options, vocoder)
    model = vocoder.model.to(device)
    spectrogram = None if task.spectrogram is None else task.spectrogram.to(device)
    betas = model.fast_betas if options.is_fast else model.betas
    model.steps_of(betas)  # its checks only
    items = []
    with tqdm(desc="audio", total=count * len(betas), unit="step", file=sys.stderr) as bar:
        for index, path in enumerate(paths):
            generator = torch.Generator().manual_seed(options.seed + index)
            noise = torch.randn(1, task.num_samples, generator=generator).to(device)
            audio = model.sample(noise, spectrogram, generator, options.is_fast, bar.update)
            block = audio.cpu().numpy()
            written = write_audio(path, [block], vocoder.sample_rate_hz, 1, task.num_samples)
            items.append({"file": str(path), "peak": float(written.peak)})
    duration_s = task.num_samples / vocoder.sample_rate_hz
    lines = [
        f"Made {count} of {duration_s:.2f} s at {vocoder.sample_rate_hz} Hz:",
        *(f"  {item['file']}: peak {item['peak']:.2f}" for item in items),
    ]
    figures = {
        "kind": "audio",
        "sample_rate_hz": vocoder.sample_rate_hz,
        "duration_s": duration_s,
        "num_steps": len(betas),
        "train_steps": vocoder.num_steps,
        "items": items,
    }
    return Result("\n".join(lines), figures)


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
    import torch

    from diffwave.waveform import HOP_SAMPLES

    if vocoder.num_samples is not None:
        for name, value in (
            ("--spectrogram", options.spectrogram),
            ("--from-audio", options.from_audio),
        ):
            if value is not None:
                raise ValueError(f"'{options.run}' was trained without spectrograms: no {name}.")
        if options.seconds is None:
            return Audible(vocoder.num_samples, None)
        if not 0 < options.seconds < float("inf"):
            raise ValueError(f"--seconds is {options.seconds}; a number above 0 is needed.")
        return Audible(max(round(options.seconds * vocoder.sample_rate_hz), 1), None)
    if options.seconds is not None:
        raise ValueError("--seconds does not go with a spectrogram, which has a length of its own.")
    if (options.spectrogram is None) == (options.from_audio is None):
        raise ValueError(
            f"'{options.run}' makes audio of a spectrogram: add --spectrogram F.spec.npy, or "
            "--from-audio F (not both)."
        )
    if options.spectrogram is not None:
        found = _read_spectrogram(options.spectrogram, vocoder.model.num_mels)
    else:
        found = _spectrogram_of(options.from_audio, vocoder)
    return Audible(found.shape[1] * HOP_SAMPLES, found[None].to(torch.float32))


def _read_spectrogram(path: Path, num_mels: int) -> Tensor:
    import numpy as np
    import torch

    from diffwave.spectrogram import open_spectrogram

    found = np.array(open_spectrogram(path, num_mels, None))
    if found.shape[1] == 0 or not np.isfinite(found).all():
        raise ValueError(f"'{path}' holds no frames, or values that are no numbers.")
    return torch.from_numpy(found)


def _spectrogram_of(path: Path, vocoder: Vocoder) -> Tensor:
    import torch

    from diffwave.spectrogram import LogMel
    from diffwave.waveform import HOP_SAMPLES
    from rave.audio import read_audio

    if not vocoder.has_known_window:
        raise ValueError(
            "The run was trained on spectrograms of another window than 1024 samples, which cannot "
            "be made here. Give one with --spectrogram."
        )
    transform = LogMel(vocoder.sample_rate_hz, HOP_SAMPLES, vocoder.model.num_mels)
    audio = read_audio(path, vocoder.sample_rate_hz, 1)[0]
    return torch.from_numpy(transform.of_lmnt_diffwave(audio))
