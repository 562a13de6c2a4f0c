"""`python -m diffwave.export`: a run → a run of the patched lmnt diffwave."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rave.command import Result, command_parser, execute


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.export",
        "Write a trained diffusion model as lmnt diffwave with the patches of this project reads "
        "it: weights.pt and latents.json. Its inference samples from it, its training goes on "
        "from the averaged weights with a fresh optimizer.",
        "python -m diffwave.export runs/piano lmnt-piano",
    )
    options.add_argument("run", type=Path, metavar="RUN", help="what diffwave.train wrote")
    options.add_argument("out", type=Path, metavar="OUT_DIR", help="folder to write")
    options.add_argument(
        "--force", action="store_true", help="replace what an earlier export wrote there"
    )
    return options


def run(options: argparse.Namespace) -> Result:
    """Write the folder and say what it holds.

    Raises:
        ValueError: If the run cannot be read, or the folder holds something else.
        OSError: If the folder cannot be written.
    """
    from diffwave.lmnt import WEIGHTS, write_lmnt_run
    from diffwave.run import open_run
    from rave.files import check_output_folder

    trained = open_run(options.run)
    check_output_folder(options.out, options.run)
    _check_empty(options.out, options.force)
    write_lmnt_run(options.out, trained.model, trained.header, trained.num_steps)
    model, header = trained.model, trained.header
    what = "with spectrograms" if model.is_conditional else "without spectrograms"
    size_mib = (options.out / WEIGHTS).stat().st_size / 2**20
    summary = (
        f"'{options.out}' ({size_mib:.1f} MiB) holds the model of step {trained.num_steps}, "
        f"{what}, of {header.latent_size} dimensions at {header.frame_rate_hz:.2f} frames/s."
    )
    figures = {
        "folder": str(options.out),
        "size_mib": size_mib,
        "num_steps": trained.num_steps,
        "is_conditional": model.is_conditional,
        "latent_size": model.standardizer.latent_size,
        "raw_size": model.standardizer.raw_size,
        "prediction": model.prediction,
    }
    return Result(summary, figures)


def _check_empty(folder: Path, force: bool) -> None:
    """Check that a folder is new or empty, or holds an earlier export that may be replaced."""
    from diffwave.lmnt import WEIGHTS
    from rave.latents import HEADER_NAME

    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    names = {name for name in names if not name.startswith(".")}
    other = sorted(names - {WEIGHTS, HEADER_NAME})
    if other or (names and WEIGHTS not in names):
        raise ValueError(
            f"'{folder}' holds other files (first: '{(other or sorted(names))[0]}'). "
            "Choose another folder."
        )
    if names and not force:
        raise ValueError(
            f"'{folder}' already holds a model. Choose another folder, or add --force to replace "
            "it."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
