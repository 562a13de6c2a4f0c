"""Noise that depends only on a seed, a name and a position, not on how positions are divided.

So decoding in pieces, in any order and on any number of workers gives the same audio.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import torch
from scipy.special import ndtri

from rave.blocks.oscillators import PERIOD
from rave.codec_format import CodecFormat
from rave.compute.arrays import Float32Array, Float64Array


class PositionalNoise:
    """An endless table of random numbers, rows of `width` numbers, row n always the same.

    Args:
        seed: Random seed.
        name: Name of the table; each name has its own numbers.
        width: Numbers per row.
    """

    def __init__(self, seed: int, name: str, width: int) -> None:
        digest = int.from_bytes(
            sha256(name.encode(errors="surrogateescape")).digest()[:8], "little"
        )
        self._sequence = np.random.SeedSequence([seed, digest])
        self.width = width

    def uniform(self, start: int, stop: int) -> Float64Array:
        """Return rows `start` to `stop`, uniform in (0, 1), (stop − start, width)."""
        bits = np.random.PCG64(self._sequence)
        bits.advance(start * self.width)
        rows = np.random.Generator(bits).random((stop - start, self.width))
        return np.maximum(rows, np.finfo(np.float64).tiny)

    def normal(self, start: int, stop: int) -> Float32Array:
        """Return rows `start` to `stop`, N(0, 1), (stop − start, width)."""
        normal: Float64Array = ndtri(self.uniform(start, stop))
        return normal.astype(np.float32)


class DecoderNoise:
    """Noise for decoding: for uninformative dimensions, and as input of decoders with noise.

    In training the decoder saw the posterior's noise in every dimension: N(0, 1) where a dimension
    has collapsed onto the prior. The posterior mean is a constant there, which it never saw.

    The noise depends on codec, seed and position, so that a file decodes to the same audio whatever
    its name and folder, and whatever is decoded with it.

    Args:
        format: Format of the codec, which states its uninformative dimensions.
        seed: Random seed.
        as_encoded: Decode uninformative dimensions as stored, as acids-rave does.
    """

    def __init__(self, format: CodecFormat, seed: int, *, as_encoded: bool = False) -> None:
        is_noise, self._mean, self._std = format.uninformative
        self._is_noise = is_noise & (not as_encoded)
        self._latent_noise = PositionalNoise(seed, "latents", format.latent_size)
        self._added_noise = PositionalNoise(seed, "augmentation", format.num_noise_rows)
        self._steps, self._has_clock = format.noise_steps_per_frame, format.has_clock
        self._band_noise = PositionalNoise(seed, "bands", format.noise_rows)

    def decoder_input(self, latents: Float32Array, start: int) -> Float32Array:
        """Return the input of the decoder, (D + A, n).

        Args:
            latents: (D, n). Noise replaces uninformative dimensions; A rows of noise are appended.
            start: Frame of the first latent.
        """
        stop = start + latents.shape[1]
        if self._is_noise.any():
            rows = self._latent_noise.normal(start, stop).T
            latents = np.where(self._is_noise, self._mean + self._std * rows, latents)
        if self._added_noise.width:
            rows = self._added_noise.normal(start, stop).T.astype(np.float32)
            latents = np.concatenate([latents, rows])
        return latents

    def bands(self, start: int, num_frames: int) -> torch.Tensor | None:
        """Return the decoder's noise input, (1, rows, n·steps) in [-1, 1), or None.

        For oscillators it is the number of each step.
        """
        first, last = start * self._steps, (start + num_frames) * self._steps
        if self._has_clock:
            return torch.arange(first, last)[None, None].remainder(PERIOD).float()
        if not self._band_noise.width:
            return None
        rows = 2.0 * self._band_noise.uniform(first, last) - 1.0
        return torch.from_numpy(rows.T.astype(np.float32))[None]
