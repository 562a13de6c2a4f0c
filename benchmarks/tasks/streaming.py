"""Streaming: exported files, played block by block on one core, as a host of nn~ plays them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.comparison import Bench, Comparison, Side

ROW = "streaming"
BLOCK = 2048
METHODS = ("encode", "decode", "forward")


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    ours = bench.work / "ours.ts"
    if not ours.exists():
        codec = str(inputs.codec(bench))
        inputs.rave("export", codec, str(ours), "--streaming", "--fidelity", "1")
    files = {"ours": ours}
    if bench.upstream is not None:
        files["acids-rave"] = theirs(bench, bench.upstream)
    num_blocks, block_s = bench.size(300, 4), BLOCK / inputs.RATE_HZ
    found = []
    for method in METHODS:
        sides = [
            Side(
                name,
                "streaming:play",
                {"file": str(path), "method": method, "num_blocks": num_blocks},
                is_upstream=path != ours,
            )
            for name, path in files.items()
        ]
        what = f"{method}, a block of {BLOCK} ({1000 * block_s:.1f} ms)"
        found.append(Comparison(ROW, what, sides, block_s, "s of audio", threads=1))
    return found


def theirs(bench: Bench, python: Path) -> Path:
    """Return the streaming file that acids-rave's `rave export` makes of the same weights."""
    from benchmarks.upstream.exports import export

    folder = bench.work / "acids-export"
    found = list(folder.glob("*.ts"))
    run = inputs.acids_run(bench)
    return found[0] if found else export(python, run, folder, "--streaming", "--fidelity=0.999")


def play(file: str, method: str, num_blocks: int, device: str) -> Callable[[], dict[str, Any]]:
    """Return what plays noise; a run's seconds are the median of its blocks."""
    import torch

    module = torch.jit.load(file, map_location=device).eval()
    rows, in_samples, _, _ = getattr(module, f"{method}_params").tolist()
    work = getattr(module, method)
    noise = 0.1 * torch.randn(1, rows, BLOCK // in_samples, device=device)

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        seconds = []
        for _ in range(num_blocks):
            start = time.perf_counter()
            work(noise).cpu()  # heard only when it is here
            seconds.append(time.perf_counter() - start)
        seconds.sort()
        p50, p99 = (seconds[int(share * (num_blocks - 1))] for share in (0.5, 0.99))
        budget_s = BLOCK / inputs.RATE_HZ
        return {"seconds": p50, "p99_s": p99, "p99_of_real_time": p99 / budget_s}

    return run
