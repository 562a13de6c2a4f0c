"""Statistics of audio without a network: spectra, onsets, harmony, loudness.

T samples, R resolutions, F mel bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rave.compute.arrays import FloatArray
from rave.compute.numba_safe import librosa

FFT_SAMPLES, NUM_MELS = (256, 1024, 4096), 48
# Lower bounds of spectra and levels; quieter is silence.
FLOOR_DB, FLOOR_DBFS = -100.0, -70.0
# The window of BS.1770's momentary loudness. Differs: no weighting of frequencies.
LEVEL_S = 0.4
# Pitch classes are compared with those this much later.
CHROMA_S = 0.5
CHROMA_FFT_SAMPLES, CHROMA_HOP_SAMPLES = 4096, 1024
# Onsets farther apart than this lie in different phrases.
LONGEST_INTERVAL_S = 4.0
# Centroid and flatness are measured in frames louder than this share of the loudest.
LOUD_RATIO = 0.05
DISTANCES = {
    "spectral": ("log-mel spectra, mean and spread", "dB"),
    "onset": ("times between onsets", "octaves"),
    "chroma": ("intervals between pitch classes", "%"),
    "loudness": ("loudness", "dB"),
}


@dataclass(frozen=True)
class AudioStatistics:
    """Statistics of audio; those of several pieces can be pooled.

    Attributes:
        duration_s: Duration of the audio.
        power: Mean square of the samples.
        peak: Largest magnitude.
        centroid_hz: Centroid of the spectrum, mean over loud frames.
        flatness: Flatness of the spectrum, mean over loud frames; 1 is white noise.
        mel: (R, F) mean log-mel spectrum, dB.
        mel_square: (R, F) mean square of it.
        onsets: Number of onsets.
        intervals: (n,) times between onsets, log2 of seconds.
        chroma: (2, 12) share of each interval, in semitones, between the pitch classes of half a
            second, and between them and those half a second later. It does not depend on the key.
        levels: (n,) levels of stretches of 0.4 s, dBFS.
    """

    duration_s: float
    power: float
    peak: float
    centroid_hz: float
    flatness: float
    mel: FloatArray
    mel_square: FloatArray
    onsets: float
    intervals: FloatArray
    chroma: FloatArray
    levels: FloatArray

    def figures(self) -> dict[str, float]:
        """Return the figures to report."""
        quiet, loud = np.percentile(self.levels, (10, 90))
        together, later = self.chroma[:, 0]  # on the same pitch class
        return {
            "duration_s": self.duration_s,
            "level_dbfs": float(10 * np.log10(max(self.power, 1e-20))),
            "peak": self.peak,
            "loudness_range_db": float(loud - quiet),
            "centroid_hz": self.centroid_hz,
            "flatness": self.flatness,
            "onsets_per_s": self.onsets / self.duration_s,
            "harmonic_change": 1.0 - float(later / together),
        }


def measure(audio: FloatArray, sample_rate_hz: int) -> AudioStatistics:
    """Return the statistics of audio (T,) of half a second or more."""
    spectra = [_mel_db(audio, sample_rate_hz, size) for size in FFT_SAMPLES]
    magnitude = np.abs(librosa.stft(audio))
    rms = librosa.feature.rms(S=magnitude)[0]
    is_loud = (rms > LOUD_RATIO * rms.max()) & (rms > 0)
    centroid_hz = librosa.feature.spectral_centroid(S=magnitude, sr=sample_rate_hz)[0]
    flatness = librosa.feature.spectral_flatness(S=magnitude)[0]
    times_s = librosa.onset.onset_detect(y=audio, sr=sample_rate_hz, units="time")
    intervals_s = np.diff(times_s)
    size = round(LEVEL_S * sample_rate_hz)
    stretches = audio[: max(len(audio) // size, 1) * size]
    stretches = stretches.reshape(-1, min(size, len(audio)))
    power = np.square(stretches, dtype=np.float64).mean(axis=1)
    return AudioStatistics(
        duration_s=len(audio) / sample_rate_hz,
        power=float(np.square(audio, dtype=np.float64).mean()),
        peak=float(np.abs(audio).max()),
        centroid_hz=float(centroid_hz[is_loud].mean()) if is_loud.any() else 0.0,
        flatness=float(flatness[is_loud].mean()) if is_loud.any() else 0.0,
        mel=np.stack([each.mean(axis=1) for each in spectra]),
        mel_square=np.stack([np.square(each).mean(axis=1) for each in spectra]),
        onsets=float(len(times_s)),
        intervals=np.log2(intervals_s[intervals_s < LONGEST_INTERVAL_S]),
        chroma=_intervals_between(audio, sample_rate_hz),
        levels=10 * np.log10(np.maximum(power, 10 ** (FLOOR_DBFS / 10))),
    )


def pool(pieces: Sequence[AudioStatistics]) -> AudioStatistics:
    """Return the statistics of several pieces together."""
    weights = np.array([piece.duration_s for piece in pieces])
    pooled: dict[str, Any] = {}
    for name in (field.name for field in fields(AudioStatistics)):
        values = [getattr(piece, name) for piece in pieces]
        if name in ("intervals", "levels"):
            pooled[name] = np.concatenate(values)
        elif name in ("duration_s", "onsets"):
            pooled[name] = float(sum(values))
        elif name == "peak":
            pooled[name] = max(values)
        else:
            mean = np.average(np.stack(values), axis=0, weights=weights)
            pooled[name] = mean if mean.ndim else float(mean)
    return AudioStatistics(**pooled)


def distances(one: AudioStatistics, other: AudioStatistics) -> dict[str, float | None]:
    """Return the distances of `DISTANCES`; 0 is equal.

    Spectra: root mean square over bands of the differences of mean and standard deviation over
    time, averaged over both and over resolutions. Onsets and loudness: Wasserstein-1 distance of
    their distributions; None without two onsets. Harmony: total variation distance of the shares of
    intervals, averaged over simultaneous and successive ones.
    """
    from scipy.stats import wasserstein_distance

    spread = [
        np.sqrt(np.maximum(each.mel_square - np.square(each.mel), 0.0)) for each in (one, other)
    ]
    differences = np.stack([one.mel - other.mel, spread[0] - spread[1]])
    chroma = 0.5 * float(np.abs(one.chroma - other.chroma).sum(axis=1).mean())
    has_onsets = len(one.intervals) and len(other.intervals)
    onset = wasserstein_distance(one.intervals, other.intervals) if has_onsets else None
    return {
        "spectral": float(np.sqrt(np.square(differences).mean(axis=2)).mean()),
        "onset": None if onset is None else float(onset),
        "chroma": 100.0 * chroma,
        "loudness": float(wasserstein_distance(one.levels, other.levels)),
    }


def followed(audio: FloatArray, source: FloatArray, sample_rate_hz: int) -> dict[str, float]:
    """Return the correlations of loudness and chroma of two recordings (T,), from their starts."""
    curves = []
    for signal in (audio, source):
        magnitude = np.abs(
            librosa.stft(signal, n_fft=CHROMA_FFT_SAMPLES, hop_length=CHROMA_HOP_SAMPLES)
        )
        rms = librosa.feature.rms(S=magnitude, frame_length=CHROMA_FFT_SAMPLES)
        chroma = librosa.feature.chroma_stft(S=np.square(magnitude), sr=sample_rate_hz, tuning=0.0)
        curves.append({"loudness": librosa.amplitude_to_db(rms), "chroma": chroma})
    num_frames = min(each["loudness"].shape[1] for each in curves)
    correlations: dict[str, float] = {}
    for name in ("loudness", "chroma"):
        values = [each[name][:, :num_frames].ravel() for each in curves]
        is_constant = any(np.ptp(each) == 0 for each in values)
        correlations[name] = 0.0 if is_constant else float(np.corrcoef(*values)[0, 1])
    return correlations


def _mel_db(audio: FloatArray, sample_rate_hz: int, fft_samples: int) -> FloatArray:
    """Return a log-mel spectrum (F, n) in dB."""
    power = librosa.feature.melspectrogram(
        y=audio,
        sr=sample_rate_hz,
        n_fft=fft_samples,
        hop_length=fft_samples // 2,
        # Few enough that no band of the shortest window is empty.
        n_mels=NUM_MELS if fft_samples > min(FFT_SAMPLES) else NUM_MELS // 4,
    )
    decibels = 10 * np.log10(np.maximum(power / fft_samples, 10 ** (FLOOR_DB / 10)))
    return np.repeat(decibels, NUM_MELS // len(decibels), axis=0)


def _intervals_between(audio: FloatArray, sample_rate_hz: int) -> FloatArray:
    """Return the shares of simultaneous and of successive intervals of pitch classes, (2, 12)."""
    chroma = librosa.feature.chroma_stft(
        y=audio,
        sr=sample_rate_hz,
        n_fft=CHROMA_FFT_SAMPLES,
        hop_length=CHROMA_HOP_SAMPLES,
        norm=None,
        tuning=0.0,
    )
    size = max(round(CHROMA_S * sample_rate_hz / CHROMA_HOP_SAMPLES), 1)
    count = max(chroma.shape[1] // size, 1)
    steps = chroma[:, : count * size].reshape(12, count, -1).sum(axis=2)
    shares = np.where(steps.sum(axis=0) > 0, steps / np.maximum(steps.sum(axis=0), 1e-20), 1 / 12)
    shares = np.concatenate([shares, shares[:, -1:]], axis=1) if count == 1 else shares
    now, later = shares[:, :-1], shares[:, 1:]
    pairs = [
        [float((now * np.roll(then, -interval, axis=0)).sum()) for interval in range(12)]
        for then in (now, later)
    ]
    return np.asarray(pairs) / now.shape[1]
