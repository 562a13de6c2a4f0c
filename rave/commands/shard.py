"""`rave shard`: folders of latents → a sharded set of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import LATENTS, add_seed, command_parser, keywords
from rave.parsing import existing

DEFAULT_SHARD_MB = 128.0


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave shard`."""
    parser = command_parser(
        "rave shard",
        "Pack the latents of one or several folders, in shuffled order, into a few large files:\n"
        "what to train on where clips are many, or lie in object storage. The same command again\n"
        "goes on where it was stopped.",
        "rave shard latents latents-of-another-machine shards",
    )
    parser.add_argument(
        "latents_dirs",
        type=existing(LATENTS),
        nargs="+",
        metavar="LATENTS_DIR",
        help="what rave encode wrote",
    )
    parser.add_argument("shards_dir", type=Path, metavar="SHARDS_DIR", help="folder to write")
    parser.add_argument(
        "--shard-mb",
        type=float,
        default=DEFAULT_SHARD_MB,
        help=f"size of a shard in MB (default {DEFAULT_SHARD_MB:.0f})",
    )
    parser.add_argument("--force", action="store_true", help="replace a set of other settings")
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Pack, and report what the set holds."""
    from rave.api.shard import shard_latents

    return shard_latents(**keywords(options))
