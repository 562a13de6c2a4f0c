"""`rave export`: a run → one TorchScript file, or a run folder of acids-rave."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rave.command import Result, add_weights, chosen_weights, command_parser

if TYPE_CHECKING:
    from rave.codec import Codec

TORCHSCRIPT, ACIDS_RAVE = "torchscript", "acids-rave"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave export`."""
    parser = command_parser(
        "rave export",
        "Write a trained autoencoder as TorchScript with encode, decode and forward, or as a run "
        "folder that acids-rave opens, and check it against the run.",
        "rave export runs/piano piano.ts",
    )
    parser.add_argument("run", type=Path, help="run folder of `rave train` or of acids-rave")
    parser.add_argument("out", type=Path, help="file to write, ending in .ts, or folder to make")
    parser.add_argument(
        "--format",
        choices=(TORCHSCRIPT, ACIDS_RAVE),
        default=TORCHSCRIPT,
        help="torchscript: a .ts file; acids-rave: a folder with config.gin and checkpoint, whose "
        "latents have a fingerprint of their own (default torchscript)",
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
    import torch

    from rave.codec import load_codec

    notes = _write(options)
    device = torch.device("cpu")
    run = load_codec(options.run, device, **chosen_weights(options))
    export = load_codec(options.out, device)
    files = [p for p in (options.out, *options.out.rglob("*")) if p.is_file()]
    figures = {
        "file": str(options.out),
        "format": options.format,
        "fingerprint": export.format.fingerprint,
        "size_mib": sum(path.stat().st_size for path in files) / 2**20,
        "largest_difference": _largest_difference(run, export),
    }
    told = "'{file}' ({size_mib:.1f} MiB) equals the run to {largest_difference:.1e}."
    return Result("\n".join([told.format(**figures), *notes]), figures)


def _write(options: argparse.Namespace) -> list[str]:
    """Write the output and return what the user should know of it."""
    from rave.codec import load_run
    from rave.export import export_torchscript
    from rave.upstream.export import export_run

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
    if is_script:
        export_torchscript(*load_run(options.run, **chosen_weights(options)), options.out)
        return []
    if options.ema or options.derivative:
        raise ValueError(
            "A run folder of acids-rave cannot say --ema or --derivative. Leave them out, and give "
            "them where the folder is opened."
        )
    notes = ["It is a codec of its own: what it is to decode, encode with it."]
    if not export_run(options.run, options.out):
        notes.append("The discriminators did not go along.")
    return notes


def _largest_difference(run: Codec, export: Codec) -> float:
    """Return the largest difference of latents and audio of noise."""
    import numpy as np

    from rave.codec import DecoderNoise
    from rave.latents import StatisticsAccumulator

    rng = np.random.default_rng(0)
    shape = (run.format.num_channels, 4 * run.format.hop_samples)
    audio = (0.1 * rng.standard_normal(shape)).astype(np.float32)
    (mean, std), (mean_again, _) = (codec.encode(audio) for codec in (run, export))
    sums = StatisticsAccumulator(run.format.latent_size)
    sums.add(mean, std)
    noise = DecoderNoise(run.format, sums.statistics(), 0, "export")
    decoded, decoded_again = (codec.decode(mean, noise) for codec in (run, export))
    pairs = ((mean, mean_again), (decoded, decoded_again))
    return max(float(np.abs(a - b).max()) for a, b in pairs)
