"""Random changes of training crops; held-out crops are not changed.

C channels, T samples. An augmentation takes audio (C, T), its rate and a generator, and returns
audio of the same shape. Each draws only from the generator of its item.

    crop → pitch → phase → compress → normalise → gain → mute → dequantise

Source: the augmentations and data transforms of acids-rave. Differs: gain changes the level (there
it returns its input), compression needs no sox and knows the sample rate, none of them clips,
dequantisation noise has no mean, and pitch reads more audio instead of shortening the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soxr
from scipy.signal import lfilter

from rave.audio.blocks import FULL_SCALE
from rave.compute.arrays import Float32Array, FloatArray

SILENCE = 1e-10  # magnitudes below are silence
FLOOR_DB, TABLE_STEP_DB = -120.0, 0.25  # first level and step of the compressor's table
UNCHANGED_DB = -80.0  # levels below are not compressed
POLE_RADIUS = 0.99  # pole radius of the all-pass filter


class Augmentation(Protocol):
    """A random change of a crop."""

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> FloatArray:
        """Return audio of the shape of `audio`, (C, T)."""


@dataclass(frozen=True)
class RandomPhase:
    """Turn the phase around a random frequency with an all-pass filter, the same for all channels.

    Attributes:
        probability: Probability of the change.
        min_hz: Lowest frequency, which is drawn uniformly in the logarithm.
        max_hz: Highest frequency.
    """

    probability: float = 0.8
    min_hz: float = 20.0
    max_hz: float = 2000.0

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> FloatArray:
        """Return the filtered crop; a pole at radius 0.99 rings for a few hundred samples."""
        is_done = generator.random() < self.probability
        frequency_hz = np.exp(generator.uniform(np.log(self.min_hz), np.log(self.max_hz)))
        if not is_done:
            return audio
        middle = -2 * POLE_RADIUS * np.cos(2 * np.pi * frequency_hz / sample_rate_hz)
        denominator = [1.0, middle, POLE_RADIUS**2]
        return np.asarray(lfilter(denominator[::-1], denominator, audio, axis=1))


@dataclass(frozen=True)
class RandomCompress:
    """Move one level to a random other one, louder or softer; full scale stays.

    Attributes:
        probability: Probability of the change.
        threshold_db: Level that is moved.
        min_output_db: Lowest level that it is moved to.
        max_output_db: Highest level that it is moved to.
        knee_db: Width of the rounding of the transfer function's corners.
        time_s: Time constant of the level measurement.

    Source: the transfer function of `compand`, sox.sourceforge.net/sox.html.
    """

    probability: float = 0.8
    threshold_db: float = -40.0
    min_output_db: float = -60.0
    max_output_db: float = 0.0
    knee_db: float = 6.0
    time_s: float = 0.1

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> FloatArray:
        """Return the compressed crop, scaled down to full scale if it would clip."""
        is_done = generator.random() < self.probability
        output_db = generator.uniform(self.min_output_db, self.max_output_db)
        if not is_done:
            return audio
        corners = [(UNCHANGED_DB, UNCHANGED_DB), (self.threshold_db, output_db), (0.0, 0.0)]
        return unclipped(
            compress(audio, sample_rate_hz, corners, knee_db=self.knee_db, time_s=self.time_s)
        )


@dataclass(frozen=True)
class Compress:
    """Give all crops the same dynamics.

    Attributes:
        corners: Input and output level in dB, rising; below the first the level is unchanged.
        knee_db: Width of the rounding of the transfer function's corners.
        time_s: Time constant of the level measurement.

    Source: acids-rave's setting for quiet field recordings.
    """

    corners: Sequence[tuple[float, float]] = ((-30.0, -15.0), (-10.0, -8.0), (0.0, -5.0))
    knee_db: float = 6.0
    time_s: float = 0.01

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> FloatArray:
        """Return the compressed crop."""
        return unclipped(
            compress(audio, sample_rate_hz, self.corners, knee_db=self.knee_db, time_s=self.time_s)
        )


def compress(
    audio: FloatArray,
    sample_rate_hz: int,
    corners: Sequence[tuple[float, float]],
    *,
    knee_db: float,
    time_s: float,
) -> FloatArray:
    """Return audio whose level follows a transfer function; one gain for all channels.

    Args:
        audio: (C, T).
        sample_rate_hz: Sample rate of the audio.
        corners: Input and output level in dB, rising; below the first the level is unchanged.
        knee_db: Width of the rounding of the corners.
        time_s: Time constant of the level measurement.
    """
    inputs_db = np.arange(FLOOR_DB, TABLE_STEP_DB, TABLE_STEP_DB)
    xs, ys = zip((FLOOR_DB, FLOOR_DB + corners[0][1] - corners[0][0]), *corners, strict=True)
    half = round(knee_db / 2 / TABLE_STEP_DB)
    gains_db = np.interp(inputs_db, xs, ys) - inputs_db
    padded = np.pad(gains_db, half, mode="edge")
    gains_db = np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")
    loudest = np.abs(audio).max(axis=0)
    forgetting = np.exp(-1 / (time_s * sample_rate_hz))
    level = lfilter([1 - forgetting], [1, -forgetting], loudest)
    level_db = 20 * np.log10(np.maximum(level, SILENCE))
    return audio * 10 ** (np.interp(level_db, inputs_db, gains_db) / 20)


@dataclass(frozen=True)
class Normalise:
    """Bring the peak of every crop to full scale.

    Attributes:
        max_gain_db: Largest gain, so that noise is not amplified like music.
    """

    max_gain_db: float = 30.0

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> FloatArray:
        """Return the normalised crop; silence is returned unchanged."""
        peak = float(np.abs(audio).max(initial=0.0))
        return audio if peak < SILENCE else audio * min(1 / peak, 10 ** (self.max_gain_db / 20))


@dataclass(frozen=True)
class RandomGain:
    """Change the level of a crop by a random number of decibels, up to full scale.

    Attributes:
        probability: Probability of the change.
        min_db: Lowest gain.
        max_db: Highest gain.
    """

    probability: float = 0.5
    min_db: float = -6.0
    max_db: float = 3.0

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> FloatArray:
        """Return the crop at its new level."""
        is_done = generator.random() < self.probability
        gain_db = generator.uniform(self.min_db, self.max_db)
        return unclipped(audio * 10 ** (gain_db / 20)) if is_done else audio


@dataclass(frozen=True)
class RandomMute:
    """Replace some crops by silence, so that silence is decoded as silence.

    Attributes:
        probability: Probability of the change.
    """

    probability: float = 0.1

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> FloatArray:
        """Return silence or the crop."""
        return np.zeros_like(audio) if generator.random() < self.probability else audio


@dataclass(frozen=True)
class Dequantise:
    """Add white noise of one step of 16-bit samples, -½ to ½, in place of what rounding removed."""

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> FloatArray:
        """Return the crop with the noise."""
        return audio + generator.uniform(-0.5, 0.5, audio.shape) / FULL_SCALE


@dataclass(frozen=True)
class RandomPitch:
    """Play a crop faster or slower, and so higher or lower.

    Attributes:
        probability: Probability of the change.
        min_ratio: Lowest speed, 1 being that of the recording; drawn uniformly in the logarithm.
        max_ratio: Highest speed.

    Raises:
        ValueError: If a ratio is not above 0, or the lowest is above the highest.
    """

    probability: float = 0.5
    min_ratio: float = 0.9
    max_ratio: float = 1.1

    def __post_init__(self) -> None:
        if not 0 < self.min_ratio <= self.max_ratio:
            raise ValueError(
                f"Pitch ratios from {self.min_ratio} to {self.max_ratio} were given; "
                "0 < min_ratio <= max_ratio is needed."
            )

    def draw(self, generator: np.random.Generator) -> float:
        """Return a speed."""
        is_done = generator.random() < self.probability
        ratio = np.exp(generator.uniform(np.log(self.min_ratio), np.log(self.max_ratio)))
        return float(ratio) if is_done else 1.0


def change_pitch(audio: Float32Array, ratio: float) -> Float32Array:
    """Return audio (C, T) played `ratio` times as fast, (C, about T / ratio)."""
    if ratio == 1.0:
        return audio
    # Only the quotient of the rates matters.
    return np.asarray(soxr.resample(audio.T, ratio, 1.0, quality="HQ").T, dtype=np.float32)


@dataclass(frozen=True)
class Augmentations:
    """The augmentations of training crops, in this order; None: not applied."""

    pitch: RandomPitch | None = None
    phase: Augmentation | None = None
    compress: Augmentation | None = None
    normalise: Augmentation | None = None
    gain: Augmentation | None = None
    mute: Augmentation | None = None
    dequantise: Augmentation | None = None

    def __call__(
        self, audio: Float32Array, sample_rate_hz: int, generator: np.random.Generator
    ) -> Float32Array:
        """Return a crop (C, T), whose pitch is already changed, after the other augmentations."""
        changed: FloatArray = audio
        for change in (
            self.phase,
            self.compress,
            self.normalise,
            self.gain,
            self.mute,
            self.dequantise,
        ):
            if change is not None:
                changed = change(changed.astype(np.float32), sample_rate_hz, generator)
        return changed.astype(np.float32)


def unclipped(audio: FloatArray) -> FloatArray:
    """Return audio, scaled down as a whole if its peak exceeds full scale."""
    return audio / max(float(np.abs(audio).max(initial=0.0)), 1.0)
