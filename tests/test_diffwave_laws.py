"""Trained models on data whose law is known: what they must learn, and what they cannot.

Each test trains a small network by the command itself and takes some twenty seconds of one core.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffwave_data import autoregression, write_latent_folder
from numpy.typing import NDArray

from diffwave import train
from diffwave.diagnosis.sample_statistics import sliced_wasserstein
from diffwave.model import LatentDiffusion
from diffwave.run import open_run
from diffwave.sampling.generation import Sampling
from diffwave.sampling.samplers import build_sampler, item_generator, sample
from diffwave.schedule import named_schedule

SMALL = [
    "BATCH_SIZE=16",
    "SEGMENT_FRAMES=64",
    "NUM_BLOCKS=3",
    "HIDDEN_CHANNELS=48",
    "LEARNING_RATE=4e-3",
    "WARMUP_STEPS=30",
    "EMA_DECAY=0.99",
    "WEIGHT_DECAY=0.0",
    "FIDELITY=1.0",
    "HELD_OUT_SEGMENTS=256",
    "LOG_EVERY=100",
]
NUM_FILES, NUM_FRAMES = 10, 6000
MEMORIES = (0.6, 0.4, 0.2)
MIX = np.array([[2, 0, 0], [1, 1, 0], [0.5, -0.5, 0.5]], dtype=np.float32)
LEVEL_NOISE = 0.1


@dataclass(frozen=True)
class Trained:
    model: LatentDiffusion
    loss: float
    gaussian: float
    skill: float


def train_on(
    folder: Path, arrays: list[NDArray[np.float32]], num_steps: int, *settings: str
) -> Trained:
    """Train on files of one law; the held-out ones come from it as well."""
    write_latent_folder(folder / "latents", {f"{i}.npy": each for i, each in enumerate(arrays)})
    every = [
        *SMALL,
        f"MAX_STEPS={num_steps}",
        f"VALIDATE_EVERY={num_steps}",
        "HELD_OUT_FRACTION=0.3",
    ]
    options = [text for setting in (*every, *settings) for text in ("--set", setting)]
    run = folder / "run"
    assert (
        train.main([str(folder / "latents"), "--out", str(run), "--device", "cpu", *options]) == 0
    )
    skill = json.loads((run / "skill.json").read_text())
    return Trained(open_run(run).model, skill["held_out_loss"], skill["gaussian"], skill["skill"])


def generated(model: LatentDiffusion, count: int, num_frames: int) -> NDArray[np.float64]:
    """Return raw latents (count, D, num_frames) of 20 steps of DPM-Solver++."""
    clips = Sampling(model, range(count), seed=0, num_steps=20).generate(num_frames)
    return clips.double().numpy()


def test_linear_process_reaches_gaussian_and_is_reproduced(tmp_path: Path) -> None:
    arrays = [
        MIX @ np.concatenate([autoregression(1, NUM_FRAMES, memory, 100 * file + channel)
                              for channel, memory in enumerate(MEMORIES)])
        for file in range(NUM_FILES)
    ]  # fmt: skip
    trained = train_on(tmp_path, arrays, 600)
    assert abs(trained.loss / trained.gaussian - 1) < 0.03
    clips = generated(trained.model, 256, 64)

    covariance = np.einsum("idn,ien->de", clips, clips) / (256 * 64)
    wanted = MIX @ MIX.T
    assert np.linalg.norm(covariance - wanted) < 0.05 * np.linalg.norm(wanted)

    sources = np.einsum("ed,idn->ien", np.linalg.inv(MIX), clips)
    variance = np.square(sources).mean(axis=(0, 2))
    for lag in range(1, 9):
        found = (sources[:, :, lag:] * sources[:, :, :-lag]).mean(axis=(0, 2)) / variance
        assert np.abs(found - np.array(MEMORIES) ** lag).max() < 0.05


def test_white_latents_hold_nothing_to_learn(tmp_path: Path) -> None:
    arrays = [autoregression(3, NUM_FRAMES, 0.0, seed) for seed in range(NUM_FILES)]
    # A new network is the best v-predictor of white latents; a flow-predictor has to learn it.
    trained = train_on(tmp_path, arrays, 300, "PREDICTION='flow'", "SCHEDULE='flow'")
    assert abs(trained.skill) < 0.02


def jumps(num_frames: int, seed: int) -> NDArray[np.float32]:
    """Return a level that jumps between -1 and 1 every ten frames or so, with a little noise."""
    rng = np.random.default_rng(seed)
    turns = np.where(rng.random((1, num_frames)) < 0.1, -1, 1)
    noise = rng.standard_normal((1, num_frames))
    return (np.cumprod(turns, axis=1) + LEVEL_NOISE * noise).astype(np.float32)


def test_jumps_are_learnt_beyond_any_linear_denoiser(tmp_path: Path) -> None:
    trained = train_on(tmp_path, [jumps(NUM_FRAMES, seed) for seed in range(NUM_FILES)], 400)
    assert trained.skill > 0.3
    edges = np.arange(-2.125, 2.2, 0.25)

    def histogram(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.histogram(values, edges)[0] / values.size

    def total_variation(values: NDArray[np.floating]) -> float:
        return 0.5 * float(np.abs(histogram(values) - histogram(jumps(400_000, seed=99))).sum())

    clips = generated(trained.model, 256, 64)
    assert total_variation(clips) < 0.1
    normal = np.random.default_rng(0).standard_normal(400_000) * np.sqrt(1 + LEVEL_NOISE**2)
    assert total_variation(normal) > 0.3  # what a linear denoiser would generate
    share_of_jumps = (np.sign(clips[:, :, 1:]) != np.sign(clips[:, :, :-1])).mean()
    assert share_of_jumps == pytest.approx(0.1, abs=0.03)


def test_sliced_wasserstein_distance_is_that_of_shifted_and_scaled_data() -> None:
    rng = np.random.default_rng(0)
    real = rng.standard_normal((2000, 3, 8))
    assert sliced_wasserstein(real, real, 8) == 0
    same = sliced_wasserstein(rng.standard_normal((2000, 3, 8)), real, 8)
    assert same < 0.1
    # Along a unit direction a factor f moves each quantile q of N(0, 1) to f·q.
    assert sliced_wasserstein(1.5 * real, real, 8) == pytest.approx(0.5, rel=0.03)
    # A shift of 1 in each of K channels is 1 long, on average, along a unit direction.
    assert sliced_wasserstein(real + 1, real, 1) == pytest.approx(1, rel=0.15)
    # Single frames cannot tell which follows which.
    smooth = np.stack([autoregression(3, 64, 0.95, seed) for seed in range(400)])
    frames = smooth.transpose(0, 2, 1).reshape(-1, 3)
    shuffled = rng.permutation(frames).reshape(400, 64, 3).transpose(0, 2, 1)
    assert sliced_wasserstein(shuffled, smooth, 1) < 0.01
    assert sliced_wasserstein(shuffled, smooth, 16) > 0.2


def test_twenty_solver_steps_are_as_good_as_250_ancestral_ones() -> None:
    """On a mixture whose exact denoiser is known: two slow states with a little noise."""
    schedule = named_schedule("cosine")
    rng = np.random.default_rng(0)
    num_frames, power, shape = 16, 0.04, (20, 300, 16)
    # A segment has one level throughout, -1 or 1, and an AR(1) on top.
    lag = np.abs(np.subtract.outer(np.arange(num_frames), np.arange(num_frames)))
    covariance = power * 0.9**lag
    noise = rng.standard_normal(shape) @ np.linalg.cholesky(covariance).T
    real = rng.choice([-1.0, 1.0], (*shape[:2], 1)) + noise
    variances, modes = (torch.from_numpy(part).float() for part in np.linalg.eigh(covariance))
    level = modes.T.sum(dim=1)  # of a state of 1, in the modes

    def exact(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        alpha_bar = float(schedule.alpha_bar[int(timestep[0])])
        spread = alpha_bar * variances + 1 - alpha_bar
        seen = noisy @ modes
        # The odds of state 1 against -1, then Wiener's filter around the state.
        log_odds = 2 * alpha_bar**0.5 * (seen * level / spread).sum(dim=-1, keepdim=True)
        state = torch.tanh(log_odds / 2) * level
        rest = seen - alpha_bar**0.5 * state
        return (state + alpha_bar**0.5 * variances / spread * rest) @ modes.T

    def distance(name: str, num_steps: int) -> float:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        generators = [item_generator(2, index) for index in range(shape[0])]
        sampler = build_sampler(name, schedule, num_steps)
        latents = sample(exact, sampler, noise, generators).numpy()
        points = [each.reshape(-1, 1, num_frames) for each in (latents, real)]
        return sliced_wasserstein(points[0], points[1], num_frames)

    assert distance("dpm-solver++", 20) < 1.05 * distance("ddpm", 250)
