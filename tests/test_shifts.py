"""Latents that move with the sound score 1; latents that carry the phase score what theory says."""

from __future__ import annotations

import numpy as np
import pytest

from rave.compute.arrays import Float32Array
from rave.latents.shifts import shift_consistency

HOP = 256


def noise(seed: int, num_frames: int = 400) -> Float32Array:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, num_frames * HOP)).astype(np.float32)


def copied(audio: Float32Array) -> Float32Array:
    """Latents that are the samples of the frame."""
    return audio[0].reshape(-1, HOP).T


def magnitudes(audio: Float32Array) -> Float32Array:
    """Latents that are the magnitudes of a spectrum over 64 hops around the frame."""
    padded = np.pad(audio[0], 32 * HOP)
    frames = np.lib.stride_tricks.sliding_window_view(padded, 64 * HOP)[::HOP][:-1]
    spectra = np.abs(np.fft.rfft(frames * np.hanning(64 * HOP), axis=1))
    return np.asarray(spectra[:, :200].T, dtype=np.float32)


def test_copied_white_samples_score_what_independence_says() -> None:
    found = shift_consistency(copied, [noise(0), noise(1)], HOP)
    assert found.shifts == [1, 8, 16, 128]
    # E(a − b)² = 2 for independent samples of variance 1, and 1 + (1 − s)² + s² between two frames.
    for shift, same, between in zip(found.shifts, found.same, found.between, strict=True):
        share = shift / HOP
        assert same == pytest.approx(-1.0, abs=0.02)
        assert between == pytest.approx(-((1 - share) ** 2 + share**2), abs=0.02)
    assert np.shape(found.by_axis) == (4, HOP)


def test_magnitudes_of_long_windows_stay_and_move_on() -> None:
    found = shift_consistency(magnitudes, [noise(2)], HOP)
    assert found.at(1) > 0.999
    assert found.at(16) > 0.99
    assert found.between[-1] > 0.98
    assert found.between[-1] > found.same[-1]  # half a hop: nearer to what lies between two frames


def test_a_sine_in_its_own_samples_scores_as_its_phase_turns() -> None:
    period = 64
    phase = 2 * np.pi * np.arange(400 * HOP) / period
    # A slow vibrato of the level, so that latents vary over time.
    level = 1 + 0.5 * np.sin(2 * np.pi * np.arange(400 * HOP) / (37 * HOP))
    audio = (level * np.sin(phase)).astype(np.float32)[None]

    def encode(block: Float32Array) -> Float32Array:
        """Latents that are the spectrum at the sine, with its phase."""
        wave = np.exp(-2j * np.pi * np.arange(HOP) / period)
        parts = block[0].reshape(-1, HOP) @ wave
        return np.asarray([parts.real, parts.imag], dtype=np.float32)

    found = shift_consistency(encode, [audio], HOP)
    # Turned by an angle a, a vector r is off by |r|²·2(1 − cos a).
    variance = 0.5**2 / 2
    for shift, same in zip(found.shifts, found.same, strict=True):
        turned = 2 * (1 - np.cos(2 * np.pi * shift / period)) * (1 + variance)
        assert same == pytest.approx(1 - turned / variance, rel=0.05, abs=0.05)


def test_short_audio_is_refused() -> None:
    with pytest.raises(ValueError, match="At least eight latent frames"):
        shift_consistency(copied, [noise(3, 7)], HOP)
