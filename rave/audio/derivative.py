"""Differentiate and integrate audio, for models trained on the derivative. C channels, t samples.

Differs: acids-rave leaves the derivative's factor 1/2 in what it integrates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from rave.compute.arrays import Float32Array

CUTOFF_HZ = 10.0  # of the integrator, which blocks constants; acids-rave's


def differentiated(blocks: Iterable[Float32Array]) -> Iterator[Float32Array]:
    """Yield half the difference of neighbouring samples of one file's audio, in blocks (C, t)."""
    return _filtered(blocks, [0.5, -0.5], [1.0])


def derivative(audio: Tensor) -> Tensor:
    """Return the derivative of whole audio (B, C, t), as `differentiated` yields it in blocks."""
    return 0.5 * torch.diff(audio, prepend=torch.zeros_like(audio[..., :1]))


def integrated(blocks: Iterable[Float32Array], sample_rate_hz: int) -> Iterator[Float32Array]:
    """Yield the audio that `differentiated` differentiated, without frequencies below `CUTOFF_HZ`.

    Args:
        blocks: (C, t) each, of one file.
        sample_rate_hz: Sample rate of the audio.
    """
    pole = 1.0 / (1.0 + 2.0 * math.pi * CUTOFF_HZ / sample_rate_hz)
    return _filtered(blocks, [2.0, -2.0], [1.0, -2.0 * pole, pole * pole])


def _filtered(
    blocks: Iterable[Float32Array], numerator: list[float], denominator: list[float]
) -> Iterator[Float32Array]:
    state = None
    for block in blocks:
        if state is None:
            order = max(len(numerator), len(denominator)) - 1
            state = np.zeros((block.shape[0], order))
        audio, state = lfilter(numerator, denominator, block.astype(np.float64), axis=1, zi=state)
        yield audio.astype(np.float32)
