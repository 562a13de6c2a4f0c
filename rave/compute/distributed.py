"""Training in several processes, which share each batch and keep one model.

Each process holds the whole model and computes on its share of the items of a batch, as if it saw
all of them: what is random is drawn for the whole batch, what is a mean of the batch is the mean of
all shares, and gradients are averaged. So the number of processes changes no result beyond the
order in which floating-point numbers are added. In a single process every function returns what it
is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

_is_sharing = False


def count() -> int:
    """Return the number of processes that train together."""
    is_begun = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_begun else 1


def rank() -> int:
    """Return which of them this one is, from 0."""
    return distributed.get_rank() if count() > 1 else 0


def share(items: range) -> range:
    """Return those items of a batch that are this process's.

    Raises:
        ValueError: If they cannot be divided evenly.
    """
    size, rest = divmod(len(items), count())
    if rest or not size:
        fitting = max(round(len(items) / count()), 1) * count()
        raise ValueError(
            f"A batch of {len(items)} cannot be divided evenly among {count()} processes. Set "
            f"BATCH_SIZE to {fitting}, say."
        )
    return items[rank() * size : (rank() + 1) * size]


@contextmanager
def sharing() -> Iterator[None]:
    """Let tensors of a batch be this process's share of it, for as long as the block runs."""
    global _is_sharing
    _is_sharing = count() > 1
    try:
        yield
    finally:
        _is_sharing = False


def whole(num_items: int) -> int:
    """Return how many items the batch has of which this share has so many."""
    return num_items * count() if _is_sharing else num_items


def own(drawn: Tensor) -> Tensor:
    """Return this process's share (B, …) of what was drawn for the whole batch."""
    if not _is_sharing:
        return drawn
    size = len(drawn) // count()
    return drawn[rank() * size : (rank() + 1) * size]


def gathered(rows: Tensor) -> Tensor:
    """Return the rows (B, …) of all shares in order, through which gradients reach each share."""
    return _Gather.apply(rows) if _is_sharing else rows


def averaged(values: Tensor) -> Tensor:
    """Return the mean of all shares' values, without gradient."""
    return _summed(values.detach().clone()) / count() if _is_sharing else values


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by the mean of all processes' gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    flat = _summed(torch.cat([gradient.flatten() for gradient in gradients])) / count()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def any_of(*flags: bool) -> list[bool]:
    """Return for each flag whether it is set in any process; all of them must ask."""
    if count() == 1:
        return list(flags)
    with named_loss():
        votes = torch.tensor(flags, dtype=torch.int32)
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
    return [bool(vote) for vote in votes]


def begin_equal(module: nn.Module) -> None:
    """Give all processes the parameters and buffers of the first, and shared batch normalisation.

    Machines of different kinds may round the first weights differently.
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in module.state_dict().values():
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for tensors in kinds.values():
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with named_loss():
            distributed.broadcast(flat, src=0)
        for tensor, first in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(first.view_as(tensor))
    for layer in module.modules():
        if type(layer) is nn.BatchNorm1d:
            layer.__class__ = SharedBatchNorm1d


@contextmanager
def named_loss() -> Iterator[None]:
    """Say in one sentence that a process does not answer any more.

    Raises:
        ValueError: If what runs in the block raises RuntimeError, as gloo and NCCL do.
    """
    try:
        yield
    except RuntimeError as error:
        raise ValueError(
            f"Another process of this training is gone ({str(error).splitlines()[0]}). The same "
            "command continues from the last checkpoint."
        ) from error


class SharedBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation by the statistics of the whole batch.

    torch.nn.SyncBatchNorm, which does the same, needs a GPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T) of (B, C, T)."""
        if not (self.training and _is_sharing):
            return super().forward(x)
        mean = gathered(x.mean(dim=(0, 2))[None]).mean(0)
        centred = x - mean[:, None]
        variance = gathered(centred.square().mean(dim=(0, 2))[None]).mean(0)
        num_values = whole(len(x)) * x.shape[2]
        running_mean, running_variance, tracked = self._running()
        momentum = 1 / (int(tracked) + 1) if self.momentum is None else self.momentum
        with torch.no_grad():
            unbiased = variance * num_values / max(num_values - 1, 1)
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_variance.lerp_(unbiased.to(running_variance), momentum)
            tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None] + self.bias[:, None]

    def _running(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        return self.running_mean, self.running_var, self.num_batches_tracked


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(count())]
        with named_loss():
            distributed.all_gather(parts, rows.contiguous())
        context.num_rows = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        first = rank() * context.num_rows
        return _summed(gradients[0].contiguous())[first : first + context.num_rows]


def _summed(tensor: Tensor) -> Tensor:
    """Return the sum over all processes, in place of the tensor."""
    with named_loss():
        distributed.all_reduce(tensor)
    return tensor
