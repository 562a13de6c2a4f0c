"""Latents made from other latents: variations, spans painted anew, continuations; and long clips.

B batch, D raw latent size, K latent size, N latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffwave.conditions.inputs import Conditions
from diffwave.model import LatentDiffusion
from diffwave.sampling.samplers import (
    DPM_SOLVER,
    SMALLEST_ALPHA_BAR,
    Denoiser,
    NoiseStream,
    build_sampler,
    item_generator,
    model_denoiser,
)
from diffwave.sampling.windows import WINDOW_FRAMES, Windows, sample_in_windows
from diffwave.schedule import NoiseSchedule

Array = NDArray[np.float32]
# As if the known frames were known but for this share of the noise.
DAMPING = 0.01


@dataclass(frozen=True)
class Sampling:
    """How to sample, whatever is made.

    Attributes:
        model: Trained.
        indices: Of the items; each has its own random numbers, from `seed` + index.
        seed: Of the first item.
        sampler: One of `diffwave.sampling.samplers.SAMPLERS`.
        num_steps: Sampling steps.
        conditions: What the items follow. Their frame n is frame n of the result.
        guidance: Guidance scale by name; see `LatentDiffusion.guided`.
        window_frames: Frames sampled at a time; None for 1024, or 4 receptive fields if more.
        progress: Called after each step of the model.
    """

    model: LatentDiffusion
    indices: Sequence[int]
    seed: int
    sampler: str = DPM_SOLVER
    num_steps: int = 50
    conditions: Conditions = field(default_factory=Conditions)
    guidance: Mapping[str, float] = field(default_factory=dict)
    window_frames: int | None = None
    progress: Callable[[int], None] | None = None

    @property
    def windows(self) -> Windows:
        """Return how long clips are divided: one receptive field is shared by two windows.

        Raises:
            ValueError: If `window_frames` are too few.
        """
        reach = self.model.network.receptive_field_frames // 2
        usual = max(WINDOW_FRAMES, 8 * reach)
        return Windows(self.window_frames or usual, reach, reach)

    @property
    def device(self) -> torch.device:
        """Return where the model is."""
        return self.model.standardizer.mean.device

    def denoiser(self, start: int, stop: int) -> Denoiser:
        """Return the denoiser of frames start to stop."""
        inputs = self.conditions.window(self.model, start, stop)
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        return model_denoiser(self.model, inputs, self.guidance, len(self.indices), stop - start)

    def noise(self, num_frames: int) -> NoiseStream:
        """Return the noise that clips of N frames begin with."""
        first_frames = min(num_frames, self.windows.num_frames)
        latent_size = self.model.standardizer.latent_size
        return NoiseStream(self.seed, self.indices, latent_size, first_frames)

    def in_windows(
        self,
        noisy_of: Callable[[int, int], Tensor],
        num_frames: int,
        generators: Sequence[torch.Generator],
        first_step: int = 0,
    ) -> Iterator[Tensor]:
        """Yield latents, (B, K, n), N frames in all; see `sample_in_windows`."""
        return sample_in_windows(
            self.denoiser,
            self.model.schedule,
            noisy_of,
            num_frames,
            self.windows,
            self.sampler,
            self.num_steps,
            generators,
            self.progress,
            first_step,
        )

    def generators(self) -> list[torch.Generator]:
        """Return the random numbers of the items."""
        return [item_generator(self.seed, index) for index in self.indices]


@torch.no_grad()
def generate_long(sampling: Sampling, num_frames: int) -> Iterator[Tensor]:
    """Yield raw latents out of noise, (B, D, n), N frames in all; see `sample_in_windows`."""
    noise = sampling.noise(num_frames)
    blocks = sampling.in_windows(
        lambda start, stop: noise.window(start, stop).to(sampling.device),
        num_frames,
        noise.generators,
    )
    yield from map(sampling.model.standardizer.unstandardize, blocks)


def steps_of(strength: float, num_steps: int) -> int:
    """Return how many of the last sampling steps a variation makes.

    Raises:
        ValueError: If the strength lies not within 0 and 1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"--strength is {strength}; 0 (nothing changes) to 1 (all new) is needed.")
    return round(strength * num_steps)


@torch.no_grad()
def vary(sampling: Sampling, raw: Array, strength: float) -> Iterator[Tensor]:
    """Yield variations of a clip, (B, D, n), as many frames as it has.

    The clip is noised to the level that the last `strength` of the sampling steps begin with, and
    denoised by these. What the model does not model of the clip fades as the clip itself does in
    the noise. Strength 0 gives back the clip, strength 1 what `generate_long` makes of the seed.

    Args:
        sampling: How to sample.
        raw: (D, N), may be memory-mapped.
        strength: 0 to 1, in steps of 1 / `num_steps`.

    Raises:
        ValueError: If the strength lies not within 0 and 1.

    Source: Meng et al. 2022, "SDEdit", arXiv:2108.01073, algorithm 1.
    """
    model, num_frames = sampling.model, raw.shape[1]
    num_made = steps_of(strength, sampling.num_steps)
    if num_made == 0:
        size = sampling.windows.num_frames
        for start in range(0, num_frames, size):
            part = torch.from_numpy(np.array(raw[:, start : start + size]))
            yield part.expand(len(sampling.indices), -1, -1)
        return
    first_step = sampling.num_steps - num_made
    timesteps = build_sampler(sampling.sampler, model.schedule, sampling.num_steps).timesteps
    power = float(model.schedule.alpha_bar[int(timesteps[first_step])]) if first_step else 0.0
    noise = sampling.noise(num_frames)

    def part_of(start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.array(raw[:, start:stop]))[None].to(sampling.device)

    def noisy_of(start: int, stop: int) -> Tensor:
        latents = model.standardizer.standardize(part_of(start, stop))
        own = noise.window(start, stop).to(sampling.device)
        return math.sqrt(power) * latents + math.sqrt(1.0 - power) * own

    done = 0
    for latents in sampling.in_windows(noisy_of, num_frames, noise.generators, first_step):
        given = part_of(done, done + latents.shape[2])
        modelled = model.standardizer.unstandardize(model.standardizer.standardize(given))
        rest = math.sqrt(power) * (given - modelled)
        yield model.standardizer.unstandardize(latents) + rest
        done += latents.shape[2]


@torch.no_grad()
def paint(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    known: Tensor,
    is_known: Tensor,
    num_steps: int,
    generators: Sequence[torch.Generator],
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return latents that continue the known frames into the others, (B, K, N).

    At every step what the denoiser misses of the known frames corrects its guess of all frames, in
    the proportion in which they vary together: by the posterior covariance, which its derivative
    tells.

    Args:
        denoiser: Of the latents; can be differentiated.
        schedule: The one the denoiser knows.
        known: (B, K, N), of which the known frames count.
        is_known: (N,) bool.
        num_steps: Sampling steps.
        generators: One per item.
        progress: Called after each step.

    Source: Rozet et al. 2024, "Learning Diffusion Priors from Observations by Expectation
    Maximization", arXiv:2405.13712, with one iteration of conjugate gradients and the
    steps of DDIM (arXiv:2010.02502). Not RePaint (arXiv:2201.09865), which calls the denoiser ten
    times a step: each time a learned one takes some of the music's energy away.
    """
    shape = known.shape[1:]
    noisy = torch.stack([torch.randn(shape, generator=each) for each in generators])
    noisy = noisy.to(known.device)
    timesteps = build_sampler("ddpm", schedule, num_steps).timesteps.tolist()
    powers = [max(float(schedule.alpha_bar[t]), SMALLEST_ALPHA_BAR) for t in timesteps] + [1.0]
    for number, timestep in enumerate(timesteps):
        power, less_noisy = powers[number], powers[number + 1]
        batch = torch.full((len(noisy),), int(timestep), dtype=torch.int64)
        with torch.enable_grad():
            given = noisy.requires_grad_(True)
            guess = denoiser(given, batch)
            missed = is_known * (known - guess.detach())
            (derivative,) = torch.autograd.grad(guess, given, missed)
        # Tweedie's formula: the posterior covariance is the derivative, scaled.
        correction = (1.0 - power) / math.sqrt(power) * derivative
        energy = _inner(missed, missed)
        explained = _inner(missed, correction) + DAMPING * (1.0 - power) * energy
        step = torch.where(explained > 0, energy / explained, 0.0)
        denoised = torch.where(is_known, known, guess.detach() + step * correction)
        noise = (noisy.detach() - math.sqrt(power) * denoised) / math.sqrt(1.0 - power)
        noisy = math.sqrt(less_noisy) * denoised + math.sqrt(1.0 - less_noisy) * noise
        if progress is not None:
            progress(number + 1)
    return noisy


def _inner(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product of each item, (B, 1, 1)."""
    return (one * other).sum(dim=(1, 2), keepdim=True)


@torch.no_grad()
def inpaint(sampling: Sampling, raw: Array, start: int, stop: int) -> Tensor:
    """Return frames start to stop made anew to fit those around them, (B, D, stop - start).

    Args:
        sampling: How to sample; `sampler` and `window_frames` play no part.
        raw: (D, N), may be memory-mapped. One receptive field on each side is read.
        start: First frame to make.
        stop: The one after the last.

    Raises:
        ValueError: If there is no such span in the clip.
    """
    if not 0 <= start < stop <= raw.shape[1]:
        raise ValueError(
            f"Frames {start} to {stop} are no part of the clip's {raw.shape[1]} frames. "
            "Give --from and --to within it."
        )
    context = sampling.model.network.receptive_field_frames
    first, last = max(start - context, 0), min(stop + context, raw.shape[1])
    given = torch.from_numpy(np.array(raw[:, first:last]))[None].to(sampling.device)
    latents = sampling.model.standardizer.standardize(given).expand(len(sampling.indices), -1, -1)
    frames = torch.arange(first, last, device=sampling.device)
    is_known = (frames < start) | (frames >= stop)
    made = _paint(sampling, latents, is_known, first, sampling.generators())
    return sampling.model.standardizer.unstandardize(made[:, :, start - first : stop - first])


@torch.no_grad()
def continue_clip(sampling: Sampling, raw: Array, num_frames: int) -> Iterator[Tensor]:
    """Yield what follows a clip, (B, D, n), `num_frames` frames in all.

    Window by window, each continues the last receptive field of what there is.

    Args:
        sampling: How to sample; `sampler` plays no part. Frame 0 of the conditions is that of the
            clip.
        raw: (D, N), may be memory-mapped.
        num_frames: To make.
    """
    standardizer, done = sampling.model.standardizer, raw.shape[1]
    reach = sampling.model.network.receptive_field_frames
    given = torch.from_numpy(np.array(raw[:, max(done - reach, 0) :]))[None].to(sampling.device)
    context = standardizer.standardize(given).expand(len(sampling.indices), -1, -1)
    generators, end = sampling.generators(), done + num_frames
    while done < end:
        num_new = min(max(sampling.windows.num_frames - context.shape[2], 1), end - done)
        known = torch.nn.functional.pad(context, (0, num_new))
        is_known = torch.arange(known.shape[2], device=known.device) < context.shape[2]
        first = done - context.shape[2]
        made = _paint(sampling, known, is_known, first, generators)
        yield standardizer.unstandardize(made[:, :, context.shape[2] :])
        context, done = made[:, :, -reach:], done + num_new


def _paint(
    sampling: Sampling,
    known: Tensor,
    is_known: Tensor,
    first: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    return paint(
        sampling.denoiser(first, first + known.shape[2]),
        sampling.model.schedule,
        known,
        is_known,
        sampling.num_steps,
        generators,
        sampling.progress,
    )
