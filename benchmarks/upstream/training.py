"""Data and runs that acids-rave's own commands make, trained on here, and back.

audio ─its preprocess─▶ LMDB ─its train─▶ run ─our train─▶ run ─our export─▶ run ─its train─▶ run
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.upstream.environment import FAMILY, rave_here, rave_there, run_there
from benchmarks.upstream.stages import compare, largest
from rave.audio.io import write_audio
from rave.export.acids_rave import CHECKPOINT
from rave.upstream.run import find_checkpoint

SAMPLE_RATE_HZ, DURATION_S, NUM_FILES = 44100, 10, 3
CROP_SAMPLES, STEPS_THERE, STEPS_HERE, STEPS_MORE = 32768, 4, 2, 2
PHASE_1_STEPS = 2  # there, so that both phases have steps
DATASETS = {
    "plain": ("--channels", "1"),
    "stereo": ("--channels", "2"),
    "lazy": ("--channels", "1", "--lazy"),
}
SIZES = ("CAPACITY=4", "LATENT_SIZE=8")
# Sees so little that something is left of a crop whose edges acids-rave does not look at.
SHORT = ("RATIOS=[4, 2, 2, 2]", "DILATIONS=[[1], [1], [1], [1]]")


@dataclass(frozen=True)
class Trained:
    """A run that acids-rave trains.

    Attributes:
        config: Of its family.
        dataset: Of `DATASETS`.
        sizes: NAME=VALUE, the same there and here.
        flags: More of its command's.
    """

    config: str
    dataset: str
    sizes: Sequence[str]
    flags: Sequence[str] = ()

    @property
    def recipe(self) -> str:
        """Return our recipe."""
        return self.config + ("+derivative" if "--derivative" in self.flags else "")

    @property
    def num_channels(self) -> int:
        """Return the channels of the audio."""
        return int(DATASETS[self.dataset][1])


TRAINED = {
    "trained-ema": Trained("v2", "plain", (*SIZES, *SHORT), ("--ema", "0.5")),
    "trained-derivative": Trained("v2", "lazy", (*SIZES, *SHORT), ("--derivative",)),
    "trained-stereo": Trained("v2", "stereo", (*SIZES, *SHORT)),
    "trained-v1": Trained("v1", "plain", SIZES),
}


def make_datasets(python: Path, folder: Path) -> dict[str, Path]:
    """Return the databases that acids-rave's `rave preprocess` makes of some synthesized audio.

    Raises:
        ValueError: If there is no FFmpeg, which it reads audio with, or it fails.
    """
    missing = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    if missing:
        raise ValueError(
            f"acids-rave reads audio with {missing[0]}, which is not installed. Install FFmpeg."
        )
    audio = folder / "audio"
    time = np.arange(DURATION_S * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    for index in range(NUM_FILES):
        noise = 0.05 * np.random.default_rng(index).standard_normal((2, len(time)))
        pitches = (30 + 20 * index, 40 + 20 * index)
        sweeps = [np.sin(2 * np.pi * (110 + pitch * time) * time) for pitch in pitches]
        block = (0.3 * np.stack(sweeps) + noise).astype(np.float32)
        path = audio / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, [block], SAMPLE_RATE_HZ, 2, len(time))
    made = {name: folder / name for name in DATASETS}
    for name, flags in DATASETS.items():
        if not (made[name] / "metadata.yaml").exists():
            shutil.rmtree(made[name], ignore_errors=True)
            sizes = ("--num_signal", str(CROP_SAMPLES), "--output_path", str(made[name]))
            arguments = ("preprocess", "--input_path", str(audio), *sizes, *flags)
            rave_there(python, *arguments, answer="y\n")  # lazy asks
    return made


def train_there(python: Path, folder: Path, run: Trained, data: Path, start: Path | None) -> Path:
    """Return the folder of a run of acids-rave's `rave train`.

    Args:
        python: Of its environment.
        folder: Of runs; it is made anew.
        run: What to train.
        data: Its database.
        start: A checkpoint to continue, or None.
    """
    shutil.rmtree(folder, ignore_errors=True)
    steps = STEPS_THERE if start is None else STEPS_HERE + STEPS_MORE
    flags = ["--name", "run", "--db_path", str(data), "--out_path", str(folder), "--gpu", "-1"]
    flags += ["--channels", str(run.num_channels), "--n_signal", str(CROP_SAMPLES)]
    flags += ["--batch", "4", "--workers", "0", "--noprogress", "--max_steps", str(steps)]
    flags += ["--val_every", "2", "--save_every", "2", *run.flags]
    if start is None:
        flags += ["--config", run.config]
        for size in (*run.sizes, f"PHASE_1_DURATION={PHASE_1_STEPS}"):
            flags += ["--override", size]
    else:
        flags += ["--ckpt", str(start)]
    rave_there(python, "train", *flags)
    return next(folder.iterdir())


def train_here(run: Path, recipe: str, settings: Sequence[str], data: Path, out: Path) -> None:
    """Train two steps from the weights of a run, the second of them adversarial."""
    shutil.rmtree(out, ignore_errors=True)
    given = (
        *(*settings, f"MAX_STEPS={STEPS_HERE}", "PHASE_1_STEPS=1", "BATCH_SIZE=2"),
        *(f"CROP_SAMPLES={CROP_SAMPLES}", "training.RaveTraining.warmup_steps=1"),
    )
    sets = [part for setting in given for part in ("--set", setting)]
    start = ("--initialise-from", str(run), "--device", "cpu")
    rave_here("train", recipe, "--data", str(data), "--out", str(out), *start, *sets)


def written_back(python: Path, run: Path, out: Path, num_channels: int) -> dict[str, float]:
    """Export a run of ours for acids-rave, and return how its stages there differ from ours."""
    shutil.rmtree(out, ignore_errors=True)
    rave_here("export", str(run), str(out), "--format", "acids-rave")
    stages = out / "stages.npz"
    open_there(python, out / CHECKPOINT, num_channels, stages)
    return compare(run, stages)


def open_there(python: Path, checkpoint: Path, num_channels: int, out: Path, how: str = "") -> None:
    """Write the stages of a run as acids-rave computes them; see family.py."""
    given = (str(checkpoint), str(num_channels), str(out), *([how] if how else []))
    run_there(python, str(FAMILY), "open", *given)


def around(python: Path, folder: Path, run: Trained, data: Path) -> list[float]:
    """Train there, here, and there again; return the largest differences of the three runs."""
    theirs = train_there(python, folder / "theirs", run, data, None)
    found = [_opened(python, theirs, run)]
    train_here(theirs, run.recipe, run.sizes, data, folder / "ours")
    back = folder / "back"
    found.append(largest(written_back(python, folder / "ours", back, run.num_channels)))
    again = train_there(python, folder / "again", run, data, back / CHECKPOINT)
    found.append(_opened(python, again, run))
    return found


def _opened(python: Path, folder: Path, run: Trained) -> float:
    """Return how stages of a trained run differ; of its averaged weights too, if it has them."""
    is_derivative = "--derivative" in run.flags
    ways = ["derivative" if is_derivative else ""] + ["averages"] * ("--ema" in run.flags)
    checkpoint, stages = find_checkpoint(folder), folder / "stages.npz"
    found = []
    for how in ways:
        open_there(python, checkpoint, run.num_channels, stages, how)
        found.append(largest(compare(folder, stages, how)))
    return max(found)
