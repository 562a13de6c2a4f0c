"""Run a training: resume, checkpoints, Ctrl-C, progress, TensorBoard.

A training reads a stream of items, item i a pure function of (seed, i), from the step of the last
checkpoint on. Nothing depends on global random state: a run that was stopped and resumed equals an
uninterrupted run, bit for bit on the CPU.

    run/checkpoints/last.ckpt   where the same command continues
    run/checkpoints/best.ckpt   lowest `monitor` so far
    run/tensorboard/            curves
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.utils.data import Sampler
from tqdm import tqdm

from rave.compute.device import choose_device
from rave.compute.distributed import GlobalBatch
from rave.compute.launch import is_first
from rave.compute.strategy import placement
from rave.files.atomic import atomic_write, remove_partials
from rave.held_out import what_changed
from rave.jobs.journal import sole_writer
from rave.runs import checkpoint as files
from rave.runs.checkpoint import BEST, CHECKPOINTS, LAST, finished_steps, last_checkpoint

SAVE_EVERY_S = 180.0


class StepBatches(Sampler[list[int]]):
    """Endless batches of indices: step s holds items s·B to (s + 1)·B - 1.

    Each of several processes gets its shard of a batch. Pass it to a `DataLoader` as
    `batch_sampler`, with a dataset whose item i exists for all i ≥ 0.

    Args:
        batch_size: B, the global batch size.
        start_step: First step to yield.

    Raises:
        ValueError: While iterating, if processes cannot share B evenly.
    """

    def __init__(self, batch_size: int, start_step: int = 0) -> None:
        self.batch_size = batch_size
        self.start_step = start_step

    def __iter__(self) -> Iterator[list[int]]:
        batch = GlobalBatch.of_processes()
        if self.batch_size < 1 or self.batch_size % batch.world_size:
            fitting = max(round(self.batch_size / batch.world_size), 1) * batch.world_size
            raise ValueError(
                f"A batch of {self.batch_size} cannot be divided evenly among {batch.world_size} "
                f"processes. Set BATCH_SIZE to {fitting}, say."
            )
        for step in itertools.count(self.start_step):
            yield list(batch.shard(self.items(step)))

    def items(self, step: int) -> range:
        """Return the items of a step's batch; the first step is 0."""
        return range(step * self.batch_size, (step + 1) * self.batch_size)


@dataclass(frozen=True)
class Loaders:
    """The data of a training.

    Attributes:
        train: Endless batches from the requested step on (`StepBatches`).
        held_out: Batches of a validation, the same and in the same order each time.
        data: State of the data, from `rave.held_out.data_state`.
    """

    train: Any
    held_out: Any
    data: dict[str, Any] | None = None


def fit(
    system: LightningModule,
    data_for: Callable[[int], Loaders],
    run_folder: Path,
    max_steps: int,
    validate_every_steps: int,
    *,
    device: str = "auto",
    num_devices: int = 1,
    num_nodes: int = 1,
    precision: Any = "32-true",
    log_every_steps: int = 50,
    monitor: str = "held_out_loss",
    gradient_clip_norm: float | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train until `max_steps`, from the last checkpoint of the run if there is one.

    Each batch must take exactly one optimizer step, also under manual optimization.

    Args:
        system: The model with its losses and optimizers.
        data_for: Takes the first step to do, returns its loaders.
        run_folder: Folder for checkpoints and curves.
        max_steps: Optimizer steps of the whole run, including those already done.
        validate_every_steps: Steps between two passes over the held-out batches.
        device: auto, cpu, cuda, cuda:N or mps.
        num_devices: Devices per node, one process each; torchrun's value overrides it.
        num_nodes: Nodes; each runs the same command, with its rank set by torchrun or Slurm.
        precision: Lightning's precision: "32-true" or "bf16-mixed".
        log_every_steps: Steps between two points of the training curves.
        monitor: Metric of `validation_step`; best.ckpt is written at its lowest value.
        gradient_clip_norm: Only with automatic optimization.
        callbacks: Further Lightning callbacks, called before checkpoints are written.

    Raises:
        ValueError: If the loss becomes NaN or infinite, the last checkpoint cannot be read, the
            devices do not exist, or a process is lost.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once the step is finished and saved.
    """
    keeper = _Keeper(run_folder / CHECKPOINTS, monitor, validate_every_steps, max_steps)
    processor = choose_device(device)
    with _writer(run_folder), _quiet_lightning():
        start_step = finished_steps(run_folder)
        if start_step >= max_steps:
            return
        trainer = Trainer(
            accelerator=processor.type,
            **placement(processor, num_devices, num_nodes),
            precision=precision,
            max_steps=max_steps,
            max_epochs=-1,  # one endless epoch
            val_check_interval=validate_every_steps,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=log_every_steps,
            gradient_clip_val=gradient_clip_norm,
            logger=TensorBoardLogger(
                run_folder,
                name="tensorboard",
                version="",
                default_hp_metric=False,
                purge_step=start_step + 1 if start_step else None,
            ),
            callbacks=[
                *callbacks,
                _FiniteLoss(log_every_steps),
                _Progress(max_steps, log_every_steps),
                keeper,
            ],
            plugins=[_WholeFiles()],
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loaders = data_for(start_step)
        batches, keeper.data = (loaders.train, loaders.held_out), loaders.data
        checkpoint = last_checkpoint(run_folder) if start_step else None
        try:
            with keeper.stopping_at_a_signal():
                trainer.fit(system, *batches, ckpt_path=checkpoint, weights_only=True)
        except (_Stopped, SystemExit) as error:  # SystemExit: Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from error


@contextlib.contextmanager
def _writer(run_folder: Path) -> Iterator[None]:
    """Lock the run folder, if this process writes it."""
    if not is_first():
        yield
        return
    with sole_writer(run_folder):
        remove_partials(run_folder)
        yield


class _WholeFiles(TorchCheckpointIO):
    """Write checkpoints by rename, read them as data; without a temporary folder."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(files.packed(checkpoint))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return files.read_checkpoint(Path(path))


class _Stopped(Exception):
    """A signal came; the step is finished and saved."""


class _Keeper(Callback):
    """Write last.ckpt and best.ckpt; finish the step and save when a signal arrives."""

    def __init__(
        self, folder: Path, monitor: str, validate_every_steps: int, max_steps: int
    ) -> None:
        self.is_stopped = False
        self._is_ending = False  # some process was stopped, and all processes know it
        self._folder = folder
        self._monitor = monitor
        self._validate_every_steps = validate_every_steps
        self._max_steps = max_steps
        self._best = math.inf
        self.data: dict[str, Any] | None = None
        self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "data": self.data}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved = state_dict.get("data") or self.data
        if saved == self.data:
            self._best = state_dict["best"]
            return
        assert saved is not None and self.data is not None
        print(what_changed(saved, self.data), file=sys.stderr)

    @contextlib.contextmanager
    def stopping_at_a_signal(self) -> Iterator[None]:
        """Turn the first Ctrl-C or SIGTERM into a request; the second Ctrl-C interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        previous = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for name, handler in previous.items():
                signal.signal(name, handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGINT, signal.SIGTERM):  # in place of Lightning's
                signal.signal(name, self._request_stop)

    def _request_stop(self, number: int, frame: Any) -> None:
        if self.is_stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_stopped = True
        print("\nFinishing the step, then saving …", file=sys.stderr)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self._validate_every_steps == 0:
            return  # saved after the validation, which would be left out if resumed from here
        is_due = time.monotonic() - self._saved_at > SAVE_EVERY_S
        self._is_ending, is_due = GlobalBatch.of_processes().any_of(self.is_stopped, is_due)
        if is_due or self._is_ending or trainer.global_step >= self._max_steps:
            self._save(trainer, LAST)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = float(trainer.callback_metrics.get(self._monitor, math.inf))
        is_best = value < self._best
        self._is_ending, is_best = GlobalBatch.of_processes().any_of(self.is_stopped, is_best)
        if is_best:
            self._best = value
            self._save(trainer, BEST)
        self._save(trainer, LAST)

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self._folder / name)
        self._saved_at = time.monotonic()
        if self._is_ending and name == LAST:
            raise _Stopped  # `trainer.should_stop` would begin a validation first


class _FiniteLoss(Callback):
    """Stop before a loss or weight that is not finite reaches a checkpoint; name the batch."""

    def __init__(self, check_every_steps: int) -> None:
        self._check_every_steps = check_every_steps
        self._losses: dict[int, torch.Tensor] = {}  # of the steps since the last check

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            self._losses[trainer.global_step] = loss.detach()
        if trainer.global_step % self._check_every_steps == 0:
            self._check(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check(trainer)
        self._check_weights(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_weights(trainer, pl_module)

    def _check_weights(self, trainer: Trainer, system: LightningModule) -> None:
        if not all(torch.isfinite(weight).all() for weight in system.parameters()):
            raise _not_finite(f"A weight became NaN or infinite by step {trainer.global_step}")

    def _check(self, trainer: Trainer) -> None:
        if not self._losses:
            return
        steps, losses = list(self._losses), torch.stack(list(self._losses.values()))
        losses = GlobalBatch.of_processes().mean(losses)  # not finite in one process: all stop
        self._losses.clear()
        for step, loss in zip(steps, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                places = _places(trainer.train_dataloader, step)
                raise _not_finite(f"The loss became {loss} at step {step}{places}")


def _places(loader: Any, step: int) -> str:
    """Return the sources of a step's batch, if the dataset can report them."""
    batches, place = loader.batch_sampler, getattr(loader.dataset, "place", None)
    if not isinstance(batches, StepBatches) or place is None:
        return ""
    names = [place(index) for index in batches.items(step - 1)]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f", on {', '.join(names[:8])}{more}"


def _not_finite(what: str) -> ValueError:
    return ValueError(
        f"{what}, so training stopped. The last checkpoint is not affected. Start a new run with a "
        "lower LEARNING_RATE."
    )


class _Progress(Callback):
    """A bar of all steps with rate, remaining time and the last loss."""

    def __init__(self, max_steps: int, show_every_steps: int) -> None:
        self._max_steps = max_steps
        self._show_every_steps = show_every_steps
        self._bar: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar = tqdm(
            total=self._max_steps,
            initial=trainer.global_step,
            desc="train",
            unit="step",
            file=sys.stderr,
            mininterval=1.0,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self._show_every_steps == 0:
            metrics = {name: f"{float(v):.4g}" for name, v in trainer.progress_bar_metrics.items()}
            self._bar.set_postfix(metrics, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice; our own messages cover what a user needs."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Small items are read faster here than by worker processes.
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        # Lightning 2.6 on torch 2.13: fixed upstream when it drops older versions of torch.
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec")
        try:
            yield
        finally:
            logger.setLevel(level)
