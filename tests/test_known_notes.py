"""Figures of evaluations that follow by closed form from known notes and embeddings."""

import numpy as np
import pytest
from test_known_statistics import audio_statistics
from test_rave_evaluation import direct_kernel_distance, median_distance

from diffwave.evaluation.figures import _notes, _position, _rung
from diffwave.evaluation.ladder import FOLLOWING, GAUSSIAN, GENERATED, RECONSTRUCTION
from rave.evaluation.folders import PIECE_S, Piece
from rave.evaluation.folders import compare as compare_pieces
from rave.notes.note import LOWEST_PITCH, Note
from rave.notes.statistics import key_clarity
from rave.notes.transcriber import FRAME_SAMPLES, NUM_PITCHES, SAMPLE_RATE_HZ, Transcription


def heard(notes, duration_s=PIECE_S):
    """Return the transcription of a piece that holds these notes."""
    frame_s = FRAME_SAMPLES / SAMPLE_RATE_HZ
    sounding = np.zeros((round(duration_s / frame_s), NUM_PITCHES), bool)
    for note in notes:
        frames = slice(round(note.start_s / frame_s), round(note.end_s / frame_s))
        sounding[frames, note.pitch - LOWEST_PITCH] = True
    return Transcription(notes, np.packbits(sounding, axis=1), duration_s)


# A note a second, that lasts half of it; and two at once, twice as often, higher.
SLOW = [Note(k, k + 0.5, 60) for k in range(PIECE_S)]
FAST = [Note(k / 2, k / 2 + 0.25, pitch) for k in range(2 * PIECE_S) for pitch in (63, 76)]


def sounds_of(*pitches):
    """Return an equal share for each of these pitches, (128,)."""
    shares = np.zeros(128)
    shares[[*pitches]] = 1 / len(pitches)
    return shares


FROM_SLOW_TO_FAST = {
    "notes_per_s": 2.0,  # octaves: 1 and 4 a second
    "polyphony": 0.5,  # half of the time one more
    "pitch": (3 + 16) / 2,
    "pitch_class": 100.0,
    "key_clarity": abs(key_clarity(sounds_of(60)) - key_clarity(sounds_of(63, 76))),
    "note_interval": 1.0,
}


def test_a_rung_has_mean_and_deviation_over_its_sets_and_position_follows():
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((40, 3)).astype(np.float32)
    sounds = audio_statistics()
    sets = [[[Piece("", embeddings + shift, sounds, heard(FAST))]] for shift in (0, 1, 3)]
    reference = [Piece("", embeddings, sounds, heard(SLOW))]
    rung = _rung(GENERATED, sets, reference, 40, 0)
    assert {name: rung[name] for name in FROM_SLOW_TO_FAST} == pytest.approx(FROM_SLOW_TO_FAST)
    bandwidth = median_distance(embeddings)
    joined = np.concatenate([embeddings + shift for shift in (0, 1, 3)])
    needed = direct_kernel_distance(embeddings, joined, bandwidth)
    assert rung["kernel"] == pytest.approx(needed, rel=1e-3)
    # Each draw is of one of the sets, as each of them is one piece.
    drawn = [direct_kernel_distance(embeddings, embeddings + k, bandwidth) for k in (0, 1, 3)]
    assert rung["kernel_std"] == pytest.approx(np.std(drawn), rel=0.15)
    seeds = [0, 3, 27]  # squared distance of the means
    assert rung["seeds"] == pytest.approx(seeds, abs=1e-4)
    assert rung["frechet"] == pytest.approx(10, abs=1e-4)
    assert rung["frechet_std"] == pytest.approx(np.std(seeds, ddof=1), abs=1e-3)
    rungs = {RECONSTRUCTION: {"frechet": 10.0}, GAUSSIAN: {"frechet": 30.0}}
    rungs |= {FOLLOWING: {"frechet": 25.0}, GENERATED: {"seeds": [10.0, 20.0]}}
    position = _position(rungs)
    assert (position["seeds"], position["value"]) == ([0.0, 0.5], 0.25)
    assert position["std"] == pytest.approx(np.sqrt(0.125))
    assert position["following"] == pytest.approx(0.75)


def test_two_sets_are_as_far_apart_as_all_their_patches_and_notes_are():
    rng = np.random.default_rng(1)
    same = rng.standard_normal((4, 3))
    reference = [Piece("a", same, audio_statistics(), heard(SLOW)) for _ in range(6)]
    other = rng.standard_normal((3, 4, 3)) + 1
    audio = [Piece("b", each, audio_statistics(), heard(FAST)) for each in other]
    found = compare_pieces(reference, audio, 0).record()
    bandwidth = median_distance(np.tile(same, (6, 1)))
    needed = direct_kernel_distance(np.tile(same, (6, 1)), np.concatenate(other), bandwidth)
    assert found["kernel"] == pytest.approx(needed)
    half = np.tile(same, (3, 1))
    needed = direct_kernel_distance(half, half, bandwidth)
    assert found["halves"]["kernel"] == pytest.approx(needed)
    assert {name: found[name] for name in FROM_SLOW_TO_FAST} == pytest.approx(FROM_SLOW_TO_FAST)
    halves = {name: found["halves"][name] for name in FROM_SLOW_TO_FAST}
    assert halves == pytest.approx(dict.fromkeys(FROM_SLOW_TO_FAST, 0.0))


def test_notes_of_clips_are_compared_with_those_of_their_own_recording():
    def clip(*transcriptions):
        return [Piece("", np.zeros((4, 3)), audio_statistics(), each) for each in transcriptions]

    held_out = [clip(heard(SLOW), heard(FAST)), clip(heard(SLOW))]
    wrong = [Note(n.start_s, n.end_s, n.pitch + n.start_s % 2 * 5) for n in SLOW]  # every other one
    found = _notes(held_out, [clip(heard(SLOW), heard(FAST)), clip(heard(wrong))])
    assert (found["note_f1"], found["note_f1_std"]) == pytest.approx((0.75, 0.25))
    assert (found["frame_f1"], found["frame_f1_std"]) == pytest.approx((0.75, 0.25), abs=0.01)
    swapped = _notes(held_out[:1], [clip(heard(FAST), heard(SLOW))])
    assert swapped["note_f1"] == 0.0  # a piece is compared with that of its own time
    assert set(_notes(held_out, []).values()) == {None}


# Rungs of the ladder
