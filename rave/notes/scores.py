"""How many notes of one recording another one has.

Source: Raffel et al. 2014, "mir_eval: A Transparent Implementation of Common MIR Metrics".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rave.notes.note import Note
from rave.notes.transcriber import Transcription

ONSET_TOLERANCE_S, FRAME_S = 0.05, 0.01


def note_scores(
    reference: Sequence[Note] | Transcription, notes: Sequence[Note] | Transcription
) -> dict[str, float]:
    """Return `note_f1` and `frame_f1`, each with its precision and recall.

    A note is right if its pitch is and it begins within 50 ms; where it ends does not matter. A
    pitch that sounds in a frame is right if it sounds in the reference. Silence where silence is
    right scores 1.

    Args:
        reference: The notes that are right: of a MIDI file, in frames of 10 ms, or a transcription,
            in frames of the network.
        notes: The notes to judge, of the same kind.
    """
    (reference, one), (notes, other) = _with_roll(reference), _with_roll(notes)
    scores = {"note_f1": 0.0, "note_precision": 0.0, "note_recall": 0.0}
    scores |= {"frame_f1": 0.0, "frame_precision": 0.0, "frame_recall": 0.0}
    if not reference or not notes:
        return dict.fromkeys(scores, float(not reference and not notes))
    import mir_eval

    precision, recall, f1, _ = mir_eval.transcription.precision_recall_f1_overlap(
        *intervals(reference),
        *intervals(notes),
        onset_tolerance=ONSET_TOLERANCE_S,
        offset_ratio=None,
    )
    scores |= {"note_f1": f1, "note_precision": precision, "note_recall": recall}
    num_frames = min(one.shape[1], other.shape[1])
    both = float((one[:, :num_frames] & other[:, :num_frames]).sum())
    precision, recall = both / max(other.sum(), 1), both / max(one.sum(), 1)
    scores |= {"frame_precision": precision, "frame_recall": recall}
    scores["frame_f1"] = 2 * precision * recall / (precision + recall) if both else 0.0
    return scores


def _with_roll(notes: Sequence[Note] | Transcription) -> tuple[Sequence[Note], NDArray[np.bool_]]:
    if isinstance(notes, Transcription):
        return notes.notes, np.unpackbits(notes.sounding, axis=1).T.astype(bool)
    return notes, piano_roll(notes)


def intervals(notes: Sequence[Note]) -> tuple[Any, Any]:
    """Return starts and ends (n, 2) in seconds, and pitches (n,) in Hz."""
    times = np.array([(note.start_s, note.end_s) for note in notes])
    times[:, 1] = np.maximum(times[:, 1], times[:, 0] + 1e-3)
    return times, np.array([note.frequency_hz for note in notes])


def piano_roll(notes: Sequence[Note], frame_s: float = FRAME_S) -> NDArray[np.bool_]:
    """Return in which frames each MIDI number sounds, (128, N).

    Args:
        notes: In any order.
        frame_s: Duration of a frame.
    """
    num_frames = round(max((note.end_s for note in notes), default=0.0) / frame_s)
    roll = np.zeros((128, num_frames), dtype=bool)
    for note in notes:
        roll[note.pitch, round(note.start_s / frame_s) : round(note.end_s / frame_s)] = True
    return roll
