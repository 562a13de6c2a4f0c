"""Fréchet distance and the second view, and the command that tells both."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import soundfile
from audio_files import noise, sine, write
from hypothesis import given
from hypothesis import strategies as st
from test_rave_musicnn import beat, flute, prelude

from rave.api.evaluate import pair_names
from rave.evaluation.audio_statistics import DISTANCES, distances, followed, measure, pool
from rave.evaluation.folders import TITLES, Piece, compare
from rave.evaluation.frechet import (
    estimate,
    estimate_kernel,
    frechet_distance,
    kernel_bandwidth,
    kernel_distance,
)
from rave.evaluation.musicnn import SAMPLE_RATE_HZ
from rave.jobs.loop import result_names
from rave.main_cli import main
from rave.notes.transcriber import Transcription

RATE_HZ = 22050


def run(capsys, *arguments):
    """Return exit code, stdout and stderr of `rave evaluate`."""
    capsys.readouterr()
    code = main(["evaluate", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Write piano-like music, the same a little quieter with noise, and drums."""
    folder = tmp_path_factory.mktemp("folders")
    music = prelude()[None].astype(np.float32)
    for number, gain in enumerate((1.0, 0.7)):
        write(folder / "music" / f"{number}.wav", gain * music, SAMPLE_RATE_HZ)
        noisy = 0.9 * gain * music + noise(music.shape[1], seed=number, gain=0.003)
        write(folder / "noisy" / f"{number}.flac", noisy, SAMPLE_RATE_HZ)
    write(folder / "drums" / "stereo.ogg", np.tile(beat(16.0), (2, 1)).astype("f4"), SAMPLE_RATE_HZ)
    return folder


def test_the_distance_of_gaussians_is_that_of_the_matrix_formula():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((80, 6)) @ rng.standard_normal((6, 6))
    other = rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6)) + 1.0
    a, b = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(a @ b).real
    means = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    assert frechet_distance(one, other) == pytest.approx(means + np.trace(a + b - 2 * root))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_fewer_patches_than_dimensions_have_a_distance_too():
    rng = np.random.default_rng(1)
    one, other = rng.standard_normal((2, 5, 20))
    a, b = np.cov(one.T), np.cov(other.T)
    # The eigenvalues of a·b are real and none is negative, whatever their rank.
    shared = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0)).sum()
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(a + b) - 2 * shared
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-4)


def test_small_sets_lie_too_far_apart_and_the_line_takes_it_back():
    rng = np.random.default_rng(2)
    one, other = ([rng.standard_normal((4, 20)) for _ in range(60)] for _ in range(2))
    small, large = estimate(one, other, 100, 0), estimate(one, other, 240, 0)
    assert small.distance > 1.5 * large.distance
    assert abs(large.unbiased) < 0.2 * large.distance
    assert large.interval[0] < large.distance < large.interval[1]
    assert estimate(one, other, 99, 0).unbiased is None


def test_the_interval_holds_the_distance_of_sets_that_do_differ():
    rng = np.random.default_rng(3)
    one = [rng.standard_normal((4, 3)) for _ in range(100)]
    other = [rng.standard_normal((4, 3)) + 1.0 for _ in range(100)]  # 3 apart
    found = estimate(one, other, 400, 0)
    assert found.interval[0] < 3.0 < found.interval[1]
    assert found.unbiased == pytest.approx(3.0, abs=0.6)
    assert found == estimate(one, other, 400, 0)


def direct_kernel_distance(one, other, bandwidth):
    """Return 100 times the unbiased squared MMD of a Gaussian kernel, pair by pair."""

    def kernel(a, b):
        return np.exp(-np.square(a - b).sum() / (2 * bandwidth**2))

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(each) for j, b in enumerate(each) if i != j])
        for each in (one, other)
    ]
    return 100 * (sum(within) - 2 * np.mean([kernel(a, b) for a in one for b in other]))


def median_distance(points):
    """Return the median distance of two different points."""
    pairs = [(a, b) for i, a in enumerate(points) for b in points[:i]]
    return np.median([np.linalg.norm(a - b) for a, b in pairs])


def test_the_kernel_distance_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(4)
    one, other = rng.standard_normal((12, 5)), 1.5 * rng.standard_normal((9, 5)) + 0.5
    for bandwidth in (0.3, 2.0, 10.0):
        needed = direct_kernel_distance(one, other, bandwidth)
        assert kernel_distance(one, other, bandwidth) == pytest.approx(needed)
        assert kernel_distance(other, one, bandwidth) == pytest.approx(needed)
    assert kernel_bandwidth(one) == pytest.approx(median_distance(one))


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [4, 30])
def test_the_kernel_distance_has_no_bias_at_any_size(shift, size):
    """Of Gaussians N(0, 1) and N(shift, 1) in 3 dimensions the distance has a closed form."""
    rng = np.random.default_rng(size)
    sigma, dimensions = 2.0, 3
    within = (sigma**2 / (sigma**2 + 2)) ** (dimensions / 2)
    needed = 200 * within * (1 - np.exp(-dimensions * shift**2 / (2 * (sigma**2 + 2))))
    draws = rng.standard_normal((600, 2, size, dimensions))
    found = [kernel_distance(one, other + shift, sigma) for one, other in draws]
    assert np.mean(found) == pytest.approx(needed, abs=4 * np.std(found) / np.sqrt(len(found)))
    assert min(found) < 0 or shift == 2


def test_the_kernel_distance_grows_with_a_shift_and_ignores_the_scale():
    rng = np.random.default_rng(5)
    one, other = ([rng.standard_normal((4, 3)) for _ in range(20)] for _ in range(2))
    found = [
        estimate_kernel(one, [part + shift for part in other], 60, 0)
        for shift in (0.0, 0.5, 1.0, 2.0, 4.0)
    ]
    distances_found = [each.distance for each in found]
    assert distances_found == sorted(distances_found)
    assert abs(distances_found[0]) < 3 * found[0].std
    assert found[2].distance > 5 * found[2].std
    scaled = estimate_kernel([9 * part for part in one], [9 * part + 9 for part in other], 60, 0)
    assert scaled.distance == pytest.approx(found[2].distance)
    assert scaled.std == pytest.approx(found[2].std)
    assert found[0] == estimate_kernel(one, other, 60, 0)
    assert found[0] != estimate_kernel(one, other, 60, 1)


def test_statistics_are_0_apart_from_themselves_and_pooling_joins_pieces():
    music = prelude()
    whole = measure(music, SAMPLE_RATE_HZ)
    assert set(distances(whole, whole).values()) == {0.0}
    half = len(music) // 2
    parts = pool([measure(part, SAMPLE_RATE_HZ) for part in (music[:half], music[half:])])
    assert parts.duration_s == pytest.approx(whole.duration_s)
    assert parts.power == pytest.approx(whole.power)
    apart = distances(whole, parts)
    assert apart["spectral"] < 1.0
    assert apart["loudness"] < 1.0


def test_long_windows_tell_more_bands_apart_than_the_shortest():
    bands = measure(noise(2 * SAMPLE_RATE_HZ)[0], SAMPLE_RATE_HZ).mel
    assert [len(np.unique(each)) for each in bands] == [12, 48, 48]


def test_each_distance_grows_with_what_it_is_of():
    music = prelude()
    whole = measure(music, SAMPLE_RATE_HZ)
    quiet = distances(whole, measure(0.25 * music, SAMPLE_RATE_HZ))
    assert quiet["loudness"] == pytest.approx(12.04, abs=0.5)
    assert quiet["onset"] == pytest.approx(0, abs=0.02)
    assert quiet["chroma"] == pytest.approx(0, abs=0.1)
    slow = np.repeat(music, 2)  # an octave lower, half as fast
    slower = distances(whole, measure(slow, SAMPLE_RATE_HZ))
    assert slower["onset"] > 0.5
    hiss = distances(whole, measure(noise(len(music), gain=0.1)[0], SAMPLE_RATE_HZ))
    assert hiss["chroma"] > 10
    assert hiss["spectral"] > 10


def test_another_key_is_no_other_music():
    low, high = (
        measure(
            np.concatenate([sine(f * k, RATE_HZ, 1.0)[0] for f in (262, 330, 392, 349)]), RATE_HZ
        )
        for k in (1.0, 2 ** (3 / 12))
    )
    assert distances(low, high)["chroma"] < 3
    noisy = measure(noise(4 * RATE_HZ)[0], RATE_HZ)
    assert distances(low, noisy)["chroma"] > 30


def test_what_has_no_onsets_has_no_distance_of_onsets():
    hum = measure(sine(200, RATE_HZ, 3.0)[0] * 0, RATE_HZ)
    assert distances(measure(prelude(), SAMPLE_RATE_HZ), hum)["onset"] is None


def test_following_is_told_by_correlation():
    music = prelude().astype(np.float32)
    same = followed(0.5 * music, music, SAMPLE_RATE_HZ)
    assert same["chroma"] == pytest.approx(1.0, abs=1e-3)
    assert followed(0 * music, music, SAMPLE_RATE_HZ)["loudness"] == 0.0


def test_drums_are_farther_from_music_than_noisy_music_is(folders, capsys, tmp_path):
    out = tmp_path / "sub" / "figures.json"
    music = folders / "music"
    code, text, _ = run(capsys, music, folders / "noisy", "--out", out, "--patches", 5)
    noisy = json.loads(out.read_text())
    assert code == 0
    assert "mean log-spectral distance" in text
    assert noisy["pairs"]["0"]["level_difference_db"] == pytest.approx(-0.9, abs=0.2)
    for name in ("log_spectral_distance_db", "note_f1", "frame_f1"):
        values = [pair[name] for pair in noisy["pairs"].values()]
        assert noisy[name] == pytest.approx(np.mean(values)), name
    assert noisy["note_f1"] > 0.75
    assert f"F1 of notes {noisy['note_f1']:.2f}, of frames {noisy['frame_f1']:.2f}" in text
    assert {*TITLES, "frechet", "kernel"} < noisy["distance"].keys()
    assert {*TITLES, "frechet", "kernel"} == noisy["distance"]["halves"].keys()
    for title, unit in TITLES.values():
        assert f"\n{title}, {unit} " in text
    code, text, _ = run(capsys, music, folders / "drums", "--json", "--patches", 5)
    drums = json.loads(text)
    assert code == 0
    assert drums["pairs"] == {}
    for name in ("frechet", "kernel", *DISTANCES):
        assert drums["distance"][name] > noisy["distance"][name], name
    assert drums == json.loads(run(capsys, music, folders / "drums", "--json", "--patches", 5)[1])


def test_the_reference_is_as_near_to_itself_as_its_halves_are(folders, capsys):
    code, text, _ = run(capsys, folders / "music", folders / "music")
    assert code == 0
    assert "cannot be distinguished from more of the reference" in text
    assert "F1 of notes 1.00, of frames 1.00 over 2 files" in text
    assert "are few" in text


@pytest.mark.parametrize("num_pieces", [2, 3, 8, 115])
@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_halves_of_a_reference_of_any_length_have_a_distance(num_pieces, last):
    """Pieces hold 4 patches, the last of a recording fewer."""
    rng = np.random.default_rng(num_pieces)
    statistics = measure(rng.standard_normal(RATE_HZ).astype(np.float32), RATE_HZ)
    lengths = [4] * (num_pieces - 1) + [last]
    silence = Transcription([], np.zeros((86, 11), np.uint8), 1.0)
    reference = [Piece("a", rng.standard_normal((n, 3)), statistics, silence) for n in lengths]
    found = compare(reference, reference, 0)
    if (num_pieces, last) == (2, 1):  # a half of one patch has no covariance
        assert "too short to compare" in found.reading()
        return
    assert 0 < found.halves < 10
    assert -100 < found.kernel_halves < 100
    assert found.frechet.size >= sum(lengths) // 2 - 4
    assert "too short" not in found.reading()


def test_following_a_recording_is_told(folders, capsys):
    source = folders / "music" / "0.wav"
    code, text, _ = run(
        capsys, folders / "music", folders / "noisy", "--follows", source, "--only", "0"
    )
    assert code == 0
    assert "0.flac: correlation with 0.wav: loudness" in text
    assert "1.flac" not in text


def test_files_that_cannot_be_used_are_skipped_by_name(folders, capsys, tmp_path):
    write(tmp_path / "short.wav", flute(1.0)[None], SAMPLE_RATE_HZ)
    write(tmp_path / "silent.wav", np.zeros((1, 5 * RATE_HZ)), RATE_HZ)
    broken = flute(5.0)[None]
    broken[0, 5] = np.nan
    write(tmp_path / "nan.wav", broken, SAMPLE_RATE_HZ, subtype="FLOAT")
    code, _, errors = run(capsys, folders / "music", tmp_path)
    assert code == 2
    assert errors.splitlines()[-1].startswith("rave evaluate: error: No file of the audio can be")
    for told in ("lasts 1.00 s; at least 2.98 s are needed", "is silent", "NaN"):
        assert told in errors.splitlines()[-1]
    write(tmp_path / "good.wav", flute()[None], SAMPLE_RATE_HZ)
    code, text, _ = run(capsys, folders / "music", tmp_path)
    assert code == 1
    assert "skipped audio 'silent.wav'" in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--seed", -1], "is not a seed"),
        (["--sample-rate", 500], "8000 to 96000 Hz"),
        (["--out", "figures.txt"], "ends in .json"),
        (["--follows", "nowhere.wav"], "does not exist"),
        (["--only", "nothing"], "holds no file 'nothing'"),
        (["--patches", 10000], "Sets of 10000 patches"),
    ],
)
def test_options_that_cannot_be_used_are_refused(folders, capsys, options, told):
    code, _, errors = run(capsys, folders / "music", folders / "noisy", *options)
    assert code == 2
    assert told in errors.splitlines()[-1]


def test_every_file_is_compared_with_its_own_or_said_to_be_left_out(folders, tmp_path, capsys):
    music = [soundfile.read(folders / "music" / f"{n}.wav")[0][None] for n in range(2)]
    for name, audio in (("a.wav", music[0]), ("a.flac", music[1]), ("b.wav", music[1])):
        write(tmp_path / "in" / name, audio, SAMPLE_RATE_HZ)
    for name, audio in (("a.wav.wav", music[0]), ("a.flac.wav", music[1]), ("c.wav", music[0])):
        write(tmp_path / "out" / name, audio, SAMPLE_RATE_HZ)
    out = tmp_path / "figures.json"
    code, text, _ = run(capsys, tmp_path / "in", tmp_path / "out", "--patches", 5, "--out", out)
    figures = json.loads(out.read_text())
    assert code == 0
    assert {*figures["pairs"]} == {"a.wav", "a.flac"}
    for pair in figures["pairs"].values():  # each with its own, not with the other
        assert pair["log_spectral_distance_db"] < 1.0
    assert figures["not_compared_one_by_one"] == {
        "reference": {"b.wav": "no file has the same name"},
        "audio": {"c.wav": "no file has the same name"},
    }
    assert "reference 'b.wav': not compared one by one, no file has the same name" in text
    assert (
        "holds no file 'd' (--only)"
        in run(capsys, tmp_path / "in", tmp_path / "out", "--only", "a.wav", "d")[2]
    )


names = st.sets(st.sampled_from(["a", "a.wav", "b"]).flatmap(
    lambda stem: st.sampled_from([f"{stem}{suffix}" for suffix in (".wav", ".flac", ".mp3")])
), min_size=1)  # fmt: skip


@given(names, names)
def test_pairs_are_one_to_one_and_every_other_file_has_a_reason(reference, audio):
    pairs, left_out = pair_names(reference, audio)
    firsts, seconds = ([pair[side] for pair in pairs.values()] for side in (0, 1))
    for side, paired, given_names in (("reference", firsts, reference), ("audio", seconds, audio)):
        assert sorted([*paired, *left_out[side]]) == sorted(given_names)
        assert len(pairs) == len({*paired})
    made = {name: f"{found}.wav" for name, found in result_names(reference, "").items()}
    pairs, left_out = pair_names(reference, made.values())  # what rave generate makes of them
    for first, second in pairs.values():
        assert made[first] == second
