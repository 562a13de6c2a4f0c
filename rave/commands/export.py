"""`rave export`: a run → one TorchScript file."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.command import Result, command_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave export`."""
    parser = command_parser(
        "rave export",
        "Write a trained autoencoder as TorchScript with encode, decode and forward, and check it "
        "against the run.",
        "rave export runs/piano piano.ts",
    )
    parser.add_argument("run", type=Path, help="run folder of `rave train`")
    parser.add_argument("out", type=Path, help="file to write, ending in .ts")
    return parser


def run(options: argparse.Namespace) -> Result:
    """Export, load the file again, and report its largest difference from the run on noise.

    Raises:
        ValueError: If the run cannot be read, or the name does not end in .ts.
        OSError: If the file cannot be written.
    """
    import numpy as np
    import torch

    from rave.codec import DecoderNoise, load_codec, load_model
    from rave.export import export_torchscript
    from rave.latents import StatisticsAccumulator

    if options.out.suffix != ".ts":
        raise ValueError(f"'{options.out}' would be TorchScript; give a name that ends in .ts.")
    format = export_torchscript(load_model(options.run), options.out)
    codecs = [load_codec(path, torch.device("cpu")) for path in (options.run, options.out)]
    rng = np.random.default_rng(0)
    shape = (format.num_channels, 4 * format.hop_samples)
    audio = (0.1 * rng.standard_normal(shape)).astype(np.float32)
    (mean, std), (mean_again, _) = (codec.encode(audio) for codec in codecs)
    sums = StatisticsAccumulator(format.latent_size)
    sums.add(mean, std)
    noise = DecoderNoise(format, sums.statistics(), 0, "export")
    decoded, decoded_again = (codec.decode(mean, noise) for codec in codecs)
    difference = max(
        float(np.abs(a - b).max()) for a, b in ((mean, mean_again), (decoded, decoded_again))
    )
    figures = {
        "file": str(options.out),
        "fingerprint": format.fingerprint,
        "size_mib": options.out.stat().st_size / 2**20,
        "largest_difference": difference,
    }
    return Result(
        f"'{options.out}' ({figures['size_mib']:.1f} MiB) equals the run to {difference:.1e}.",
        figures,
    )
