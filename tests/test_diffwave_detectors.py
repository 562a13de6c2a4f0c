"""Detectors of failures, on figures on either side of what they tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffwave.diagnosis.conditioner import ignored_conditioner
from diffwave.diagnosis.network import foreign_schedule, other_schedule
from diffwave.diagnosis.samples import (
    Trace,
    clamped_sampler,
    exploding_norm,
    level_lost,
    memorised,
    nearest_distances,
    silent_decode,
)
from diffwave.schedule import named_schedule


def test_a_copy_is_near_at_any_offset_and_level() -> None:
    rng = np.random.default_rng(0)
    music = rng.standard_normal((3, 500))
    cut = np.stack([music[:, start : start + 16] for start in (0, 37, 484)])
    parts = [music[:, :300], music[:, 300 - 15 :], music[:, :7]]
    assert nearest_distances(5.0 * cut, parts) == pytest.approx(np.zeros(3), abs=1e-9)
    far = nearest_distances(rng.standard_normal((50, 3, 16)), parts)
    assert 0.4 < far.min() < far.max() < 1.0
    assert memorised(nearest_distances(cut, parts), far) is not None
    assert memorised(0.6 * far, far) is None


def test_figures_short_of_a_failure_are_none() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 50_000)).astype(np.float32)
    assert clamped_sampler(values) is None
    assert clamped_sampler(values.clip(-4, 4)) is None  # 6 values of a hundred thousand
    assert clamped_sampler(values.clip(-3, 3)) is not None
    assert clamped_sampler(values.clip(-9, 1)) is not None  # at one end only
    assert clamped_sampler(np.zeros((2, 1000))) is None
    still = np.concatenate([values, np.full((1, 50_000), 9.0)])  # a collapsed dimension
    assert clamped_sampler(still) is None
    std = np.array([4.0, 1.0, 0.01])
    assert level_lost(1.9 * std, std) is None
    assert level_lost(std * [1.0, 1.0, 0.0], std) is None  # left out by FIDELITY
    assert level_lost(0.4 * std, std) is not None
    assert level_lost(np.ones(3), std) is not None
    # An odd level is not the codec's fault; latents of the right level are.
    assert silent_decode(-90.0, -20.0, 0.3) is None
    assert silent_decode(-39.0, -20.0, 1.0) is None
    assert silent_decode(-41.0, -20.0, 1.0) is not None
    found = silent_decode(-70.0, -70.0, 1.0)
    assert found is not None
    assert "Held-out latents decode to -70 dB" in found.message


def test_exploding_norm_tells_where_it_begins() -> None:
    calm = Trace(np.linspace(0, 1, 21), np.full(21, 1.9), np.ones(21), np.ones(20), np.ones(20))
    assert exploding_norm(calm) is None
    noisy = calm.noisy.copy()
    noisy[13:] = 7.0
    found = exploding_norm(replace(calm, noisy=noisy))
    assert found is not None
    assert "up to 7.0 times" in found.message
    assert "after sampling step 13 of 20" in found.message


def test_a_schedule_is_foreign_to_one_side_at_most_levels_and_to_what_has_learned() -> None:
    right, nothing = np.full((5, 9), 0.5), np.ones(5)
    assert foreign_schedule(right, nothing) is None  # it does not care what it is told
    less = right.copy()
    less[:3, 1] = 0.4
    found = foreign_schedule(less, nothing)
    assert found is not None
    assert "At 3 of 5 noise levels" in found.message
    assert "the error falls to 0.80 with a timestep of less noise than there is" in found.message
    assert foreign_schedule(less[[0, 1, 3, 4]], nothing[:4]) is None  # half of the levels
    both = less.copy()
    both[3, 7] = 0.4
    assert foreign_schedule(both, nothing) is None
    assert foreign_schedule(less, np.full(5, 0.3)) is None  # to predict nothing is better


def test_schedules_of_other_lengths_and_levels_differ() -> None:
    cosine = named_schedule("cosine")
    assert other_schedule(cosine, named_schedule("cosine")) is None
    found = other_schedule(cosine, named_schedule("diffwave"))
    assert found is not None
    assert "has 1000 timesteps, not the 50 of" in found.message


def test_a_condition_is_ignored_only_by_what_has_learned() -> None:
    gains, changes = {"loudness": 1.5, "label": 1.001}, {"loudness": 0.9, "label": 0.01}
    found = ignored_conditioner(gains, changes, 0.5, 0.9)
    assert found is not None
    assert "label (gain 1.001, prediction changed by 1.0%)" in found.message
    assert "loudness" not in found.message
    assert ignored_conditioner(gains, changes, 0.91, 0.9) is None
    # It says little, but is listened to.
    assert ignored_conditioner(gains, {**changes, "label": 0.3}, 0.5, 0.9) is None
