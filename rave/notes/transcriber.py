"""Float32Array → notes: basic-pitch's network, window by window.

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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import resources
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rave.audio.blocks import regroup
from rave.compute.arrays import Float32Array
from rave.notes.decoding import NOTE_THRESHOLD, find_notes
from rave.notes.note import LOWEST_PITCH, Note

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


@dataclass(frozen=True)
class Transcription:
    """The notes of one recording.

    Attributes:
        notes: By onset.
        sounding: (N, 11) uint8: for each frame which of the 88 pitches sound, 8 to a byte. A note
            also lasts over frames in which it is faint.
        duration_s: Duration of the recording.
    """

    notes: list[Note]
    sounding: NDArray[np.uint8]
    duration_s: float

    def part(self, start_s: float, stop_s: float) -> Transcription:
        """Return the notes that begin in a span of time, counted from its start."""
        notes = [
            replace(note, start_s=note.start_s - start_s, end_s=note.end_s - start_s)
            for note in self.notes
            if start_s <= note.start_s < stop_s
        ]
        sounding = self.sounding[_frame(start_s) : _frame(stop_s)]
        return Transcription(notes, sounding, max(min(stop_s, self.duration_s) - start_s, 0.0))

    @classmethod
    def joined(cls, parts: Sequence[Transcription], part_s: float) -> Transcription:
        """Return the transcription whose parts, `part_s` long but for the last, are these."""
        notes = [
            replace(note, start_s=note.start_s + k * part_s, end_s=note.end_s + k * part_s)
            for k, part in enumerate(parts)
            for note in part.notes
        ]
        sounding = np.concatenate([part.sounding for part in parts])
        return cls(notes, sounding, sum(part.duration_s for part in parts))


NOTHING = Transcription([], np.zeros((0, 11), np.uint8), 0.0)


class Transcriber:
    """Transcribes recordings of any length.

    Example:
        >>> notes = Transcriber().transcribe(AudioStream(Path("take.wav"), 22050, 1)).notes
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

    def transcribe(self, blocks: Iterable[Float32Array]) -> Transcription:
        """Return the notes of a recording.

        Args:
            blocks: (1, t) each, mono at 22,050 Hz.
        """
        sounding: list[NDArray[np.uint8]] = []
        num_samples = 0

        def counted() -> Iterator[Float32Array]:
            nonlocal num_samples
            for block in blocks:
                num_samples += block.shape[1]
                yield block

        def observed() -> Iterator[Float32Array]:
            for window in self.activations(counted()):
                sounding.append(np.packbits(window[0] >= NOTE_THRESHOLD, axis=1))
                yield window

        notes = [note for stretch in _stretches(observed()) for note in stretch]
        frames = np.concatenate([NOTHING.sounding, *sounding])
        return Transcription(notes, frames, num_samples / SAMPLE_RATE_HZ)

    def activations(self, blocks: Iterable[Float32Array]) -> Iterator[Float32Array]:
        """Yield for each window how surely pitches sound and begin, (2, n, 88), n = 142.

        The last has as many frames as begin within the recording.

        Args:
            blocks: (1, t) each, mono at 22,050 Hz.
        """
        windows = _windows(blocks)
        with ThreadPoolExecutor(self._num_threads) as pool:
            while batch := list(islice(windows, 4 * self._num_threads)):
                yield from pool.map(self._activations, *zip(*batch, strict=True))

    def _activations(self, audio: Float32Array, num_frames: int) -> Float32Array:
        outputs = self._session.run(OUTPUTS, {INPUT: audio[None, :, None]})
        kept = np.concatenate(outputs)[:, LEFT_OUT : LEFT_OUT + num_frames]
        return np.array(kept, dtype=np.float32)


def _stretches(windows: Iterator[Float32Array]) -> Iterator[list[Note]]:
    """Yield the notes that begin in each stretch of five minutes, by onset.

    Args:
        windows: What `Transcriber.activations` yields.
    """
    held: list[Float32Array] = []  # windows from `first` on
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
            # A note that still sounds at the end is followed further.
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


def _seconds(frame: int, first_window: int) -> float:
    """Return when a frame begins, counted from a window."""
    window, rest = divmod(frame, WINDOW_FRAMES)
    return ((first_window + window) * HOP_SAMPLES + rest * FRAME_SAMPLES) / SAMPLE_RATE_HZ


def _frame(seconds: float) -> int:
    """Return the first frame that begins at or after a time."""
    window, rest = divmod(round(seconds * SAMPLE_RATE_HZ), HOP_SAMPLES)
    return window * WINDOW_FRAMES + min(-(-rest // FRAME_SAMPLES), WINDOW_FRAMES)


def _windows(blocks: Iterable[Float32Array]) -> Iterator[tuple[Float32Array, int]]:
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
