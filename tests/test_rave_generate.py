import pytest
import soundfile
from audio_files import noise, write


@pytest.fixture
def audio(tmp_path):
    """Return a folder of audio of several kinds, rates and lengths."""
    folder = tmp_path / "audio"
    write(folder / "a.wav", noise(22050), 22050)
    write(folder / "sub" / "b.flac", noise(30001, 2), 48000)
    write(folder / "sub" / "c.mp3", noise(20000), 44100)
    return folder


def contents(folder):
    """Return the bytes of every file that is not hidden."""
    files = (p for p in folder.rglob("*") if p.is_file())
    named = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
    return {name: data for name, data in named.items() if not name.startswith(".")}


def test_generate_is_encode_then_decode(run, audio, tmp_path, rave):
    assert rave("generate", run, audio, tmp_path / "out")[0] == 0
    assert rave("encode", run, audio, tmp_path / "latents")[0] == 0
    assert rave("decode", run, tmp_path / "latents", tmp_path / "decoded")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "decoded")
    assert set(contents(tmp_path / "out")) == {"a.wav", "sub/b.wav", "sub/c.wav"}


def test_length_and_rate_of_every_source_are_kept(run, audio, tmp_path, rave):
    assert rave("generate", run, audio, tmp_path / "out")[0] == 0
    for name in ("a.wav", "sub/b.flac"):
        source = soundfile.info(audio / name)
        found = soundfile.info((tmp_path / "out" / name).with_suffix(".wav"))
        assert (found.frames, found.samplerate) == (source.frames, source.samplerate)


def test_single_files_and_folders_may_be_mixed(run, audio, tmp_path, rave):
    write(tmp_path / "solo.wav", noise(5000), 22050)
    inputs = (audio / "sub", tmp_path / "solo.wav")
    code, text, _ = rave("generate", run, *inputs, tmp_path / "out")
    assert code == 0
    assert "Decoded 3 files" in text
    assert set(contents(tmp_path / "out")) == {"b.wav", "c.wav", "solo.wav"}


def test_the_same_command_does_only_what_is_left(run, audio, tmp_path, rave):
    rave("generate", run, audio, tmp_path / "out")
    before = contents(tmp_path / "out")
    write(audio / "d.wav", noise(4000), 22050)
    (tmp_path / "out" / "a.wav").unlink()
    code, text, _ = rave("generate", run, audio, tmp_path / "out")
    assert code == 0
    assert "Decoded 2 files, 2 unchanged" in text
    after = contents(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert "d.wav" in after


def test_a_source_is_never_written_over(run, audio, tmp_path, rave):
    original = (audio / "a.wav").read_bytes()
    for inputs, out in (
        ([audio / "a.wav"], audio),
        ([audio / "a.wav"], tmp_path / "link"),
        ([audio], audio),
        ([audio], audio / "out"),
    ):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(audio)
        code, _, error = rave("generate", run, *inputs, out, "--force")
        assert code == 2
        assert "would overwrite its source" in error or "inside the input folder" in error
        assert (audio / "a.wav").read_bytes() == original
    assert not (audio / "out").exists()


def test_a_file_of_someone_else_is_replaced_only_with_force(run, audio, tmp_path, rave):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wav").write_bytes(b"mine")
    code, _, error = rave("generate", run, audio, tmp_path / "out")
    assert code == 2
    assert "a.wav' exists, and `rave generate` did not write it" in error
    assert contents(tmp_path / "out") == {"a.wav": b"mine"}
    assert rave("generate", run, audio, tmp_path / "out", "--force")[0] == 0
    assert contents(tmp_path / "out")["a.wav"].startswith(b"RIFF")


def test_two_sources_of_one_name_are_refused(run, audio, tmp_path, rave):
    write(tmp_path / "other" / "a.wav", noise(4000), 22050)
    code, _, error = rave("generate", run, audio, tmp_path / "other", tmp_path / "out")
    assert code == 2
    assert "would both be written as 'a.wav'" in error
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_used_is_skipped_and_named(run, audio, tmp_path, rave):
    (audio / "empty.wav").touch()
    code, text, _ = rave("generate", run, audio, tmp_path / "out")
    assert code == 1
    assert "skipped empty.wav" in text
    assert len(contents(tmp_path / "out")) == 3
    code, _, error = rave("generate", run, tmp_path / "nothing", tmp_path / "out")
    assert code == 2
    assert "'" + str(tmp_path / "nothing") + "' does not exist" in error
