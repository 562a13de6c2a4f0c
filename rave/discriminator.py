"""Discriminators of phase 2. B batch, C channels, T samples.

Each sub-discriminator returns its feature tensors, logits last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.convolution import LEAKY_SLOPE, normalised

NUM_LAYERS, STRIDE = 4, 4
PERIOD_KERNEL, SCALE_KERNEL = 5, 15


class ConvNet(nn.Module):
    """Four strided convolutions and a 1×1 read-out, in one or two dimensions.

    Features are the convolutions' outputs before the activation.
    """

    def __init__(self, in_channels: int, capacity: int, kernel_size: int, num_dims: int) -> None:
        super().__init__()
        conv: Any = nn.Conv1d if num_dims == 1 else nn.Conv2d
        ones = (1,) * (num_dims - 1)  # the second axis of a period grid is left alone
        kernel, stride = (kernel_size, *ones), (STRIDE, *ones)
        padding = (kernel_size // 2, *(0 for _ in ones))
        sizes = [in_channels, *(capacity * 2**i for i in range(NUM_LAYERS))]
        layers: list[nn.Module] = []
        for size, next_size in pairwise(sizes):
            layers.append(normalised(conv(size, next_size, kernel, stride, padding)))
            layers.append(nn.LeakyReLU(LEAKY_SLOPE))
        self.net = nn.Sequential(*layers, conv(sizes[-1], 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return four features and the logits."""
        features = []
        for layer in self.net:
            x = layer(x)
            if not isinstance(layer, nn.LeakyReLU):
                features.append(x)
        return features


class MultiPeriodDiscriminator(nn.Module):
    """One network for each period p, on audio folded to (T/p, p).

    Source: Kong et al. 2020, HiFi-GAN, arXiv:2010.05646.
    """

    def __init__(self, num_channels: int, capacity: int, periods: Sequence[int]) -> None:
        super().__init__()
        self.periods = list(periods)
        self.layers = nn.ModuleList(
            ConvNet(num_channels, capacity, PERIOD_KERNEL, 2) for _ in self.periods
        )

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """Return the features of every period for (B, C, T)."""
        results = []
        for period, layer in zip(self.periods, self.layers, strict=True):
            padded = functional.pad(audio, (0, -audio.shape[-1] % period))
            results.append(layer(padded.unflatten(-1, (-1, period))))
        return results


class MultiScaleDiscriminator(nn.Module):
    """One network for each scale i, on audio averaged over 2^i samples.

    Source: Kumar et al. 2019, MelGAN, arXiv:1910.06711.
    """

    def __init__(self, num_channels: int, capacity: int, num_scales: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ConvNet(num_channels, capacity, SCALE_KERNEL, 1) for _ in range(num_scales)
        )

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """Return the features of every scale for (B, C, T)."""
        results = []
        for layer in self.layers:
            results.append(layer(audio))
            audio = functional.avg_pool1d(audio, 2)
        return results


class CombinedDiscriminator(nn.Module):
    """Several discriminators on the same audio."""

    def __init__(self, discriminators: Sequence[nn.Module]) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """Return the features of every sub-discriminator for (B, C, T)."""
        return [f for features in self.one_by_one(audio) for f in features]

    def one_by_one(self, audio: Tensor) -> Iterator[list[list[Tensor]]]:
        """Yield the features of one discriminator after another."""
        for discriminator in self.discriminators:
            yield discriminator(audio)
