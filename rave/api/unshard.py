"""A sharded set → a folder of latents."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rave.api.result import Result
from rave.files.atomic import check_output_folder, remove_partials, sync
from rave.jobs.journal import Journal
from rave.latents.folder import HEADER_NAME, LatentFile, read_latents, write_latents
from rave.latents.shards import LatentShards
from rave.latents.storage import is_address

JOURNAL_NAME = ".unshard.jsonl"


def unshard_latents(shards: str | Path, latents_dir: str | Path) -> Result:
    """Unpack a sharded set of latents into a latent folder.

    The same call again continues.

    Args:
        shards: Folder that `shard_latents` wrote, or an address that fsspec supports, such as
            s3://bucket/set.
        latents_dir: Folder to write.

    Returns:
        Number of clips, and how many were written now.

    Raises:
        ValueError: If there is no sharded set, or the folder holds other latents.
        OSError: If the folder cannot be written; what was finished is kept.
    """
    place, folder = shards if is_address(shards) else Path(shards), Path(latents_dir)
    if isinstance(place, Path):
        check_output_folder(folder, place)
    sharded = LatentShards(place)
    journal = Journal(folder / JOURNAL_NAME, {"shards": sharded.digest})
    if (folder / HEADER_NAME).exists() and not journal.names:
        raise ValueError(f"'{folder}' is a latent folder already. Choose another one.")
    files: list[LatentFile] = []
    num_written, latent_size = 0, sharded.header.latent_size
    with (
        closing(journal),
        tqdm(total=len(sharded), desc="Unpacking", unit="clip", file=sys.stderr) as progress,
    ):
        if not journal.names:
            journal.add("begun", {})  # from now on, arrays in the folder belong to this set
        remove_partials(folder)
        for clip in sharded:
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
        replace(sharded.header, files=files).write(folder)
    figures = {"num_clips": len(files), "num_written": num_written}
    return Result(f"'{folder}' holds {len(files)} clips; {num_written} written now.", figures)


def _is_written(path: Path, latent_size: int, num_frames: int) -> bool:
    """Return whether an array exists and is whole: after a power cut the file may be empty."""
    try:
        read_latents(path, latent_size, num_frames)
    except ValueError:
        return False
    return True
