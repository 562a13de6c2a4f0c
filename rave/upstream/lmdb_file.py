"""Read the pairs of a data.mdb of LMDB 0.9 as a file, so that damage raises an error.

The library trusts the file: a page number beyond its end accesses memory outside it, which ends the
process. Only the main database of 64-bit little-endian machines is read.

Source: the structures MDB_meta, MDB_page and MDB_node of LMDB 0.9, github.com/LMDB/lmdb.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

MAGIC, VERSION = 0xBEEFC0DE, 1
META = struct.Struct("<II8x8x48x4xHH8x8x8x8xQQQ")  # mm_dbs[0] is of the free pages
PAGE_SIZE = struct.Struct("<I")  # of the first of mm_dbs
PAGE_SIZE_AT, META_AT = 16 + 24, 16
PAGE = struct.Struct("<Q2xHHH")
NODE = struct.Struct("<HHHH")
BRANCH, LEAF, OVERFLOW, DIRTY = 1, 2, 4, 16
BIG_DATA = 1
NO_PAGE = 2**64 - 1
SMALLEST_PAGE, LARGEST_PAGE = 2**8, 2**16
MAX_DEPTH = 32  # LMDB's own


class Bytes:
    """A part of a file, read on access.

    Args:
        file: Open file.
        start: First byte of the part.
        size: Size of the part, in bytes.
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self.start, self._size = file, start, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        """Return bytes `part.start` to `part.stop`."""
        self._file.seek(self.start + part.start)
        return self._file.read(min(part.stop, self._size) - part.start)


def pairs(file: BinaryIO) -> Iterator[tuple[bytes, Bytes]]:
    """Yield keys and values, in the order of keys.

    Raises:
        ValueError: If the file is not an LMDB file, cut off or damaged.
    """
    size = os.fstat(file.fileno()).st_size
    page_size = PAGE_SIZE.unpack(_read(file, PAGE_SIZE_AT, PAGE_SIZE.size))[0]
    if not SMALLEST_PAGE <= page_size <= LARGEST_PAGE or page_size & (page_size - 1):
        raise ValueError("it is not an LMDB file")
    metas = []
    for number in (0, 1):
        meta = META.unpack(_read(file, number * page_size + META_AT, META.size))
        if meta[:2] != (MAGIC, VERSION):
            raise ValueError("it is not an LMDB 0.9 file")
        metas.append(meta[2:])
    flags, depth, root, last_page, _ = max(metas, key=lambda meta: meta[-1])
    if flags or depth > MAX_DEPTH:
        raise ValueError("its main database is of a kind that acids-rave does not write")
    if (last_page + 1) * page_size > size:
        raise ValueError(f"it is cut off: {size} of {(last_page + 1) * page_size} bytes")
    if root != NO_PAGE:
        yield from _below(file, root, page_size, depth, [size])


def _below(
    file: BinaryIO, number: int, page_size: int, depth: int, left: list[int]
) -> Iterator[tuple[bytes, Bytes]]:
    """Yield the pairs of a page and of those below it.

    Args:
        file: Open file.
        number: Number of the page.
        page_size: Page size in bytes.
        depth: Number of levels from this page down.
        left: Bytes that pages and values may still have together: none is there twice.
    """
    page = _read(file, number * page_size, page_size)
    found, flags, lower, _ = PAGE.unpack_from(page)
    kind = LEAF if depth == 1 else BRANCH
    _take(left, page_size)
    if found != number or flags & ~DIRTY != kind or lower > page_size:
        raise ValueError(f"page {number} is damaged")
    for at in struct.unpack_from(f"<{(lower - PAGE.size) // 2}H", page, PAGE.size):
        low, high, flags, key_size = NODE.unpack_from(page, at)
        key_at = at + NODE.size
        key = page[key_at : key_at + key_size]
        if kind == BRANCH:
            child = low | high << 16 | flags << 32
            yield from _below(file, child, page_size, depth - 1, left)
            continue
        size, start = low | high << 16, key_at + key_size
        if flags not in (0, BIG_DATA) or start + (8 if flags else size) > page_size:
            raise ValueError(f"page {number} is damaged")
        if flags:
            _take(left, size)
            overflow = int.from_bytes(page[start : start + 8], "little")
            _check_overflow(file, overflow, page_size, size)
            yield key, Bytes(file, overflow * page_size + PAGE.size, size)
        else:
            yield key, Bytes(file, number * page_size + start, size)


def _check_overflow(file: BinaryIO, number: int, page_size: int, size: int) -> None:
    found, flags, low, high = PAGE.unpack(_read(file, number * page_size, PAGE.size))
    num_pages = low | high << 16
    end = number * page_size + PAGE.size + size
    if found != number or flags & ~DIRTY != OVERFLOW or PAGE.size + size > num_pages * page_size:
        raise ValueError(f"page {number} is damaged")
    _read(file, end - 1, 1)


def _take(left: list[int], count: int) -> None:
    left[0] -= count
    if left[0] < 0:
        raise ValueError("its pages and values add up to more than it holds")


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    if start + count > os.fstat(file.fileno()).st_size:
        raise ValueError("it is cut off, or a page lies beyond its end")
    file.seek(start)
    return file.read(count)
