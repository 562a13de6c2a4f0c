"""Latents from noise: a model with its conditions, guidance and windows, around the sampler's loop.

B batch, C channels of a condition, D raw latent size, K latent size, N latent frames, R frames of a
condition per latent frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffwave.model import LatentDiffusion
from diffwave.sampling.overlap import Windows, in_windows
from diffwave.sampling.samplers import (
    DPM_SOLVER,
    BeforeStep,
    Denoiser,
    NoiseStream,
    Observer,
    build_sampler,
    item_generator,
    sample,
)


def no_inputs(start: int, stop: int) -> Mapping[str, Tensor]:
    """Return the inputs of a model that follows nothing."""
    return {}


@dataclass(frozen=True)
class Sampling:
    """How to sample a batch of items with a model.

    Attributes:
        model: A trained model.
        indices: (B,) index of each item. Item i has the random numbers of `seed` + i, in any batch.
        seed: Random seed of item 0.
        sampler: One of `diffwave.sampling.samplers.SAMPLERS`.
        num_steps: Sampling steps, 1 to the timesteps of the model's schedule.
        inputs_of: Takes a first frame and the frame after the last; returns by name what the items
            follow there: curves (1 or B, C, n·R), label (1 or B,).
        guidance: Guidance scale by name; see `LatentDiffusion.guided`.
        windows: Division of long clips. None: all frames in one pass.
        observe: Called after each step.
    """

    model: LatentDiffusion
    indices: Sequence[int]
    seed: int
    sampler: str = DPM_SOLVER
    num_steps: int = 50
    inputs_of: Callable[[int, int], Mapping[str, Tensor]] = no_inputs
    guidance: Mapping[str, float] = field(default_factory=dict)
    windows: Windows | None = None
    observe: Observer | None = None

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return self.model.standardizer.mean.device

    def generators(self) -> list[torch.Generator]:
        """Return the generator of each item."""
        return [item_generator(self.seed, index) for index in self.indices]

    def windows_of(self, num_frames: int) -> Windows:
        """Return the division of a clip of N frames."""
        return self.windows or Windows(num_frames, 0, 0)

    def denoiser(self, start: int, stop: int) -> Denoiser:
        """Return the guided denoiser of frames start to stop.

        Raises:
            ValueError: If a condition does not fit the model or the frames.
        """
        given = self.inputs_of(start, stop)
        inputs = {name: value.to(self.device) for name, value in given.items()}
        terms = self.model.guided(inputs, self.guidance, len(self.indices), stop - start)
        return lambda noisy, timestep: self.model.denoise_guided(noisy, timestep, terms)

    @torch.no_grad()
    def latents(
        self,
        num_frames: int,
        begin: Callable[[int, int, Tensor], Tensor] | None = None,
        first_step: int = 0,
    ) -> Iterator[Tensor]:
        """Yield latents, (B, K, n) each, N frames in all.

        Args:
            num_frames: N.
            begin: Takes the first frame of a window, the frame after its last, and its noise
                (B, K, n). Returns noisy latents at the noise level of `first_step`. None: begins
                with the noise.
            first_step: Number of the first step to make, from 0.

        Raises:
            ValueError: If the sampler cannot sample so many frames, or a condition does not fit.
        """
        windows = self.windows_of(num_frames)
        windows.check(self.sampler, num_frames)
        first_frames = min(num_frames, windows.num_frames)
        size = self.model.standardizer.latent_size
        noise = NoiseStream(self.seed, self.indices, size, first_frames)

        def sample_frames(start: int, stop: int, before_step: BeforeStep) -> Tensor:
            noisy = noise.window(start, stop).to(self.device)
            return sample(
                self.denoiser(start, stop),
                build_sampler(self.sampler, self.model.schedule, self.num_steps),
                noisy if begin is None else begin(start, stop, noisy),
                noise.generators,
                first_step=first_step,
                before_step=before_step,
                observe=self.observe,
            )

        yield from in_windows(windows, num_frames, sample_frames)

    def stream(self, num_frames: int) -> Iterator[Tensor]:
        """Yield raw latents sampled from noise, (B, D, n) each, N frames in all."""
        return map(self.model.standardizer.unstandardize, self.latents(num_frames))

    def generate(self, num_frames: int) -> Tensor:
        """Return raw latents sampled from noise, (B, D, N)."""
        return torch.cat(list(self.stream(num_frames)), dim=2)
