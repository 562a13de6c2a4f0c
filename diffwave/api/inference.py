"""Generate latents with a trained model, or edit some."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffwave.sampling.request import Request, Task
from rave.api.result import Result
from rave.parsing import check_seed, one_line, path_or_none

if TYPE_CHECKING:
    from diffwave.conditions.inputs import Guidance
    from diffwave.sampling.generation import Sampling

BATCH_SIZE = 8
# Called with the number of steps done and of all steps.
Watch = Callable[[int, int], None]


def generate(
    run: str | Path,
    out: str | Path,
    *,
    count: int = 4,
    seconds: float | None = None,
    from_audio: str | Path | None = None,
    follow: Sequence[str] = (),
    spectrogram: str | Path | None = None,
    controls: Mapping[str, str | Path] | None = None,
    label: str | None = None,
    guidance: Guidance = (),
    vary: str | Path | None = None,
    inpaint: str | Path | None = None,
    continued: str | Path | None = None,
    strength: float | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
    steps: int = 50,
    sampler: str | None = None,
    window: float | None = None,
    seed: int = 0,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "float32",
    force: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Write generated latents into a folder, and compare them with the training latents.

    Without `vary`, `inpaint` or `continued` the clips are sampled from noise. `rave decode` decodes
    the folder to audio.

    Args:
        run: Run folder of diffwave.train, or of the patched lmnt diffwave.
        out: Folder to write: generated_000.npy (D, N) and so on, and latents.json.
        count: Number of clips. Each has its own random numbers.
        seconds: Length of each clip, or of the continuation of `continued`. None: as long as the
            conditions, or 10 s.
        from_audio: Audio file to follow, with every condition of the run's training.
        follow: Conditions to take from `from_audio`: spectrogram, loudness, chroma, onsets. Empty:
            all.
        spectrogram: Spectrogram to follow, a file of diffwave.preprocess.
        controls: File of each control to follow, (C, N) at latent rate: loudness, chroma, onsets.
        label: Class label to follow.
        guidance: Guidance scale of all conditions, or of each by name; 1 is off.
        vary: Latents to vary, a .npy file of shape (D, N).
        inpaint: Latents to inpaint from `from_s` to `to_s`, a .npy file of shape (D, N).
        continued: Latents to continue, a .npy file of shape (D, N).
        strength: Strength of `vary`: 0 changes nothing, 1 keeps nothing. None: 0.5.
        from_s: Start of the span to inpaint, in seconds.
        to_s: End of the span to inpaint, in seconds.
        steps: Sampling steps.
        sampler: dpm-solver++, ddim or ddpm. None: dpm-solver++.
        window: Seconds sampled at a time. Longer clips are sampled in overlapping windows, in
            constant memory. None: 1024 latent frames, or 4 receptive fields if they are more.
        seed: Random seed of the first clip.
        device: auto, cpu, cuda, cuda:N or mps.
        backend: torch, openvino or auto.
        precision: float32 or bfloat16.
        force: Replace the generated latents of an earlier run.
        watch: Called after each sampling step with the number of steps done and of all steps. An
            exception that it raises stops the work.

    Returns:
        Figures with each file in `items`: its name, its level and its largest shift.

    Raises:
        ValueError: If a value is out of range, or an input does not fit the run.
        OSError: If a file cannot be read or written.
    """
    run, out = Path(run), Path(out)
    request = Request(
        count=count,
        seconds=seconds,
        vary=path_or_none(vary),
        inpaint=path_or_none(inpaint),
        continued=path_or_none(continued),
        strength=strength,
        from_s=from_s,
        to_s=to_s,
        sampler=sampler,
        window=window,
    )
    check_seed(seed)
    from diffwave.conditions.inputs import open_conditions, parse_guidance
    from diffwave.diagnosis.generated_latents import compare
    from diffwave.run import open_run
    from diffwave.sampling.generation import Sampling
    from diffwave.sampling.overlap import Windows
    from diffwave.sampling.samplers import DPM_SOLVER, build_sampler
    from rave.compute.device import choose_device
    from rave.jobs.journal import sole_writer
    from rave.latents.folder import read_latents
    from rave.latents.generated import check_output, clear, write_header

    torch_device = choose_device(device)
    trained = open_run(run)
    header, model = trained.header, trained.model
    sampler = sampler or DPM_SOLVER
    build_sampler(sampler, model.schedule, steps)  # for its checks
    check_output(out, force)
    with open_conditions(
        model,
        header,
        path_or_none(from_audio),
        path_or_none(spectrogram),
        {name: Path(path) for name, path in (controls or {}).items()},
        label,
        follow,
    ) as conditions:
        followed = conditions.names
        scales = parse_guidance(guidance, followed)
        task = request.task(trained, conditions.num_frames(model))
        model.to(torch_device)
        model.accelerate(backend, precision)
        frames = max(round(window * header.frame_rate_hz), 1) if window else None
        windows = Windows.of(model, frames)
        if task.kind in ("generate", "vary"):
            windows.check(sampler, task.num_frames)
        inputs_of = partial(conditions.window, model)
        sampling = Sampling(model, range(count), seed, sampler, steps, inputs_of, scales, windows)
        batch_size = BATCH_SIZE if task.num_frames <= windows.num_frames else 1
        with sole_writer(out):
            clear(out)
            num_frames = _write(out, task, sampling, batch_size, watch)
            write_header(out, num_frames, header, seed, task.gain_db)
    items = [
        {"file": name, **compare(read_latents(out / name, header.latent_size), header)}
        for name in num_frames
    ]
    for item in items:
        if item["warning"]:
            print(one_line(f"warning: {item['file']}: {item['warning']}"), file=sys.stderr)
    duration_s = task.num_frames / header.frame_rate_hz
    lines = [
        f"Generated {len(items)} clips of {duration_s:.2f} s in '{out}'.",
        *(
            f"  {one_line(item['file'])}: level {item['level']:.2f} of the training latents', "
            f"largest shift of a mean {item['largest_shift']:.2f} std"
            for item in items
        ),
    ]
    figures = {
        "folder": str(out),
        "kind": task.kind,
        "followed": followed,
        "guidance": scales,
        "num_frames": task.num_frames,
        "duration_s": duration_s,
        "train_steps": trained.num_steps,
        "items": items,
    }
    return Result("\n".join(lines), figures)


def _write(
    folder: Path, task: Task, sampling: Sampling, batch_size: int, watch: Watch | None
) -> dict[str, int]:
    """Sample and write each item, and return the number of frames by file name."""
    from tqdm import tqdm

    from rave.latents.folder import write_latents
    from rave.latents.generated import clip_name

    written: dict[str, int] = {}
    raw_size = sampling.model.standardizer.raw_size
    num_batches = -(-len(sampling.indices) // batch_size)
    total = task.num_calls(sampling) * num_batches
    with tqdm(desc=task.kind, total=total, unit="step", file=sys.stderr) as bar:

        def advance(*_: object) -> None:
            bar.update()
            if watch is not None:
                watch(bar.n, total)

        for start in range(0, len(sampling.indices), batch_size):
            indices = sampling.indices[start : start + batch_size]
            batch = replace(sampling, indices=indices, observe=advance)
            blocks = (block.cpu().numpy() for block in task.blocks(batch))
            # One clip is written while it is sampled, so that its length is not limited by memory.
            parts = blocks if len(indices) == 1 else list(blocks)
            for row, name in enumerate(map(clip_name, indices)):
                clip = (part[row] for part in parts)
                written[name] = write_latents(folder / name, clip, raw_size)
    return written
