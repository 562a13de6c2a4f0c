"""`rave export`: a run → one TorchScript file, ONNX, or a run folder of acids-rave."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rave.api.result import Result
from rave.cli import RAVE_RUN, add_weights, command_parser
from rave.parsing import existing

if TYPE_CHECKING:
    from rave.codec import OpenedRun
    from rave.codec_format import CodecFormat
    from rave.model import RAVE
    from rave.prior import LatentPrior

TORCHSCRIPT, ACIDS_RAVE, ONNX = "torchscript", "acids-rave", "onnx"
FIDELITY = 0.95  # as in acids-rave


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave export`."""
    parser = command_parser(
        "rave export",
        "Write a trained autoencoder as TorchScript with encode, decode and forward, as ONNX, "
        "or as a run folder that acids-rave opens, and check it against the run.",
        "rave export runs/piano piano.ts",
    )
    parser.add_argument(
        "run", type=existing(RAVE_RUN), help="run folder of `rave train` or of acids-rave"
    )
    parser.add_argument("out", type=Path, help="file to write, ending in .ts, or folder to make")
    parser.add_argument(
        "--format",
        choices=(TORCHSCRIPT, ACIDS_RAVE, ONNX),
        default=TORCHSCRIPT,
        help="torchscript: a .ts file; acids-rave: a folder with config.gin and checkpoint, whose "
        "latents have a fingerprint of their own; onnx: a folder with encoder and decoder "
        "(default torchscript)",
    )
    streaming = parser.add_argument_group("for nn~ (Max, PureData, SuperCollider)")
    streaming.add_argument(
        "--streaming",
        action="store_true",
        help="write a .ts whose encode, decode and forward take a stream block by block",
    )
    streaming.add_argument(
        "--fidelity",
        type=float,
        metavar="SHARE",
        help="as many principal latents as carry this share of the variance, in (0, 1]; 1 is all "
        f"(default {FIDELITY}; of latents without a distribution 1)",
    )
    streaming.add_argument(
        "--power-of-two",
        action="store_true",
        help="round that number up to a power of two, as acids-rave does",
    )
    streaming.add_argument(
        "--noise-seed",
        type=int,
        metavar="SEED",
        help="the same noise in decode each time, from 0 on (default: other noise each time)",
    )
    streaming.add_argument(
        "--host-rate",
        type=int,
        metavar="HZ",
        help="sample rate of the host (default: the model's); if it is not once, twice or four "
        "times that, forward is the only method",
    )
    streaming.add_argument(
        "--prior",
        type=existing("a run of `rave train_prior`"),
        metavar="RUN",
        help="run of `rave train_prior`, here or in acids-rave: adds a method prior that makes "
        "latents",
    )
    add_weights(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Export, open the result again, and report its largest difference from the run on noise.

    Raises:
        ValueError: If the run cannot be read, acids-rave has no such model, or the name of the
            output does not fit its format.
        OSError: If the output cannot be written.
    """
    _check_options(options)
    import torch

    from rave.codec import Codec, load_codec, open_run
    from rave.codec_source import answers, check_difference, largest_difference
    from rave.files.atomic import atomic_folder, atomic_write

    cpu = torch.device("cpu")
    opened = open_run(options.run, ema=options.ema, derivative=options.derivative)
    codec_format = opened.format
    if codec_format.is_derivative and (options.streaming or options.format == ONNX):
        raise ValueError(
            f"'{options.run}' knows audio's derivative, and neither a stream nor ONNX can "
            "integrate. Export it as TorchScript without --streaming."
        )
    if options.format == ONNX:
        from rave.export.onnx import export_onnx

        found, notes = export_onnx(opened.model, codec_format, options.out), list[str]()
        fingerprint = codec_format.fingerprint
    else:
        new = atomic_write if options.format == TORCHSCRIPT else atomic_folder
        with new(options.out) as path:
            wanted = answers(Codec(opened.model, codec_format, options.run, cpu))
            notes = _write(options, opened, path)
            export = load_codec(path, cpu, derivative=codec_format.is_derivative)
            found = largest_difference(wanted, answers(export, wanted))
            fingerprint = export.format.fingerprint
            check_difference(found, options.out)
    files = [p for p in (options.out, *options.out.rglob("*")) if p.is_file()]
    figures = {
        "file": str(options.out),
        "format": options.format,
        "fingerprint": fingerprint,
        "size_mib": sum(path.stat().st_size for path in files) / 2**20,
        "largest_difference": found,
    }
    told = "'{file}' ({size_mib:.1f} MiB) equals the run to {largest_difference:.1e}."
    return Result("\n".join([told.format(**figures), *notes]), figures)


def _check_options(options: argparse.Namespace) -> None:
    """Refuse a name that does not fit the format, and options that would have no effect."""
    from rave.files.atomic import check_new_folder

    is_script = options.format == TORCHSCRIPT
    if is_script and options.out.suffix != ".ts":
        raise ValueError(
            f"'{options.out}' would be TorchScript; give a name that ends in .ts. "
            "For a run folder of acids-rave add --format acids-rave."
        )
    if not is_script and options.out.suffix == ".ts":
        raise ValueError(
            f"'{options.out}' would be a folder; give a name that does not end in .ts."
        )
    if options.streaming and not is_script:
        raise ValueError(f"--streaming writes TorchScript; leave out --format {options.format}.")
    for name in ("fidelity", "power_of_two", "noise_seed", "host_rate", "prior"):
        if not options.streaming and getattr(options, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} is for --streaming; add it.")
    if options.format == ACIDS_RAVE:
        check_new_folder(options.out)
    if options.format == ACIDS_RAVE and (options.ema or options.derivative):
        raise ValueError(
            "A run folder of acids-rave cannot say --ema or --derivative. Leave them out, and give "
            "them where the folder is opened."
        )


def _write(options: argparse.Namespace, opened: OpenedRun, path: Path) -> list[str]:
    """Write TorchScript or a run of acids-rave, and return what to know of it."""
    from rave.export.acids_rave import export_run
    from rave.export.torchscript import export_torchscript

    if options.streaming:
        return _write_streaming(options, opened.model, opened.format, path)
    if options.format == TORCHSCRIPT:
        export_torchscript(opened.model, opened.format, path)
        return []
    notes = ["It is a codec of its own: what it is to decode, encode with it."]
    if opened.format.is_derivative:
        notes.append("It cannot say that it knows audio's derivative: open it with --derivative.")
    if not export_run(options.run, path, opened):
        notes.append("The discriminators did not go along.")
    return notes


def _write_streaming(
    options: argparse.Namespace, model: RAVE, codec_format: CodecFormat, path: Path
) -> list[str]:
    """Write a module for nn~ and return what the user should know of it."""
    from rave.export.torchscript import export_nn_tilde
    from rave.streaming.host_module import rate_note
    from rave.streaming.nn_tilde import NNTildePrior, latent_count
    from rave.streaming.noise import FRESH_NOISE

    is_normal = model.bottleneck.rows_per_latent == 2
    wanted = (FIDELITY if is_normal else 1.0) if options.fidelity is None else options.fidelity
    count = latent_count(model.fidelity, wanted, options.power_of_two)
    seed = FRESH_NOISE if options.noise_seed is None else options.noise_seed
    prior = None if options.prior is None else _prior(options, codec_format)
    module = export_nn_tilde(model, codec_format, path, count, seed, options.host_rate, prior)
    rate_hz = module.sample_rate_hz
    late, late_ms = module.latency_samples, 1000 * module.latency_samples / rate_hz
    note = rate_note(options.out, rate_hz)
    if "decode" not in module.methods:
        told = f"In nn~ at {rate_hz} Hz, forward alone. Late: {late} samples, {late_ms:.1f} ms."
        return [told, note]
    encode, decode = module.encode_latency_samples, module.decode_latency_samples
    told = (
        f"In nn~ at {rate_hz} Hz, {count} of {model.latent_size} latents. Late: encode {encode} "
        f"samples, decode {decode}, both {late_ms:.1f} ms"
    )
    if isinstance(module, NNTildePrior):
        told += f", prior {module.prior_delay_frames * module.hop_samples} samples"
    return [f"{told}.", note]


def _prior(options: argparse.Namespace, form: CodecFormat) -> LatentPrior:
    """Return the prior that is to go along.

    Raises:
        ValueError: If it was trained on other latents.
    """
    from rave.commands.sample_prior import open_prior

    prior, header = open_prior(options.prior, options.run, form)
    if header.codec != form.fingerprint:
        raise ValueError(
            f"The prior '{options.prior}' was trained on latents of codec {header.codec}; "
            f"'{options.run}' is {form.fingerprint}. Give the run that it was trained for."
        )
    return prior
