"""A stream of audio cut into overlapping windows, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def centred_windows(
    audio: Iterable[Array],
    hop_samples: int,
    window_samples: int,
    num_windows: int,
    block_windows: int,
) -> Iterator[Array]:
    """Yield windows of audio, window i centred on sample (i + 1/2)·hop.

    So window i lies in the middle of the samples i·hop to (i + 1)·hop. Before its start and after
    its end the audio is silent. How the audio is divided into blocks makes no difference.

    Args:
        audio: Blocks of mono samples, (n,) each.
        hop_samples: Between windows.
        window_samples: Of each window.
        num_windows: In total; the audio is cut, or continued as silence, to fit.
        block_windows: At most so many windows at a time.

    Yields:
        (windows, window_samples), a view of the samples that are held.
    """
    before = window_samples // 2 - hop_samples // 2
    # Window i reads samples i·hop - before to i·hop - before + window; `held` starts there.
    held = np.zeros(max(before, 0), dtype=np.float32)
    num_to_drop = max(-before, 0)
    source = iter(audio)
    done = 0
    while done < num_windows:
        count = min(block_windows, num_windows - done)
        needed = (count - 1) * hop_samples + window_samples
        parts, num_held = [held], len(held)
        while num_held < needed + num_to_drop:
            part = next(source, None)
            part = np.zeros(needed + num_to_drop, np.float32) if part is None else part
            parts.append(part)
            num_held += len(part)
        held = np.concatenate(parts)[num_to_drop:]
        windows = np.lib.stride_tricks.sliding_window_view(held[:needed], window_samples)
        yield windows[::hop_samples]
        num_to_drop = max(count * hop_samples - len(held), 0)
        held = held[count * hop_samples :]
        done += count


def hann_window(num_samples: int) -> NDArray[np.float64]:
    """Return a periodic Hann window of power 1."""
    window = np.hanning(num_samples + 1)[:-1]
    return np.asarray(window / np.sqrt(np.square(window).sum()))
