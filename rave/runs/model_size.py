"""A limit to the size of a model, whatever a recipe or an untrusted run requests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

MAX_TENSORS = 2**13  # v3, the deepest recipe, has 303


@contextmanager
def limited_size(what: str = "the model") -> Iterator[None]:
    """Refuse models with weights beyond half of this machine's memory, before they are filled.

    Args:
        what: Name of the model in messages.

    Raises:
        ValueError: If one is built inside.
    """
    num_bytes = num_tensors = 0
    limit = most_bytes()

    def count(layer: Any, name: str, tensor: Any) -> None:
        nonlocal num_bytes, num_tensors
        if tensor is None:
            return
        num_tensors += 1
        num_bytes += tensor.numel() * tensor.element_size()
        if num_bytes > limit:
            raise ValueError(
                f"{what} has more than {num_bytes / 2**30:.3g} GiB of weights; the limit is half "
                f"of this machine's memory, {limit / 2**30:.3g} GiB"
            )
        if num_tensors > MAX_TENSORS:
            raise ValueError(f"{what} has more than {MAX_TENSORS} weights and buffers")

    hooks = [
        register(count)
        for register in (
            register_module_parameter_registration_hook,
            register_module_buffer_registration_hook,
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def most_bytes() -> int:
    """Return half of this machine's memory: the limit for a model, and for its checkpoint."""
    return _memory_bytes() // 2


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # not available on Windows
        return 16 * 2**30
