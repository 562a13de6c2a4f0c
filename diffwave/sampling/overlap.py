"""Latents of any length in constant memory, sampled in overlapping windows without seams.

    frames      0 ────────────────────────────────────────────────▶
    window 1    [ kept ............... | context | margin ]
    window 2                             [ known  | kept ............... | context | margin ]

A denoiser has a finite receptive field, so a sampled frame depends little on noise far away. Each
window is sampled from the noise of its own frames. The last frames of a window, the margin, lack
their right context. They are dropped, and the next window samples them again from the same noise.
The frames before the margin, the context, are right. The next window begins with these frames: at
each step it takes their noisy latents from the window before, so it continues them as one pass over
all frames would. This is overlap-save convolution, applied to each step of a sampler.

B batch, K latent size, N latent frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffwave.sampling.samplers import DDPM, BeforeStep

if TYPE_CHECKING:
    from diffwave.model import LatentDiffusion

DEFAULT_FRAMES = 1024
# Samples frames start to stop, with a hook before each step. Returns latents (B, K, stop - start).
Pass = Callable[[int, int, BeforeStep], Tensor]


@dataclass(frozen=True)
class Windows:
    """The division of a long clip into windows.

    Attributes:
        num_frames: Frames of each window; the last may have fewer.
        context: Frames that a window shares with the kept frames of the window before.
        margin: Frames at the end of a window that the next window samples again.

    Raises:
        ValueError: If a window keeps no frame.
    """

    num_frames: int
    context: int
    margin: int

    def __post_init__(self) -> None:
        if self.num_frames <= self.context + self.margin:
            raise ValueError(
                f"A window of {self.num_frames} frames is too short: it shares {self.context} "
                f"with the window before, and the next samples {self.margin} again. "
                f"Give at least {self.context + self.margin + 1}."
            )

    @classmethod
    def of(cls, model: LatentDiffusion, num_frames: int | None = None) -> Windows:
        """Return windows that overlap by one receptive field of a model.

        Args:
            model: Denoises the windows.
            num_frames: Frames of a window. None: 1024, or 4 receptive fields if they are more.

        Raises:
            ValueError: If a window keeps no frame.
        """
        reach = model.network.receptive_field_frames // 2
        return cls(num_frames or max(DEFAULT_FRAMES, 8 * reach), reach, reach)

    def count(self, num_frames: int) -> int:
        """Return the number of windows of a clip of N frames."""
        kept = self.num_frames - self.context - self.margin
        return 1 + max(-(-(num_frames - self.num_frames) // kept), 0)

    def check(self, sampler: str, num_frames: int) -> None:
        """Check that a sampler can sample a clip of N frames in these windows.

        Raises:
            ValueError: If there are several windows and the sampler draws noise at its steps. The
                next window would sample another margin, and the seam would be audible.
        """
        if sampler == DDPM and num_frames > self.num_frames:
            raise ValueError(
                f"The sampler '{sampler}' can sample one --window of {self.num_frames} frames; "
                f"{num_frames} are needed. Choose dpm-solver++ or ddim, or a longer --window."
            )


def in_windows(windows: Windows, num_frames: int, sample_frames: Pass) -> Iterator[Tensor]:
    """Yield sampled latents, (B, K, n) each, N frames in all.

    A frame does not depend on the number of windows. Only the frames of the last window do: nothing
    follows them.

    Args:
        windows: The division of the clip.
        num_frames: N.
        sample_frames: Samples the frames of a window. Same frames, same noise.

    Source: overlap-save, Oppenheim & Schafer, "Discrete-Time Signal Processing", section 8.7.3.
    Differs: the filter is a step of a sampler, so the shared frames are known at every step.
    Bar-Tal et al. 2023 (arXiv:2302.08113) average overlapping windows instead. That needs all of
    them in memory and reduces the variance where they overlap.
    """
    start, known = 0, list[Tensor]()
    while True:
        stop = min(start + windows.num_frames, num_frames)
        is_last = stop == num_frames
        following = stop - windows.margin - windows.context
        first = following - start
        path = _Path(known, None if is_last else slice(first, first + windows.context))
        latents = sample_frames(start, stop, path)
        num_known = windows.context if known else 0
        yield latents[:, :, num_known : stop - start - (0 if is_last else windows.margin)]
        if is_last:
            return
        start, known = following, path.kept


class _Path:
    """Replaces the first frames of a window at each step, and keeps later ones.

    Args:
        known: Noisy latents (B, K, context) before each step, or none.
        frames: The frames to keep, or None.

    Attributes:
        kept: Noisy latents (B, K, n) of these frames before each step.
    """

    def __init__(self, known: Sequence[Tensor], frames: slice | None) -> None:
        self._known = iter(known)
        self._frames = frames
        self.kept: list[Tensor] = []

    def __call__(self, noisy: Tensor) -> Tensor:
        if (known := next(self._known, None)) is not None:
            noisy = torch.cat([known, noisy[:, :, known.shape[2] :]], dim=2)
        if self._frames is not None:
            self.kept.append(noisy[:, :, self._frames].clone())
        return noisy
