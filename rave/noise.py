"""Noise that depends on a seed, a name and a position, and not on how the positions are cut up.

Decoding in pieces, in any order, on any number of workers gives the same audio for that reason.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri


class PositionalNoise:
    """An endless table of random numbers, rows of `width` numbers, row n always the same.

    Args:
        seed: Of the command.
        name: Of the file, say; another name is another table.
        width: Numbers in a row.
    """

    def __init__(self, seed: int, name: str, width: int) -> None:
        digest = int.from_bytes(
            sha256(name.encode(errors="surrogateescape")).digest()[:8], "little"
        )
        self._sequence = np.random.SeedSequence([seed, digest])
        self.width = width

    def uniform(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return rows `start` to `stop`, uniform in (0, 1), (stop − start, width)."""
        bits = np.random.PCG64(self._sequence)
        bits.advance(start * self.width)
        rows = np.random.Generator(bits).random((stop - start, self.width))
        return np.maximum(rows, np.finfo(np.float64).tiny)

    def normal(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows `start` to `stop`, N(0, 1), (stop − start, width)."""
        normal: NDArray[np.float64] = ndtri(self.uniform(start, stop))
        return normal.astype(np.float32)
