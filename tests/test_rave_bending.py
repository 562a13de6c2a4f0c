"""Laws of bending: along the axes that are named, and along no other."""

import numpy as np
import pytest
import torch
from rave_models import codec_of, small_model

from rave.latents.bending import Bend, parse_bend


@pytest.fixture(scope="module")
def codec():
    model = small_model()
    generator = torch.Generator().manual_seed(0)
    axes, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
    model.latent_pca.copy_(axes)
    model.latent_mean.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
    return codec_of(model)


LATENTS = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)


def along(latents, codec):
    mean, axes = codec.principal_axes()
    return axes @ (latents - mean[:, None])


def test_a_bend_moves_the_named_axes_and_leaves_the_others(codec):
    bent = along(Bend({0: 1.5}, {2: 0.5})(LATENTS, codec.principal_axes), codec)
    straight = along(LATENTS, codec)
    np.testing.assert_allclose(bent[0], straight[0] + 1.5, atol=1e-5)
    np.testing.assert_allclose(bent[2], 0.5 * straight[2], atol=1e-5)
    np.testing.assert_allclose(bent[[1, 3]], straight[[1, 3]], atol=1e-5)


def test_no_bend_changes_nothing(codec):
    assert Bend()(LATENTS, codec.principal_axes) is LATENTS
    assert parse_bend([], []).settings == {}


def test_a_bend_is_undone_by_its_inverse(codec):
    there = Bend({1: 2.0}, {1: 4.0})(LATENTS, codec.principal_axes)
    back = Bend({1: -0.5}, {1: 0.25})(there, codec.principal_axes)
    np.testing.assert_allclose(back, LATENTS, atol=1e-5)


def test_an_axis_that_is_none_is_refused(codec):
    with pytest.raises(ValueError, match="Cannot bend axis 4; the latents have the axes 0 to 3"):
        Bend({4: 1.0})(LATENTS, codec.principal_axes)


@pytest.mark.parametrize("text", ["1", "a=1", "0=", "0=nan", "-1=2", "0=1=2"])
def test_what_is_no_axis_and_value_is_refused(text):
    with pytest.raises(ValueError, match="is not AXIS=VALUE"):
        parse_bend([], [text])


def test_decode_bends_and_tells_bends_apart(run, tmp_path, rave):
    tones, latents, out = run.parent / "tones", tmp_path / "latents", tmp_path / "out"
    assert rave("encode", run, tones, latents)[0] == 0
    assert rave("decode", run, latents, out)[0] == 0
    straight = (out / "1.wav").read_bytes()
    code, _, error = rave("decode", run, latents, out, "--shift", "0=2")
    assert code == 2
    assert "shift None, now {'0': 2.0}" in error
    assert rave("decode", run, latents, out, "--shift", "0=2", "--force")[0] == 0
    bent = (out / "1.wav").read_bytes()
    assert bent != straight
    other = tmp_path / "other"
    assert rave("generate", run, tones, other, "--shift", "0=2")[0] == 0
    assert (other / "1.wav").read_bytes() == bent
