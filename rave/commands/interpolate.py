"""`rave interpolate`: blend recordings in the latent space."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import (
    CODEC,
    add_backend,
    add_device,
    add_level,
    add_seed,
    add_weights,
    command_parser,
    open_codec,
)
from rave.parsing import existing, one_line

if TYPE_CHECKING:
    from rave.codec import Array, Codec


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
        type=existing(CODEC),
        help="run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only "
        "files you trust)",
    )
    parser.add_argument(
        "audio", type=existing("audio files"), nargs="+", help="two or more audio files"
    )
    parser.add_argument("out_dir", type=Path, help="folder to write; must be empty or new")
    parser.add_argument("--steps", type=int, default=5, help="blends from A to B (default 5)")
    parser.add_argument(
        "--weight",
        type=float,
        metavar="W",
        help="of two: only the blends at W, 0 all A, 1 all B, instead of steps and means",
    )
    add_level(parser)
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
    from rave.files.atomic import check_no_source
    from rave.latents import blending
    from rave.levels import level_lines, levels_of, levels_to_match

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
    if options.match_level:
        levels_to_match(codec)
    clips, records, cut = _encoded(codec, options.audio, is_level_matched=options.match_level)
    gains_db = [records[str(path)]["gain_db"] for path in options.audio]
    mean_gain_db = sum(gains_db) / len(gains_db)
    blends: dict[str, tuple[Array, float]] = {}  # latents, and the gain that they were given
    if len(clips) == 2:
        for name, blend in (("lerp", blending.lerp), ("slerp", blending.slerp)):
            weights = {name: options.weight}
            if options.weight is None:
                steps = [step / (options.steps - 1) for step in range(options.steps)]
                weights = {f"{name}_{i:02d}_{weight:.2f}": weight for i, weight in enumerate(steps)}
            for title, weight in weights.items():
                gain_db = (1 - weight) * gains_db[0] + weight * gains_db[1]
                blends[title] = blend(clips[0], clips[1], weight), gain_db
    if options.weight is None:
        blends["mean"] = blending.mean(clips), mean_gain_db
        blends["mean_of_length"] = blending.mean_of_length(clips), mean_gain_db
    outputs = {name: options.out_dir / f"{name}.wav" for name in blends}
    check_no_source(outputs.values(), options.audio)
    levels = levels_of(codec.format, records)
    figures: dict[str, Any] = {"cut_s": cut, "levels": levels, "blends": {}}
    written: dict[str, dict[str, Any]] = {}
    for name, (latents, gain_db) in blends.items():
        figures["blends"][name], written[f"{name}.wav"] = _write(
            codec, latents, gain_db, outputs[name], options.seed
        )
    lines = [
        f"  {one_line(name)}: mean length of the latents {f['latent_length']:.2f}, "
        f"{f['level_dbfs']:.1f} dBFS"
        for name, f in figures["blends"].items()
    ]
    lines += level_lines(levels)
    lines += [f"  cut the last {s:.2f} s of {one_line(name)}" for name, s in cut.items() if s]
    text = "\n".join([f"'{options.out_dir}' holds {len(blends)} blends:", *lines])
    return Result(text, figures, written=written)


def _encoded(
    codec: Codec, paths: list[Path], *, is_level_matched: bool
) -> tuple[list[Array], dict[str, dict[str, Any]], dict[str, float]]:
    """Return the clips cut to the shortest, what they were heard to be, and the seconds cut."""
    import numpy as np

    from rave.levels import HeardAudio

    means, records = [], {}
    for path in paths:
        if not path.is_file():
            raise ValueError(f"'{path}' does not exist. Give audio files, then the output folder.")
        audio = HeardAudio(path, codec.format, is_level_matched=is_level_matched)
        means.append(np.concatenate([mean for mean, _ in codec.encode_blocks(audio)], axis=1))
        records[str(path)] = audio.record
    num_frames = min(mean.shape[1] for mean in means)
    seconds_per_frame = codec.format.hop_samples / codec.format.sample_rate_hz
    cut = {
        str(path): (mean.shape[1] - num_frames) * seconds_per_frame
        for path, mean in zip(paths, means, strict=True)
    }
    return [mean[:, :num_frames] for mean in means], records, cut


def _write(
    codec: Codec, latents: Array, gain_db: float, path: Path, seed: int
) -> tuple[dict[str, float], dict[str, Any]]:
    import numpy as np

    from rave.audio.blocks import LevelMeter, amplified
    from rave.audio.io import write_audio
    from rave.noise import DecoderNoise

    # One noise for all blends: they differ in what is blended, and in nothing else.
    blocks = codec.decode_blocks(latents, DecoderNoise(codec.format, seed))
    meter = LevelMeter()
    num_samples = latents.shape[1] * codec.format.hop_samples
    quantizer = write_audio(
        path,
        meter(amplified(blocks, -gain_db)),
        codec.format.sample_rate_hz,
        codec.format.num_channels,
        num_samples,
    )
    figures = {
        "latent_length": float(np.linalg.norm(latents, axis=0).mean()),
        "level_dbfs": round(meter.level_dbfs, 2),
    }
    return figures, quantizer.figures
