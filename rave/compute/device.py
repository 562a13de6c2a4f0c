"""Choose the processor and the precision of training."""

from __future__ import annotations

import torch

PRECISIONS = ("auto", "32-true", "bf16-mixed")


def choose_device(name: str) -> torch.device:
    """Return the device that `--device` names; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ValueError: If this machine does not have the device.
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


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision that a recipe names; "auto" is bfloat16 where `device` is fast in it.

    CPUs with AVX512-BF16 are fast in it; on others bfloat16 is slower than float32.

    Raises:
        ValueError: If the precision is not supported.
    """
    if name not in PRECISIONS:
        raise ValueError(f"PRECISION is '{name}'. Choose one of: {', '.join(PRECISIONS)}.")
    if name != "auto":
        return name
    if device.type == "cuda":
        is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if is_fast else "32-true"
