"""Each setting of a recipe reaches what is built or how it is trained."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from audio_files import noise
from diffwave_data import settings
from option_places import DIFFUSION_SIZES, PRIOR_SIZES, Places, set_words
from rave_models import SHORT, SMALL
from rave_runs import train as train_codec

import rave
from diffwave import train
from diffwave.settings import TrainingSettings
from rave import experiment
from rave.codec_format import CodecFormat
from rave.main_cli import main
from rave.prior_training import PriorTraining
from rave.training import RaveTraining

PRODUCT = {str(Path(rave.__file__).parent), str(Path(train.__file__).parent)}


@pytest.fixture(scope="module")
def places(run, tmp_path_factory):
    return Places(tmp_path_factory.mktemp("places"), run)


def train_rave(places, out):
    two_phases = ("MAX_STEPS=2", "PHASE_1_STEPS=1", "VALIDATE_EVERY_STEPS=1")
    assert train_codec(places["prepared"], out, *two_phases) == 0


def train_prior(places, out):
    words = [str(places["latents"]), "--out", str(out), "--config", "prior/tiny"]
    assert main(["train_prior", *words, *set_words(PRIOR_SIZES).split()]) == 0


def train_diffusion(places, out):
    words = [str(places["latents"]), "--out", str(out), "--config", "tiny", "--labels"]
    assert train.main([*words, *settings(*DIFFUSION_SIZES)]) == 0


@pytest.mark.parametrize(
    ("kind", "training"),
    [
        (RaveTraining, train_rave),
        (PriorTraining, train_prior),
        (TrainingSettings, train_diffusion),
    ],
)
def test_a_training_reads_each_of_its_settings(kind, training, places, tmp_path, monkeypatch):
    read, get = set(), kind.__getattribute__

    def noted(self, name):
        code = sys._getframe(1).f_code
        is_ours = any(code.co_filename.startswith(folder) for folder in PRODUCT)
        if is_ours and code.co_name not in ("__post_init__", "__init__"):
            read.add(name)
        return get(self, name)

    monkeypatch.setattr(kind, "__getattribute__", noted)
    training(places, tmp_path / "run")
    assert {field.name for field in fields(kind)} - read == set()


# Between them they use every part that a codec is built of.
RECIPES = ("v2+noise+snake+adain", "v1", "discrete", "wasserstein", "spherical", "hybrid")
SIZES = (*SMALL, *SHORT, "SAMPLE_RATE_HZ=22050")


def built(recipe: str, *changes: str) -> Any:
    """Return all that tells one codec from another; or why it cannot be."""
    torch.manual_seed(0)
    sizes = [each for each in SIZES if recipe != "v1" or each not in SHORT]
    audio = torch.from_numpy(noise(4096))[None]
    try:
        experiment.parse_recipe("rave", recipe, [*sizes, *changes])
        model = experiment.new_model().eval().requires_grad_(False)
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        posterior = model.encode(audio)
        decoded = model.decode(posterior.mean)
        return repr(CodecFormat.of(model)), weights, posterior.mean, posterior.std, decoded
    except (ValueError, RuntimeError, TypeError, IndexError, AssertionError) as error:
        return str(error)
