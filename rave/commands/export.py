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
    parser.add_argument("out", type=Path, help="file to write, ending in .ts, or folder to make")
    parser.add_argument(
        "--format",
        choices=("torchscript", "acids-rave", "onnx"),
        default="torchscript",
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
        "(default 0.95; of latents without a distribution 1)",
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
    """Export, open the result again, and report its largest difference from the run on noise."""
    from rave.api.export import export_codec

    return export_codec(**keywords(options))
