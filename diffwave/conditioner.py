"""Turn spectrograms, controls and class labels into conditions at the latent frame rate.

Each conditioner has its own null condition, which is used where the input is absent. B batch, C
channels of the input, M mel bands, H channels of the condition, N latent frames, R input frames per
latent frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rave.compute.arrays import Float32Array

SPECTROGRAM, LABEL = "spectrogram", "label"
# Smallest std by which a channel is divided: 1 % of the range of spectrograms and chroma; loudness
# and onsets are in dB.
SMALLEST_STD = 0.01
NO_LABEL = -1


def whole_ratio(hop_samples: int, mel_hop_samples: int) -> int:
    """Return the number of mel frames per latent frame.

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
    """Return the prime factors of a whole number, smallest first; empty for 1."""
    factors, factor = [], 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors


class Conditioner(nn.Module):
    """Base class of all conditioners; holds the null condition.

    Args:
        condition_channels: H.

    Attributes:
        null_condition: (H, 1) learnt, used where a condition is absent.
        ratio: R, input frames per latent frame.
    """

    ratio = 1

    def __init__(self, condition_channels: int) -> None:
        super().__init__()
        self.null_condition = nn.Parameter(torch.zeros(condition_channels, 1))

    def absent(self, batch_size: int, num_frames: int) -> Tensor:
        """Return the null condition of a batch, (B, H, N)."""
        return self.null_condition.expand(batch_size, -1, num_frames)

    def _or_null(self, condition: Tensor, is_absent: Tensor | None) -> Tensor:
        """Return the condition (B, H, N) with the null condition where `is_absent` (B,)."""
        if is_absent is None:
            return condition
        return torch.where(is_absent[:, None, None], self.null_condition, condition)


class NormalizedConditioner(Conditioner):
    """A conditioner of curves (B, C, N·R), normalised by the statistics of the training data.

    Args:
        num_channels: C.
        condition_channels: H.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_channels: int, condition_channels: int) -> None:
        super().__init__(condition_channels)
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("std", torch.ones(num_channels))

    @property
    def num_channels(self) -> int:
        """Return C."""
        return len(self.mean)

    def fit(self, arrays: Iterable[Float32Array]) -> None:
        """Set the normalisation from training inputs (C, frames), which are read once."""
        count, total, squares = 0, np.zeros(self.num_channels), np.zeros(self.num_channels)
        for array in arrays:
            part = np.asarray(array, dtype=np.float64)
            count += part.shape[1]
            total += part.sum(axis=1)
            squares += np.square(part).sum(axis=1)
        mean = total / max(count, 1)
        variance = np.maximum(squares / max(count, 1) - np.square(mean), SMALLEST_STD**2)
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.sqrt(variance)))

    def _normal(self, value: Tensor) -> Tensor:
        return (value - self.mean[:, None]) / self.std[:, None]


class ControlConditioner(NormalizedConditioner):
    """Turn a control at the latent frame rate into a condition; each frame sees two on each side.

    Args:
        num_channels: C.
        condition_channels: H.
    """

    def __init__(self, num_channels: int, condition_channels: int) -> None:
        super().__init__(num_channels, condition_channels)
        self.layers = nn.Sequential(
            nn.Conv1d(num_channels, condition_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(condition_channels, condition_channels, 3, padding=1),
        )

    def forward(self, value: Tensor, is_absent: Tensor | None = None) -> Tensor:
        """Return the condition.

        Args:
            value: (B, C, N).
            is_absent: (B,) bool; these items get the null condition.

        Returns:
            (B, H, N).

        Raises:
            ValueError: If the number of channels does not fit.
        """
        if value.shape[1] != self.num_channels:
            raise ValueError(
                f"The control has {value.shape[1]} channels; {self.num_channels} are needed."
            )
        return self._or_null(self.layers(self._normal(value)), is_absent)


class LabelConditioner(Conditioner):
    """Turn a class label into a condition that is the same in all frames.

    Args:
        names: Names of the labels; label i has the i-th name.
        condition_channels: H.

    Raises:
        ValueError: If there are fewer than two names, or a name occurs twice.
    """

    def __init__(self, names: Sequence[str], condition_channels: int) -> None:
        super().__init__(condition_channels)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                f"{len(names)} labels were given; at least 2 are needed, all different."
            )
        self.names = list(names)
        self.embedding = nn.Embedding(len(names), condition_channels)

    def index(self, name: str) -> int:
        """Return the index of a label.

        Raises:
            ValueError: If there is no such label; the message lists all labels.
        """
        if name not in self.names:
            raise ValueError(
                f"The run has no label '{name}'. Choose one of: {', '.join(self.names)}."
            )
        return self.names.index(name)

    def forward(self, label: Tensor, is_absent: Tensor | None = None) -> Tensor:
        """Return the condition.

        Args:
            label: (B,) int64; `NO_LABEL` gets the null condition.
            is_absent: (B,) bool; these items get the null condition too.

        Returns:
            (B, H, 1).
        """
        condition: Tensor = self.embedding(label.clamp(min=0))[:, :, None]
        none = label < 0
        return self._or_null(condition, none if is_absent is None else none | is_absent)


class SpectrogramConditioner(NormalizedConditioner):
    r"""Turn log-mel spectrograms into a condition, frame n from mel frames n·R to (n + 1)·R - 1.

    One convolution per prime factor p of R shortens the time axis by p. It sees p frames and one on
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

    Raises:
        ValueError: If the ratio of the hops is not whole.
    """

    def __init__(
        self, num_mels: int, condition_channels: int, hop_samples: int, mel_hop_samples: int
    ) -> None:
        super().__init__(num_mels, condition_channels)
        self.mel_hop_samples = mel_hop_samples
        self.ratio = whole_ratio(hop_samples, mel_hop_samples)
        layers: list[nn.Module] = [nn.Conv1d(num_mels, condition_channels, 3, padding=1)]
        for factor in prime_factors(self.ratio):
            layers += [
                nn.SiLU(),
                nn.Conv1d(
                    condition_channels, condition_channels, factor + 2, stride=factor, padding=1
                ),
            ]
        self.layers = nn.Sequential(*layers)

    @property
    def num_mels(self) -> int:
        """Return M."""
        return self.num_channels

    def forward(self, spectrogram: Tensor, is_absent: Tensor | None = None) -> Tensor:
        """Return the condition.

        Args:
            spectrogram: (B, M, N·R) log-mel in [0, 1].
            is_absent: (B,) bool; these items get the null condition.

        Returns:
            (B, H, N).

        Raises:
            ValueError: If the bands or the length do not fit.
        """
        if spectrogram.shape[1] != self.num_mels or spectrogram.shape[2] % self.ratio:
            raise ValueError(
                f"The spectrogram has {spectrogram.shape[1]} bands and {spectrogram.shape[2]} "
                f"frames; {self.num_mels} bands and a multiple of {self.ratio} frames are needed."
            )
        return self._or_null(self.layers(self._normal(spectrogram)), is_absent)
