"""Which codec has latents that can be modelled? Ways to train one, at equal CPU time.

python -m benchmarks.codec_trials prepared held-out trials --minutes 10

Each trial trains on one thread for the same CPU minutes, its schedule ending with them, and is then
measured on the first 40 s of each held-out recording. The number of steps follows from the time of
the first ones. A finished trial is not repeated, so an interrupted comparison can be continued, and
several processes can share it (`--only`). OUT/trials.json holds all figures, OUT/TRIAL is the run.

| figure | what it is |
|---|---|
| LSD dB, level dB | log-spectral distance of the decoded recording, and its level against it |
| note F1, frame F1 | notes heard in it, against those heard in the recording |
| 16 samples | explained variance of latents if the recording moves by 16 samples |
| half a hop | the same by half a hop, against the mean of the frames before and after |
| R² | share of held-out latents that a ridge regression explains from mel spectrograms |
| 95 % | principal dimensions that carry 95 % of the variance |
| steps, CPU | training steps made, and the CPU minutes that they took |

C channels, T samples.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from pytorch_lightning import Callback
from torch.utils.data import DataLoader

from benchmarks.codec_trials_systems import Consistent, Equivariant, WaveformFirst
from diffwave.conditions.spectrogram import LogMel
from diffwave.diagnosis.predictability import Pair, explained_share
from diffwave.standardizer import PrincipalDimensions, Standardizer
from rave.audio.io import list_audio_files, read_audio
from rave.audio.prepared import AudioStore
from rave.codec import Codec, load_codec
from rave.compute.arrays import Float32Array
from rave.compute.device import choose_precision
from rave.compute.memory import keep_freed_memory
from rave.dataset import PreparedAudioDataset, PreparedCropsDataset, split_audio
from rave.experiment import build, save_run
from rave.files.atomic import atomic_folder, read_json, write_json
from rave.held_out import Split, recording_keys, without_suffix
from rave.initial_weights import fit_linear_layers
from rave.latents.shifts import shift_consistency
from rave.levels import measure
from rave.losses import log_spectral_distance_db
from rave.noise import DecoderNoise
from rave.notes.scores import note_scores
from rave.notes.transcriber import SAMPLE_RATE_HZ, Transcriber
from rave.runs.recipes import read_recipe
from rave.trainer import Loaders, StepBatches, fit
from rave.training import RaveSystem, RaveTraining
from rave.upstream.lmdb import open_audio

HELD_OUT_FRACTION, SEED = 0.3, 0
MEASURED_S = 40  # of each recording
FIDELITY = 0.95
NUM_MELS, MELS_PER_FRAME = 128, 4
# Steps of each phase that are timed, after some in which memory is allocated.
TIMED_STEPS, SKIPPED_STEPS = 40, 4
NUM_CROPS = 2**31  # crop i depends on i only, so this many cost nothing
CPU = torch.device("cpu")
FIGURES = "figures.json"
MAGNITUDES = str(Path(__file__).with_suffix(".gin"))


@dataclass(frozen=True)
class Trial:
    """A way to train a codec.

    Attributes:
        recipe: Name of a recipe, or path of a .gin file.
        settings: Lines NAME=VALUE that change it.
        system: What trains it.
        num_phases: 2: PHASE_1_STEPS end after half of the time.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    system: type[RaveSystem] = RaveSystem
    num_phases: int = 1


TRIALS = {
    "small": Trial("small"),
    "small-64": Trial("small", ("LATENT_SIZE=64",)),
    "waveform": Trial("waveform"),
    "no-waveform": Trial("waveform", ("WAVEFORM_WEIGHT=0.0",)),
    "waveform-first": Trial("waveform", system=WaveformFirst, num_phases=2),
    "consistent": Trial("waveform", system=Consistent),
    "equivariant": Trial("waveform", system=Equivariant),
    "beta-100": Trial("waveform", ("BETA=2e-3",)),
    "latents-16": Trial("waveform", ("LATENT_SIZE=16",)),
    "magnitudes": Trial(MAGNITUDES, num_phases=2),
}


class Clock(Callback):
    """CPU seconds of this process, at the beginning and after each training step."""

    def __init__(self) -> None:
        self.seconds = [time.process_time()]

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time."""
        self.seconds.append(time.process_time())


def train(trial: Trial, store: AudioStore, run: Path, steps: Sequence[int]) -> Clock:
    """Train a new run; return when its steps ended.

    Args:
        trial: The way to train it.
        store: The audio.
        run: Folder of the run.
        steps: Steps of each phase.
    """
    clock = Clock()
    recipe = read_recipe("rave", trial.recipe, trial.settings).bind(
        {
            "SAMPLE_RATE_HZ": store.sample_rate_hz,
            "NUM_CHANNELS": store.num_channels,
            "SEED": SEED,
            "HELD_OUT_FRACTION": HELD_OUT_FRACTION,
            "MAX_STEPS": sum(steps),
            "PHASE_1_STEPS": steps[0],
            "VALIDATE_EVERY_STEPS": sum(steps),
        }
    )
    built = build(recipe, SEED)
    training: RaveTraining = built.training
    system = trial.system(built.model, training)
    split = Split.of(recording_keys(file.origin for file in store.files), HELD_OUT_FRACTION)
    save_run(run, "rave", built.model_config, built.config)
    split.write(run)

    def loaders(start_step: int) -> Loaders:
        trained_on, held_out = split_audio(store, split)
        length, most = training.crop_samples, training.max_held_out_crops
        crops = PreparedAudioDataset(
            store, length, NUM_CROPS, SEED, trained_on, training.augmentations
        )
        fit_linear_layers(system.model, crops, SEED)
        kept_back = PreparedCropsDataset(store, length, held_out, most)
        return Loaders(
            DataLoader(crops, batch_sampler=StepBatches(training.batch_size, start_step)),
            DataLoader(kept_back, batch_size=training.batch_size),
        )

    fit(
        system,
        loaders,
        run,
        training.max_steps,
        training.validate_every_steps,
        device="cpu",
        precision=choose_precision(training.precision, CPU),
        log_every_steps=training.log_every_steps,
        callbacks=[clock],
    )
    return clock


def steps_for(trial: Trial, store: AudioStore, minutes: float) -> list[int]:
    """Return the steps of each phase that take so many CPU minutes, halved between phases."""
    count = SKIPPED_STEPS + TIMED_STEPS
    with tempfile.TemporaryDirectory() as folder:
        clock = train(trial, store, Path(folder), [count] * trial.num_phases)
    begin, first, *_ = clock.seconds
    left = max(60.0 * minutes - (first - begin), 0.0) / trial.num_phases
    ends = [(phase + 1) * count for phase in range(trial.num_phases)]
    costs = [(clock.seconds[end] - clock.seconds[end - TIMED_STEPS]) / TIMED_STEPS for end in ends]
    return [max(round(left / cost), 1) for cost in costs]


def figures_of(
    codec: Codec, training: Sequence[Float32Array], held_out: Sequence[Float32Array]
) -> dict[str, float]:
    """Return the figures of a codec.

    Args:
        codec: The codec.
        training: Recordings (C, T) that it was trained on.
        held_out: Recordings that it was not.
    """
    form, transcriber = codec.format, Transcriber()
    noise, hop = DecoderNoise(form, 0), form.hop_samples
    rows = []
    for audio in held_out:
        decoded = codec.decode(codec.encode(audio)[0], noise)[:, : audio.shape[1]]
        both = audio, decoded
        distance = float(log_spectral_distance_db(*(torch.from_numpy(x)[None] for x in both)))
        powers = [float(np.square(x).mean()) + 1e-12 for x in both]
        notes = [
            transcriber.transcribe(
                [soxr.resample(x.mean(axis=0), form.sample_rate_hz, SAMPLE_RATE_HZ)[None]]
            )
            for x in both
        ]
        scores = note_scores(*notes)
        level = 10 * np.log10(powers[1] / powers[0])
        rows.append([distance, level, scores["note_f1"], scores["frame_f1"]])
    shifts = shift_consistency(lambda audio: codec.encode(audio)[0], held_out, hop)
    latents = [codec.encode(audio)[0] for audio in training]
    principal = PrincipalDimensions.of(latents)
    standardizer = Standardizer.of(principal, FIDELITY)
    log_mel = LogMel(form.sample_rate_hz, hop // MELS_PER_FRAME, NUM_MELS)

    def pair(audio: Float32Array) -> Pair:
        raw = torch.from_numpy(codec.encode(audio)[0])[None]
        blocks = log_mel.blocks([audio.mean(axis=0)], MELS_PER_FRAME * raw.shape[2])
        spectrogram = np.concatenate(list(blocks), axis=1).astype(np.float64)
        return spectrogram, standardizer.standardize(raw)[0].double().numpy()

    names = ("log_spectral_distance_db", "level_db", "note_f1", "frame_f1")
    return {
        **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)),
        "moved_16_samples": shifts.at(16),
        "moved_half_a_hop": shifts.between[shifts.shifts.index(hop // 2)],
        "explained_by_spectrogram": explained_share(map(pair, training), map(pair, held_out)),
        "dimensions_95": principal.count(FIDELITY),
    }


def run_trial(
    trial: Trial, store: AudioStore, held_out: Sequence[Float32Array], run: Path, minutes: float
) -> None:
    """Train and measure; write the run with its figures, whole or not at all."""
    steps = steps_for(trial, store, minutes)
    with atomic_folder(run) as folder:
        clock = train(trial, store, folder, steps)
        pieces = [
            replace(piece, stop=min(piece.stop, piece.start + MEASURED_S * store.sample_rate_hz))
            for piece in split_audio(store, HELD_OUT_FRACTION)[0]
            if not piece.file.origin.is_version
        ]
        codec = load_codec(folder, CPU)
        # Decoding needs to know which dimensions are noise.
        codec.format = replace(codec.format, training_audio=measure(codec, store, pieces))
        training = [store.read(each.file, each.start, each.num_samples) for each in pieces]
        figures = figures_of(codec, training, held_out)
        cpu_minutes = (clock.seconds[-1] - clock.seconds[0]) / 60
        figures |= {"steps": sum(steps), "phase_1_steps": steps[0], "cpu_minutes": cpu_minutes}
        write_json(folder / FIGURES, {"minutes": minutes, "figures": figures})


def recordings(folder: Path, store: AudioStore) -> list[Float32Array]:
    """Return the beginnings of the recordings of a folder, (C, T) each.

    Raises:
        ValueError: If one is trained on.
    """
    trained_on, held_out = split_audio(store, HELD_OUT_FRACTION)
    known = {without_suffix(piece.file.name) for piece in trained_on}
    found = list_audio_files(folder)
    if wrong := [name for name in found if without_suffix(name) in known]:
        names = ", ".join(piece.file.name for piece in held_out)
        raise ValueError(f"'{wrong[0]}' is trained on. Give a folder of what is held out: {names}.")
    count, rate_hz = MEASURED_S * store.sample_rate_hz, store.sample_rate_hz
    return [read_audio(path, rate_hz, store.num_channels)[:, :count] for path in found.values()]


def table(trials: dict[str, dict[str, float]]) -> str:
    """Return figures as a Markdown table."""
    heads = "LSD dB|level dB|note F1|frame F1|16 samples|half a hop|R²|95 %|steps|CPU min"
    lines = [f"| trial | {heads.replace('|', ' | ')} |", "|---" * 11 + "|"]
    for name, found in trials.items():
        cells = [
            f"{value:.2f}" if isinstance(value, float) else f"{value}" for value in found.values()
        ]
        del cells[9]  # steps of phase 1
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gather(out: Path) -> dict[str, Any]:
    """Return the figures of the trials that are finished, and write them to trials.json."""
    paths = {name: out / name / FIGURES for name in TRIALS}
    found = {n: read_json(path, "figures of a trial") for n, path in paths.items() if path.exists()}
    write_json(out / "trials.json", found)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Run the trials and print their figures; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prepared", type=Path, help="folder that `rave preprocess` wrote")
    parser.add_argument("held_out", type=Path, help="recordings of the held-out pieces")
    parser.add_argument("out", type=Path, help="folder of runs and figures")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes (default 10)")
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS), metavar="TRIAL")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    store = open_audio(options.prepared)
    held_out = recordings(options.held_out, store)
    failed = 0
    for name in options.only:
        run = options.out / name
        if (run / FIGURES).exists():
            continue
        print(f"Trial {name}", file=sys.stderr)
        try:
            run_trial(TRIALS[name], store, held_out, run, options.minutes)
        except ValueError as error:  # such as a loss that became infinite
            print(f"Trial {name} failed: {error}", file=sys.stderr)
            failed = 1
        gather(options.out)
    found = gather(options.out)
    for minutes in sorted({each["minutes"] for each in found.values()}):
        print(f"\n{minutes:g} CPU minutes each\n")
        print(
            table({n: each["figures"] for n, each in found.items() if each["minutes"] == minutes})
        )
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
