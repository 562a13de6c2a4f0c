import numpy as np
import pytest
import torch
from rave_models import SHORT, codec_of, small_model
from torch import nn
from upstream_scripts import DiscreteScriptedRAVE, GeneratorV2, Node, write_export

from rave.codec import DecoderNoise, load_codec
from rave.latents import LatentStatistics

CPU = torch.device("cpu")
STEREO = ("v2", *SHORT, "NUM_CHANNELS=2")


def model_of(*recipe):
    model = small_model(*recipe)
    model.latent_pca.copy_(torch.linalg.qr(torch.arange(16.0).reshape(4, 4).cos())[0])
    model.latent_mean.copy_(torch.tensor([0.005, -0.005, 0.01, 0.0]))
    return model


def audio_of(codec, num_samples=3000):
    shape = codec.format.num_channels, num_samples
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def noise_of(codec, seed=0):
    size = codec.format.latent_size
    statistics = LatentStatistics([0.0] * size, [1.0] * size, [1.0] * size, [1.0] * size, 100)
    return DecoderNoise(codec.format, statistics, seed, "a")


@pytest.mark.parametrize("recipe", [("v2",), ("v2", *SHORT), STEREO], ids=["v2", "mono", "stereo"])
@pytest.mark.parametrize("is_streaming", [False, True])
def test_an_export_of_acids_rave_is_its_model_seen_along_its_principal_axes(
    tmp_path, recipe, is_streaming
):
    model = model_of(*recipe)
    export = load_codec(write_export(tmp_path / "a.ts", model, 3, is_streaming), CPU)
    codec = codec_of(model)
    audio = audio_of(codec)
    mean, std = codec.encode(audio)
    axes = model.latent_pca.numpy()
    found_mean, found_std = export.encode(audio)
    wanted = (axes @ (mean - model.latent_mean.numpy()[:, None]))[:3]
    assert np.allclose(found_mean, wanted, atol=1e-6)
    assert np.allclose(found_std**2, (axes**2 @ std**2)[:3], atol=1e-5)
    assert export.format.latent_size == 3
    assert export.format.hop_samples == codec.format.hop_samples
    drawn = noise_of(export).bands(0, mean.shape[1])[0].numpy()
    normal = np.sqrt(2) * torch.erfinv(torch.from_numpy(drawn)).numpy()
    raw = axes.T @ np.concatenate([found_mean, normal]) + model.latent_mean.numpy()[:, None]
    wanted = codec.decode(raw.astype(np.float32), noise_of(codec))
    found = export.decode(found_mean, noise_of(export))
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_the_streaming_export_and_the_other_are_one_codec(tmp_path):
    prints = []
    for name, count, is_streaming in (("a", 3, False), ("b", 3, True), ("c", 2, False)):
        path = write_export(tmp_path / f"{name}.ts", model_of("v2", *SHORT), count, is_streaming)
        prints.append(load_codec(path, CPU).format.fingerprint)
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]


def test_noise_in_place_of_missing_latents_does_not_depend_on_windows(tmp_path):
    codec = load_codec(write_export(tmp_path / "a.ts", model_of("v2", *SHORT), 2), CPU)
    latents, noise = codec.encode(audio_of(codec, 4096))[0], noise_of(codec)
    whole = codec.decode(latents, noise)
    pieces = np.concatenate(list(codec.decode_blocks(latents, noise, window_frames=7)), axis=1)
    assert np.abs(pieces - whole).max() < 1e-4 * np.abs(whole).max()
    assert np.abs(codec.decode(latents, noise_of(codec, 1)) - whole).max() > 1e-2 * whole.max()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"kind": DiscreteScriptedRAVE}, "uses a DiscreteScriptedRAVE"),
        ({"output_mode": "raw"}, "uses output_mode 'raw'"),
        ({"resampler": Node()}, "uses a resampler"),
        ({"decoder.noise_module": Node()}, "uses a Node"),
        ({"decoder": Node()}, "uses a Node"),
        ({"encoder.encoder.net.4": GeneratorV2()}, "uses a GeneratorV2"),
        ({"encoder.encoder.net.2.aligned.branches.0.net.0": nn.Tanh()}, "uses a Tanh"),
        ({"latent_size": 9}, "uses 9 latents"),
    ],
)
def test_what_this_version_cannot_open_is_refused_by_name(tmp_path, parts, message):
    path = write_export(tmp_path / "a.ts", model_of("v2", *SHORT), 3, **parts)
    with pytest.raises(ValueError, match=f"{message}, which this version cannot open"):
        load_codec(path, CPU)


def test_an_export_that_does_not_say_its_rate_is_refused(tmp_path):
    path = write_export(tmp_path / "a.ts", model_of("v2", *SHORT), 3, sr=None)
    with pytest.raises(ValueError, match="does not say its sr"):
        load_codec(path, CPU)
