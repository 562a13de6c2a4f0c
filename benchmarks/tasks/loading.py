"""The data loader of `rave train` with nothing to train: batches a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.comparison import Bench, Comparison, Side

ROW = "loading"


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    batch_size, crop_samples, count = bench.size((8, 131072, 50), (2, 16384, 2))
    shape = {"batch_size": batch_size, "crop_samples": crop_samples, "count": count}
    sides = [Side("ours", "loading:ours", {**shape, "data": str(inputs.prepared(bench))})]
    what = f"batches of {batch_size} × {crop_samples}"
    return [Comparison(ROW, what, sides, count, "batches", threads) for threads in bench.threads]


def ours(
    batch_size: int, crop_samples: int, count: int, data: str, device: str
) -> Callable[[], None]:
    """Return what loads batches as `rave train` does, and puts them on the device."""
    from torch.utils.data import DataLoader

    from rave.dataset import PreparedAudioDataset, split_audio
    from rave.trainer import StepBatches
    from rave.upstream.lmdb import open_audio

    store = open_audio(Path(data))
    ranges, _ = split_audio(store, 0.1)
    crops = PreparedAudioDataset(store, crop_samples, 10**6, inputs.SEED, ranges)
    loader: Any = DataLoader(crops, batch_sampler=StepBatches(batch_size))
    batches = iter(loader)

    def run() -> None:
        for _ in range(count):
            next(batches).to(device)

    return run
