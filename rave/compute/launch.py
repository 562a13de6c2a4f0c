"""Rank and number of training processes, as torchrun, Slurm and Lightning set them."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Return whether this process is the one that writes and reports."""
    if "RANK" in os.environ:
        return _number("RANK") == 0
    if "LOCAL_RANK" in os.environ:
        return _number("NODE_RANK") == _number("LOCAL_RANK") == 0
    return _number("SLURM_PROCID") == 0


def launched() -> tuple[int, int] | None:
    """Return the number of processes per node, and of nodes, if torchrun started this process."""
    if "LOCAL_WORLD_SIZE" not in os.environ:
        return None
    local = _number("LOCAL_WORLD_SIZE")
    return local, _number("WORLD_SIZE") // max(local, 1)


def _number(name: str) -> int:
    return int(os.environ.get(name) or 0)
