"""Edits of existing latents: variations, inpainted spans and continuations.

B batch, D raw latent size, K latent size, N latent frames, S sampling steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from diffwave.sampling.generation import Sampling
from diffwave.sampling.samplers import (
    DDPM,
    SMALLEST_ALPHA_BAR,
    Denoiser,
    Observer,
    Sampler,
    build_sampler,
    sample,
)
from diffwave.schedule import NoiseSchedule
from rave.compute.arrays import Float32Array

# Share of the noise that the known frames are treated as having.
DAMPING = 0.01


def steps_of(strength: float, num_steps: int) -> int:
    """Return how many of the last sampling steps a variation makes.

    Raises:
        ValueError: If the strength is not within 0 and 1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"--strength is {strength}; 0 (nothing changes) to 1 (all new) is needed.")
    return round(strength * num_steps)


def unchanged(sampling: Sampling, raw: Float32Array, start: int, stop: int) -> Iterator[Tensor]:
    """Yield frames start to stop of a clip (D, N) for each item, (B, D, n) each."""
    size = sampling.windows_of(raw.shape[1]).num_frames
    for first in range(start, stop, size):
        part = torch.from_numpy(np.array(raw[:, first : min(first + size, stop)]))
        yield part.expand(len(sampling.indices), -1, -1)


@torch.no_grad()
def vary(sampling: Sampling, raw: Float32Array, strength: float) -> Iterator[Tensor]:
    """Yield variations of a clip, (B, D, n) each, N frames in all.

    Noise is added to the clip, up to the noise level at which the last `strength` of the sampling
    steps begin. These steps denoise it. The dimensions that the model leaves out fade as the clip
    does in the noise. Strength 0 returns the clip, strength 1 what `Sampling.stream` returns.

    Args:
        sampling: How to sample.
        raw: (D, N), may be memory-mapped.
        strength: 0 to 1, in steps of 1 / S.

    Raises:
        ValueError: If the strength is not within 0 and 1.

    Source: Meng et al. 2022, "SDEdit", arXiv:2108.01073, algorithm 1.
    """
    model, num_frames = sampling.model, raw.shape[1]
    first_step = sampling.num_steps - steps_of(strength, sampling.num_steps)
    if first_step == sampling.num_steps:
        yield from unchanged(sampling, raw, 0, num_frames)
        return
    timesteps = build_sampler(sampling.sampler, model.schedule, sampling.num_steps).timesteps
    power = float(model.schedule.alpha_bar[timesteps[first_step]]) if first_step else 0.0

    def noised(start: int, stop: int, noise: Tensor) -> Tensor:
        latents = model.standardizer.standardize(_read(sampling, raw, start, stop))
        return math.sqrt(power) * latents + math.sqrt(1.0 - power) * noise

    done = 0
    for latents in sampling.latents(num_frames, noised, first_step):
        clip = _read(sampling, raw, done, done + latents.shape[2])
        modelled = model.standardizer.unstandardize(model.standardizer.standardize(clip))
        rest = math.sqrt(power) * (clip - modelled)
        yield model.standardizer.unstandardize(latents) + rest
        done += latents.shape[2]


def _read(sampling: Sampling, raw: Float32Array, start: int, stop: int) -> Tensor:
    """Return frames start to stop of a clip on the device of the model, (1, D, n)."""
    return torch.from_numpy(np.array(raw[:, start:stop]))[None].to(sampling.device)


@torch.no_grad()
def inpaint_latents(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    known: Tensor,
    is_known: Tensor,
    num_steps: int,
    generators: Sequence[torch.Generator],
    observe: Observer | None = None,
) -> Tensor:
    """Return latents that continue the known frames into the others, (B, K, N).

    Args:
        denoiser: Denoises latents; can be differentiated.
        schedule: Noise schedule of the denoiser's training.
        known: (B, K, N) latents; only the known frames are used.
        is_known: (N,) bool.
        num_steps: S.
        generators: (B,) generator of each item.
        observe: Called after each step.
    """
    shape = known.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=each) for each in generators])
    return sample(
        _posterior(denoiser, schedule, known, is_known),
        _ddim(schedule, num_steps),
        noise.to(known.device),
        observe=observe,
    )


def _posterior(
    denoiser: Denoiser, schedule: NoiseSchedule, known: Tensor, is_known: Tensor
) -> Denoiser:
    """Return the denoiser of latents of which some frames are known.

    At every step the error of the denoiser at the known frames corrects its output at all frames,
    in proportion to their posterior covariance: the derivative of the denoiser, scaled.

    Source: Rozet et al. 2024, "Learning Diffusion Priors from Observations by Expectation
    Maximization", arXiv:2405.13712, with one iteration of conjugate gradients. Not RePaint
    (arXiv:2201.09865), which calls the denoiser ten times per step: each call of a learned one
    removes some of the music's energy.
    """

    def denoise(noisy: Tensor, timestep: Tensor) -> Tensor:
        power = _power(schedule, int(timestep[0]))
        with torch.enable_grad():
            noisy = noisy.detach().requires_grad_(True)
            output = denoiser(noisy, timestep)
            error = is_known * (known - output.detach())
            (derivative,) = torch.autograd.grad(output, noisy, error)
        # Tweedie's formula: the posterior covariance is the derivative, scaled.
        correction = (1.0 - power) / math.sqrt(power) * derivative
        energy = _inner(error, error)
        explained = _inner(error, correction) + DAMPING * (1.0 - power) * energy
        step = torch.where(explained > 0, energy / explained, 0.0)
        return torch.where(is_known, known, output.detach() + step * correction)

    return denoise


def _ddim(schedule: NoiseSchedule, num_steps: int) -> Sampler:
    """Return DDIM at equally spaced timesteps, Song et al. 2021, arXiv:2010.02502, equation 12."""
    timesteps = build_sampler(DDPM, schedule, num_steps).timesteps
    powers = [*(_power(schedule, timestep) for timestep in timesteps), 1.0]

    def step(number: int, noisy: Tensor, denoised: Tensor, _: Sequence[torch.Generator]) -> Tensor:
        power, next_power = powers[number : number + 2]
        noise = (noisy - math.sqrt(power) * denoised) / math.sqrt(1.0 - power)
        return math.sqrt(next_power) * denoised + math.sqrt(1.0 - next_power) * noise

    return Sampler(timesteps, step)


def _power(schedule: NoiseSchedule, timestep: int) -> float:
    """Return the signal power at a timestep, above 0."""
    return max(float(schedule.alpha_bar[timestep]), SMALLEST_ALPHA_BAR)


def _inner(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product of each item, (B, 1, 1)."""
    return (one * other).sum(dim=(1, 2), keepdim=True)


@torch.no_grad()
def inpaint(sampling: Sampling, raw: Float32Array, start: int, stop: int) -> Tensor:
    """Return new frames start to stop that fit the frames around them, (B, D, stop - start).

    Args:
        sampling: How to sample. `sampler` and `windows` are not used.
        raw: (D, N), may be memory-mapped. One receptive field on each side is read.
        start: First frame to inpaint.
        stop: Frame after the last.

    Raises:
        ValueError: If the clip has no such span.
    """
    if not 0 <= start < stop <= raw.shape[1]:
        raise ValueError(
            f"Frames {start} to {stop} are not within the {raw.shape[1]} frames of the clip. "
            "Give --from and --to within it."
        )
    context = sampling.model.network.receptive_field_frames
    first, last = max(start - context, 0), min(stop + context, raw.shape[1])
    latents = sampling.model.standardizer.standardize(_read(sampling, raw, first, last))
    frames = torch.arange(first, last, device=sampling.device)
    is_known = (frames < start) | (frames >= stop)
    found = _inpainted(sampling, latents, is_known, first, sampling.generators())
    return sampling.model.standardizer.unstandardize(found[:, :, start - first : stop - first])


@torch.no_grad()
def continue_clip(sampling: Sampling, raw: Float32Array, num_frames: int) -> Iterator[Tensor]:
    """Yield the continuation of a clip, (B, D, n) each, `num_frames` frames in all.

    Each window continues the last receptive field of all frames before it.

    Args:
        sampling: How to sample. `sampler` is not used. Frame 0 of the conditions is frame 0 of the
            clip.
        raw: (D, N), may be memory-mapped.
        num_frames: Frames to add.
    """
    standardizer, done = sampling.model.standardizer, raw.shape[1]
    reach = sampling.model.network.receptive_field_frames
    context = standardizer.standardize(_read(sampling, raw, max(done - reach, 0), done))
    generators, end = sampling.generators(), done + num_frames
    size = sampling.windows_of(context.shape[2] + num_frames).num_frames
    while done < end:
        num_known = context.shape[2]
        num_new = min(max(size - num_known, 1), end - done)
        known = torch.nn.functional.pad(context, (0, num_new))
        is_known = torch.arange(known.shape[2], device=known.device) < num_known
        found = _inpainted(sampling, known, is_known, done - num_known, generators)
        yield standardizer.unstandardize(found[:, :, num_known:])
        context, done = found[:, :, -reach:], done + num_new


def _inpainted(
    sampling: Sampling,
    known: Tensor,
    is_known: Tensor,
    first: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Return `inpaint_latents` of frames from `first` on, for each item."""
    return inpaint_latents(
        sampling.denoiser(first, first + known.shape[2]),
        sampling.model.schedule,
        known.expand(len(sampling.indices), -1, -1),
        is_known,
        sampling.num_steps,
        generators,
        sampling.observe,
    )
