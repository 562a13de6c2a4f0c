"""What decoding, generation and measuring draw at random, as arrays (I, n) of what items draw.

An item is what should not depend on another: a step, a file, a clip or a window. Laws of the values
are in test_draws.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace as Fake
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from drawn_in_training import RATE_HZ, Array, torch_seeded

from diffwave.api import vocode
from diffwave.diagnosis import run as run_diagnosis
from diffwave.evaluation.ladder import NOISE, Ladder
from diffwave.sampling import editing
from diffwave.sampling.samplers import NoiseStream
from diffwave.schedule import cosine_schedule
from rave.api import augment, encode
from rave.evaluation import folders as evaluation
from rave.jobs.windows import WHOLE, WINDOW_FRAMES
from rave.noise import DecoderNoise
from rave.prior import LatentPrior
from rave.streaming.noise import NUM_STREAMS, PositionalUniform


def versions(seed: int) -> tuple[Array, Array]:
    """Return how much later each version of two recordings begins, in s, and its sign."""
    begins: list[float] = []
    signs: list[float] = []
    ones = np.ones((1, RATE_HZ), np.float32)

    def write(path: Path, blocks: Any, rate_hz: int, channels: int, count: int, *_: Any, **__: Any):
        begins.append(1 - count / rate_hz)
        signs.append(float(next(iter(blocks))[0, 0]))
        return Fake(figures={})

    with (
        TemporaryDirectory() as folder,
        patch("rave.api.augment.AudioStream", lambda *_: [ones]),
        patch("rave.api.augment.write_audio", write),
        patch("rave.api.augment.decode_blocks", lambda _: iter([(RATE_HZ, ones)])),
    ):
        source = Path(folder) / "source"
        source.touch()
        for name in ("a.wav", "b.wav"):
            paths = [Path(folder) / f"{name}~{number}" for number in range(300)]
            copy = Path(folder) / name
            augment.write_versions(name, source, copy, paths, [0.0] * 300, seed)
    return np.reshape(begins, (2, -1)), np.reshape(signs, (2, -1))


# Of the codec


def encoded_noise(seed: int) -> Array:
    """Return what `rave encode --sample` draws of a posterior of N(0, 1), window by window."""
    zeros = np.zeros((3, WINDOW_FRAMES), np.float32)
    codec = Fake(
        format=Fake(latent_size=3), encode_blocks=lambda *_, **__: [(zeros, zeros + 1)] * 4
    )
    work = encode.Encoding(Fake(codec=codec), Path(), {}, seed)
    return np.stack([block.ravel() for block in work._windows([], WHOLE, [])])


def decoder_noise(seed: int) -> DecoderNoise:
    """Return the noise of a codec of which two dimensions are uninformative."""
    is_noise, ones = np.array([[True], [False], [True]]), np.ones((3, 1), np.float32)
    form = Fake(
        uninformative=(is_noise, 0 * ones, ones),
        latent_size=3,
        num_noise_rows=2,
        noise_steps_per_frame=4,
        noise_rows=5,
        has_clock=False,
    )
    return DecoderNoise(form, seed)


def filled_latents(seed: int) -> Array:
    """Return what stands for uninformative latents, and the rows below them, of four windows."""
    known = np.full((3, 300), 7, np.float32)
    drawn = [decoder_noise(seed).decoder_input(known, start) for start in (0, 300, 600, 900)]
    assert all((each[1] == 7).all() and each.shape == (5, 300) for each in drawn)
    return np.concatenate([each[[0, 2, 3, 4]] for each in drawn])


def bands(seed: int) -> Array:
    """Return what a noisy decoder shapes, window by window."""
    drawn = [decoder_noise(seed).bands(start, 300) for start in (0, 300, 600, 900)]
    assert all(each is not None and each.shape == (1, 5, 1200) for each in drawn)
    return torch.cat([each for each in drawn if each is not None]).flatten(1).numpy()


def scripted(seed: int) -> Array:
    """Return the numbers of a stream in the host, of each purpose."""
    drawn = [
        PositionalUniform(4, each)(seed, 100, 300, torch.zeros(1)) for each in range(NUM_STREAMS)
    ]
    return torch.cat(drawn).flatten(1).numpy()


def scripted_normal(seed: int) -> Array:
    """Return the normal numbers of a stream in the host, of each purpose."""
    like = torch.zeros(1)
    drawn = [PositionalUniform(4, each).normal(seed, 0, 300, like) for each in range(NUM_STREAMS)]
    return torch.cat(drawn).flatten(1).numpy()


def scripted_afresh(seed: int) -> Array:
    """Return the numbers of a stream without a seed, of each item."""
    torch.manual_seed(seed)
    return PositionalUniform(4, 0)(-1, 0, 300, torch.zeros(8)).flatten(1).numpy()


def prior_samples(seed: int) -> Array:
    """Return what a prior that knows nothing makes, of axes with a std of 1 and one of noise."""
    model = LatentPrior(3, 2, 16, 4, 4, 1, 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    model.rest = torch.tensor([[0.0, 0.0, 1.0]])
    return model.sample(100, [(seed, index) for index in range(4)]).flatten(1).numpy()


# Generation


def streamed(seed: int) -> Array:
    """Return the noise that clips are sampled from, read in windows that overlap."""
    stream = NoiseStream(seed, range(8), 3, 100)
    return (
        torch.cat([stream.window(s, s + 100)[:, :, 20:] for s in (0, 80, 160)], 2)
        .flatten(1)
        .numpy()
    )


def inpainted(seed: int) -> Array:
    """Return the noise that a span is inpainted from."""
    first: list[torch.Tensor] = []

    def guess(noisy: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        first.append(noisy.detach().clone())
        return 0.5 * noisy

    generators = [torch_seeded(100 * seed + item) for item in range(8)]
    known = torch.zeros(8, 3, 100)
    editing.inpaint_latents(guess, cosine_schedule(20), known, known[0, 0] == 1, 1, generators)
    return first[0].flatten(1).numpy()


def audio_noise(seed: int) -> Array:
    """Return the noise that audio is made of by a waveform model, file by file."""
    drawn: list[torch.Tensor] = []

    def sample(noise: torch.Tensor, *_: Any) -> torch.Tensor:
        drawn.append(noise)
        return noise

    vocoder: Any = Fake(model=Fake(step_table=torch.zeros(1), sample=sample), sample_rate_hz=1)
    task = vocode.Clip(1000, None)
    with patch("diffwave.api.vocode.write_audio", lambda *_: Fake(figures={})):
        for index in range(8):
            vocode._write(Path(), vocoder, task, seed + index, False)
    return torch.cat(drawn).numpy()


def white_rung(seed: int) -> Array:
    """Return the noise at the foot of the ladder, made for a power of 4, at power 1."""
    clips: list[Array] = []
    data, codec = Fake(num_frames=50), Fake(format=Fake(hop_samples=20))

    def heard(blocks: Sequence[Sequence[Array]], _: object) -> None:
        clips.append(blocks[0][0])

    Ladder.noise(Fake(seed=seed, data=data, codec=codec, count=8, _measured=heard), 4.0)
    return np.stack(clips) / 2


def latent_rung(seed: int) -> Array:
    """Return the normal latents of the ladder."""
    found: list[Array] = []
    data, codec = Fake(num_frames=200), Fake(format=Fake(latent_size=3))

    def decoded(_: object, clips: Iterable[Array]) -> None:
        found.extend(each.ravel() for each in clips)

    rung = Fake(seed=seed, data=data, codec=codec, count=8, _decoded=decoded)
    Ladder._drawn(rung, NOISE, lambda drawn: drawn)
    return np.stack(found)


def probed(seed: int) -> Array:
    """Return the noise that the inside of a network is looked at with."""
    latents = torch.zeros(8, 3, 100)
    data = Fake(batch=lambda *_: (None, latents, {}))
    with patch.object(run_diagnosis.network, "Probe", lambda _, __, noise, ___: noise):
        return run_diagnosis._probe(None, data, None, seed).flatten(1).numpy()


# Measures


def pieces_drawn(seed: int, draw: Callable[..., Array]) -> Array:
    """Return the first piece of sets that are drawn from ten."""
    pieces, rng = (
        [np.full((1, 1), float(index)) for index in range(10)],
        np.random.default_rng(seed),
    )
    return np.array([draw(pieces, 4, rng)[0] for _ in range(1000)])


def first_halves(seed: int) -> Array:
    """Return a piece of the first half of ten pieces."""
    pieces = [Fake(embeddings=np.zeros((1, 1)), number=float(index)) for index in range(10)]
    halves = [h for s in range(50) for h in evaluation._halves(pieces, 50 * seed + s)]
    return np.array([first[0].number for first, _ in halves])[:, None]
