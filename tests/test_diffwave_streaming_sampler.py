"""Laws of endless sampling: it is the sampling of files, whatever the blocks."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from diffwave.conditioner import (
    Conditioner,
    ControlConditioner,
    LabelConditioner,
    SpectrogramConditioner,
)
from diffwave.conditions.inputs import Conditions
from diffwave.model import LatentDiffusion
from diffwave.network import DiffWave
from diffwave.sampling.generation import Sampling
from diffwave.sampling.overlap import Windows
from diffwave.sampling.samplers import DDIM, DDPM, DPM_SOLVER, build_sampler, sample
from diffwave.schedule import named_schedule
from diffwave.standardizer import Standardizer
from diffwave.streaming.normal import ScriptedNormal
from diffwave.streaming.sampler import StreamingSampler
from diffwave.streaming.sampler_steps import step_table
from diffwave.transformer import DiffusionTransformer

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
SCHEDULE = named_schedule("cosine")
NUM_FRAMES, WINDOW, SEED, MAX_STEPS = 230, 40, 5, 8


def make_model(*followed: str, is_transformer: bool = False) -> LatentDiffusion:
    """Return a model with random weights over 3 of 4 raw dimensions."""
    torch.manual_seed(0)
    channels = 4 if followed else 0
    network: DiffWave | DiffusionTransformer = (
        DiffusionTransformer(3, 2, 32, 1, channels)
        if is_transformer
        else DiffWave(3, 2, 8, 8, condition_channels=channels, dilation_cycle=2)
    )
    torch.nn.init.normal_(network.output.weight, std=0.3)
    made: dict[str, Conditioner] = {
        "chroma": ControlConditioner(12, 4),
        "label": LabelConditioner(["a", "b", "c"], 4),
        "loudness": ControlConditioner(1, 4),
        "spectrogram": SpectrogramConditioner(8, 4, 64, 32),
    }
    conditioners = {name: made[name] for name in followed}
    for conditioner in conditioners.values():
        torch.nn.init.normal_(conditioner.null_condition)
    standardizer = Standardizer(4, 3)
    standardizer.mean.copy_(torch.arange(4.0))
    standardizer.basis.copy_(torch.linalg.qr(torch.arange(16.0).reshape(4, 4).cos())[0][:3])
    standardizer.scale.copy_(torch.tensor([3.0, 2.0, 1.0]))
    model = LatentDiffusion(standardizer, network, SCHEDULE, "v", conditioners=conditioners)
    return model.eval().requires_grad_(False)


CURVES = {
    "loudness": np.random.default_rng(0).normal(-30, 10, (1, NUM_FRAMES)).astype(np.float32),
    "chroma": np.random.default_rng(1).random((12, NUM_FRAMES)).astype(np.float32),
}
LABEL = 2
CONTROLS = ("chroma", "label", "loudness")
MODELS = {
    "nothing": ((), False),
    "transformer": ((), True),
    "loudness": (("loudness",), False),
    "controls": (CONTROLS, False),
    "transformer, controls": (CONTROLS, True),
    "spectrogram": (("spectrogram",), False),
}


def sampling_of(model: LatentDiffusion, num_steps: int, guidance: float = 1.0) -> Sampling:
    known = set(model.conditioners)
    curves = {name: curve for name, curve in CURVES.items() if name in known}
    conditions = Conditions(curves, LABEL if "label" in known else None)
    scales = dict.fromkeys(conditions.names, guidance)
    inputs_of = partial(conditions.window, model)
    windows = Windows.of(model, WINDOW)
    return Sampling(model, range(2), SEED, DPM_SOLVER, num_steps, inputs_of, scales, windows)


def rows_of(model: LatentDiffusion) -> Tensor:
    """Return what a host gives: (2, R, N), in the order of the names."""
    label = np.full((1, NUM_FRAMES), LABEL, dtype=np.float32)
    curves = [({"label": label} | CURVES)[name] for name in sorted(model.conditioners)
              if name != "spectrogram"]  # fmt: skip
    rows = np.concatenate(curves or [np.zeros((1, NUM_FRAMES), np.float32)])
    return torch.from_numpy(rows)[None].expand(2, -1, -1)


def play(
    sampler: StreamingSampler,
    rows: Tensor,
    block: int,
    num_steps: int = 4,
    guidance: float = 1.0,
    follows: tuple[bool, ...] = (True, True, True),
) -> Tensor:
    pieces = [
        sampler(part, num_steps, 1.0, guidance, list(follows), SEED, index == 0)
        for index, part in enumerate(rows.split(block, 2))
    ]
    return torch.cat(pieces, 2)


@pytest.fixture(scope="module", params=MODELS)
def live(request: pytest.FixtureRequest) -> tuple[LatentDiffusion, StreamingSampler]:
    followed, is_transformer = MODELS[request.param]
    model = make_model(*followed, is_transformer=is_transformer)
    windows = Windows.of(model, WINDOW)
    sampler = StreamingSampler(model, windows, DPM_SOLVER, MAX_STEPS).eval()
    return model, torch.jit.script(sampler)


@pytest.mark.parametrize("count", [16, 17, 448, 623, 1248, 5000])
def test_the_numbers_of_a_seed_are_torchs(count: int) -> None:
    seeds = [0, 7, 2**40 + 3]
    normal = ScriptedNormal()
    normal.seed(seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(3):
        wanted = torch.stack([torch.randn(count, generator=each) for each in generators])
        torch.testing.assert_close(normal(count), wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", [DPM_SOLVER, DDIM])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 8])
def test_the_table_of_steps_is_the_sampler(name: str, num_steps: int) -> None:
    timesteps, table = step_table(name, SCHEDULE, MAX_STEPS)
    noise = torch.randn(1, 3, 20, generator=torch.Generator().manual_seed(0))

    def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
        return (noisy * math.cos(int(timestep[0]))).tanh()

    noisy, before = noise, torch.zeros_like(noise)
    for index in range(num_steps):
        denoised = denoiser(noisy, timesteps[num_steps, index : index + 1])
        a, b, c = table[num_steps, index]
        noisy, before = a * noisy + b * denoised + c * before, denoised
    wanted = sample(denoiser, build_sampler(name, SCHEDULE, num_steps), noise)
    torch.testing.assert_close(noisy, wanted, atol=1e-5, rtol=1e-5)


def test_a_sampler_that_draws_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'ddpm' draws noise at its steps. Choose one of: ddim"):
        step_table(DDPM, SCHEDULE, 3)


@torch.inference_mode()
@pytest.mark.parametrize("block", [1, 3, 16, 100, NUM_FRAMES])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_a_stream_is_what_the_same_seed_makes_in_a_file(
    live: tuple[LatentDiffusion, StreamingSampler], num_steps: int, block: int
) -> None:
    model, sampler = live
    late = Windows.of(model, WINDOW).context
    late += WINDOW if set(model.conditioners) - {"spectrogram"} else 0
    assert sampler.delay_frames == late
    for guidance in (1.0, 2.5):
        wanted = sampling_of(model, num_steps, guidance).generate(NUM_FRAMES)
        found = play(sampler, rows_of(model), block, num_steps, guidance)[..., late:]
        # The last window of a file sees that nothing follows.
        kept = NUM_FRAMES - late - WINDOW
        torch.testing.assert_close(found[..., :kept], wanted[..., :kept], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_first_window_is_what_generate_makes() -> None:
    model = make_model()
    windows = Windows.of(model, WINDOW)
    sampler = StreamingSampler(model, windows, DDIM, MAX_STEPS)
    wanted = Sampling(model, range(2), SEED, DDIM, num_steps=4).generate(WINDOW)
    kept = WINDOW - windows.margin
    found = play(sampler, rows_of(model), WINDOW)[..., windows.context :][..., :kept]
    torch.testing.assert_close(found, wanted[..., :kept], atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("is_transformer", [False, True])
def test_what_is_not_followed_is_its_null_condition(is_transformer: bool) -> None:
    model = make_model(*CONTROLS, is_transformer=is_transformer)
    sampler = StreamingSampler(model, Windows.of(model, WINDOW), DPM_SOLVER, MAX_STEPS)
    conditions, windows = Conditions({"loudness": CURVES["loudness"]}), Windows.of(model, WINDOW)
    inputs_of = partial(conditions.window, model)
    wanted = Sampling(
        model, range(2), SEED, num_steps=4, inputs_of=inputs_of, windows=windows
    ).generate(NUM_FRAMES)
    late = sampler.delay_frames
    found = play(sampler, rows_of(model), 10, follows=(False, False, True))[..., late:]
    kept = NUM_FRAMES - WINDOW - late
    torch.testing.assert_close(found[..., :kept], wanted[..., :kept], atol=1e-4, rtol=0)
    assert not torch.allclose(found, play(sampler, rows_of(model), 10)[..., late:], atol=1e-2)


@torch.inference_mode()
@pytest.mark.parametrize("followed", [(), ("loudness",)])
def test_no_block_does_more_than_its_share_of_the_steps_and_the_memory_is_flat(
    followed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, num_steps, block = make_model(*followed), 8, 2
    windows = Windows.of(model, WINDOW)
    sampler = StreamingSampler(model, windows, DPM_SOLVER, num_steps)
    steps, loads, sizes = [0], [0], []
    make_step = sampler.make_step

    def counted() -> None:
        steps[0] += 1
        make_step()

    monkeypatch.setattr(sampler, "make_step", counted)
    for index in range(400):
        sampler(torch.zeros(1, 1, block), num_steps, 1.0, 1.0, [True], SEED, index in (0, 200))
        loads.append(steps[0])
        held = [*sampler.buffers(), *sampler.known, *sampler.path]
        sizes.append(sum(part.untyped_storage().nbytes() for part in held))
    share = np.diff(loads)
    # A window is due within what the one before keeps; the first, also after a reset, and those
    # that had to wait, within a context.
    assert share.max() <= math.ceil(num_steps * block / windows.context) + 1
    share = share[WINDOW:200]
    kept = WINDOW - windows.context - windows.margin
    assert abs(share.mean() - num_steps * block / kept) < 0.1
    assert max(sizes[200:]) < 1.01 * max(sizes[:200])  # noise is drawn in blocks


@torch.inference_mode()
def test_batch_steps_and_temperature_may_change_while_playing() -> None:
    model = make_model()
    sampler = StreamingSampler(model, Windows.of(model, WINDOW), DPM_SOLVER, MAX_STEPS)
    for batch, num_steps, temperature in ((1, 4, 1.0), (3, 2, 0.5), (1, 8, 0.0)):
        rows = torch.zeros(batch, 1, 90)
        first = sampler(rows, num_steps, temperature, 1.0, [], SEED, True)
        again = sampler(rows, MAX_STEPS - num_steps + 1, temperature, 1.0, [], SEED, False)
        assert first.shape == again.shape == (batch, 4, 90)
        assert bool(torch.isfinite(again).all())
    other = sampler(torch.zeros(1, 1, 90), 8, 0.0, 1.0, [], SEED + 1, True)
    assert torch.equal(first, other)  # without noise there is nothing to draw


@torch.inference_mode()
def test_without_a_seed_each_stream_is_another() -> None:
    model = make_model()
    sampler = StreamingSampler(model, Windows.of(model, WINDOW), DPM_SOLVER, MAX_STEPS)
    first, again = (sampler(torch.zeros(1, 1, 8), 2, 1.0, 1.0, [], -1, True) for _ in range(2))
    assert not torch.allclose(first, again)
