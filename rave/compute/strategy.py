"""Where the processes of a training run, for Lightning."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import DDPStrategy

from rave.compute.distributed import ONE_PROCESS, GlobalBatch, named_loss
from rave.compute.launch import launched


class TrainingSystem(LightningModule):
    """A model with its losses and optimizers, which knows how processes share a batch.

    Attributes:
        global_batch: Of the processes that train.
    """

    global_batch = ONE_PROCESS

    def setup(self, stage: str) -> None:
        """Learn which processes there are, once they are connected."""
        self.global_batch = GlobalBatch.of_processes()

    def on_after_backward(self) -> None:
        """Average the gradients of all processes, unless the training itself does."""
        if self.automatic_optimization:
            self.global_batch.average_gradients(self.parameters())


class SharedBatches(DDPStrategy):
    """Processes that average their gradients themselves; see `rave.compute.distributed`.

    torch's DistributedDataParallel expects one forward and one backward pass per step through all
    parameters; adversarial training has several, through some of them.
    """

    def configure_ddp(self) -> None:
        """Begin with equal models, without a wrapper around them."""
        assert self.model is not None
        GlobalBatch.of_processes().begin_equal(self.model)

    def barrier(self, *names: Any, **more: Any) -> None:
        """Wait for all processes.

        Raises:
            ValueError: If one is gone.
        """
        with named_loss():
            super().barrier(*names, **more)


def placement(device: torch.device, num_devices: int, num_nodes: int) -> dict[str, Any]:
    """Return the arguments of Lightning's trainer for devices and nodes.

    Args:
        device: Kind of device, and which one where it has a number.
        num_devices: Devices per node; torchrun's value overrides it.
        num_nodes: Number of nodes; torchrun's value overrides it.

    Raises:
        ValueError: If there are fewer.
    """
    local, nodes = launched() or (num_devices, num_nodes)
    if min(local, nodes) < 1:
        raise ValueError(f"--devices {local} --nodes {nodes} were given; 1 or more are needed.")
    if local * nodes == 1:
        return {"devices": 1 if device.index is None else [device.index]}
    if device.index is not None or device.type == "mps":
        raise ValueError(
            f"Several devices are requested, but '{device}' is a single one. Give --device cuda or "
            "cpu, or leave it out."
        )
    if device.type == "cuda" and local > torch.cuda.device_count():
        raise ValueError(
            f"{local} GPUs are requested; this machine has {torch.cuda.device_count()}. Lower "
            "--devices."
        )
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    return {
        "devices": local,
        "num_nodes": nodes,
        "strategy": SharedBatches(process_group_backend=backend),
    }
