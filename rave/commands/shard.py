"""`rave shard`: folders of latents → one sharded set."""

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
        "Pack the latents of one or several folders, in shuffled order, into a few large files,\n"
        "for training on very many clips or from object storage. The same command again continues.",
        "rave shard latents latents-of-another-machine shards",
    )
    parser.add_argument(
        "latents_dirs",
        type=existing(LATENTS),
        nargs="+",
        metavar="LATENTS_DIR",
        help="folder that `rave encode` wrote",
    )
    parser.add_argument("shards_dir", type=Path, metavar="SHARDS_DIR", help="folder to write")
    parser.add_argument(
        "--shard-mb",
        type=float,
        default=DEFAULT_SHARD_MB,
        help=f"size of a shard in MB (default {DEFAULT_SHARD_MB:.0f})",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a set made with other settings"
    )
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Pack, and report the size of the set."""
    from rave.api.shard import shard_latents

    return shard_latents(**keywords(options))
