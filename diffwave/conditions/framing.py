"""Cut a stream of audio into overlapping windows, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from rave.compute.arrays import Float32Array, Float64Array


def centred_windows(
    audio: Iterable[Float32Array],
    hop_samples: int,
    window_samples: int,
    num_windows: int,
    block_windows: int,
) -> Iterator[Float32Array]:
    """Yield windows of audio, window i centred on sample (i + 1/2)·hop.

    So the centre of window i is the middle of samples i·hop to (i + 1)·hop. The audio counts as
    silent before its start and after its end. The division into blocks does not change the result.

    Args:
        audio: Blocks of mono samples, (n,) each.
        hop_samples: Samples from one window to the next.
        window_samples: Length of a window in samples.
        num_windows: Total number of windows; the audio is cut or padded with silence to fit.
        block_windows: Largest number of windows per block.

    Yields:
        (windows, window_samples), a view of a buffer.
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


def hann_window(num_samples: int) -> Float64Array:
    """Return a periodic Hann window of power 1."""
    window = np.hanning(num_samples + 1)[:-1]
    return np.asarray(window / np.sqrt(np.square(window).sum()))
