"""Measure how far generated music is from the recordings that a run was trained on."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffwave.conditioner import LABEL
from diffwave.conditions.inputs import Guidance, guidance_texts, parse_guidance
from diffwave.diagnosis.run_data import open_data
from diffwave.diagnosis.samples import PHRASE_FRAMES
from diffwave.evaluation.figures import FORMAT, VERSION, measure_ladder
from diffwave.evaluation.ladder import Ladder, recording_path, without_versions
from diffwave.evaluation.latents import latents_in_words, measure_latents
from diffwave.evaluation.picture import draw
from diffwave.run import TrainingData, open_run, training_settings
from diffwave.sampling.samplers import DPM_SOLVER, build_sampler
from rave.api.result import Result
from rave.codec import load_codec
from rave.compute.device import choose_device
from rave.evaluation.folders import SHORTEST_S, Listener
from rave.files.atomic import check_output_folder, write_json
from rave.parsing import check_seed, path_or_none

RECORD, PICTURE, OUT = "evaluation.json", "ladder.png", "evaluation"


def evaluate_run(
    run: str | Path,
    latents_dir: str | Path,
    audio_dir: str | Path,
    *,
    codec: str | Path,
    count: int = 10,
    seconds: float = 24.0,
    seeds: int = 3,
    patches: int | None = None,
    steps: int = 50,
    guidance: Guidance = (),
    spectrograms: str | Path | None = None,
    controls: str | Path | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Result:
    """Compare generated music with recordings and with noise; write figures and a picture.

    The rungs of this ladder, all of the same length: held-out recordings, the codec's
    reconstructions of them, generated music, Gaussian latents, noise. Also measured: the spread
    over seeds, diversity, and whether training music is copied.

    Args:
        run: Run folder of diffwave.train.
        latents_dir: Latents that the run was trained on.
        audio_dir: Recordings that these latents were encoded from.
        codec: Run folder of `rave train`, or a .ts file (it runs code: open only files you trust).
        count: Clips per rung.
        seconds: Length of a clip in seconds.
        seeds: Number of sets of generated clips; their spread is reported.
        patches: Number of 3 s patches per distance; only figures computed with the same number are
            comparable. None: all patches of a rung.
        steps: Sampling steps.
        guidance: Guidance scale of all conditions, or of each by name.
        spectrograms: Spectrograms that the run was trained on, if they have moved.
        controls: Controls that the run was trained on, if they have moved.
        out: Folder for evaluation.json and ladder.png. None: RUN/evaluation.
        seed: Random seed.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        Figures: the content of evaluation.json.

    Raises:
        ValueError: If a value is not possible, or an input cannot be used or does not fit.
        OSError: If a file cannot be read or written.
    """
    run, latents, audio, codec_path = Path(run), Path(latents_dir), Path(audio_dir), Path(codec)
    _check(count, seconds, seeds)
    check_seed(seed)
    folder = run / OUT if out is None else Path(out)
    check_output_folder(folder, latents, audio)
    torch_device = choose_device(device)
    trained = open_run(run)
    model = trained.model.to(torch_device)
    build_sampler(DPM_SOLVER, model.schedule, steps)  # its checks only
    followed = [name for name in model.conditioners if name != LABEL]
    folders = TrainingData(latents, path_or_none(spectrograms), path_or_none(controls))
    known = open_data(trained, training_settings(run), folders, PHRASE_FRAMES)
    scales = parse_guidance(guidance, followed)
    data = replace(known, num_frames=round(seconds * trained.header.frame_rate_hz))
    segments = data.segments(data.held_out, count)
    if not len(segments):
        longest_s = max(c.num_frames for c in data.held_out) / trained.header.frame_rate_hz
        raise ValueError(
            f"--seconds is {seconds:g}, but the longest held-out recording lasts {longest_s:.1f} "
            "s. Give fewer seconds, or hold out more."
        )
    for clip in [*data.training, *data.held_out]:
        recording_path(audio, clip)
    opened = load_codec(codec_path, torch_device)
    opened.check_latents(trained.header, latents)
    latents_record = measure_latents(model, known, audio, opened)
    num_rungs = 6 + seeds + bool(model.conditioners)
    total = len(without_versions(data.training)) + num_rungs * len(segments)
    with tqdm(desc="Measuring", total=total, unit="clip", file=sys.stderr) as bar:
        ladder = Ladder(
            trained,
            data,
            audio,
            opened,
            Listener(),
            len(segments),
            seed,
            steps,
            scales,
            lambda: bar.update() and None,
        )
        found = measure_ladder(ladder, seeds, patches)
    options = {
        "codec": codec_path,
        "count": count,
        "seconds": seconds,
        "seeds": seeds,
        "patches": patches,
        "steps": steps,
        "guidance": guidance_texts(guidance),
        "spectrograms": spectrograms,
        "controls": controls,
        "seed": seed,
    }
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "run": str(run),
        "codec": str(codec_path),
        "seed": seed,
        "command": _command(run, latents, audio, options),
        "train_steps": trained.num_steps,
        "held_out": sorted({clip.file.path for clip in data.held_out}),
        "clips": len(segments),
        "seconds": data.num_frames / trained.header.frame_rate_hz,
        **found.record(),
        "latents": latents_record,
    }
    write_json(folder / RECORD, record)
    draw(record, folder / PICTURE)
    lines = [found.words(), latents_in_words(latents_record)]
    lines.append(f"Figures: '{folder / RECORD}'. Picture: '{folder / PICTURE}'.")
    if len(segments) < count:
        lines.insert(0, f"The held-out music has room for only {len(segments)} clips per rung.")
    return Result("\n".join(lines), record)


def _command(run: Path, latents: Path, audio: Path, options: Mapping[str, Any]) -> str:
    """Return the command line that repeats the measurement."""
    parameters = inspect.signature(evaluate_run).parameters
    parts = [str(run), str(latents), str(audio)]
    for name, value in options.items():
        if value != parameters[name].default:
            values = value if isinstance(value, list) else [value]
            parts += [part for each in values for part in (f"--{name}", str(each))]
    return f"python -m diffwave.evaluate {shlex.join(parts)}"


def _check(count: int, seconds: float, seeds: int) -> None:
    if not SHORTEST_S + 0.1 <= seconds <= 600:
        raise ValueError(f"--seconds is {seconds:g}; it must be from 3.1 to 600.")
    if count < 2:
        raise ValueError(f"--count is {count}; at least 2 are needed.")
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; at least 1 is needed.")
