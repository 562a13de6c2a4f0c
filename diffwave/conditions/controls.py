"""Controls for musicians (one value or vector per latent frame), and the folder that holds them.

    CONTROLS_DIR/
      controls.json               header: format version, codec, rate, hop, controls, files
      loudness/a.npy              float32 (1, N), beside each (D, N) of the latent folder
      chroma/a.npy                float32 (12, N)
      onsets/a.npy                float32 (1, N)

Latent frame n covers the audio from n·hop to (n + 1)·hop, and so does frame n of a control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from diffwave.conditions.framing import centred_windows, hann_window
from diffwave.conditions.header import ConditionHeader
from diffwave.conditions.spectrogram import mono_blocks
from rave.compute.arrays import Float32Array, Float64Array
from rave.latents.folder import open_array, write_latents

FORMAT, VERSION, HEADER_NAME = "rave-controls", 1, "controls.json"
LOUDNESS, CHROMA, ONSETS = "loudness", "chroma", "onsets"
NUM_CHANNELS = {LOUDNESS: 1, CHROMA: 12, ONSETS: 1}
CONTROLS = tuple(NUM_CHANNELS)

QUIETEST_DB = -80.0
# Chroma: long enough to separate semitones above about 110 Hz.
CHROMA_WINDOW_S = 0.186
# Added to the power of the strongest class before dividing by it, so that silence gives 0. About
# the power of a sine at -76 dBFS.
CHROMA_FLOOR = 1e-4
# Onsets: an attack rises within one step, as with librosa's defaults at 22 kHz.
ONSET_HOP_S, ONSET_WINDOW_S, ONSET_MELS = 0.0125, 0.0465, 64
BLOCK_WINDOWS = 512


@dataclass(frozen=True)
class ControlHeader(ConditionHeader):
    """The content of controls.json.

    Attributes:
        codec: Fingerprint of the codec of the latents.
        sample_rate_hz: Sample rate of the codec.
        hop_samples: Audio samples per latent frame.
        controls: Number of channels of each control.
        files: Number of frames of each array, by its path below the folder of each control.
        skipped: Files that could not be used, with the reasons.
        sources: Audio file of each array; empty if not known.
    """

    NAME: ClassVar[str] = HEADER_NAME
    TAG: ClassVar[dict[str, Any]] = {"format": FORMAT, "version": VERSION}
    WHAT: ClassVar[str] = "control"
    codec: str
    sample_rate_hz: int
    hop_samples: int
    controls: dict[str, int]
    files: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def check_has(self, names: Iterable[str], folder: Path) -> None:
        """Check that the folder holds the named controls.

        Raises:
            ValueError: If one is missing; the message lists the controls of the folder.
        """
        for name in names:
            if name not in self.controls:
                raise ValueError(
                    f"'{folder}' holds no control '{name}', only {', '.join(self.controls)}. "
                    f"Make it with python -m diffwave.preprocess --controls {name}."
                )


class Transform(Protocol):
    """Compute one control of a stream of audio."""

    def blocks(self, audio: Iterable[Float32Array], num_frames: int) -> Iterator[Float32Array]:
        """Yield the control, block after block.

        Args:
            audio: Blocks of mono samples, (n,) each.
            num_frames: Total number of frames; the audio is cut or padded with silence to fit.

        Yields:
            (channels, frames); the frames add up to `num_frames`.
        """


class Loudness:
    """A-weighted level in dB: -3 for a full-scale sine of 1 kHz, -80 for silence.

    The window of a frame is a Hann window of two hops: its own hop and half of each neighbour's. So
    every sample counts equally.

    Source: Engel et al. 2020, arXiv:2001.04643, section 3 and their public implementation: the
    A-weighted power of a short-time spectrum. Differs: aligned to the latent frames, and an
    absolute reference instead of the data's mean.
    """

    def __init__(self, sample_rate_hz: int, hop_samples: int) -> None:
        from rave.compute.numba_safe import librosa

        self._hop = hop_samples
        self._window = hann_window(2 * hop_samples)
        frequencies = librosa.fft_frequencies(sr=sample_rate_hz, n_fft=2 * hop_samples)
        with np.errstate(divide="ignore"):  # 0 Hz gets the smallest weight
            weight_db = librosa.A_weighting(frequencies, min_db=QUIETEST_DB)
        # rfft leaves out the negative frequencies, so all but the first and the last count twice.
        count = np.full(len(frequencies), 2.0)
        count[[0, -1]] = 1.0
        self._weight = count * 10.0 ** (weight_db / 10.0) / (2 * hop_samples)

    def blocks(self, audio: Iterable[Float32Array], num_frames: int) -> Iterator[Float32Array]:
        """Yield (1, frames) in dB."""
        size = len(self._window)
        for windows in centred_windows(audio, self._hop, size, num_frames, BLOCK_WINDOWS):
            power = _power(windows, self._window) @ self._weight
            level_db = 10.0 * np.log10(np.maximum(power, 10.0 ** (QUIETEST_DB / 10.0)))
            yield level_db[None].astype(np.float32)


class Chroma:
    """Strength of the twelve pitch classes, C first: the strongest is 1, in silence all are 0.

    Source: librosa.feature.chroma_stft (McFee et al. 2015, "librosa"). Differs: a fixed tuning of
    440 Hz, windows aligned to the latent frames, faint noise is not scaled up to 1.
    """

    def __init__(self, sample_rate_hz: int, hop_samples: int) -> None:
        self._rate_hz = sample_rate_hz
        self._hop = hop_samples
        self._window = hann_window(_power_of_two(CHROMA_WINDOW_S * sample_rate_hz))

    def blocks(self, audio: Iterable[Float32Array], num_frames: int) -> Iterator[Float32Array]:
        """Yield (12, frames) in [0, 1]."""
        from rave.compute.numba_safe import librosa

        size = len(self._window)
        for windows in centred_windows(audio, self._hop, size, num_frames, BLOCK_WINDOWS):
            power = _power(windows, self._window).T
            raw = librosa.feature.chroma_stft(S=power, sr=self._rate_hz, tuning=0.0, norm=None)
            chroma = raw / (raw.max(axis=0) + CHROMA_FLOOR)
            yield chroma.astype(np.float32)


class Onsets:
    """Rise of the spectrum within each frame in dB, averaged over mel bands.

    Source: librosa.onset.onset_strength, i.e. spectral flux after Böck & Widmer 2013, "Maximum
    filter vibrato suppression for onset detection". Differs: summed over the steps of a latent
    frame, an absolute floor, silence before the first sample.
    """

    def __init__(self, sample_rate_hz: int, hop_samples: int) -> None:
        from rave.compute.numba_safe import librosa

        most = max(round(ONSET_HOP_S * sample_rate_hz), 1)
        self._hop = max(n for n in range(1, min(most, hop_samples) + 1) if hop_samples % n == 0)
        self._ratio = hop_samples // self._hop
        self._window = hann_window(_power_of_two(ONSET_WINDOW_S * sample_rate_hz))
        self._filters = librosa.filters.mel(
            sr=sample_rate_hz, n_fft=len(self._window), n_mels=ONSET_MELS, fmax=sample_rate_hz / 2
        )

    def blocks(self, audio: Iterable[Float32Array], num_frames: int) -> Iterator[Float32Array]:
        """Yield (1, frames) in dB, at least 0."""
        from rave.compute.numba_safe import librosa

        size, count = len(self._window), num_frames * self._ratio
        in_block = max(BLOCK_WINDOWS // self._ratio, 1) * self._ratio
        before = np.full((ONSET_MELS, 1), QUIETEST_DB)
        for windows in centred_windows(audio, self._hop, size, count, in_block):
            mel = self._filters @ _power(windows, self._window).T
            level_db = librosa.power_to_db(mel, amin=10.0 ** (QUIETEST_DB / 10.0), top_db=None)
            joined = np.concatenate([before, level_db], axis=1)
            rise = librosa.onset.onset_strength(S=joined, center=False)[1:]
            before = level_db[:, -1:]
            yield rise.reshape(1, -1, self._ratio).sum(axis=2).astype(np.float32)


TRANSFORMS: dict[str, Callable[[int, int], Transform]] = {
    LOUDNESS: Loudness,
    CHROMA: Chroma,
    ONSETS: Onsets,
}


def check_controls(names: Iterable[str]) -> list[str]:
    """Return the named controls in their fixed order; without names, all controls.

    Raises:
        ValueError: If there is no such control.
    """
    names = list(names)
    for name in names:
        if name not in CONTROLS:
            raise ValueError(f"There is no control '{name}'. Choose from: {', '.join(CONTROLS)}.")
    return [name for name in CONTROLS if name in names or not names]


def build_transform(name: str, sample_rate_hz: int, hop_samples: int) -> Transform:
    """Return the transform that computes the named control."""
    return TRANSFORMS[name](sample_rate_hz, hop_samples)


def write_control(
    path: Path, source: Path, name: str, sample_rate_hz: int, hop_samples: int, num_frames: int
) -> None:
    """Write one control of an audio file, whole or not at all, in bounded memory.

    Raises:
        AudioError: If the audio cannot be read to its end.
        OSError: If `path` cannot be written.
    """
    transform = build_transform(name, sample_rate_hz, hop_samples)
    blocks = transform.blocks(mono_blocks(source, sample_rate_hz), num_frames)
    write_latents(path, blocks, NUM_CHANNELS[name], is_durable=False)


def open_control(path: Path, name: str, num_frames: int | None = None) -> Float32Array:
    """Return the content of a control's file, memory-mapped, (channels, num_frames or any number).

    A file with one channel may also have the shape (frames,).

    Raises:
        ValueError: If the file is missing or has another shape.
    """
    try:
        array: Float32Array = open_array(path)
    except ValueError as error:
        raise ValueError(f"Cannot read the control '{path}' ({error}).") from error
    channels = NUM_CHANNELS[name]
    if array.ndim == 1 and channels == 1:
        array = array[None]
    frames = array.shape[-1] if num_frames is None else num_frames
    if array.shape != (channels, frames) or array.dtype != np.float32:
        raise ValueError(
            f"'{path}' holds {array.dtype} {array.shape}; {name} needs float32 "
            f"{(channels, frames)}, one column per latent frame."
        )
    return array


def _power(windows: Float32Array, window: Float64Array) -> Float64Array:
    """Return the power spectra of windows (n, size), (n, size // 2 + 1)."""
    return np.asarray(np.square(np.abs(np.fft.rfft(windows * window, axis=1))))


def _power_of_two(number: float) -> int:
    return int(2 ** max(round(np.log2(number)), 1))
