"""`rave sample_prior`: new latents from an autoregressive prior."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rave.api.result import Result
from rave.cli import CODEC, add_device, add_seed, command_parser
from rave.parsing import existing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rave.codec_format import CodecFormat
    from rave.latents.folder import LatentHeader
    from rave.latents.statistics import LatentStatistics
    from rave.prior import LatentPrior


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave sample_prior`."""
    options = command_parser(
        "rave sample_prior",
        "Make new latents with a prior of `rave train_prior`. `rave decode` makes audio of them.",
        "rave sample_prior runs/prior generated --count 4 --seconds 20 --temperature 0.9",
    )
    options.add_argument(
        "run",
        type=existing("what rave train_prior wrote, here or in acids-rave"),
        metavar="RUN",
        help="what rave train_prior wrote, here or in acids-rave",
    )
    options.add_argument(
        "--codec",
        type=existing(CODEC),
        help="for a prior of acids-rave: the run whose latents it was trained on",
    )
    options.add_argument("out", type=Path, metavar="OUT_LATENTS_DIR", help="folder to write")
    options.add_argument("--count", type=int, default=4, help="clips to generate (default 4)")
    options.add_argument("--seconds", type=float, default=10.0, help="length of each (default 10)")
    options.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="below 1 nearer to the likely, 0 the likeliest alone, above 1 bolder (default 1)",
    )
    options.add_argument("--force", action="store_true", help="replace what was generated before")
    add_seed(options)
    add_device(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Sample and write a latent folder."""
    if options.count < 1:
        raise ValueError(f"--count is {options.count}; at least 1 is needed.")
    if not 0 < options.seconds < float("inf"):
        raise ValueError(f"--seconds is {options.seconds}; a number above 0 is needed.")
    if not 0 <= options.temperature < float("inf"):
        raise ValueError(f"--temperature is {options.temperature}; a number from 0 is needed.")
    from dataclasses import replace

    from tqdm import tqdm

    from rave.compute.device import choose_device
    from rave.jobs.journal import sole_writer
    from rave.latents.folder import write_latents
    from rave.latents.generated import check_output, clear, clip_name, write_header
    from rave.upstream.run import is_run

    device = choose_device(options.device)
    if options.codec is not None and not is_run(options.run):
        raise ValueError(f"'{options.run}' names its codec itself; leave --codec out.")
    model, header = open_prior(options.run, options.codec)
    check_output(options.out, options.force)
    num_frames = max(round(options.seconds * header.frame_rate_hz), 1)
    model.eval().to(device)
    seeds = [(options.seed, index) for index in range(options.count)]
    total = num_frames + model.latent_size - 1
    with tqdm(desc="sample", total=total, unit="frame", file=sys.stderr) as bar:
        latents = model.sample(num_frames, seeds, options.temperature, bar.update).cpu().numpy()
    if not header.statistics.num_frames:
        header = replace(header, statistics=_statistics(latents))
    names = [clip_name(index) for index in range(options.count)]
    with sole_writer(options.out):
        clear(options.out)
        for name, clip in zip(names, latents, strict=True):
            write_latents(options.out / name, [clip], header.latent_size)
        write_header(options.out, dict.fromkeys(names, num_frames), header, options.seed)
    duration_s = num_frames / header.frame_rate_hz
    figures = {
        "folder": str(options.out),
        "num_frames": num_frames,
        "duration_s": duration_s,
        "temperature": options.temperature,
        "files": names,
    }
    text = f"Generated {options.count} clips of {duration_s:.2f} s in '{options.out}'."
    return Result(text, figures)


def open_prior(
    run: Path, codec: Path | None, form: CodecFormat | None = None
) -> tuple[LatentPrior, LatentHeader]:
    """Return the prior of a run, and the header of latents it was trained on.

    Args:
        run: What `rave train_prior` wrote, here or in acids-rave.
        codec: Of a run of acids-rave: the run whose latents it was trained on.
        form: Of that codec, if it is open already.

    Raises:
        ValueError: If it is no such run, or `codec` is missing or another.
    """
    from rave.upstream.run import is_run

    return _open_upstream(run, codec, form) if is_run(run) else _open(run)


def _open(run: Path) -> tuple[LatentPrior, LatentHeader]:
    from rave.experiment import rebuild_model
    from rave.latents.folder import LatentHeader
    from rave.prior import KIND, LatentPrior
    from rave.runs.checkpoint import load_weights, read_checkpoint, trained_checkpoint

    model = rebuild_model(run, KIND, LatentPrior)
    header = LatentHeader.read(run)
    load_weights(model, read_checkpoint(trained_checkpoint(run)), run)
    return model, header


def _open_upstream(
    run: Path, codec: Path | None, form: CodecFormat | None
) -> tuple[LatentPrior, LatentHeader]:
    from rave.codec import load_run
    from rave.latents.folder import GENERATED, LatentHeader
    from rave.latents.statistics import LatentStatistics
    from rave.upstream.prior import open_prior

    model, fingerprint = open_prior(run)
    if codec is None:
        raise ValueError(
            f"'{run}' is a prior of acids-rave. Add --codec RUN, the run that it was trained for."
        )
    form = form or load_run(codec)[1]
    if form.fingerprint != fingerprint:
        raise ValueError(
            f"The prior '{run}' was trained for a codec of fingerprint {fingerprint}; '{codec}' "
            f"has {form.fingerprint}. Give the run that it was trained for."
        )
    unknown = LatentStatistics([], [], [], [], 0)
    return model, LatentHeader(
        form.fingerprint,
        str(codec),
        form.sample_rate_hz,
        form.hop_samples,
        form.latent_size,
        GENERATED,
        unknown,
        [],
    )


def _statistics(latents: NDArray[np.float32]) -> LatentStatistics:
    """Return statistics of what was generated, (B, E, N), for want of the training latents'.

    All dimensions count as informative, since the noise of the others is in them already.
    """
    from rave.latents.statistics import LatentStatistics

    std = latents.std(axis=(0, 2))
    zeros = [0.0] * len(std)
    mean = latents.mean(axis=(0, 2)).tolist()
    return LatentStatistics(mean, std.tolist(), zeros, zeros, latents[:, 0].size)
