"""Which library decodes which audio file: libsndfile, else PyAV (ffmpeg).

PyAV also reads mp3, whose length libsndfile guesses, and surround Ogg, whose channels it leaves in
Vorbis order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from rave.audio_blocks import Audio
from rave.batch import SkipFile

_SUFFIXES = (
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf "
    ".aac .m4a .m4b .mp4 .m4v .mov .mka .mkv .webm .wma .wv .ape .ac3 .eac3 .dts .amr .tta"
)
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())
MPEG_SUFFIXES = frozenset({".mp2", ".mp3"})
BLOCK_SAMPLES = 65536
# A frame of mp3 needs a few before it: at most 511 bytes of them, and half of each overlaps.
MP3_MEMORY_S = 1
# Some programs write a header size that is off by the header itself.
HEADER_SLACK_BYTES = 64
# What a recorder or a pipe that does not know the length writes as data size, or more.
UNKNOWN_SIZE_BYTES = 2**31 - 4096


class AudioError(SkipFile):
    """An audio file cannot be used; the message says which, why, and what to do."""


def guess_duration_s(path: Path) -> float:
    """Return the seconds that a file says it has, 0 if it says nothing; it may be wrong."""
    try:
        with av.open(str(path.resolve()), metadata_errors="ignore") as container:
            return max(container.duration or 0, 0) / av.time_base
    except (av.FFmpegError, OSError, ValueError):
        return 0.0


def decode_blocks(path: Path, start_s: int = 0) -> Iterator[tuple[int, Audio]]:
    """Decode a file block by block.

    Args:
        path: A file of any format.
        start_s: First second to yield; whole, so that it is a whole sample at every rate.

    Yields:
        The file's rate in Hz, and samples (C, n) with its own channels, n > 0.

    Raises:
        AudioError: If the file is missing, empty, cut off, without audio, or cannot be decoded.
    """
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist"
        raise AudioError(f"'{path.name}' {what}. Give an audio file.")
    if path.stat().st_size == 0:
        raise AudioError(f"'{path.name}' is empty (0 bytes). Replace or remove it.")
    file = None if path.suffix.lower() in MPEG_SUFFIXES else _open_with_soundfile(path)
    if file is not None:
        yield from _decode_with_soundfile(path, file, start_s)
        return
    for position, rate_hz, block in _decode_with_av(path, start_s):
        later = block[:, max(start_s * rate_hz - position, 0) :]
        if later.shape[1]:
            yield rate_hz, later


def _open_with_soundfile(path: Path) -> soundfile.SoundFile | None:
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError, UnicodeError):
        return None  # not a format of libsndfile's, or a name that it cannot open
    if file.format == "OGG" and file.channels > 2:
        file.close()
        return None
    return file


def _cut_off(path: Path, found: str) -> AudioError:
    return AudioError(f"'{path.name}' is cut off: {found}. Copy it again, or repair it.")


def _undecodable(path: Path, error: Exception) -> AudioError:
    cause = getattr(error, "strerror", error)
    return AudioError(
        f"'{path.name}' cannot be decoded ({cause}). Convert it to WAV or FLAC, or remove it."
    )


def _decode_with_soundfile(
    path: Path, file: soundfile.SoundFile, start_s: int
) -> Iterator[tuple[int, Audio]]:
    num_samples = 0
    with file:
        if start_s:
            num_samples = file.seek(min(start_s * file.samplerate, file.frames))
        short = re.search(
            r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE
        )
        if short:
            declared, present = int(short[1]), int(short[2])
            if present + HEADER_SLACK_BYTES < declared < UNKNOWN_SIZE_BYTES:
                raise _cut_off(path, f"it holds {present} of {declared} bytes of audio")
        while True:
            try:
                block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise _undecodable(path, error) from error
            if not len(block):
                break
            num_samples += len(block)
            yield file.samplerate, block.T
        if num_samples < file.frames < 2**62:
            raise _cut_off(path, f"it holds {num_samples} of {file.frames} samples")


def _decode_with_av(path: Path, start_s: int) -> Iterator[tuple[int, int, Audio]]:
    """Yield position, rate and samples, from `start_s` or before it, so far as one can seek."""
    # An absolute path is never taken for a URL, and a playlist cannot fetch from the network.
    options = {"protocol_whitelist": "file"}
    num_packets = num_frames = 0
    try:
        with av.open(str(path.resolve()), options=options, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise AudioError(f"'{path.name}' has no audio stream. Remove it.")
            stream = container.streams.audio[0]
            clock, begin = stream.time_base or Fraction(1), stream.start_time or 0
            is_sought = container.format.name == "mp3" and start_s > MP3_MEMORY_S
            position = 0
            if is_sought:  # by reading all packets before it, hence exact
                container.seek(begin + int((start_s - MP3_MEMORY_S) / clock), stream=stream)
            for packet in container.demux(stream):
                num_packets += packet.size > 0
                for frame in packet.decode():
                    if frame.samples:
                        if is_sought and num_frames == 0:
                            late = (frame.pts or begin) - begin
                            position = round(late * clock * frame.sample_rate)
                        num_frames += 1
                        samples = _frame_samples(path, frame)
                        yield position, frame.sample_rate, samples
                        position += samples.shape[1]
            if num_frames == 0 and not is_sought:
                raise AudioError(
                    f"'{path.name}' holds no samples that can be decoded. Replace or remove it."
                )
            # Of the formats that declare a count, only this family counts packets.
            if "mp4" in container.format.name and num_packets < stream.frames:
                raise _cut_off(path, f"it holds {num_packets} of {stream.frames} packets")
    except av.FFmpegError as error:
        raise _undecodable(path, error) from error


def _frame_samples(path: Path, frame: Any) -> Audio:
    try:
        array = frame.to_ndarray()
    except ValueError as error:  # 64-bit integers
        raise _undecodable(path, error) from error
    if not frame.format.is_planar:
        array = array.reshape(frame.samples, -1).T
    if array.dtype == np.uint8:
        array = array / 128 - 1.0
    elif np.issubdtype(array.dtype, np.integer):
        array = array / -float(np.iinfo(array.dtype).min)
    return np.asarray(array, dtype=np.float32)
