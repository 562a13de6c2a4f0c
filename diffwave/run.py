"""Read a diffusion run: its model with averaged weights, and its training data.

run/latents.json   header of the training latents, without the list of files
run/data.json      folders of the training data, only to find them again
run/model.gin, run/checkpoints/…   see rave.experiment and rave.trainer
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from diffwave.model import LatentDiffusion
from diffwave.recipe import diffusion_recipe
from diffwave.settings import TrainingSettings
from diffwave.upstream.run import is_lmnt_run, read_lmnt_run, read_lmnt_settings
from rave.experiment import check_run, rebuild_model, training_of
from rave.files.atomic import read_header, write_json
from rave.latents.folder import LatentHeader
from rave.latents.storage import is_address
from rave.runs.gin_text import read_bindings

KIND = "diffwave"
DATA_FORMAT, DATA_VERSION, DATA_NAME = "rave-diffwave-data", 1, "data.json"
# Values of settings that lmnt diffwave does not have.
LMNT_SETTINGS = {"weighting": "none"}


@dataclass(frozen=True)
class DiffusionRun:
    """A trained model.

    Attributes:
        folder: The run folder.
        model: Model with the averaged weights of the best checkpoint, in evaluation mode.
        header: Header of the training latents; it lists no files.
        num_steps: Training steps of the weights.
    """

    folder: Path
    model: LatentDiffusion
    header: LatentHeader
    num_steps: int


def open_run(folder: str | Path) -> DiffusionRun:
    """Return the trained model of a run: the best checkpoint on held-out latents, or the last.

    Args:
        folder: Run folder of diffwave.train, or of the patched lmnt diffwave.

    Raises:
        ValueError: If the folder is not a diffusion run, or has no checkpoint.
    """
    from rave.runs.checkpoint import global_step, load_weights, read_checkpoint, trained_checkpoint

    folder = Path(folder)
    if is_lmnt_run(folder):
        model, header, num_steps = read_lmnt_run(folder)
        return DiffusionRun(folder, model.eval().requires_grad_(False), header, num_steps)
    check_run(folder, KIND)
    header = LatentHeader.read(folder)
    model = rebuild_model(folder, KIND, LatentDiffusion)
    checkpoint = read_checkpoint(trained_checkpoint(folder))
    load_weights(model, checkpoint, folder)
    model.eval().requires_grad_(False)
    return DiffusionRun(folder, model, header, global_step(checkpoint, folder))


@dataclass(frozen=True)
class TrainingData:
    """The folders that a run was trained on; None if there was none, or it is not known.

    Attributes:
        latents: Folder of rave encode, or a folder or address of a sharded set.
        spectrograms: Folder of diffwave.preprocess.
        controls: Folder of diffwave.preprocess --controls.
    """

    latents: Path | str | None = None
    spectrograms: Path | None = None
    controls: Path | None = None

    def write(self, folder: Path) -> None:
        """Write data.json into a run, whole or not at all."""
        paths = {
            field.name: str(path.resolve()) if isinstance(path, Path) else path
            for field in fields(self)
            if (path := getattr(self, field.name)) is not None
        }
        write_json(folder / DATA_NAME, {"format": DATA_FORMAT, "version": DATA_VERSION, **paths})

    @classmethod
    def read(cls, folder: Path) -> TrainingData:
        """Return the content of a run's data.json; empty if there is none, as in a released model.

        Raises:
            ValueError: If it cannot be read.
        """
        if not (folder / DATA_NAME).exists():
            return cls()

        def build(content: dict[str, Any]) -> TrainingData:
            places: dict[str, Any] = {
                name: path if name == "latents" and is_address(path) else Path(path)
                for name, path in content.items()
            }
            return cls(**places)

        path, remedy = folder / DATA_NAME, "Delete it, and name the folders."
        tag = {"format": DATA_FORMAT, "version": DATA_VERSION}
        return read_header(path, "a run", build, remedy, **tag)


def training_settings(folder: Path) -> TrainingSettings:
    """Return the settings of a run's training; missing ones are those of the recipe default.

    Raises:
        ValueError: If the settings cannot be read.
    """
    if is_lmnt_run(folder):
        found = read_lmnt_settings(folder)
    else:
        bindings = read_bindings(folder / "config.gin")
        prefix = "settings.TrainingSettings."
        found = {k.removeprefix(prefix): v for k, v in bindings.items() if k.startswith(prefix)}
    default: TrainingSettings = training_of(diffusion_recipe("default"))
    return replace(default, **{**LMNT_SETTINGS, **found})
