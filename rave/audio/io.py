"""Audio files ⇄ float32 arrays (C, T): list them, read any format at any rate, write WAV and FLAC.

Everything streams in blocks (C, n): a three-hour file needs no more memory than a short one.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from rave.audio.blocks import (
    Quantizer,
    fit_length,
    is_layout_known,
    mixing_matrix,
    regroup,
    resample,
)
from rave.audio.chunks import AudioError
from rave.audio.formats import AUDIO_SUFFIXES, BLOCK_SAMPLES, decode_blocks
from rave.audio.parts import Findings
from rave.compute.arrays import Float32Array
from rave.files.atomic import atomic_write, native_path
from rave.parsing import one_line

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 1000, 768_000
MAX_CHANNELS = 1024  # libsndfile's own limit
WAV_LIMIT_BYTES = 2**32 - 4096  # a WAV header counts bytes in 32 bits; beyond, RF64


@dataclass(frozen=True)
class AudioSource:
    """Format and length of an audio file, counted while it was read.

    Attributes:
        sample_rate_hz: Its own rate.
        num_channels: Its own channels.
        num_samples: Its exact length at its own rate.
    """

    sample_rate_hz: int
    num_channels: int
    num_samples: int


def list_audio_files(folder: Path) -> dict[str, Path]:
    """Return the audio files under a folder, by their relative posix name, in sorted order.

    Subfolders and links are followed, each folder once; hidden files and folders are left out.

    Raises:
        ValueError: If the folder does not exist, is a file, or holds no audio.
        OSError: If a subfolder cannot be listed.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"'{folder}' {what}. Give a folder of audio files.")

    def fail(error: OSError) -> None:
        raise error

    found: dict[str, Path] = {}
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(root, name)
            if not name.startswith(".") and path.suffix.lower() in AUDIO_SUFFIXES:
                found[path.relative_to(folder).as_posix()] = path
    if not found:
        suffixes = " ".join(sorted(AUDIO_SUFFIXES))
        raise ValueError(f"'{folder}' holds no audio files. Supported suffixes: {suffixes}.")
    return dict(sorted(found.items()))


def check_rate_and_channels(sample_rate_hz: int, num_channels: int) -> None:
    """Check that audio of this rate and number of channels can be written.

    Raises:
        ValueError: If it cannot.
    """
    if not MIN_SAMPLE_RATE_HZ <= sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise ValueError(
            f"The sample rate is {sample_rate_hz} Hz; it must be from {MIN_SAMPLE_RATE_HZ} to "
            f"{MAX_SAMPLE_RATE_HZ} Hz."
        )
    if not 1 <= num_channels <= MAX_CHANNELS:
        raise ValueError(f"{num_channels} channels were given; use 1 (mono) or 2 (stereo).")


class AudioStream:
    """One audio file, decoded, mixed and resampled block by block.

    Args:
        path: A file of any format.
        sample_rate_hz: Sample rate to resample to.
        num_channels: Channels to mix to (`mixing_matrix`).
        block_samples: Samples of each block yielded, except the last. Has no other effect.
        start_s: First second to read, whole; with it, `source` does not state the file's length.

    Raises:
        ValueError: If the rate or the number of channels is impossible.
        AudioError: While iterating, if the file cannot be used: it cannot be decoded (to its end),
            has no audio or no samples, NaN or infinite samples, or an unsupported rate.

    Example:
        >>> stream = AudioStream(path, 44100, 1)
        >>> audio = np.concatenate(list(stream), axis=1)  # (1, T) at 44100 Hz
        >>> stream.source.num_samples                     # at the rate of the file
    """

    def __init__(
        self,
        path: Path,
        sample_rate_hz: int,
        num_channels: int,
        block_samples: int = BLOCK_SAMPLES,
        start_s: int = 0,
    ) -> None:
        check_rate_and_channels(sample_rate_hz, num_channels)
        self.start_s = start_s
        self.path = path
        self.sample_rate_hz = sample_rate_hz
        self.num_channels = num_channels
        self.block_samples = block_samples
        self._findings = Findings()
        self._source: AudioSource | None = None

    @property
    def source(self) -> AudioSource:
        """Return format and length of the file; read the stream to its end first."""
        assert self._source is not None, "read the stream to its end first"
        return self._source

    @property
    def notes(self) -> list[str]:
        """Return notes for the user about what was read so far, one sentence each."""
        return self._findings.sentences(self.path)

    def __iter__(self) -> Iterator[Float32Array]:
        """Yield blocks (C, block_samples), the last one shorter."""
        self._findings = Findings()
        decoded = decode_blocks(self.path, self.start_s, self._findings)
        first = next(decoded, None)
        if first is None:
            raise AudioError(f"'{self.path.name}' holds no samples from {self.start_s} s on.")
        rate_hz = first[0]
        if not MIN_SAMPLE_RATE_HZ <= rate_hz <= MAX_SAMPLE_RATE_HZ:
            raise AudioError(
                f"'{self.path.name}' has a sample rate of {rate_hz} Hz; {MIN_SAMPLE_RATE_HZ} to "
                f"{MAX_SAMPLE_RATE_HZ} Hz is supported. Save it at another rate."
            )
        mixed = self._mix(chain([first], decoded), rate_hz, len(first[1]))
        yield from regroup(resample(mixed, rate_hz, self.sample_rate_hz), self.block_samples)

    def _mix(
        self, decoded: Iterable[tuple[int, Float32Array]], rate_hz: int, num_channels: int
    ) -> Iterator[Float32Array]:
        num_samples, findings = 0, self._findings
        for block_rate_hz, block in decoded:
            place = f"{num_samples / rate_hz:.2f} s"
            if block_rate_hz != rate_hz:
                raise AudioError(
                    f"'{self.path.name}' changes its sample rate from {rate_hz} to "
                    f"{block_rate_hz} Hz at {place}. Save it at one rate."
                )
            if not np.isfinite(block).all():
                raise AudioError(
                    f"'{self.path.name}' has NaN or infinite samples after {place}. "
                    "Repair them in an audio editor."
                )
            num_samples += block.shape[1]
            try:
                gains = mixing_matrix(len(block), self.num_channels, findings.layout)
            except ValueError as error:
                raise AudioError(f"'{self.path.name}': {error}") from error
            if len(block) > max(2, self.num_channels) and not is_layout_known(findings.layout):
                findings.averaged.add(len(block))
            yield block if len(block) == self.num_channels else gains @ block
        for note in self.notes:
            warn_once(note)
        self._source = AudioSource(rate_hz, num_channels, num_samples)


@lru_cache(maxsize=4096)
def warn_once(note: str) -> None:
    """Log a warning, but only once, as a file may be read many times."""
    logging.getLogger(__name__).warning("warning: %s", one_line(note))


def read_audio(path: str | Path, sample_rate_hz: int, num_channels: int = 1) -> Float32Array:
    """Return a whole file as audio (C, T).

    Raises:
        ValueError: If the rate or the number of channels is impossible.
        AudioError: If the file cannot be used; see `AudioStream`.
    """
    return np.concatenate(list(AudioStream(Path(path), sample_rate_hz, num_channels)), axis=1)


def read_audio_part(
    path: Path, sample_rate_hz: int, num_channels: int, start: int, count: int
) -> Float32Array:
    """Return samples `start` to `start + count` of a file as audio (C, count).

    They equal those of `read_audio`; samples after the end of the file are zeros.

    Raises:
        ValueError: If the rate or the number of channels is impossible.
        AudioError: If the file cannot be used; see `AudioStream`.
    """
    # One more second before it, for the resampling filter.
    start_s = max(start // sample_rate_hz - 1, 0)
    stop = start + count - start_s * sample_rate_hz
    stream = AudioStream(path, sample_rate_hz, num_channels, start_s=start_s)
    part = np.concatenate(list(fit_length(stream, stop)), axis=1)
    return np.ascontiguousarray(part[:, stop - count :])


def write_audio(
    path: str | Path,
    blocks: Float32Array | Iterable[Float32Array],
    sample_rate_hz: int,
    num_channels: int | None = None,
    num_samples: int | None = None,
    comment: str = "",
    *,
    is_durable: bool = True,
) -> Quantizer:
    """Write a 16-bit file, whole or not at all.

    Args:
        path: Ends in .wav or .flac. A WAV that would exceed 4 GiB is written as RF64.
        blocks: Audio (C, T) at `sample_rate_hz`, or blocks (C, n) of it.
        sample_rate_hz: Rate of the blocks and of the file.
        num_channels: C, for blocks; an array states it.
        num_samples: Exact length; the blocks are cut or zero-padded to it, because latent frames
            cover whole hops, and resampling rounds. None, for an array: T.
        comment: Comment text to store in the file.
        is_durable: Sync to disk, as in `rave.files.atomic.atomic_write`.

    Returns:
        The peak, and the number of samples limited to full scale.

    Raises:
        ValueError: If the suffix is another, or the format does not allow the rate or channels.
        OSError: If the file cannot be written (disk full, read-only).
    """
    path = Path(path)
    if isinstance(blocks, np.ndarray):
        num_channels, length = blocks.shape
        num_samples = length if num_samples is None else num_samples
        blocks = [blocks]
    if num_channels is None or num_samples is None:
        raise ValueError("Blocks of audio need num_channels and num_samples; give both.")
    formats = {".wav": "WAV", ".flac": "FLAC"}
    name = formats.get(path.suffix.lower())
    if name is None:
        raise ValueError(f"'{path.name}' is not the name of a .wav or .flac file. Rename it.")
    if name == "WAV" and num_samples * num_channels * 2 > WAV_LIMIT_BYTES:
        name = "RF64"
    quantize = Quantizer()
    with atomic_write(path, is_durable=is_durable) as temporary:
        try:
            file = soundfile.SoundFile(
                native_path(temporary), "w", sample_rate_hz, num_channels, "PCM_16", format=name
            )
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"'{path.name}' cannot hold {num_channels} channels at {sample_rate_hz} Hz "
                f"({error}). Write a .wav."
            ) from error
        try:
            with file:
                if comment:
                    file.comment = comment
                for block in fit_length(blocks, num_samples):
                    file.write(quantize(block))
        except soundfile.LibsndfileError as error:
            # libsndfile gives no reason; on a local disk it is nearly always this one.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    return quantize
