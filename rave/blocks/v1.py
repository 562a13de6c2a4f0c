"""Encoder and decoder of RAVE v1: strided convolutions with batch normalisation; residual stacks.

B batch, M bands, C audio channels, D latent size, N latent frames, T/M band steps.
Layer order and names follow acids-rave 2.3.1 (`net.<index>`), so that its weights fit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rave.blocks.convolution import LEAKY_SLOPE, Conv1d, ConvTranspose1d, normalised
from rave.blocks.noise import NoiseGenerator, amplitude, check_noise
from rave.blocks.v2 import Residual

FIRST_KERNEL, LAST_KERNEL, UNIT_KERNEL, LOUDNESS_KERNEL = 7, 5, 3, 3
DILATIONS = (1, 3, 5)  # of a stack's units


class EncoderV1(nn.Module):
    """Bands → parameters of the posterior.

    Args:
        num_bands: M.
        num_channels: C; the input has C·M rows.
        capacity: Channels after the first convolution; doubled by each ratio.
        ratios: Strides, in order of application.
        latent_size: D. The output has 2·D rows: mean, then the scale that softplus turns to std.
        is_causal: Layers see no later input.

    Source: Caillon & Esling 2021, arXiv:2111.05011, figure 2.
    """

    def __init__(
        self,
        num_bands: int,
        num_channels: int,
        capacity: int,
        ratios: Sequence[int],
        latent_size: int,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        channels = capacity
        net: list[nn.Module] = [
            Conv1d(num_bands * num_channels, channels, FIRST_KERNEL, is_causal=is_causal)
        ]
        for ratio in ratios:
            kernel = 2 * ratio + 1
            down = Conv1d(channels, 2 * channels, kernel, stride=ratio, is_causal=is_causal)
            net += [nn.BatchNorm1d(channels), nn.LeakyReLU(LEAKY_SLOPE), down]
            channels *= 2
        # Two groups: mean and scale each see one half of the channels.
        last = Conv1d(channels, 2 * latent_size, LAST_KERNEL, is_causal=is_causal, groups=2)
        self.net = nn.Sequential(*net, nn.LeakyReLU(LEAKY_SLOPE), last)

    def forward(self, bands: Tensor) -> Tensor:
        """Return (B, 2·D, N) for (B, C·M, T/M)."""
        out: Tensor = self.net(bands)
        return out


def _unit(channels: int, dilation: int, is_causal: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for d in (dilation, 1):
        conv = Conv1d(channels, channels, UNIT_KERNEL, dilation=d, is_causal=is_causal)
        layers += [nn.LeakyReLU(LEAKY_SLOPE), normalised(conv)]
    return Residual(nn.Sequential(*layers))


class DecoderV1(nn.Module):
    """Latents → bands: tanh(wave) × loudness, plus optional noise.

    Args:
        num_bands: M.
        num_channels: C; the output has C·M rows.
        capacity: Channels before the last convolutions.
        ratios: Upsampling, in order of application.
        latent_size: D.
        noise: Generator of shaped noise, or None.
        is_causal: Layers see no later latents, apart from the reach of transposed convolutions.

    Raises:
        ValueError: If the noise generator has other rows, or its blocks do not fill a latent frame.

    Source: Caillon & Esling 2021, arXiv:2111.05011, figure 3.
    Differs: noise is used from the first step; in acids-rave, from phase 2 on.
    """

    def __init__(
        self,
        num_bands: int,
        num_channels: int,
        capacity: int,
        ratios: Sequence[int],
        latent_size: int,
        noise: NoiseGenerator | None = None,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        check_noise(noise, num_bands * num_channels, ratios)
        channels = capacity * 2 ** len(ratios)
        net = [normalised(Conv1d(latent_size, channels, FIRST_KERNEL, is_causal=is_causal))]
        for ratio in ratios:
            up = ConvTranspose1d(channels, channels // 2, ratio)
            channels //= 2
            net += [
                nn.Sequential(nn.LeakyReLU(LEAKY_SLOPE), normalised(up)),
                nn.Sequential(*(_unit(channels, d, is_causal) for d in DILATIONS)),
            ]
        self.net = nn.Sequential(*net)
        rows = num_bands * num_channels
        self.wave = normalised(Conv1d(channels, rows, FIRST_KERNEL, is_causal=is_causal))
        self.loudness = normalised(Conv1d(channels, 1, LOUDNESS_KERNEL, is_causal=is_causal))
        self.noise = noise

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the bands of latents.

        Args:
            latents: (B, D, N).
            noise: (B, C·M, T/M) uniform in [-1, 1), for decoders with a noise generator; drawn
                if None.

        Returns:
            (B, C·M, T/M), nominally in [-1, 1].
        """
        hidden = self.net(latents)
        bands = torch.tanh(self.wave(hidden)) * amplitude(self.loudness(hidden))
        if self.noise is not None:
            bands = bands + self.noise(hidden, noise)
        return bands
