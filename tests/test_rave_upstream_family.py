"""Other models of acids-rave open too, and equal it; golden/README.md."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional
from upstream_runs import (
    GOLDEN,
    assert_every_length_equals,
    assert_refused,
    checkpoint_of,
    golden_arrays,
    golden_weights,
    write_upstream_run,
)

from rave.codec import load_codec, load_run

CPU = torch.device("cpu")
KINDS = ("v1", "onnx+causal", "v2_small", "v3", "v2+noise+snake+causal")
ADAPTED = ("mean_x", "std_x", "mean_y", "std_y")


@cache
def family():
    with np.load(GOLDEN / "acids_rave_family.npz") as file:
        return {name: file[name] for name in file.files}


def weights_of(kind):
    """Return the weights of a model by acids-rave's names."""
    values, weights, start = torch.from_numpy(family()[f"{kind}/weights"]), {}, 0
    for name, shape, number in json.loads(str(family()[f"{kind}/layout"])):
        size = int(np.prod(shape))
        value = values[start : start + size].reshape(shape)
        weights[name] = value.long() if number == "int" else value.float()
        if name.endswith(ADAPTED):
            weights[name] = weights[name].repeat(64, 1, 1)
        start += size
    bank = {name: value for name, value in golden_weights().items() if name.startswith("pqmf.")}
    axes = {"latent_mean": torch.zeros(4), "latent_pca": torch.eye(4), "fidelity": torch.zeros(4)}
    return weights | bank | axes


def write_kind(folder, kind, **changed):
    config = str(family()[f"{kind}/config"])
    return write_upstream_run(folder, config, weights_of(kind) | changed)


def arrays_of(kind):
    """Return audio, posterior mean, std and bands."""
    audio = golden_arrays()["audio"][None, :, :6144]
    if kind == "v1":
        audio = torch.cat([audio, 0.5 * audio.flip(-1)], dim=1)
    mean, scale = torch.from_numpy(family()[f"{kind}/encoded"])[None].chunk(2, dim=1)
    bands = torch.from_numpy(family()[f"{kind}/bands"])[None]
    return audio, mean, functional.softplus(scale) + 1e-4, bands


def noise_of(model, bands):
    """Return the noise that acids-rave was given, which it lays out in blocks."""
    if model.decoder.noise is None:
        return None
    size = model.decoder.noise.block_steps
    shape = (1, bands.shape[2] // size, bands.shape[1], size)
    blocks = torch.from_numpy(np.random.default_rng(11).random(shape, dtype=np.float32))
    return (2 * blocks - 1).permute(0, 2, 1, 3).reshape(bands.shape)


def assert_equals(found, needed, relative=1e-5):
    assert found.shape == needed.shape
    assert (found - needed).abs().max() <= relative * needed.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_posterior_and_bands_equal_those_of_acids_rave(tmp_path, kind):
    model, _ = load_run(write_kind(tmp_path / "run", kind))
    audio, mean, std, bands = arrays_of(kind)
    posterior = model.encode(audio)
    assert_equals(posterior.mean, mean)
    assert_equals(posterior.std, std)
    noise = noise_of(model, bands)
    assert (noise is not None) == (kind not in ("onnx+causal", "v3"))
    assert_equals(model.decode_bands(mean, noise), bands)


@pytest.mark.parametrize("kind", KINDS)
def test_every_length_is_encoded_as_acids_rave_does(tmp_path, kind):
    assert_every_length_equals(load_run(write_kind(tmp_path / "run", kind))[0], f"runs/{kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_in_windows_equals_one_pass(tmp_path, kind):
    codec = load_codec(write_kind(tmp_path / "run", kind), CPU)
    hop, channels = codec.format.hop_samples, codec.format.num_channels
    audio = 0.1 * np.random.default_rng(0).standard_normal((channels, 40 * hop)).astype(np.float32)
    whole, _ = codec.encode(audio)
    pieces = [mean for mean, _ in codec.encode_blocks([audio], window_frames=7)]
    assert np.abs(np.concatenate(pieces, axis=1) - whole).max() <= 1e-5 * np.abs(whole).max()


def test_noise_of_v1_comes_with_its_second_phase(tmp_path):
    off = {"decoder.warmed_up": torch.tensor(0)}
    first, _ = load_run(write_kind(tmp_path / "first", "v1", **off))
    second, _ = load_run(write_kind(tmp_path / "second", "v1"))
    assert first.decoder.noise is None
    assert second.decoder.noise is not None


def test_an_adaptation_that_has_learnt_nothing_is_the_identity(tmp_path):
    """And one that has changes the latents."""
    counts = {n: torch.zeros(1) for n in weights_of("v3") if "num_update" in n}
    with torch.inference_mode():
        audio, mean, _, _ = arrays_of("v3")
        untouched, _ = load_run(write_kind(tmp_path / "run", "v3", **counts))
        before = untouched.encode(audio).mean
        untouched.encoder.train()
        assert torch.equal(untouched.encode(audio).mean, before)
    assert (before - mean).abs().max() > 0.1 * mean.abs().max()


def test_what_a_streaming_model_has_heard_is_no_weight(tmp_path):
    heard = {
        "encoder.encoder.net.0.cache.pad": torch.zeros(64, 16, 6),
        "encoder.encoder.net.2.aligned.paddings.1.pad": torch.zeros(64, 2, 0),
        "decoder.net.2.cache": torch.zeros(64, 16, 2),
    }
    run = write_kind(tmp_path / "run", "v3", **heard)
    assert load_run(run)[0].latent_size == 4


@pytest.mark.parametrize(
    ("kind", "old", "new", "what"),
    [
        ("v1", "loud_stride = 1", "loud_stride = 4", "Generator.loud_stride = 4"),
        ("v1", "kernel_sizes = [3]", "kernel_sizes = [3, 7]", "kernel_sizes = [3, 7]"),
        ("v1", "[[1, 1], [3, 1], [5, 1]]", "[[1, 1], [9, 1]]", "dilations_list ="),
        ("v1", "sample_norm = False", "sample_norm = True", "Encoder.sample_norm = True"),
        ("v1", "repeat_layers = 1", "repeat_layers = 2", "Encoder.repeat_layers = 2"),
        ("v3", "adain = @blocks.Adaptive", "adain = @blocks.Other", "blocks.OtherInstanceNorm"),
        ("v3", "ACTIVATION = @blocks.Snake", "ACTIVATION = @blocks.Elu", "blocks.Elu"),
        ("v2_small", "noise_module = @blocks.No", "noise_module = @blocks.O", "blocks.OiseGenerat"),
    ],
)
def test_what_our_layers_cannot_compute_is_refused_by_name(tmp_path, kind, old, new, what):
    config = str(family()[f"{kind}/config"])
    assert_refused(tmp_path / "run", config, weights_of(kind), old, new, what)


def test_averaged_weights_are_taken_where_they_are_asked_for(tmp_path):
    weights = weights_of("v1")
    run = write_upstream_run(tmp_path / "run", str(family()["v1/config"]), weights)
    path = next(run.rglob("*.ckpt"))
    with pytest.raises(ValueError, match=r"holds no averaged weights .* without --ema"):
        load_run(run, ema=True)
    averaged = {
        name: value + 0.125
        for name, value in weights.items()
        if value.is_floating_point() and not name.startswith("latent_") and "running" not in name
    }
    torch.save(checkpoint_of(weights) | {"callbacks": {"EMA": averaged}}, path)
    model, format = load_run(run, ema=True)
    needed = {n: averaged.get(n, value) for n, value in weights.items()}
    other = write_upstream_run(tmp_path / "other", str(family()["v1/config"]), needed)
    expected, expected_format = load_run(other)
    assert format == expected_format
    assert format.fingerprint != load_run(run)[1].fingerprint
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(
        model.encoder.net[1].running_mean, weights["encoder.encoder.net.1.running_mean"]
    )
