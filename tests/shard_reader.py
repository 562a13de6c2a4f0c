"""Read a sharded set as a training does, and print how soon, how fast and in how much memory.

python tests/shard_reader.py SHARDS [LATENTS]: beside the plain folder of the same clips, with more
figures.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from torch.utils.data import DataLoader

from diffwave.clips import sample, split_clips
from diffwave.dataset import ClipReader, FixedSegments, SegmentDataset
from diffwave.standardizer import Standardizer
from rave.latent_dataset import LatentDataset
from rave.trainer import StepBatches

FRAMES, BATCH, BATCHES, ROUNDS, HELD_OUT = 32, 32, 250, 9, 256


def own_mib() -> float:
    """Return the memory that is this process's own: without what is mapped from files (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise OSError("this system does not tell RssAnon")


def forget(folder: Path) -> None:
    """Ask the system to keep nothing of a folder's files in memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def opened(place: Path) -> tuple[Iterator[Any], FixedSegments, int]:
    """Return the batches of a training and the held-out segments, and the number of clips."""
    dataset = LatentDataset(place)
    training, held_out = split_clips(dataset.files, 0.1)
    reader = ClipReader.open(dataset)
    segments = SegmentDataset(reader, training, FRAMES, seed=0)
    fixed = FixedSegments(reader, held_out, FRAMES, HELD_OUT)
    return iter(DataLoader(segments, batch_sampler=StepBatches(BATCH))), fixed, len(dataset)


def items_per_second(batches: Iterator[Any]) -> float:
    """Return how fast items come, all of them different ones."""
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return BATCH * BATCHES / (time.perf_counter() - start)


def main() -> None:
    """Measure and print one line of JSON."""
    shards, *plain = map(Path, sys.argv[1:])
    forget(shards)
    before_mib, start = own_mib(), time.perf_counter()
    batches, fixed, num_clips = opened(shards)
    next(batches)
    figures: dict[str, Any] = {"clips": num_clips, "start_s": time.perf_counter() - start}
    items_per_second(batches)
    for _ in fixed:
        pass
    figures["own_mib"] = own_mib() - before_mib
    if plain:
        start = time.perf_counter()
        others, _, _ = opened(plain[0])
        next(others)
        figures["plain_start_s"] = time.perf_counter() - start
        figures["plain_own_mib"] = own_mib() - before_mib - figures["own_mib"]
        rates = [(items_per_second(batches), items_per_second(others)) for _ in range(ROUNDS)]
        figures["items_per_s"], figures["plain_items_per_s"] = map(median, zip(*rates, strict=True))
        figures["ratio"] = median(one / other for one, other in rates)
        start = time.perf_counter()
        dataset = LatentDataset(shards)
        training, _ = split_clips(dataset.files, 0.1)
        reader = ClipReader.open(dataset)
        Standardizer.fit((reader.raw(clip) for clip in sample(training)), 0.99)
        figures["fit_s"] = time.perf_counter() - start
        figures["all_mib"] = own_mib() - before_mib
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
