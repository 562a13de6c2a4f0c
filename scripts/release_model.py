"""Make a released model from a codec run and a diffusion run: weights in half precision only.

    python scripts/release_model.py models/piano --codec runs/codec --diffusion runs/diffusion

MODEL/codec and MODEL/diffusion are runs for all commands except training. Parameters are float16,
which halves the size; filters, statistics and rotations are unchanged.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curves_picture import PICTURE, draw_curves
from training_curves import CURVES, Curves, read_curves, thinned

from rave.api.result import Result
from rave.cli import add_device, command_parser, execute
from rave.files.atomic import atomic_folder, write_json

if TYPE_CHECKING:
    from torch import nn

CODEC, DIFFUSION = "codec", "diffusion"
SETTINGS = ("run.json", "model.gin", "config.gin")


def parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = command_parser(
        "release_model.py",
        "Make a released model from a codec run and a diffusion run on its latents.",
        "python scripts/release_model.py models/piano --codec runs/codec --diffusion runs/piano",
    )
    parser.add_argument("model", type=Path, help="folder to write codec/, diffusion/ into")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--codec", type=Path, metavar="RUN", help="run of rave train")
    what.add_argument(
        "--training-audio",
        type=Path,
        metavar="PREPARED",
        help="add to a released codec the measures of its training audio, if it has none",
    )
    parser.add_argument("--diffusion", type=Path, metavar="RUN", help="run of diffwave.train")
    parser.add_argument("--force", action="store_true", help="replace an existing model")
    add_device(parser)
    return parser


def half_precision(model: nn.Module, run: Path) -> dict[str, Any]:
    """Return the state of a model for a checkpoint: parameters float16, buffers unchanged.

    Raises:
        ValueError: If a weight is too large for half precision.
    """
    import torch

    trained = {name for name, _ in model.named_parameters()}
    state = {
        name: value.half() if name in trained else value.clone()
        for name, value in model.state_dict().items()
    }
    for name in trained:
        if not torch.isfinite(state[name]).all():
            raise ValueError(
                f"{name} of '{run}' is too large for half precision, so it cannot be released."
            )
    return {f"model.{name}": value for name, value in state.items()}


def _write_run(folder: Path, run: Path, model: nn.Module, num_steps: int) -> None:
    from rave.runs.checkpoint import packed, released_checkpoint

    for name in SETTINGS:
        shutil.copyfile(run / name, folder / name)
    checkpoint = released_checkpoint(folder)
    checkpoint.parent.mkdir()
    content = {"state_dict": half_precision(model, run), "global_step": num_steps}
    checkpoint.write_bytes(packed(content))


def release_codec(run: Path, out: Path) -> tuple[str, str]:
    """Write the codec of a run, and return the fingerprints of the run and of the result.

    Raises:
        ValueError: If `run` is no run of `rave train`, or has a weight that does not fit.
    """
    from rave.codec import load_run, open_run
    from rave.runs.checkpoint import global_step

    opened = open_run(run)
    num_steps = global_step(opened.checkpoint, run)
    with atomic_folder(out) as folder:
        _write_run(folder, run, opened.model, num_steps)
        released = load_run(folder)[1].fingerprint
        if opened.format.training_audio is not None:
            replace(opened.format.training_audio, fingerprint=released).write(folder)
    return opened.format.fingerprint, released


def measure_codec(codec: Path, prepared: Path, device: str) -> None:
    """Add to a released codec the measures of its training audio, if it has none.

    Args:
        codec: Released codec.
        prepared: Its training audio, prepared by `rave preprocess`.
        device: Device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ValueError: If codec or audio cannot be read, or do not fit.
    """
    from rave.compute.device import choose_device
    from rave.experiment import training_of
    from rave.levels import remember
    from rave.runs.recipes import read_recipe
    from rave.upstream.lmdb import open_audio

    recipe = read_recipe("rave", str(codec / "config.gin"))
    fraction = training_of(recipe).held_out_fraction
    remember(codec, open_audio(prepared), fraction, choose_device(device))


def release_diffusion(run: Path, out: Path, fingerprints: tuple[str, str]) -> None:
    """Write the diffusion model of a run, for the released codec.

    Args:
        run: Run of diffwave.train; its averaged weights are used.
        out: Folder to write.
        fingerprints: Fingerprints of its codec, and of the released codec.

    Raises:
        ValueError: If `run` is no such run, or was trained on latents of another codec.
    """
    from diffwave.run import open_run
    from diffwave.skill import SKILL_FILE

    opened = open_run(run)
    if opened.header.codec != fingerprints[0]:
        raise ValueError(
            f"Run '{run}' was trained on latents of codec {opened.header.codec}, but --codec is "
            f"{fingerprints[0]}. Give the codec that encoded them."
        )
    with atomic_folder(out) as folder:
        _write_run(folder, run, opened.model, opened.num_steps)
        replace(opened.header, codec=fingerprints[1], codec_path=CODEC).write(folder)
        if (run / SKILL_FILE).exists():
            shutil.copyfile(run / SKILL_FILE, folder / SKILL_FILE)


def run(options: argparse.Namespace) -> Result:
    """Write the model and its curves, and report sizes."""
    if options.training_audio is not None:
        measure_codec(options.model / CODEC, options.training_audio, options.device)
        return Result(f"'{options.model / CODEC}' has the measures of its training audio.")
    parts = {CODEC: options.codec, DIFFUSION: options.diffusion}
    runs = {name: path for name, path in parts.items() if path is not None}
    for name, path in parts.items():
        out = options.model / name
        if path is not None and out.resolve() == path.resolve():
            raise ValueError(f"'{out}' is the run itself. Choose another folder for the model.")
        if out.exists() and not options.force:
            raise ValueError(f"'{out}' exists. Choose another folder, or add --force.")
    curves: Curves = {}
    for path in runs.values():
        curves |= thinned(read_curves(path))
    for name in parts:
        shutil.rmtree(options.model / name, ignore_errors=True)
    fingerprints = release_codec(options.codec, options.model / CODEC)
    if options.diffusion is not None:
        release_diffusion(options.diffusion, options.model / DIFFUSION, fingerprints)
    write_json(options.model / CURVES, curves)
    draw_curves(curves, options.model / PICTURE)
    sizes = {
        name: sum(file.stat().st_size for file in (options.model / name).rglob("*.*"))
        for name in runs
    }
    lines = [f"  {name}: {size / 1e6:.1f} MB" for name, size in sizes.items()]
    figures = {"model": str(options.model), "codec": fingerprints[1], "bytes": sizes}
    return Result("\n".join([f"'{options.model}' holds", *lines]), figures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
