"""`rave interpolate`: blend recordings in the latent space."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.command import (
    Result,
    add_backend,
    add_device,
    add_seed,
    add_weights,
    command_parser,
    open_codec,
)

if TYPE_CHECKING:
    from rave.codec import Array, Codec
    from rave.latents import LatentStatistics


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave interpolate`."""
    parser = command_parser(
        "rave interpolate",
        "Blend recordings in the latent space. Two: N steps along a line (lerp) and along a great "
        "circle (slerp). Two or more: their mean, as it is and at the latents' own length. "
        "Recordings are cut to the shortest.",
        "rave interpolate runs/piano a.wav b.wav blends --steps 5",
    )
    parser.add_argument(
        "codec",
        type=Path,
        help="run folder of `rave train` or of acids-rave, or a .ts file, a program",
    )
    parser.add_argument("audio", type=Path, nargs="+", help="two or more audio files")
    parser.add_argument("out_dir", type=Path, help="folder to write; must be empty or new")
    parser.add_argument("--steps", type=int, default=5, help="blends from A to B (default 5)")
    parser.add_argument(
        "--weight",
        type=float,
        metavar="W",
        help="of two: only the blends at W, 0 all A, 1 all B, instead of steps and means",
    )
    parser.add_argument("--force", action="store_true", help="replace what the folder holds")
    add_weights(parser)
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Blend, and report the length of the latents and the level of the audio of each blend.

    Raises:
        ValueError: If fewer than two recordings are given, or one of them cannot be used.
        OSError: If the folder cannot be written.
    """
    from rave import blending

    if len(options.audio) < 2:
        raise ValueError("One recording was given; two or more are needed, then the output folder.")
    if options.steps < 2:
        raise ValueError(f"--steps {options.steps} was given; 2 or more are needed.")
    if options.weight is not None:
        if len(options.audio) != 2:
            raise ValueError(f"--weight blends two recordings; {len(options.audio)} were given.")
        if not 0 <= options.weight <= 1:
            raise ValueError(f"--weight is {options.weight}; 0 (all A) to 1 (all B) is needed.")
    if options.out_dir.exists() and not options.out_dir.is_dir():
        raise ValueError(f"'{options.out_dir}' is a file; name an output folder last.")
    if options.out_dir.is_dir() and any(options.out_dir.iterdir()) and not options.force:
        raise ValueError(
            f"'{options.out_dir}' is not empty. Choose another folder, or add --force."
        )
    codec = open_codec(options)
    clips, statistics, cut = _encoded(codec, options.audio)
    blends: dict[str, Array] = {}
    if len(clips) == 2:
        for name, blend in (("lerp", blending.lerp), ("slerp", blending.slerp)):
            if options.weight is not None:
                blends[name] = blend(clips[0], clips[1], options.weight)
                continue
            for step in range(options.steps):
                weight = step / (options.steps - 1)
                blends[f"{name}_{step:02d}_{weight:.2f}"] = blend(clips[0], clips[1], weight)
    if options.weight is None:
        blends["mean"] = blending.mean(clips)
        blends["mean_of_length"] = blending.mean_of_length(clips)
    figures: dict[str, Any] = {"cut_s": cut, "blends": {}}
    written: dict[str, dict[str, Any]] = {}
    for name, latents in blends.items():
        path = options.out_dir / f"{name}.wav"
        figures["blends"][name], written[path.name] = _write(
            codec, latents, statistics, path, options.seed
        )
    lines = [
        f"  {name}: mean length of the latents {f['latent_length']:.2f}, {f['level_dbfs']:.1f} dBFS"
        for name, f in figures["blends"].items()
    ]
    lines += [f"  cut the last {s:.2f} s of {name}" for name, s in cut.items() if s]
    text = "\n".join([f"'{options.out_dir}' holds {len(blends)} blends:", *lines])
    return Result(text, figures, written=written)


def _encoded(
    codec: Codec, paths: list[Path]
) -> tuple[list[Array], LatentStatistics, dict[str, float]]:
    """Return the clips cut to the shortest, their statistics, and the seconds cut of each."""
    from rave.audio import read_audio
    from rave.latents import StatisticsAccumulator

    sums = StatisticsAccumulator(codec.format.latent_size)
    means = []
    for path in paths:
        if not path.is_file():
            raise ValueError(f"'{path}' does not exist. Give audio files, then the output folder.")
        audio = read_audio(path, codec.format.sample_rate_hz, codec.format.num_channels)
        mean, std = codec.encode(audio)
        sums.add(mean, std)
        means.append(mean)
    num_frames = min(mean.shape[1] for mean in means)
    seconds_per_frame = codec.format.hop_samples / codec.format.sample_rate_hz
    cut = {
        str(path): (mean.shape[1] - num_frames) * seconds_per_frame
        for path, mean in zip(paths, means, strict=True)
    }
    return [mean[:, :num_frames] for mean in means], sums.statistics(), cut


def _write(
    codec: Codec, latents: Array, statistics: LatentStatistics, path: Path, seed: int
) -> tuple[dict[str, float], dict[str, Any]]:
    import numpy as np

    from rave.audio import write_audio
    from rave.audio_blocks import LevelMeter
    from rave.codec import DecoderNoise

    # One noise for all blends: they differ in what is blended, and in nothing else.
    noise = DecoderNoise(codec.format, statistics, seed, "blend")
    meter = LevelMeter()
    num_samples = latents.shape[1] * codec.format.hop_samples
    quantizer = write_audio(
        path,
        meter(codec.decode_blocks(latents, noise)),
        codec.format.sample_rate_hz,
        codec.format.num_channels,
        num_samples,
    )
    figures = {
        "latent_length": float(np.linalg.norm(latents, axis=0).mean()),
        "level_dbfs": round(meter.level_dbfs, 2),
    }
    return figures, quantizer.figures
