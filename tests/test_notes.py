"""Notes: MIDI files, scores, decoding, statistics; without the network."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rave.notes.decoding import FAINT_FRAMES, NOTE_THRESHOLD, find_notes
from rave.notes.midi import TICKS_PER_SECOND, read_midi, write_midi
from rave.notes.note import Note
from rave.notes.scores import note_scores, piano_roll
from rave.notes.statistics import (
    MAJOR,
    NOTE_DISTANCES,
    NoteStatistics,
    key_clarity,
    note_distances,
)


def test_a_piano_key_has_its_frequency() -> None:
    assert Note(0, 1, 69).frequency_hz == 440.0
    assert Note(0, 1, 21).frequency_hz == pytest.approx(27.5)
    assert Note(0, 1, 108).frequency_hz == pytest.approx(4186.01, abs=0.01)


# --- MIDI ---


def _length(number: int) -> bytes:
    parts = [number & 127]
    while number := number >> 7:
        parts.append((number & 127) | 128)
    return bytes(parts[::-1])


def _midi(tracks: list[list[tuple[int, bytes]]], form: int = 1, division: int = 480) -> bytes:
    """Return a MIDI file of events, each with the ticks since the one before."""
    chunks = b""
    for events in tracks:
        data = b"".join(_length(ticks) + event for ticks, event in events) + b"\0\xff\x2f\0"
        chunks += b"MTrk" + struct.pack(">I", len(data)) + data
    return b"MThd" + struct.pack(">IHHH", 6, form, len(tracks), division) + chunks


def _on(pitch: int, velocity: int = 127, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def _off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 0])


def _tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


TUNE = [(0, _on(60)), (480, _off(60)), (0, _on(62)), (480, _off(62))]
TWO = [Note(0.0, 0.5, 60), Note(0.5, 1.0, 62)]
SLOWER = [Note(0.0, 0.5, 60), Note(0.5, 1.5, 62)]  # after half a second half the tempo
LAST_NEVER_ENDS = [Note(0.0, 1.0, 60), Note(0.5, 1.0, 62)]
FILES = {
    "format 0": (_midi([TUNE], 0), TWO),
    "format 1": (_midi([[], TUNE]), TWO),
    "two tracks": (_midi([TUNE[:2], [(480, _on(62)), (480, _off(62))]]), TWO),
    "tempo changes in another track": (
        _midi([[(0, _tempo(500_000)), (480, _tempo(1_000_000))], TUNE]),
        SLOWER,
    ),
    "tempo changes in the same track": (
        _midi([[*TUNE[:2], (0, _tempo(1_000_000)), *TUNE[2:]]], 0),
        SLOWER,
    ),
    "a note without end": (
        _midi([[(0, _on(60)), (480, _on(62)), (480, _off(62))]]),
        LAST_NEVER_ENDS,
    ),
    "a key struck again": (
        _midi([[(0, _on(60)), (480, _on(60)), (480, _off(60)), (480, _off(60))]]),
        [Note(0.0, 0.5, 60), Note(0.5, 1.0, 60)],
    ),
    "onsets of velocity 0": (_midi([[(0, _on(60)), (480, _on(60, 0))]]), [Note(0.0, 0.5, 60)]),
    "25 frames per second": (_midi([TUNE], 0, 0xE728), [Note(0, 0.48, 60), Note(0.48, 0.96, 62)]),
    "16 channels": (
        _midi(
            [[(0, _on(60, 127, c)) for c in range(16)] + [(480, _off(60, c)) for c in range(16)]]
        ),
        [Note(0.0, 0.5 * (c + 1), 60, 1.0, c) for c in range(16)],
    ),
    "ten hours": (
        _midi([[(0, _on(60)), (480, _off(60)), (480 * 2 * 36000 - 960, _on(62)), (480, _off(62))]]),
        [Note(0.0, 0.5, 60), Note(35999.5, 36000.0, 62)],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_midi_of_every_kind_gives_its_notes(name: str, tmp_path: Path) -> None:
    content, expected = FILES[name]
    (tmp_path / "a.mid").write_bytes(content)
    assert read_midi(tmp_path / "a.mid") == sorted(expected)


def test_channel_10_holds_drums(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(FILES["16 channels"][0])
    assert [note.channel for note in read_midi(tmp_path / "a.mid") if note.is_drum] == [9]


BROKEN = {
    "empty": (b"", "it ends early"),
    "audio": (b"RIFF" * 20, "MThd not found"),
    "cut": (_midi([TUNE])[:-8], "it ends early"),
    "format 2": (_midi([TUNE, TUNE], 2), "it is of format 2"),
    "no ticks": (_midi([TUNE], 1, 0), "division by zero"),
    "no frames": (_midi([TUNE], 1, 0xE700), "division by zero"),
    "a huge text": (_midi([[(0, b"\xff\x01" + _length(0xFFFFFF))]]), "exceeds maximum length"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_midi_that_cannot_be_read_gives_one_sentence(name: str, tmp_path: Path) -> None:
    content, reason = BROKEN[name]
    (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a.mid' cannot be read as MIDI: .*{reason}.*Save it as"):
        read_midi(tmp_path / "a.mid")


def test_midi_without_notes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(_midi([[]]))
    with pytest.raises(ValueError, match=r"'.*a.mid' holds no notes"):
        read_midi(tmp_path / "a.mid")


def _separate(notes: list[Note]) -> list[Note]:
    """Return the notes without those that overlap an earlier one of their pitch and channel."""
    kept: list[Note] = []
    for note in sorted(notes):
        same = [k for k in kept if (k.pitch, k.channel) == (note.pitch, note.channel)]
        if all(each.end_s <= note.start_s for each in same):
            kept.append(note)
    return kept


NOTES = st.lists(
    st.builds(
        lambda start, length, pitch, velocity, channel: Note(
            start / TICKS_PER_SECOND,
            (start + length) / TICKS_PER_SECOND,
            pitch,
            velocity / 127,
            channel,
        ),
        st.integers(0, 10**7),
        st.integers(1, 10**5),
        st.integers(0, 127),
        st.integers(1, 127),
        st.integers(0, 15),
    ),
    min_size=1,
    max_size=20,
).map(_separate)


@given(NOTES)
def test_notes_to_midi_to_notes_is_the_identity(
    tmp_path_factory: pytest.TempPathFactory, notes: list[Note]
) -> None:
    folder = tmp_path_factory.mktemp("midi")
    write_midi(folder / "a.mid", notes)
    found = read_midi(folder / "a.mid")
    write_midi(folder / "b.mid", found)
    assert (folder / "a.mid").read_bytes() == (folder / "b.mid").read_bytes()
    assert len(found) == len(notes)
    for one, other in zip(found, notes, strict=True):
        assert one == Note(
            pytest.approx(other.start_s, abs=1e-9 * max(other.start_s, 1)),
            pytest.approx(other.end_s, abs=1e-9 * max(other.end_s, 1)),
            other.pitch,
            pytest.approx(other.strength),
            other.channel,
        )


@pytest.mark.parametrize("note", [Note(-1, 1, 60), Note(2, 1, 60), Note(0, 1, 128)])
def test_impossible_notes_are_not_written(note: Note, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written as MIDI; check its pitch"):
        write_midi(tmp_path / "a.mid", [note])
    assert not list(tmp_path.iterdir())


# --- decoding ---


def _activations(
    spans: list[tuple[int, int, int]], num_frames: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    notes, onsets = np.zeros((2, num_frames, 88), dtype=np.float32)
    for start, stop, pitch in spans:
        notes[start:stop, pitch] = 0.8
        onsets[start, pitch] = 0.9
    return notes, onsets


def test_an_onset_lasts_until_its_pitch_is_faint() -> None:
    notes, onsets = _activations([(20, 60, 40), (80, 120, 50)])
    assert [span[:3] for span in find_notes(notes, onsets)] == [(20, 60, 40), (80, 120, 50)]
    notes[60 + FAINT_FRAMES - 1 : 100, 40] = NOTE_THRESHOLD  # a gap of 10 frames is bridged
    assert find_notes(notes, onsets)[0][:3] == (20, 100, 40)


def test_a_long_note_is_one_note() -> None:
    notes, onsets = _activations([(20, 5000, 40)], 6000)
    assert [span[:3] for span in find_notes(notes, onsets)] == [(20, 5000, 40)]


def test_repeated_onsets_divide_a_pitch() -> None:
    notes, onsets = _activations([(20, 140, 40)])
    onsets[[60, 100], 40] = 0.7
    found = [span[:3] for span in find_notes(notes, onsets)]
    assert found == [(20, 60, 40), (60, 100, 40), (100, 140, 40)]


def test_what_has_no_onset_is_found_by_its_activation() -> None:
    notes, onsets = _activations([(20, 60, 40)])
    notes[90:130, 60] = np.hanning(42)[1:-1] ** 0.3  # rises slowly
    found = find_notes(notes, onsets)
    assert len(found) == 2
    start, stop, pitch, _ = found[1]
    assert pitch == 60
    assert start == pytest.approx(91, abs=2)
    assert stop == pytest.approx(129, abs=2)


def test_a_semitone_beside_a_note_is_its_shadow_and_a_short_one_none() -> None:
    notes, onsets = _activations([(20, 60, 40), (100, 111, 50)])
    notes[20:60, 41] = np.linspace(0, 0.5, 40)
    assert [span[:3] for span in find_notes(notes, onsets)] == [(20, 60, 40)]


def test_silence_has_no_notes() -> None:
    assert find_notes(*np.zeros((2, 500, 88), dtype=np.float32)) == []
    assert find_notes(*np.zeros((2, 0, 88), dtype=np.float32)) == []


# --- scores ---


def test_scores_count_what_is_right() -> None:
    right = [Note(k, k + 0.5, 60 + k) for k in range(4)]
    assert set(note_scores(right, right).values()) == {1.0}
    late = [Note(n.start_s + 0.04, n.end_s + 0.04, n.pitch) for n in right]
    assert note_scores(right, late)["note_f1"] == 1.0
    too_late = [Note(n.start_s + 0.06, n.end_s + 0.06, n.pitch) for n in right]
    assert note_scores(right, too_late)["note_f1"] == 0.0
    assert note_scores(right, too_late)["frame_f1"] == pytest.approx(44 / 50)
    half = note_scores(right, right[:2])
    assert (half["note_precision"], half["note_recall"]) == (1.0, 0.5)
    assert (half["frame_precision"], half["frame_recall"]) == (1.0, 0.5)
    assert half["note_f1"] == half["frame_f1"] == pytest.approx(2 / 3)


def test_silence_where_silence_is_right_scores_one() -> None:
    assert set(note_scores([], []).values()) == {1.0}
    assert set(note_scores([], [Note(0, 1, 60)]).values()) == {0.0}
    assert set(note_scores([Note(0, 1, 60)], []).values()) == {0.0}


# --- statistics ---


def test_statistics_of_a_scale() -> None:
    scale = [Note(0.5 * k, 0.5 * k + 0.5, p) for k, p in enumerate((60, 62, 64, 65, 67, 69, 71))]
    found = NoteStatistics.of(scale, 7.0)
    assert found.voices[:2].tolist() == pytest.approx([3.5, 3.5])
    assert found.figures()["notes_per_s"] == 1.0
    assert found.figures()["polyphony"] == pytest.approx(0.5)
    assert found.figures()["note_interval_s"] == pytest.approx(0.5)
    assert (found.figures()["lowest_pitch"], found.figures()["highest_pitch"]) == (60, 71)
    assert found.pitch_classes.tolist() == pytest.approx(
        [1 / 7 if c in (0, 2, 4, 5, 7, 9, 11) else 0 for c in range(12)]
    )


def test_key_clarity_is_1_for_a_key_itself_and_none_without_one() -> None:
    pitches = np.zeros(128)
    pitches[60:72] = np.roll(MAJOR, 7)
    assert key_clarity(pitches) == pytest.approx(1.0)
    assert key_clarity(np.ones(120 + 8) * 0) is None
    assert key_clarity(np.r_[np.ones(120), np.zeros(8)]) is None


def test_distances_are_zero_for_equal_notes_and_known_for_moved_ones() -> None:
    scale = [Note(0.5 * k, 0.5 * k + 0.5, 60 + 2 * k) for k in range(8)]
    one = NoteStatistics.of(scale, 4.0)
    assert set(note_distances(one, one)) == set(NOTE_DISTANCES)
    assert list(note_distances(one, one).values()) == pytest.approx([0.0] * len(NOTE_DISTANCES))
    higher = [Note(n.start_s, n.end_s, n.pitch + 3) for n in scale]
    assert note_distances(one, NoteStatistics.of(higher, 4.0))["pitch"] == pytest.approx(3.0)
    slow = [Note(2 * n.start_s, 2 * n.end_s, n.pitch) for n in scale]
    found = note_distances(one, NoteStatistics.of(slow, 8.0))
    assert (found["notes_per_s"], found["note_interval"]) == pytest.approx((1.0, 1.0))
    twice = [*scale, *[Note(n.start_s, n.end_s, n.pitch + 12) for n in scale]]
    found = note_distances(one, NoteStatistics.of(twice, 4.0))
    assert (found["polyphony"], found["pitch_class"]) == pytest.approx((1.0, 0.0))
    silent = note_distances(one, NoteStatistics.of([], 4.0))
    assert silent["polyphony"] == pytest.approx(1.0)
    assert {v for k, v in silent.items() if k != "polyphony"} == {None}


def test_pooled_statistics_are_those_of_all() -> None:
    parts = [NoteStatistics.of([Note(0, 1, 60)], 2.0), NoteStatistics.of([Note(0, 1, 64)], 1.0)]
    both = NoteStatistics.pooled(parts)
    assert (both.duration_s, both.num_notes) == (3.0, 2)
    assert both.pitches[[60, 64]].tolist() == pytest.approx([1.0, 1.0])
    assert len(both.key_clarity) == 2


def test_a_piano_roll_has_a_row_per_pitch() -> None:
    roll = piano_roll([Note(0.1, 0.2, 60), Note(0.15, 0.3, 64)])
    assert roll.shape == (128, 30)
    assert np.flatnonzero(roll[60]).tolist() == list(range(10, 20))
    assert np.flatnonzero(roll[64]).tolist() == list(range(15, 30))
