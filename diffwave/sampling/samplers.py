"""The loop from noise to latents, the steps of its samplers, and the noise.

B batch, K latent size, N latent frames, T timesteps of the schedule, S sampling steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffwave.schedule import NoiseSchedule

# Takes noisy latents (B, K, N) and timesteps (B,), returns denoised latents (B, K, N).
Denoiser = Callable[[Tensor, Tensor], Tensor]
# Takes the number of a step, from 0, noisy and denoised latents (B, K, N), and the generators of
# the items; returns less noisy latents (B, K, N).
Step = Callable[[int, Tensor, Tensor, Sequence[torch.Generator]], Tensor]
# Takes the noisy latents (B, K, N) before a step, returns those that the step begins with.
BeforeStep = Callable[[Tensor], Tensor]
# Called after each step with its timestep, the noisy and the denoised latents (B, K, N).
Observer = Callable[[int, Tensor, Tensor], None]

DPM_SOLVER, DDIM, DDPM = "dpm-solver++", "ddim", "ddpm"
SAMPLERS = (DPM_SOLVER, DDIM, DDPM)
# DPM-Solver works with log(alpha_bar), so a terminal signal of zero is replaced by this value, the
# smallest that diffusers uses: noise 4096 times the data.
SMALLEST_ALPHA_BAR = 2.0**-24
# DPM-Solver covers everything below this log-SNR in its first step: noise 150 times the data.
LOWEST_LOG_SNR = -10.0
# After the first window, noise is drawn for this many frames at a time, so that the noise of a
# frame does not depend on the number of frames.
NOISE_BLOCK = 64


@dataclass(frozen=True)
class Sampler:
    """The steps from noise to latents. They are made in order and once: some depend on the last.

    Attributes:
        timesteps: (S,) timestep of each step, in falling order.
        step: Makes a step.
    """

    timesteps: list[int]
    step: Step


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    noisy: Tensor,
    generators: Sequence[torch.Generator] = (),
    *,
    first_step: int = 0,
    before_step: BeforeStep | None = None,
    observe: Observer | None = None,
) -> Tensor:
    """Return the latents that a sampler makes of noise, (B, K, N).

    Args:
        denoiser: Denoises latents.
        sampler: Fresh from `build_sampler`.
        noisy: (B, K, N) from N(0, 1), or noisy latents at the noise level of `first_step`.
        generators: Random numbers of each item, for samplers that draw noise at their steps.
        first_step: Number of the first step to make, from 0.
        before_step: Replaces the latents that a step begins with.
        observe: Called after each step.
    """
    for number, timestep in enumerate(sampler.timesteps[first_step:], start=first_step):
        if before_step is not None:
            noisy = before_step(noisy)
        denoised = denoiser(noisy, torch.full((len(noisy),), timestep))
        less_noisy = sampler.step(number, noisy, denoised, generators)
        if observe is not None:
            observe(timestep, noisy, denoised)
        noisy = less_noisy
    return noisy


def item_generator(seed: int, index: int) -> torch.Generator:
    """Return the generator of one item. It gives the same numbers in any batch, on any device."""
    return torch.Generator().manual_seed(seed + index)


def even_timesteps(schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """Return S timesteps at equal distances of log-SNR, from the last timestep down to the first.

    Slow modes of the latents have many times the power of a frame and form at high noise levels.
    Fast modes have little power and form at low noise levels. Equal steps of log-SNR treat all
    modes alike; equal steps of time leave one or two steps to each end.

    Source: Lu et al. 2022, arXiv:2206.00927, section 3.3. Differs: begins at pure noise.
    """
    log_snr = schedule.log_snr.clamp(min=LOWEST_LOG_SNR).numpy()
    last = len(schedule) - 1
    wanted = np.linspace(log_snr[-1], log_snr[0], num_steps)
    places = np.rint(np.interp(wanted, log_snr[::-1], np.arange(last, -1, -1))).astype(int)
    timesteps = [last]
    for number, place in enumerate(places[1:], start=2):
        # Use each timestep once, and leave enough of them for the steps that follow.
        timesteps.append(min(max(int(place), num_steps - number), timesteps[-1] - 1))
    return timesteps


class NoiseStream:
    """The noise that sampling begins with, N(0, 1), for any number of frames.

    Args:
        seed: Random seed of item 0.
        indices: (B,) index of each item.
        latent_size: K.
        first_frames: Frames drawn at once at the start, as the patched lmnt diffwave draws a clip.

    Attributes:
        generators: (B,) generator of each item, for the noise of the steps.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], latent_size: int, first_frames: int
    ) -> None:
        self.generators = [item_generator(seed, index) for index in indices]
        self._latent_size = latent_size
        self._first_frames = first_frames
        self._held = torch.zeros(len(indices), latent_size, 0)
        self._held_from = 0

    def window(self, start: int, stop: int) -> Tensor:
        """Return the noise of frames start to stop, (B, K, stop - start).

        Frames before `start` are dropped; a later call cannot return them.
        """
        assert start >= self._held_from
        while (drawn := self._held_from + self._held.shape[2]) < stop:
            shape = (self._latent_size, NOISE_BLOCK if drawn else self._first_frames)
            block = [torch.randn(shape, generator=each) for each in self.generators]
            self._held = torch.cat([self._held, torch.stack(block)], dim=2)
        self._held = self._held[:, :, start - self._held_from :].clone()
        self._held_from = start
        return self._held[:, :, : stop - start]


def build_sampler(name: str, schedule: NoiseSchedule, num_steps: int) -> Sampler:
    """Return a sampler for one pass.

    Args:
        name: One of `SAMPLERS`.
        schedule: Noise schedule of the denoiser's training.
        num_steps: S, 1 to T.

    Raises:
        ValueError: If there is no such sampler, or the number of steps is out of range.
    """
    scheduler = build_scheduler(name, schedule, num_steps)

    def step(
        number: int, noisy: Tensor, denoised: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        timestep = scheduler.timesteps[number]
        return scheduler.step(denoised, timestep, noisy, generator=list(generators)).prev_sample

    return Sampler(scheduler.timesteps.tolist(), step)


def build_scheduler(name: str, schedule: NoiseSchedule, num_steps: int) -> Any:
    """Return the scheduler of diffusers that makes the steps; see `build_sampler`.

    It does not clamp: latents have no range. It begins at the last timestep of the schedule. The
    timesteps are equally spaced, except those of DPM-Solver (see `even_timesteps`).
    """
    import diffusers

    if name not in SAMPLERS:
        raise ValueError(f"There is no sampler '{name}'. Choose one of: {', '.join(SAMPLERS)}.")
    if not 1 <= num_steps <= len(schedule):
        raise ValueError(
            f"{num_steps} sampling steps were asked for; the run's schedule allows 1 to "
            f"{len(schedule)}."
        )
    shared = {
        "num_train_timesteps": len(schedule),
        "trained_betas": schedule.betas.tolist(),
        "prediction_type": "sample",  # the denoiser returns latents, whatever the model predicts
        "timestep_spacing": "trailing",
    }
    scheduler: Any
    alpha_bar = schedule.alpha_bar
    if name == DDPM:
        scheduler = diffusers.DDPMScheduler(**shared, clip_sample=False)
    else:
        # DDIM is DPM-Solver of order 1 (Lu et al. 2022, arXiv:2206.00927, section 4.1). diffusers'
        # DDIMScheduler itself leaves noise behind where the steps do not divide T (0.42).
        scheduler = diffusers.DPMSolverMultistepScheduler(
            **shared,
            algorithm_type="dpmsolver++",
            solver_order=1 if name == DDIM else 2,
            final_sigmas_type="zero",
        )
        alpha_bar = alpha_bar.clamp(min=SMALLEST_ALPHA_BAR)
    # The schedule itself: the product of betas in float32 would differ by rounding.
    scheduler.alphas_cumprod = alpha_bar.float()
    with warnings.catch_warnings():
        # diffusers 0.42 gives a torch 2.13 tensor to numpy 2.4, which asks for a newer protocol.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        if name == DPM_SOLVER:
            scheduler.set_timesteps(timesteps=even_timesteps(schedule, num_steps))
        else:
            scheduler.set_timesteps(num_steps)
    return scheduler
