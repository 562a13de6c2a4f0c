"""Audio → notes: basic-pitch's network, window by window.

T samples at 22,050 Hz, N frames, 88 pitches.

    audio     ···|─── 36,164 samples ───|─── 36,164 ───|···
    window k    [15 frames|── 142 frames ──|15 frames]        of 256 samples each, 43,844 in all
    window k + 1                       [15|── 142 frames ──|15]

Notes are found in stretches of five minutes, each with half a minute on both sides, so that memory
does not grow with the recording.

Weights of ICASSP 2022 (rave/weights, Apache-2.0, licence beside them). Source: Bittner et al. 2022,
arXiv:2203.09893; https://github.com/spotify/basic-pitch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rave.audio.blocks import regroup
from rave.notes.decoding import find_notes
from rave.notes.note import LOWEST_PITCH, Note

Audio = NDArray[np.float32]

SAMPLE_RATE_HZ, FRAME_SAMPLES, NUM_PITCHES = 22050, 256, 88
WINDOW_SAMPLES, OVERLAP_SAMPLES = 43844, 30 * FRAME_SAMPLES
HOP_SAMPLES = WINDOW_SAMPLES - OVERLAP_SAMPLES
LEFT_OUT = 15  # frames at each end of a window
WINDOW_FRAMES = 142  # that are kept of one
# Windows of a stretch of five minutes, and of the half minute on each side of it.
STRETCH, MARGIN = 183, 18
INPUT, OUTPUTS = (
    "serving_default_input_2:0",
    ["StatefulPartitionedCall:1", "StatefulPartitionedCall:2"],
)


class Transcriber:
    """Hears notes.

    Example:
        >>> notes = Transcriber().transcribe(AudioStream(Path("take.wav"), 22050, 1))
    """

    def __init__(self) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        # Windows are computed side by side; each on one thread gives the same on any machine.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        weights = resources.files("rave") / "weights" / "basic-pitch.onnx"
        self._session = onnxruntime.InferenceSession(
            weights.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._num_threads = os.cpu_count() or 1

    def transcribe(self, blocks: Iterable[Audio]) -> list[Note]:
        """Return the notes of a recording, by onset.

        Args:
            blocks: (1, t) each, mono at 22,050 Hz.
        """
        return [note for stretch in self.stretches(blocks) for note in stretch]

    def stretches(self, blocks: Iterable[Audio]) -> Iterator[list[Note]]:
        """Yield the notes that begin in each stretch of five minutes, by onset.

        Args:
            blocks: (1, t) each, mono at 22,050 Hz.
        """
        windows = self.activations(blocks)
        held: list[NDArray[np.float32]] = []  # activations of windows from `first` on
        first = start = 0
        is_end = False
        while not is_end or start < first + len(held):
            wanted = start + STRETCH + MARGIN - first - len(held)
            new = list(islice(windows, max(wanted, 0)))
            is_end = is_end or len(new) < wanted
            held += new
            if not held:
                return
            while True:
                notes, onsets = np.concatenate(held, axis=1)
                spans = [
                    span
                    for span in find_notes(notes, onsets)
                    if 0 <= span.start - (start - first) * WINDOW_FRAMES < STRETCH * WINDOW_FRAMES
                ]
                # What still sounds at the end is followed further.
                is_cut = any(span.stop >= len(notes) - WINDOW_FRAMES for span in spans)
                new = [] if is_end or not is_cut else list(islice(windows, STRETCH))
                if not new:
                    break
                held += new
            yield [
                Note(
                    _seconds(span.start, first),
                    _seconds(span.stop, first),
                    LOWEST_PITCH + span.pitch,
                    min(span.strength, 1.0),
                )
                for span in spans
            ]
            start += STRETCH
            dropped = max(start - MARGIN - first, 0)
            held, first = held[dropped:], first + dropped

    def activations(self, blocks: Iterable[Audio]) -> Iterator[NDArray[np.float32]]:
        """Yield for each window how surely pitches sound and begin, (2, n, 88), n = 142.

        The last has as many frames as begin within the recording.

        Args:
            blocks: (1, t) each, mono at 22,050 Hz.
        """
        windows = _windows(blocks)
        with ThreadPoolExecutor(self._num_threads) as pool:
            while batch := list(islice(windows, 4 * self._num_threads)):
                yield from pool.map(self._activations, *zip(*batch, strict=True))

    def _activations(self, audio: Audio, num_frames: int) -> NDArray[np.float32]:
        outputs = self._session.run(OUTPUTS, {INPUT: audio[None, :, None]})
        kept = np.concatenate(outputs)[:, LEFT_OUT : LEFT_OUT + num_frames]
        return np.array(kept, dtype=np.float32)


def _seconds(frame: int, first_window: int) -> float:
    """Return when a frame begins, counted from a window."""
    window, rest = divmod(frame, WINDOW_FRAMES)
    return ((first_window + window) * HOP_SAMPLES + rest * FRAME_SAMPLES) / SAMPLE_RATE_HZ


def _windows(blocks: Iterable[Audio]) -> Iterator[tuple[Audio, int]]:
    """Yield windows of audio (43844,), and how many frames of each begin within the recording."""
    held = np.zeros(OVERLAP_SAMPLES // 2, dtype=np.float32)
    for block in regroup(blocks, HOP_SAMPLES):
        held = np.concatenate([held, block[0]])
        while len(held) >= WINDOW_SAMPLES:
            yield held[:WINDOW_SAMPLES], WINDOW_FRAMES
            held = held[HOP_SAMPLES:]
    while (num_samples := len(held) - OVERLAP_SAMPLES // 2) > 0:
        num_frames = min(-(-num_samples // FRAME_SAMPLES), WINDOW_FRAMES)
        audio = np.zeros(WINDOW_SAMPLES, dtype=np.float32)
        audio[: len(held)] = held[:WINDOW_SAMPLES]
        yield audio, num_frames
        held = held[HOP_SAMPLES:]
