"""A diffusion run: what it was trained on, and its model with averaged weights.

run/latents.json   header of the training latents, without the list of files
run/model.gin, run/checkpoints/…   see rave.experiment and rave.trainer
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diffwave.lmnt import is_lmnt_run, read_lmnt_run
from diffwave.model import LatentDiffusion
from rave.experiment import check_run, rebuild_model
from rave.latents import HEADER_NAME, LatentHeader

KIND = "diffwave"


@dataclass(frozen=True)
class DiffusionRun:
    """A trained model.

    Attributes:
        folder: The run.
        model: With the averaged weights of the best checkpoint, in evaluation mode.
        header: Of the latents it was trained on; it lists no files.
        num_steps: Training steps behind the weights.
    """

    folder: Path
    model: LatentDiffusion
    header: LatentHeader
    num_steps: int


def save_header(folder: Path, header: LatentHeader) -> None:
    """Write what generation needs to know of the training latents.

    Raises:
        ValueError: If the run was begun on other latents.
    """
    header = replace(header, files=[], skipped={})
    path = folder / HEADER_NAME
    if path.exists():
        found = LatentHeader.read(folder)
        header.check_matches(found, "The latent folder", f"run '{folder}'")
        if found.statistics != header.statistics:
            raise ValueError(
                f"Run '{folder}' was begun on latents with other statistics "
                f"({found.statistics.num_frames} frames; these have "
                f"{header.statistics.num_frames}). Give it the same latents, or another --out."
            )
        return
    header.write(folder)


def open_run(folder: Path) -> DiffusionRun:
    """Return the trained model of a run: the best checkpoint on held-out latents, or the last.

    A folder of the patched lmnt diffwave is a run too; see diffwave.lmnt.

    Raises:
        ValueError: If the folder is not a run of this kind, or has no checkpoint.
    """
    from rave.checkpoint import (
        BEST,
        CHECKPOINTS,
        last_checkpoint,
        model_weights,
        read_checkpoint,
    )

    if is_lmnt_run(folder):
        model, header, num_steps = read_lmnt_run(folder)
        return DiffusionRun(folder, model.eval().requires_grad_(False), header, num_steps)
    check_run(folder, KIND)
    header = LatentHeader.read(folder)
    model = rebuild_model(folder, KIND)
    best = folder / CHECKPOINTS / BEST
    checkpoint = read_checkpoint(best if best.exists() else last_checkpoint(folder))
    model.load_state_dict(model_weights(checkpoint))
    model.eval().requires_grad_(False)
    return DiffusionRun(folder, model, header, int(checkpoint["global_step"]))
