"""From noise to latents: diffusers' samplers over a trained model, or over any denoiser.

B batch, D raw latent size, K latent size, N latent frames, T timesteps of the schedule.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffwave.schedule import NoiseSchedule

if TYPE_CHECKING:
    from diffwave.model import LatentDiffusion

# Called with the number of a sampling step, from 0, and the noisy latents (B, K, N) it begins with;
# returns those that it shall begin with.
StepHook = Callable[[int, Tensor], Tensor]
# Takes noisy latents (B, K, N) and timesteps (B,), returns latents without noise (B, K, N).
Denoiser = Callable[[Tensor, Tensor], Tensor]

DPM_SOLVER, DDIM, DDPM = "dpm-solver++", "ddim", "ddpm"
SAMPLERS = (DPM_SOLVER, DDIM, DDPM)
# DPM-Solver works with log(alpha_bar), so a terminal signal of zero is taken for this, as small as
# diffusers itself takes it: noise 4096 times the data.
SMALLEST_ALPHA_BAR = 2.0**-24
# Below this log-SNR DPM-Solver takes its first step in one: noise 150 times the data.
LOWEST_LOG_SNR = -10.0
# Beyond the first window noise is drawn for so many frames at a time, so that a frame's noise does
# not depend on how many frames there are.
NOISE_BLOCK = 64


def item_generator(seed: int, index: int) -> torch.Generator:
    """Return the random numbers of one item, the same ones in any batch and on any device."""
    return torch.Generator().manual_seed(seed + index)


def even_timesteps(schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """Return timesteps at even distances of log-SNR, from the last one down to the first.

    A latent space has slow modes of many times the power of a frame, which form where noise is
    strong, and fast ones of little power, which form where it is weak. Even steps of log-SNR treat
    all alike; even timesteps leave both ends to a step or two.

    Source: Lu et al. 2022, arXiv:2206.00927, section 3.3. Differs: begins at pure noise.
    """
    log_snr = schedule.log_snr.clamp(min=LOWEST_LOG_SNR).numpy()
    last = len(schedule) - 1
    wanted = np.linspace(log_snr[-1], log_snr[0], num_steps)
    places = np.rint(np.interp(wanted, log_snr[::-1], np.arange(last, -1, -1))).astype(int)
    timesteps = [last]
    for number, place in enumerate(places[1:], start=2):
        # Each timestep once, and enough of them left for the steps that follow.
        timesteps.append(min(max(int(place), num_steps - number), timesteps[-1] - 1))
    return timesteps


class NoiseStream:
    """The noise that items are made from, N(0, 1), frame after frame without end.

    Args:
        seed: Of the first item.
        indices: Of the items, B of them.
        latent_size: K.
        first_frames: Frames drawn at once at the start, as the patched lmnt diffwave draws a clip.

    Attributes:
        generators: One per item, for what else it needs.
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

        What lies before `start` is forgotten: no later call may ask for it.
        """
        assert start >= self._held_from
        while (drawn := self._held_from + self._held.shape[2]) < stop:
            shape = (self._latent_size, NOISE_BLOCK if drawn else self._first_frames)
            block = [torch.randn(shape, generator=each) for each in self.generators]
            self._held = torch.cat([self._held, torch.stack(block)], dim=2)
        self._held = self._held[:, :, start - self._held_from :].clone()
        self._held_from = start
        return self._held[:, :, : stop - start]


def build_sampler(name: str, schedule: NoiseSchedule, num_steps: int) -> Any:
    """Return a diffusers scheduler with a schedule of ours, ready to make `num_steps` steps.

    Nothing is clamped: latents have no range. Timesteps are spaced from the last one down, so that
    sampling begins where the schedule ends: evenly, but for DPM-Solver (see `even_timesteps`).

    Args:
        name: One of `SAMPLERS`.
        schedule: The one the model was trained with.
        num_steps: At most T.

    Raises:
        ValueError: If there is no such sampler, or the steps are too many or too few.
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
        "prediction_type": "sample",  # the denoiser answers in latents, whatever it predicts
        "timestep_spacing": "trailing",
    }
    sampler: Any
    alpha_bar = schedule.alpha_bar
    if name == DDPM:
        sampler = diffusers.DDPMScheduler(**shared, clip_sample=False)
    else:
        # DDIM is DPM-Solver of order 1 (Lu et al. 2022, arXiv:2206.00927, section 4.1). diffusers'
        # DDIMScheduler itself leaves noise behind where the steps do not divide T (0.42).
        sampler = diffusers.DPMSolverMultistepScheduler(
            **shared,
            algorithm_type="dpmsolver++",
            solver_order=1 if name == DDIM else 2,
            final_sigmas_type="zero",
        )
        alpha_bar = alpha_bar.clamp(min=SMALLEST_ALPHA_BAR)
    # Exactly ours: a product of betas in float32 would differ by rounding.
    sampler.alphas_cumprod = alpha_bar.float()
    with warnings.catch_warnings():
        # diffusers 0.42 gives a torch 2.13 tensor to numpy 2.4, which asks for a newer protocol.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        if name == DPM_SOLVER:
            sampler.set_timesteps(timesteps=even_timesteps(schedule, num_steps))
        else:
            sampler.set_timesteps(num_steps)
    return sampler


def sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: Tensor,
    name: str,
    num_steps: int,
    generators: Sequence[torch.Generator],
    progress: Callable[[int], None] | None = None,
    *,
    first_step: int = 0,
    before_step: StepHook | None = None,
) -> Tensor:
    """Return what a sampler makes of noise, (B, K, N).

    Args:
        denoiser: Of the latents.
        schedule: The one the denoiser knows.
        noise: (B, K, N) from N(0, 1), or noisy latents of the level of `first_step`.
        name: One of `SAMPLERS`.
        num_steps: Sampling steps, at most T.
        generators: One per item, for the samplers that draw more noise.
        progress: Called with the number of each finished step, from 1.
        first_step: Number of the step to begin with, from 0.
        before_step: May change what a step begins with.
    """
    sampler = build_sampler(name, schedule, num_steps)
    noisy: Tensor = noise * sampler.init_noise_sigma
    for number, timestep in enumerate(sampler.timesteps[first_step:], start=first_step):
        if before_step is not None:
            noisy = before_step(number, noisy)
        batch = torch.full((len(noisy),), int(timestep), dtype=torch.int64)
        denoised = denoiser(noisy, batch)
        noisy = sampler.step(denoised, timestep, noisy, generator=list(generators)).prev_sample
        if progress is not None:
            progress(number + 1)
    return noisy


@torch.no_grad()
def generate(
    model: LatentDiffusion,
    num_frames: int,
    indices: Sequence[int],
    seed: int,
    *,
    sampler: str = DPM_SOLVER,
    num_steps: int = 50,
    inputs: Mapping[str, Tensor] | None = None,
    guidance: Mapping[str, float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return raw latents (B, D, N), one item per index; an item does not depend on the others.

    Args:
        model: Trained.
        num_frames: N.
        indices: Of the items; each has its own random numbers, from `seed` + index.
        seed: Of the first item.
        sampler: One of `SAMPLERS`.
        num_steps: Sampling steps.
        inputs: What all items follow, by name: curves (1, C, N·R), label (1,).
        guidance: Guidance scale by name; see `LatentDiffusion.guided`.
        progress: Called with the number of each finished step.

    Raises:
        ValueError: If a condition does not fit the model.
    """
    noise = NoiseStream(seed, indices, model.standardizer.latent_size, num_frames)
    denoiser = model_denoiser(model, inputs or {}, guidance or {}, len(indices), num_frames)
    latents = sample(
        denoiser,
        model.schedule,
        noise.window(0, num_frames).to(model.standardizer.mean.device),
        sampler,
        num_steps,
        noise.generators,
        progress,
    )
    return model.standardizer.unstandardize(latents)


def model_denoiser(
    model: LatentDiffusion,
    inputs: Mapping[str, Tensor],
    guidance: Mapping[str, float],
    batch_size: int,
    num_frames: int,
) -> Denoiser:
    """Return the denoiser that a model is under conditions; see `LatentDiffusion.guided`."""
    terms = model.guided(inputs, guidance, batch_size, num_frames)

    def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
        return model.denoise_guided(noisy, timestep, terms)

    return denoiser
