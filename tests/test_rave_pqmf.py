import numpy as np
import pytest
import torch
from torch.nn import functional

from rave.pqmf import PQMF, modulated_filters, prototype_filter


@pytest.fixture(scope="module")
def pqmf():
    return PQMF()


def noise(num_samples, num_channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, num_channels, num_samples, generator=generator)


def error_db(target, audio):
    return 10 * torch.log10((audio - target).square().mean() / target.square().mean())


@pytest.mark.parametrize(
    ("attenuation_db", "num_bands", "num_taps"),
    [(100, 4, 95), (100, 8, 189), (100, 16, 377), (100, 32, 753), (80, 16, 291)],
)
def test_prototype_is_a_symmetric_low_pass_of_known_length_and_gain_1(
    attenuation_db, num_bands, num_taps
):
    taps = prototype_filter(attenuation_db, num_bands)
    assert len(taps) % 2 == 1
    assert len(taps) == pytest.approx(
        num_taps, abs=2
    )  # the search stops at a little better cut-off
    assert np.allclose(taps, taps[::-1], rtol=0, atol=1e-15)
    assert taps.sum() == pytest.approx(1, abs=1e-4)
    response = np.abs(np.fft.rfft(taps, 1 << 15))
    stop_band = response[np.linspace(0, 1, len(response)) > 1.1 / num_bands]
    assert 20 * np.log10(stop_band.max()) < 5 - attenuation_db


def test_prototype_of_16_bands_and_100_db_is_acids_raves_but_for_the_last_digits():
    taps = prototype_filter(100, 16)
    assert len(taps) == 377
    assert taps.sum() == pytest.approx(0.99999833, abs=1e-6)
    assert taps.max() == pytest.approx(0.0342245288, rel=1e-3)


def test_band_filters_divide_the_spectrum_evenly():
    filters = modulated_filters(prototype_filter(100, 16), 16)
    assert filters.shape == (16, 512)
    power = torch.fft.rfft(filters.double(), 1 << 14).abs().square()
    frequency = torch.linspace(0, 16, power.shape[1], dtype=torch.float64)  # in bands
    centre = (power * frequency).sum(dim=1) / power.sum(dim=1)
    assert torch.allclose(centre, torch.arange(16).double() + 0.5, rtol=0, atol=0.1)
    assert 10 * torch.log10(power.sum(dim=0)).std() < 0.01  # dB: they add up to a flat response


@pytest.mark.parametrize("num_bands", [4, 8, 16, 32])
def test_round_trip_of_an_impulse_at_any_phase_errs_by_less_than_minus_60_db(num_bands):
    pqmf, num_samples = PQMF(num_bands=num_bands), 256 * num_bands
    impulses = torch.zeros(num_bands, 1, num_samples)
    for phase in range(num_bands):
        impulses[phase, 0, num_samples // 2 + phase] = 1
    decoded = pqmf.synthesis(pqmf.analysis(impulses))
    # The mean over phases is the error on any stationary white sound, without statistics.
    assert error_db(impulses, decoded) < -60
    assert torch.equal(decoded[:, 0].argmax(dim=1), impulses[:, 0].argmax(dim=1))


def test_round_trip_of_white_noise_errs_by_less_than_minus_60_db_without_delay(pqmf):
    audio = noise(1 << 16)
    decoded = pqmf.synthesis(pqmf.analysis(audio))
    inside = slice(1024, -1024)  # the ends lack what lies beyond the file
    assert error_db(audio[..., inside], decoded[..., inside]) < -59.9


def test_causal_round_trip_delays_by_a_filter_length_and_loses_nothing_else(pqmf):
    causal, audio = PQMF(is_causal=True), noise(1 << 15)
    decoded = causal.synthesis(causal.analysis(audio))
    assert error_db(audio[..., :-528], decoded[..., 528:]) < -59.8


def test_causal_analysis_sees_no_later_sample():
    causal, audio, at = PQMF(is_causal=True), noise(4096), 2000
    changed = audio.clone()
    changed[..., at:] += 1
    before, after = causal.analysis(audio), causal.analysis(changed)
    first = -(-at // 16)  # the first band step at or after the change
    assert torch.equal(before[..., :first], after[..., :first])
    assert not torch.allclose(before[..., first:], after[..., first:])


@pytest.mark.parametrize("num_samples", [16, 32, 496, 512, 4096])
def test_a_band_has_one_step_for_every_16_samples(pqmf, num_samples):
    bands = pqmf.analysis(noise(num_samples))
    assert bands.shape == (1, 16, num_samples // 16)
    assert pqmf.synthesis(bands).shape == (1, 1, num_samples)


def test_stereo_is_each_channel_alone(pqmf):
    audio = noise(2048, num_channels=2)
    bands = pqmf.analysis(audio)
    alone = [pqmf.analysis(audio[:, [c]]) for c in (0, 1)]
    assert torch.allclose(bands, torch.cat(alone, dim=1), rtol=0, atol=1e-5)
    decoded = [pqmf.synthesis(b) for b in alone]
    assert torch.allclose(pqmf.synthesis(bands), torch.cat(decoded, dim=1), rtol=0, atol=1e-5)


def test_a_sine_appears_in_the_band_of_its_frequency_at_its_power(pqmf):
    times = torch.arange(8192)
    for band in range(16):
        sine = torch.cos(torch.pi * (band + 0.37) / 16 * times)[None, None]
        power = pqmf.analysis(sine)[0, :, 128:-128].square().mean(dim=1)
        assert power.argmax() == band
        # Decimation keeps the mean power of a band: 1/2, of which neighbours have their share.
        assert power.sum() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("is_causal", [False, True])
def test_reach_bounds_what_a_band_step_and_a_sample_see(is_causal):
    pqmf = PQMF(is_causal=is_causal)
    audio = noise(4096).requires_grad_()
    (seen,) = torch.autograd.grad(pqmf.analysis(audio)[0, :, 128].abs().sum(), audio)
    indices = seen[0, 0].nonzero()
    left, right = pqmf.analysis_reach
    assert 128 * 16 - left <= indices.min()
    assert indices.max() <= 128 * 16 + right
    bands = functional.pad(noise(16 * 128).reshape(1, 16, 128), (64, 64)).requires_grad_()
    (seen,) = torch.autograd.grad(pqmf.synthesis(bands)[0, 0, 2048], bands)
    steps = seen[0].abs().sum(dim=0).nonzero() * 16
    left, right = pqmf.synthesis_reach
    assert 2048 - left <= steps.min()
    assert steps.max() <= 2048 + right


@pytest.mark.parametrize(
    ("num_bands", "attenuation_db"), [(0, 100), (3, 100), (2**20, 100), (-4, 100), (16, 1e6)]
)
def test_a_filter_bank_that_cannot_be_designed_is_refused(num_bands, attenuation_db):
    with pytest.raises(ValueError, match="power of two up to 256, and 20 to 200 dB"):
        PQMF(attenuation_db, num_bands)
