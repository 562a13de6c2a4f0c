"""A codec whose latents carry the phase is named; one that hears magnitudes is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffwave_data import RATE_HZ
from numpy.typing import NDArray
from test_shifts import HOP, copied, magnitudes, noise

from diffwave.diagnosis.failures import PHASE_IN_LATENTS
from diffwave.diagnosis.phase import NUM_MOVED, measure_phase, phase_in_latents

Array = NDArray[np.float32]
NUM_FRAMES = 130


def measured(encode: Any, num_segments: int = 2, num_frames: int = NUM_FRAMES) -> Any:
    """Return the figures of a codec that decodes segment n to `noise(n)`, and what it decoded."""
    decoded: list[float] = []

    def decode(latents: Array, _: Any) -> Array:
        decoded.append(float(latents[0, 0]))
        return noise(int(latents[0, 0]), num_frames)

    given: Any = SimpleNamespace(
        decode=decode,
        encode=lambda audio: (encode(audio), None),
        format=SimpleNamespace(hop_samples=HOP),
    )
    numbers = np.arange(num_segments, dtype=np.float64)[:, None, None]
    latents = np.broadcast_to(numbers, (num_segments, 3, num_frames))
    return measure_phase(given, latents, None), decoded  # type: ignore[arg-type]


def test_a_codec_that_copies_samples_is_named_with_its_figure() -> None:
    moved, _ = measured(copied)
    found = phase_in_latents(moved, RATE_HZ)
    assert found is not None
    assert found.name == PHASE_IN_LATENTS
    # E(a − b)² = 2 for independent samples of variance 1.
    assert moved.at(16) == pytest.approx(-1.0, abs=0.03)
    assert f"moves by 1.00 ms, its latents keep {moved.at(16):.2f} of" in found.message
    assert "--config small" in str(found)


def test_a_codec_that_hears_magnitudes_is_not() -> None:
    moved, _ = measured(magnitudes)
    assert moved.at(16) > 0.98
    assert phase_in_latents(moved, RATE_HZ) is None


def test_the_share_that_is_reported() -> None:
    for share, is_found in ((0.49, True), (0.5, False)):
        changed = SimpleNamespace(shifts=[1, 16, 128], at=lambda shift, s=share: {16: s}[shift])
        found = phase_in_latents(changed, RATE_HZ)  # type: ignore[arg-type]
        assert (found is not None) == is_found


def test_only_a_few_segments_are_decoded_and_short_ones_are_left_out() -> None:
    _, decoded = measured(magnitudes, NUM_MOVED + 2)
    assert decoded == [*range(NUM_MOVED)]
    for num_frames, is_measured in ((7, False), (8, True)):
        moved, _ = measured(copied, 2, num_frames)
        assert (moved is not None) == is_measured
    assert phase_in_latents(None, RATE_HZ) is None


def test_silence_has_no_phase() -> None:
    moved, _ = measured(lambda audio: np.zeros((3, audio.shape[1] // HOP), dtype=np.float32))
    assert moved.same == moved.between == [1.0] * 4
    assert phase_in_latents(moved, RATE_HZ) is None
