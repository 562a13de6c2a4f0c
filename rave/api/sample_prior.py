"""New latents from an autoregressive prior."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from rave.api.result import Result
from rave.compute.arrays import Float32Array
from rave.jobs.journal import sole_writer
from rave.latents.folder import GENERATED, LatentHeader, write_latents
from rave.latents.generated import check_output, clear, clip_name, write_header
from rave.latents.statistics import LatentStatistics
from rave.parsing import check_seed, path_or_none

if TYPE_CHECKING:  # torch takes long to import; what is refused without it is refused at once
    from rave.codec_format import CodecFormat
    from rave.latents.identity import CodecIdentity
    from rave.prior import LatentPrior


def sample_prior(
    run: str | Path,
    out: str | Path,
    *,
    codec: str | Path | None = None,
    count: int = 4,
    seconds: float = 10.0,
    temperature: float = 1.0,
    force: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> Result:
    """Write a folder of new latents, which `decode_folder` turns into audio.

    Args:
        run: Run of `rave train_prior`, ours or acids-rave's.
        out: Folder to write.
        codec: Only for a prior of acids-rave: the run whose latents it was trained on.
        count: Number of clips.
        seconds: Length of each clip.
        temperature: Below 1 likelier values, 0 only the likeliest, above 1 less likely ones.
        force: Replace clips generated before.
        seed: Random seed.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        Names, frames and length of the clips.

    Raises:
        ValueError: If a value, the run or the codec cannot be used.
        OSError: If the folder cannot be written.
    """
    check_seed(seed)
    if count < 1:
        raise ValueError(f"--count is {count}; at least 1 is needed.")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds is {seconds}; a number above 0 is needed.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"--temperature is {temperature}; a number of 0 or more is needed.")
    from rave.compute.device import choose_device
    from rave.upstream.run import is_run

    run, folder = Path(run), Path(out)
    place = choose_device(device)
    if codec is not None and not is_run(run):
        raise ValueError(f"'{run}' already names its codec; leave --codec out.")
    model, header = open_prior(run, path_or_none(codec))
    check_output(folder, force)
    num_frames = max(round(seconds * header.frame_rate_hz), 1)
    model.eval().to(place)
    seeds = [(seed, index) for index in range(count)]
    total = num_frames + model.latent_size - 1
    with tqdm(desc="sample", total=total, unit="frame", file=sys.stderr) as bar:
        latents = model.sample(num_frames, seeds, temperature, bar.update).cpu().numpy()
    if not header.statistics.num_frames:
        header = replace(header, statistics=_statistics(latents))
    names = [clip_name(index) for index in range(count)]
    with sole_writer(folder):
        clear(folder)
        for name, clip in zip(names, latents, strict=True):
            write_latents(folder / name, [clip], header.latent_size)
        write_header(folder, dict.fromkeys(names, num_frames), header, seed)
    duration_s = num_frames / header.frame_rate_hz
    figures = {
        "folder": str(folder),
        "num_frames": num_frames,
        "duration_s": duration_s,
        "temperature": temperature,
        "files": names,
    }
    text = f"Generated {count} clips of {duration_s:.2f} s in '{folder}'."
    return Result(text, figures)


def open_prior(
    run: Path, codec: Path | None, form: CodecFormat | None = None
) -> tuple[LatentPrior, LatentHeader]:
    """Return the prior of a run, and the header of the latents that it was trained on.

    Args:
        run: Run of `rave train_prior`, ours or acids-rave's.
        codec: Only for a prior of acids-rave: the run whose latents it was trained on.
        form: Format of that codec, if it is already open.

    Raises:
        ValueError: If it is not such a run, or `codec` is missing or wrong.
    """
    from rave.upstream.run import is_run

    return _open_upstream(run, codec, form) if is_run(run) else _open(run, codec, form)


def _open(
    run: Path, codec: Path | None, form: CodecFormat | None
) -> tuple[LatentPrior, LatentHeader]:
    from rave.experiment import rebuild_model
    from rave.prior import KIND, LatentPrior
    from rave.runs.checkpoint import load_weights, read_checkpoint, trained_checkpoint

    model = rebuild_model(run, KIND, LatentPrior)
    header = LatentHeader.read(run)
    if form is not None:
        _check(header.identity, form, run, codec)
    load_weights(model, read_checkpoint(trained_checkpoint(run)), run)
    return model, header


def _open_upstream(
    run: Path, codec: Path | None, form: CodecFormat | None
) -> tuple[LatentPrior, LatentHeader]:
    from rave.codec import load_run
    from rave.upstream.prior import open_prior

    model, fingerprint = open_prior(run)
    if codec is None:
        raise ValueError(
            f"'{run}' is a prior of acids-rave. Add --codec RUN, the codec that it was trained for."
        )
    form = form or load_run(codec)[1]
    _check(replace(form.identity, fingerprint=fingerprint), form, run, codec)
    sizes = form.sample_rate_hz, form.hop_samples, form.latent_size
    unknown = LatentStatistics([], [], [], [], 0)
    return model, LatentHeader(fingerprint, str(codec), *sizes, GENERATED, unknown, [])


def _check(identity: CodecIdentity, form: CodecFormat, run: Path, codec: Path | None) -> None:
    remedy = "Give the run that it was trained for."
    identity.check_same(form.identity, f"The prior '{run}'", f"the codec '{codec}'", remedy)


def _statistics(latents: Float32Array) -> LatentStatistics:
    """Return statistics of generated latents (B, E, N), where the training latents' are unknown.

    All dimensions count as informative: the latents already contain the noise of the others.
    """
    std = latents.std(axis=(0, 2))
    zeros = [0.0] * len(std)
    mean = latents.mean(axis=(0, 2)).tolist()
    return LatentStatistics(mean, std.tolist(), zeros, zeros, latents[:, 0].size)
