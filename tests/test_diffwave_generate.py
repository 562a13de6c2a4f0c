"""Samplers on data of known law; guidance; independence of items."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffwave.conditioner import SpectrogramConditioner
from diffwave.conditions.inputs import Conditions
from diffwave.model import LatentDiffusion
from diffwave.network import DiffWave
from diffwave.sampling.generation import Sampling
from diffwave.sampling.samplers import (
    SAMPLERS,
    NoiseStream,
    build_sampler,
    build_scheduler,
    even_timesteps,
    item_generator,
    sample,
)
from diffwave.schedule import NoiseSchedule, named_schedule
from diffwave.standardizer import Standardizer

STEPS = (5, 18, 32, 128)


def make_model(is_conditional: bool = False) -> LatentDiffusion:
    torch.manual_seed(0)
    network = DiffWave(
        latent_size=3,
        num_blocks=2,
        hidden_channels=8,
        segment_frames=16,
        condition_channels=4 if is_conditional else 0,
    )
    torch.nn.init.normal_(network.output.weight, std=0.1)
    conditioner = SpectrogramConditioner(5, 4, 8, 4) if is_conditional else None
    model = LatentDiffusion(Standardizer(4, 3), network, named_schedule("cosine"), "v", conditioner)
    return model.eval()


def sampled_variance(
    schedule: NoiseSchedule, sampler: str, num_steps: int, variance: float
) -> float:
    def exact(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        alpha_bar = schedule.alpha_bar[timestep][:, None, None]
        gain = alpha_bar.sqrt() * variance / (alpha_bar * variance + 1 - alpha_bar)
        return gain.float() * noisy

    noise = torch.randn(16, 4, 250, generator=torch.Generator().manual_seed(0))
    generators = [item_generator(1, index) for index in range(16)]
    latents = sample(exact, build_sampler(sampler, schedule, num_steps), noise, generators)
    return (latents.var() / noise.var()).item()


@pytest.mark.parametrize("name", ["cosine", "audioldm", "flow"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("variance", [4.0, 0.25])
def test_samplers_converge_to_the_variance_of_a_gaussian(
    sampler: str, name: str, variance: float
) -> None:
    schedule = named_schedule(name)
    misses = [
        abs(sampled_variance(schedule, sampler, steps, variance) / variance - 1) for steps in STEPS
    ]
    # Within 1 % it has arrived: what is left is the noise of the schedule's first timestep.
    assert all(later < max(miss, 0.01) for miss, later in itertools.pairwise(misses))
    assert misses[-1] < misses[0] / 5
    assert misses[-1] < (0.01 if sampler == "dpm-solver++" else 0.15)


@pytest.mark.parametrize("name", ["cosine", "flow", "audioldm"])
def test_twenty_solver_steps_keep_slow_and_fast_modes(name: str) -> None:
    for variance in (0.1, 1.0, 5.0, 20.0):  # of a mode, where a frame has 1
        found = sampled_variance(named_schedule(name), "dpm-solver++", 20, variance)
        assert found == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("name", ["cosine", "flow", "audioldm", "diffwave"])
def test_even_timesteps_fall_from_last_to_first_each_once(name: str) -> None:
    schedule = named_schedule(name)
    for num_steps in (1, 2, 5, 20, len(schedule) - 1, len(schedule)):
        timesteps = even_timesteps(schedule, num_steps)
        assert len(timesteps) == num_steps
        assert timesteps[0] == len(schedule) - 1
        assert timesteps[-1] >= 0
        assert timesteps == sorted(set(timesteps), reverse=True)


def test_second_order_sampler_beats_first_order() -> None:
    schedule = named_schedule("cosine")
    second, first = (sampled_variance(schedule, name, 18, 4.0) for name in ("dpm-solver++", "ddim"))
    assert abs(second - 4) < abs(first - 4) / 2


@pytest.mark.parametrize("name", ["cosine", "audioldm", "diffwave", "linear-low-0.005"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler_has_the_schedule_of_the_run(sampler: str, name: str) -> None:
    schedule = named_schedule(name)
    found = build_scheduler(sampler, schedule, 10).alphas_cumprod.double()
    torch.testing.assert_close(found, schedule.alpha_bar, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_few_steps_from_pure_noise_stay_finite(sampler: str, num_steps: int) -> None:
    latents = Sampling(make_model(), [0], 0, sampler, num_steps).generate(9)
    assert torch.isfinite(latents).all()


def test_ddim_is_the_one_of_diffusers_where_steps_divide_the_schedule() -> None:
    import diffusers

    schedule = named_schedule("audioldm")
    noise = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(0))
    other = diffusers.DDIMScheduler(
        num_train_timesteps=1000,
        trained_betas=schedule.betas.tolist(),
        prediction_type="sample",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    other.set_timesteps(20)
    expected = noise
    for timestep in other.timesteps:
        expected = other.step(torch.tanh(expected), timestep, expected).prev_sample
    found = sample(lambda x, t: torch.tanh(x), build_sampler("ddim", schedule, 20), noise)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_nothing_clamps_the_latents() -> None:
    schedule = named_schedule("cosine")
    noise = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(0))
    for sampler in SAMPLERS:
        found = sample(
            lambda x, t: torch.full_like(x, 50.0), build_sampler(sampler, schedule, 10), noise,
            [item_generator(0, 0)],
        )  # fmt: skip
        torch.testing.assert_close(found, torch.full_like(found, 50.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_gives_the_same_item_in_any_batch(sampler: str) -> None:
    model = make_model()
    whole, alone, shifted = (
        Sampling(model, indices, seed, sampler, num_steps=6).generate(12)
        for indices, seed in (([0, 1, 2], 7), ([2], 7), ([0], 9))
    )
    torch.testing.assert_close(whole[2:], alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone, shifted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(whole[0], whole[1])


def test_guidance_of_one_is_unguided_and_costs_nothing() -> None:
    model = make_model(is_conditional=True)
    calls = []
    model.network.register_forward_hook(lambda _, args, out: calls.append(len(args[0])))
    noisy, timestep = torch.randn(2, 3, 8), torch.tensor([300, 300])
    inputs = {"spectrogram": torch.rand(2, 5, 16)}
    plain = model.denoise(noisy, timestep, inputs)
    assert torch.equal(plain, model.denoise(noisy, timestep, inputs, {"spectrogram": 1.0}))
    assert calls == [2, 2]
    near = model.denoise(noisy, timestep, inputs, {"spectrogram": 1.0 + 1e-6})
    torch.testing.assert_close(near, plain, atol=1e-4, rtol=1e-4)


def test_guidance_of_zero_ignores_the_condition_and_more_exaggerates_it() -> None:
    model = make_model(is_conditional=True)
    noisy, timestep = torch.randn(1, 3, 8), torch.tensor([300])
    inputs = {"spectrogram": torch.rand(1, 5, 16)}
    with_condition = model.denoise(noisy, timestep, inputs)
    without = model.denoise(noisy, timestep)
    zero = model.denoise(noisy, timestep, inputs, {"spectrogram": 0.0})
    three = model.denoise(noisy, timestep, inputs, {"spectrogram": 3.0})
    torch.testing.assert_close(zero, without)
    torch.testing.assert_close(
        three, without + 3 * (with_condition - without), atol=1e-4, rtol=1e-4
    )


def test_a_frame_does_not_depend_on_how_far_the_noise_goes() -> None:
    few, many = (NoiseStream(3, [0, 5], 4, 40).window(0, num_frames) for num_frames in (70, 200))
    assert torch.equal(many[:, :, :70], few)
    stream = NoiseStream(3, [0, 5], 4, 40)
    parts = [stream.window(start, start + 50) for start in (0, 20, 150)]
    for start, part in zip((0, 20, 150), parts, strict=True):
        assert torch.equal(part, many[:, :, start : start + 50])


def test_one_window_of_noise_is_drawn_as_the_patched_diffwave_draws_a_clip() -> None:
    noise = NoiseStream(3, [0, 5], 4, 40).window(0, 40)
    expected = [torch.randn(4, 40, generator=torch.Generator().manual_seed(n)) for n in (3, 8)]
    assert torch.equal(noise, torch.stack(expected))


def test_impossible_samplers_and_steps_are_named() -> None:
    schedule = named_schedule("diffwave")
    with pytest.raises(ValueError, match=r"no sampler 'heun'. Choose one of: dpm-solver"):
        build_sampler("heun", schedule, 10)
    with pytest.raises(ValueError, match=r"60 sampling steps .* allows 1 to 50"):
        build_sampler("ddpm", schedule, 60)


def test_condition_must_fit_the_model() -> None:
    inputs = {"spectrogram": torch.zeros(1, 5, 8)}
    with pytest.raises(ValueError, match="with no conditions, so it cannot follow spectrogram"):
        Sampling(make_model(), [0], 0, num_steps=1, inputs_of=lambda *_: inputs).generate(4)
    model = make_model(is_conditional=True)
    short = Conditions({"spectrogram": np.zeros((5, 7), np.float32)})
    with pytest.raises(ValueError, match="has 7 frames, but 4 latent frames need 8"):
        short.window(model, 0, 4)
    with pytest.raises(ValueError, match="Guidance of spectrogram needs spectrogram"):
        Sampling(model, [0], 0, num_steps=1, guidance={"spectrogram": 2.0}).generate(4)
