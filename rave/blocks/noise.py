"""Noise shaped by time-varying filters, one spectrum per few band steps.

Source: Engel et al. 2020, DDSP, arXiv:2001.04643, section 3.4; layers as in acids-rave.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.convolution import LEAKY_SLOPE, Conv1d

# Amplitudes start near 1e-3: the decoder's noise is quiet until it is learned (DDSP, appendix B.2).
AMPLITUDE_BIAS, AMPLITUDE_EXPONENT, AMPLITUDE_FLOOR = -5.0, 2.3, 1e-7


class NoiseGenerator(nn.Module):
    """Filtered noise for each row of the decoder's output.

    Args:
        in_channels: Channels of the decoder's last hidden layer.
        hidden_channels: Of the layers between.
        num_bands: M.
        num_channels: C; the output has C·M rows.
        ratios: Strides down to the rate of the filters; their product F is the block length.
        num_bins: Frequencies of a filter; its response is W = 2·num_bins − 2 steps long.

    Differs: acids-rave cuts each block's response at F steps, which leaves almost nothing of it
        where W > F; here responses overlap and add.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_bands: int,
        num_channels: int,
        ratios: Sequence[int],
        num_bins: int,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels = num_bands * num_channels
        sizes = [in_channels, *[hidden_channels] * (len(ratios) - 1), out_channels * num_bins]
        layers: list[nn.Module] = []
        for size, next_size, ratio in zip(sizes[:-1], sizes[1:], ratios, strict=True):
            layers += [Conv1d(size, next_size, 2 * ratio, stride=ratio), nn.LeakyReLU(LEAKY_SLOPE)]
        self.net = nn.Sequential(*layers[:-1])
        self.num_bins = num_bins
        # TorchScript reads attributes, but no globals.
        self.bias, self.exponent = AMPLITUDE_BIAS, AMPLITUDE_EXPONENT
        self.floor = AMPLITUDE_FLOOR
        self.block_steps = math.prod(ratios)
        self.response_steps = 2 * num_bins - 2
        # A step is in a block and in half a response; what the layers see comes on top.
        self.reach_steps = self.block_steps + self.response_steps // 2

    def forward(self, hidden: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return shaped noise.

        Args:
            hidden: (B, in_channels, S), S a multiple of the block length.
            noise: (B, C·M, S) uniform in [-1, 1); drawn if None.

        Returns:
            (B, C·M, S).
        """
        batch, steps = hidden.shape[0], hidden.shape[2]
        if noise is None:
            noise = 2.0 * torch.rand(batch, self.out_channels, steps, device=hidden.device) - 1.0
        start = self.response_steps // 2  # the response is centred: cut the same on both sides
        return self.overlapped(self.net(hidden), noise)[..., start : start + steps]

    def overlapped(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return shaped noise with the whole responses of its first and last block.

        Args:
            raw: (B, C·M·num_bins, S/F), of the last layer.
            noise: (B, C·M, S).

        Returns:
            (B, C·M, S + W).
        """
        batch, steps = noise.shape[0], noise.shape[2]
        num_blocks, size = steps // self.block_steps, self.block_steps + self.response_steps
        raw = torch.sigmoid(raw + self.bias)
        amplitudes = 2.0 * raw.pow(self.exponent) + self.floor
        amplitudes = amplitudes.reshape(batch * self.out_channels, self.num_bins, num_blocks)
        response = torch.fft.irfft(amplitudes.transpose(1, 2), n=self.response_steps)
        window = torch.hann_window(self.response_steps, device=noise.device)
        response = response.roll(self.response_steps // 2, -1) * window
        blocks = noise.reshape(batch * self.out_channels, num_blocks, self.block_steps)
        product = torch.fft.rfft(blocks, n=size) * torch.fft.rfft(response, n=size)
        pieces = torch.fft.irfft(product, n=size).transpose(1, 2)
        total = steps + self.response_steps
        summed = functional.fold(pieces, (1, total), (1, size), stride=(1, self.block_steps))
        return summed.reshape(batch, self.out_channels, total)
