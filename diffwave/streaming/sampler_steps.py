"""The steps of a sampler as a table of numbers, for hosts without diffusers."""

from __future__ import annotations

import torch
from torch import Tensor

from diffwave.sampling.samplers import DDPM, SAMPLERS, build_sampler
from diffwave.schedule import NoiseSchedule


def step_table(name: str, schedule: NoiseSchedule, max_steps: int) -> tuple[Tensor, Tensor]:
    """Return the coefficients of each step, for each number of sampling steps S ≤ `max_steps`.

    A step is linear. It returns a·noisy + b·denoised + c·denoised of the step before.

    Args:
        name: Name of a sampler that draws no noise at its steps.
        schedule: Noise schedule of the model's training.
        max_steps: Largest S.

    Returns:
        Timesteps (max_steps + 1, max_steps) int64 and a, b, c (max_steps + 1, max_steps, 3). Step i
        of S is at [S, i].

    Raises:
        ValueError: If the sampler draws noise.
    """
    if name == DDPM:
        others = ", ".join(sorted(set(SAMPLERS) - {DDPM}))
        raise ValueError(f"The sampler '{name}' draws noise at its steps. Choose one of: {others}.")
    timesteps = torch.zeros(max_steps + 1, max_steps, dtype=torch.int64)
    table = torch.zeros(max_steps + 1, max_steps, 3)
    for num_steps in range(1, max_steps + 1):
        sampler = build_sampler(name, schedule, num_steps)
        for number, timestep in enumerate(sampler.timesteps):
            # Responses to unit noisy latents, and to unit denoised latents of even and odd steps.
            noisy = torch.tensor([1.0, 0.0, 0.0])[None, :, None]
            denoised = torch.tensor([0.0, number % 2 == 0, number % 2 == 1])[None, :, None]
            a, even, odd = sampler.step(number, noisy, denoised.float(), ())[0, :, 0]
            now, before = (odd, even) if number % 2 else (even, odd)
            table[num_steps, number] = torch.stack([a, now, before])
            timesteps[num_steps, number] = timestep
    return timesteps, table
