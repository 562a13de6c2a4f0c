"""TorchScript of modules that TorchScript cannot read."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


def traced(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """Return what a module does with tensors of fixed shapes.

    Args:
        module: In evaluation mode; all it does must follow from the shapes alone.
        example: Of these shapes.
    """
    with warnings.catch_warnings():
        # 2026-11: torch.jit is deprecated in favour of torch.export, which nn~ cannot load.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Checks of shapes are made here, once and for all.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        result: nn.Module = torch.jit.trace(module, example, check_trace=False)
    return result
