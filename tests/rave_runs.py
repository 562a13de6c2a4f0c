"""Prepared audio and runs of a few steps, for tests."""

from pathlib import Path

import numpy as np
import torch
from audio_files import sine, write

from rave.main_cli import main
from rave.model import RAVE
from rave.runs.checkpoint import last_checkpoint, read_checkpoint
from rave.training import RaveTraining

RATE_HZ = 22050
TINY = (
    "CAPACITY=2",
    "LATENT_SIZE=4",
    "RATIOS=[2, 2]",
    "DILATIONS=[[1], [1]]",
    "SCALES=[256, 128]",
    "CROP_SAMPLES=4096",
    "BATCH_SIZE=2",
    "MAX_STEPS=8",
    "PHASE_1_STEPS=4",
    "VALIDATE_EVERY_STEPS=4",
    "training.RaveTraining.warmup_steps=2",
    "training.RaveTraining.log_every_steps=1",
    "training.RaveTraining.max_held_out_crops=4",
)


def prepare(folder: Path, num_channels: int = 1) -> Path:
    """Write some tones, preprocess them, and return the prepared folder."""
    for index, frequency_hz in enumerate((220, 330, 495, 1000)):
        tone = sine(frequency_hz, RATE_HZ, 1.0) + sine(3.1 * frequency_hz, RATE_HZ, 1.0, 0.1)
        tone *= np.linspace(1, 0.1, tone.shape[1], dtype=np.float32)
        write(folder / "tones" / f"{index}.wav", np.tile(tone, (num_channels, 1)), RATE_HZ)
    options = ["--sample-rate", str(RATE_HZ), "--channels", str(num_channels)]
    assert main(["preprocess", str(folder / "tones"), str(folder / "prepared"), *options]) == 0
    return folder / "prepared"


def train_words(
    prepared: Path, out: Path, *settings: str, options: tuple[str, ...] = (), recipe: str = "v2"
) -> list[str]:
    """Return the arguments of a `rave train` with very small sizes."""
    sets = [part for setting in (*TINY, *settings) for part in ("--set", setting)]
    where = ["--data", str(prepared), "--out", str(out), "--device", "cpu"]
    return ["train", recipe, *where, *sets, *options]


def train(
    prepared: Path, out: Path, *settings: str, options: tuple[str, ...] = (), recipe: str = "v2"
) -> int:
    """Run `rave train` with very small sizes, and return its exit code."""
    return main(train_words(prepared, out, *settings, options=options, recipe=recipe))


def checkpoint(run: Path) -> dict:
    """Return what last.ckpt of a run holds."""
    return read_checkpoint(last_checkpoint(run))


def tiny_parts(*settings: str, seed: int = 0) -> tuple[RAVE, RaveTraining]:
    """Return the model and the training that `train` builds."""
    from rave import experiment

    torch.manual_seed(seed)
    experiment.parse_recipe("rave", "v2", [*TINY, f"SAMPLE_RATE_HZ={RATE_HZ}", *settings])
    return experiment.new_model(), experiment.build_training()


def make_informative(run: Path, gain: float = 1000.0) -> None:
    """Raise the last layers of a run, so that its latents and its audio are those of a long one."""
    state = checkpoint(run)
    weights = state["state_dict"]
    layers = [name for name in weights if name.startswith("model.encoder.net.")]
    last = max(int(name.split(".")[3]) for name in layers)
    half = len(weights["model.latent_mean"])
    weights[f"model.encoder.net.{last}.parametrizations.weight.original0"][:half] *= gain
    weights["model.decoder.wave.parametrizations.weight.original0"] *= gain / 300
    torch.save(state, last_checkpoint(run))
