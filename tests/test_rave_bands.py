"""Layers along frequency, and the spectrum at the oscillators: what they read, and begin as."""

import math

import pytest
import torch
from rave_models import FEW_OSCILLATORS, SMALL
from torch import nn

from rave.blocks.oscillators import BandConv, OscillatorBank
from rave.blocks.signals import LogSpectrogram
from rave.experiment import new_model, parse_recipe

BANDS, STEPS, IN, OUT = 20, 12, 2, 3
WINDOWS, KEPT, RATE_HZ = (4096, 1024), (768, 512), 22050


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(kernel_bands=5, kernel_steps=3, is_causal=False, shift=True):
    made = BandConv(BANDS, IN, OUT, kernel_bands, kernel_steps, is_causal)
    if shift:
        made.shift.data.normal_()
    return made.requires_grad_(False)


def grid(rows):
    return rows.unflatten(1, (-1, BANDS))


@pytest.mark.parametrize(("kernel_bands", "kernel_steps"), [(5, 3), (1, 1), (9, 5), (3, 4)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_it_is_a_convolution_of_the_grid_and_a_number_of_each_band(
    kernel_bands, kernel_steps, is_causal
):
    made, x = layer(kernel_bands, kernel_steps, is_causal), normal(2, IN * BANDS, STEPS)
    plain = nn.Conv2d(IN, OUT, (kernel_bands, kernel_steps), padding=(kernel_bands // 2, 0))
    plain.weight.data, plain.bias.data = made.weight, torch.zeros(OUT)
    before = kernel_steps - 1 if is_causal else (kernel_steps - 1) // 2
    padded = nn.functional.pad(x, (before, kernel_steps - 1 - before))
    wanted = plain(grid(padded)) + made.shift
    found = made(x)
    assert found.shape == (2, OUT * BANDS, STEPS)
    assert torch.allclose(grid(found), wanted, atol=1e-5)


@pytest.mark.parametrize("bands", [1, 3])
def test_what_moves_by_bands_comes_out_as_many_bands_further(bands):
    made, x = layer(shift=False), normal(1, IN * BANDS, STEPS)
    found = grid(made(x))
    moved = grid(made(grid(x).roll(bands, dims=2).flatten(1, 2)))
    inside = slice(2, BANDS - 2 - bands)
    assert torch.allclose(moved[:, :, bands:][:, :, inside], found[:, :, inside], atol=1e-5)
    assert not torch.allclose(moved[:, :, inside], found[:, :, inside], atol=1e-1)


def test_a_causal_one_sees_nothing_later_and_another_one_step():
    x = normal(1, IN * BANDS, STEPS)
    changed = x.clone()
    changed[..., 7:] += 1
    for is_causal, first in ((True, 7), (False, 6)):
        made = layer(is_causal=is_causal)
        gap = (made(changed) - made(x)).abs().amax(dim=(0, 1))
        assert torch.equal(gap > 0, torch.arange(STEPS) >= first)


# The spectrum at the oscillators


@pytest.fixture(scope="module")
def bank():
    return OscillatorBank(RATE_HZ, 1, 256, 27.5, 20.0, 4.0, 43.0)


def rising(slopes):
    """Return the rows of spectra that rise with frequency, by another slope in each window."""
    rows = []
    for size, kept, slope in zip(WINDOWS, KEPT, slopes, strict=True):
        rows.append(slope * torch.arange(kept, dtype=torch.float64) * RATE_HZ / size)
    return torch.cat(rows)


def test_what_is_linear_in_frequency_is_read_exactly_in_each_window(bank):
    spectrogram, slopes = LogSpectrogram(WINDOWS, KEPT, 256), (1.0, -2.0)
    places = spectrogram.rows_at(bank.frequencies_hz, RATE_HZ).double()
    assert places.shape == (3 * bank.size, sum(KEPT))
    found = places @ rising(slopes)
    highest_hz = [(kept - 1) * RATE_HZ / size for size, kept in zip(WINDOWS, KEPT, strict=True)]
    inside = [bank.frequencies_hz.clamp(max=each) for each in highest_hz]
    chosen, *each = found.reshape(3, bank.size)
    for heard, slope, frequencies in zip(each, slopes, inside, strict=True):
        assert torch.allclose(heard, slope * frequencies, rtol=1e-5)
    # First of the long window, and of the short one where the long one does not reach.
    is_long = bank.frequencies_hz <= highest_hz[0]
    assert 0.4 < float(is_long.double().mean()) < 0.8
    wanted = torch.where(is_long, slopes[0] * inside[0], slopes[1] * inside[1])
    assert torch.allclose(chosen, wanted, rtol=1e-5)


def test_each_oscillator_hears_one_or_two_bins_whose_shares_are_1(bank):
    """The highest one lies above the highest bin, and is not left without any."""
    assert float(bank.frequencies_hz[-1]) > (KEPT[1] - 1) * RATE_HZ / WINDOWS[1]
    places = LogSpectrogram(WINDOWS, KEPT, 256).rows_at(bank.frequencies_hz, RATE_HZ)
    assert torch.allclose(places.sum(1), torch.ones(3 * bank.size), atol=1e-6)
    assert float(places.min()) >= 0
    assert set((places > 0).sum(1).tolist()) <= {1, 2}


def test_amplitudes_begin_as_the_share_of_the_spectrum_and_stay_below_1():
    parse_recipe("rave", "small", [*SMALL, *FEW_OSCILLATORS])
    decoder = new_model().decoder.requires_grad_(False)
    shape = (1, decoder.size, 5)
    assert not decoder.net(normal(1, 2 * decoder.size, 5)).any()
    for power in (1e-8, 1e-4, 1e-2, 1.0, 1e4):
        row = 0.25 * math.log(power) + 3.0
        amplitude = decoder.amplitudes(torch.full(shape, row), torch.zeros(shape))
        share = 0.5 * math.sqrt(power)
        wanted = max(share / (1 + share) - 0.5e-4, 0.0)  # without the floor of the spectrogram
        assert torch.allclose(amplitude, torch.full(shape, wanted), rtol=1e-4, atol=1e-7)
