import numpy as np
import pytest
from audio_files import noise, sine
from rave_runs import checkpoint, prepare, train

from rave import experiment
from rave.augmentation import (
    Augmentations,
    Compress,
    Dequantise,
    Normalise,
    RandomCompress,
    RandomGain,
    RandomMute,
    RandomPhase,
    RandomPitch,
    change_pitch,
    compress,
)
from rave.dataset import PreparedAudioDataset
from rave.upstream.lmdb import open_audio

RATE_HZ = 44100
ALL = Augmentations(
    RandomPitch(),
    RandomPhase(),
    RandomCompress(),
    Normalise(),
    RandomGain(),
    RandomMute(),
    Dequantise(),
)


def generator(seed=0):
    return np.random.default_rng(seed)


def many(augmentation, audio, count=400):
    """Return what an augmentation makes of the same audio with many generators."""
    return [augmentation(audio, RATE_HZ, generator(seed)) for seed in range(count)]


def level_db(audio):
    return 20 * np.log10(np.sqrt(2 * np.mean(np.square(audio))))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("prepared"), num_channels=2)


def test_an_item_depends_on_the_seed_and_its_index_alone(prepared):
    def crops(seed):
        return PreparedAudioDataset(prepared, 1000, 40, seed, augmentations=ALL)

    first, second = crops(1), crops(1)
    forwards = [first[i] for i in range(40)]
    backwards = [second[i] for i in reversed(range(40))][::-1]
    assert all(a.equal(b) for a, b in zip(forwards, backwards, strict=True))
    assert not forwards[0].equal(crops(2)[0])
    assert {tuple(crop.shape) for crop in forwards} == {(2, 1000)}


def test_without_augmentations_crops_are_pieces_of_the_audio(prepared):
    store = open_audio(prepared)
    whole = [store.read(file, 0, file.num_samples) for file in store.files]
    for crop in PreparedAudioDataset(prepared, 100, 5):
        starts = [np.flatnonzero(audio[0] == float(crop[0, 0])) for audio in whole]
        assert any(
            np.array_equal(audio[:, n : n + 100], crop.numpy())
            for audio, found in zip(whole, starts, strict=True)
            for n in found
        )


def test_gain_changes_the_level_within_its_range_and_never_clips():
    audio = 0.5 * np.ones((2, 10), np.float32)
    gains = 20 * np.log10([a[0, 0] / 0.5 for a in many(RandomGain(), audio)])
    assert -6 <= gains.min() < -5.5
    assert 2.5 < gains.max() <= 3
    assert 0.4 < np.mean(gains == 0) < 0.6
    assert all(np.abs(a).max() <= 1 for a in many(RandomGain(), 2 * audio))


def test_mute_silences_one_crop_in_ten():
    muted = [not a.any() for a in many(RandomMute(), np.ones((1, 4), np.float32), 2000)]
    assert 0.08 < np.mean(muted) < 0.12


def test_phase_changes_phases_and_no_magnitude():
    impulse = np.zeros((2, 16384), np.float32)
    impulse[:, 10] = 1
    turned = RandomPhase(probability=1)(impulse, RATE_HZ, generator())
    assert np.abs(turned - impulse).max() > 0.01
    assert np.abs(np.abs(np.fft.rfft(turned)) - 1).max() < 1e-3
    assert np.array_equal(turned[0], turned[1])


def test_dequantised_samples_round_to_what_they_were():
    samples = generator().integers(-(2**15), 2**15, (1, 50_000))
    found = Dequantise()((samples / 2**15).astype(np.float32), RATE_HZ, generator()) * 2**15
    assert np.abs(found - samples).max() <= 0.501  # float32 has 2**-9 of a step at full scale
    assert abs(np.mean(found - samples)) < 0.01
    assert np.var(found - samples) == pytest.approx(1 / 12, rel=0.02)


def test_normalise_reaches_full_scale_or_its_highest_gain():
    audio = noise(1000)
    loud, soft = (Normalise()(a, RATE_HZ, generator()) for a in (0.1 * audio, 1e-5 * audio))
    assert np.abs(loud).max() == pytest.approx(1)
    assert np.abs(soft).max() == pytest.approx(1e-5 * np.abs(audio).max() * 10**1.5, rel=1e-3)
    assert not Normalise()(np.zeros((1, 9), np.float32), RATE_HZ, generator()).any()


@pytest.mark.parametrize("rate_hz", [16000, 44100])
@pytest.mark.parametrize("output_db", [-60, -40, -20, -10])
def test_compression_moves_levels_as_its_transfer_function_says(rate_hz, output_db):
    corners = [(-80, -80), (-40, output_db), (0, 0)]
    for input_db in (-90, -60, -40, -20, -3):
        constant = np.full((1, 2 * rate_hz), 10 ** (input_db / 20))
        found = compress(constant, rate_hz, corners, knee_db=0, time_s=0.1)
        expected = np.interp(input_db, *zip((-120, -120), *corners, strict=True))
        assert 20 * np.log10(found[0, -1]) == pytest.approx(expected, abs=0.1)


def test_quiet_places_are_brought_up():
    constant = np.full((1, RATE_HZ), 10 ** (-30 / 20))
    found = Compress(knee_db=0)(constant, RATE_HZ, generator())
    assert 20 * np.log10(found[0, -1]) == pytest.approx(-15, abs=0.1)
    experiment.parse_recipe("rave", "v2+normalise_ambient")
    assert experiment.build_training().augmentations.compress == Compress()


def test_compression_keeps_balance_and_never_clips():
    audio = np.concatenate([0.9 * noise(20_000), 0.01 * noise(20_000)]).astype(np.float32)
    for made in many(RandomCompress(probability=1), audio, 20):
        assert np.abs(made).max() <= 1
        kept = np.abs(audio[1]) > 1e-4
        gains = made[:, kept] / audio[:, kept]
        assert np.allclose(gains[0], gains[1], rtol=1e-3)


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.234, 2.0])
def test_pitch_multiplies_frequencies(ratio):
    made = change_pitch(sine(1000, RATE_HZ, 1.0), ratio)
    assert abs(made.shape[1] - RATE_HZ / ratio) < 2
    middle = made[0, 1000:-1000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    peak_hz = spectrum.argmax() * RATE_HZ / len(middle)
    assert peak_hz == pytest.approx(1000 * ratio, abs=RATE_HZ / len(middle))


def test_pitched_crops_are_full_wherever_there_is_audio(prepared):
    pitch = Augmentations(pitch=RandomPitch(probability=1, min_ratio=0.5, max_ratio=2))
    for crop in PreparedAudioDataset(prepared, 5000, 30, augmentations=pitch):
        assert crop[:, -50:].any()


def test_impossible_ratios_are_refused():
    with pytest.raises(ValueError, match=r"ratios from 2 to 1 were given; 0 < min_ratio"):
        RandomPitch(min_ratio=2, max_ratio=1)


def test_a_recipe_may_include_any_of_them(tmp_path):
    names = ("pitch", "phase", "compress", "normalise", "gain", "mute", "dequantise")
    includes = ["model/v2.gin", "training/two_phases.gin"]
    includes += [f"options/{name}.gin" for name in names]
    text = "".join(f"include '{path}'\n" for path in includes)
    (tmp_path / "all.gin").write_text("from __gin__ import dynamic_registration\n" + text)
    prepared = prepare(tmp_path)
    length = ("MAX_STEPS=2", "VALIDATE_EVERY_STEPS=2")
    for recipe, run in ((str(tmp_path / "all.gin"), "a"), ("v2", "b")):
        assert train(prepared, tmp_path / run, *length, recipe=recipe) == 0
    config = (tmp_path / "a" / "config.gin").read_text()
    assert all(f"Augmentations.{name} = @" in config for name in names)
    weights = [checkpoint(tmp_path / run)["state_dict"] for run in "ab"]
    assert any(not v.equal(weights[1][name]) for name, v in weights[0].items())


def test_a_resumed_run_hears_the_same_augmentations(tmp_path):
    prepared = prepare(tmp_path)
    gain = "augmentation.Augmentations.gain=@augmentation.RandomGain()"
    assert train(prepared, tmp_path / "whole", gain) == 0
    assert train(prepared, tmp_path / "half", gain, "MAX_STEPS=4") == 0
    assert train(prepared, tmp_path / "half", gain) == 0
    whole, half = (checkpoint(tmp_path / run)["state_dict"] for run in ("whole", "half"))
    assert all(value.equal(half[name]) for name, value in whole.items())
