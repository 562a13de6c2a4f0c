"""Music of any length in constant memory: sampled in overlapping windows, without seams.

    frames      0 ────────────────────────────────────────────────▶
    window 1    [ kept ............... | context | margin ]
    window 2                             [ known  | kept ............... | context | margin ]

A denoiser sees a limited stretch of frames, so what a sampler does with a frame depends little on
noise far away. Each window is sampled with the noise of its own frames. Its last frames, the
margin, miss what would follow; they are thrown away and made again by the next window, from the
same noise. The frames before them, the context, are right: the next window leads its own first
frames through the very noisy latents that they went through, step by step, and so continues them
as one pass over everything would. This is overlap-save convolution, applied to each step of a
sampler.

B batch, D raw latent size, K latent size, N latent frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffwave.sampling.samplers import DDPM, Denoiser, sample
from diffwave.schedule import NoiseSchedule

WINDOW_FRAMES = 1024


@dataclass(frozen=True)
class Windows:
    """How a long clip is divided.

    Attributes:
        num_frames: Of each window, but the last.
        context: Frames that a window has in common with what is kept of the one before.
        margin: Frames at the end of a window that the next one makes again.

    Raises:
        ValueError: If a window keeps no frame.
    """

    num_frames: int
    context: int
    margin: int

    def __post_init__(self) -> None:
        if self.num_frames <= self.context + self.margin:
            raise ValueError(
                f"A window of {self.num_frames} frames keeps none of its own: it shares "
                f"{self.context} with the window before and leaves {self.margin} to the next. "
                f"Give at least {self.context + self.margin + 1}."
            )

    def count(self, num_frames: int) -> int:
        """Return how many windows a clip of N frames takes."""
        kept = self.num_frames - self.context - self.margin
        return 1 + max(-(-(num_frames - self.num_frames) // kept), 0)

    def check(self, sampler: str, num_frames: int) -> None:
        """Check that a clip can be sampled in these windows.

        Raises:
            ValueError: If it takes several and the sampler draws noise at its steps: the margin
                would not be made anew as it was, and the seam would show.
        """
        if sampler == DDPM and num_frames > self.num_frames:
            raise ValueError(
                f"The sampler '{sampler}' makes {self.num_frames} frames at most, one --window; "
                f"{num_frames} were asked for. Choose dpm-solver++ or ddim, or a longer --window."
            )


class _Path:
    """Leads the first frames of a window along a known path, and keeps the path of later ones.

    Args:
        known: Noisy latents (B, K, context) at the start of each step, or nothing.
        kept: Frames whose path to keep, or None.
    """

    def __init__(self, known: Sequence[Tensor], kept: slice | None) -> None:
        self._known = known
        self._kept = kept
        self._count = 0
        self.path: list[Tensor] = []

    def __call__(self, step: int, noisy: Tensor) -> Tensor:
        if self._known:
            known = self._known[self._count]
            noisy = torch.cat([known, noisy[:, :, known.shape[2] :]], dim=2)
        if self._kept is not None:
            self.path.append(noisy[:, :, self._kept].clone())
        self._count += 1
        return noisy


def sample_in_windows(
    denoiser_of: Callable[[int, int], Denoiser],
    schedule: NoiseSchedule,
    noisy_of: Callable[[int, int], Tensor],
    num_frames: int,
    windows: Windows,
    name: str,
    num_steps: int,
    generators: Sequence[torch.Generator],
    progress: Callable[[int], None] | None = None,
    first_step: int = 0,
) -> Iterator[Tensor]:
    """Yield what a sampler makes of noise, (B, K, n), frame after frame; N frames in all.

    A frame depends on noise, schedule, sampler and windows. It does not depend on the number of
    windows, but for those of the last window, which see that nothing follows.

    Args:
        denoiser_of: Takes the first frame of a window and the one after its last.
        schedule: The one the denoiser knows.
        noisy_of: Takes the same, returns the noise (B, K, n), or noisy latents of the level of
            `first_step`.
        num_frames: N.
        windows: How to divide them.
        name: Of the sampler.
        num_steps: Sampling steps.
        generators: One per item, for the samplers that draw more noise.
        progress: Called with the number of each finished step of each window.
        first_step: Number of the step to begin with, from 0.

    Raises:
        ValueError: If the sampler cannot do it; see `Windows.check`.

    Source: overlap-save, Oppenheim & Schafer, "Discrete-Time Signal Processing", section 8.7.3.
    Differs: the filter is a step of a sampler, so that the frames shared are known at every step.
    Bar-Tal et al. 2023 (arXiv:2302.08113) average overlapping windows instead, which needs all of
    them in memory and takes variance away where they overlap.
    """
    windows.check(name, num_frames)
    start, known = 0, list[Tensor]()
    while True:
        stop = min(start + windows.num_frames, num_frames)
        is_last = stop == num_frames
        following = stop - windows.margin - windows.context
        first = following - start
        path = _Path(known, None if is_last else slice(first, first + windows.context))
        latents = sample(
            denoiser_of(start, stop),
            schedule,
            noisy_of(start, stop),
            name,
            num_steps,
            generators,
            progress,
            first_step=first_step,
            before_step=path,
        )
        num_known = windows.context if known else 0
        yield latents[:, :, num_known : stop - start - (0 if is_last else windows.margin)]
        if is_last:
            return
        start, known = following, path.path
