"""The checkpoints of a run folder, read without the training library.

run/checkpoints/last.ckpt   where the same command continues
run/checkpoints/best.ckpt   lowest held-out loss so far; alone, the weights of a released model
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rave.files.atomic import regular
from rave.runs.checkpoint_file import read_file

CHECKPOINTS, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
TRAINING_STATE = "optimizer_states"  # Lightning's name; a released model has none


def last_checkpoint(run_folder: Path) -> Path:
    """Return the path of a run's resumable state."""
    return run_folder / CHECKPOINTS / LAST


def released_checkpoint(run_folder: Path) -> Path:
    """Return the path of a released model's weights, or of a run's weights at its lowest loss."""
    return run_folder / CHECKPOINTS / BEST


def trained_checkpoint(run_folder: Path) -> Path:
    """Return the best checkpoint of a run on held-out data, or the last."""
    best = released_checkpoint(run_folder)
    return best if best.exists() else last_checkpoint(run_folder)


def codec_checkpoint(run_folder: Path) -> Path:
    """Return the path of an autoencoder's weights: the last of a run, or a released model's.

    Not the best ones: the adversarial phase comes last, and increases the held-out distance.
    """
    last, released = last_checkpoint(run_folder), released_checkpoint(run_folder)
    return released if released.exists() and not last.exists() else last


def read_checkpoint(
    path: Path, remedy: str = "Delete it to begin the run again."
) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU; no code in it is run.

    Args:
        path: The file.
        remedy: What the user should do if it is damaged.

    Raises:
        ValueError: If the file is missing or damaged, holds more than tensors and plain data, or
            claims more data than it holds (`rave.runs.checkpoint_file`).
    """
    try:
        content = read_file(regular(path))
    except FileNotFoundError:
        raise ValueError(f"'{path}' does not exist. Train the run first.") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"Cannot read checkpoint '{path}' ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, not a checkpoint. {remedy}")
    return content


def packed(content: Any) -> memoryview:
    """Return the bytes of a checkpoint file.

    They are made in memory: on a full disk torch's own writer would end the program.
    """
    memory = io.BytesIO()
    torch.save(content, memory)
    return memory.getbuffer()


def finished_steps(run_folder: Path) -> int:
    """Return the number of finished steps of a run's last checkpoint; 0 for a new run.

    Raises:
        ValueError: If the checkpoint cannot be read, or the run is a released model.
    """
    path = last_checkpoint(run_folder)
    if path.exists():
        return global_step(read_checkpoint(path), path)
    check_not_released(run_folder)
    return 0


def check_not_released(run_folder: Path) -> None:
    """Refuse to train in the folder of a released model, which has no training state.

    Raises:
        ValueError: If it is one, or its checkpoint cannot be read.
    """
    released = released_checkpoint(run_folder)
    if last_checkpoint(run_folder).exists() or not released.exists():
        return
    if TRAINING_STATE not in read_checkpoint(released):
        raise ValueError(
            f"'{run_folder}' is a released model: it has no training state and cannot be "
            "continued. Give another --out; with --initialise-from, `rave train` starts from the "
            "weights of such a codec."
        )


def global_step(checkpoint: dict[str, Any], path: Path) -> int:
    """Return the number of finished steps of a checkpoint.

    Raises:
        ValueError: If it does not state it.
    """
    step = checkpoint.get("global_step")
    if type(step) is not int or step < 0:
        raise ValueError(f"'{path}' does not state its number of steps.")
    return step


def model_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of the model from a training checkpoint.

    Half precision, in which released weights are stored, is converted to float32.
    """
    prefix, state = "model.", checkpoint.get("state_dict")
    if not isinstance(state, dict):
        return {}
    return {
        name.removeprefix(prefix): value.float()
        if isinstance(value, torch.Tensor) and value.dtype == torch.float16
        else value
        for name, value in state.items()
        if str(name).startswith(prefix)
    }


def load_weights(model: nn.Module, checkpoint: dict[str, Any], run_folder: Path) -> None:
    """Load the weights of a checkpoint into the model of a run.

    Raises:
        ValueError: If they do not fit the model.
    """
    try:
        model.load_state_dict(model_weights(checkpoint))
    except RuntimeError as error:
        reason = [*str(error).splitlines()[1:], str(error)][0].strip()
        raise ValueError(
            f"The checkpoint of '{run_folder}' does not fit its model.gin ({reason})."
        ) from error
