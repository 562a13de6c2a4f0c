"""The windows of a file: divide it, compute parts in any number of processes, join them.

B batch, C audio channels or rows, T samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from rave.audio.blocks import from_sample
from rave.compute.arrays import Float32Array
from rave.files.atomic import atomic_write

WINDOW_FRAMES = 256


@dataclass(frozen=True)
class Part:
    """Windows `first` to `stop` of a file, `stop` itself left out; None: to the end."""

    first: int = 0
    stop: int | None = None


WHOLE = Part()


def parts(num_windows: int, num_parts: int) -> list[Part]:
    """Return parts of nearly equal size; the last one is open, as the number may be a guess."""
    bounds = [num_windows * index // num_parts for index in range(num_parts)]
    return [Part(*pair) for pair in zip(bounds, [*bounds[1:], None], strict=True)]


def audio_windows(
    blocks: Iterable[Float32Array],
    hop_samples: int,
    window_frames: int,
    left: int,
    right: int,
    part: Part = WHOLE,
) -> Iterator[tuple[Float32Array, int, int]]:
    """Cut one file's audio into overlapping windows of whole frames.

    Args:
        blocks: (C, t) each, from the beginning of the file.
        hop_samples: Samples per frame.
        window_frames: Frames kept per window.
        left: Frames of context before them, as far as the file has them.
        right: Frames of context after them, as far as the file has them.
        part: The windows to yield; they equal those of the whole file, sample by sample.

    Yields:
        Audio (C, t) of a window, its first kept frame, and the number of frames kept.
    """
    held: Float32Array | None = None
    first = part.first * window_frames
    held_from = max(first - left, 0)  # frames
    end = None if part.stop is None else part.stop * window_frames
    # None: the end of the file
    for block in chain(from_sample(blocks, held_from * hop_samples), [None]):
        if block is not None:
            held = block if held is None else np.concatenate([held, block], axis=1)
        while held is not None:
            if first == end:
                return
            stop = (first + window_frames + right - held_from) * hop_samples
            num_left = held_from + -(-held.shape[1] // hop_samples) - first
            if (block is not None and held.shape[1] < stop) or num_left < 1:
                break
            count = min(window_frames, num_left)
            yield held[:, :stop], first - held_from, count
            first += count
            kept_from = max(first - left, held_from)
            held = held[:, (kept_from - held_from) * hop_samples :]
            held_from = kept_from


def write_blocks(path: Path, blocks: Iterable[Float32Array]) -> None:
    """Write the blocks (C, n) of a part, whole or not at all, for `read_blocks`."""
    with atomic_write(path, is_durable=False) as temporary, temporary.open("wb") as file:
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype="<f4").tobytes())


def read_blocks(paths: Sequence[Path], num_rows: int, num_columns: int) -> Iterator[Float32Array]:
    """Yield the blocks of all parts as they were written.

    Args:
        paths: Path of the parts, in order.
        num_rows: C.
        num_columns: n of every block but the last of the file.
    """
    for path in paths:
        with path.open("rb") as file:
            while content := file.read(4 * num_rows * num_columns):
                yield np.frombuffer(content, "<f4").reshape(num_rows, -1)
