"""A linear encoder, fitted to the first crops, and what its decoder makes of it."""

import math

import pytest
import torch
from rave_models import FEW_OSCILLATORS, small_model
from rave_runs import RATE_HZ, checkpoint, prepare, train
from torch.nn import functional

from rave import initial_weights
from rave.blocks.bottleneck import Gaussian
from rave.blocks.convolution import ConvTranspose1d
from rave.blocks.linear import STD, LinearEncoder
from rave.codec import load_run
from rave.experiment import new_model, parse_recipe
from rave.initial_weights import fit_linear_layers

ROWS, RATIO, SIZE, NUM_FRAMES = 6, 4, 5, 40
CASES = pytest.mark.parametrize(("is_causal", "channels"), [(False, 1), (True, 1), (False, 2)])


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Fitted:
    """Layers fitted to spectrograms whose frames vary in so many dimensions, by less and less.

    The first frame of each is all mean: a layer sees one less step of it.
    """

    def __init__(self, is_causal, channels, num_dimensions, seed=0, size=SIZE):
        rows = channels * ROWS
        self.encoder = LinearEncoder(ROWS, channels, [2, RATIO // 2], size, is_causal)
        self.decoder = ConvTranspose1d(size, rows, RATIO, has_bias=True)
        axes = torch.linalg.qr(drawn(rows * RATIO, num_dimensions, seed=1))[0]
        coefficients = drawn(3, NUM_FRAMES, num_dimensions) * 0.6 ** torch.arange(num_dimensions)
        coefficients[:, 0] = 0
        coefficients[:, 1:] -= coefficients[:, 1:].mean(dim=(0, 1))
        self.frames = (coefficients @ axes.T).reshape(3, NUM_FRAMES, rows, RATIO)
        left = self.encoder.net.left  # what the first frame sees before the beginning
        steps = self.frames.transpose(1, 2).flatten(2)[..., left:]
        self.level = drawn(rows, 1, seed=2)
        self.spectrograms = functional.pad(steps, (0, left)) + self.level
        self.encoder.fit(self.spectrograms, self.decoder, seed)
        # The first frame is left out, which sees zeros.
        self.means = self.encoder(self.spectrograms)[:, :size, 1:]

    def kept(self):
        """Return the frames but the first (n, rows·r), and what exact components keep of them."""
        frames = self.frames[:, 1:].flatten(0, 1).flatten(1)
        axes = torch.linalg.svd(frames, full_matrices=False)[2][:SIZE]
        return frames, frames @ axes.T @ axes

    def decoded(self):
        """Return the frames but the first as they are decoded, (n, rows, r)."""
        latents = functional.pad(self.means, (1, 1))
        rows = self.decoder(latents) - self.level
        start = RATIO - self.encoder.net.left
        rows = rows[..., start:].unfold(2, RATIO, RATIO)[:, :, : NUM_FRAMES - 1]
        return rows.transpose(1, 2).flatten(0, 1)


@CASES
@torch.no_grad()
def test_frames_of_as_many_dimensions_as_latents_come_back_as_they_are(is_causal, channels):
    fitted = Fitted(is_causal, channels, SIZE)
    wanted, found = fitted.frames[:, 1:].flatten(0, 1), fitted.decoded()
    if is_causal:  # of which the decoder learns too late for its first step: the last one stays
        held = wanted.reshape(3, NUM_FRAMES - 1, -1, RATIO)[:, :-1, :, -1]
        first = found.reshape(3, NUM_FRAMES - 1, -1, RATIO)[:, 1:, :, 0]
        assert torch.allclose(first, held, atol=1e-4)
        wanted, found = wanted[..., 1:], found[..., 1:]
    assert float(wanted.std()) > 0.1
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_what_does_not_come_back_is_what_the_largest_components_leave_out(channels):
    fitted = Fitted(False, channels, 4 * SIZE)
    frames, kept = fitted.kept()
    found = fitted.decoded().flatten(1)
    left_out = (frames - kept).square().sum()
    assert 1e-3 < float(left_out / frames.square().sum()) < 0.5
    assert float((frames - found).square().sum()) == pytest.approx(float(left_out), rel=1e-3)
    assert torch.allclose(found, kept, atol=1e-2)


@CASES
@torch.no_grad()
def test_latents_are_uncorrelated_and_the_last_has_the_deviation_1(is_causal, channels):
    fitted = Fitted(is_causal, channels, 4 * SIZE)
    latents = fitted.means.transpose(1, 2).flatten(0, 1)
    variances = latents.T @ latents / (3 * NUM_FRAMES)
    own = variances.diagonal()
    assert torch.all(own[:-1] > own[1:])
    assert float(own[-1]) == pytest.approx(1, rel=1e-3)
    shared = variances / (own[:, None] * own).sqrt()
    assert torch.allclose(shared, torch.eye(SIZE), atol=1e-3)


@torch.no_grad()
def test_the_deviation_of_the_posterior_is_the_same_everywhere():
    fitted = Fitted(False, 1, 4 * SIZE)
    std = Gaussian()(fitted.encoder(fitted.spectrograms))[1]
    assert torch.allclose(std, torch.full_like(std, STD), atol=1e-3)


def test_one_seed_is_one_fit_that_draws_nothing_of_what_others_draw():
    weights, spectrograms = [], drawn(3, ROWS, 160)
    for seed in (3, 3, 4):
        encoder = LinearEncoder(ROWS, 1, [RATIO], SIZE)
        decoder, state = ConvTranspose1d(SIZE, ROWS, RATIO, has_bias=True), torch.get_rng_state()
        encoder.fit(spectrograms, decoder, seed)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(torch.cat([encoder.net.weight.flatten(), decoder.weight.flatten()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("num_frames", "is_enough"), [(SIZE, False), (SIZE + 1, True)])
def test_more_frames_than_latents_are_needed(num_frames, is_enough):
    encoder = LinearEncoder(ROWS, 1, [RATIO], SIZE)
    decoder = ConvTranspose1d(SIZE, ROWS, RATIO, has_bias=True)
    spectrogram = drawn(1, ROWS, num_frames * RATIO)
    if is_enough:
        encoder.fit(spectrogram, decoder, 0)
        return
    sentence = (
        "The training audio has 5 latent frames; more than the 5 latents of a frame are needed. "
        "Train on more audio."
    )
    with pytest.raises(ValueError) as error:
        encoder.fit(spectrogram, decoder, 0)
    assert str(error.value) == sentence


@torch.no_grad()
def test_what_does_not_vary_has_latents_and_comes_back_too():
    encoder = LinearEncoder(ROWS, 1, [RATIO], SIZE)
    decoder = ConvTranspose1d(SIZE, ROWS, RATIO, has_bias=True)
    silence = torch.full((2, ROWS, 80), -1.6)
    encoder.fit(silence, decoder, 0)
    latents = encoder(silence)[:, :SIZE]
    assert float(latents[..., 1:].abs().max()) < 0.1
    assert torch.allclose(decoder(latents)[..., 4:-4], silence[..., 4:-4], atol=1e-3)


# The model


class Sines(torch.utils.data.Dataset):
    """A crop of each frequency, at 0.3 of full scale, that begins anywhere."""

    crop_samples = 1 << 15

    def __init__(self, frequencies_hz):
        self.frequencies_hz = frequencies_hz

    def __len__(self):
        return len(self.frequencies_hz)

    def __getitem__(self, index):
        time = torch.arange(self.crop_samples) / RATE_HZ
        return 0.3 * torch.sin(2 * math.pi * self.frequencies_hz[index] * time + index)[None]


def peak_hz(audio):
    """Return the frequency of the highest peak of audio (T)."""
    logs = torch.fft.rfft(audio * torch.hann_window(len(audio))).abs().log()
    top = int(logs.argmax())
    left, middle, right = logs[top - 1 : top + 2]
    return (top + float((left - right) / (left - 2 * middle + right)) / 2) * RATE_HZ / len(audio)


@pytest.fixture(scope="module")
def sines():
    """A model that is fitted to sines, and not trained."""
    parse_recipe("rave", "small", ["LATENT_SIZE=64", f"SAMPLE_RATE_HZ={RATE_HZ}"])
    model = new_model().eval()
    fit_linear_layers(model, Sines([55 * 2 ** (step / 6) for step in range(20)]), 0)
    return model


@pytest.mark.parametrize("step", [0, 5, 7, 11, 14, 18])
@torch.no_grad()
def test_a_sine_comes_back_at_its_frequency_and_level_before_any_training(sines, step):
    frequency_hz = 55 * 2 ** (step / 6)
    audio = Sines([frequency_hz])[0]
    decoded = sines.decode(sines.encode(audio[None]).mean)[0, 0]
    inside = slice(8192, -8192)
    found, wanted = decoded[inside], audio[0, inside]
    half_a_bin_hz = RATE_HZ / 4096 / 2
    assert peak_hz(found) == pytest.approx(frequency_hz, abs=half_a_bin_hz)
    assert -7 < 20 * math.log10(found.std() / wanted.std()) < 0


@torch.no_grad()
def test_silence_is_silent_before_any_training(sines):
    decoded = sines.decode(sines.encode(torch.zeros(1, 1, 65536)).mean)
    assert float(decoded.square().mean()) < 1e-7  # of the floor alone, 5.7e-7


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@torch.no_grad()
def test_a_blend_of_a_tone_at_two_levels_is_that_tone_at_a_level_between(sines, share):
    loud = Sines([220])[0][None]
    one, other = sines.encode(loud).mean, sines.encode(0.1 * loud).mean
    blends = [one, (1 - share) * one + share * other, other]
    heard = [sines.decode(blend)[0, 0, 8192:-8192] for blend in blends]
    levels = [20 * math.log10(each.std()) for each in heard]
    assert levels[0] - 2 > levels[1] > levels[2] + 2
    assert {round(peak_hz(each) / 2) for each in heard} == {round(peak_hz(heard[0]) / 2)}


# Training


def count_fits(monkeypatch):
    """Return a list that each fit of a training adds its model to."""
    fits = []

    def fit(model, *rest):
        fits.append(model)
        fit_linear_layers(model, *rest)

    monkeypatch.setattr(initial_weights, "fit_linear_layers", fit)
    return fits


def test_a_run_is_fitted_once_and_neither_as_it_goes_on_nor_as_it_starts_another(
    tmp_path, monkeypatch
):
    fits = count_fits(monkeypatch)
    data, short = prepare(tmp_path), (*FEW_OSCILLATORS, "VALIDATE_EVERY_STEPS=1")
    first, other = ("MAX_STEPS=1", "PHASE_1_STEPS=1"), ("MAX_STEPS=2", "PHASE_1_STEPS=1")
    again = ("--initialise-from", str(tmp_path / "a"))
    for run, settings, options in (("a", first, ()), ("a", other, ()), ("b", first, again)):
        assert train(data, tmp_path / run, *short, *settings, options=options, recipe="small") == 0
    assert len(fits) == 1
    fitted = [load_run(tmp_path / run)[0].encoder.state_dict() for run in "ab"]
    assert all(torch.equal(value, fitted[1][name]) for name, value in fitted[0].items())
    assert train(data, tmp_path / "c", *short, *other, recipe="small") == 0
    assert len(fits) == 2  # and how long a training is to be makes no difference
    assert checkpoint(tmp_path / "c")["global_step"] == 2
    fitted.append(load_run(tmp_path / "c")[0].encoder.state_dict())
    assert all(torch.equal(value, fitted[2][name]) for name, value in fitted[0].items())


def test_other_models_are_not_fitted():
    model = small_model("v2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_linear_layers(model, Sines([440]), 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
