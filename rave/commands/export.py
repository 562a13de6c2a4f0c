"""`rave export`: a run → one TorchScript file, ONNX, or a run folder of acids-rave."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import RAVE_RUN, add_weights, command_parser, keywords
from rave.parsing import existing


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
    parser.add_argument("out", type=Path, help="file to write (name.ts), or folder to write")
    parser.add_argument(
        "--format",
        choices=("torchscript", "acids-rave", "onnx"),
        default="torchscript",
        help="torchscript: a .ts file; acids-rave: a folder with config.gin and checkpoint, which "
        "counts as another codec; onnx: a folder with encoder and decoder (default torchscript)",
    )
    streaming = parser.add_argument_group("for nn~ (Max, PureData, SuperCollider)")
    streaming.add_argument(
        "--streaming",
        action="store_true",
        help="write a .ts file that encodes and decodes a stream block by block",
    )
    streaming.add_argument(
        "--fidelity",
        type=float,
        metavar="SHARE",
        help="keep the principal latents that carry this share of the variance, in (0, 1]; 1 keeps "
        "all (default 0.95, or 1 if the latents have no posterior)",
    )
    streaming.add_argument(
        "--power-of-two",
        action="store_true",
        help="round the number of latents up to a power of two, as acids-rave does",
    )
    streaming.add_argument(
        "--noise-seed",
        type=int,
        metavar="SEED",
        help="fixed seed of the noise in decode, 0 or more (default: new noise each time)",
    )
    streaming.add_argument(
        "--host-rate",
        type=int,
        metavar="HZ",
        help="sample rate of the host (default: the model's); only forward is available unless it "
        "is 1, 2 or 4 times the model's",
    )
    streaming.add_argument(
        "--prior",
        type=existing("a run of `rave train_prior`"),
        metavar="RUN",
        help="run of `rave train_prior`, ours or acids-rave's: adds a method `prior` that "
        "generates latents",
    )
    add_weights(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Export, open the result again, and report its largest difference from the run on noise."""
    from rave.api.export import export_codec

    return export_codec(**keywords(options))
