"""What training draws at random, as arrays (I, n) of what its items draw with a seed.

An item is what should not depend on another: a step, a file, a clip or a window. Laws of the values
are in test_draws.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace as Fake
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from rave_runs import tiny_parts

from diffwave import training
from diffwave.dataset import SegmentDataset
from diffwave.denoiser import stratified_timesteps
from diffwave.training import DiffusionSystem
from rave import augmentation
from rave.blocks import bottleneck
from rave.blocks.noise import NoiseGenerator
from rave.blocks.posterior import DiagonalGaussian
from rave.blocks.quantizer import _draw as drawn_vectors
from rave.compute.distributed import ONE_PROCESS
from rave.dataset import AudioRange, PreparedAudioDataset
from rave.latent_dataset import Clip
from rave.losses import SpectralDistance
from rave.model import RAVE
from rave.prior_training import PriorSegments
from rave.training import RaveSystem

Array = NDArray[Any]
RATE_HZ = 44100
NEVER = 0.0  # what stands for a change of a crop that is not made


def torch_seeded(seed: int) -> torch.Generator:
    """Return a generator of torch."""
    return torch.Generator().manual_seed(seed)


def generators(count: int, seed: int) -> Iterator[np.random.Generator]:
    """Yield generators of items, as datasets make them."""
    return (np.random.default_rng((seed, index)) for index in range(count))


# Training of the codec


def polarities(seed: int) -> Array:
    """Return the factors of the crops, which each step of training draws."""
    heard: list[torch.Tensor] = []

    class System(RaveSystem):
        global_step = 0

        def _generator_loss(self, audio: Any, generator: Any) -> Any:
            assert (audio == audio[:, :1, :1]).all()  # of a whole crop
            heard.append(audio[:, 0, 0])
            return torch.zeros(())

        def optimizers(self, use_pl_optimizer: bool = True) -> Any:
            return [Fake(param_groups=[], zero_grad=lambda **_: None, step=lambda: None)] * 2

        def manual_backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
            """Nothing is learnt."""

    system = System(*tiny_parts(f"SEED={seed}", "MAX_STEPS=1000", "PHASE_1_STEPS=1000"))
    for step in range(100):
        System.global_step = step
        system.training_step(torch.ones(16, 2, 4), 0)
    return torch.stack(heard).numpy()


def noise_rows(seed: int) -> Array:
    """Return the noise that a decoder in training gets beside its latents."""
    latents = torch.zeros(8, 2, 50)
    rows = RAVE.with_noise_rows(Fake(num_noise_rows=5), latents, torch_seeded(seed))
    assert rows.shape == (8, 7, 50)
    return rows[:, 2:].flatten(1).numpy()


def training_bands(seed: int) -> Array:
    """Return the noise that a noisy decoder shapes in training."""
    model = Fake(decoder_noise_rows=6, noise_steps_per_frame=4, has_clock=False)
    found = RAVE.band_noise(model, torch.zeros(8, 2, 50), torch_seeded(seed))
    assert found is not None and found.shape == (8, 6, 200)
    return found.flatten(1).numpy()


def clocks(seed: int) -> Array:
    """Return the first step of the clock of each crop."""
    model = Fake(decoder_noise_rows=0, noise_steps_per_frame=1, has_clock=True)
    found = RAVE.band_noise(model, torch.zeros(2000, 2, 1), torch_seeded(seed))
    assert found is not None and found.shape == (2000, 1, 1)
    return found[:, 0].numpy()


def rows_that_are_missing(seed: int) -> Array:
    """Return the rows that a decoder adds where none are given."""
    torch.manual_seed(seed)
    model = Fake(
        latent_size=2,
        num_noise_rows=3,
        bottleneck=Fake(project=lambda latents: latents),
        decoder=lambda latents, noise: latents,
    )
    found = RAVE.decoder_output(model, torch.zeros(8, 2, 50))
    return found[:, 2:].flatten(1).numpy()


def bands_that_are_missing(seed: int) -> Array:
    """Return the noise of a noisy decoder where none is given."""
    torch.manual_seed(seed)
    shaper = Fake(
        out_channels=5, net=lambda hidden: hidden, shaped=lambda _, noise: noise, lead_steps=0
    )
    found = NoiseGenerator.forward(shaper, torch.zeros(8, 2, 100))
    return found.flatten(1).numpy()


def posterior_samples(seed: int) -> Array:
    """Return draws from a posterior of mean 0 and std 1."""
    zeros = torch.zeros(8, 4, 100)
    return DiagonalGaussian(zeros, zeros + 1).sample(torch_seeded(seed)).flatten(1).numpy()


def scales(seed: int) -> Array:
    """Return which scale of four each step takes."""
    taken: list[float] = []

    class Distance(SpectralDistance):
        def of_powers(self, x: Any, y: Any, window: Any, batch: Any) -> Any:
            taken.append(math.log2(len(window) / 8))
            return torch.zeros(())

    distance = Distance([8, 16, 32, 64], 1.0, num_scales_per_step=1)
    audio = torch.zeros(1, 1, 64)
    for step in range(300):
        distance(audio, audio, torch_seeded(1000 * seed + step))
    return np.array(taken)[:, None]


def penalty_draws(seed: int) -> Array:
    """Return what points are compared with, step by step."""
    drawn: list[Any] = []
    points = DiagonalGaussian(torch.zeros(2, 4, 50), torch.ones(2, 4, 50))
    with patch.object(bottleneck, "mean_discrepancy", lambda _, normal: drawn.append(normal)):
        for step in range(8):
            bottleneck.Wasserstein.penalty(None, points, torch_seeded(100 * seed + step))
    return torch.stack(drawn).flatten(1).numpy()


def crops(seed: int, is_pitched: bool = False) -> list[tuple[int, int, float]]:
    """Return range, start in it, and speed of crops."""
    pitch = augmentation.RandomPitch(1.0, 0.5, 2.0) if is_pitched else None
    ranges = [AudioRange(Fake(name="a"), 7, 7 + length) for length in (300, 900)]
    dataset = Fake(
        seed=seed,
        ranges=ranges,
        crop_samples=100,
        augmentations=augmentation.Augmentations(pitch),
        _range_ends=np.cumsum([piece.num_samples for piece in ranges]),
    )
    drawn = (PreparedAudioDataset._drawn(dataset, index) for index in range(1200))
    return [(ranges.index(piece), start, ratio) for _, piece, start, ratio in drawn]


def starts(seed: int, of: int) -> Array:
    """Return where crops of a range begin."""
    return np.array([start for number, start, _ in crops(seed) if number == of])[:, None]


def pitched_starts(seed: int) -> Array:
    """Return where crops begin in what a crop of their speed leaves of a range, 0 to 1."""
    found = [
        start / ((300, 900)[number] - math.ceil(100 * ratio))
        for number, start, ratio in crops(seed, is_pitched=True)
    ]
    return np.array(found)[:, None]


def prior_places(seed: int) -> Array:
    """Return which of all segments of two clips the prior is trained on."""
    clips: Any = [Clip(Fake(first=first), 0, 60) for first in (0.0, 100.0)]

    def read(clip: Any) -> Array:
        return clip.file.first + np.arange(clip.start, clip.stop, dtype=np.float32)[None]

    latents: Any = Fake(read=read)
    segments = PriorSegments(latents, clips, 11, 1000, seed)
    firsts = np.array([float(segments[index][0, 0]) for index in range(1000)])
    return np.where(firsts < 100, firsts, firsts - 50)[:, None]


def changed(change: Any, audio: Array, measure: Callable[[Array], float]) -> Any:
    """Return a draw: what is measured of a crop that an augmentation has changed."""

    def values(seed: int) -> Array:
        found = [measure(change(audio, RATE_HZ, each)) for each in generators(1000, seed)]
        return np.array(found)[:, None]

    return values


def phase_hz(response: Array) -> float:
    """Return the logarithm of the frequency of an all-pass filter, from its answer to a click."""
    if response[0, 0] == 1:
        return NEVER
    radius = augmentation.POLE_RADIUS
    cosine = -response[0, 1] / (1 - radius**2) / (2 * radius)
    return math.log(math.acos(cosine) * RATE_HZ / 2 / math.pi)


def compressed_levels(seed: int) -> Array:
    """Return the levels that the compressor brings its threshold to."""
    found: list[float] = []

    def compress(audio: Array, rate_hz: int, corners: Any, **_: Any) -> Array:
        found.append(corners[1][1])
        return audio

    change, audio = augmentation.RandomCompress(), np.zeros((1, 4), np.float32)
    with patch.object(augmentation, "compress", compress):
        for number, each in enumerate(generators(1000, seed), 1):
            change(audio, RATE_HZ, each)
            found += [1.0] * (number - len(found))
    return np.array(found)[:, None]


def dequantisation(seed: int) -> Array:
    """Return the noise of a step of 16-bit samples, in steps."""
    zeros, change = np.zeros((2, 300), np.float32), augmentation.Dequantise()
    found = [change(zeros, RATE_HZ, each).ravel() * 32768 for each in generators(8, seed)]
    return np.stack(found)


def speeds(seed: int) -> Array:
    """Return the logarithms of the speeds that crops are played at."""
    pitch = augmentation.RandomPitch()
    return np.log([pitch.draw(each) for each in generators(1000, seed)])[:, None]


# Training of the diffusion model


class _Reader:
    """Reads nothing."""


def segments(seed: int) -> list[tuple[str, int]]:
    """Return clip and start of segments."""
    files = [Fake(path=name) for name in "ab"]
    clips = [Clip(files[0], 5, 105), Clip(files[1], 0, 300)]
    dataset = SegmentDataset(_Reader(), clips, 20, seed)
    drawn = [dataset._drawn(index) for index in range(1200)]
    return [(clip.file.path, start) for clip, start in drawn]


def segment_starts(seed: int) -> Array:
    """Return where segments of the longer clip begin."""
    return np.array([start for name, start in segments(seed) if name == "b"])[:, None]


def _step_of(seed: int) -> list[tuple[Array, Array]]:
    """Return noise and timesteps of steps of training."""
    drawn: list[tuple[Array, Array]] = []

    def losses(model: Any, latents: Any, mask: Any, noise: Any, timestep: Any, _: Any) -> Any:
        drawn.append((noise.numpy(), timestep.numpy()))
        return torch.zeros(1)

    system = Fake(
        settings=Fake(seed=seed, condition_dropout=0.1),
        objective=Fake(losses=losses),
        model=Fake(
            schedule=range(50), conditioners={}, standardizer=None, condition=lambda *_: None
        ),
        log=lambda *_, **__: None,
        global_batch=ONE_PROCESS,
    )
    latents = torch.zeros(8, 3, 40)
    batch: Any = {"mask": None}
    with patch.object(training, "standardized", lambda *_: latents):
        for step in range(40):
            system.global_step = step
            DiffusionSystem.training_step(system, batch, 0)
    return drawn


def diffusion_noise(seed: int) -> Array:
    """Return the noise of training, item by item."""
    return np.concatenate([noise for noise, _ in _step_of(seed)[:4]]).reshape(32, -1)


def diffusion_timesteps(seed: int) -> Array:
    """Return the timesteps of training, step by step."""
    return np.stack([timesteps for _, timesteps in _step_of(seed)])


def timesteps(seed: int) -> Array:
    """Return the first timestep of batches that are no divisor of the schedule."""
    drawn = [stratified_timesteps(7, 50, torch_seeded(1000 * seed + n)) for n in range(1000)]
    return torch.stack(drawn)[:, :1].numpy()  # the strata of the others are others


def without_conditions(seed: int, names: str) -> Array:
    """Return which conditions items are trained without, as a binary number."""
    generator = torch_seeded(seed)
    drawn = training.dropped_conditions(names, 8000, 0.2, generator)
    return sum(2.0**place * drawn[name].numpy() for place, name in enumerate(names))[:, None]


def held_out_noise(_: int) -> Array:
    """Return the noise of held-out segments."""
    drawn: list[Array] = []

    def losses(model: Any, latents: Any, mask: Any, noise: Any, timestep: Any, _: Any) -> Any:
        drawn.append(noise.flatten(1).numpy())
        return torch.zeros(1)

    model = Fake(schedule=range(50), standardizer=None, condition=lambda *_: None)
    with patch.object(training, "standardized", lambda *_: torch.zeros(4, 3, 100)):
        for start in (0, 4):
            batch: Any = {"index": torch.arange(start, start + 4), "mask": None}
            training.held_out_errors(model, batch, 8, Fake(losses=losses))
    return np.concatenate(drawn)


def dead_codes(seed: int) -> Array:
    """Return the vectors that take the place of dead codes."""
    drawn = [drawn_vectors(10, 4, torch_seeded(1000 * seed + step)) for step in range(400)]
    return torch.stack(drawn).numpy()


def files(seed: int) -> Array:
    """Return which of two files each crop is of."""
    return np.array([number for number, _, _ in crops(seed)])[:, None]


def clips(seed: int) -> Array:
    """Return which of two clips each segment is of."""
    return np.array(["ab".index(name) for name, _ in segments(seed)])[:, None]


def held_out_steps(_: int) -> Array:
    """Return the timesteps of held-out segments."""
    return training.held_out_timesteps(200, 50).numpy()[:, None]
