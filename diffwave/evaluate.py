# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.evaluate`: how good is what a run generates."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rave.api.result import Result
from rave.cli import (
    AUDIO_FOLDER,
    CODEC,
    DIFFUSION_RUN,
    LATENTS,
    add_device,
    add_seed,
    command_parser,
    execute,
)
from rave.parsing import existing

PROG = "python -m diffwave.evaluate"
RECORD, PICTURE, OUT = "evaluation.json", "ladder.png", "evaluation"
COUNT, SECONDS, SEEDS, STEPS = 10, 24.0, 3, 50
# What makes the figures, beside the positional arguments.
COMMAND_OPTIONS = (
    *("codec", "count", "seconds", "seeds", "patches", "steps", "guidance"),
    *("spectrograms", "controls", "seed"),
)


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        PROG,
        "Report how far generated music is from the recordings that a run was trained on, on a "
        "ladder: held-out\nrecordings, the codec's reconstructions of them, generated music, "
        "Gaussian latents, noise; all of the\nsame length. Beside it the spread over seeds, "
        "diversity, and whether training music is copied\n(docs/evaluation.md).",
        f"{PROG} runs/diffusion latents recordings --codec runs/rave",
    )
    options.add_argument("run", type=existing(DIFFUSION_RUN), metavar="RUN", help=DIFFUSION_RUN)
    options.add_argument(
        "latents_dir",
        type=existing(LATENTS),
        metavar="LATENTS_DIR",
        help="the latents it was trained on",
    )
    options.add_argument(
        "audio_dir",
        type=existing(AUDIO_FOLDER),
        metavar="AUDIO_DIR",
        help="the recordings these were encoded from",
    )
    options.add_argument(
        "--codec",
        type=existing(CODEC),
        required=True,
        metavar="RUN",
        help="run of rave train, or .ts file",
    )
    options.add_argument(
        "--count", type=int, default=COUNT, help=f"clips of each rung (default {COUNT})"
    )
    options.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"length of a clip (default {SECONDS:g})"
    )
    options.add_argument(
        "--seeds",
        type=int,
        default=SEEDS,
        metavar="N",
        help=f"sets of generated clips, whose spread is reported (default {SEEDS})",
    )
    options.add_argument(
        "--patches",
        type=int,
        metavar="N",
        help="patches of 3 s that a distance is measured with; only figures computed with the same "
        "number are comparable (default: all of a rung)",
    )
    options.add_argument(
        "--steps", type=int, default=STEPS, help=f"sampling steps (default {STEPS})"
    )
    options.add_argument(
        "--guidance",
        action="append",
        default=[],
        metavar="[NAME=]SCALE",
        help="guidance scale of what is followed, of all or of one (may be repeated)",
    )
    for name in ("spectrograms", "controls"):
        options.add_argument(
            f"--{name}",
            type=existing("what diffwave.preprocess wrote"),
            metavar="DIR",
            help=f"the {name} that it was trained on, if they have moved",
        )
    options.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder for {RECORD} and {PICTURE} (default RUN/{OUT})",
    )
    add_seed(options)
    add_device(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Measure the ladder, write the figures and the picture, and say what was found."""
    from dataclasses import replace

    from tqdm import tqdm

    from diffwave.conditioner import LABEL
    from diffwave.conditions.inputs import parse_guidance
    from diffwave.diagnosis.run_data import open_data
    from diffwave.diagnosis.samples import WINDOW_FRAMES
    from diffwave.evaluation.figures import FORMAT, VERSION, measure_ladder
    from diffwave.evaluation.ladder import Ladder, recording_path, without_versions
    from diffwave.evaluation.picture import draw
    from diffwave.run import TrainingData, open_run, training_settings
    from diffwave.sampling.samplers import DPM_SOLVER, build_sampler
    from rave.codec import load_codec
    from rave.compute.device import choose_device
    from rave.evaluation.folders import SHORTEST_S
    from rave.evaluation.musicnn import load_musicnn
    from rave.files.atomic import atomic_write, check_output_folder, write_json

    _check(options, SHORTEST_S)
    out: Path = options.out or options.run / OUT
    check_output_folder(out, options.latents_dir, options.audio_dir)
    device = choose_device(options.device)
    trained = open_run(options.run)
    model = trained.model.to(device)
    build_sampler(DPM_SOLVER, model.schedule, options.steps)  # its checks only
    followed = [name for name in model.conditioners if name != LABEL]
    given = TrainingData(options.latents_dir, options.spectrograms, options.controls)
    data = open_data(trained, training_settings(options.run), given, WINDOW_FRAMES)
    guidance = parse_guidance(options.guidance, followed)
    data = replace(data, num_frames=round(options.seconds * trained.header.frame_rate_hz))
    segments = data.segments(data.held_out, options.count)
    if not len(segments):
        longest_s = max(c.num_frames for c in data.held_out) / trained.header.frame_rate_hz
        raise ValueError(
            f"--seconds is {options.seconds:g}; the longest held-out recording lasts "
            f"{longest_s:.1f} s. Ask for less, or hold out more."
        )
    for clip in [*data.training, *data.held_out]:
        recording_path(options.audio_dir, clip)
    codec = load_codec(options.codec, device)
    codec.check_latents(trained.header, options.latents_dir)
    num_rungs = 5 + options.seeds + bool(model.conditioners)
    total = len(without_versions(data.training)) + num_rungs * len(segments)
    with tqdm(desc="Hearing", total=total, unit="clip", file=sys.stderr) as bar:
        ladder = Ladder(
            trained,
            data,
            options.audio_dir,
            codec,
            load_musicnn(),
            len(segments),
            options.seed,
            options.steps,
            guidance,
            lambda: bar.update() and None,
        )
        found = measure_ladder(ladder, options.seeds, options.patches)
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "run": str(options.run),
        "codec": str(options.codec),
        "seed": options.seed,
        "command": _command(options),
        "train_steps": trained.num_steps,
        "held_out": sorted({clip.file.path for clip in data.held_out}),
        "clips": len(segments),
        "seconds": data.num_frames / trained.header.frame_rate_hz,
        **found.record(),
    }
    write_json(out / RECORD, record)
    with atomic_write(out / PICTURE) as temporary:
        draw(record, temporary)
    lines = [found.words(), f"Figures: '{out / RECORD}'. Picture: '{out / PICTURE}'."]
    if len(segments) < options.count:
        lines.insert(0, f"The held-out music has room for {len(segments)} clips a rung only.")
    return Result("\n".join(lines), record)


def _command(options: argparse.Namespace) -> str:
    """Return the command line that does the same again."""
    parts = [str(options.run), str(options.latents_dir), str(options.audio_dir)]
    default = parser().parse_args([*parts, "--codec", parts[0]])  # any other
    for name in COMMAND_OPTIONS:
        value = getattr(options, name)
        if value != getattr(default, name):
            values = value if isinstance(value, list) else [value]
            parts += [part for each in values for part in (f"--{name}", str(each))]
    return f"{PROG} {shlex.join(parts)}"


def _check(options: argparse.Namespace, shortest_s: float) -> None:
    if not shortest_s + 0.1 <= options.seconds <= 600:
        raise ValueError(f"--seconds is {options.seconds:g}; 3.1 to 600 is possible.")
    if options.count < 2:
        raise ValueError(f"--count is {options.count}; at least 2 are needed.")
    if options.seeds < 1:
        raise ValueError(f"--seeds is {options.seeds}; at least 1 is needed.")
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}; a whole number from 0 is needed.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
