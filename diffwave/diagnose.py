# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.diagnose`: can latents be learned; what has a run learned, what is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from diffwave.recipe import diffusion_recipe
from rave.api.result import Result
from rave.cli import CODEC, add_device, add_seed, command_parser, execute
from rave.parsing import existing
from rave.runs.recipes import list_recipes

if TYPE_CHECKING:
    from diffwave.diagnosis.expected_losses import Recipe

RECORD, PICTURE = "diagnosis.json", "diagnosis.png"
# Where a run's diagnosis is written, inside the run.
RUN_OUT = "diagnosis"
# Options that only one kind of folder has.
OF_RUNS = {
    f"--{name}": name for name in ("latents", "spectrograms", "controls", "codec", "seed", "device")
}
OF_LATENTS = {"--config": "config", "--set": "settings"}


# For a person; as JSON-able data; what draws the figures into a file.
Report: TypeAlias = tuple[str, dict[str, Any], Callable[[Path], None]]

LATENTS_OR_RUN = "what rave encode, diffwave.inference or diffwave.train wrote"


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.diagnose",
        "Report whether latents can be learned, before any training; or what a trained run has "
        "learned, and\nwhich of the known failures it has (docs/diagnosis.md). Findings are no "
        "error: the exit code is 0.",
        "python -m diffwave.diagnose latents\n"
        "  python -m diffwave.diagnose runs/diffusion --codec runs/rave",
    )
    options.add_argument(
        "path",
        type=existing(LATENTS_OR_RUN),
        metavar="LATENTS_DIR|RUN",
        help=LATENTS_OR_RUN,
    )
    options.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder for {RECORD} and {PICTURE} (default RUN/{RUN_OUT}; of latents, neither is "
        "written)",
    )
    latents = options.add_argument_group("of latents")
    latents.add_argument(
        "--config",
        metavar="RECIPE",
        help=f"recipe of the training that is planned: {', '.join(list_recipes('diffwave'))}, or a "
        ".gin file (default default)",
    )
    latents.add_argument(
        "--set",
        dest="settings",
        action="append",
        metavar="NAME=VALUE",
        help="change a value of the recipe, e.g. FIDELITY=0.9 (may be repeated)",
    )
    runs = options.add_argument_group("of a run")
    for name in ("latents", "spectrograms", "controls"):
        runs.add_argument(
            f"--{name}",
            type=existing("what diffwave.preprocess or rave encode wrote"),
            metavar="DIR",
            help=f"the {name} that it was trained on, if they have moved",
        )
    runs.add_argument(
        "--codec",
        type=existing(CODEC),
        metavar="RUN",
        help="run of rave train, or .ts file: report whether generated latents decode to silence",
    )
    add_seed(options)
    add_device(options)
    options.set_defaults(seed=None, device=None)  # so that those of latents can be refused
    return options


def run(options: argparse.Namespace) -> Result:
    """Diagnose, write the figures, and say what was found."""
    if options.config or options.settings:
        diffusion_recipe(options.config or "default", options.settings or ())
    from rave.files.atomic import atomic_write, write_json

    is_run = _is_run(options.path)
    _check_options(options, is_run)
    out = options.out or (_run_folder(options.path) / RUN_OUT if is_run else None)
    if out is not None:
        _check_out(out, options.path, is_run)
    text, record, draw = _of_run(options) if is_run else _of_latents(options)
    if out is not None:
        write_json(out / RECORD, record)
        with atomic_write(out / PICTURE) as temporary:
            draw(temporary)
        text += f"\n\nFigures: '{out / RECORD}'. Picture: '{out / PICTURE}'."
    return Result(text, record)


def _is_run(path: Path) -> bool:
    """Return whether a path is a run; a run holds a header of its latents too.

    Raises:
        ValueError: If it is neither a run of diffusion nor a latent folder.
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
        "what rave encode, diffwave.inference or diffwave.train wrote."
    )


def _run_folder(path: Path) -> Path:
    """Return the folder of a run, which may be given as a file of weights."""
    return path if path.is_dir() else path.parent


def _check_options(options: argparse.Namespace, is_run: bool) -> None:
    """Check that no option is given that only the other kind of folder has."""
    here, there = ("a run", "latents") if is_run else ("a latent folder", "a run")
    given = [
        option
        for option, name in (OF_LATENTS if is_run else OF_RUNS).items()
        if getattr(options, name) is not None
    ]
    if given:
        raise ValueError(
            f"'{options.path}' is {here}; {', '.join(given)} is for {there}. Leave it out."
        )


def _check_out(out: Path, path: Path, is_run: bool) -> None:
    """Check that a diagnosis may be written into a folder."""
    from rave.files.atomic import check_output_folder

    if is_run and out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file; the output is a folder. Choose another name.")
    if not is_run:
        check_output_folder(out, path)


def _of_latents(options: argparse.Namespace) -> Report:
    from diffwave.diagnosis import latent_picture, latent_report
    from diffwave.diagnosis.generated import diagnose_generated
    from diffwave.diagnosis.latents import diagnose_latents
    from rave.latents.folder import GENERATED, LatentHeader

    if LatentHeader.read(options.path).contents == GENERATED:
        made = diagnose_generated(options.path)
        text = latent_report.words_of_generated(made)
        return text, made.record(), partial(latent_picture.draw_generated, made)
    config, settings = options.config or "default", options.settings or ()
    found = diagnose_latents(options.path, read_recipe(config, settings))
    return latent_report.words(found), found.record(), partial(latent_picture.draw, found)


def read_recipe(config: str, settings: Sequence[str] = (), seed: int = 0) -> Recipe:
    """Return what a recipe of diffwave.train says of latents and losses.

    Args:
        config: Name of a recipe, or .gin file.
        settings: Lines NAME=VALUE that change it.
        seed: Of the training.

    Raises:
        ValueError: If it cannot be read, or sets what follows from the latents.
    """
    from diffwave.denoiser import check_loss, check_weighting
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
        prediction=model.prediction,
        loss=check_loss(training.loss),
        weighting=check_weighting(training.weighting),
    )


def _of_run(options: argparse.Namespace) -> Report:
    from diffwave.diagnosis import run_picture, run_report
    from diffwave.diagnosis.run import diagnose_run
    from rave.compute.device import choose_device

    def progress(part: str) -> None:
        print(f"Looking at {part} …", file=sys.stderr)

    found = diagnose_run(
        options.path,
        latents=options.latents,
        spectrograms=options.spectrograms,
        controls=options.controls,
        codec=options.codec,
        device=choose_device(options.device or "auto"),
        seed=options.seed or 0,
        progress=progress,
    )
    return run_report.words(found), found.record(), partial(run_picture.draw, found.figures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
