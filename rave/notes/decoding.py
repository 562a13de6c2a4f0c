"""Activations of a transcription network → notes.

N frames, P pitches.

Source: Bittner et al. 2022, "A Lightweight Instrument-Agnostic Model for Polyphonic Note
Transcription", arXiv:2203.09893, section 2.3; thresholds and durations are those of its package.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.signal import argrelmax

from rave.compute.arrays import Float32Array

ONSET_THRESHOLD, NOTE_THRESHOLD = 0.5, 0.3
# A note lasts more frames than this (128 ms), and ends once it was faint for as many.
SHORTEST_FRAMES = FAINT_FRAMES = 11
# Frames over which the activation of a note rises where the network missed its onset.
RISE_FRAMES = 2


class Span(NamedTuple):
    """A note in frames: from `start` to before `stop`, the column `pitch`, its mean activation."""

    start: int
    stop: int
    pitch: int
    strength: float


def find_notes(notes: Float32Array, onsets: Float32Array) -> list[Span]:
    """Return the notes that activations show, by onset.

    First each onset, the last one first, becomes a note that lasts until its pitch is faint. Then
    the strongest activation that no note has explained becomes one, until all are explained.

    Args:
        notes: (N, P) in [0, 1], how surely a pitch sounds.
        onsets: (N, P) in [0, 1], how surely a note begins.
    """
    if len(notes) < 2:
        return []
    unexplained = notes.copy()
    found: list[Span] = []

    def add(start: int, stop: int, pitch: int) -> None:
        strength = float(notes[start:stop, pitch].mean())
        found.append(Span(start, stop, pitch, strength))

    def explain(start: int, stop: int, pitch: int) -> None:
        unexplained[start:stop, max(pitch - 1, 0) : pitch + 2] = 0

    peaks = with_rises(notes, onsets)
    is_peak = np.zeros(peaks.shape, dtype=bool)
    is_peak[argrelmax(peaks, axis=0)] = True
    starts = np.argwhere(is_peak & (peaks >= ONSET_THRESHOLD))
    for start, pitch in starts[::-1].tolist():
        stop = start + 1 + _reach(unexplained[start + 1 : -1, pitch])[0]
        if stop - start > SHORTEST_FRAMES:
            explain(start, stop, pitch)
            add(start, stop, pitch)
    strong = np.flatnonzero(unexplained > NOTE_THRESHOLD)
    order = np.argsort(-unexplained.ravel()[strong], kind="stable")
    for place in strong[order].tolist():
        middle, pitch = divmod(place, notes.shape[1])
        if unexplained[middle, pitch] == 0:
            continue
        unexplained[middle, pitch] = 0
        after, faint_after = _reach(unexplained[middle + 1 : -1, pitch])
        explain(middle + 1, middle + 1 + after + faint_after, pitch)
        before, faint_before = _reach(unexplained[1:middle, pitch][::-1])
        explain(middle - before - faint_before, middle, pitch)
        if after + before > SHORTEST_FRAMES:
            add(middle - before, middle + after, pitch)
    return sorted(found)


def _reach(activations: Float32Array) -> tuple[int, int]:
    """Return how many frames a note lasts, and how many faint ones after it were looked at."""
    size = 256
    while True:
        part = activations[:size]
        loud = np.flatnonzero(part >= NOTE_THRESHOLD)
        edges = np.concatenate([[-1], loud, [len(part)]])
        gaps = np.diff(edges) - 1
        long = np.flatnonzero(gaps >= FAINT_FRAMES)
        if len(long):
            return int(edges[long[0]]) + 1, FAINT_FRAMES
        if size >= len(activations):
            return int(edges[-2]) + 1, int(gaps[-1])
        size *= 4


def with_rises(notes: Float32Array, onsets: Float32Array) -> Float32Array:
    """Return onsets (N, P), and where a note rises as much as onsets do, that rise.

    Args:
        notes: (N, P).
        onsets: (N, P).
    """
    rises = np.full(notes.shape, np.inf, dtype=notes.dtype)
    for lag in range(1, RISE_FRAMES + 1):
        rises[lag:] = np.minimum(rises[lag:], notes[lag:] - notes[:-lag])
    rises[:RISE_FRAMES] = 0
    rises = np.maximum(rises, 0)
    highest = rises.max(initial=0)
    if highest == 0:
        return onsets
    return np.maximum(onsets, rises * (onsets.max() / highest))
