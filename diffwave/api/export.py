"""Export a run: a .ts file that plays in nn~, or a run of the patched lmnt diffwave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result

if TYPE_CHECKING:
    from diffwave.model import LatentDiffusion

NUM_STEPS = 8
SHORTEST_WINDOW = 64  # frames, the smallest default


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    codec: str | Path | None = None,
    ema: bool = False,
    steps: int | None = None,
    sampler: str | None = None,
    window: float | None = None,
    noise_seed: int | None = None,
    host_rate: int | None = None,
    force: bool = False,
) -> Result:
    """Write a run with its codec as TorchScript for nn~, or the run for the patched lmnt diffwave.

    All options but `force` are for nn~.

    Args:
        run: Run folder of diffwave.train.
        out: File to write for nn~ (name.ts), or folder to write for lmnt diffwave (weights.pt and
            latents.json).
        codec: Codec of the run's latents: a run of `rave train` or of acids-rave, or a .ts of
            acids-rave (it runs code: open only files you trust).
        ema: Use the averaged weights, if the codec is a run of acids-rave.
        steps: Sampling steps. None: 8.
        sampler: dpm-solver++ or ddim. None: dpm-solver++.
        window: Seconds sampled at a time; with conditions, this adds to the latency. None: two
            receptive fields, at least 64 latent frames.
        noise_seed: Random seed, 0 or more, for the same music each time. None: new music each time.
        host_rate: Sample rate of the host in Hz, twice or four times the codec's. None: the
            codec's.
        force: Replace an earlier export.

    Raises:
        ValueError: If a run cannot be read, run and codec do not fit, or the folder holds other
            files.
        OSError: If the output cannot be written.
    """
    run, out = Path(run), Path(out)
    nn_tilde_options = {
        "--codec": codec,
        "--ema": ema,
        "--steps": steps,
        "--sampler": sampler,
        "--window": window,
        "--noise-seed": noise_seed,
        "--host-rate": host_rate,
    }
    if out.suffix == ".ts":
        if codec is None:
            raise ValueError(
                "A .ts file needs the codec that encoded the latents: add --codec RUN."
            )
        if out.exists() and not force:
            raise ValueError(f"'{out}' exists. Choose another name, or add --force.")
        return _write_nn_tilde(
            run, out, Path(codec), ema, steps, sampler, window, noise_seed, host_rate
        )
    for option, value in nn_tilde_options.items():
        if value is not None and value is not False:
            raise ValueError(f"{option} is only for nn~; give OUT a name that ends in .ts.")
    return _write_lmnt(run, out, force)


def _write_nn_tilde(
    run: Path,
    out: Path,
    codec_path: Path,
    ema: bool,
    steps: int | None,
    sampler_name: str | None,
    window: float | None,
    noise_seed: int | None,
    host_rate: int | None,
) -> Result:
    import torch

    from diffwave.run import open_run
    from diffwave.sampling.overlap import Windows
    from diffwave.sampling.samplers import DPM_SOLVER
    from diffwave.streaming.nn_tilde import MAX_STEPS, NNTildeSampler
    from diffwave.streaming.sampler import StreamingSampler
    from rave.codec import Codec, load_codec, load_streamable
    from rave.codec_format import CodecFormat, write_torchscript
    from rave.codec_source import check_difference, largest_difference, noise_outputs
    from rave.files.atomic import atomic_write
    from rave.streaming.host_module import rate_note
    from rave.streaming.noise import FRESH_NOISE

    trained = open_run(run)
    model, header = trained.model, trained.header
    codec, form, num_latents = load_streamable(codec_path, ema=ema)
    header.identity.check_same(form.identity, f"Run '{run}'", f"the codec '{codec_path}'")
    default = max(4 * (model.network.receptive_field_frames // 2), SHORTEST_WINDOW)
    frames = max(round(window * header.frame_rate_hz), 1) if window else default
    windows = Windows.of(model, frames)
    max_steps = min(MAX_STEPS, len(model.schedule))
    steps = min(NUM_STEPS, max_steps) if steps is None else steps
    if not 1 <= steps <= max_steps:
        raise ValueError(f"--steps is {steps}; it must be from 1 to {max_steps}.")
    sampler = StreamingSampler(model, windows, sampler_name or DPM_SOLVER, max_steps)
    seed = FRESH_NOISE if noise_seed is None else noise_seed
    # The file is the codec of all latents, also where those made are the first principal ones.
    whole = form if num_latents is None else CodecFormat.of(codec)
    cpu = torch.device("cpu")
    wanted = noise_outputs(Codec(codec, whole, codec_path, cpu))
    module = NNTildeSampler(codec.eval(), sampler, form, steps, num_latents, seed, host_rate).eval()
    with atomic_write(out) as path:
        write_torchscript(module, whole, path)
        export = load_codec(path, cpu)
        guess = _guess(model, export.network.network.sampler.denoiser)
        found = largest_difference(
            (*wanted, _guess(model)), (*noise_outputs(export, wanted), guess)
        )
        check_difference(found, out)
    figures = {
        "file": str(out),
        "size_mib": out.stat().st_size / 2**20,
        "largest_difference": found,
        "num_steps": trained.num_steps,
        "follows": list(sampler.followed),
        "steps": steps,
        "window_s": windows.num_frames / header.frame_rate_hz,
        "sample_rate_hz": module.sample_rate_hz,
        "latency_samples": module.sample_latency_samples,
    }
    text = (
        "'{file}' ({size_mib:.1f} MiB) plays the model of step {num_steps} in nn~ at "
        "{sample_rate_hz} Hz: {steps} sampling steps, {window_s:.2f} s at a time. Latency: sample "
        "{latency_samples} samples."
    )
    follows = ", ".join(sampler.followed) or "nothing"
    note = rate_note(out, module.sample_rate_hz)
    return Result(f"{text.format(**figures)}\nIt follows {follows}.\n{note}", figures)


def _guess(model: LatentDiffusion, denoiser: Any = None) -> Any:
    """Return the output of a model, or of its export's denoiser, for noise and a condition."""
    import torch

    draw = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, model.standardizer.latent_size, SHORTEST_WINDOW, generator=draw)
    width, timestep = max(model.network.condition_channels, 1), torch.tensor([0])
    condition = torch.randn(1, width, SHORTEST_WINDOW, generator=draw)
    with torch.no_grad():
        if denoiser is not None:
            return denoiser(noisy, timestep, condition)
        followed = condition if model.is_conditional else None
        return model.denoise_guided(noisy, timestep, [(1.0, followed)])


def _write_lmnt(run: Path, out: Path, force: bool) -> Result:
    from diffwave.run import open_run
    from diffwave.upstream.run import (
        WEIGHTS,
        checkpoint_from_model,
        model_from_checkpoint,
        write_lmnt_run,
    )
    from rave.codec_source import check_difference, largest_difference
    from rave.files.atomic import check_output_folder

    trained = open_run(run)
    check_output_folder(out, run)
    _check_empty(out, force)
    content = checkpoint_from_model(trained.model, trained.header, trained.num_steps)
    export = model_from_checkpoint(content, f"'{out}'")
    difference = largest_difference([_guess(trained.model)], [_guess(export.eval())])
    check_difference(difference, out)
    write_lmnt_run(out, content, trained.header)
    model, header = trained.model, trained.header
    conditions = "with spectrograms" if model.is_conditional else "without spectrograms"
    size_mib = (out / WEIGHTS).stat().st_size / 2**20
    summary = (
        f"'{out}' ({size_mib:.1f} MiB) holds the model of step {trained.num_steps}: "
        f"{header.latent_size} dimensions, {header.frame_rate_hz:.2f} frames/s, {conditions}."
    )
    figures = {
        "folder": str(out),
        "size_mib": size_mib,
        "largest_difference": difference,
        "num_steps": trained.num_steps,
        "is_conditional": model.is_conditional,
        "latent_size": model.standardizer.latent_size,
        "raw_size": model.standardizer.raw_size,
        "prediction": model.prediction,
    }
    return Result(summary, figures)


def _check_empty(folder: Path, force: bool) -> None:
    """Check that a folder is new, is empty, or holds an earlier export that may be replaced."""
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
