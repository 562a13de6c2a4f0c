"""Blends of recordings in the latent space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rave.api.result import Result
from rave.audio.blocks import LevelMeter, amplified
from rave.audio.io import write_audio
from rave.compute.arrays import Float32Array
from rave.files.atomic import check_no_source
from rave.latents import blending
from rave.parsing import check_seed, one_line

if TYPE_CHECKING:  # torch takes long to import; what is refused without it is refused at once
    from rave.codec import Codec


def interpolate_audio(
    codec: str | Path,
    audio: Sequence[str | Path],
    out_dir: str | Path,
    *,
    steps: int = 5,
    weight: float | None = None,
    match_level: bool = False,
    force: bool = False,
    ema: bool = False,
    derivative: bool = False,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "float32",
    seed: int = 0,
) -> Result:
    """Write blends of recordings, cut to the shortest, as 16-bit WAV.

    Two recordings: `steps` blends along a line (lerp) and along a great circle (slerp). Two or
    more: their mean, plain and rescaled to the length of their latents.

    Args:
        codec: Run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only
            files you trust).
        audio: Two or more audio files.
        out_dir: Folder to write; empty or new.
        steps: Number of blends from the first recording to the second.
        weight: Write only the two blends at this weight (0: all of the first, 1: all of the
            second); None: steps and means.
        match_level: Bring audio to the level of the codec's training audio, and undo the gain after
            decoding.
        force: Replace files in the folder.
        ema: Take the averaged weights of a run of acids-rave.
        derivative: The codec was trained on the derivative of audio (acids-rave).
        device: auto, cpu, cuda, cuda:N or mps.
        backend: auto, torch or openvino.
        precision: float32 or bfloat16, of encoder and decoder.
        seed: Random seed of the decoder's noise.

    Returns:
        Length of the latents and level in dBFS of each blend, and the seconds cut.

    Raises:
        ValueError: If fewer than two recordings are given, or one of them cannot be used.
        OSError: If the folder cannot be written.
    """
    check_seed(seed)
    paths, folder = [Path(path) for path in audio], Path(out_dir)
    if len(paths) < 2:
        raise ValueError("One recording was given; two or more are needed, then the output folder.")
    if steps < 2:
        raise ValueError(f"--steps {steps} was given; 2 or more are needed.")
    if weight is not None:
        if len(paths) != 2:
            raise ValueError(f"--weight blends two recordings; {len(paths)} were given.")
        if not 0 <= weight <= 1:
            raise ValueError(f"--weight is {weight}; 0 (all A) to 1 (all B) is needed.")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file; name an output folder last.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ValueError(f"'{folder}' is not empty. Choose another folder, or add --force.")
    from rave.codec import load_codec
    from rave.levels import level_lines, levels_of, levels_to_match

    opened = load_codec(
        codec, device, ema=ema, derivative=derivative, backend=backend, precision=precision
    )
    if match_level:
        levels_to_match(opened)
    clips, records, cut = _encoded(opened, paths, is_level_matched=match_level)
    gains_db = [records[str(path)]["gain_db"] for path in paths]
    mean_gain_db = sum(gains_db) / len(gains_db)
    blends: dict[str, tuple[Float32Array, float]] = {}  # latents, and the gain of their audio
    if len(clips) == 2:
        for name, blend in (("lerp", blending.lerp), ("slerp", blending.slerp)):
            shares = [step / (steps - 1) for step in range(steps)]
            weights = {f"{name}_{i:02d}_{share:.2f}": share for i, share in enumerate(shares)}
            if weight is not None:
                weights = {name: weight}
            for title, share in weights.items():
                gain_db = (1 - share) * gains_db[0] + share * gains_db[1]
                blends[title] = blend(clips[0], clips[1], share), gain_db
    if weight is None:
        blends["mean"] = blending.mean(clips), mean_gain_db
        blends["mean_of_length"] = blending.mean_of_length(clips), mean_gain_db
    outputs = {name: folder / f"{name}.wav" for name in blends}
    check_no_source(outputs.values(), paths)
    levels = levels_of(opened.format, records)
    figures: dict[str, Any] = {"cut_s": cut, "levels": levels, "blends": {}}
    written: dict[str, dict[str, Any]] = {}
    for name, (latents, gain_db) in blends.items():
        figures["blends"][name], written[f"{name}.wav"] = _write(
            opened, latents, gain_db, outputs[name], seed
        )
    lines = [
        f"  {one_line(name)}: mean length of the latents {f['latent_length']:.2f}, "
        f"{f['level_dbfs']:.1f} dBFS"
        for name, f in figures["blends"].items()
    ]
    lines += level_lines(levels)
    lines += [f"  cut the last {s:.2f} s of {one_line(name)}" for name, s in cut.items() if s]
    text = "\n".join([f"'{folder}' holds {len(blends)} blends:", *lines])
    return Result(text, figures, written=written)


def _encoded(
    codec: Codec, paths: list[Path], *, is_level_matched: bool
) -> tuple[list[Float32Array], dict[str, dict[str, Any]], dict[str, float]]:
    """Return the clips cut to the shortest, records of their audio, and the seconds cut."""
    from rave.levels import LevelledAudio

    means, records = [], {}
    for path in paths:
        if not path.is_file():
            raise ValueError(f"'{path}' does not exist. Give audio files, then the output folder.")
        audio = LevelledAudio(path, codec.format, is_level_matched=is_level_matched)
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
    codec: Codec, latents: Float32Array, gain_db: float, path: Path, seed: int
) -> tuple[dict[str, float], dict[str, Any]]:
    from rave.noise import DecoderNoise

    # The same noise for all blends, so that they differ only in what is blended.
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
