"""What the notes of recordings are like, without a recording to compare note by note.

Key profiles. Source: Krumhansl & Kessler 1982, doi:10.1037/0033-295X.89.4.334.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rave.compute.arrays import Float64Array
from rave.notes.note import Note
from rave.notes.scores import FRAME_S, piano_roll

NUM_PITCHES = 128
MOST_VOICES = 16  # more at once count as so many
# Onsets nearer than this are one chord; longer intervals are rests.
CHORD_S, LONGEST_INTERVAL_S = 0.03, 4.0
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
# Each distance: what it is called, and its unit.
NOTE_DISTANCES = {
    "notes_per_s": ("notes per second", "octaves"),
    "polyphony": ("notes at once", "notes"),
    "pitch": ("pitch", "semitones"),
    "pitch_class": ("pitch classes", "%"),
    "key_clarity": ("key clarity", "correlation"),
    "note_interval": ("time between onsets", "octaves"),
}


@dataclass(frozen=True)
class NoteStatistics:
    """What was counted in some recordings.

    Attributes:
        duration_s: Of all of them.
        num_notes: Notes that begin.
        voices: (17,) seconds in which 0, 1, … 16 notes sound at once.
        pitches: (128,) seconds in which each MIDI number sounds.
        key_clarity: (K,) per recording, see `key_clarity`.
        intervals: (I,) log2 of the seconds from one onset to the next, below 4 s.
    """

    duration_s: float
    num_notes: int
    voices: Float64Array
    pitches: Float64Array
    key_clarity: Float64Array
    intervals: Float64Array

    @classmethod
    def of(cls, notes: Sequence[Note], duration_s: float) -> NoteStatistics:
        """Return the statistics of one recording.

        Args:
            notes: All of it.
            duration_s: How long it lasts.
        """
        roll = piano_roll(notes)[:, : round(duration_s / FRAME_S)]
        roll = np.pad(roll, ((0, 0), (0, round(duration_s / FRAME_S) - roll.shape[1])))
        sounding = np.minimum(roll.sum(axis=0), MOST_VOICES)
        pitches = np.asarray(roll.sum(axis=1) * FRAME_S, dtype=np.float64)
        onsets = np.unique(np.round([note.start_s for note in notes], 6))
        between = np.diff(onsets)
        between = between[(between > CHORD_S) & (between < LONGEST_INTERVAL_S)]
        clarity = key_clarity(pitches)
        return cls(
            duration_s,
            len(notes),
            np.asarray(np.bincount(sounding, minlength=MOST_VOICES + 1) * FRAME_S, np.float64),
            pitches,
            np.array([] if clarity is None else [clarity]),
            np.log2(between),
        )

    @classmethod
    def pooled(cls, parts: Sequence[NoteStatistics]) -> NoteStatistics:
        """Return the statistics of several recordings together."""
        return cls(
            sum(part.duration_s for part in parts),
            sum(part.num_notes for part in parts),
            np.sum([part.voices for part in parts], axis=0),
            np.sum([part.pitches for part in parts], axis=0),
            np.concatenate([part.key_clarity for part in parts]),
            np.concatenate([part.intervals for part in parts]),
        )

    @property
    def pitch_classes(self) -> Float64Array:
        """Return the share of each pitch class, C first, (12,)."""
        return _shares(pitch_classes(self.pitches))

    def figures(self) -> dict[str, Any]:
        """Return what a person compares; None where there are no notes."""
        has_notes = self.pitches.sum() > 0
        sounding = np.flatnonzero(np.cumsum(_shares(self.pitches)) >= 0.05) if has_notes else [0]
        highest = np.flatnonzero(np.cumsum(_shares(self.pitches)) >= 0.95) if has_notes else [0]
        return {
            "notes_per_s": self.num_notes / max(self.duration_s, 1e-9),
            "polyphony": float(_shares(self.voices) @ np.arange(MOST_VOICES + 1)),
            "lowest_pitch": int(sounding[0]) if has_notes else None,
            "highest_pitch": int(highest[0]) if has_notes else None,
            "key_clarity": float(self.key_clarity.mean()) if len(self.key_clarity) else None,
            "note_interval_s": float(2 ** np.median(self.intervals))
            if len(self.intervals)
            else None,
        }


def pitch_classes(pitches: Float64Array) -> Float64Array:
    """Return what each pitch class has of the MIDI numbers (128,), C first, (12,)."""
    return np.asarray(np.bincount(np.arange(NUM_PITCHES) % 12, weights=pitches), dtype=np.float64)


def key_clarity(pitches: Float64Array) -> float | None:
    """Return how well pitches fit a major or minor key: the highest of 24 correlations.

    Args:
        pitches: (128,) how long each MIDI number sounds.

    Returns:
        −1 to 1; None if nothing sounds or all pitch classes sound alike.
    """
    profile = pitch_classes(pitches)
    if np.ptp(profile) == 0:
        return None
    keys = [np.roll(key, tonic) for key in (MAJOR, MINOR) for tonic in range(12)]
    return float(max(np.corrcoef(profile, key)[0, 1] for key in keys))


def note_distances(one: NoteStatistics, other: NoteStatistics) -> dict[str, float | None]:
    """Return the distances of `NOTE_DISTANCES`; 0 is equal, None where one has no notes.

    Notes per second: the absolute log2 of their ratio. Pitch classes: the share that has to change.
    Key clarity: the difference of the means. The others: how far values have to be moved, on
    average, to make one distribution the other (Wasserstein-1).
    """
    from scipy.stats import wasserstein_distance

    found: dict[str, float | None] = dict.fromkeys(NOTE_DISTANCES)
    if one.voices.any() and other.voices.any():
        voices = [np.arange(MOST_VOICES + 1)] * 2
        found["polyphony"] = float(wasserstein_distance(*voices, one.voices, other.voices))
    if one.num_notes and other.num_notes:
        rates = [each.num_notes / each.duration_s for each in (one, other)]
        found["notes_per_s"] = float(abs(np.log2(rates[0] / rates[1])))
    if one.pitches.any() and other.pitches.any():
        pitches = [np.arange(NUM_PITCHES)] * 2
        found["pitch"] = float(wasserstein_distance(*pitches, one.pitches, other.pitches))
        change = np.abs(one.pitch_classes - other.pitch_classes).sum() / 2
        found["pitch_class"] = float(100.0 * change)
    if len(one.key_clarity) and len(other.key_clarity):
        found["key_clarity"] = float(abs(one.key_clarity.mean() - other.key_clarity.mean()))
    if len(one.intervals) and len(other.intervals):
        found["note_interval"] = float(wasserstein_distance(one.intervals, other.intervals))
    return found


def _shares(values: Float64Array) -> Float64Array:
    return values / max(values.sum(), 1e-12)
