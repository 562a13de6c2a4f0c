"""Which processor to compute on."""

from __future__ import annotations

import torch


def choose_device(name: str) -> torch.device:
    """Return the device that `--device` names; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ValueError: If there is no such device here.
    """
    kind, _, index = name.partition(":")
    num_present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if name == "auto":
        return torch.device(next(k for k in ("cuda", "mps", "cpu") if num_present[k]))
    is_index = index == "" or index.isdecimal()
    if not is_index or int(index or 0) >= num_present.get(kind, 0):
        raise ValueError(
            f"There is no device '{name}' here. Choose auto, cpu, cuda, cuda:N or mps."
        )
    return torch.device(name)
