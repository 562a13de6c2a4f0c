import json
import shutil

import numpy as np
import pytest
import soundfile
from audio_files import noise, sine, write
from rave_models import SHORT, write_run

from diffwave.clips import split_clips
from rave.api.augment import MAX_SHIFT_S
from rave.audio.prepared import PreparedAudio
from rave.cli import EXIT_SKIPPED, execute
from rave.commands import augment, preprocess
from rave.dataset import split_audio
from rave.held_out import Origin, origin, originals, split_names
from rave.latents.folder import LatentFile, LatentHeader
from rave.latents.shards import LatentShards
from rave.parsing import EXIT_ERROR

RATE_HZ = 22050


@pytest.fixture
def run(tmp_path):
    """Return a function that runs `rave augment` from in/ to out/ and returns its exit code."""
    (tmp_path / "in").mkdir()

    def run(*options):
        arguments = [str(tmp_path / "in"), str(tmp_path / "out"), *options]
        return execute(augment.parser(), augment.run, arguments)

    return run


def files_in(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def peak_hz(path):
    audio, rate_hz = soundfile.read(path)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 18))
    return np.argmax(spectrum) * rate_hz / (1 << 18)


def test_a_version_is_higher_and_shorter_by_its_semitones(tmp_path, run):
    source = write(tmp_path / "in" / "deep" / "a.wav", sine(440, RATE_HZ, 4.0), RATE_HZ)
    assert run("--semitones", "-2", "0", "7") == 0
    folder = tmp_path / "out" / "deep"
    assert (folder / "a.wav").read_bytes() == source.read_bytes()
    for number, semitones in enumerate((-2, 0, 7), 1):
        path = folder / f"a~{number}.flac"
        assert peak_hz(path) == pytest.approx(440 * 2 ** (semitones / 12), rel=1e-3)
        lost_s = 4.0 / 2 ** (semitones / 12) - soundfile.info(path).duration
        assert 0 <= lost_s <= MAX_SHIFT_S


def test_a_version_at_0_semitones_is_the_recording_later_and_perhaps_upside_down(tmp_path, run):
    original = np.random.default_rng(0).integers(-3000, 3000, (2, RATE_HZ)).astype(np.int16)
    write(tmp_path / "in" / "a.flac", original, RATE_HZ)
    assert run("--semitones", *["0"] * 8) == 0
    signs, begins = set(), set()
    for number in range(1, 9):
        audio, rate_hz = soundfile.read(
            tmp_path / "out" / f"a~{number}.flac", dtype="int16", always_2d=True
        )
        assert rate_hz == RATE_HZ
        expected = original[:, RATE_HZ - len(audio) :].T.astype(int)
        sign = np.sign((expected * audio).sum())
        assert np.array_equal(audio, sign * expected)
        signs.add(sign)
        begins.add(len(audio))
    assert signs == {-1, 1} and len(begins) == 8


def test_the_same_command_continues_and_makes_the_same(tmp_path, run):
    for index in range(3):
        write(tmp_path / "in" / f"{index}.wav", noise(9000, seed=index), RATE_HZ)
    assert run("--semitones", "1", "0") == 0
    made = files_in(tmp_path / "out")
    (tmp_path / "out" / "1.wav").unlink()
    (tmp_path / "out" / "1~2.flac").write_bytes(b"cut off")
    assert run("--semitones", "1", "0") == 0
    assert {k: v for k, v in files_in(tmp_path / "out").items() if "jsonl" not in k} == {
        k: v for k, v in made.items() if "jsonl" not in k
    }


def test_what_cannot_be_used_is_skipped_or_refused_in_a_sentence(tmp_path, run, capsys):
    write(tmp_path / "in" / "a.wav", noise(9000), RATE_HZ)
    (tmp_path / "in" / "b.wav").write_bytes(b"no audio")
    assert run("--json") == EXIT_SKIPPED
    figures = json.loads(capsys.readouterr().out)
    assert list(figures["skipped"]) == ["b.wav"]
    assert figures["recorded_s"] == pytest.approx(9000 / RATE_HZ)
    assert figures["duration_s"] > 5 * figures["recorded_s"]
    assert run("--semitones", "30") == EXIT_ERROR
    assert "it must be from -12 to 12" in capsys.readouterr().err
    (tmp_path / "out" / "a~1.flac").rename(tmp_path / "in" / "b.flac")
    assert run("--force") == EXIT_ERROR
    assert "'b.flac' is a version of 'a.wav' that `rave augment` wrote" in capsys.readouterr().err


@pytest.mark.parametrize("options", ["--semitones 1", "--semitones 1 2 --seed 1"])
def test_versions_of_other_settings_are_replaced_and_none_is_left(tmp_path, run, options):
    write(tmp_path / "in" / "a.wav", noise(9000), RATE_HZ)
    assert run("--semitones", "0", "1", "2") == 0
    (tmp_path / "out" / "a~4.flac").write_bytes(b"of the user")
    assert run(*options.split()) == EXIT_ERROR
    assert run(*options.split(), "--force") == 0
    left = {"a.wav", "a~4.flac", "a~1.flac"} | ({"a~2.flac"} if " 2 " in options else set())
    assert {path.name for path in (tmp_path / "out").glob("a*")} == left


def test_a_header_states_what_is_a_version_and_a_name_shows_nothing():
    names = ("a~1.npy", "a.npy", "b~1.npy", "b~2.npy")
    for stated in (None, True):
        by_name = {name: origin(name, stated and name.removesuffix(".npy")) for name in names}
        assert originals(by_name) == list(names)
    by_name = {name: origin(name, name[0]) for name in names}
    assert originals(by_name) == ["a.npy", "b~1.npy"]
    assert origin("b/a~12.npy", "b/a") == Origin("b/a", True)
    assert origin("b/a~12.npy", None) == Origin("b/a~12", False)


def test_versions_are_on_the_side_of_their_recording_and_never_held_out():
    recordings = {f"{index}.flac": Origin(f"{index}") for index in range(10)}
    versions = {f"{i}{kind}.flac": Origin(f"{i}", True) for i in range(10) for kind in "ab"}
    training, held_out = split_names(recordings, 0.3)
    more_training, same_held_out = split_names(recordings | versions, 0.3)
    assert same_held_out == held_out and len(held_out) == 3
    assert {name[0] for name in more_training} == {name[0] for name in training}
    assert len(more_training) == 3 * len(training)


def test_of_one_recording_and_its_versions_the_end_is_held_out(tmp_path, run):
    write(tmp_path / "in" / "a.wav", noise(40_000), RATE_HZ)
    assert run("--semitones", "-3", "3") == 0
    folders = [str(tmp_path / "out"), str(tmp_path / "prepared"), "--sample-rate", str(RATE_HZ)]
    assert execute(preprocess.parser(), preprocess.run, folders) == 0
    training, held_out = split_audio(PreparedAudio(tmp_path / "prepared"), 0.2)
    assert [piece.name for piece in held_out] == ["a.wav [32000:40000]"]
    assert [piece.file.name for piece in training] == ["a.wav", "a~1.flac", "a~2.flac"]
    for piece in training:
        assert piece.num_samples == pytest.approx(0.8 * piece.file.num_samples, abs=1)
    names = ("a", "a~1", "a~2")
    files = [LatentFile(f"{n}.npy", 100, None, RATE_HZ, 1, recording="a") for n in names]
    clips, held_out_clips = split_clips(files, 0.2)
    assert [(clip.start, clip.stop) for clip in clips] == [(0, 80)] * 3
    assert [(c.file.path, c.start, c.stop) for c in held_out_clips] == [("a.npy", 80, 100)]


def test_versions_are_what_augment_wrote_and_not_what_a_name_looks_like(tmp_path, run, rave):
    names = ["RECORD~1.WAV", "RECORD~2.WAV", "a.wav", "a.flac", "b.wav", "sub/a~1.flac"]
    for index, name in enumerate(names):
        write(tmp_path / "in" / name, noise(6000 + 100 * index, seed=index), RATE_HZ)
    assert run("--semitones", "-3", "3") == 0
    place = tmp_path / "elsewhere" / "moved"  # without the hidden files
    shutil.copytree(tmp_path / "out", place, ignore=shutil.ignore_patterns(".*"))
    codec = write_run(tmp_path / "codec", "v2", *SHORT)
    for command, *words in (
        ("preprocess", place.parent, tmp_path / "prepared", "--sample-rate", RATE_HZ),
        ("encode", codec, place.parent, tmp_path / "latents"),
        ("shard", tmp_path / "latents", tmp_path / "shards"),
        ("unshard", tmp_path / "shards", tmp_path / "again"),
    ):
        assert rave(command, *words)[0] == 0
    latents, again = (LatentHeader.read(tmp_path / name).files for name in ("latents", "again"))
    assert {file.source: file.origin for file in again} == {f.source: f.origin for f in latents}
    found = [file.source for file in latents if not file.origin.is_version]
    assert {*found} == {f"moved/{name}" for name in names}
    assert len({file.origin.recording for file in latents}) == len(names)
    assert len(latents) == 3 * len(names)
    for fraction in (0.2, 0.5):
        training, held_out = split_audio(PreparedAudio(tmp_path / "prepared"), fraction)
        sources = [piece.name for piece in training], [piece.name for piece in held_out]
        assert {*sources[1]} < {*found} and len(sources[0]) == 3 * (6 - len(sources[1]))
        for files in (latents, LatentShards(tmp_path / "shards")):
            sides = split_clips(files, fraction)
            assert [{c.file.source for c in side} for side in sides] == [{*s} for s in sources]


def test_a_version_whose_recording_is_gone_stays_on_one_side(tmp_path, run, rave):
    for index in range(3):
        write(tmp_path / "in" / f"{index}.wav", noise(6000, seed=index), RATE_HZ)
    assert run("--semitones", "-1", "1") == 0
    (tmp_path / "out" / "1.wav").unlink()
    folders = (tmp_path / "out", tmp_path / "prepared", "--sample-rate", RATE_HZ)
    assert rave("preprocess", *folders)[0] == 0
    files = PreparedAudio(tmp_path / "prepared").files
    assert originals({file.name: file.origin for file in files}) == ["0.wav", "1~1.flac", "2.wav"]
    assert len({file.origin.recording for file in files}) == 3
