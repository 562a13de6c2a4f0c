"""Training in several processes, which share each batch and keep one model.

Each process holds the whole model and computes on its shard of the global batch. Random values are
drawn for the global batch, and each process takes its shard of them. What needs all items gets
them by all-gather; means are over all shards (all-reduce), and so are gradients. So the world size
changes no result beyond the order in which floating-point numbers are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

Items = TypeVar("Items", range, Tensor)


@dataclass(frozen=True)
class GlobalBatch:
    """How processes that train together share a batch.

    With a world size of 1 all methods return what they are given.

    Attributes:
        world_size: Number of processes.
        rank: Index of this process, from 0.
    """

    world_size: int
    rank: int

    @classmethod
    def of_processes(cls) -> GlobalBatch:
        """Return that of the processes which torch has connected."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_world_size(), distributed.get_rank())
        return ONE_PROCESS

    def size(self, local: int) -> int:
        """Return the number of items of the global batch, of which each process has `local`."""
        return local * self.world_size

    def shard(self, items: Items) -> Items:
        """Return this process's items of the global batch, (B, …) of a tensor."""
        local = len(items) // self.world_size
        return items[self.rank * local : (self.rank + 1) * local]

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows (B, …) of all shards in order; gradients reach each shard."""
        return rows if self.world_size == 1 else _AllGather.apply(rows, self)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of the values of all shards, without gradient."""
        if self.world_size == 1:
            return values
        return _all_reduce(values.detach().clone()) / self.world_size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over all processes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.world_size > 1 and gradients:
            _replace(gradients, lambda flat: _all_reduce(flat) / self.world_size)

    def any_of(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in any process; all of them must ask."""
        if self.world_size == 1:
            return list(flags)
        return [bool(count) for count in _all_reduce(torch.tensor(flags, dtype=torch.int32))]

    def begin_equal(self, module: nn.Module) -> None:
        """Give all processes the parameters and buffers of the first, and shared normalisation.

        Machines of different kinds may round the first weights differently.
        """
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in module.state_dict().values():
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for tensors in kinds.values():
            _replace(tensors, _broadcast)
        for layer in module.modules():
            if type(layer) is nn.BatchNorm1d:
                layer.__class__ = SharedBatchNorm1d
                cast(SharedBatchNorm1d, layer).global_batch = self


ONE_PROCESS = GlobalBatch(world_size=1, rank=0)


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
    """Batch normalisation by the statistics of the global batch.

    torch.nn.SyncBatchNorm, which does the same, needs a GPU.
    """

    global_batch = ONE_PROCESS

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T) of (B, C, T)."""
        batch = self.global_batch
        if not self.training or batch.world_size == 1:
            return super().forward(x)
        mean = batch.all_gather(x.mean(dim=(0, 2))[None]).mean(0)
        centred = x - mean[:, None]
        variance = batch.all_gather(centred.square().mean(dim=(0, 2))[None]).mean(0)
        num_values = batch.size(len(x)) * x.shape[2]
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


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, batch: GlobalBatch) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(batch.world_size)]
        with named_loss():
            distributed.all_gather(parts, rows.contiguous())
        context.batch = batch
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return context.batch.shard(_all_reduce(gradients[0].contiguous())), None


def _all_reduce(tensor: Tensor) -> Tensor:
    """Return the sum over all processes, in place of the tensor."""
    with named_loss():
        distributed.all_reduce(tensor)
    return tensor


def _broadcast(tensor: Tensor) -> Tensor:
    """Return the tensor of the first process, in place of the tensor."""
    with named_loss():
        distributed.broadcast(tensor, src=0)
    return tensor


def _replace(tensors: list[Tensor], communicate: Callable[[Tensor], Tensor]) -> None:
    """Replace tensors of one kind by what comes of them, sent as one."""
    flat = communicate(torch.cat([tensor.flatten() for tensor in tensors]))
    for tensor, new in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(new.view_as(tensor))
