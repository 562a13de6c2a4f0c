"""TorchScript of parts of a module, so that torch compiles each separately."""

from __future__ import annotations

import warnings
from typing import TypeVar

import torch
from torch import Tensor, nn

_Class = TypeVar("_Class", bound=type[nn.Module])


def traced(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """Return a module, traced for tensors of fixed shapes.

    Args:
        module: Module in evaluation mode; its operations may depend on shapes only.
        example: Example inputs of these shapes.
    """
    with warnings.catch_warnings():
        # 2026-11: torch.jit is deprecated in favour of torch.export, which nn~ cannot load.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Shapes are checked here, once.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        result: nn.Module = torch.jit.trace(module, example, check_trace=False)
    return result


def interface(described: _Class) -> _Class:
    """Return a module class as an interface, so that its implementation is compiled separately.

    It is then compiled once for all methods that call it, even before the first call. Torch copies
    every other module into each method, and compiles it in the first two runs.
    """
    with warnings.catch_warnings():
        # 2026-11: torch.jit is deprecated in favour of torch.export, which nn~ cannot load.
        warnings.simplefilter("ignore", DeprecationWarning)
        result: _Class = torch.jit.interface(described)
    return result


def scripted(module: nn.Module) -> nn.Module:
    """Return a module as TorchScript; it shares the weights."""
    with warnings.catch_warnings():
        # 2026-11: torch.jit is deprecated in favour of torch.export, which nn~ cannot load.
        warnings.simplefilter("ignore", DeprecationWarning)
        result: nn.Module = torch.jit.script(module)
    return result
