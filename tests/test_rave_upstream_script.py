import numpy as np
import pytest
import torch
from torch import nn
from upstream_runs import assert_every_length_equals
from upstream_scripts import exports, kinds, outputs, write_export

from benchmarks.upstream.exports import Export
from rave.codec import load_codec
from rave.jobs.windows import Part
from rave.noise import DecoderNoise
from rave.upstream.torchscript import ResampledCodec

CPU = torch.device("cpu")
V2 = "v2+causal+stereo"
UNIT = "encoder.encoder.net.1.aligned.branches.0.net"


def opened(path):
    with torch.inference_mode():
        return Export(torch.jit.load(str(path)), path)


def audio_of(codec, num_frames=30):
    shape = codec.format.num_channels, num_frames * codec.format.hop_samples
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def noise_of(codec, seed=0):
    return DecoderNoise(codec.format, seed)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", kinds())
def test_latents_and_audio_equal_those_that_the_file_of_acids_rave_gives(tmp_path, kind):
    encoded, decoded = outputs(kind)
    found = opened(write_export(tmp_path / "a.ts", kind)).differences(encoded, decoded)
    assert set(found) == {"encode", "decode"}
    assert max(found.values()) < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["discrete", "hybrid", "v1_streaming", "v2+noise", "v3"])
def test_every_length_is_encoded_as_acids_rave_does(tmp_path, kind):
    model = opened(write_export(tmp_path / "a.ts", kind)).model
    assert_every_length_equals(model, f"exports/{kind}")


@pytest.mark.parametrize("kind", ["hybrid", "v1_streaming", "v2+spherical"])
def test_a_file_of_any_length_in_windows_and_parts_equals_one_pass(tmp_path, kind):
    codec = load_codec(write_export(tmp_path / "a.ts", kind), CPU)
    hop = codec.format.hop_samples
    for length in range(40 * hop, 42 * hop):
        audio = audio_of(codec, 42)[:, :length]
        whole, _ = codec.encode(audio)
        parts = Part(0, 3), Part(3, None)
        pieces = [m for part in parts for m, _ in codec.encode_blocks([audio], 7, part)]
        found = np.concatenate(pieces, axis=1)
        assert np.abs(found - whole).max() <= 1e-6 * np.abs(whole).max(), length


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_comparison_sees_a_change_of_weights(tmp_path):
    name = "decoder.net.0.weight"
    path = write_export(tmp_path / "a.ts", V2, {name: 1.1 * exports()[f"{V2}/weights/{name}"]})
    found = opened(path).differences(*outputs(V2))
    assert found["encode"] < 1e-5
    assert found["decode"] > 1e-3


@pytest.mark.parametrize("kind", kinds())
def test_a_file_in_windows_equals_one_pass(tmp_path, kind):
    codec = load_codec(write_export(tmp_path / "a.ts", kind), CPU)
    audio, noise = audio_of(codec, 60), noise_of(codec)
    whole, _ = codec.encode(audio)
    pieces = [mean for mean, _ in codec.encode_blocks([audio], window_frames=7)]
    assert np.abs(np.concatenate(pieces, axis=1) - whole).max() < 1e-4 * np.abs(whole).max()
    assert whole.shape == (codec.format.latent_size, 60)
    whole = codec.decode(whole.astype(np.float32), noise)
    latents, _ = codec.encode(audio)
    pieces = np.concatenate(list(codec.decode_blocks(latents, noise, window_frames=7)), axis=1)
    assert np.abs(pieces - whole).max() < 1e-4 * np.abs(whole).max()
    assert whole.shape == audio.shape


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_std_is_that_of_the_principal_latents(tmp_path):
    export = opened(write_export(tmp_path / "a.ts", V2))
    mean, std = export.model.posterior_parameters(export.signal())
    axes = export.model.latent_pca
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(20_000, *mean.shape[1:], generator=generator)[..., :2]
    drawn = torch.matmul(
        axes, mean[..., :2] + std[..., :2] * draws - export.model.latent_mean[:, None]
    )
    found = export.cropped.posterior_parameters(export.signal())[1][0, :, :2]
    assert torch.allclose(drawn.std(0)[: len(found)], found, rtol=0.03)


def test_the_streaming_file_and_the_other_are_one_codec(tmp_path):
    prints = [
        load_codec(write_export(tmp_path / f"{n}.ts", kind, **changed), CPU).format.fingerprint
        for n, (kind, changed) in enumerate(
            (
                ("v2+noise", {}),
                ("v2+noise_streaming", {}),
                ("v2+noise", {"": (None, {"latent_size": 3})}),
            )
        )
    ]
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]


def test_noise_in_place_of_missing_latents_is_normal_and_seeded(tmp_path):
    codec = load_codec(write_export(tmp_path / "a.ts", V2), CPU)
    assert codec.format.num_noise_rows == 4 - codec.format.latent_size > 0
    latents = codec.encode(audio_of(codec))[0]
    whole = codec.decode(latents, noise_of(codec))
    assert np.abs(codec.decode(latents, noise_of(codec, 1)) - whole).max() > 1e-2 * whole.max()
    rest = noise_of(codec).decoder_input(np.zeros((codec.format.latent_size, 5000), np.float32), 0)
    assert np.std(rest[codec.format.latent_size :]) == pytest.approx(1, abs=0.05)


def test_codebooks_that_nothing_trained_let_the_latents_pass(tmp_path):
    empty = {
        name.removeprefix("discrete/weights/"): np.zeros_like(value)
        for name, value in exports().items()
        if name.endswith("._codebook.embed")
    }
    trained = load_codec(write_export(tmp_path / "a.ts", "discrete"), CPU)
    untrained = load_codec(write_export(tmp_path / "b.ts", "discrete", empty), CPU)
    audio = audio_of(trained)
    rows = trained.network.encoder_rows(torch.from_numpy(audio)[None])[0].numpy()
    assert np.array_equal(untrained.encode(audio)[0], rows)
    assert not np.allclose(trained.encode(audio)[0], rows)


def low_pass(ratio):
    length = 40 * ratio - 1
    time = (np.arange(length) - length // 2) / ratio
    taps = np.sinc(time) * np.hanning(length + 2)[1:-1]
    return torch.from_numpy((taps / taps.sum()).astype(np.float32))


class Through(nn.Module):
    """A codec whose latents are the audio."""

    def posterior_parameters(self, audio):
        return audio, audio

    def decode(self, latents, noise=None):
        return latents


@pytest.mark.parametrize("ratio", [2, 3, 5])
def test_a_sine_keeps_its_level_and_its_place_through_a_resampler(ratio):
    codec = ResampledCodec(Through(), low_pass(ratio), ratio, is_causal=False)
    sine = torch.sin(torch.arange(300 * ratio) / (4 * ratio))[None, None].repeat(1, 2, 1)
    low, _ = codec.posterior_parameters(sine)
    assert low.shape == (1, 2, 300)
    middle = slice(50 * ratio, -50 * ratio)
    assert (codec.decode(low) - sine)[..., middle].abs().max() < 1e-3


def test_a_file_with_a_resampler_takes_and_gives_audio_at_its_rate(tmp_path):
    taps = low_pass(2)
    side = len(taps) // 2
    path = write_export(
        tmp_path / "a.ts",
        "hybrid",
        {"resampler.downsample.weight": taps[None, None]},
        **{
            "": (None, {"sr": 88200}),
            "resampler": ("Resampler", {}),
            "resampler.downsample": ("Conv1d", {"stride": [2], "_pad": [side, side]}),
        },
    )
    codec, plain = (load_codec(p, CPU) for p in (path, write_export(tmp_path / "b.ts", "hybrid")))
    assert codec.format.sample_rate_hz == 2 * plain.format.sample_rate_hz == 88200
    assert codec.format.hop_samples == 2 * plain.format.hop_samples
    assert codec.format.fingerprint != plain.format.fingerprint
    audio = audio_of(codec)
    mean, _ = codec.encode(audio)
    assert mean.shape[1] == 30
    assert codec.decode(mean, noise_of(codec)).shape == audio.shape
    pieces = [m for m, _ in codec.encode_blocks([audio], window_frames=4)]
    assert np.abs(np.concatenate(pieces, axis=1) - mean).max() < 1e-4 * np.abs(mean).max()


@pytest.mark.parametrize(
    ("kind", "layers", "message"),
    [
        (V2, {"": ("OtherScriptedRAVE", {})}, "uses a OtherScriptedRAVE"),
        (V2, {"": (None, {"output_mode": "raw"})}, "uses output_mode 'raw'"),
        (V2, {"": (None, {"input_mode": "raw"})}, "uses input_mode 'raw'"),
        (V2, {"": (None, {"latent_size": 9})}, "uses 9 latents"),
        (V2, {"decoder": ("Other", {})}, "uses a Other"),
        (V2, {"decoder": (None, {"amplitude_modulation": False})}, "amplitude modulation"),
        (V2, {"encoder.encoder": ("Other", {})}, "uses a Other"),
        (V2, {"encoder.encoder.net.3": ("Tanh", {})}, "uses a Tanh"),
        (V2, {f"{UNIT}.0": ("Tanh", {})}, "uses a Tanh"),
        (V2, {f"{UNIT}.0": (None, {"negative_slope": 0.1})}, "a LeakyReLU of slope 0.1"),
        (V2, {"decoder.net.2": (None, {"stride": [3]})}, "a decoder of ratios"),
        (V2, {"encoder.encoder.net.4": (None, {"stride": [4]})}, "uses ratios"),
        ("v1_streaming", {"decoder": (None, {"loud_stride": 2})}, "a loud_stride of 2"),
        ("hybrid", {"spectrogram.spectrogram": (None, {"power": 1.0})}, "spectrogram of power 1.0"),
    ],
)
def test_what_this_version_cannot_open_is_refused_by_name(tmp_path, kind, layers, message):
    path = write_export(tmp_path / "a.ts", kind, **layers)
    with pytest.raises(ValueError, match=f"{message}.*, which this version cannot open"):
        load_codec(path, CPU)


def test_weights_that_are_missing_or_unknown_are_refused_by_name(tmp_path):
    name = "decoder.net.0.weight"
    path = write_export(tmp_path / "a.ts", V2, {name: None})
    with pytest.raises(ValueError, match=f"uses no {name}"):
        load_codec(path, CPU)
    path = write_export(tmp_path / "b.ts", V2, {"decoder.net.0.bias": torch.ones(3)})
    with pytest.raises(ValueError, match=r"uses decoder\.net\.0\.bias, unknown here"):
        load_codec(path, CPU)


def test_an_export_that_does_not_say_its_rate_is_refused(tmp_path):
    path = write_export(tmp_path / "a.ts", V2, **{"": (None, {"sr": None})})
    with pytest.raises(ValueError, match="does not state its sr"):
        load_codec(path, CPU)
