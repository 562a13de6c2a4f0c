"""`rave unshard`: a sharded set → a folder of latents."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rave.api.result import Result
from rave.cli import command_parser

if TYPE_CHECKING:
    from rave.latents.folder import LatentFile

JOURNAL_NAME = ".unshard.jsonl"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave unshard`."""
    from rave.latents.storage import latents_place

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
    """Unpack, and report what was written.

    Raises:
        ValueError: If there is no sharded set, or the folder holds something else.
        OSError: If the folder cannot be written; what was finished is kept.
    """
    import sys
    from contextlib import closing
    from dataclasses import replace

    import numpy as np
    from tqdm import tqdm

    from rave.files.atomic import check_output_folder, remove_partials, sync
    from rave.jobs.journal import Journal
    from rave.latents.folder import HEADER_NAME, write_latents
    from rave.latents.shards import LatentShards

    folder = options.latents_dir
    if isinstance(options.shards, Path):
        check_output_folder(folder, options.shards)
    shards = LatentShards(options.shards)
    journal = Journal(folder / JOURNAL_NAME, {"shards": shards.digest})
    if (folder / HEADER_NAME).exists() and not journal.names:
        raise ValueError(f"'{folder}' is a latent folder already. Choose another one.")
    files: list[LatentFile] = []
    num_written, latent_size = 0, shards.header.latent_size
    with (
        closing(journal),
        tqdm(total=len(shards), desc="Unpacking", unit="clip", file=sys.stderr) as progress,
    ):
        if not journal.names:
            journal.add("begun", {})  # from now on, arrays that are there are of this set
        remove_partials(folder)
        for clip in shards:
            entry = clip.entry
            path = folder / entry.path
            if not _is_written(path, latent_size, entry.num_frames):
                write_latents(path, [np.asarray(clip.array)], latent_size, is_durable=False)
                num_written += 1
            files.append(entry)
            progress.update()
        files.sort(key=lambda file: file.path)
        paths = [folder / file.path for file in files]
        sync(paths)
        sync({path.parent for path in paths})
        replace(shards.header, files=files).write(folder)
    figures = {"num_clips": len(files), "num_written": num_written}
    return Result(f"'{folder}' holds {len(files)} clips; {num_written} written now.", figures)


def _is_written(path: Path, latent_size: int, num_frames: int) -> bool:
    """Return whether an array is there, and whole: a power cut may leave its name only."""
    from rave.latents.folder import read_latents

    try:
        read_latents(path, latent_size, num_frames)
    except ValueError:
        return False
    return True
