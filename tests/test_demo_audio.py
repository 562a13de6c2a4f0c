import numpy as np
import pytest
import soundfile
from demo_audio import (
    ENSEMBLES,
    LEVEL_DBFS,
    SCALES,
    bell,
    compose,
    drum,
    limit,
    make_demo_audio,
    play,
    ring,
    string,
)

RATE_HZ = 22050


def pitch_classes(phrase):
    """Return the seven pitch classes of its key."""
    return {(phrase.key + step) % 12 for step in SCALES[phrase.mode]}


def strongest_pitch_classes(audio, num_pitch_classes):
    """The pitch classes with the most power between 60 Hz and 1000 Hz."""
    power = np.square(np.abs(np.fft.rfft(audio * np.hanning(len(audio)))))
    frequency_hz = np.fft.rfftfreq(len(audio), 1 / RATE_HZ)
    heard = (frequency_hz > 60) & (frequency_hz < 1000)
    pitch = np.round(69 + 12 * np.log2(frequency_hz[heard] / 440)).astype(int)
    chroma = np.bincount(pitch % 12, weights=power[heard], minlength=12)
    return set(np.argsort(-chroma)[:num_pitch_classes].tolist())


def test_the_same_seed_writes_the_same_files_and_another_seed_others(tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        make_demo_audio(folder, num_files=2, seconds=1.0, seed=seed)
    contents = [[p.read_bytes() for p in sorted(folder.iterdir())] for folder in folders]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_a_file_does_not_depend_on_how_many_there_are(tmp_path):
    few = make_demo_audio(tmp_path / "few", num_files=1, seconds=1.0)
    many = make_demo_audio(tmp_path / "many", num_files=3, seconds=1.0)
    assert few[0].name == many[0].name
    assert few[0].read_bytes() == many[0].read_bytes()


def test_files_that_are_there_are_kept(tmp_path):
    path = make_demo_audio(tmp_path, num_files=1, seconds=0.5)[0]
    path.write_bytes(b"kept")
    assert make_demo_audio(tmp_path, num_files=1, seconds=0.5) == [path]
    assert path.read_bytes() == b"kept"


def test_files_have_the_asked_rate_length_and_a_sensible_level_without_clipping(tmp_path):
    for path in make_demo_audio(tmp_path, num_files=len(ENSEMBLES), seconds=3.0):
        audio, rate_hz = soundfile.read(path)
        assert (rate_hz, len(audio)) == (22050, 66150)
        level_dbfs = 10 * np.log10(np.mean(np.square(audio)))
        assert LEVEL_DBFS[0] - 1 < level_dbfs < LEVEL_DBFS[1] + 0.01
        assert np.abs(audio).max() < 0.999


@pytest.mark.parametrize("seed", range(6))
def test_the_strongest_pitches_of_a_phrase_belong_to_its_key(seed):
    rng = np.random.default_rng(seed)
    phrase = compose(rng, ("strings", "bells"), 8.0)
    strings = [note for note in phrase.notes if note.voice == "string"]
    assert {note.pitch % 12 for note in phrase.notes if note.pitch} <= pitch_classes(phrase)
    assert len(strings) > 10
    melody = compose(np.random.default_rng(seed), ("strings",), 8.0)
    audio = play(melody, 8.0, RATE_HZ, rng)
    assert strongest_pitch_classes(audio, 4) <= pitch_classes(melody)


@pytest.mark.parametrize("voice", [string, bell])
@pytest.mark.parametrize("pitch", [40, 57, 69, 81])
def test_a_note_sounds_at_its_pitch_and_dies_away(voice, pitch):
    audio = voice(pitch, RATE_HZ)
    spectrum = np.abs(np.fft.rfft(audio, 2**18))
    frequency_hz = 440 * 2 ** ((pitch - 69) / 12)
    index = round(frequency_hz * 2**18 / RATE_HZ)
    nearby = spectrum[index - 60 : index + 61]
    assert abs(int(nearby.argmax()) - 60) < 6  # within half a Hz
    assert np.abs(audio[-200:]).max() < 0.02 * np.abs(audio).max()  # it does not click


def test_ring_equals_the_sum_of_its_partials_sample_by_sample():
    frequencies, amplitudes, decays = np.array([[100.0, 990.0], [1.0, 0.3], [0.1, 0.02]])
    time_s = np.arange(1234) / RATE_HZ
    expected = sum(
        a * np.sin(2 * np.pi * f * time_s) * np.exp(-time_s / d)
        for f, a, d in zip(frequencies, amplitudes, decays, strict=True)
    )
    assert np.allclose(ring(frequencies, amplitudes, decays, 1234, RATE_HZ), expected, atol=1e-9)


def test_ring_leaves_out_partials_that_would_fold_back():
    alone = ring(np.array([500.0]), np.ones(1), np.ones(1), 999, RATE_HZ)
    both = ring(np.array([500.0, 12000.0]), np.ones(2), np.ones(2), 999, RATE_HZ)
    assert np.array_equal(alone, both)


def test_drums_differ_in_brightness():
    rng = np.random.default_rng(0)

    def centroid_hz(audio):
        spectrum = np.abs(np.fft.rfft(audio))
        return (np.fft.rfftfreq(len(audio), 1 / RATE_HZ) * spectrum).sum() / spectrum.sum()

    kick, snare, hat = (centroid_hz(drum(v, RATE_HZ, rng)) for v in ("kick", "snare", "hat"))
    assert 3 * kick < snare < hat


def test_limit_leaves_quiet_samples_alone_and_keeps_loud_ones_below_1():
    audio = np.linspace(-3, 3, 1001)
    limited = limit(audio)
    quiet = np.abs(audio) <= 0.7
    assert np.array_equal(limited[quiet], audio[quiet])
    assert np.abs(limited).max() <= 1
    assert np.all(np.diff(limited) >= 0)
