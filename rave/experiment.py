"""Recipes and run folders: parse gin, build model and training, save a run, rebuild its model.

A recipe is a `.gin` file under `configs/recipes/`, optionally with options of `configs/options/`,
as in `v2+causal+noise`. It is parsed together with the user's settings, in one call, and locked. A
run folder holds

    run.json      format version, kind ("rave" or "diffwave")
    model.gin     the resolved values the model was built from; rebuilds the same model
    config.gin    the resolved values of model and training
    checkpoints/  last.ckpt and best.ckpt
    training_audio.json  of a codec (`rave.training_audio`)
    tensorboard/  curves, pictures and audio
"""

from __future__ import annotations

import importlib.util  # noqa: F401  (gin reads it without importing it)
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gin
import torch

from rave.files.atomic import atomic_write, read_json, write_json
from rave.runs.checkpoint import finished_steps
from rave.runs.gin_text import (
    Statement,
    bound_values,
    check_names,
    read_gin,
    read_statements,
    reading,
    without_unused_imports,
    written,
)
from rave.runs.model_size import limited_size
from rave.runs.recipes import Recipe, read_recipe

RUN_FORMAT = "rave-diffwave-run"
RUN_VERSION = 1
T = TypeVar("T")
LENGTHS = ("MAX_STEPS", "PHASE_1_STEPS")  # settings that may change when a run continues


@gin.configurable
def build_model(model: Any = gin.REQUIRED) -> Any:
    """Return the model that the parsed recipe describes, without the size limit of `new_model`."""
    return model


@gin.configurable
def build_training(training: Any = gin.REQUIRED) -> Any:
    """Return the training settings that the parsed recipe describes."""
    return training


def new_model() -> Any:
    """Return the model that the parsed recipe describes.

    Raises:
        ValueError: If it is too large for this machine.
    """
    with limited_size():
        return build_model()


@dataclass(frozen=True)
class Build:
    """Model and training of a recipe.

    Attributes:
        model: Model with random weights.
        training: The settings of its training.
        model_config: The resolved values that the model was built from, for model.gin.
        config: The resolved values of model and training, for config.gin.
    """

    model: Any
    training: Any
    model_config: str
    config: str


def build(recipe: Recipe, seed: int) -> Build:
    """Build the model and the training that a recipe describes.

    Args:
        recipe: Recipe, with the values that depend on the data bound.
        seed: Random seed of the weights; torch's random state is not changed.

    Raises:
        ValueError: If it cannot be parsed, or the model is too large for this machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _parse_recipe(recipe)
        model = new_model()
        model_config = resolved_config()
        training = build_training()
        return Build(model, training, model_config, resolved_config())


def training_of(recipe: Recipe) -> Any:
    """Return the training settings of a recipe alone, before its model can be built.

    Raises:
        ValueError: If it cannot be parsed.
    """
    _parse_recipe(recipe)
    return build_training()


def parse_recipe(package: str, recipe: str, settings: Sequence[str] = ()) -> None:
    """Parse a recipe for `new_model` and `build_training`; `build` does both.

    Raises:
        ValueError: If it cannot be parsed; see `rave.runs.recipes.read_recipe`.
    """
    _parse_recipe(read_recipe(package, recipe, settings))


def _parse_recipe(recipe: Recipe) -> None:
    _parse(recipe.resolved, f"recipe '{recipe.name}'")
    recipe.check_used()


def _parse(statements: Sequence[Statement], what: str) -> None:
    """Parse and lock gin, imports first; refuse names of anything but model parts."""
    gin.clear_config()
    with reading(what):
        check_names(statements, what)
        gin.parse_config(written(statements))
        gin.finalize()


def resolved_config() -> str:
    """Return all values that were used since the last parse, as gin."""
    return without_unused_imports(gin.operative_config_str())


def save_run(folder: Path, kind: str, model_config: str, config: str) -> None:
    """Create a run folder, or check that the folder is a run with the same settings.

    MAX_STEPS and PHASE_1_STEPS may differ, but must not be below the finished steps.

    Raises:
        ValueError: If the folder holds a run with other settings (the message names them), or its
            path is not UTF-8, which TensorBoard needs.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"The path of the run, '{folder.absolute()}', is not UTF-8. Give another --out."
        ) from None
    path = folder / "config.gin"
    if path.exists():
        with reading(f"'{path}'"):
            found, needed = (
                {name: repr(v) for name, v in bound_values(read_statements(text)).items()}
                for text in (read_gin(path), config)
            )
        names = sorted({name for name, _ in found.items() ^ needed.items()})
        if not all(name in LENGTHS and name in found and name in needed for name in names):
            changes = "; ".join(f"{n} {found.get(n)}, now {needed.get(n)}" for n in names[:4])
            raise ValueError(
                f"'{folder}' holds a run with other settings ({changes}). "
                "Give the settings it was started with, or another --out."
            )
        if names:
            done = finished_steps(folder)
            for name in names:
                if float(needed[name]) < min(done, float(found[name])):
                    raise ValueError(
                        f"'{folder}' has finished {done} steps; {name} is {needed[name]}. "
                        "Give that many or more, or another --out."
                    )
            with atomic_write(path) as temporary:
                temporary.write_text(config)
        return
    write_json(folder / "run.json", {"format": RUN_FORMAT, "version": RUN_VERSION, "kind": kind})
    for name, content in (("model.gin", model_config), ("config.gin", config)):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(content)


def check_run(folder: Path, kind: str) -> None:
    """Check that `folder` is a run of this kind and of a version that this program reads.

    Raises:
        ValueError: If it is not.
    """
    header = read_json(folder / "run.json", "a run folder")
    if not isinstance(header, dict) or header.get("format") != RUN_FORMAT:
        raise ValueError(f"'{folder / 'run.json'}' is not the header of a run. Train again.")
    if header.get("kind") != kind:
        raise ValueError(f"'{folder}' is a {header.get('kind')} run; a {kind} run is needed here.")
    if header.get("version") != RUN_VERSION:
        raise ValueError(
            f"'{folder}' has run format {header.get('version')}; this program reads {RUN_VERSION}. "
            "Install the version of rave-diffwave that made it, or train again."
        )


def rebuild_model(folder: Path, kind: str, model_class: type[T]) -> T:
    """Return the model of a run, built from its model.gin, with fresh weights.

    Raises:
        ValueError: If the folder is not a run of this kind, or its model.gin cannot be read or
            describes something else.
    """
    check_run(folder, kind)
    path = folder / "model.gin"
    if not path.is_file():
        raise ValueError(f"'{path}' is missing, so '{folder}' cannot be opened. Train again.")
    with reading(f"'{path}'"):
        statements = [*read_statements(read_gin(path))]
    _parse(statements, f"'{path}'")
    try:
        model = new_model()
    except Exception as error:  # layers raise any type for unsuitable arguments
        reason = " ".join(str(error).partition("\n  In call to")[0].split())
        raise ValueError(
            f"'{path}' describes a model that cannot be built ({reason}). Train again."
        ) from error
    if not isinstance(model, model_class):
        raise ValueError(
            f"'{path}' describes a {type(model).__name__}; a {model_class.__name__} is needed. "
            "Train again."
        )
    return model
