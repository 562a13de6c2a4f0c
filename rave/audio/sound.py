"""Level and octave spectrum of audio. C audio channels, B octaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rave.compute.arrays import Float32Array, Float64Array

WINDOW_SAMPLES = 4096
SILENT_DBFS, SILENT_OCTAVE_DB = -70.0, -100.0
NUM_OCTAVES = 7


@dataclass(frozen=True)
class Sound:
    """Level and octave spectrum of audio.

    Attributes:
        level_dbfs: RMS of all windows that are not silent, dB of full scale; None if all are.
        octaves_db: (B,) level of each octave relative to the whole, dB; the highest first, which
            ends at half of the sample rate.
    """

    level_dbfs: float | None
    octaves_db: list[float]


class SoundMeter:
    """Measures the sound of audio that passes through it."""

    def __init__(self) -> None:
        self._power, self._num_samples = 0.0, 0
        self._spectrum: Float64Array = np.zeros(WINDOW_SAMPLES // 2 + 1)

    def __call__(self, blocks: Iterable[Float32Array]) -> Iterator[Float32Array]:
        """Yield the blocks (C, t) unchanged."""
        held: Float32Array | None = None
        for block in blocks:
            held = block if held is None else np.concatenate([held, block], axis=1)
            whole = held.shape[1] // WINDOW_SAMPLES * WINDOW_SAMPLES
            self._count(held[:, :whole].reshape(len(held), -1, WINDOW_SAMPLES))
            held = held[:, whole:]
            yield block
        if held is not None and held.shape[1]:
            self._count(held[:, None])

    def _count(self, windows: Float32Array) -> None:
        """Count windows, (C, windows, n); n is WINDOW_SAMPLES, or less at the end."""
        power = np.square(windows, dtype=np.float64).mean(axis=(0, 2))
        is_heard = power > 10 ** (SILENT_DBFS / 10)
        if is_heard.any():
            heard = windows[:, is_heard]
            self._power += float(power[is_heard].sum()) * windows.shape[2]
            self._num_samples += int(is_heard.sum()) * windows.shape[2]
            spectra = np.square(np.abs(np.fft.rfft(heard, WINDOW_SAMPLES)))
            self._spectrum += spectra.mean(axis=0).sum(axis=0)

    @property
    def sound(self) -> Sound:
        """Return the sound measured so far, to a hundredth of a dB."""
        if not self._num_samples:
            return Sound(None, [])
        bounds = WINDOW_SAMPLES // 2 >> np.arange(NUM_OCTAVES + 1)
        # Bin 0 is not audible.
        power = [float(self._spectrum[low + 1 : top + 1].sum()) for top, low in pairwise(bounds)]
        share = np.array(power) / max(float(self._spectrum[1:].sum()), 1e-30)
        octaves = np.maximum(10 * np.log10(np.maximum(share, 1e-30)), SILENT_OCTAVE_DB)
        level = 10 * np.log10(self._power / self._num_samples)
        return Sound(round(float(level), 2), [round(float(each), 2) for each in octaves])


def sound_of(blocks: Iterable[Float32Array]) -> Sound:
    """Return level and octave spectrum of audio in blocks (C, t)."""
    meter = SoundMeter()
    for _ in meter(blocks):
        pass
    return meter.sound
