# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.export`: a run → a .ts that plays in nn~, or a run of the patched lmnt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import CODEC, DIFFUSION_RUN, command_parser, execute
from rave.parsing import existing, one_of

if TYPE_CHECKING:
    from diffwave.model import LatentDiffusion

NUM_STEPS = 8
SHORTEST_WINDOW = 64  # frames, by default
FOR_NN_TILDE = ("codec", "ema", "steps", "sampler", "window", "noise_seed", "host_rate")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.export",
        "Write a trained diffusion model with its codec as TorchScript for nn~ (Max, PureData, "
        "SuperCollider),\nwhose method sample plays without end; or as lmnt diffwave with the "
        "patches of this project reads it:\nweights.pt and latents.json. Its inference samples "
        "from that, its training goes on from the averaged\nweights with a fresh optimizer.",
        "python -m diffwave.export runs/piano living_22050.ts --codec runs/rave\n"
        "  python -m diffwave.export runs/piano lmnt-piano",
    )
    options.add_argument("run", type=existing(DIFFUSION_RUN), metavar="RUN", help=DIFFUSION_RUN)
    options.add_argument(
        "out", type=Path, metavar="OUT", help="file to write, ending in .ts, or folder"
    )
    options.add_argument(
        "--force", action="store_true", help="replace what an earlier export wrote there"
    )
    live = options.add_argument_group("for nn~")
    live.add_argument(
        "--codec",
        type=existing(CODEC),
        help="whose latents it was trained on: a run of `rave train` or of acids-rave, or a .ts of "
        "acids-rave",
    )
    live.add_argument("--ema", action="store_true", help="take the averaged weights of that run")
    live.add_argument("--steps", type=int, help=f"sampling steps (default {NUM_STEPS})")
    live.add_argument(
        "--sampler",
        **one_of("sampler for nn~", ("dpm-solver++", "ddim")),
        help="sampler (default dpm-solver++)",
    )
    live.add_argument(
        "--window",
        type=float,
        metavar="S",
        help="seconds sampled at a time; a model that follows something is as late (default two "
        f"receptive fields, at least {SHORTEST_WINDOW} latent frames)",
    )
    live.add_argument(
        "--noise-seed",
        type=int,
        metavar="SEED",
        help="the same music each time, from 0 on (default: other music each time)",
    )
    live.add_argument(
        "--host-rate",
        type=int,
        metavar="HZ",
        help="sample rate of the host, twice or four times the codec's (default: the codec's)",
    )
    return options


def run(options: argparse.Namespace) -> Result:
    """Write the file or the folder and say what it holds.

    Raises:
        ValueError: If a run cannot be read, they do not fit, or the folder holds something else.
        OSError: If the output cannot be written.
    """
    if options.out.suffix == ".ts":
        if options.codec is None:
            raise ValueError(
                "A .ts plays through its codec: add --codec RUN, which made the latents."
            )
        if options.out.exists() and not options.force:
            raise ValueError(f"'{options.out}' exists. Choose another name, or add --force.")
        return _write_nn_tilde(options)
    for name in FOR_NN_TILDE:
        if getattr(options, name) not in (None, False):
            raise ValueError(
                f"--{name.replace('_', '-')} is for nn~; give OUT a name that ends in .ts."
            )
    return _write_lmnt(options)


def _write_nn_tilde(options: argparse.Namespace) -> Result:
    from dataclasses import replace

    import torch

    from diffwave.run import open_run
    from diffwave.sampling.editing import Sampling
    from diffwave.sampling.samplers import DPM_SOLVER
    from diffwave.streaming.nn_tilde import MAX_STEPS, NNTildeSampler
    from diffwave.streaming.sampler import StreamingSampler
    from rave.codec import Codec, load_codec, load_streamable
    from rave.codec_format import CodecFormat, write_torchscript
    from rave.codec_source import answers, check_difference, largest_difference
    from rave.files.atomic import atomic_write
    from rave.latents.folder import check_codec
    from rave.streaming.host_module import rate_note
    from rave.streaming.noise import FRESH_NOISE

    trained = open_run(options.run)
    model, header = trained.model, trained.header
    codec, form, num_latents = load_streamable(options.codec, ema=options.ema)
    check_codec(
        header,
        form.fingerprint,
        form.sample_rate_hz,
        form.hop_samples,
        form.latent_size,
        f"The latents of '{options.run}'",
        f"the codec '{options.codec}'",
    )
    sampling = Sampling(model, [0], 0)
    usual = max(4 * sampling.windows.margin, SHORTEST_WINDOW)
    frames = options.window and max(round(options.window * header.frame_rate_hz), 1)
    windows = replace(sampling, window_frames=frames or usual).windows
    max_steps = min(MAX_STEPS, len(model.schedule))
    steps = min(NUM_STEPS, max_steps) if options.steps is None else options.steps
    if not 1 <= steps <= max_steps:
        raise ValueError(f"--steps is {steps}; 1 to {max_steps} are possible.")
    sampler = StreamingSampler(model, windows, options.sampler or DPM_SOLVER, max_steps)
    seed = FRESH_NOISE if options.noise_seed is None else options.noise_seed
    # The file is the codec of all latents, also where those made are the first principal ones.
    whole = form if num_latents is None else CodecFormat.of(codec)
    cpu = torch.device("cpu")
    wanted = answers(Codec(codec, whole, options.codec, cpu))
    module = NNTildeSampler(
        codec.eval(), sampler, form, steps, num_latents, seed, options.host_rate
    ).eval()
    with atomic_write(options.out) as path:
        write_torchscript(module, whole, path)
        export = load_codec(path, cpu)
        guess = _guess(model, export.network.network.sampler.denoiser)
        found = largest_difference((*wanted, _guess(model)), (*answers(export, wanted), guess))
        check_difference(found, options.out)
    figures = {
        "file": str(options.out),
        "size_mib": options.out.stat().st_size / 2**20,
        "largest_difference": found,
        "num_steps": trained.num_steps,
        "follows": list(sampler.followed),
        "steps": steps,
        "window_s": windows.num_frames / header.frame_rate_hz,
        "sample_rate_hz": module.sample_rate_hz,
        "latency_samples": module.sample_latency_samples,
    }
    told = (
        "'{file}' ({size_mib:.1f} MiB) plays the model of step {num_steps} in nn~ at "
        "{sample_rate_hz} Hz, {steps} sampling steps, {window_s:.2f} s at a time. Late: sample "
        "{latency_samples} samples."
    )
    follows = ", ".join(sampler.followed) or "nothing"
    note = rate_note(options.out, module.sample_rate_hz)
    return Result(f"{told.format(**figures)}\nIt follows {follows}.\n{note}", figures)


def _guess(model: LatentDiffusion, denoiser: Any = None) -> Any:
    """Return what a model, or the denoiser of an export of it, makes of noise and a condition."""
    import torch

    draw = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, model.standardizer.latent_size, SHORTEST_WINDOW, generator=draw)
    width, timestep = max(model.network.condition_channels, 1), torch.tensor([0])
    condition = torch.randn(1, width, SHORTEST_WINDOW, generator=draw)
    with torch.no_grad():
        if denoiser is not None:
            return denoiser(noisy, timestep, condition)
        told = condition if model.is_conditional else None
        return model.denoise_guided(noisy, timestep, [(1.0, told)])


def _write_lmnt(options: argparse.Namespace) -> Result:
    from diffwave.run import open_run
    from diffwave.upstream.run import (
        WEIGHTS,
        checkpoint_from_model,
        model_from_checkpoint,
        write_lmnt_run,
    )
    from rave.codec_source import check_difference, largest_difference
    from rave.files.atomic import check_output_folder

    trained = open_run(options.run)
    check_output_folder(options.out, options.run)
    _check_empty(options.out, options.force)
    content = checkpoint_from_model(trained.model, trained.header, trained.num_steps)
    again = model_from_checkpoint(content, f"'{options.out}'")
    found = largest_difference([_guess(trained.model)], [_guess(again.eval())])
    check_difference(found, options.out)
    write_lmnt_run(options.out, content, trained.header)
    model, header = trained.model, trained.header
    what = "with spectrograms" if model.is_conditional else "without spectrograms"
    size_mib = (options.out / WEIGHTS).stat().st_size / 2**20
    summary = (
        f"'{options.out}' ({size_mib:.1f} MiB) holds the model of step {trained.num_steps}, "
        f"{what}, of {header.latent_size} dimensions at {header.frame_rate_hz:.2f} frames/s."
    )
    figures = {
        "folder": str(options.out),
        "size_mib": size_mib,
        "largest_difference": found,
        "num_steps": trained.num_steps,
        "is_conditional": model.is_conditional,
        "latent_size": model.standardizer.latent_size,
        "raw_size": model.standardizer.raw_size,
        "prediction": model.prediction,
    }
    return Result(summary, figures)


def _check_empty(folder: Path, force: bool) -> None:
    """Check that a folder is new or empty, or holds an earlier export that may be replaced."""
    from diffwave.upstream.run import WEIGHTS
    from rave.latents.folder import HEADER_NAME

    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    names = {name for name in names if not name.startswith(".")}
    other = sorted(names - {WEIGHTS, HEADER_NAME})
    if other or (names and WEIGHTS not in names):
        raise ValueError(
            f"'{folder}' holds other files (first: '{(other or sorted(names))[0]}'). "
            "Choose another folder."
        )
    if names and not force:
        raise ValueError(
            f"'{folder}' already holds a model. Choose another folder, or add --force to replace "
            "it."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
