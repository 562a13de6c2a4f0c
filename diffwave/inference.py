# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.inference`: generate latents with a trained model, or edit some."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rave.api.result import Result
from rave.cli import (
    DIFFUSION_RUN,
    add_backend,
    add_device,
    add_seed,
    command_parser,
    execute,
    keywords,
)
from rave.parsing import existing, one_of


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.inference",
        "Generate latents with a trained diffusion model, or edit existing latents. `rave decode`\n"
        "decodes them to audio.",
        "python -m diffwave.inference runs/piano generated --count 4 --seconds 10\n"
        "  python -m diffwave.inference runs/piano varied --vary latents/a.npy --strength 0.4\n"
        "  python -m diffwave.inference runs/piano new --inpaint latents/a.npy --from 3 --to 5\n"
        "  python -m diffwave.inference runs/piano following --from-audio a.wav --guidance 2",
    )
    options.add_argument("run", type=existing(DIFFUSION_RUN), metavar="RUN", help=DIFFUSION_RUN)
    options.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    options.add_argument("--count", type=int, default=4, help="clips to generate (default 4)")
    options.add_argument(
        "--seconds",
        type=float,
        help="length of each clip (default 10, or that of the condition); with --continue, the "
        "length to add",
    )
    _add_conditions(options)
    _add_edits(options)
    options.add_argument("--steps", type=int, default=50, help="sampling steps (default 50)")
    options.add_argument(
        "--sampler",
        **one_of("sampler", ("dpm-solver++", "ddim", "ddpm")),
        help="sampler (default dpm-solver++); not for --inpaint and --continue",
    )
    options.add_argument(
        "--window",
        type=float,
        metavar="S",
        help="seconds sampled at a time; longer clips are sampled in overlapping windows, in "
        "constant memory (default 1024 latent frames); not for --inpaint",
    )
    options.add_argument(
        "--force", action="store_true", help="replace the generated latents of an earlier run"
    )
    add_seed(options)
    add_device(options)
    add_backend(options)
    return options


def _add_conditions(options: argparse.ArgumentParser) -> None:
    group = options.add_argument_group("conditions")
    group.add_argument(
        "--from-audio",
        type=existing("an audio file"),
        metavar="F",
        help="follow an audio file, with every condition of the run's training",
    )
    group.add_argument(
        "--follow",
        action="append",
        default=[],
        metavar="NAME",
        help="with --from-audio, follow only this condition: spectrogram, loudness, chroma or "
        "onsets (may be repeated)",
    )
    group.add_argument(
        "--spectrogram",
        type=existing("a spectrogram of diffwave.preprocess"),
        metavar="F.npy",
        help="follow a spectrogram of diffwave.preprocess",
    )
    group.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=F.npy",
        help="follow loudness, chroma or onsets from a file, (channels, frames) at latent rate "
        "(may be repeated)",
    )
    group.add_argument("--label", metavar="NAME", help="follow a class label")
    group.add_argument(
        "--guidance",
        action="append",
        default=[],
        metavar="[NAME=]SCALE",
        help="guidance scale of all conditions, or of one: 1 follows as trained (default), more "
        "exaggerates (may be repeated)",
    )


def _add_edits(options: argparse.ArgumentParser) -> None:
    group = options.add_argument_group("edits")
    latents = existing("a .npy file of latents, (D, frames)")
    edit = group.add_mutually_exclusive_group()
    edit.add_argument("--vary", type=latents, metavar="F.npy", help="vary these latents")
    edit.add_argument(
        "--inpaint", type=latents, metavar="F.npy", help="inpaint these latents --from … --to …"
    )
    edit.add_argument(
        "--continue",
        type=latents,
        dest="continued",
        metavar="F.npy",
        help="continue these latents by --seconds",
    )
    group.add_argument(
        "--strength",
        type=float,
        help="strength of --vary: 0 changes nothing, 1 keeps nothing (default 0.5)",
    )
    span = "of the span to inpaint, in seconds"
    group.add_argument("--from", type=float, dest="from_s", metavar="S", help=f"start {span}")
    group.add_argument("--to", type=float, dest="to_s", metavar="S", help=f"end {span}")


def run(options: argparse.Namespace) -> Result:
    """Generate latents, and compare them with the training latents."""
    from diffwave.api.inference import generate

    arguments = keywords(options)
    if controls := arguments.pop("control"):
        from diffwave.conditions.inputs import parse_controls

        arguments["controls"] = parse_controls(controls)
    return generate(**arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
