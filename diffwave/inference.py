"""`python -m diffwave.inference`: generate latents with a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.command import Result, add_device, add_seed, command_parser, execute

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from diffwave.run import DiffusionRun
    from rave.latents import LatentHeader

BATCH_SIZE = 8
# Told as far off: level of all dimensions beyond these factors of the training latents' level.
QUIET, LOUD = 0.5, 2.0
# or a mean of a dimension this many of its standard deviations away.
FAR_MEAN = 2.0


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.inference",
        "Generate latents with a trained diffusion model; `rave decode` makes audio of them.",
        "python -m diffwave.inference runs/piano generated --count 4 --seconds 10",
    )
    options.add_argument("run", type=Path, metavar="RUN", help="what diffwave.train wrote")
    options.add_argument("out", type=Path, metavar="OUT_LATENTS_DIR", help="folder to write")
    condition = options.add_mutually_exclusive_group()
    condition.add_argument(
        "--spectrogram", type=Path, metavar="F.npy", help="follow a file of diffwave.preprocess"
    )
    condition.add_argument(
        "--from-audio", type=Path, metavar="F", help="follow the spectrogram of an audio file"
    )
    options.add_argument("--count", type=int, default=4, help="clips to generate (default 4)")
    options.add_argument(
        "--seconds", type=float, help="length of each (default 10, or that of the condition)"
    )
    options.add_argument("--steps", type=int, default=50, help="sampling steps (default 50)")
    options.add_argument(
        "--sampler",
        default="dpm-solver++",
        help="dpm-solver++, ddim or ddpm (default dpm-solver++)",
    )
    options.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        help="guidance scale: 1 follows the condition as trained, more exaggerates it (default 1)",
    )
    options.add_argument(
        "--force", action="store_true", help="write into a folder that holds other latents"
    )
    add_seed(options)
    add_device(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Generate, write a latent folder, and compare it with the training latents."""
    from tqdm import tqdm

    from diffwave.generate import build_sampler, generate
    from diffwave.run import open_run
    from rave.device import choose_device

    device = choose_device(options.device)
    if options.count < 1:
        raise ValueError(f"--count is {options.count}; at least 1 is needed.")
    trained = open_run(options.run)
    build_sampler(options.sampler, trained.model.schedule, options.steps)  # its checks only
    header = trained.header
    _check_output(options.out, options.force)
    spectrogram = _spectrogram(options, trained)
    num_frames = _num_frames(options.seconds, spectrogram, trained)
    model = trained.model.to(device)

    clips: list[NDArray[Any]] = []
    num_batches = -(-options.count // BATCH_SIZE)
    with tqdm(total=num_batches * options.steps, desc="generate", file=sys.stderr) as bar:
        for start in range(0, options.count, BATCH_SIZE):
            indices = range(start, min(start + BATCH_SIZE, options.count))
            batch = generate(
                model,
                num_frames,
                indices,
                options.seed,
                sampler=options.sampler,
                num_steps=options.steps,
                spectrogram=spectrogram,
                guidance_scale=options.guidance,
                progress=lambda _: bar.update(),
            )
            clips.extend(batch.cpu().numpy())
    names = [f"generated_{index:03d}.npy" for index in range(len(clips))]
    items = [{"file": name, **compare(raw, header)} for name, raw in zip(names, clips, strict=True)]
    _write(options.out, dict(zip(names, clips, strict=True)), header, options.seed)

    warnings = [f"{item['file']}: {item['warning']}" for item in items if item["warning"]]
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    duration_s = num_frames / header.frame_rate_hz
    lines = [
        f"Generated {len(items)} clips of {duration_s:.2f} s in '{options.out}'.",
        *(
            f"  {item['file']}: level {item['level']:.2f} of the training latents', "
            f"largest shift of a mean {item['largest_shift']:.2f} std"
            for item in items
        ),
    ]
    figures = {
        "folder": str(options.out),
        "num_frames": num_frames,
        "duration_s": duration_s,
        "train_steps": trained.num_steps,
        "items": items,
    }
    return Result("\n".join(lines), figures)


def compare(raw: NDArray[Any], header: LatentHeader) -> dict[str, Any]:
    """Return figures of generated latents against the training latents' statistics.

    Args:
        raw: (D, N) raw latents.
        header: Of the training latents.

    Returns:
        `level`, the root mean square of the deviation from the training mean, relative to the
        training latents'; `largest_shift`, of a dimension's mean in its training std; `mean` and
        `std` of each dimension; `warning`, None where all is near.
    """
    import numpy as np

    known_mean, known_std = np.asarray(header.statistics.mean), np.asarray(header.statistics.std)
    mean, std = raw.mean(axis=1), raw.std(axis=1)
    if not np.isfinite(raw).all():
        raise ValueError(
            "The model generated values that are not finite. Train it longer or with a lower "
            "LEARNING_RATE, or use more sampling steps."
        )
    power = np.square(raw - known_mean[:, None]).mean()
    known_power = max(float(np.square(known_std).mean()), 1e-30)
    level = float(np.sqrt(power / known_power))
    varies = known_std > 1e-3 * known_std.max()
    shift = float(np.abs((mean - known_mean)[varies] / known_std[varies]).max())
    warning = None
    if not QUIET <= level <= LOUD:
        warning = f"its level is {level:.2f} of the training latents'; expect silence or noise."
    elif shift > FAR_MEAN:
        warning = (
            f"the mean of a dimension is {shift:.1f} training std off; expect a foreign sound."
        )
    return {
        "level": level,
        "largest_shift": shift,
        "mean": [round(float(value), 5) for value in mean],
        "std": [round(float(value), 5) for value in std],
        "warning": warning,
    }


def _write(folder: Path, clips: dict[str, NDArray[Any]], header: LatentHeader, seed: int) -> None:
    """Write a latent folder in place of what an earlier command generated there."""
    from dataclasses import replace

    from rave.latents import GENERATED, HEADER_NAME, LatentFile, write_latents

    (folder / HEADER_NAME).unlink(missing_ok=True)  # a header must not outlive its latents
    for path in folder.glob("generated_*.npy"):
        path.unlink()
    files = []
    for name, raw in clips.items():
        num_frames = write_latents(folder / name, [raw], header.latent_size)
        num_samples = num_frames * header.hop_samples
        files.append(LatentFile(name, num_frames, None, header.sample_rate_hz, num_samples))
    replace(header, contents=GENERATED, files=files, seed=seed).write(folder)


def _check_output(folder: Path, force: bool) -> None:
    from rave.latents import GENERATED, HEADER_NAME, LatentHeader

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file; a folder is needed for the latents.")
    if (folder / HEADER_NAME).exists() and LatentHeader.read(folder).contents != GENERATED:
        raise ValueError(
            f"'{folder}' holds latents of real audio, which are never overwritten. "
            "Choose another folder."
        )
    if force or not folder.exists():
        return
    other = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if other:
        what = "latents" if HEADER_NAME in other else f"other files (first: '{other[0]}')"
        raise ValueError(
            f"'{folder}' already holds {what}. Choose another folder, or add --force to write "
            "into it."
        )


def _spectrogram(options: argparse.Namespace, trained: DiffusionRun) -> Tensor | None:
    """Return the condition (M, frames), or None; refuse one that the run cannot take."""
    import numpy as np
    import torch

    from diffwave.spectrogram import audio_to_spectrogram, open_spectrogram

    path = options.spectrogram or options.from_audio
    conditioner = trained.model.conditioner
    if path is None:
        if options.guidance != 1.0:
            raise ValueError("--guidance needs a condition: add --spectrogram or --from-audio.")
        return None
    if conditioner is None:
        raise ValueError(
            f"Run '{options.run}' was trained without spectrograms, so it cannot follow '{path}'. "
            "Leave the condition out, or train with --spectrograms."
        )
    if options.spectrogram:
        array = open_spectrogram(path, conditioner.num_mels, None)
    else:
        array = audio_to_spectrogram(
            path,
            trained.header.sample_rate_hz,
            conditioner.mel_hop_samples,
            conditioner.num_mels,
            trained.header.hop_samples,
        )
    return torch.from_numpy(np.array(array))


def _num_frames(seconds: float | None, spectrogram: Tensor | None, trained: DiffusionRun) -> int:
    """Return the latent frames to generate: as asked for, or as long as the condition."""
    conditioner = trained.model.conditioner
    available = None
    if spectrogram is not None and conditioner is not None:
        available = spectrogram.shape[1] // conditioner.ratio
        if available == 0:
            raise ValueError(
                f"The spectrogram has {spectrogram.shape[1]} mel frames; one latent frame needs "
                f"{conditioner.ratio}."
            )
        if seconds is None:
            return available
    seconds = 10.0 if seconds is None else seconds
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds is {seconds}; a number above 0 is needed.")
    rate_hz = trained.header.frame_rate_hz
    num_frames = max(round(seconds * rate_hz), 1)
    if available is not None and num_frames > available:
        raise ValueError(
            f"--seconds {seconds} is longer than the condition, which lasts "
            f"{available / rate_hz:.2f} s. Ask for less, or leave --seconds out."
        )
    return num_frames


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
