"""Decode an audio file: its content decides the format, its decoded samples the length.

libsndfile reads plain samples (WAV, AIFF, CAF and the like) and Vorbis, PyAV (FFmpeg) the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import soundfile

from rave.audio.chunks import TAGS, Part, cut_off
from rave.audio.chunks import AudioError as AudioError
from rave.audio.parts import QUIET_BYTES, Findings, PartFile, find_parts
from rave.compute.arrays import Float32Array
from rave.files.atomic import regular

_SUFFIXES = (
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf "
    ".aac .m4a .m4b .mp4 .m4v .mov .mka .mkv .webm .wma .wv .ape .ac3 .eac3 .dts .amr .tta"
)
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())
BLOCK_SAMPLES = 65536
# A frame needs a few before it: mp3 at most 511 bytes of them, and half of each overlaps.
MEMORY_S = 1
# In these, seeking reads all packets before the place, or uses their sample numbers.
SOUGHT_FORMATS = frozenset({"mp3", "flac", "ogg", "wv"})
COUNTED_FORMATS = frozenset({"flac", "tta", "ape"})  # state how many samples they hold
MP4_SLACK_SAMPLES = 2048  # a packet, by which its duration may be off
# Formats of frames only, so that bytes after the last decoded frame were not decoded.
FRAMED_FORMATS = frozenset({"mp3", "aac", "ac3", "eac3", "dts", "flac"})
CHECKED_CODECS = frozenset({"flac", "wavpack", "tta"})  # their frames have checksums
MAX_PLANES = 7  # PyAV reads beyond the eighth
# Timestamps that jump further are wrong.
MAX_GAP_S = 60
# Fewer frames than this of another format come from bytes that are not audio.
FOREIGN_FRAMES = 8
# Compressed audio in 16-bit samples, as on CDs: first bytes of frames in IEC 61937 and DTS.
_SYNC = re.compile(
    rb"\x72\xf8\x1f\x4e|\xfe\x7f\x01\x80|\x7f\xfe\x80\x01|\xff\x1f\x00\xe8|\x1f\xff\xe8\x00"
)
SYNC_BYTES = 65536  # bytes searched for it
Decoded: TypeAlias = tuple[
    int, int, tuple[str, ...], Float32Array
]  # position, rate, layout, samples
_LISTED = re.compile(r"(\d+ channels) \((.+)\)")  # a layout with a custom order


def guess_duration_s(path: Path) -> float:
    """Return the duration that a file states in seconds, 0 if it states none; may be wrong."""
    try:
        with av.open(str(regular(path.resolve())), metadata_errors="ignore") as container:
            return max(container.duration or 0, 0) / av.time_base
    except (av.FFmpegError, OSError, ValueError):
        return 0.0


def decode_blocks(
    path: Path, start_s: int = 0, findings: Findings | None = None
) -> Iterator[tuple[int, Float32Array]]:
    """Decode a file block by block, all its parts one after the other.

    Damage after which the decoder continues is replaced by silence, if its length is known.

    Args:
        path: A file of any format.
        start_s: First second to yield; whole, so that it is a whole sample at every rate. Files
            that cannot seek are decoded from the beginning.
        findings: Receives what was found in the file.

    Yields:
        The file's rate in Hz, and samples (C, n) with its own channels, n > 0.

    Raises:
        AudioError: If the file is missing, empty, cut off, without audio, or cannot be decoded.
    """
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist"
        raise AudioError(f"'{path.name}' {what}. Give an audio file.")
    if path.stat().st_size == 0:
        raise AudioError(f"'{path.name}' is empty (0 bytes). Replace it with a complete copy.")
    findings = findings if findings is not None else Findings()
    parts = find_parts(path)
    base_s = Fraction(0)
    is_empty = True
    for part in parts:
        findings.notes += [part.note] if part.note else []
        end_s = base_s
        seek_s = start_s if len(parts) == 1 else 0
        for position, rate_hz, layout, block in _decode(part, seek_s, findings, base_s):
            is_empty, findings.layout = False, layout
            end_s = base_s + Fraction(position + block.shape[1], rate_hz)
            first = round((start_s - base_s) * rate_hz) - position
            later = block[:, max(first, 0) :]
            if later.shape[1]:
                yield rate_hz, later
        base_s = end_s
    if is_empty and not start_s:
        raise AudioError(
            f"'{path.name}' holds no samples that can be decoded. Move it elsewhere, or replace it "
            "with a good copy."
        )


def _gathered(decoded: Iterator[Decoded]) -> Iterator[Decoded]:
    """Join blocks of one rate and layout that follow each other."""
    for (rate_hz, layout, _), group in groupby(decoded, lambda it: (*it[1:3], len(it[3]))):
        held: list[Float32Array] = []
        count = first = 0
        for position, _, _, block in group:
            first = first if held else position
            held.append(block)
            count += block.shape[1]
            if count >= BLOCK_SAMPLES:
                yield first, rate_hz, layout, np.concatenate(held, axis=1)
                held, count = [], 0
        if held:
            yield first, rate_hz, layout, np.concatenate(held, axis=1)


def _decode(part: Part, start_s: int, findings: Findings, base_s: Fraction) -> Iterator[Decoded]:
    """Decode a part, from `start_s` or before it."""
    file = _open_with_soundfile(part) if part.is_plain else None
    if file is None:
        yield from _gathered(_decode_with_av(part, start_s, findings, base_s))
    else:
        yield from _decode_with_soundfile(part, file, start_s)


class _Forward(soundfile.SoundFile):
    """A file read only forwards: otherwise every read seeks."""

    def seekable(self) -> bool:
        """Return False."""
        return False


def _open_with_soundfile(part: Part) -> soundfile.SoundFile | None:
    try:
        file = _Forward(PartFile(part))
    except (soundfile.LibsndfileError, TypeError):
        return None
    # libsndfile guesses the length of mp3, counts the padding of GSM as audio, and does not reorder
    # the channels of ALAC and surround Ogg. FFmpeg cuts the end of short Vorbis files.
    if (
        file.subtype.startswith(("MPEG", "GSM"))
        or (file.format == "OGG" and file.subtype != "VORBIS")
        or (file.subtype.startswith(("ALAC", "VORBIS")) and file.channels > 2)
        or (file.subtype == "PCM_16" and file.channels == 2 and _is_compressed(part))
    ):
        file.close()
        return None
    return file


def _is_compressed(part: Part) -> bool:
    """Return whether declared 16-bit samples are a stream of compressed audio."""
    with PartFile(part) as file:
        found = _SYNC.findall(file.read(SYNC_BYTES))
    if len(found) < 2:
        return False
    try:
        with _opened(part) as container:
            codec = container.streams.audio[0].codec_context
            return codec is not None and not codec.name.startswith("pcm_")
    except (av.FFmpegError, IndexError):
        return False


@contextmanager
def _opened(part: Part) -> Iterator[Any]:
    """Open a part with PyAV."""
    # A playlist cannot fetch from the network.
    options = {"protocol_whitelist": "file"}
    with PartFile(part) as file, av.open(file, options=options, metadata_errors="ignore") as opened:
        yield opened


def _layout_text(container: Any) -> str:
    """Return FFmpeg's description of the layout of the first audio stream.

    PyAV frees a layout with a custom order twice, which ends the process, so the layout is first
    read from this description.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    text = container.dumps_format()
    av.logging.set_level(level)
    stream = rf"^  Stream #0:{container.streams.audio[0].index}\b.*?: Audio: .*? Hz, ([^,\n]+)"
    found = re.search(stream, text, re.MULTILINE)
    return found[1] if found else ""


@lru_cache(maxsize=64)
def _names(layout: str) -> tuple[str, ...]:
    """Return the positions that FFmpeg's description of a layout names."""
    if listed := _LISTED.match(layout):
        return tuple(listed[2].split("+"))
    try:
        return tuple(channel.name for channel in av.AudioLayout(layout).channels)
    except ValueError:
        return ()


def _undecodable(path: Path, cause: object) -> AudioError:
    return AudioError(
        f"'{path.name}' cannot be decoded ({cause}). Convert it to WAV or FLAC with a program that "
        "plays it."
    )


def _decode_with_soundfile(
    part: Part, file: soundfile.SoundFile, start_s: int
) -> Iterator[Decoded]:
    layout: tuple[str, ...] = ()
    if file.channels > 2:
        with suppress(av.FFmpegError, IndexError), _opened(part) as container:
            layout = _names(_layout_text(container))
    num_samples = 0
    with file:
        if start_s and soundfile.SoundFile.seekable(file):
            with suppress(soundfile.LibsndfileError):  # then from the beginning
                num_samples = file.seek(min(start_s * file.samplerate, file.frames))
        while True:
            try:
                block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise _undecodable(part.path, error) from error
            if not len(block):
                break
            yield num_samples, file.samplerate, layout, block.T
            num_samples += len(block)
        if num_samples < file.frames:
            raise cut_off(part.path, f"it holds {num_samples} of {file.frames} samples")


def _decode_with_av(
    part: Part, start_s: int, findings: Findings, base_s: Fraction
) -> Iterator[Decoded]:
    try:
        with _opened(part) as container:
            if not container.streams.audio:
                raise AudioError(f"'{part.path.name}' has no audio stream. Move it elsewhere.")
            if container.streams.audio[0].codec_context is None:
                raise _undecodable(part.path, "its encoding is unknown")
            yield from _Stream(part, container, findings, base_s).decode(start_s)
    except av.FFmpegError as error:
        raise _undecodable(part.path, getattr(error, "strerror", error)) from error


class _Stream:
    """The first audio stream of a container; records missing parts."""

    def __init__(self, part: Part, container: Any, findings: Findings, base_s: Fraction) -> None:
        self.part, self.container, self.findings, self.base_s = part, container, findings, base_s
        self.stream = container.streams.audio[0]
        self.position = self.num_packets = self.rate_hz = 0
        self.has_failed, self.failed_bytes = False, 0  # since the last frame
        self.end = 0  # of the last packet that was decoded
        self.layout = ""  # if it must not be read from a frame
        if listed := _LISTED.match(_layout_text(container)):
            self.layout, self.stream.codec_context.layout = listed[0], listed[1]
        if self.stream.codec_context.name in CHECKED_CODECS:
            self.stream.codec_context.options = {"err_detect": "crccheck+explode"}

    def decode(self, start_s: int) -> Iterator[Decoded]:
        container, stream = self.container, self.stream
        clock, begin = float(stream.time_base or 1), stream.start_time or 0
        is_sought = container.format.name in SOUGHT_FORMATS and start_s > MEMORY_S
        if is_sought:
            container.seek(begin + int((start_s - MEMORY_S) / clock), stream=stream)
        expected: float | None = None  # seconds; of the next frame
        for frame in self._lasting(self._frames()):
            self.rate_hz = rate_hz = frame.sample_rate
            time = None if frame.pts is None else (frame.pts - begin) * clock
            if is_sought:  # the first frames may lack the data that they depend on
                self.position, is_sought = round((time or 0) * rate_hz), False
                self.has_failed = False
            gap = 0
            if time is not None:
                seconds = 0.0 if expected is None else time - expected
                # Timestamps are rounded to the clock.
                if seconds >= max(0.9 * frame.samples / rate_hz, 3 * clock):
                    gap = round(seconds * rate_hz)
                expected = time
            if gap or self.has_failed:
                gap = gap if gap <= MAX_GAP_S * rate_hz else 0
                place_s = float(self.base_s + Fraction(self.position, rate_hz))
                self.findings.damage.append((place_s, gap / rate_hz))
                self.has_failed = False
            layout = _names(self.layout or frame.layout.name)
            samples = _frame_samples(self.part.path, frame)
            for start in range(0, gap, BLOCK_SAMPLES):
                count = min(BLOCK_SAMPLES, gap - start)
                silence = np.zeros((len(samples), count), np.float32)
                yield self.position, rate_hz, layout, silence
                self.position += count
            yield self.position, rate_hz, layout, samples
            self.position += frame.samples
            if expected is not None:
                expected += frame.samples / rate_hz
        self._check_end()

    def _frames(self) -> Iterator[Any]:
        """Yield frames; packets that cannot be decoded are skipped."""
        for packet in self._packets():
            self.num_packets += packet.size > 0
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.has_failed = True
                self.failed_bytes += packet.size
                continue
            if frames and packet.size:
                self.failed_bytes, self.end = 0, (packet.pos or 0) + packet.size
            yield from (frame for frame in frames if frame.samples)
        with suppress(av.FFmpegError):  # frames still in the decoder, if the demuxer gave up
            yield from (frame for frame in self.stream.decode(None) if frame.samples)

    def _packets(self) -> Iterator[Any]:
        """Yield packets; parts that the demuxer cannot read are skipped, if it can continue."""
        has_packets = True
        while has_packets:
            has_packets = False
            try:
                for packet in self.container.demux(self.stream):
                    has_packets |= packet.size > 0
                    yield packet
                return
            except av.FFmpegError:
                self.has_failed = True

    def _lasting(self, frames: Iterator[Any]) -> Iterator[Any]:
        """Yield frames without the few of another format, which come from bytes taken for audio."""
        kept: tuple[int, int] | None = None
        held: list[Any] = []
        for frame in frames:
            kind = (frame.sample_rate, frame.layout.nb_channels)
            kept = kept or kind
            if kind == kept:
                self.has_failed |= bool(held)
                held = []
                yield frame
            else:
                held.append(frame)
                if len(held) == FOREIGN_FRAMES:
                    yield from held
                    kept, held = kind, []

    def _check_end(self) -> None:
        name, stream, path = self.container.format.name, self.stream, self.part.path
        needed = round((stream.duration or 0) * (stream.time_base or 0) * self.rate_hz)
        is_short = name in COUNTED_FORMATS and self.position < needed
        if "mp4" in name and self.num_packets < stream.frames:  # an edit list may leave some out
            is_short = self.position + MP4_SLACK_SAMPLES < needed
        if is_short:
            raise cut_off(path, f"it holds {self.position} of {needed} samples")
        rest = self.failed_bytes
        if name in FRAMED_FORMATS and self.end and not self.findings.damage:
            with PartFile(self.part) as file:
                file.seek(self.end)
                is_tag = file.read(16).startswith(TAGS)
            rest = 0 if is_tag else self.part.num_bytes - self.end
        if rest > QUIET_BYTES and self.position:
            place_s = float(self.base_s) + self.position / self.rate_hz
            self.findings.notes.append(
                f"'{path.name}' has {rest} bytes that cannot be decoded after {place_s:.2f} s."
            )


def _frame_samples(path: Path, frame: Any) -> Float32Array:
    if frame.format.is_planar and frame.layout.nb_channels > MAX_PLANES:
        (frame,) = av.AudioResampler(frame.format.packed.name).resample(frame)
    try:
        array = frame.to_ndarray()
    except ValueError as error:  # 64-bit integers
        raise _undecodable(path, error) from error
    if not frame.format.is_planar:
        array = array.reshape(frame.samples, -1).T
    if array.dtype == np.uint8:
        array = array / 128 - 1.0
    elif np.issubdtype(array.dtype, np.integer):
        array = array.astype(np.float32) * np.float32(-1.0 / np.iinfo(array.dtype).min)
    return np.asarray(array, dtype=np.float32)
