"""Find the audio in a file: files with several parts, damaged pages, wrong sizes.

Each `Part` reads as the file that its writer intended.

Source: RFC 3533 (Ogg), RFC 9639 (FLAC), ISO/IEC 14496-12 (the box that begins MP4).
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from rave.audio.chunks import TAGS, Part, begins_file, chunked_part, is_chunked, read_at

# First bytes of a file that was appended to another.
_BEGINNINGS = (
    rb"fLaC[\x00\x80]\0\0\x22|RIFF.{4}WAVEfmt |\0\0\0.ftyp|FORM.{4}AIF[FC]|"
    rb"riff\x2e\x91\xcf\x11|caff\0\x01\0\0desc|\.snd\0\0\0[\x18-\x40]"
)
_BEGINNING = re.compile(rb"OggS\0[\x02\x06]\0{8}|" + _BEGINNINGS, re.DOTALL)
_PAGE_OR_BEGINNING = re.compile(rb"OggS\0|" + _BEGINNINGS, re.DOTALL)
# Words in them, and the bytes before each.
_WORDS = {
    b"OggS": 0, b"fLaC": 0, b"WAVEfmt ": 8, b"ftyp": 4, b"FORM": 0, b"riff\x2e": 0, b"caff\0": 0,
    b".snd\0\0\0": 0,
}  # fmt: skip
_BEGINNING_BYTES = 15  # their largest length, less one
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# More bytes than this after the audio are reported, unless they are tags.
QUIET_BYTES = 4096
NUM_PLACES_NAMED = 5


@dataclass
class Findings:
    """Findings about a file from its decoding.

    Attributes:
        layout: Position of each channel (FL, FR, FC, LFE ...) in the last block; empty if the file
            does not state them.
        notes: Other notes for the user, one sentence each.
        damage: Where samples are missing or undecodable: the second, and the seconds of silence
            that replace them.
        averaged: Numbers of channels of unknown layout, which were averaged.
    """

    layout: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    damage: list[tuple[float, float]] = field(default_factory=list)
    averaged: set[int] = field(default_factory=set)

    def sentences(self, path: Path) -> list[str]:
        """Return the notes for the user about a file, as far as it was decoded."""
        unknown = [
            f"'{path.name}' does not state the layout of its {count} channels: all were averaged."
            for count in sorted(self.averaged)
        ]
        return [*self.notes, *self._on_damage(path), *unknown]

    def _on_damage(self, path: Path) -> list[str]:
        if not self.damage:
            return []
        num_more = len(self.damage) - NUM_PLACES_NAMED
        places = ", ".join(f"{second:.2f} s" for second, _ in self.damage[:NUM_PLACES_NAMED])
        more = f" and {num_more} more" if num_more > 0 else ""
        silence_s = sum(seconds for _, seconds in self.damage)
        return [
            f"'{path.name}' is damaged in {len(self.damage)} place(s), at {places}{more}. "
            f"Undecodable parts are replaced by silence ({silence_s:.2f} s), or left out if their "
            "length is unknown."
        ]


class PartFile(io.RawIOBase):
    """A `Part` as a binary file to read."""

    def __init__(self, part: Part) -> None:
        self._part, self._place = part, 0
        self._file = part.path.open("rb")

    def readable(self) -> bool:
        """Return True."""
        return True

    seekable = readable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; `whence` is as in `io`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._part.num_bytes}
        self._place = max(base[whence] + offset, 0)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into the buffer, or a part of it; return the number of bytes."""
        content = self._part.header[self._place :][: len(buffer)]
        place = self._place - len(self._part.header)
        for start, stop in self._part.ranges if not content else ():
            if 0 <= place < stop - start:
                content = self._read(start + place, min(len(buffer), stop - start - place))
                break
            place -= stop - start
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)

    def _read(self, place: int, count: int) -> bytes:
        try:
            return read_at(self._file, place, count)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._part.path)) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def find_parts(path: Path) -> tuple[Part, ...]:
    """Return the parts of a file, in order; one for nearly every file.

    Raises:
        AudioError: If bytes are missing, or so many bytes are unexplained that they may be music.
    """
    status = path.stat()
    return _find_parts(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)  # a lazy database reads the same files many times
def _find_parts(path: Path, size: int, _mtime_ns: int) -> tuple[Part, ...]:
    parts: list[Part] = []
    with path.open("rb") as file:
        first = _behind_id3(file)
        place = first if begins_file(read_at(file, first, 12)) else 0
        while place < size:
            beginning = read_at(file, place, 12)
            if is_chunked(beginning):
                part, place = chunked_part(path, file, place, size)
            elif beginning.startswith(b"OggS"):
                part, place = _ogg_part(path, file, place, size)
            else:
                end = size
                if begins_file(beginning) or _is_mpeg(beginning):
                    end = next(_places(file, max(place + 1, first), _BEGINNING), size)
                part, place = Part(path, ((place, end),)), end
            parts.append(part)
    return tuple(parts)


def _is_mpeg(beginning: bytes) -> bool:
    """Return whether frames without a container (mp3, AAC), or their tag, begin here."""
    return beginning.startswith(b"ID3") or (beginning[0] == 0xFF and beginning[1:2] >= b"\xe0")


def _behind_id3(file: BinaryIO) -> int:
    """Return where a file begins after an ID3v2 tag."""
    head = read_at(file, 0, 10)
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    return 10 + sum(
        (byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
    )


def _places(file: BinaryIO, start: int, pattern: re.Pattern[bytes]) -> Iterator[int]:
    """Yield where a pattern is found."""
    held, base = b"", start
    while block := read_at(file, base + len(held), 2**20):
        held += block
        found = {
            place - before
            for word, before in _WORDS.items()
            for place in _finds(held, word)
            if place >= before and pattern.match(held, place - before)
        }
        yield from (base + place for place in sorted(found))
        base, held = base + max(len(held) - _BEGINNING_BYTES, 0), held[-_BEGINNING_BYTES:]


def _finds(held: bytes, word: bytes) -> Iterator[int]:
    place = held.find(word)
    while place >= 0:
        yield place
        place = held.find(word, place + 1)


def _ogg_part(path: Path, file: BinaryIO, start: int, size: int) -> tuple[Part, int]:
    """Return a part of an Ogg file, and where the next begins, or the file ends.

    A part begins with the first pages of its streams. Only undamaged pages belong to it.
    """
    place, stop, was_first, note = start, start, True, ""
    ranges: list[tuple[int, int]] = []
    numbers: dict[bytes, int] = {}  # of the last page of each stream
    is_whole = True
    while place < size:
        page = _ogg_page(file, place)
        if page is None:
            is_page = read_at(file, place, 4) == b"OggS"  # and damaged
            place = next(_places(file, place + is_page, _PAGE_OR_BEGINNING), size)
            if place < size and read_at(file, place, 4) != b"OggS":
                break
            continue
        serial, number, is_first = page[14:18], int.from_bytes(page[18:22], "little"), page[5] & 2
        if is_first and not was_first:
            break
        is_whole &= place == stop and number == numbers.get(serial, number - 1) + 1
        numbers[serial], was_first, stop = number, bool(is_first), place + len(page)
        if ranges and ranges[-1][1] == place:
            place = ranges.pop()[0]
        ranges.append((place, stop))
        place = stop
    rest = read_at(file, stop, 12)
    is_cut = rest.startswith(b"OggS") or size - stop > QUIET_BYTES
    if place == size and is_cut and not rest.startswith(TAGS):
        note = f"'{path.name}' ends with {size - stop} bytes that cannot be decoded."
    return Part(path, tuple(ranges) or ((start, place),), is_plain=is_whole, note=note), place


def _ogg_page(file: BinaryIO, place: int) -> bytes | None:
    """Return a page whose checksum is right."""
    head = read_at(file, place, 27)
    if len(head) < 27 or not head.startswith(b"OggS"):
        return None
    segments = file.read(head[26])
    page = head + segments + file.read(sum(segments))
    # The checksum of Ogg is that of zlib with the order of bits reversed, and begins with 0.
    unsigned = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED_BITS)
    reversed_sum = zlib.crc32(unsigned, 0xFFFFFFFF) ^ 0xFFFFFFFF
    found = int(f"{reversed_sum:032b}"[::-1], 2)
    return page if found == int.from_bytes(page[22:26], "little") else None
