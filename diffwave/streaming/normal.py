"""The normal numbers of a seed as torch draws them on the CPU, in TorchScript.

A module for nn~ has no `torch.Generator`: older hosts do not know it in TorchScript, and the global
one belongs to all modules. So a seed is the same music in the host and in `diffwave.inference`.

B items.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import math

import torch
from torch import Tensor, nn

NUM_WORDS = 624
BLOCK = 16  # numbers that torch makes of as many draws at a time
SMALLEST_COUNT = BLOCK  # of fewer numbers torch makes others


class ScriptedNormal(nn.Module):
    """What `torch.randn` gives of generators with a seed each.

    Source: Matsumoto & Nishimura 1998, "Mersenne Twister"; Box & Muller 1958.
    """

    words: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.num_words, self.block, self.used = NUM_WORDS, BLOCK, NUM_WORDS
        self.register_buffer("words", torch.zeros(1, NUM_WORDS, dtype=torch.int64))

    @torch.jit.export
    def seed(self, seeds: list[int]) -> None:
        """Begin, each item with its seed."""
        rows: list[Tensor] = []
        for seed in seeds:
            word = seed & 0xFFFFFFFF
            words = [word]
            for index in range(1, self.num_words):
                word = (1812433253 * (word ^ (word >> 30)) + index) & 0xFFFFFFFF
                words.append(word)
            rows.append(torch.tensor(words))
        self.words, self.used = torch.stack(rows), self.num_words

    def forward(self, count: int) -> Tensor:
        """Return (B, count) from N(0, 1), count at least `SMALLEST_COUNT`."""
        rest = count % self.block
        whole = self.box_muller(self.uniform(count))
        if rest == 0:
            return whole
        # What does not fill a block is drawn anew, with enough before it to fill one.
        return torch.cat(
            [whole[:, : count - self.block], self.box_muller(self.uniform(self.block))], 1
        )

    def box_muller(self, uniform: Tensor) -> Tensor:
        """Return the numbers of whole blocks of draws (B, n); what is beyond them is left out."""
        batch = uniform.shape[0]
        num_blocks = uniform.shape[1] // self.block
        pairs = uniform[:, : num_blocks * self.block].reshape(batch, num_blocks, 2, -1)
        radius = (-2.0 * (1.0 - pairs[:, :, 0]).log()).sqrt()
        angle = 2.0 * math.pi * pairs[:, :, 1]
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 2).reshape(batch, -1)

    def uniform(self, count: int) -> Tensor:
        """Return (B, count) in [0, 1)."""
        parts: list[Tensor] = []
        while count > 0:
            if self.used == self.num_words:
                self.twist()
            taken = min(count, self.num_words - self.used)
            parts.append(self.words[:, self.used : self.used + taken])
            self.used += taken
            count -= taken
        y = torch.cat(parts, 1)
        y = y ^ (y >> 11)
        y = y ^ ((y << 7) & 0x9D2C5680)
        y = y ^ ((y << 15) & 0xEFC60000)
        y = y ^ (y >> 18)
        return (y & 0xFFFFFF).float() * 2.0**-24

    def twist(self) -> None:
        """Make the next words; each depends on one 397 further on, which may be a new one."""
        w = self.words
        first = w[:, 397:] ^ self.twisted(w[:, :227], w[:, 1:228])
        second = first ^ self.twisted(w[:, 227:454], w[:, 228:455])
        third = second[:, :169] ^ self.twisted(w[:, 454:623], w[:, 455:])
        last = second[:, 169:170] ^ self.twisted(w[:, 623:], first[:, :1])
        self.words, self.used = torch.cat([first, second, third, last], 1), 0

    def twisted(self, word: Tensor, following: Tensor) -> Tensor:
        """Return the upper bit of words and the lower ones of those that follow, twisted."""
        mixed = (word & 0x80000000) | (following & 0x7FFFFFFF)
        return (mixed >> 1) ^ ((following & 1) * 0x9908B0DF)
