"""Spectrograms as a condition at latent rate: strided convolutions that reduce time.

B batch, M mel bands, H channels of the condition, N latent frames, R mel frames per latent frame.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# A band whose level varies less than this (of the range 0 to 1) is not scaled up further.
SMALLEST_STD = 0.01


def whole_ratio(hop_samples: int, mel_hop_samples: int) -> int:
    """Return how many mel frames there are per latent frame.

    Raises:
        ValueError: If it is not a whole number; the message names both hops.
    """
    if mel_hop_samples < 1 or hop_samples % mel_hop_samples:
        raise ValueError(
            f"The latents' hop of {hop_samples} samples is not a whole multiple of the "
            f"spectrograms' hop of {mel_hop_samples}. Choose a --mel-hop that divides it."
        )
    return hop_samples // mel_hop_samples


def prime_factors(number: int) -> list[int]:
    """Return the prime factors of a whole number, smallest first; none of 1."""
    factors, factor = [], 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors


class SpectrogramConditioner(nn.Module):
    r"""Turn log-mel spectrograms into a condition, frame n from mel frames n·R to (n + 1)·R - 1.

    One convolution per prime factor p of R reduces time by p. It sees p frames and one on
    each side:

        mel frames   . [ 0 1 2 ] [ 3 4 5 ] .      p = 3: kernel 5, stride 3, padding 1 + 1
                      \   0    / \   1    /

    Args:
        num_mels: M.
        condition_channels: H.
        hop_samples: Audio samples per latent frame.
        mel_hop_samples: Audio samples per mel frame; must divide `hop_samples`.

    Attributes:
        ratio: R.
        null_condition: (H, 1) learnt, stands for the absence of a condition.

    Raises:
        ValueError: If the ratio of the hops is not whole.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, num_mels: int, condition_channels: int, hop_samples: int, mel_hop_samples: int
    ) -> None:
        super().__init__()
        self.num_mels = num_mels
        self.mel_hop_samples = mel_hop_samples
        self.ratio = whole_ratio(hop_samples, mel_hop_samples)
        self.register_buffer("mean", torch.zeros(num_mels))
        self.register_buffer("std", torch.ones(num_mels))
        self.null_condition = nn.Parameter(torch.zeros(condition_channels, 1))
        layers: list[nn.Module] = [nn.Conv1d(num_mels, condition_channels, 3, padding=1)]
        for factor in prime_factors(self.ratio):
            layers += [
                nn.SiLU(),
                nn.Conv1d(
                    condition_channels, condition_channels, factor + 2, stride=factor, padding=1
                ),
            ]
        self.layers = nn.Sequential(*layers)

    def fit(self, spectrograms: Iterable[NDArray[np.float32]]) -> None:
        """Set the input's normalisation from training spectrograms (M, frames), read once."""
        count, total, squares = 0, np.zeros(self.num_mels), np.zeros(self.num_mels)
        for array in spectrograms:
            part = np.asarray(array, dtype=np.float64)
            count += part.shape[1]
            total += part.sum(axis=1)
            squares += np.square(part).sum(axis=1)
        mean = total / max(count, 1)
        variance = np.maximum(squares / max(count, 1) - np.square(mean), SMALLEST_STD**2)
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.sqrt(variance)))

    def forward(self, spectrogram: Tensor, is_absent: Tensor | None = None) -> Tensor:
        """Return the condition.

        Args:
            spectrogram: (B, M, N·R) log-mel in [0, 1].
            is_absent: (B,) bool; these items get the null condition.

        Returns:
            (B, H, N).

        Raises:
            ValueError: If bands or length do not fit.
        """
        if spectrogram.shape[1] != self.num_mels or spectrogram.shape[2] % self.ratio:
            raise ValueError(
                f"A spectrogram of {spectrogram.shape[1]} bands and {spectrogram.shape[2]} frames "
                f"was given; {self.num_mels} bands and a multiple of {self.ratio} frames are "
                "needed."
            )
        normal = (spectrogram - self.mean[:, None]) / self.std[:, None]
        condition: Tensor = self.layers(normal)
        if is_absent is None:
            return condition
        return torch.where(is_absent[:, None, None], self.null_condition, condition)

    def absent(self, batch_size: int, num_frames: int) -> Tensor:
        """Return the null condition of a batch, (B, H, N)."""
        return self.null_condition.expand(batch_size, -1, num_frames)
