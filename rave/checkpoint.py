"""The checkpoints of a run folder, read without the training library.

run/checkpoints/last.ckpt   where the same command continues
run/checkpoints/best.ckpt   lowest held-out loss so far
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

CHECKPOINTS, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"


def last_checkpoint(run_folder: Path) -> Path:
    """Return where the resumable state of a run is kept."""
    return run_folder / CHECKPOINTS / LAST


def read_checkpoint(
    path: Path, remedy: str = "Delete it to begin the run again."
) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU; no code in it is run.

    Args:
        path: The file.
        remedy: What the user should do if it is damaged.

    Raises:
        ValueError: If the file is missing or damaged, or holds more than tensors and plain data.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"'{path}' does not exist. Train the run first.") from None
    except UnpicklingError as error:  # torch's own words tell how to run what is in the file
        reason = "it is damaged, or holds more than tensors and plain data"
        raise ValueError(f"Cannot read checkpoint '{path}' ({reason}). {remedy}") from error
    except Exception as error:  # torch raises many types for a damaged file
        reason = str(error).splitlines()[0]
        raise ValueError(f"Cannot read checkpoint '{path}' ({reason}). {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds no checkpoint but a {type(content).__name__}. {remedy}")
    return content


def finished_steps(run_folder: Path) -> int:
    """Return how many steps the last checkpoint of a run has behind it; 0 for a new run."""
    path = last_checkpoint(run_folder)
    return int(read_checkpoint(path)["global_step"]) if path.exists() else 0


def model_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the state of the model inside a checkpoint of the system that trained it."""
    prefix = "model."
    state = checkpoint["state_dict"]
    return {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
