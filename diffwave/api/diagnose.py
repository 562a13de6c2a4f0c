"""Diagnosis of latents before a training, and of a trained run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from diffwave.recipe import diffusion_recipe
from rave.api.result import Result
from rave.parsing import check_seed, path_or_none

if TYPE_CHECKING:
    from diffwave.diagnosis.expected_losses import Recipe

RECORD, PICTURE = "diagnosis.json", "diagnosis.png"
# Where a run's diagnosis is written, inside the run.
RUN_OUT = "diagnosis"
# Text; JSON-able data; a function that draws the figures into a file.
Report: TypeAlias = tuple[str, dict[str, Any], Callable[[Path], None]]


def diagnose_folder(
    path: str | Path,
    *,
    out: str | Path | None = None,
    config: str | None = None,
    settings: Sequence[str] | None = None,
    latents: str | Path | None = None,
    spectrograms: str | Path | None = None,
    controls: str | Path | None = None,
    codec: str | Path | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> Result:
    """Report whether latents can be learned, or what a trained run has learned.

    Args:
        path: Folder of latents, or a run of diffwave.train or of the patched lmnt diffwave.
        out: Folder for diagnosis.json and diagnosis.png. None: RUN/diagnosis; of latents, neither
            is written.
        config: For latents: recipe of the planned training. None: default.
        settings: For latents: values of the recipe to change, each NAME=VALUE.
        latents: For a run: the latents that it was trained on, if they have moved.
        spectrograms: For a run: its spectrograms, if they have moved.
        controls: For a run: its controls, if they have moved.
        codec: For a run: run folder of `rave train`, or a .ts file (it runs code: open only files
            you trust), to report whether generated latents decode to silence, and whether what
            follows a recording has its notes.
        seed: For a run: random seed. None: 0.
        device: For a run: auto, cpu, cuda, cuda:N or mps. None: auto.

    Returns:
        The figures are those of diagnosis.json. Findings are no error.

    Raises:
        ValueError: If the folder is neither, an argument is for the other kind, or an input cannot
            be used.
        OSError: If something cannot be read or written.
    """
    path = Path(path)
    if config or settings:
        diffusion_recipe(config or "default", settings or ())
    from rave.compute.device import choose_device
    from rave.files.atomic import write_json

    of_latents = {"--config": config, "--set": settings}
    of_runs = {
        "--latents": latents,
        "--spectrograms": spectrograms,
        "--controls": controls,
        "--codec": codec,
        "--seed": seed,
        "--device": device,
    }
    is_run = _is_run(path)
    here, there = ("a run", "latents") if is_run else ("a latent folder", "a run")
    others = of_latents if is_run else of_runs
    if refused := [option for option, value in others.items() if value is not None]:
        raise ValueError(f"'{path}' is {here}; {', '.join(refused)} is for {there}. Leave it out.")
    folder = None if out is None else Path(out)
    if is_run and folder is None:
        folder = (path if path.is_dir() else path.parent) / RUN_OUT  # path may be a file of weights
    if folder is not None:
        _check_out(folder, path, is_run)
    if is_run:
        text, record, draw = _of_run(
            path,
            latents=path_or_none(latents),
            spectrograms=path_or_none(spectrograms),
            controls=path_or_none(controls),
            codec=path_or_none(codec),
            seed=check_seed(seed or 0),
            device=choose_device(device or "auto"),
        )
    else:
        text, record, draw = _of_latents(path, config or "default", settings or ())
    if folder is not None:
        write_json(folder / RECORD, record)
        draw(folder / PICTURE)
        text += f"\n\nFigures: '{folder / RECORD}'. Picture: '{folder / PICTURE}'."
    return Result(text, record)


def _is_run(path: Path) -> bool:
    """Return whether a path is a run, not a latent folder; a run also has a latent header.

    Raises:
        ValueError: If it is neither a diffusion run nor a latent folder.
    """
    if (path / "run.json").exists():
        return True
    if (path / "latents.json").exists() and not (path / "weights.pt").exists():
        return False
    from diffwave.upstream.run import is_lmnt_run
    from rave.latents.folder import is_sharded

    if is_sharded(path):  # refused where its header is read
        return False

    if is_lmnt_run(path):
        return True
    raise ValueError(
        f"'{path}' is neither a latent folder (with latents.json) nor a run (with run.json). Give "
        "a folder that rave encode, diffwave.inference or diffwave.train wrote."
    )


def _check_out(out: Path, path: Path, is_run: bool) -> None:
    """Refuse an output folder that a diagnosis must not be written into."""
    from rave.files.atomic import check_output_folder

    if is_run and out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file; the output is a folder. Choose another name.")
    if not is_run:
        check_output_folder(out, path)


def _of_latents(path: Path, config: str, settings: Sequence[str]) -> Report:
    from diffwave.diagnosis import latent_picture, latent_report
    from diffwave.diagnosis.generated import diagnose_generated
    from diffwave.diagnosis.latents import diagnose_latents
    from rave.latents.folder import GENERATED, LatentHeader

    if LatentHeader.read(path).contents == GENERATED:
        generated = diagnose_generated(path)
        text = latent_report.words_of_generated(generated)
        return text, generated.record(), partial(latent_picture.draw_generated, generated)
    found = diagnose_latents(path, read_recipe(config, settings))
    return latent_report.words(found), found.record(), partial(latent_picture.draw, found)


def read_recipe(config: str, settings: Sequence[str] = (), seed: int = 0) -> Recipe:
    """Return the values of a recipe of diffwave.train that a diagnosis needs.

    Args:
        config: Name of a recipe, or .gin file.
        settings: Values to change, each NAME=VALUE.
        seed: Random seed of the training.

    Raises:
        ValueError: If it cannot be read, or sets a value that follows from the latents.
    """
    from diffwave.diagnosis.expected_losses import Recipe
    from rave.experiment import build

    built = build(diffusion_recipe(config, settings).bind({"SEED": seed}), seed)
    training, model = built.training, built.model
    return Recipe(
        fidelity=training.fidelity,
        held_out_fraction=training.held_out_fraction,
        held_out_segments=training.held_out_segments,
        segment_frames=training.segment_frames,
        schedule=model.schedule,
        objective=training.objective(model.prediction),
    )


def _of_run(path: Path, **options: Any) -> Report:
    from diffwave.diagnosis import run_picture, run_report
    from diffwave.diagnosis.run import diagnose_run

    def progress(part: str) -> None:
        print(f"Looking at {part} …", file=sys.stderr)

    found = diagnose_run(path, **options, progress=progress)
    return run_report.words(found), found.record(), partial(run_picture.draw, found.figures)
