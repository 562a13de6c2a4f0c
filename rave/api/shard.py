"""Folders of latents → one sharded set."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rave.api.result import Result
from rave.files.atomic import built, check_output_folder, digest, remove_partials
from rave.jobs.journal import Journal
from rave.jobs.loop import skipped_line
from rave.latents.folder import HEADER_NAME, SHARDS_NAME, LatentFile, LatentHeader, read_latents
from rave.latents.shard_writer import (
    Clip,
    begin_anew,
    clear,
    finish,
    has_part,
    merged_statistics,
    original_paths,
    shard_numbers,
    write_shard,
)
from rave.latents.shards import Shard, shard_name
from rave.parsing import check_seed

JOURNAL_NAME = ".shard.jsonl"
SHARD_MB = (0.01, 1e6)


def shard_latents(
    latents_dirs: str | Path | Sequence[str | Path],
    shards_dir: str | Path,
    *,
    shard_mb: float = 128.0,
    force: bool = False,
    seed: int = 0,
) -> Result:
    """Pack the latents of one or several folders, in shuffled order, into a few large files.

    The same call again continues.

    Args:
        latents_dirs: Folder that `encode_folder` wrote, or several from one codec.
        shards_dir: Folder to write.
        shard_mb: Size of a shard in MB, 0.01 to 1e6.
        force: Replace a set made with other settings.
        seed: Random seed of the order.

    Returns:
        Counts of clips, frames, shards and bytes, and what was skipped.

    Raises:
        ValueError: If the folders do not belong together, or no clip can be used.
        OSError: If the set cannot be written; what was finished is kept.
    """
    check_seed(seed)
    latents_dirs = [latents_dirs] if isinstance(latents_dirs, str | Path) else latents_dirs
    folders, out = [Path(folder) for folder in latents_dirs], Path(shards_dir)
    smallest, largest = SHARD_MB
    if not smallest <= shard_mb <= largest:
        raise ValueError(f"--shard-mb is {shard_mb}; it must be from {smallest} to {largest:.0f}.")
    check_output_folder(out, *folders)
    if (out / HEADER_NAME).exists():
        raise ValueError(f"'{out}' is a latent folder itself. Choose another one for the shards.")
    digests = [digest(folder / HEADER_NAME) for folder in folders]
    headers = [LatentHeader.read(folder) for folder in folders]
    places = _joined(folders, headers)
    order = np.random.default_rng(seed).permutation(len(places))
    places = [places[index] for index in order]
    num_frames = np.array([file.num_frames for _, file in places], np.int64)
    firsts = shard_numbers(num_frames, headers[0].latent_size, int(shard_mb * 10**6))
    settings = {
        "latents": digests,
        "shard_mb": float(shard_mb),
        "seed": seed,
    }
    journal = Journal(out / JOURNAL_NAME, settings, force=force)
    with closing(journal):
        if (out / SHARDS_NAME).exists() and not (journal.names or force):
            raise ValueError(
                f"'{out}' holds another sharded set. Choose another folder, or add --force to "
                "replace it."
            )
        remove_partials(out)
        return _written(out, headers, places, firsts, journal)


def _joined(
    folders: Sequence[Path], headers: Sequence[LatentHeader]
) -> list[tuple[Path, LatentFile]]:
    """Return folder and entry of each clip.

    Raises:
        ValueError: If the folders differ in codec or kind, share a file name, or are empty.
    """
    seen: dict[str, Path] = {}
    places = []
    for folder, header in zip(folders, headers, strict=True):
        header.identity.check_same(headers[0].identity, f"'{folder}'", f"'{folders[0]}'")
        if header.contents != headers[0].contents:
            raise ValueError(
                f"'{folder}' holds {header.contents} latents, '{folders[0]}' {headers[0].contents} "
                "latents. Make one set of each."
            )
        for file in header.files:
            if file.path in seen:
                raise ValueError(
                    f"'{seen[file.path]}' and '{folder}' both hold '{file.path}'. Rename its audio "
                    "file, or put it into a folder of another name, and encode it again."
                )
            seen[file.path] = folder
            places.append((folder, file))
    if not places:
        raise ValueError(f"'{folders[0]}' holds no latents. Encode audio into it.")
    return places


def _written(
    out: Path,
    headers: Sequence[LatentHeader],
    places: Sequence[tuple[Path, LatentFile]],
    firsts: Sequence[int],
    journal: Journal,
) -> Result:
    """Write the missing shards, then index and header of the set."""
    numbers = range(len(firsts) - 1)
    shards = {n: shard for n in numbers if (shard := _done(out, n, journal))}
    is_whole = (out / SHARDS_NAME).exists() and len(shards) == len(numbers)
    if not is_whole:
        begin_anew(out)
        shards = {n: shard for n, shard in shards.items() if has_part(out, n)}
    latent_size, num_done = headers[0].latent_size, len(numbers) - len(shards)
    num_before = sum(firsts[n + 1] - firsts[n] for n in shards)
    originals = original_paths([file for _, file in places])
    skipped: dict[str, str] = {}

    with tqdm(
        total=len(places), initial=num_before, desc="Packing", unit="clip", file=sys.stderr
    ) as progress:

        def clips(number: int) -> Iterator[Clip]:
            for folder, file in places[firsts[number] : firsts[number + 1]]:
                try:
                    array = read_latents(folder / file.path, latent_size, file.num_frames)
                except ValueError as error:
                    skipped[file.path] = str(error)
                    progress.write(skipped_line(file.path, error), file=sys.stderr)
                else:
                    yield Clip(file, array, file.path in originals)
                progress.update()

        for number in numbers:
            if number not in shards:
                num_skipped = len(skipped)
                shards[number] = write_shard(out, number, clips(number), latent_size)
                record = {**asdict(shards[number]), "num_skipped": len(skipped) - num_skipped}
                journal.add(shard_name(number), record)
    num_clips = sum(shard.num_clips for shard in shards.values())
    if not num_clips:
        raise ValueError(f"No clip of {len(places)} can be used: {next(iter(skipped.values()))}")
    if is_whole:  # an earlier run may have been killed during its clean-up
        clear(out, {shard_name(number) for number in numbers})
    else:
        seed = headers[0].seed if len({header.seed for header in headers}) == 1 else None
        header = replace(headers[0], statistics=merged_statistics(headers), seed=seed)
        finish(out, header, [shards[number] for number in numbers])
    figures: dict[str, Any] = {
        "num_clips": num_clips,
        "num_frames": sum(shard.num_frames for shard in shards.values()),
        "num_shards": len(shards),
        "num_done": num_done,
        "num_bytes": sum(shard.num_bytes for shard in shards.values()),
        "num_skipped": len(skipped),
        "skipped": skipped,
    }
    lines = [f"  {skipped_line(name, reason)}" for name, reason in skipped.items()]
    text = (
        f"'{out}' holds {num_clips} clips, {figures['num_frames']} frames, in {len(shards)} shards "
        f"of {figures['num_bytes'] / 1e6 / len(shards):.0f} MB; {num_done} written now."
    )
    return Result("\n".join([text, *lines]), figures, num_skipped=len(skipped))


def _done(out: Path, number: int, journal: Journal) -> Shard | None:
    """Return the record of a shard that is intact and holds all of its clips."""
    path = out / shard_name(number)
    record = dict(journal.get(path.name) or {})
    if record.pop("num_skipped", None) != 0 or not path.is_file():
        return None
    try:
        shard = built(Shard, record)
    except TypeError:  # a foreign journal
        return None
    return shard if path.stat().st_size == shard.num_bytes else None
