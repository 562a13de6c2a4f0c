import numpy as np
import pytest
import soundfile
from demo_piano import LEVEL_DBFS, PIECES, Key, keys_of, make_recordings, piano, read_voice
from test_demo_audio import strongest_pitch_classes

RATE_HZ = 22050
# Of the bars that are transcribed.
PITCH_CLASSES = {
    "bach-invention-c-major-bwv772": {0, 2, 4, 5, 6, 7, 9, 11},
    "bach-prelude-c-major-bwv846": {0, 2, 4, 5, 7, 9, 11},
    "bach-cello-prelude-g-major-bwv1007": {0, 2, 4, 6, 7, 9, 11},
}


def sound(pitch, held_s=3.0, force=0.8, seed=0):
    return piano(Key(0.0, held_s, pitch, force), RATE_HZ, np.random.default_rng(seed))


def level_db(audio):
    return 10 * np.log10(np.mean(np.square(audio)))


def test_a_voice_is_read_note_by_note():
    assert read_voice("C4 F#4/2 -/3 Bb3") == [(0, 1, 60), (1, 2, 66), (3, 3, None), (6, 1, 58)]
    with pytest.raises(ValueError, match="'H4' is no note"):
        read_voice("C4 H4")


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
def test_every_voice_of_a_piece_fills_the_same_whole_bars_in_its_key(piece):
    voices = [read_voice(voice) for voice in piece.voices]
    lengths = {notes[-1][0] + notes[-1][1] for notes in voices}
    assert len(lengths) == 1
    assert lengths.pop() % piece.bar == 0
    pitches = {pitch for notes in voices for _, _, pitch in notes if pitch is not None}
    assert {pitch % 12 for pitch in pitches} == PITCH_CLASSES[piece.name]


@pytest.mark.parametrize("pitch", [43, 60, 79])
def test_a_key_sounds_at_its_pitch_a_little_sharp_in_its_partials(pitch):
    audio = sound(pitch)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 2**19))
    step_hz, first_hz = RATE_HZ / 2**19, 440 * 2 ** ((pitch - 69) / 12)
    cents = []
    for partial in (1, 4):
        low, high = (round(partial * first_hz * factor / step_hz) for factor in (0.98, 1.05))
        found_hz = (low + spectrum[low:high].argmax()) * step_hz
        cents.append(1200 * np.log2(found_hz / (partial * first_hz)))
    assert abs(cents[0]) < 6
    assert cents[0] < cents[1] < 40


def test_a_note_falls_fast_and_then_slowly_until_its_damper_ends_it():
    audio = sound(60, held_s=4.0)
    at = [level_db(audio[round(s * RATE_HZ) :][:2205]) for s in (0.1, 0.8, 2.6, 3.3, 4.2)]
    assert at[0] - at[1] > 2 * (at[2] - at[3]) > 0
    assert at[3] - at[4] > 8


def test_a_harder_stroke_is_louder_and_brighter():
    def centroid_hz(audio):
        spectrum = np.abs(np.fft.rfft(audio))
        return (np.fft.rfftfreq(len(audio), 1 / RATE_HZ) * spectrum).sum() / spectrum.sum()

    soft, hard = sound(60, force=0.3), sound(60, force=1.0)
    assert level_db(hard) - level_db(soft) > 6
    assert centroid_hz(hard) > centroid_hz(soft)


def test_the_pedal_lets_notes_ring_to_its_change():
    prelude = next(piece for piece in PIECES if piece.name.startswith("bach-prelude"))
    keys = keys_of(prelude, np.random.default_rng(0))
    half_bar_s = 8 * 60 / prelude.tempo_bpm / 4
    ends = [(key.start_s + key.held_s) / half_bar_s for key in keys]
    assert np.allclose(ends, np.round(ends), atol=0.05)


def test_recordings_have_their_level_their_key_and_depend_on_the_seed(tmp_path):
    paths, others = (make_recordings(tmp_path / str(seed), RATE_HZ, seed) for seed in (1, 2))
    again = make_recordings(tmp_path / "again", RATE_HZ, 1)
    assert [path.stem for path in paths[:-1]] == [piece.name for piece in PIECES]
    for path, same, other in zip(paths, again, others, strict=True):
        audio, rate_hz = soundfile.read(path)
        assert rate_hz == RATE_HZ and 9 < len(audio) / rate_hz < 15
        assert abs(level_db(audio) - LEVEL_DBFS) < 0.2
        assert np.abs(audio).max() < 0.999
        if path.stem in PITCH_CLASSES:
            assert strongest_pitch_classes(audio, 4) <= PITCH_CLASSES[path.stem]
        assert path.read_bytes() == same.read_bytes() != other.read_bytes()
