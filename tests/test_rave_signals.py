"""Models that see a mel spectrogram, give audio without a filter bank, or remember frames."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rave_models import build_model, codec_of, small_model
from upstream_runs import (
    CONFIG,
    assert_every_length_equals,
    golden_weights,
    write_upstream_run,
)

from rave.blocks.signals import MelSpectrogram
from rave.codec import load_run
from rave.noise import DecoderNoise

GOLDEN = Path(__file__).parent / "golden" / "acids_rave_signals.npz"
MEL = """transforms.MelSpectrogram.sample_rate = %SAMPLING_RATE
transforms.MelSpectrogram.n_fft = 2048
transforms.MelSpectrogram.win_length = 2048
transforms.MelSpectrogram.hop_length = 256
transforms.MelSpectrogram.normalized = True
transforms.MelSpectrogram.n_mels = 128
model.RAVE.spectrogram = @transforms.MelSpectrogram()
model.RAVE.input_mode = 'mel'
variational/blocks.EncoderV2.data_size = 128
variational/blocks.EncoderV2.ratios = [2, 2, 2]
"""
GRU = """variational/blocks.EncoderV2.dilations = [1]
blocks.GeneratorV2.recurrent_layer = @blocks.GRU
blocks.GRU.num_layers = 2
"""
RAW = """model.RAVE.output_mode = 'raw'
blocks.GeneratorV2.data_size = None
blocks.GeneratorV2.ratios = [8, 8, 8, 4]
"""
ADDED = {"hybrid": MEL + GRU, "v2_nopqmf": RAW}


@pytest.fixture(scope="module", params=ADDED)
def case(request, tmp_path_factory):
    """Reference arrays, and the model read from a run with their weights."""
    name = request.param
    with np.load(GOLDEN) as file:
        arrays = {
            key.removeprefix(f"{name}/"): torch.from_numpy(file[key])
            for key in file.files
            if key.startswith(f"{name}/")
        }
    prefix = "weights/"
    weights = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    weights |= {n: v for n, v in golden_weights().items() if n.startswith("pqmf.")}
    if "spectrogram.spectrogram.window" in weights:  # they are many zeros
        weights["spectrogram.mel_scale.fb"] = MelSpectrogram(44100, 2048, 256, 128).filters
    config = CONFIG.replace("CAPACITY = 4", "CAPACITY = 2").replace("SIZE = 16", "SIZE = 4")
    folder = tmp_path_factory.mktemp("runs") / name
    model, _ = load_run(write_upstream_run(folder, config + ADDED[name], weights))
    return arrays, model


def assert_equals(found, needed, relative=1e-4):
    assert found.shape == needed.shape
    assert (found - needed).abs().max() <= relative * needed.abs().max()


def test_rows_and_audio_equal_those_of_acids_rave(case):
    arrays, model = case
    assert_equals(model.encoder_rows(arrays["audio"][None])[0], arrays["rows"])
    decoded = model.decode(arrays["decoder_input"][None])[0]
    delay = 0 if model.is_raw_output else 16  # that the filter bank of acids-rave leaves
    kept = decoded.shape[-1] - delay
    assert_equals(decoded[:, :kept], arrays["decoded"][:, delay:])


def test_every_length_is_encoded_as_acids_rave_does(case):
    model = case[1]
    assert_every_length_equals(model, "runs/hybrid" if model.spectrogram else "runs/v2_nopqmf")


@pytest.mark.parametrize(
    ("recipe", "num_encoder", "num_decoder"),
    [
        ("v2_nopqmf", 7_403_328, 10_477_954),
        ("v2_with_augs", 4_552_288, 15_479_072),
        ("hybrid", 3_001_312, 15_677_216),
    ],
)
def test_recipes_have_as_many_parameters_as_those_of_acids_rave(recipe, num_encoder, num_decoder):
    model = build_model(recipe)
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder)]
    assert counts == [num_encoder, num_decoder]


@pytest.mark.parametrize("recipe", ["hybrid", "v2_nopqmf", "v2_with_augs"])
def test_windows_join_to_what_one_pass_gives(recipe):
    codec = codec_of(small_model(recipe))
    generator = np.random.default_rng(0)
    audio = (0.1 * generator.standard_normal((1, 60 * 2048))).astype(np.float32)
    whole = codec.encode(audio)[0]
    pieces = np.concatenate([mean for mean, _ in codec.encode_blocks([audio], 16)], axis=1)
    assert np.abs(pieces - whole).max() < 1e-4 * np.abs(whole).max()
    noise = DecoderNoise(codec.format, 0)
    latents = generator.standard_normal((4, 120)).astype(np.float32)
    decoded = [np.concatenate(list(codec.decode_blocks(latents, noise, n)), 1) for n in (120, 16)]
    assert np.abs(decoded[0] - decoded[1]).max() < 1e-4 * np.abs(decoded[0]).max()


def test_a_tone_is_loudest_in_its_mel_band_and_silence_is_0():
    mel = MelSpectrogram(44100, 2048, 256, 128)
    times = torch.arange(16384) / 44100
    levels = [
        int(mel(torch.sin(2 * torch.pi * f * times)[None, None])[0, :, 32].argmax())
        for f in (200, 1000, 5000)
    ]
    assert levels == sorted(set(levels))
    assert float(mel(torch.zeros(1, 1, 4096)).abs().max()) == 0
