"""`rave unshard`: a sharded set → a folder of latents."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import command_parser, keywords


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave unshard`."""
    from rave.latents.storage import latents_place

    parser = command_parser(
        "rave unshard",
        "Unpack a sharded set of latents into a latent folder, which every command reads.\n"
        "The same command again continues.",
        "rave unshard shards latents",
    )
    parser.add_argument(
        "shards",
        type=latents_place,
        metavar="SHARDS",
        help="folder that `rave shard` wrote, or an address such as s3://bucket/set",
    )
    parser.add_argument("latents_dir", type=Path, metavar="LATENTS_DIR", help="folder to write")
    return parser


def run(options: argparse.Namespace) -> Result:
    """Unpack, and report the number of clips."""
    from rave.api.unshard import unshard_latents

    return unshard_latents(**keywords(options))
