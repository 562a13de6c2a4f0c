"""A stream at the host's rate ⇄ a stream at the model's, a whole number of times slower.

B batch, C channels, n samples of a block, R the ratio.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import torch
from scipy.signal import firwin, kaiserord
from torch import Tensor, nn

STOP_BAND_DB = 100.0
TRANSITION = 0.1  # of the lower rate's Nyquist frequency, below it


class StreamingResampler(nn.Module):
    """Kaiser-windowed low-pass, gain 1 both ways, linear phase.

    Args:
        ratio: R; 1 changes nothing.

    Attributes:
        delay_samples: Delay of down, and of up, in samples at the higher rate.
    """

    taps: Tensor
    down_memory: Tensor
    up_memory: Tensor

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        cutoff = (1 - TRANSITION / 2) / ratio
        num_taps, beta = kaiserord(STOP_BAND_DB, TRANSITION / ratio)
        num_taps += 1 - num_taps % 2  # odd: down, and up, are late by a whole number of samples
        taps = firwin(num_taps, cutoff, window=("kaiser", beta)) if ratio > 1 else [1.0]
        self.register_buffer("taps", torch.tensor(taps, dtype=torch.float32)[None, None])
        self.delay_samples = (len(taps) - 1) // 2
        self.kept = len(taps) - 1
        self.kept_low = -(-self.kept // ratio)
        self.register_buffer("down_memory", torch.zeros(1, 1, 0))
        self.register_buffer("up_memory", torch.zeros(1, 1, 0))

    @torch.jit.export
    def down(self, audio: Tensor, is_first: bool) -> Tensor:
        """Return (B, C, n / R) of a block (B, C, n)."""
        if self.ratio == 1:
            return audio
        batch, channels = audio.shape[0], audio.shape[1]
        memory = self.down_memory
        if is_first:
            memory = audio.new_zeros(batch, channels, self.kept)
        audio = torch.cat([memory, audio], 2)
        self.down_memory = audio[:, :, audio.shape[2] - self.kept :].clone()
        rows = audio.reshape(batch * channels, 1, audio.shape[2])
        low = torch.conv1d(rows, self.taps, stride=self.ratio)
        return low.reshape(batch, channels, -1)

    @torch.jit.export
    def up(self, audio: Tensor, is_first: bool) -> Tensor:
        """Return (B, C, n · R) of a block (B, C, n)."""
        if self.ratio == 1:
            return audio
        batch, channels, steps = audio.shape
        memory = self.up_memory
        if is_first:
            memory = audio.new_zeros(batch, channels, self.kept_low)
        audio = torch.cat([memory, audio], 2)
        self.up_memory = audio[:, :, steps:].clone()
        rows = audio.reshape(batch * channels, 1, audio.shape[2])
        high = self.ratio * torch.conv_transpose1d(rows, self.taps, stride=self.ratio)
        start = self.kept_low * self.ratio
        return high[:, :, start : start + steps * self.ratio].reshape(batch, channels, -1)

    def forward(self, audio: Tensor, is_first: bool) -> Tensor:
        """Return a block down and up again."""
        return self.up(self.down(audio, is_first), is_first)
