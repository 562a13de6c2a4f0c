"""Process audio between file and array, block by block: mix, resample, regroup, quantize.

A block is an array (C, n), float32, any n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from rave.compute.arrays import Float32Array

FULL_SCALE = 32768  # of 16-bit samples
# Figures of written audio, and their types.
WRITTEN: dict[str, Any] = {"peak": float, "num_limited_samples": int}
PADDING_SAMPLES = 65536  # zeros made at a time
_HALF_POWER = 0.5**0.5
# Gains of left and right for each channel position, as FFmpeg names it.
_SIDES = {
    (1.0, 0.0): "FL FLC DL WL",
    (0.0, 1.0): "FR FRC DR WR",
    (_HALF_POWER, _HALF_POWER): "FC",
    (_HALF_POWER, 0.0): "BL SL SDL TFL TBL TSL BFL SSL TTL",
    (0.0, _HALF_POWER): "BR SR SDR TFR TBR TSR BFR SSR TTR",
    (0.5, 0.5): "BC TC TFC TBC BFC",
    (0.0, 0.0): "LFE LFE2",
}
STEREO_GAINS = {name: gains for gains, names in _SIDES.items() for name in names.split()}


def is_layout_known(layout: Sequence[str]) -> bool:
    """Return whether each channel has a position that mixing supports, none of them twice."""
    return 0 < len(set(layout)) == len(layout) and STEREO_GAINS.keys() >= set(layout)


def mixing_matrix(num_from: int, num_to: int, layout: Sequence[str] = ()) -> Float32Array:
    """Return the gains (num_to, num_from) that turn one number of channels into another.

    From mono: copies. From stereo to mono: the mean. More channels: to stereo front, centre and
    surround as in BS.775, bass left out; to mono the mean of that. Without a layout, the mean of
    all. No mix exceeds the full scale of its source.

    Args:
        num_from: Channels given.
        num_to: Channels wanted.
        layout: Position of each channel given (FL, FR, FC, LFE, BL, SL ...); empty: unknown.

    Raises:
        ValueError: If there is no sensible mix.

    Source: ITU-R BS.775-4, annex 4. Differs: scaled to a sum of 1, so that it cannot overload.
    """
    if num_from == num_to:
        return np.eye(num_to, dtype=np.float32)
    if num_from > 1 and num_to > 2:
        raise ValueError(f"{num_from} channels cannot be mixed to {num_to}; only to 1 or 2.")
    gains = np.ones((num_to, num_from))
    if num_from > 2 and len(layout) == num_from and is_layout_known(layout):
        sides = np.array([STEREO_GAINS[position] for position in layout]).T
        if sides.any(axis=1).all():
            gains = sides if num_to == 2 else sides.sum(axis=0, keepdims=True)
    return np.asarray(gains / gains.sum(axis=1, keepdims=True), dtype=np.float32)


def resample(blocks: Iterable[Float32Array], from_hz: int, to_hz: int) -> Iterator[Float32Array]:
    """Yield blocks at another sample rate.

    Args:
        blocks: (C, n) each, any n, at `from_hz`.
        from_hz: Rate of the blocks.
        to_hz: Rate wanted.

    Yields:
        Blocks that together have T · to_hz / from_hz samples, rounded, and at least one if T > 0.
        The samples do not depend on the sizes of the blocks.
    """
    if from_hz == to_hz:
        yield from blocks
        return
    stream, num_samples = None, 0
    last = np.zeros((1, 0), dtype=np.float32)
    for block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(from_hz, to_hz, len(block), dtype="float32", quality="HQ")
        last = block if block.shape[1] else last
        resampled = stream.resample_chunk(np.ascontiguousarray(block.T)).T
        num_samples += resampled.shape[1]
        if resampled.shape[1]:
            yield resampled
    if stream is None:
        return
    rest = stream.resample_chunk(np.zeros((0, len(last)), dtype=np.float32), last=True).T
    if rest.shape[1]:
        yield rest
    elif num_samples == 0:  # a few samples that would round to none
        yield last[:, :1]


def regroup(blocks: Iterable[Float32Array], block_samples: int) -> Iterator[Float32Array]:
    """Yield the same samples in blocks of exactly `block_samples`; the last may be shorter."""
    held: list[Float32Array] = []
    num_held = 0
    for block in blocks:
        held.append(block)
        num_held += block.shape[1]
        if num_held < block_samples:
            continue
        joined = np.concatenate(held, axis=1)
        num_whole = num_held - num_held % block_samples
        for start in range(0, num_whole, block_samples):
            yield joined[:, start : start + block_samples]
        held, num_held = [joined[:, num_whole:]], num_held - num_whole
    if num_held:
        yield np.concatenate(held, axis=1)


class Quantizer:
    """float32 → 16-bit samples, limited to full scale; counts the limited samples.

    Attributes:
        peak: Largest magnitude so far; 1.0 is full scale.
        num_limited_samples: Samples that were beyond full scale.
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self.num_limited_samples = 0

    @property
    def figures(self) -> dict[str, Any]:
        """Return peak and count for `rave.api.result.Result`: the fields of `WRITTEN`."""
        return {"peak": self.peak, "num_limited_samples": self.num_limited_samples}

    def __call__(self, audio: Float32Array) -> NDArray[np.int16]:
        """Return audio (C, n) as little-endian 16-bit samples (n, C).

        Samples read from a 16-bit file at its own rate come back bit for bit.
        """
        if audio.size:
            magnitude = np.abs(audio)
            self.peak = max(self.peak, float(magnitude.max()))
            self.num_limited_samples += int(np.count_nonzero(magnitude > 1.0))
        scaled = np.rint(audio.T * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1)
        return np.ascontiguousarray(scaled, dtype="<i2")


class LevelMeter:
    """Measures audio that passes through it."""

    def __init__(self) -> None:
        self._power, self._num_samples = 0.0, 0

    def __call__(self, blocks: Iterable[Float32Array]) -> Iterator[Float32Array]:
        """Yield the blocks unchanged."""
        for block in blocks:
            self._power += float(np.square(block, dtype=np.float64).sum())
            self._num_samples += block.size
            yield block

    @property
    def level_dbfs(self) -> float:
        """Return the level so far, RMS in dB of full scale, -200 at least."""
        return float(10 * np.log10(max(self._power / max(self._num_samples, 1), 1e-20)))


def amplified(blocks: Iterable[Float32Array], gain_db: float) -> Iterator[Float32Array]:
    """Yield the blocks with a gain; unchanged if it is 0 dB."""
    factor = np.float32(10 ** (gain_db / 20))
    for block in blocks:
        yield block * factor if gain_db else block


def fit_length(blocks: Iterable[Float32Array], num_samples: int) -> Iterator[Float32Array]:
    """Yield exactly the first `num_samples` of the blocks, zero-padded at the end.

    Blocks that are not needed are not read.
    """
    missing = num_samples
    num_channels = 1
    for block in blocks:
        num_channels = len(block)
        yield block[:, :missing]
        missing -= block.shape[1]
        if missing <= 0:
            return
    while missing > 0:
        size = min(missing, PADDING_SAMPLES)
        yield np.zeros((num_channels, size), dtype=np.float32)
        missing -= size


def from_sample(blocks: Iterable[Float32Array], begin: int) -> Iterator[Float32Array]:
    """Yield the blocks from sample `begin` on."""
    for block in blocks:
        yield block[:, begin:]
        begin = max(begin - block.shape[1], 0)
