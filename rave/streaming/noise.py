"""Noise of a stream in TorchScript: like `rave.noise`, one block at a time.

B batch.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import math

import torch
from torch import Tensor, nn

FRESH_NOISE = -1  # as a seed: new noise each time
# Streams of one seed: for missing principal latents, for bands, for rows below the latents, for a
# prior, for uninformative latents.
NUM_STREAMS = 5
LATENTS, BANDS, ADDED_ROWS, PRIOR, UNINFORMATIVE = range(NUM_STREAMS)
# SplitMix64 (Steele, Lea & Flood 2014, OOPSLA), constants as signed numbers
GAMMA, MIX_1, MIX_2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


class PositionalUniform(nn.Module):
    """Numbers that depend only on seed, row and step, not on how the stream is divided.

    Args:
        rows: Number of rows.
        stream: Index of the stream, below `NUM_STREAMS`; each has its own numbers.
    """

    def __init__(self, rows: int, stream: int) -> None:
        super().__init__()
        self.rows, self.stream, self.num_streams = rows, stream, NUM_STREAMS
        self.gamma, self.mix_1, self.mix_2 = GAMMA, MIX_1, MIX_2

    def forward(self, seed: int, first: int, steps: int, like: Tensor) -> Tensor:
        """Return (B, rows, steps) in (0, 1), alike for all items of the batch."""
        batch = like.shape[0]
        if seed < 0:
            uniform = torch.rand(batch, self.rows, steps, device=like.device)
            return uniform.clamp(2.0**-25, 1.0 - 2.0**-24)
        step = torch.arange(first, first + steps, device=like.device)
        row = torch.arange(self.rows, device=like.device)[:, None]
        bits = self.mixed(self.mixed(row + ((seed * self.num_streams + self.stream) << 24)) + step)
        # the upper 24 bits, each number at the middle of its step
        uniform = (((bits >> 40) & 0xFFFFFF).to(like.dtype) + 0.5) * 2.0**-24
        return uniform.clamp(max=1.0 - 2.0**-24).expand(batch, -1, -1)

    @torch.jit.export
    def normal(self, seed: int, first: int, steps: int, like: Tensor) -> Tensor:
        """Return (B, rows, steps) from N(0, 1), alike for all items of the batch."""
        return math.sqrt(2.0) * torch.erfinv(2.0 * self(seed, first, steps, like) - 1.0)

    def mixed(self, bits: Tensor) -> Tensor:
        """Return SplitMix64's output at the states `bits`."""
        bits = bits * self.gamma
        bits = (bits ^ ((bits >> 30) & 0x3FFFFFFFF)) * self.mix_1
        bits = (bits ^ ((bits >> 27) & 0x1FFFFFFFFF)) * self.mix_2
        return bits ^ ((bits >> 31) & 0x1FFFFFFFF)
