"""The regression from spectrograms to latents explains what is linear in them, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from diffwave.diagnosis.predictability import Pair, explained_share


def pairs(seed: int, heard: float, count: int = 6, num_frames: int = 500) -> list[Pair]:
    """Return spectrograms (5, 4·N), and latents (3, N) that have a share `heard` of them."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(0).standard_normal((3, 5))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    found = []
    for _ in range(count):
        spectrogram = rng.standard_normal((5, 4 * num_frames))
        known = weights @ spectrogram[:, 2::4]
        noise = rng.standard_normal(known.shape)
        found.append((spectrogram, np.sqrt(heard) * known + np.sqrt(1 - heard) * noise + 3.0))
    return found


@pytest.mark.parametrize("heard", [0.0, 0.3, 0.8])
def test_the_share_that_is_heard_is_explained(heard: float) -> None:
    found = explained_share(pairs(1, heard), pairs(2, heard))
    # The ridge leaves (ridge / (1 + ridge))² of what is heard; 60 inputs learn a little noise.
    assert found == pytest.approx(heard * (1 - (0.1 / 1.1) ** 2), abs=0.04)


def test_the_frame_before_counts_too() -> None:
    training, held_out = (
        [(spectrogram, np.roll(latents, 1, axis=1)) for spectrogram, latents in pairs(seed, 1.0)]
        for seed in (1, 2)
    )
    assert explained_share(training, held_out) > 0.95


def test_two_frames_before_are_not_seen() -> None:
    training, held_out = (
        [(spectrogram, np.roll(latents, 2, axis=1)) for spectrogram, latents in pairs(seed, 1.0)]
        for seed in (1, 2)
    )
    assert explained_share(training, held_out) < 0.05
