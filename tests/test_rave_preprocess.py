import errno
import json
import subprocess
import sys

import numpy as np
import pytest
from audio_files import noise, sine, write, write_with_av

import rave.audio.io
from rave.audio.prepared import PreparedHeader
from rave.cli import EXIT_INTERRUPTED, EXIT_SKIPPED, execute
from rave.commands import preprocess
from rave.dataset import PreparedAudioDataset
from rave.parsing import EXIT_ERROR


@pytest.fixture
def prepare(tmp_path):
    """Return a function that runs `rave preprocess` from in/ to out/ and returns its exit code."""
    (tmp_path / "in").mkdir()

    def run(*options):
        arguments = [str(tmp_path / "in"), str(tmp_path / "out"), *options]
        return execute(preprocess.parser(), preprocess.run, arguments)

    return run


def samples(folder, name, num_channels=1):
    entry = next(file for file in PreparedHeader.read(folder).files if file.name == name)
    return np.fromfile(folder / entry.path, "<i2").reshape(-1, num_channels).T


def prepared_names(folder):
    return [file.name for file in PreparedHeader.read(folder).files]


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_16_bit_audio_at_its_own_rate_is_kept_bit_for_bit(tmp_path, prepare):
    original = np.random.default_rng(0).integers(-32768, 32768, (2, 99_999)).astype(np.int16)
    write(tmp_path / "in" / "a.flac", original, 44100)
    assert prepare("--channels", "2") == 0
    assert np.array_equal(samples(tmp_path / "out", "a.flac", 2), original)


def test_any_format_rate_depth_and_channels_in_nested_folders(tmp_path, prepare, capsys):
    audio = sine(440, 22050, 0.5)
    folder = tmp_path / "in"
    write(folder / "8 bit.wav", audio, 22050, subtype="PCM_U8")
    write(folder / "deep" / "er" / "7.1.wav", np.tile(audio, (8, 1)), 22050, subtype="PCM_24")
    write(folder / "same.wav", audio, 22050)
    write(folder / "same.flac", audio, 22050)
    write(folder / "ünï 音.ogg", audio, 22050)
    write(folder / "one.wav", audio[:, 500:501], 22050)
    write_with_av(folder / "av.m4a", audio, 22050)
    assert prepare("--sample-rate", "48000") == 0
    header = PreparedHeader.read(tmp_path / "out")
    assert (header.sample_rate_hz, header.num_channels, header.skipped) == (48000, 1, {})
    lengths = {file.name: file.num_samples for file in header.files}
    assert lengths.pop("one.wav") == 2
    assert abs(lengths.pop("av.m4a") - 24000) < 4096
    assert lengths == dict.fromkeys(
        ["8 bit.wav", "deep/er/7.1.wav", "same.flac", "same.wav", "ünï 音.ogg"], 24000
    )
    assert "holds 7 files, 0.1 minutes, 48000 Hz, 1 channel" in capsys.readouterr().out
    assert PreparedAudioDataset(tmp_path / "out", 1000, 1)[0].shape == (1, 1000)


def test_unusable_files_are_named_and_counted_and_do_not_stop_the_rest(tmp_path, prepare, capsys):
    folder = tmp_path / "in"
    write(folder / "good.wav", noise(1000))
    write(folder / "nan.wav", noise(1000) * np.float32("nan"), subtype="FLOAT")
    (folder / "a.mp3").write_text("words")
    (folder / "b.wav").touch()
    (folder / "gone.wav").symlink_to(folder / "none")
    assert prepare() == EXIT_SKIPPED
    out = capsys.readouterr().out
    assert out.startswith("Prepared 1 files, 0 unchanged, 4 skipped:\n")
    for name in ("nan.wav", "a.mp3", "b.wav", "gone.wav"):
        assert f"\n  skipped {name}: " in out
    header = PreparedHeader.read(tmp_path / "out")
    assert [file.name for file in header.files] == ["good.wav"]
    assert sorted(header.skipped) == ["a.mp3", "b.wav", "gone.wav", "nan.wav"]
    assert files_in(tmp_path / "out") == [".preprocess.jsonl", "good.pcm", "prepared.json"]


def test_what_is_limited_or_silent_is_reported(tmp_path, prepare, capsys):
    loud = noise(1000)
    loud[0, :3] = [1.5, -2, 1]
    write(tmp_path / "in" / "loud.wav", loud, subtype="FLOAT")
    write(tmp_path / "in" / "silent.wav", np.zeros((1, 100), np.float32))
    assert prepare() == 0
    out, err = capsys.readouterr()
    assert "warning: loud.wav: 2 samples beyond full scale were limited (peak 2)." in err
    assert "If that is audible, lower the level of the recording." in err
    assert "silent silent.wav: used nevertheless" in out
    assert prepare("--json") == 0  # remembered, not only said once
    figures = json.loads(capsys.readouterr().out)
    assert figures["num_limited_samples"] == {"loud.wav": 2}
    assert figures["peak"] == {"loud.wav": 2.0, "silent.wav": 0.0}
    assert figures["silent"] == ["silent.wav"]
    assert (figures["num_done"], figures["num_unchanged"]) == (0, 2)


def test_the_same_command_does_only_what_is_new_changed_or_gone(tmp_path, prepare, capsys):
    folder = tmp_path / "in"
    for name in ("kept.wav", "changed.wav", "removed.wav"):
        write(folder / name, noise(1000))
    assert prepare() == 0
    kept = (tmp_path / "out" / "kept.pcm").stat()
    write(folder / "changed.wav", noise(2000))
    write(folder / "new.wav", noise(500))
    (folder / "removed.wav").unlink()
    capsys.readouterr()
    assert prepare("--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_done"], figures["num_unchanged"], figures["num_removed"]) == (2, 1, 1)
    assert (tmp_path / "out" / "kept.pcm").stat() == kept
    assert prepared_names(tmp_path / "out") == ["changed.wav", "kept.wav", "new.wav"]
    assert not (tmp_path / "out" / "removed.pcm").exists()
    assert samples(tmp_path / "out", "changed.wav").shape == (1, 2000)


def test_other_settings_need_force(tmp_path, prepare, capsys):
    write(tmp_path / "in" / "a.wav", noise(1000))
    assert prepare() == 0
    assert prepare("--channels", "2") == EXIT_ERROR
    assert "num_channels 1, now 2" in capsys.readouterr().err
    assert PreparedHeader.read(tmp_path / "out").num_channels == 1
    assert prepare("--channels", "2", "--force") == 0
    assert samples(tmp_path / "out", "a.wav", 2).shape == (2, 1000)


class InterruptedStream(rave.audio.io.AudioStream):
    """Raises an error in the middle of the file named b.wav."""

    error: BaseException

    def __iter__(self):
        for number, block in enumerate(super().__iter__()):
            if self.path.name == "b.wav" and number == 1:
                raise self.error
            yield block


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted; the same command continues"),
        (OSError(errno.ENOSPC, "No space left on device"), EXIT_ERROR, "No space left on device"),
    ],
)
def test_a_stopped_run_leaves_whole_files_and_continues(
    tmp_path, prepare, monkeypatch, capsys, error, code, message
):
    for name in ("a.wav", "b.wav", "c.wav"):
        write(tmp_path / "in" / name, noise(200_000))
    with monkeypatch.context() as patch:
        patch.setattr("rave.api.preprocess.AudioStream", InterruptedStream)
        patch.setattr(InterruptedStream, "error", error, raising=False)
        assert prepare() == code
    assert f"rave preprocess: {'error: ' if code == 2 else ''}{message}" in capsys.readouterr().err
    assert files_in(tmp_path / "out") == [".preprocess.jsonl", "a.pcm"]
    (tmp_path / "out" / ".partial-killed.pcm").touch()
    assert prepare("--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_done"], figures["num_unchanged"]) == (2, 1)
    names = [f"{name}.pcm" for name in "abc"]
    assert files_in(tmp_path / "out") == [".preprocess.jsonl", *names, "prepared.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_disk_that_is_really_full_is_one_sentence(tmp_path, prepare):
    write(tmp_path / "in" / "a.wav", noise(300_000))
    program = (
        "import resource, signal, sys; from rave.cli import execute;"
        "from rave.commands import preprocess;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "sys.exit(execute(preprocess.parser(), preprocess.run))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_ERROR
    assert "rave preprocess: error: File too large. What was finished" in done.stderr
    assert "Traceback" not in done.stderr
    assert not files_in(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sample-rate", "1"], "The sample rate is 1 Hz; it must be from 1000 to 768000 Hz"),
        (["--channels", "0"], "0 channels were given"),
        ([], "holds no audio files. Supported suffixes:"),
    ],
)
def test_bad_input_is_refused_before_all_work(tmp_path, prepare, capsys, options, message):
    assert prepare(*options) == EXIT_ERROR
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_inside_the_input_is_refused(tmp_path, capsys):
    write(tmp_path / "a.wav", noise(10))
    for folder in (tmp_path, tmp_path / "prepared"):
        arguments = [str(tmp_path), str(folder)]
        assert execute(preprocess.parser(), preprocess.run, arguments) == EXIT_ERROR
        assert "is inside the input folder" in capsys.readouterr().err
    assert files_in(tmp_path) == ["a.wav"]


def test_a_folder_without_a_usable_file_is_an_error(tmp_path, prepare, capsys):
    (tmp_path / "in" / "a.wav").write_text("words")
    assert prepare() == EXIT_ERROR
    error = capsys.readouterr().err
    assert "No file of" in error
    assert "skipped a.wav: 'a.wav' cannot be decoded" in error
    assert not (tmp_path / "out" / "prepared.json").exists()


def test_help_ends_with_an_example():  # and imports nothing heavy: test_imports.py
    assert preprocess.parser().format_help().rstrip().endswith("--channels 2")
