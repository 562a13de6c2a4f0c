"""Find the audio in chunked files (WAV, RF64, Wave64, AIFF, CAF, AU), also if sizes are wrong.

Recorders that are stopped leave a size of 0 or of all ones, a 32-bit size wraps around beyond
4 GiB, and other chunks, tags or zeros follow the audio.

Source: EBU Tech 3306 (RF64), and the public descriptions of WAV, Wave64, AIFF, AU and CAF.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rave.files.errors import SkipFile

# Some programs write a size that is off by the header itself.
HEADER_SLACK_BYTES = 64
# A writer that does not know the length writes a size near a multiple of 2**31, less its header.
MARK_SLACK_BYTES = 4096
MARK_BYTES = 2**31 - MARK_SLACK_BYTES
# A size that exceeds both the file and this is not a number of bytes.
UNKNOWN_BYTES = {"I": MARK_BYTES, "Q": 2**62}
# More unexplained bytes than this may be music; fewer are left out, which is reported.
STRAY_BYTES = 65536
MAX_HEADER_BYTES = 2**26
MAX_SIZE_32_BITS = 2**32 - 1
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
_W64_ID = b"\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a"  # behind the four letters
_W64_IDS = (_W64_ID, b"\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0")


class AudioError(SkipFile):
    """An audio file cannot be used; the message states which, why, and what to do."""


@dataclass(frozen=True)
class _Kind:
    """How a family of files writes chunks: an id, a size, content."""

    order: str = "<"
    id_bytes: int = 4
    code: str = "I"  # of sizes
    head_bytes: int = 12  # before the first chunk
    audio_id: bytes = b"data"
    align: int = 2
    size_counts_head: bool = False
    empty_bytes: int = 0  # of an audio chunk without samples


_KINDS = {
    b"RIFF": (b"WAVE", _Kind()),
    b"RF64": (b"WAVE", _Kind()),
    b"BW64": (b"WAVE", _Kind()),
    b"RIFX": (b"WAVE", _Kind(">")),
    b"FORM": (b"AIF", _Kind(">", audio_id=b"SSND", empty_bytes=8)),
    b"riff": (_W64_IDS[1][3:7], _Kind("<", 16, "Q", 40, b"data" + _W64_ID, 8, True)),
    b"caff": (b"", _Kind(">", 4, "Q", 8, align=1, empty_bytes=4)),
    b".snd": (b"", _Kind(">")),
}


@dataclass(frozen=True)
class Part:
    """Ranges of a file that read as a file of its own.

    Attributes:
        path: The file.
        ranges: First byte of each range, and the one after its last.
        header: Bytes that are read before the ranges.
        is_plain: Whether libsndfile may read it: a format of its own, or undamaged Ogg.
        note: Note for the user; empty if there is none.
    """

    path: Path
    ranges: tuple[tuple[int, int], ...]
    header: bytes = b""
    is_plain: bool = False
    note: str = ""

    @property
    def num_bytes(self) -> int:
        """Return how many bytes it has."""
        return len(self.header) + sum(stop - start for start, stop in self.ranges)


@dataclass(frozen=True)
class _Sound:
    """The chunk of a file's audio.

    Attributes:
        data: Where its bytes begin.
        declared: Their number, as the header states it.
        field: Where the header states it, as `code`.
        code: Struct code of that field.
    """

    data: int
    declared: int
    field: int
    code: str


def _kind(beginning: bytes) -> _Kind | None:
    form, kind = _KINDS.get(beginning[:4], (None, None))
    return kind if form is not None and beginning[8:].startswith(form) else None


def begins_file(beginning: bytes) -> bool:
    """Return whether these 12 bytes begin an audio file, and nothing else."""
    known = beginning[:4] in (b"OggS", b"fLaC") or beginning[4:8] == b"ftyp"
    return known or is_chunked(beginning)


def is_chunked(beginning: bytes) -> bool:
    """Return whether these 12 bytes begin a file in chunks."""
    return _kind(beginning) is not None


def read_at(file: BinaryIO, place: int, count: int) -> bytes:
    """Return bytes of a file from a place on, fewer at its end."""
    file.seek(place)
    return file.read(count)


def chunked_part(path: Path, file: BinaryIO, start: int, size: int) -> tuple[Part, int]:
    """Return the part that begins at `start`, and where the next begins, or the file ends.

    Raises:
        AudioError: If bytes are missing, or too many are there.
    """
    beginning = read_at(file, start, 12)
    kind = _kind(beginning)
    sound = kind and _find_sound(file, beginning[:4], kind, start, size)
    if not (kind and sound):  # the decoder will report what it is
        return Part(path, ((start, size),), is_plain=True), size
    stop, end, note = _audio_end(path, file, kind, sound, size)
    # Content after the audio may be needed in AIFF and CAF, and is read as audio in Wave64.
    last = end if kind.audio_id == b"SSND" or beginning.startswith(b"caff") else stop
    header, count = b"", stop - sound.data
    if count != sound.declared:
        header = _rewritten(path, file, kind, sound, start, count)
    first = sound.data if header else start
    return Part(path, ((first, last),), header, is_plain=True, note=note), end


def _find_sound(file: BinaryIO, magic: bytes, kind: _Kind, start: int, size: int) -> _Sound | None:
    if magic == b".snd":
        offset, declared = struct.unpack(">II", read_at(file, start + 4, 8).ljust(8, b"\0"))
        return _Sound(start + offset, declared, start + 8, "I") if start + offset <= size else None
    place, long_field = start + kind.head_bytes, None
    while chunk := _chunk(file, kind, place):
        name, data, count = chunk
        if name == b"ds64":  # the sizes of RF64
            long_field = data + 8
        if name == kind.audio_id and data <= size:
            if long_field and count == MAX_SIZE_32_BITS:
                (count,) = struct.unpack("<Q", read_at(file, long_field, 8).ljust(8, b"\0"))
                return _Sound(data, count, long_field, "Q")
            return _Sound(data, count, data - struct.calcsize(kind.code), kind.code)
        place = _aligned(data + count, place, kind)
        if place >= size:
            break
    return None


def _chunk(file: BinaryIO, kind: _Kind, place: int) -> tuple[bytes, int, int] | None:
    """Return id, beginning of the content, and size of a chunk; None: it is none."""
    width = kind.id_bytes + struct.calcsize(kind.code)
    head = read_at(file, place, width)
    name = head[: kind.id_bytes]
    if len(head) < width or not re.match(rb"[ -~]{4}", name):
        return None
    if kind.id_bytes > 4 and not name.endswith(_W64_IDS):
        return None
    (count,) = struct.unpack(kind.order + kind.code, head[kind.id_bytes :])
    return name, place + width, max(count - width, 0) if kind.size_counts_head else count


def _aligned(end: int, start: int, kind: _Kind) -> int:
    """Return where the next chunk begins, after one with this start and end."""
    return end + (start - end) % kind.align


def _audio_end(
    path: Path, file: BinaryIO, kind: _Kind, sound: _Sound, size: int
) -> tuple[int, int, str]:
    """Return where the audio ends, where the next part begins (or the file ends), and a note."""
    present, declared = size - sound.data, sound.declared
    if declared > present:
        if present + HEADER_SLACK_BYTES < declared < UNKNOWN_BYTES[sound.code]:
            raise cut_off(path, f"it holds {present} of {declared} bytes of audio")
        return size, size, ""
    # A 32-bit size may have wrapped around several times.
    step = 2**32 if sound.code == "I" else present + 1
    for may_be_padded in (False, True):
        for stop in range(sound.data + declared, size + 1, step):
            for place in sorted({stop, _aligned(stop, sound.data, kind)}, reverse=True):
                end = _explained_end(path, file, kind, place, size, may_be_padded)
                if end is not None:
                    return stop, end, ""
        # The recorder was stopped before it wrote the size, or never knew it.
        if declared <= kind.empty_bytes or _is_mark(declared):
            return size, size, ""
    figures = f"states {declared} bytes of audio, but holds {present}"
    if present - declared > STRAY_BYTES:
        raise AudioError(
            f"'{path.name}' {figures}; the rest may be music. Save it again in an audio editor "
            "that reads to the end of the file, and keep this file until you have checked it."
        )
    return sound.data + declared, size, f"'{path.name}' {figures}: the rest was not read."


def _is_mark(declared: int) -> bool:
    """Return whether a size stands for an unknown one: all bits set, or all but one."""
    return declared >= MARK_BYTES and (declared + MARK_SLACK_BYTES) % 2**31 <= 2 * MARK_SLACK_BYTES


def _explained_end(
    path: Path, file: BinaryIO, kind: _Kind, place: int, size: int, may_be_padded: bool
) -> int | None:
    """Return where the next part begins or the file ends, if no audio lies before it."""
    while size - place >= 8:
        beginning = read_at(file, place, 12)
        if beginning.startswith(TAGS):
            return size
        if begins_file(beginning):
            return place
        chunk = _chunk(file, kind, place)
        if chunk and chunk[1] + chunk[2] <= size:
            name, data, count = chunk
            if name == kind.audio_id and count > kind.empty_bytes:
                raise AudioError(
                    f"'{path.name}' holds audio in two places, the second at byte {place}; only "
                    "the first can be read. Save it again in an audio editor."
                )
            place = _aligned(data + count, place, kind)
        else:
            return size if may_be_padded and _is_zero(file, place) else None
    return size


def _is_zero(file: BinaryIO, place: int) -> bool:
    """Return whether nothing but zeros follows."""
    file.seek(place)
    blocks = iter(lambda: file.read(2**20), b"")
    return all(block.count(0) == len(block) for block in blocks)


def _rewritten(
    path: Path, file: BinaryIO, kind: _Kind, sound: _Sound, start: int, count: int
) -> bytes:
    """Return the bytes before the audio, with its size set to `count` bytes."""
    header = bytearray(read_at(file, start, min(sound.data - start, MAX_HEADER_BYTES)))
    is_long = sound.code == "I" and count > MAX_SIZE_32_BITS
    if len(header) < sound.data - start or (is_long and not header.startswith(b"RIFF")):
        raise AudioError(
            f"'{path.name}' states {sound.declared} bytes of audio, but holds {count}, and its "
            "header cannot be corrected. Save it as WAV in an audio editor."
        )
    if is_long:
        long = b"ds64" + struct.pack("<IQQQI", 28, count + len(header), count, 0, 0)
        return b"RF64\xff\xff\xff\xffWAVE" + long + bytes(header[12:-4]) + b"\xff\xff\xff\xff"
    stored = count + (24 if kind.size_counts_head else 0)
    struct.pack_into(kind.order + sound.code, header, sound.field - start, stored)
    return bytes(header)


def cut_off(path: Path, found: str) -> AudioError:
    """Return the error of a file that holds less than it states."""
    return AudioError(f"'{path.name}' is cut off: {found}. Copy it again, or repair it.")
