"""Play a module for nn~ and print its memory: it must not grow.

python -m benchmarks.stream_memory live.ts --blocks 10000
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch

REPORTS = 5


def resident_mib() -> float:
    """Return the memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@torch.inference_mode()
def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", type=Path, help="file of `rave export --streaming` or the like")
    parser.add_argument("--method", default="forward", help="what to play (default forward)")
    parser.add_argument("--blocks", type=int, default=10_000, help="of one hop (default 10000)")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # 2026-11: nn~ loads no torch.export
    module = torch.jit.load(str(options.module)).eval()
    rows, in_samples, _, _ = getattr(module, f"{options.method}_params").tolist()
    play, noise = getattr(module, options.method), torch.randn(1, rows, module.hop_samples)
    every = max(options.blocks // REPORTS, 1)
    for block in range(options.blocks + 1):
        play(noise[:, :, ::in_samples])
        if block and block % every == 0:
            print(f"{block} blocks: {resident_mib():.1f} MiB")


if __name__ == "__main__":
    main()
