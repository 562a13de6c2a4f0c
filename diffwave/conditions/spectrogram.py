"""Log-mel spectrograms aligned to latent frames, and the folder that holds them.

    SPECTROGRAMS_DIR/
      spectrograms.json     header: format version, codec, rate, hops, mel bands, files
      a.npy, sub/b.npy      float32 (M, N·R) in [0, 1], beside each (D, N) of the latent folder

Latent frame n covers the audio from n·hop to (n + 1)·hop; its R mel frames are centred in R equal
parts of this range. M mel bands, R = hop / mel hop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffwave.conditioner import whole_ratio
from diffwave.conditions.framing import centred_windows, hann_window
from diffwave.conditions.header import ConditionHeader
from rave.compute.arrays import Float32Array
from rave.latents.folder import open_array, write_latents

FORMAT, VERSION, HEADER_NAME = "rave-spectrograms", 1, "spectrograms.json"
# Kong et al. 2020 (arXiv:2009.09761) and its public implementation.
WINDOW_SAMPLES = 1024
LOWEST_HZ = 20.0
SMALLEST_MAGNITUDE = 1e-5
REFERENCE_DB, RANGE_DB = 20.0, 100.0
BLOCK_FRAMES = 512


@dataclass(frozen=True)
class SpectrogramHeader(ConditionHeader):
    """The content of spectrograms.json.

    Attributes:
        codec: Fingerprint of the codec of the latents.
        sample_rate_hz: Sample rate of the codec.
        hop_samples: Audio samples per latent frame.
        mel_hop_samples: Audio samples per mel frame.
        num_mels: M.
        files: Number of latent frames of each array, by its path.
        skipped: Files that could not be used, with the reasons.
        sources: Audio file of each array; empty if not known.
    """

    NAME: ClassVar[str] = HEADER_NAME
    TAG: ClassVar[dict[str, Any]] = {"format": FORMAT, "version": VERSION}
    WHAT: ClassVar[str] = "spectrogram"
    codec: str
    sample_rate_hz: int
    hop_samples: int
    mel_hop_samples: int
    num_mels: int
    files: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> int:
        """Return mel frames per latent frame."""
        return whole_ratio(self.hop_samples, self.mel_hop_samples)


def open_spectrogram(path: Path, num_mels: int, num_mel_frames: int | None) -> Float32Array:
    """Return a file's spectrogram, memory-mapped, (num_mels, num_mel_frames or any number)."""
    try:
        array: Float32Array = open_array(path)
    except ValueError as error:
        raise ValueError(f"Cannot read spectrogram '{path}' ({error}).") from error
    frames = array.shape[-1] if num_mel_frames is None else num_mel_frames
    if array.ndim != 2 or array.shape != (num_mels, frames) or array.dtype != np.float32:
        raise ValueError(
            f"'{path}' holds {array.dtype} {array.shape}; float32 {(num_mels, frames)} is needed. "
            "Make the spectrograms again with python -m diffwave.preprocess."
        )
    return array


class LogMel:
    """Compute log-mel spectrograms in blocks of bounded memory, exactly as in one piece.

    Args:
        sample_rate_hz: Sample rate of the audio.
        mel_hop_samples: Audio samples per mel frame.
        num_mels: M.

    Raises:
        ValueError: If the sample rate is too low for the lowest mel band.

    Source: the public implementation of Kong et al. 2020. Differs: mel frame i is centred on sample
    (i + 1/2)·hop instead of i·hop, and the audio is padded with silence at both ends.
    """

    def __init__(self, sample_rate_hz: int, mel_hop_samples: int, num_mels: int) -> None:
        from rave.compute.numba_safe import librosa

        if sample_rate_hz <= 2 * LOWEST_HZ:
            raise ValueError(
                f"The sample rate is {sample_rate_hz} Hz; a spectrogram needs more than "
                f"{2 * LOWEST_HZ:g} Hz."
            )
        self.mel_hop_samples = mel_hop_samples
        self.num_mels = num_mels
        self._filters: Float32Array = librosa.filters.mel(
            sr=sample_rate_hz,
            n_fft=WINDOW_SAMPLES,
            n_mels=num_mels,
            fmin=LOWEST_HZ,
            fmax=sample_rate_hz / 2,
            htk=True,
            norm=None,
        )
        self._window = hann_window(WINDOW_SAMPLES)

    def blocks(self, audio: Iterable[Float32Array], num_mel_frames: int) -> Iterator[Float32Array]:
        """Yield the spectrogram of a stream of audio, block after block.

        Args:
            audio: Blocks of mono samples, (n,) each.
            num_mel_frames: Total number of frames; the audio is cut or padded with silence to fit.

        Yields:
            (M, frames) in [0, 1]; the frames add up to `num_mel_frames`.
        """
        hop = self.mel_hop_samples
        for windows in centred_windows(audio, hop, WINDOW_SAMPLES, num_mel_frames, BLOCK_FRAMES):
            yield self._log_mel(windows)

    def of_lmnt_diffwave(self, audio: Float32Array) -> Float32Array:
        """Return the spectrogram of whole audio as lmnt diffwave computes it.

        Frame i is centred on sample i·hop, and the audio is mirrored at its ends.

        Args:
            audio: (T,) mono samples.

        Returns:
            (M, 1 + T // hop) in [0, 1].

        Raises:
            ValueError: If the audio is too short to be mirrored.
        """
        if len(audio) <= WINDOW_SAMPLES // 2:
            raise ValueError(
                f"The audio has {len(audio)} samples; a spectrogram needs more than "
                f"{WINDOW_SAMPLES // 2}."
            )
        padded = np.pad(audio, WINDOW_SAMPLES // 2, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)
        windows = windows[:: self.mel_hop_samples]
        starts = range(0, len(windows), BLOCK_FRAMES)
        blocks = [self._log_mel(windows[start : start + BLOCK_FRAMES]) for start in starts]
        return np.concatenate(blocks, axis=1)

    def _log_mel(self, frames: Float32Array) -> Float32Array:
        magnitude = np.abs(np.fft.rfft(frames * self._window, axis=1))
        mel = self._filters @ magnitude.T
        level_db = 20.0 * np.log10(np.maximum(mel, SMALLEST_MAGNITUDE)) - REFERENCE_DB
        return np.clip((level_db + RANGE_DB) / RANGE_DB, 0.0, 1.0).astype(np.float32)


def write_spectrogram(
    path: Path, source: Path, transform: LogMel, sample_rate_hz: int, num_mel_frames: int
) -> None:
    """Write the spectrogram of an audio file, whole or not at all, in bounded memory.

    Raises:
        AudioError: If the audio cannot be read to its end.
        OSError: If `path` cannot be written.
    """
    audio = mono_blocks(source, sample_rate_hz)
    blocks = transform.blocks(audio, num_mel_frames)
    write_latents(path, blocks, transform.num_mels, is_durable=False)


def mono_blocks(path: Path, sample_rate_hz: int) -> Iterator[Float32Array]:
    """Yield the samples of an audio file as mono, (n,) each.

    Raises:
        AudioError: If the audio cannot be read to its end.
    """
    from rave.audio.io import AudioStream

    return (block[0] for block in AudioStream(path, sample_rate_hz, 1))


def count_frames(path: Path, sample_rate_hz: int, hop_samples: int) -> int:
    """Return the number of latent frames of an audio file: ceil(samples / hop).

    Raises:
        AudioError: If the audio cannot be read to its end.
    """
    return -(-sum(len(block) for block in mono_blocks(path, sample_rate_hz)) // hop_samples)
