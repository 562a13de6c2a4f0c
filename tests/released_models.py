"""A released model of a few training steps: codec and diffusion model that follows loudness."""

from __future__ import annotations

from pathlib import Path

import release_model
from diffwave_data import settings

from diffwave import preprocess, train
from rave.main_cli import main


def train_diffusion(run: Path, folder: Path) -> Path:
    """Return a diffusion run on the latents of a codec run's recordings, beside these latents."""
    tones, latents, controls = run.parent / "tones", folder / "latents", folder / "controls"
    assert main(["encode", str(run), str(tones), str(latents)]) == 0
    follow = ["--controls", "loudness"]
    assert preprocess.main([str(latents), str(tones), str(controls), *follow]) == 0
    options = ["--out", str(folder / "diffusion"), "--config", "tiny", "--set", "FIDELITY=1.0"]
    options += ["--controls", str(controls), "loudness", *settings()]
    assert train.main([str(latents), *options]) == 0
    return folder / "diffusion"


def release(run: Path, diffusion: Path, model: Path) -> Path:
    """Return the model made of both runs."""
    runs = ["--codec", str(run), "--diffusion", str(diffusion)]
    assert release_model.main([str(model), *runs]) == 0
    return model
