"""Oscillators with a clock, an encoder of magnitudes, and the recipe that has both."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rave_models import FEW_OSCILLATORS, band_noise, codec_of, small_model
from rave_runs import RATE_HZ, checkpoint, prepare, train

from rave.blocks.oscillators import PERIOD, OscillatorBank
from rave.blocks.signals import LogSpectrogram
from rave.codec import load_run
from rave.codec_format import CodecFormat
from rave.model import LATEST_STEP
from rave.noise import DecoderNoise

STEP, LOWEST_HZ, CENTS, NARROWEST_HZ, WIDEST_HZ = 256, 27.5, 20.0, 4.0, 43.0
NUM_STEPS = 400


def frequencies_hz():
    """Return the frequencies that the arguments ask for."""
    found = [LOWEST_HZ]
    while found[-1] < RATE_HZ / 2:
        distance = found[-1] * (2 ** (CENTS / 1200) - 1)
        found.append(found[-1] + min(max(distance, NARROWEST_HZ), WIDEST_HZ))
    return found[:-1]


@pytest.fixture(scope="module")
def bank():
    return OscillatorBank(RATE_HZ, 1, STEP, LOWEST_HZ, CENTS, NARROWEST_HZ, WIDEST_HZ)


def played(bank, row, level=0.5, first=0):
    """Return the audio (T) of one row at a constant amplitude, from a step on."""
    amplitudes = torch.zeros(1, bank.size, NUM_STEPS)
    amplitudes[:, row] = level
    clock = torch.arange(first, first + NUM_STEPS).float().expand(1, 1, -1)
    return bank(amplitudes, clock)[0, 0].double()


def inside(audio):
    """Return audio without its first and last window, which have no neighbour."""
    return audio[2 * STEP : -2 * STEP]


def peak_hz(audio):
    """Return the frequency of a sine, from its Fourier transform."""
    logs = np.log(np.abs(np.fft.rfft(audio.numpy() * np.hanning(len(audio)))) + 1e-12)
    top = int(logs.argmax())
    left, middle, right = logs[top - 1 : top + 2]
    offset = 0.5 * (left - right) / (left - 2 * middle + right)
    return (top + offset) * RATE_HZ / len(audio)


@pytest.mark.parametrize("row", [0, 1, 50, 200, 333, 455])
@pytest.mark.parametrize("first", [0, 12345, 2**20, 2**20 + 7])
def test_an_amplitude_is_a_sine_of_the_rows_frequency_at_every_time(bank, row, first):
    assert bank.size == len(frequencies_hz())
    audio = inside(played(bank, row, 0.5, first))
    assert peak_hz(audio) == pytest.approx(frequencies_hz()[row], abs=0.05)
    assert float(audio.square().mean().sqrt()) == pytest.approx(0.5 / math.sqrt(2), rel=5e-3)
    assert float(audio.abs().max()) == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize("row", [0, 7, 200, 455])
@pytest.mark.parametrize("first", [0, PERIOD - 200, 3 * PERIOD - 200, 2**20 - 200])
def test_a_sine_goes_on_where_the_clock_begins_anew(bank, row, first):
    """Windows add up to 1, and phases go on: one cosine, without a jump or a beat."""
    unit_hz = RATE_HZ / (STEP * PERIOD)
    turns = round(frequencies_hz()[row] / unit_hz)
    time = torch.arange(NUM_STEPS * STEP, dtype=torch.float64) + (first % PERIOD) * STEP
    turned = (turns * time) % (STEP * PERIOD) / (STEP * PERIOD)
    golden = (1 + math.sqrt(5)) / 2
    wanted = 0.5 * torch.cos(2 * math.pi * (turned + row**2 * golden))
    assert float((inside(played(bank, row, 0.5, first)) - inside(wanted)).abs().max()) < 1e-5


def test_neighbours_leave_no_gap(bank):
    """All amplitudes alike are a flat spectrum, where neighbours are equally far."""
    audio = inside(played(bank, slice(None), 0.1))
    frames = audio.unfold(0, 4 * STEP, STEP) * torch.hann_window(4 * STEP)
    power = torch.fft.rfft(frames).abs().square().mean(0)
    bin_hz = RATE_HZ / (4 * STEP)
    heard = 10 * torch.log10(power[int(5000 / bin_hz) : int(10000 / bin_hz)])
    assert float(heard.max() - heard.min()) < 6


@pytest.mark.parametrize("first", [0, PERIOD - 10, 2**20])
@pytest.mark.parametrize("lowest", [0, 250])  # from 250 on, equally far apart
def test_oscillators_never_meet(bank, first, lowest):
    """It would be a click, as loud as all their amplitudes together."""
    audio = inside(played(bank, slice(lowest, None), 1 / bank.size, first))
    rms = math.sqrt((bank.size - lowest) / 2) / bank.size
    assert float(audio.square().mean().sqrt()) == pytest.approx(rms, rel=0.1)
    assert float(audio.abs().max()) < 6 * rms


def test_phases_are_exact_under_bfloat16(bank):
    clean = played(bank, 455, first=PERIOD - 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(played(bank, 455, first=PERIOD - 1), clean)


# The model


@pytest.fixture(scope="module")
def model():
    return small_model("small", *FEW_OSCILLATORS, f"SAMPLE_RATE_HZ={RATE_HZ}")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_later_frames_are_heard_as_their_clock_says(model):
    latents, noise = 10 * normal(1, 4, 60), band_noise(model, 60)
    noise += LATEST_STEP
    whole = model.decode(latents, noise)
    hop, left = model.hop_samples, model.decoder_reach_frames()[0]
    for frame in (1, 7):
        later = noise[..., frame * model.noise_steps_per_frame :]
        part = model.decode(latents[..., frame:], later)
        gap = (part - whole[..., frame * hop :]).abs()
        assert float(gap[..., left * hop :].max()) < 1e-5 * float(whole.abs().max())
        gap = (model.decode(latents[..., frame:], later + 1) - part).abs()
        assert float(gap.max()) > 1e-2 * float(whole.abs().max())


def test_constant_latents_do_not_repeat_themselves_with_the_hop(model):
    """What a decoder of convolutions alone would do."""
    audio = model.decode(torch.ones(1, 4, 60))[0, 0].reshape(60, -1)[15:45]
    assert float((audio[1:] - audio[:-1]).abs().max()) > 0.1 * float(audio.abs().max())


def test_polarity_is_not_heard(model):
    audio = normal(1, 1, 40 * model.hop_samples)
    one, other = model.encode(audio), model.encode(-audio)
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.std, other.std)


def test_the_clock_of_a_training_step_is_exact_beside_half_precision(model):
    latents = normal(3, 4, 20).bfloat16()
    noise = model.band_noise(latents, torch.Generator().manual_seed(1))
    assert noise.dtype == torch.float32
    assert noise.shape == (3, 1, 80)
    clock = noise[:, 0].double()
    assert torch.equal(clock - clock[:, :1], torch.arange(80.0).double().expand(3, -1))
    assert len(set(clock[:, 0].tolist())) == 3
    assert 0 <= float(clock[:, 0].min()) <= float(clock[:, 0].max()) < LATEST_STEP


@pytest.mark.parametrize("start", [-3, 0, PERIOD // 4 - 2, 2**30])
def test_the_codec_gives_each_frame_the_numbers_of_its_steps(model, start):
    noise = DecoderNoise(CodecFormat.of(model), 0).bands(start, 5)
    steps = np.arange(start * 4, (start + 5) * 4) % PERIOD
    assert noise.shape == (1, 1, 20)
    assert np.array_equal(noise[0, 0].numpy(), steps)


def test_a_description_of_before_there_was_a_clock_is_read(model):
    plain = small_model("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[1], [1], [1]]")
    content = json.loads(CodecFormat.of(plain).to_json())
    del content["has_clock"]
    assert CodecFormat.from_json(json.dumps(content), Path("a.ts")) == CodecFormat.of(plain)
    assert CodecFormat.from_json(CodecFormat.of(model).to_json(), Path("a.ts")).has_clock


@pytest.mark.parametrize("length", [1, 127, 128, 129, 256, 257, 500])
def test_audio_of_any_length_has_latents(length):
    codec = codec_of(small_model("small", *FEW_OSCILLATORS))
    mean, std = codec.encode(normal(1, length).numpy())
    assert mean.shape == (4, math.ceil(length / 128))
    assert np.isfinite(mean).all()
    assert (std > 0).all()


@pytest.mark.parametrize("floor", [1e-8, 1e-4])
def test_a_full_sine_has_power_1_and_silence_that_of_the_floor(floor):
    spectrogram = LogSpectrogram([512, 128], [257, 65], 64, floor)
    time = torch.arange(4096)
    rows = spectrogram(torch.sin(2 * math.pi * time / 8)[None, None])[0, :, 20:40]
    for first, size in ((0, 512), (257, 128)):
        level = rows[first : first + size // 2 + 1].max(0).values
        assert torch.allclose(level, torch.full_like(level, 3.0), atol=1e-3)
    silent = spectrogram(torch.zeros(1, 1, 4096))
    assert torch.allclose(silent, torch.tensor(0.25 * math.log(floor) + 3.0), atol=1e-5)


@pytest.mark.parametrize(("options", "encoder", "decoder"), [("", 2, 3), ("+causal", 1, 2)])
def test_causal_layers_see_less_of_what_is_later(options, encoder, decoder):
    model = small_model(f"small{options}", *FEW_OSCILLATORS)
    # Half a window, and what transposed convolutions and windows of oscillators reach.
    assert model.encoder_reach_frames()[1] == encoder
    assert model.decoder_reach_frames()[1] == decoder


# Training


@pytest.mark.parametrize("num_channels", [1, 2])
def test_the_recipe_trains_resumes_and_starts_another(tmp_path, num_channels):
    data, out, sizes = prepare(tmp_path, num_channels), tmp_path / "run", FEW_OSCILLATORS
    assert train(data, out, *sizes, recipe="small") == 0
    assert train(data, out, *sizes, "MAX_STEPS=10", recipe="small") == 0
    assert checkpoint(out)["global_step"] >= 10
    model, form = load_run(out)
    assert (model.num_channels, form.num_channels, form.has_clock) == (num_channels,) * 2 + (True,)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert model.decoder.net[-1].weight.any()  # it has learned
    assert {name.partition(".")[0] for name in model.decoder.state_dict()} == {"linear", "net"}
    again = ("--initialise-from", str(out))
    lazy = ("MAX_STEPS=1", "LEARNING_RATE=0.0")
    assert train(data, tmp_path / "b", *sizes, *lazy, options=again, recipe="small") == 0
    other = load_run(tmp_path / "b")[0]
    for part, same in ((model.encoder, other.encoder), (model.decoder, other.decoder)):
        for name, value in part.state_dict().items():
            assert torch.equal(value, same.state_dict()[name]), name
