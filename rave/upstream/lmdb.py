"""Read training audio that `rave preprocess` of acids-rave 2.1 to 2.3.1 wrote: an LMDB folder.

    DB_DIR/
      data.mdb         key 00000000, 00000001 … → protobuf AudioExample
      metadata.yaml    channels, lazy, n_seconds, sr

A record holds 16-bit samples, channel after channel, or (`--lazy`) the path of an audio file. The
source file of a record is not stored, so a held-out record may be the neighbour of a training
record: only `rave preprocess` of this program holds out whole files.

Message numbers: AudioExample {1 map buffers, 2 map metadata}, AudioBuffer {1 repeated shape,
2 sampling_rate, 3 data, 4 precision}; a map is repeated {1 key, 2 value}.
Source: protobuf.dev/programming-guides/encoding, and the messages that acids-rave writes.
Differs: full scale is 32768, not 32767; the audio of lazy records is exact to the sample.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rave.audio.blocks import FULL_SCALE
from rave.audio.io import check_rate_and_channels, read_audio_part
from rave.audio.prepared import AudioStore, PreparedAudio
from rave.compute.arrays import Float32Array
from rave.held_out import Origin, origin, recordings, without_suffix
from rave.upstream.lmdb_file import Bytes, pairs

DATA, METADATA = "data.mdb", "metadata.yaml"
WAVEFORM = b"waveform"
PRECISIONS = ("FLOAT16", "FLOAT32", "FLOAT64", "INT16", "INT32", "INT64", "RAW")
INT16 = PRECISIONS.index("INT16")
SAMPLE_BYTES = 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MAX_VARINT_BITS = 64


@dataclass(frozen=True)
class Record:
    """One record of a database.

    Attributes:
        name: Its key; of a lazy record, the path of the audio file.
        num_samples: Samples per channel, at the database's rate.
        data_start: Where its samples begin in data.mdb; None: they are in the file `name`.
    """

    name: str
    num_samples: int
    data_start: int | None

    @property
    def origin(self) -> Origin:
        """Return its recording, and whether it is a version of it."""
        is_file = self.data_start is None
        found = recordings({self.name: Path(self.name)}, {}) if is_file else {}
        return origin(self.name, found.get(self.name, without_suffix(self.name)))


def is_database(folder: Path) -> bool:
    """Return whether a folder is an LMDB database."""
    return (folder / DATA).is_file()


class UpstreamDatabase:
    """An LMDB database of acids-rave as audio to train on; an `AudioStore`.

    No file stays open between reads, so that worker processes may share it. The file is read, not
    mapped: damage, or a change while it is read, is an error and does not end the process.

    Args:
        folder: Folder that holds data.mdb.

    Attributes:
        sample_rate_hz: Sample rate of every record.
        num_channels: Number of channels of every record.
        files: The records.

    Raises:
        ValueError: If it is damaged, empty, not from acids-rave, or mixes formats.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stated = self._stated()
        formats: dict[tuple[int, int], str] = {}  # each with the first record that has it
        self.files: list[Record] = []
        with (folder / DATA).open("rb") as file:
            for key, value in self._pairs(file):
                record, rate_hz, num_channels = self._record(key, value, stated)
                formats.setdefault((rate_hz, num_channels), record.name)
                self.files.append(record)
        if not self.files:
            raise ValueError(f"'{folder}' holds no records. Preprocess audio into it.")
        if len(formats) > 1:
            texts = [f"{name}: {rate} Hz × {n}" for (rate, n), name in formats.items()]
            raise ValueError(
                f"'{folder}' mixes formats ({'; '.join(texts)}). Preprocess the audio again."
            )
        ((self.sample_rate_hz, self.num_channels),) = formats
        check_rate_and_channels(self.sample_rate_hz, self.num_channels)
        if stated.get("sr", self.sample_rate_hz) != self.sample_rate_hz:
            raise ValueError(
                f"'{folder / METADATA}' states {stated['sr']} Hz, but the records "
                f"{self.sample_rate_hz} Hz. Preprocess the audio again."
            )

    def check(self, file: Record) -> None:
        """Check that the audio of a record exists.

        Raises:
            ValueError: If its audio file does not exist.
        """
        if file.data_start is None and not Path(file.name).is_file():
            raise ValueError(
                f"'{self.folder}' was made with --lazy from '{file.name}', which does not exist. "
                "Restore the audio, or preprocess it again."
            )

    def read(self, file: Record, start: int, count: int) -> Float32Array:
        """Return samples `start` to `start + count` of a record, (C, count), in [-1, 1)."""
        if file.data_start is None:
            path = Path(file.name)
            return read_audio_part(path, self.sample_rate_hz, self.num_channels, start, count)
        kept = max(min(count, file.num_samples - start), 0)
        audio = np.empty((self.num_channels, kept), np.float32)
        for channel, samples in enumerate(audio):
            offset = file.data_start + SAMPLE_BYTES * (channel * file.num_samples + start)
            found = np.fromfile(self.folder / DATA, dtype="<i2", count=kept, offset=offset)
            if len(found) < kept:
                raise ValueError(f"'{self.folder}' lost record {file.name} while it was read.")
            samples[:] = found
        return audio / np.float32(FULL_SCALE)

    def _pairs(self, file: BinaryIO) -> Iterator[tuple[bytes, Bytes]]:
        try:
            yield from pairs(file)
        except (ValueError, struct.error) as error:
            raise ValueError(
                f"Cannot read the database '{self.folder / DATA}' ({error}). Copy it again."
            ) from error

    def _stated(self) -> dict[str, int]:
        """Return the whole numbers of metadata.yaml, which older versions did not write."""
        path = self.folder / METADATA
        text = path.read_text() if path.is_file() else ""
        return {k: int(v) for k, v in re.findall(r"^(\w+):\s*(\d{1,9})\s*$", text, re.MULTILINE)}

    def _record(self, key: bytes, value: Bytes, stated: dict[str, int]) -> tuple[Record, int, int]:
        """Return a record, its sample rate and its number of channels."""
        name = key.decode(errors="backslashreplace")
        try:
            buffers, metadata = _example(value)
            if WAVEFORM in buffers:
                return _samples(name, value, *buffers[WAVEFORM])
            if b"path" in metadata:
                rate_hz = stated["sr"]
                num_samples = math.floor(float(metadata[b"length"]) * rate_hz)
                path = metadata[b"path"].decode()
                if num_samples < 1:
                    raise ValueError(f"'{path}' has no samples")
                return Record(path, num_samples, None), rate_hz, stated.get("channels", 1)
            raise ValueError("it has neither a waveform nor a path")
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(
                f"Record {name} of '{self.folder}' is not from acids-rave ({reason}). "
                "Preprocess the audio again."
            ) from error


def _samples(name: str, value: Bytes, start: int, stop: int) -> tuple[Record, int, int]:
    """Return the record of an AudioBuffer that lies at `start` to `stop` of the message."""
    shape: list[int] = []
    rate_hz = precision = 0
    data = (0, 0)
    for number, content in _fields(value, start, stop):
        if number == 1 and isinstance(content, tuple):
            shape += _packed(value, *content)
        elif number == 1 and isinstance(content, int):
            shape.append(content)
        elif number == 2 and isinstance(content, int):
            rate_hz = content
        elif number == 3 and isinstance(content, tuple):
            data = content
        elif number == 4 and isinstance(content, int):
            precision = content
    if precision != INT16:
        known = PRECISIONS[precision] if precision < len(PRECISIONS) else precision
        raise ValueError(f"its samples are {known}; only INT16 is written by `rave preprocess`")
    num_channels = shape[0] if len(shape) > 1 else 1
    num_samples, rest = divmod(data[1] - data[0], SAMPLE_BYTES * max(num_channels, 1))
    if num_channels < 1 or num_samples < 1 or rest:
        raise ValueError(f"{data[1] - data[0]} bytes are not samples of {num_channels} channels")
    return Record(name, num_samples, value.start + data[0]), rate_hz, num_channels


def _example(value: Bytes) -> tuple[dict[bytes, tuple[int, int]], dict[bytes, bytes]]:
    """Return where the buffers of an AudioExample lie, and its metadata."""
    buffers: dict[bytes, tuple[int, int]] = {}
    metadata: dict[bytes, bytes] = {}
    for number, content in _fields(value, 0, len(value)):
        if number not in (1, 2) or not isinstance(content, tuple):
            continue
        entry = dict(_fields(value, *content))
        key, place = entry.get(1, (0, 0)), entry.get(2, (0, 0))
        if not (isinstance(key, tuple) and isinstance(place, tuple)):
            raise ValueError("a map holds no bytes")
        if number == 1:
            buffers[value[slice(*key)]] = place
        else:
            metadata[value[slice(*key)]] = value[slice(*place)]
    return buffers, metadata


def _fields(value: Bytes, start: int, stop: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Yield number and content of each field: an integer, or where its bytes begin and end."""
    while start < stop:
        tag, start = _varint(value, start, stop)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            content, start = _varint(value, start, stop)
            yield number, content
            continue
        if wire_type == BYTES:
            length, start = _varint(value, start, stop)
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        else:
            raise ValueError(f"field {number} has wire type {wire_type}")
        if start + length > stop:
            raise ValueError(f"field {number} is cut off")
        yield number, (start, start + length)
        start += length


def _packed(value: Bytes, start: int, stop: int) -> Iterator[int]:
    while start < stop:
        number, start = _varint(value, start, stop)
        yield number


def _varint(value: Bytes, start: int, stop: int) -> tuple[int, int]:
    """Return the integer at `start`, and where it ends."""
    number = 0
    for shift in range(0, MAX_VARINT_BITS, 7):
        if start >= stop:
            raise ValueError("a number is cut off")
        byte = value[start : start + 1][0]
        number |= (byte & 0x7F) << shift
        start += 1
        if byte < 0x80:
            return number, start
    raise ValueError("a number is too long")


def open_audio(folder: Path) -> AudioStore:
    """Open audio to train on: a prepared folder, or an LMDB database of acids-rave.

    Raises:
        ValueError: If it is neither, or is damaged.
    """
    return UpstreamDatabase(folder) if is_database(folder) else PreparedAudio(folder)
