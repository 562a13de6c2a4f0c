"""`rave unshard`: a sharded set → a folder of latents."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rave.command import Result, command_parser

if TYPE_CHECKING:
    from rave.latents import LatentFile


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave unshard`."""
    from rave.shard_storage import latents_place

    parser = command_parser(
        "rave unshard",
        "Unpack a sharded set of latents into a latent folder, which every command reads.\n"
        "The same command again goes on where it was stopped.",
        "rave unshard shards latents",
    )
    parser.add_argument(
        "shards",
        type=latents_place,
        metavar="SHARDS",
        help="what rave shard wrote: a folder, or an address such as s3://bucket/set",
    )
    parser.add_argument("latents_dir", type=Path, metavar="LATENTS_DIR", help="folder to write")
    return parser


def run(options: argparse.Namespace) -> Result:
    """Unpack, and tell what was written.

    Raises:
        ValueError: If there is no sharded set, or the folder holds something else.
        OSError: If the folder cannot be written; what was finished is kept.
    """
    import sys
    from dataclasses import replace

    import numpy as np
    from tqdm import tqdm

    from rave.files import check_output_folder, remove_partials
    from rave.latent_shards import LatentShards
    from rave.latents import HEADER_NAME, LatentHeader, write_latents
    from rave.lock import sole_writer

    folder = options.latents_dir
    if isinstance(options.shards, Path):
        check_output_folder(folder, options.shards)
    shards = LatentShards(options.shards)
    if (folder / HEADER_NAME).exists():
        name = f"'{options.shards}'"
        LatentHeader.read(folder).check_matches(shards.header, f"'{folder}'", name)
    files: list[LatentFile] = []
    num_written = 0
    with (
        sole_writer(folder),
        tqdm(total=len(shards), desc="Unpacking", unit="clip", file=sys.stderr) as progress,
    ):
        remove_partials(folder)
        for clip in shards:
            entry = clip.entry
            path = folder / entry.path
            if not path.exists():
                write_latents(path, [np.asarray(clip.array)], shards.header.latent_size)
                num_written += 1
            files.append(entry)
            progress.update()
        files.sort(key=lambda file: file.path)
        replace(shards.header, files=files).write(folder)
    figures = {"num_clips": len(files), "num_written": num_written}
    return Result(f"'{folder}' holds {len(files)} clips; {num_written} written now.", figures)
