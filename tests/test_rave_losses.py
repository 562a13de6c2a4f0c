"""Spectral distances: what they cost, what they do not, and their gradients."""

import math

import pytest
import torch
from rave_runs import checkpoint, prepare, train

from rave.compute.device import choose_precision
from rave.losses import (
    DecibelDistance,
    SpectralDistance,
    log_spectral_distance_db,
    power_spectra,
    waveform_distance,
)

SCALES = [1024, 256]


def noise(level: float, *shape: int, seed: int = 0) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sine(amplitude: float, num_samples: int = 8192) -> torch.Tensor:
    return amplitude * torch.sin(0.3 * torch.arange(num_samples))[None, None]


@pytest.mark.parametrize("size", [2048, 512, 128])
@pytest.mark.parametrize("num_samples", [2048, 3001])
def test_power_spectra_and_their_gradient_are_those_of_torch(size, num_samples):
    window = torch.hann_window(size, dtype=torch.float64)
    signals = noise(1.0, 2, num_samples).double().requires_grad_()
    power = power_spectra(signals, window)
    spectrum = torch.stft(signals, size, size // 4, window=window, return_complex=True)
    expected = spectrum.abs().square().transpose(1, 2)
    torch.testing.assert_close(power, expected)
    weights = noise(1.0, *power.shape, seed=1).double()
    gradients = [torch.autograd.grad((p * weights).sum(), signals)[0] for p in (power, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", [SpectralDistance, DecibelDistance])
def test_a_distance_is_least_for_the_target_and_its_gradient_is_finite_in_silence(kind):
    distance = kind(SCALES, 1e-3)
    audio = noise(0.1, 2, 1, 8192)
    same, near = distance(audio, audio), distance(audio, 0.9 * audio)
    assert same < 0.01 < near < distance(audio, 0.5 * audio)
    silence = torch.zeros(2, 1, 8192, requires_grad=True)
    distance(audio, silence).backward()
    assert silence.grad.isfinite().all()


def test_the_decibel_distance_knows_a_gain_in_nepers_at_every_scale():
    for scale in SCALES:
        distance = DecibelDistance([scale], 1e-7, level_weight=0.0)
        audio = noise(0.1, 1, 1, 8192)
        relative = (1 - 0.5) ** 2
        expected = math.log(2) + relative
        assert float(distance(audio, 0.5 * audio)) == pytest.approx(expected, rel=1e-3)


def test_what_lies_under_the_floor_costs_nothing_in_decibels_and_much_in_acids_logarithm():
    tone, hiss = sine(0.5), noise(1e-6, 1, 1, 8192)
    assert DecibelDistance(SCALES, 1e-3)(tone, tone + hiss) < 0.01
    assert SpectralDistance(SCALES, 1e-7)(tone, tone + hiss) > 0.5
    assert log_spectral_distance_db(tone, tone + hiss) < 0.01


def test_the_level_weight_counts_the_powers_of_frames():
    audio = noise(0.1, 1, 1, 8192)
    with_level, without = (
        DecibelDistance([256], 1e-7, level_weight=w)(audio, 2 * audio) for w in (1.0, 0.0)
    )
    assert float(with_level - without) == pytest.approx(math.log(2), rel=1e-2)


def test_the_waveform_distance_is_1_for_silence_and_2_for_another_phase():
    audio = noise(0.1, 2, 1, 1 << 16)
    other = noise(0.1, 2, 1, 1 << 16, seed=1)
    assert float(waveform_distance(audio, 0 * audio)) == pytest.approx(1.0, rel=1e-3)
    assert float(waveform_distance(audio, other)) == pytest.approx(2.0, rel=2e-2)
    assert float(waveform_distance(audio, audio)) == 0


def test_the_precision_is_auto_or_what_the_recipe_says():
    cpu = torch.device("cpu")
    assert choose_precision("32-true", cpu) == "32-true"
    assert choose_precision("bf16-mixed", cpu) == "bf16-mixed"
    is_fast = torch.cpu._is_avx512_bf16_supported()
    assert choose_precision("auto", cpu) == ("bf16-mixed" if is_fast else "32-true")
    with pytest.raises(ValueError, match="PRECISION is '16'"):
        choose_precision("16", cpu)


def test_a_training_in_bfloat16_resumes_bit_for_bit(tmp_path):
    prepared = prepare(tmp_path)
    settings = ("PRECISION='bf16-mixed'", "WAVEFORM_WEIGHT=4.0")
    assert train(prepared, tmp_path / "whole", *settings) == 0
    assert train(prepared, tmp_path / "halves", *settings, "MAX_STEPS=4") == 0
    assert train(prepared, tmp_path / "halves", *settings) == 0
    whole, halves = (checkpoint(tmp_path / name)["state_dict"] for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    assert all(weight.dtype != torch.bfloat16 for weight in whole.values())


@pytest.mark.parametrize("gain", [0.0, 0.5, 2.0, 1000.0])
def test_a_bounded_distance_is_at_most_1_however_loud_and_counts_signals_alike(gain):
    """(1 - g)² / (1 + g²) of a gain g, where a high floor silences the logarithms."""
    distance = DecibelDistance([512], 1e6, level_weight=0.0, is_bounded=True)
    signals = torch.cat([noise(0.01, 1, 8192), noise(1.0, 1, 8192, seed=1)])[:, None]
    wanted = (1 - gain) ** 2 / (1 + gain**2)
    for each in (signals, signals[:1], signals[1:]):
        assert float(distance(each, gain * each)) == pytest.approx(wanted, abs=2e-2)
    mixed = signals * torch.tensor([gain, 1.0])[:, None, None]
    assert float(distance(signals, mixed)) == pytest.approx(wanted / 2, abs=2e-2)
