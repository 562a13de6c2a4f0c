# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.inference`: generate latents with a trained model, or edit some."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffwave.sampling.request import check_task
from rave.api.result import Result
from rave.cli import DIFFUSION_RUN, add_backend, add_device, add_seed, command_parser, execute
from rave.parsing import existing, one_line, one_of

if TYPE_CHECKING:
    from diffwave.sampling.editing import Sampling
    from diffwave.sampling.request import Task

BATCH_SIZE = 8
# Called with the steps made and those to make in all.
Watch = Callable[[int, int], None]


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.inference",
        "Generate latents with a trained diffusion model, or make new ones of some that there are. "
        "`rave decode`\nmakes audio of them. With a waveform run of lmnt diffwave: audio of a "
        "spectrogram or of a folder\nof them, in a folder or a file OUT.wav.",
        "python -m diffwave.inference runs/piano generated --count 4 --seconds 10\n"
        "  python -m diffwave.inference runs/piano varied --vary latents/a.npy --strength 0.4\n"
        "  python -m diffwave.inference runs/piano new --inpaint latents/a.npy --from 3 --to 5\n"
        "  python -m diffwave.inference runs/piano following --from-audio a.wav --guidance 2\n"
        "  python -m diffwave.inference lmnt/weights.pt out.wav --spectrogram a.spec.npy --fast",
    )
    options.add_argument("run", type=existing(DIFFUSION_RUN), metavar="RUN", help=DIFFUSION_RUN)
    options.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    options.add_argument(
        "--count", type=int, help="clips to generate (default 4; of a waveform run 1)"
    )
    options.add_argument(
        "--seconds",
        type=float,
        help="length of each (default 10, or that of the condition); of --continue, what is added",
    )
    _add_conditions(options)
    _add_edits(options)
    options.add_argument("--steps", type=int, default=50, help="sampling steps (default 50)")
    options.add_argument(
        "--sampler",
        **one_of("sampler", ("dpm-solver++", "ddim", "ddpm")),
        default="dpm-solver++",
        help="sampler (default dpm-solver++); not for --inpaint and --continue",
    )
    options.add_argument(
        "--window",
        type=float,
        metavar="S",
        help="seconds sampled at a time; longer clips are made in overlapping windows, in constant "
        "memory (default 1024 latent frames)",
    )
    options.add_argument(
        "--fast",
        action="store_true",
        dest="is_fast",
        help="waveform runs only: sample with their short schedule",
    )
    options.add_argument(
        "--force", action="store_true", help="write into a folder that holds other latents"
    )
    add_seed(options)
    add_device(options)
    add_backend(options)
    return options


def _add_conditions(options: argparse.ArgumentParser) -> None:
    group = options.add_argument_group("what to follow")
    group.add_argument(
        "--from-audio",
        type=existing("an audio file"),
        metavar="F",
        help="follow an audio file in all that the run was trained with (of a waveform run, a "
        "folder too)",
    )
    group.add_argument(
        "--follow",
        action="append",
        default=[],
        metavar="NAME",
        help="of --from-audio, follow only this: spectrogram, loudness, chroma or onsets (may be "
        "repeated)",
    )
    group.add_argument(
        "--spectrogram",
        type=existing("what diffwave.preprocess wrote"),
        metavar="F.npy",
        help="follow a file of diffwave.preprocess (of a waveform run, a folder of .spec.npy too)",
    )
    group.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=F.npy",
        help="follow loudness, chroma or onsets of a file, (channels, frames) at latent rate (may "
        "be repeated)",
    )
    group.add_argument("--label", metavar="NAME", help="follow a class label")
    group.add_argument(
        "--guidance",
        action="append",
        default=[],
        metavar="[NAME=]SCALE",
        help="guidance scale of all, or of one: 1 follows as trained (default), more exaggerates "
        "(may be repeated)",
    )


def _add_edits(options: argparse.ArgumentParser) -> None:
    group = options.add_argument_group("what to begin with, instead of noise")
    given = existing("a .npy file of latents, (D, frames)")
    edit = group.add_mutually_exclusive_group()
    edit.add_argument("--vary", type=given, metavar="F.npy", help="vary these latents")
    edit.add_argument(
        "--inpaint", type=given, metavar="F.npy", help="replace --from to --to of these latents"
    )
    edit.add_argument(
        "--continue",
        type=given,
        dest="continued",
        metavar="F.npy",
        help="add --seconds to these latents",
    )
    group.add_argument(
        "--strength",
        type=float,
        help="strength of --vary: 0 changes nothing, 1 keeps nothing (default 0.5)",
    )
    span = "of the span to inpaint, in seconds"
    group.add_argument("--from", type=float, dest="from_s", metavar="S", help=f"start {span}")
    group.add_argument("--to", type=float, dest="to_s", metavar="S", help=f"end {span}")


def run(options: argparse.Namespace, watch: Watch | None = None) -> Result:
    """Generate latents and compare them with the training's, or audio with a waveform run.

    Args:
        options: Of `parser`.
        watch: Called after each step of the sampler; what it raises stops the command.
    """
    check_task(options)
    from diffwave.upstream.vocoder import read_vocoder

    vocoder = read_vocoder(options.run)
    if vocoder is not None:
        from diffwave.vocode import vocode

        paths = [str(options.run), str(options.out)]
        return vocode(options, vocoder, parser().parse_args(paths))
    return _generate(options, watch)


def _generate(options: argparse.Namespace, watch: Watch | None) -> Result:
    from diffwave.conditions.inputs import open_conditions, parse_controls, parse_guidance
    from diffwave.diagnosis.generated_latents import compare
    from diffwave.run import open_run
    from diffwave.sampling.editing import Sampling
    from diffwave.sampling.request import task_of
    from diffwave.sampling.samplers import build_sampler
    from rave.compute.device import choose_device
    from rave.jobs.journal import sole_writer
    from rave.latents.folder import read_latents
    from rave.latents.generated import check_output, clear, write_header

    device = choose_device(options.device)
    count = 4 if options.count is None else options.count
    controls = parse_controls(options.control)
    trained = open_run(options.run)
    if options.is_fast:
        raise ValueError("--fast belongs to a waveform run. Ask for fewer --steps.")
    build_sampler(options.sampler, trained.model.schedule, options.steps)  # its checks only
    header, model = trained.header, trained.model
    check_output(options.out, options.force)
    with open_conditions(
        model,
        header,
        options.from_audio,
        options.spectrogram,
        controls,
        options.label,
        options.follow,
    ) as conditions:
        followed = conditions.names
        guidance = parse_guidance(options.guidance, followed)
        task = task_of(options, trained, conditions.num_frames(model))
        window = options.window and max(round(options.window * header.frame_rate_hz), 1)
        model.to(device)
        model.accelerate(options.backend, options.precision)
        sampling = Sampling(
            model,
            range(count),
            options.seed,
            options.sampler,
            options.steps,
            conditions,
            guidance,
            window,
        )
        is_short = task.num_frames <= sampling.windows.num_frames
        if task.kind in ("generate", "vary"):
            sampling.windows.check(options.sampler, task.num_frames)
        with sole_writer(options.out):
            clear(options.out)
            batch_size = BATCH_SIZE if is_short else 1
            num_frames = _write(options.out, task, sampling, batch_size, watch)
            write_header(options.out, num_frames, header, options.seed, task.gain_db)
    items = [
        {"file": name, **compare(read_latents(options.out / name, header.latent_size), header)}
        for name in num_frames
    ]
    for item in items:
        if item["warning"]:
            print(one_line(f"warning: {item['file']}: {item['warning']}"), file=sys.stderr)
    duration_s = task.num_frames / header.frame_rate_hz
    lines = [
        f"Generated {len(items)} clips of {duration_s:.2f} s in '{options.out}'.",
        *(
            f"  {one_line(item['file'])}: level {item['level']:.2f} of the training latents', "
            f"largest shift of a mean {item['largest_shift']:.2f} std"
            for item in items
        ),
    ]
    figures = {
        "folder": str(options.out),
        "kind": task.kind,
        "followed": followed,
        "guidance": guidance,
        "num_frames": task.num_frames,
        "duration_s": duration_s,
        "train_steps": trained.num_steps,
        "items": items,
    }
    return Result("\n".join(lines), figures)


def _write(
    folder: Path, task: Task, sampling: Sampling, batch_size: int, watch: Watch | None
) -> dict[str, int]:
    """Write every item as it is made, and return the frames of each."""
    from dataclasses import replace

    from tqdm import tqdm

    from rave.latents.folder import write_latents
    from rave.latents.generated import clip_name

    written: dict[str, int] = {}
    raw_size = sampling.model.standardizer.raw_size
    num_batches = -(-len(sampling.indices) // batch_size)
    total = task.num_calls(sampling) * num_batches
    with tqdm(desc=task.kind, total=total, unit="step", file=sys.stderr) as bar:

        def advance(_: int) -> None:
            bar.update()
            if watch is not None:
                watch(bar.n, total)

        for start in range(0, len(sampling.indices), batch_size):
            batch = replace(
                sampling,
                indices=sampling.indices[start : start + batch_size],
                progress=advance,
            )
            names = [clip_name(index) for index in batch.indices]
            if len(names) == 1:
                blocks = (block[0] for block in task.blocks(batch))
                written[names[0]] = write_latents(folder / names[0], blocks, raw_size)
                continue
            parts = list(task.blocks(batch))
            for row, name in enumerate(names):
                clip = (part[row] for part in parts)
                written[name] = write_latents(folder / name, clip, raw_size)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
