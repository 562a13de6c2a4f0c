"""The discriminators' features are those of acids-rave (golden/README.md), and they train."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from rave_runs import checkpoint, prepare, train

from rave import experiment
from rave.spectral_discriminators import DescriptDiscriminator

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "acids_rave_discriminators.json").read_text()
)
INCLUDES = (
    "from __gin__ import dynamic_registration\n"
    "include 'model/v2.gin'\n"
    "include 'training/two_phases.gin'\n"
)


def with_discriminator(folder, kind):
    """Write a recipe of v2 with another discriminator and return its path."""
    path = folder / f"{kind}.gin"
    path.write_text(f"{INCLUDES}include 'options/{kind}.gin'\n")
    return path


def weights_by_name(module):
    """Return weights drawn from each one's name in acids-rave."""
    weights = {}
    for name, value in module.state_dict().items():
        name = name.replace(".parametrizations.weight.original0", ".weight_g")
        name = name.replace(".parametrizations.weight.original1", ".weight_v")
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("weight_g"):
            drawn = rng.uniform(1, 2, value.shape)
        elif name.endswith("bias"):
            drawn = rng.uniform(-0.1, 0.1, value.shape)
        else:
            drawn = rng.standard_normal(value.shape)
        weights[name] = torch.from_numpy(drawn.astype(np.float32))
    return weights


@pytest.mark.parametrize("case", GOLDEN)
def test_features_equal_those_of_acids_rave(case, tmp_path):
    kind, num_channels = case.rsplit("_", 1)
    settings = ["CAPACITY=4", "LATENT_SIZE=8", f"NUM_CHANNELS={num_channels}"]
    experiment.parse_recipe("rave", str(with_discriminator(tmp_path, kind)), settings)
    discriminator = experiment.build_training().discriminator
    discriminator.load_state_dict(weights_by_name(discriminator))
    parameters = sum(p.numel() for p in discriminator.parameters())
    assert parameters == GOLDEN[case]["num_parameters"]
    audio = np.random.default_rng(int(num_channels)).uniform(
        -0.5, 0.5, (2, int(num_channels), 8190)
    )
    with torch.no_grad():
        real, fake = map(discriminator, torch.from_numpy(audio.astype(np.float32)).split(1))
    for r, f, needed in zip(real, fake, GOLDEN[case]["features"], strict=True):
        for a, b, (shape, mean, std) in zip(r, f, needed, strict=True):
            both = torch.cat([a, b]).double()
            assert list(both.shape) == shape
            assert float(both.mean()) == pytest.approx(mean, rel=1e-4, abs=1e-4 * std)
            assert float(both.std()) == pytest.approx(std, rel=1e-4)
    for r, needed in zip(real, GOLDEN[case]["logits"], strict=True):
        assert r[-1].flatten()[:4].tolist() == pytest.approx(needed, rel=1e-3, abs=1e-3)


def test_descript_judges_no_level_and_no_offset():
    torch.manual_seed(0)
    discriminator = DescriptDiscriminator(1, [2], [512])
    audio = torch.randn(1, 1, 2048)
    with torch.no_grad():
        quiet, loud = discriminator(0.01 * audio + 0.5), discriminator(3 * audio)
    for q, f in zip(quiet, loud, strict=True):
        assert (q[-1] - f[-1]).abs().max() < 1e-3 * f[-1].abs().max()


def test_silence_gives_finite_features_and_gradients():
    discriminator = DescriptDiscriminator(1, [2], [512])
    silence = torch.zeros(1, 1, 2048, requires_grad=True)
    features = discriminator(silence)
    torch.stack([f[-1].sum() for f in features]).sum().backward()
    assert torch.isfinite(silence.grad).all()


SMALLER = {
    "descript_discriminator": [
        "spectral_discriminators.DescriptDiscriminator.periods=[]",
        "spectral_discriminators.DescriptDiscriminator.sizes=[512]",
    ],
    "spectral_discriminator": ["spectral_discriminators.SpectralDiscriminator.sizes=[512, 256]"],
}


@pytest.mark.parametrize("kind", SMALLER)
def test_both_phases_train_with_it(kind, tmp_path):
    recipe = str(with_discriminator(tmp_path, kind))
    settings = ["MAX_STEPS=3", "PHASE_1_STEPS=1", "VALIDATE_EVERY_STEPS=3", *SMALLER[kind]]
    every = "training.RaveTraining.discriminator_every_steps=2"
    assert train(prepare(tmp_path), tmp_path / "run", *settings, every, recipe=recipe) == 0
    saved = checkpoint(tmp_path / "run")
    assert saved["global_step"] == 3
    # Of phase 2 the second step trains the discriminator, the first a decoder whose encoder stays.
    for state, num_steps in zip(saved["optimizer_states"], ({1, 2}, {1}), strict=True):
        assert {int(adam["step"]) for adam in state["state"].values()} == num_steps
        for adam in state["state"].values():
            assert torch.isfinite(adam["exp_avg"]).all()
            assert adam["exp_avg"].any() or adam["exp_avg"].numel() == 1  # of one logit
    assert all(torch.isfinite(weight).all() for weight in saved["state_dict"].values())
