"""`rave transcribe`: laws of what is heard, on rendered notes and on the bundled network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from rave.main_cli import main
from rave.notes import transcriber as module
from rave.notes.midi import read_midi
from rave.notes.note import Note
from rave.notes.scores import note_scores
from rave.notes.transcriber import SAMPLE_RATE_HZ, Transcriber, Transcription

SCALE = [Note(0.5 + 0.6 * k, 1.0 + 0.6 * k, pitch) for k, pitch in enumerate(range(33, 97))]
CHORDS = [
    Note(0.5 + k, 1.4 + k, pitch)
    for k, chord in enumerate([(48, 52, 55, 60), (45, 52, 57, 60), (41, 53, 57, 60), (43, 50, 55)])
    for pitch in chord
]
REPEATED = [Note(0.5 + 0.3 * k, 0.77 + 0.3 * k, (60, 72, 40)[k // 8]) for k in range(24)]


def render(notes: list[Note], level_dbfs: float = -6.0) -> np.ndarray:
    """Return audio (1, T) of sine-like tones with decay, its peak at a level."""
    audio = np.zeros(round((max(note.end_s for note in notes) + 1.0) * SAMPLE_RATE_HZ))
    for note in notes:
        start, length_s = round(note.start_s * SAMPLE_RATE_HZ), note.end_s - note.start_s + 0.05
        t = np.arange(round(length_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        decay_s = 3.0 * 2 ** ((60 - note.pitch) / 24)
        tone = sum(
            np.sin(2 * np.pi * note.frequency_hz * h * t + h)
            * np.exp(-t / (decay_s * 0.5 ** (h - 1)))
            / h**3
            for h in range(1, 11)
            if note.frequency_hz * h < SAMPLE_RATE_HZ / 2
        )
        envelope = np.minimum(t / 0.003, 1) * np.clip((length_s - t) / 0.05, 0, 1)
        audio[start : start + len(t)] += tone * envelope
    return (audio / np.abs(audio).max() * 10 ** (level_dbfs / 20)).astype(np.float32)[None]


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber()


@pytest.mark.parametrize("level_dbfs", [-6, -20, -40])
@pytest.mark.parametrize("name", ["scale", "chords", "repeated"])
def test_rendered_notes_are_heard(name: str, level_dbfs: float, transcriber: Transcriber) -> None:
    notes = {"scale": SCALE, "chords": CHORDS, "repeated": REPEATED}[name]
    found = transcriber.transcribe([render(notes, level_dbfs)])
    assert note_scores(notes, found.notes)["note_f1"] >= (0.9 if name == "chords" else 0.95)


def test_a_recording_moved_by_a_second_moves_its_notes(transcriber: Transcriber) -> None:
    audio = render(CHORDS)
    late = np.pad(audio, ((0, 0), (SAMPLE_RATE_HZ, 0)))
    notes = transcriber.transcribe([audio]).notes
    moved = [Note(n.start_s + 1, n.end_s + 1, n.pitch, n.strength) for n in notes]
    found = transcriber.transcribe([late]).notes
    sure, found = ([n for n in each if n.strength > 0.4] for each in (moved, found))
    assert len(sure) == len(CHORDS)
    assert note_scores(sure, found)["note_f1"] == 1.0  # a doubtful one may begin elsewhere


@pytest.mark.parametrize("semitones", [-3, 2])
def test_transposing_by_resampling_moves_by_semitones(
    semitones: int, transcriber: Transcriber
) -> None:
    notes = [Note(0.5 + 0.8 * k, 1.2 + 0.8 * k, 55 + k) for k in range(16)]
    rate = 2 ** (semitones / 12)
    audio = soxr.resample(render(notes)[0], SAMPLE_RATE_HZ * rate, SAMPLE_RATE_HZ)[None]
    moved = [Note(n.start_s / rate, n.end_s / rate, n.pitch + semitones) for n in notes]
    assert note_scores(moved, transcriber.transcribe([audio]).notes)["note_f1"] >= 0.95


def test_blocks_of_any_size_give_the_same(transcriber: Transcriber) -> None:
    audio = render(CHORDS)
    whole = transcriber.transcribe([audio])
    for size in (1000, 36164, 50000):
        parts = [audio[:, start : start + size] for start in range(0, audio.shape[1], size)]
        found = transcriber.transcribe(parts)
        assert found.notes == whole.notes
        assert np.array_equal(found.sounding, whole.sounding)
        assert found.duration_s == whole.duration_s == audio.shape[1] / SAMPLE_RATE_HZ


def test_stretches_give_the_notes_of_one_pass(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a note that lasts over many of them is one note."""
    audio = render([*SCALE, Note(0.5, 38.0, 100)])
    whole = transcriber.transcribe([audio]).notes
    monkeypatch.setattr(module, "STRETCH", 4)
    monkeypatch.setattr(module, "MARGIN", 2)
    found = transcriber.transcribe([audio]).notes
    scores = note_scores(whole, found)
    assert scores["note_f1"] >= 0.99
    assert scores["frame_f1"] >= 0.99
    assert max(n.end_s - n.start_s for n in found) == max(n.end_s - n.start_s for n in whole)


@pytest.mark.parametrize("num_samples", [1, 255, 256, 257, 36163, 36164, 36165, 43844, 80000])
def test_there_is_a_frame_for_each_256_samples(num_samples: int, transcriber: Transcriber) -> None:
    found = transcriber.transcribe([np.zeros((1, num_samples), np.float32)])
    windows, rest = divmod(num_samples, 36164)
    assert len(found.sounding) == windows * 142 + min(-(-rest // 256), 142)
    assert found.notes == []


def test_parts_joined_are_the_whole(transcriber: Transcriber) -> None:
    whole = transcriber.transcribe([render(SCALE)])
    parts = [whole.part(12 * k, 12 * (k + 1)) for k in range(4)]
    joined = Transcription.joined(parts, 12)
    assert np.array_equal(joined.sounding, whole.sounding)
    assert joined.duration_s == pytest.approx(whole.duration_s)
    assert note_scores(whole, joined)["note_f1"] == 1.0
    assert [p.notes[0].start_s < 12 for p in parts] == [True] * 4


def write(path: Path, notes: list[Note]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, render(notes)[0], SAMPLE_RATE_HZ)


def test_a_file_becomes_midi_and_is_not_replaced_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.wav", REPEATED)
    command = ["transcribe", str(tmp_path / "a.wav"), str(tmp_path / "a.mid")]
    assert main(command) == 0
    notes = read_midi(tmp_path / "a.mid")
    assert f"holds {len(notes)} notes of 8.7 s" in capsys.readouterr().out
    assert note_scores(REPEATED, notes)["note_f1"] >= 0.95
    before = (tmp_path / "a.mid").read_bytes()
    (tmp_path / "a.mid").write_bytes(b"mine")
    assert main(command) == 2
    assert "exists. Choose another name, or add --force" in capsys.readouterr().err
    assert (tmp_path / "a.mid").read_bytes() == b"mine"
    assert main([*command, "--force"]) == 0
    assert (tmp_path / "a.mid").read_bytes() == before


def test_a_folder_is_resumed_and_bad_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "a.wav", CHORDS[:4])
    write(tmp_path / "in" / "sub" / "b.flac", REPEATED[:8])
    (tmp_path / "in" / "bad.wav").write_bytes(b"no audio")
    command = ["transcribe", str(tmp_path / "in"), str(tmp_path / "out")]
    assert main(command) == 1
    shown = capsys.readouterr()
    assert "Transcribed 2 files, 0 unchanged, 1 skipped" in shown.out
    assert "skipped bad.wav" in shown.err
    assert read_midi(tmp_path / "out" / "sub" / "b.mid")
    assert main(command) == 1
    assert "Transcribed 0 files, 2 unchanged, 1 skipped" in capsys.readouterr().out


def test_silence_becomes_a_file_without_notes_and_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(22050), 22050)
    assert main(["transcribe", str(tmp_path / "a.wav"), str(tmp_path / "a.mid")]) == 0
    assert "no note was heard in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("audio", "out", "words"),
    [
        ("a.wav", "a.txt", "name one that ends in .mid"),
        ("in", "out.mid", "is a folder, so the output is one too"),
        ("missing.wav", "a.mid", "does not exist"),
        ("bad.wav", "a.mid", "bad.wav"),
        ("in", "in", "in"),
    ],
)
def test_what_cannot_be_transcribed_is_refused(
    audio: str, out: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.wav", REPEATED[:8])
    write(tmp_path / "in" / "a.wav", REPEATED[:8])
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    before = sorted(tmp_path.rglob("*"))
    assert main(["transcribe", str(tmp_path / audio), str(tmp_path / out)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
