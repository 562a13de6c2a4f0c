"""Noise shaped by time-varying filters, one spectrum per few band steps.

Source: Engel et al. 2020, DDSP, arXiv:2001.04643, section 3.4; layers as in acids-rave.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.convolution import LEAKY_SLOPE, Conv1d

# Amplitudes start near 1e-3: the decoder's noise is quiet until it is learned (DDSP, appendix B.2).
AMPLITUDE_BIAS = -5.0


def amplitude(x: Tensor) -> Tensor:
    """Return a positive amplitude, 2·sigmoid(x)^2.3 + 1e-7 (DDSP, appendix B.2 and its code)."""
    return 2.0 * torch.sigmoid(x).pow(2.3) + 1e-7


class NoiseGenerator(nn.Module):
    """Filtered noise for each row of the decoder's output.

    Args:
        in_channels: Channels of the decoder's last hidden layer.
        hidden_channels: Channels of the inner layers.
        num_bands: M.
        num_channels: C; the output has C·M rows.
        ratios: Strides down to the rate of the filters; their product F is the block length.
        num_bins: Frequencies per filter; its response is W = 2·num_bins − 2 steps long.
        kernel_size: Kernel size of the layers; None: twice their stride.
        is_causal: A block sees no input beyond its end.
        overlaps: The response of a block continues in the next ones. If not, as in acids-rave, the
            response is taken modulo F and ends with the block; W ≤ F keeps its spectrum.
        activation: Factory of the activation, by number of channels; None: leaky ReLU.

    Differs: acids-rave also cuts the response at F steps if W > F, which leaves almost nothing of
        it. Here that happens only without `overlaps`, which only models of acids-rave set.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_bands: int,
        num_channels: int,
        ratios: Sequence[int],
        num_bins: int,
        kernel_size: int | None = None,
        is_causal: bool = False,
        overlaps: bool = True,
        activation: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels = num_bands * num_channels
        sizes = [in_channels, *[hidden_channels] * (len(ratios) - 1), out_channels * num_bins]
        layers: list[nn.Module] = []
        for size, next_size, ratio in zip(sizes[:-1], sizes[1:], ratios, strict=True):
            taps = kernel_size or 2 * ratio
            layer = Conv1d(size, next_size, taps, stride=ratio, is_causal=is_causal)
            if is_causal and taps > ratio:  # up to the last step of a stride, and no further
                layer.left, layer.right = taps - ratio, 0
            between = nn.LeakyReLU(LEAKY_SLOPE) if activation is None else activation(next_size)
            layers += [layer, between]
        self.net = nn.Sequential(*layers[:-1])
        self.num_bins = num_bins
        # TorchScript reads attributes, but no globals.
        self.bias, self.is_causal, self.overlaps = AMPLITUDE_BIAS, is_causal, overlaps
        self.block_steps = math.prod(ratios)
        self.response_steps = 2 * num_bins - 2
        # Block and half a response around a step; the receptive field of the layers is added.
        half = self.response_steps // 2
        # The response is centred: cut it on both sides, or delay it if causal.
        self.lead_steps = half if overlaps and not is_causal else 0
        self.reach_steps = self.block_steps + (half * (2 if is_causal else 1) if overlaps else 0)

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
        shaped = self.shaped(self.net(hidden), noise)
        return shaped[..., self.lead_steps : self.lead_steps + steps]

    def shaped(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Return shaped noise with the whole responses of its first and last block.

        Args:
            raw: (B, C·M·num_bins, S/F), of the last layer.
            noise: (B, C·M, S).

        Returns:
            (B, C·M, S + W); (B, C·M, S) without `overlaps`.
        """
        batch, steps = noise.shape[0], noise.shape[2]
        num_blocks = steps // self.block_steps
        amplitudes = amplitude(raw + self.bias)
        amplitudes = amplitudes.reshape(batch * self.out_channels, self.num_bins, num_blocks)
        response = torch.fft.irfft(amplitudes.transpose(1, 2), n=self.response_steps)
        window = torch.hann_window(self.response_steps, device=noise.device)
        response = response.roll(self.response_steps // 2, -1) * window
        blocks = noise.reshape(batch * self.out_channels, num_blocks, self.block_steps)
        if not self.overlaps:
            return self._block_by_block(blocks, response).reshape(noise.shape)
        size = self.block_steps + self.response_steps
        # Padded here, as not every backend's transform can pad.
        blocks = functional.pad(blocks, (0, self.response_steps))
        response = functional.pad(response, (0, self.block_steps))
        product = torch.fft.rfft(blocks) * torch.fft.rfft(response)
        pieces = torch.fft.irfft(product, n=size).transpose(1, 2)
        total = steps + self.response_steps
        summed = functional.fold(pieces, (1, total), (1, size), stride=(1, self.block_steps))
        return summed.reshape(batch, self.out_channels, total)

    def _block_by_block(self, blocks: Tensor, response: Tensor) -> Tensor:
        """Return each block convolved with its response, both F steps long, cut at the block."""
        length = self.block_steps
        response = functional.pad(response, (0, length - self.response_steps))
        response = response.roll(-(self.response_steps // 2), -1)
        blocks = functional.pad(blocks, (0, length))
        response = functional.pad(response, (0, length))
        product = torch.fft.rfft(blocks) * torch.fft.rfft(response)
        return torch.fft.irfft(product, n=2 * length)[..., :length]


def check_noise(noise: NoiseGenerator | None, num_rows: int, ratios: Sequence[int]) -> None:
    """Refuse a noise generator with other rows, or whose blocks do not fill a latent frame.

    Args:
        noise: Noise generator of a decoder, or None.
        num_rows: Rows of the decoder's output, C·M.
        ratios: Strides of the decoder.
    """
    if noise is None:
        return
    if noise.out_channels != num_rows:
        raise ValueError(
            f"The noise generator has {noise.out_channels} output rows, the decoder {num_rows}; it "
            "works only with decoders of bands. Leave it out."
        )
    if math.prod(ratios) % noise.block_steps:
        raise ValueError(
            f"Ratios {list(ratios)} give {math.prod(ratios)} band steps per latent frame; the "
            f"noise generator needs a multiple of {noise.block_steps}. Change the ratios of either."
        )
