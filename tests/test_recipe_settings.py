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
from rave_models import SMALL
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
    two_phases += ("training.RaveTraining.warmup_steps=0",)
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
        if is_ours and code.co_name != "__post_init__":
            read.add(name)
        return get(self, name)

    monkeypatch.setattr(kind, "__getattribute__", noted)
    training(places, tmp_path / "run")
    assert {field.name for field in fields(kind)} - read == set()


# Between them they use every part that a codec and its training are built of.
RECIPES = (
    *("v2+noise+snake+adain", "v1", "discrete", "wasserstein"),
    *("v2+spectral_discriminator", "v2+descript_discriminator"),
)
SHORT = ("RATIOS=[4,2]", "DILATIONS=[[1],[1]]")
SIZES = (*SMALL, *SHORT, "SAMPLE_RATE_HZ=22050", "CROP_SAMPLES=4096", "SCALES=[256,128]")
# These are of the loop, which the law above looks at.
OF_THE_LOOP = ("training", "experiment", "augmentation")


def parsed(recipe: str, *changes: str) -> None:
    sizes = [each for each in SIZES if recipe != "v1" or each not in SHORT]
    experiment.parse_recipe("rave", recipe, [*sizes, *changes])


def built(recipe: str, *changes: str) -> Any:
    """Return all that tells one codec and its losses from another; or why it cannot be."""
    torch.manual_seed(0)
    audio = torch.from_numpy(noise(4096))[None]
    generator = torch.Generator().manual_seed(0)
    try:
        parsed(recipe, *changes)
        model = experiment.new_model().eval().requires_grad_(False)
        training = experiment.build_training()
        distances = training.audio_distance, training.band_distance
        posterior = model.encode(audio)
        decoded = model.decode(posterior.mean, model.band_noise(posterior.mean, generator))
        return [
            repr(CodecFormat.of(model)),
            *flat([posterior.mean, posterior.std, decoded]),
            *flat([*model.state_dict().values(), *training.discriminator.state_dict().values()]),
            *flat(training.discriminator(audio)),
            *flat([each(audio, audio / 2) for each in distances if each is not None]),
        ]
    except (ValueError, RuntimeError, TypeError, IndexError, AssertionError) as error:
        return str(error)


def flat(values: Any) -> list[Any]:
    """Return the bytes of all tensors of nested lists."""
    if isinstance(values, torch.Tensor):
        return [(tuple(values.shape), values.detach().numpy().tobytes())]
    return [each for part in values for each in flat(part)]


def bindings(recipe: str) -> dict[str, Any]:
    """Return the literal values of a recipe, by the parameter that takes them."""
    assert not isinstance(built(recipe), str), built(recipe)
    text = experiment.resolved_config().replace("\\\n", " ")
    found = dict(re.findall(r"^(\S+) = (.*)$", text, re.MULTILINE))
    values = {}
    for name, value in found.items():
        value = found.get(value.removeprefix("%"), value)
        if "." in name and "@" not in value and name.split(".")[0] not in OF_THE_LOOP:
            values[name] = ast.literal_eval(value.strip())
    return values


def changed(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value or 1
    return 1.5 * value + 0.1 if isinstance(value, float) else [changed(each) for each in value]


def test_each_setting_of_a_codec_changes_it_or_is_refused():
    without_effect, known = [], set()
    for recipe in RECIPES:
        values, before = bindings(recipe), built(recipe)
        for name, value in values.items():
            if name in known or value is None or isinstance(value, str):
                continue
            known.add(name)
            if built(recipe, f"{name} = {changed(value)!r}") == before:
                without_effect.append((recipe, name, value))
    assert len(known) > 50
    assert without_effect == []
