import json

import numpy as np
import pytest
import soundfile
from audio_files import noise, sine, write

from rave.latents.blending import lerp, mean, mean_of_length, slerp


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Three recordings: 0.5 s, 0.6 s and 0.7 s."""
    folder = tmp_path_factory.mktemp("songs")
    return [
        write(folder / f"{i}.wav", sine(f, 22050, s) + noise(round(s * 22050), seed=i), 22050)
        for i, (f, s) in enumerate(((300, 0.5), (900, 0.6), (2500, 0.7)))
    ]


def clip(seed, num_frames=50, size=6):
    return np.random.default_rng(seed).standard_normal((size, num_frames)).astype(np.float32)


def lengths(latents):
    return np.linalg.norm(latents, axis=0)


# Laws


@pytest.mark.parametrize("blend", [lerp, slerp])
def test_a_blend_begins_and_ends_with_its_clips(blend):
    a, b = clip(0), clip(1)
    assert np.allclose(blend(a, b, 0.0), a, atol=1e-5)
    assert np.allclose(blend(a, b, 1.0), b, atol=1e-5)
    assert np.allclose(blend(a, b, 0.3), blend(b, a, 0.7), atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_slerp_blends_lengths_along_a_line_and_turns_at_a_steady_rate(weight):
    a, b = clip(0), 3 * clip(1)
    blend = slerp(a, b, weight)
    assert np.allclose(lengths(blend), (1 - weight) * lengths(a) + weight * lengths(b), rtol=1e-4)

    def angle(x, y):
        return np.arccos(np.clip((x * y).sum(axis=0) / lengths(x) / lengths(y), -1, 1))

    assert np.allclose(angle(a, blend), weight * angle(a, b), atol=2e-3)


def test_lerp_of_independent_clips_shrinks_them():
    a, b = clip(0, 4000, 32), clip(1, 4000, 32)
    assert lengths(lerp(a, b, 0.5)).mean() / lengths(a).mean() == pytest.approx(0.5**0.5, rel=0.02)


def test_slerp_of_equal_vectors_is_the_vector():
    a = clip(0)
    assert np.allclose(slerp(a, a, 0.37), a, atol=1e-5)
    assert np.allclose(slerp(a, 2 * a, 0.5), 1.5 * a, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_slerp_of_opposite_and_of_zero_vectors_is_on_the_line(weight):
    a = clip(0)
    for b in (-a, -2 * a, np.zeros_like(a), a * (1 + 1e-7)):
        for x, y in ((a, b), (b, a)):
            blend, length = slerp(x, y, weight), lerp(lengths(x), lengths(y), weight)
            line = lerp(*(each / np.maximum(lengths(each), 1e-9) for each in (x, y)), weight)
            has_direction = lengths(line) > 1e-3  # not half way between opposite ones
            line = length * line / np.maximum(lengths(line), 1e-9)
            assert np.isfinite(blend).all()
            assert np.allclose(blend[:, has_direction], line[:, has_direction], atol=1e-3)
    zero = np.zeros_like(a)
    assert np.array_equal(slerp(zero, zero, weight), zero)


def test_the_mean_of_several_has_their_centre_or_their_length():
    clips = [clip(seed) for seed in range(4)]
    assert np.allclose(mean(clips), sum(clips) / 4, atol=1e-6)
    brought = mean_of_length(clips)
    assert np.allclose(lengths(brought), np.mean([lengths(c) for c in clips], axis=0), rtol=1e-4)
    cosine = (brought * mean(clips)).sum(axis=0) / lengths(brought) / lengths(mean(clips))
    assert np.allclose(cosine, 1, atol=1e-5)
    assert np.allclose(mean_of_length([clips[0]] * 3), clips[0], atol=1e-5)


# The command


def test_two_recordings_give_both_paths_and_both_means(run, songs, tmp_path, rave):
    code, out, _ = rave("interpolate", run, *songs[:2], tmp_path / "out", "--steps", 3, "--json")
    assert code == 0
    figures = json.loads(out)
    weights = ("00_0.00", "01_0.50", "02_1.00")
    names = {f"{kind}_{w}" for kind in ("lerp", "slerp") for w in weights}
    names |= {"mean", "mean_of_length"}
    assert set(figures["blends"]) == names
    assert {path.stem for path in (tmp_path / "out").glob("*.wav")} == names
    infos = [soundfile.info(path) for path in (tmp_path / "out").glob("*.wav")]
    assert {(info.samplerate, info.frames) for info in infos} == {(22050, 173 * 64)}
    assert figures["cut_s"][str(songs[0])] == 0
    assert figures["cut_s"][str(songs[1])] == pytest.approx(0.1, abs=0.01)
    length = {name: blend["latent_length"] for name, blend in figures["blends"].items()}
    ends = (length["lerp_00_0.00"] + length["lerp_02_1.00"]) / 2
    assert length["slerp_01_0.50"] == pytest.approx(ends, rel=1e-3)
    assert length["mean_of_length"] == pytest.approx(ends, rel=1e-3)
    assert length["mean"] == pytest.approx(length["lerp_01_0.50"], rel=1e-3)
    assert length["mean"] < 0.99 * ends


def test_the_ends_are_the_decoded_recordings(run, songs, tmp_path, rave):
    assert rave("interpolate", run, *songs[:2], tmp_path / "blends", "--steps", 2)[0] == 0
    assert rave("encode", run, songs[0].parent, tmp_path / "latents")[0] == 0
    assert rave("decode", run, tmp_path / "latents", tmp_path / "decoded")[0] == 0
    for kind in ("lerp", "slerp"):
        for name, song in (("00_0.00", "0"), ("01_1.00", "1")):
            blend, _ = soundfile.read(tmp_path / "blends" / f"{kind}_{name}.wav")
            decoded, _ = soundfile.read(tmp_path / "decoded" / f"{song}.wav")
            # Recordings are cut to the shortest, whose end the longer one's decoder does not see.
            count = min(len(blend), len(decoded)) - 64 * 20
            assert np.abs(decoded[:count]).max() > 0.01
            assert np.abs(blend[:count] - decoded[:count]).max() < 1e-3


def test_three_recordings_give_their_decoded_means_only(run, songs, tmp_path, rave):
    code, out, _ = rave("interpolate", run, *songs, tmp_path / "out", "--json")
    assert code == 0
    assert set(json.loads(out)["blends"]) == {"mean", "mean_of_length"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "mean.wav",
        "mean_of_length.wav",
    }
    assert rave("encode", run, songs[0].parent, tmp_path / "latents")[0] == 0
    first = tmp_path / "latents" / "0.npy"  # of the shortest
    num_frames = np.load(first).shape[1]
    clips = [np.load(tmp_path / "latents" / f"{i}.npy")[:, :num_frames] for i in range(3)]
    mean_length = sum(map(lengths, clips)) / 3
    wanted = {"mean": sum(clips) / 3}
    wanted["mean_of_length"] = wanted["mean"] * mean_length / lengths(wanted["mean"])
    for name, latents in wanted.items():
        np.save(first, latents.astype(np.float32))
        assert rave("decode", run, tmp_path / "latents", tmp_path / name)[0] == 0
        decoded, _ = soundfile.read(tmp_path / name / "0.wav")
        blend, _ = soundfile.read(tmp_path / "out" / f"{name}.wav")
        count = min(len(blend), len(decoded))  # of whole frames, and of the recording
        assert len(blend) - count < 64
        assert np.abs(decoded).max() > 0.01
        assert np.abs(blend[:count] - decoded[:count]).max() < 1e-3


def test_the_summary_tells_what_was_cut(run, songs, tmp_path, rave):
    _, out, _ = rave("interpolate", run, *songs[:2], tmp_path / "out", "--steps", 2)
    assert "holds 6 blends:" in out
    assert f"cut the last 0.10 s of {songs[1]}" in out
    assert f"of {songs[0]}" not in out


def test_input_that_cannot_be_blended_is_refused(run, songs, tmp_path, rave):
    def error(*arguments):
        code, out, err = rave("interpolate", run, *arguments)
        assert (code, out) == (2, "")
        return err

    assert "One recording was given; two or more are needed" in error(songs[0], tmp_path / "out")
    assert "--steps 1 was given" in error(*songs, tmp_path / "out", "--steps", 1)
    assert f"'{songs[2]}' is a file" in error(*songs)  # the output folder was forgotten
    assert "does not exist" in error(songs[0], tmp_path / "none.wav", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    assert "is not empty" in error(*songs, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["a.txt"]
    assert not (tmp_path / "out").exists()


def test_a_full_folder_is_used_by_force(run, songs, tmp_path, rave):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("kept")
    (tmp_path / "full" / "mean.wav").write_text("replaced")
    assert rave("interpolate", run, *songs, tmp_path / "full", "--force")[0] == 0
    assert (tmp_path / "full" / "a.txt").read_text() == "kept"
    for name in ("mean.wav", "mean_of_length.wav"):
        assert soundfile.info(tmp_path / "full" / name).samplerate == 22050
