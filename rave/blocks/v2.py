"""Encoder and decoder of RAVE v2: dilated residual units between strided convolutions.

B batch, M bands, C audio channels, D latent size, N latent frames, T/M band steps.
Layer order and names follow acids-rave 2.3.1 (`net.<index>`), so that its weights fit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rave.blocks.convolution import LEAKY_SLOPE, Conv1d, ConvTranspose1d, normalised
from rave.blocks.noise import NoiseGenerator, check_noise


class Residual(nn.Module):
    """x + net(x)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        return x + self.net(x)


OfChannels = type[nn.Module]  # built with a number of channels


def _activation(channels: int, kind: OfChannels | None) -> nn.Module:
    return nn.LeakyReLU(LEAKY_SLOPE) if kind is None else kind(channels)


def _units(
    channels: int,
    kernel_size: int,
    dilations: Sequence[int],
    is_causal: bool,
    adaptation: OfChannels | None,
) -> list[nn.Module]:
    """Return residual units, each preceded by an adaptation if there is one."""
    units: list[nn.Module] = []
    for dilation in dilations:
        wide = Conv1d(channels, channels, kernel_size, dilation=dilation, is_causal=is_causal)
        net = nn.Sequential(
            nn.LeakyReLU(LEAKY_SLOPE),
            normalised(wide),
            nn.LeakyReLU(LEAKY_SLOPE),
            normalised(Conv1d(channels, channels, 1)),
        )
        units += [*([] if adaptation is None else [adaptation(channels)]), Residual(net)]
    return units


class EncoderV2(nn.Module):
    """Bands → parameters of the posterior.

    Args:
        num_bands: M.
        num_channels: C; the input has C·M rows.
        capacity: Channels after the first convolution; doubled by each ratio.
        ratios: Strides, in order of application.
        latent_size: D.
        kernel_size: Taps of the dilated units; the first convolution has 2·kernel_size + 1 taps.
        dilations: Dilations of the units before each stride.
        is_causal: Layers see no later input.
        activation: Activation before the strided and the last convolution, e.g. Snake; None: leaky
            ReLU, as always inside the units.
        adaptation: Layer before each unit, e.g. AdaIN; None: no layer.
        rows_per_latent: 2: the output has 2·D rows, mean, then the scale that softplus turns to
            std. 1: it has D rows.
    """

    def __init__(
        self,
        num_bands: int,
        num_channels: int,
        capacity: int,
        ratios: Sequence[int],
        latent_size: int,
        kernel_size: int,
        dilations: Sequence[Sequence[int]],
        is_causal: bool = False,
        activation: OfChannels | None = None,
        adaptation: OfChannels | None = None,
        rows_per_latent: int = 2,
    ) -> None:
        super().__init__()
        channels = capacity
        in_channels = num_bands * num_channels
        net = [normalised(Conv1d(in_channels, channels, 2 * kernel_size + 1, is_causal=is_causal))]
        for ratio, unit_dilations in zip(ratios, dilations, strict=True):
            net += _units(channels, kernel_size, unit_dilations, is_causal, adaptation)
            down = Conv1d(channels, 2 * channels, 2 * ratio, stride=ratio, is_causal=is_causal)
            net += [_activation(channels, activation), normalised(down)]
            channels *= 2
        rows = rows_per_latent * latent_size
        last = Conv1d(channels, rows, kernel_size, is_causal=is_causal)
        self.net = nn.Sequential(*net, _activation(channels, activation), normalised(last))

    def forward(self, bands: Tensor) -> Tensor:
        """Return (B, rows_per_latent·D, N) for (B, C·M, T/M)."""
        out: Tensor = self.net(bands)
        return out


class DecoderV2(nn.Module):
    """Latents → bands: wave × sigmoid(amplitude), plus optional noise, through tanh.

    Args:
        num_bands: M.
        num_channels: C; the output has C·M rows.
        capacity: Channels before the last convolution.
        ratios: The encoder's, in the encoder's order.
        latent_size: D.
        kernel_size: Kernel size, as in the encoder.
        dilations: The encoder's, in the encoder's order.
        noise: Generator of shaped noise, or None.
        is_causal: Layers see no later latents, apart from the reach of transposed convolutions.
        activation: Activation, as in the encoder, before the transposed and the last convolution.
        adaptation: Adaptation, as in the encoder.
        num_noise_rows: A, rows of noise below the latents.
        recurrent: Applied to the latents first, or None.

    Raises:
        ValueError: If the noise generator has other rows, or its blocks do not fill a latent frame.
    """

    def __init__(
        self,
        num_bands: int,
        num_channels: int,
        capacity: int,
        ratios: Sequence[int],
        latent_size: int,
        kernel_size: int,
        dilations: Sequence[Sequence[int]],
        noise: NoiseGenerator | None = None,
        is_causal: bool = False,
        activation: OfChannels | None = None,
        adaptation: OfChannels | None = None,
        num_noise_rows: int = 0,
        recurrent: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_noise(noise, num_bands * num_channels, ratios)
        channels = capacity * 2 ** len(ratios)
        rows = latent_size + num_noise_rows
        net = [] if recurrent is None else [recurrent]
        net += [normalised(Conv1d(rows, channels, kernel_size, is_causal=is_causal))]
        pairs = zip(reversed(ratios), reversed(dilations), strict=True)
        for ratio, unit_dilations in pairs:
            up = ConvTranspose1d(channels, channels // 2, ratio)
            net += [_activation(channels, activation), normalised(up)]
            channels //= 2
            net += _units(channels, kernel_size, unit_dilations, is_causal, adaptation)
        self.net = nn.Sequential(*net, _activation(channels, activation))
        rows = 2 * num_bands * num_channels
        wave = Conv1d(channels, rows, 2 * kernel_size + 1, is_causal=is_causal)
        self.wave = normalised(wave)
        self.noise = noise

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the bands of latents.

        Args:
            latents: (B, D + A, N).
            noise: (B, C·M, T/M) uniform in [-1, 1), for decoders with a noise generator; drawn
                if None.

        Returns:
            (B, C·M, T/M) in [-1, 1].
        """
        hidden = self.net(latents)
        wave, amplitude = self.wave(hidden).chunk(2, dim=1)
        bands = wave * torch.sigmoid(amplitude)
        if self.noise is not None:
            bands = bands + self.noise(hidden, noise)
        return torch.tanh(bands)
