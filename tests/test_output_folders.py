"""What someone else left in a folder that is written into: links, pipes, folders, journals."""

import json
import os
import signal

import numpy as np
import pytest
from audio_files import noise, write
from rave_models import write_run

from rave.experiment import save_run
from rave.files.atomic import read_json, remove_partials, write_json
from rave.jobs.journal import Journal, sole_writer
from rave.latents.folder import open_array
from rave.main_cli import main
from rave.runs.checkpoint import last_checkpoint, read_checkpoint
from rave.runs.gin_text import read_bindings

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")


@pytest.fixture(autouse=True)
def never_waits():
    """End a test that waits for a pipe."""

    def stop(number, frame):
        raise AssertionError("it waits for ever")

    former = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


@pytest.fixture
def command(tmp_path):
    """A command that writes into the folder out, as words."""
    write(tmp_path / "audio" / "sub" / "a.wav", noise(16000), 16000)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.pcm").write_text("precious")
    (tmp_path / "out").mkdir()
    return ["preprocess", str(tmp_path / "audio"), str(tmp_path / "out"), "--sample-rate", "16000"]


def elsewhere(tmp_path):
    return {path.name: path.read_text() for path in (tmp_path / "elsewhere").iterdir()}


def test_a_folder_that_is_a_link_out_of_the_output_folder_is_not_written_through(
    command, tmp_path, capsys
):
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"'{tmp_path}/out/sub' is a link to '{tmp_path}/elsewhere', outside" in told
    assert elsewhere(tmp_path) == {"a.pcm": "precious"}


def test_nothing_is_removed_through_a_link_that_a_journal_names(command, tmp_path, capsys):
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    settings = {"sample_rate_hz": 16000, "num_channels": 1}
    lines = [{"settings": settings}, {"name": "gone.wav", "record": {"path": "sub/a.pcm"}}]
    journal = tmp_path / "out" / ".preprocess.jsonl"
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"'{tmp_path}/out/sub' is a link to '{tmp_path}/elsewhere', outside" in told
    assert elsewhere(tmp_path) == {"a.pcm": "precious"}


@pytest.mark.parametrize("name", [".preprocess.jsonl", "prepared.json", "a.pcm"])
def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(name, command, tmp_path):
    write(tmp_path / "audio" / "a.wav", noise(16000), 16000)
    target = tmp_path / "elsewhere" / "target"
    target.write_text("")
    (tmp_path / "out" / name).symlink_to(target)
    assert main(command) == 0
    assert target.read_text() == ""
    assert not (tmp_path / "out" / name).is_symlink()


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "tensorboard/hparams.yaml"])
def test_a_run_whose_parts_lie_elsewhere_is_not_trained_on(name, tmp_path):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / ("missing" if path.suffix else ""))
    with pytest.raises(ValueError, match="outside the folder to write"), sole_writer(path.parent):
        pass
    path.unlink()
    (tmp_path / "run" / "within").mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "run" / "within")
    with sole_writer(tmp_path / "run"):
        pass


def test_a_folder_named_like_a_partial_file_blocks_nothing(command, tmp_path):
    (tmp_path / "out" / ".partial-x" / "sub").mkdir(parents=True)
    (tmp_path / "out" / ".partial-x" / "sub" / ".partial-y").touch()
    (tmp_path / "out" / ".partial-z").symlink_to(tmp_path / "out")
    assert main(command) == 0
    assert not list((tmp_path / "out").rglob(".partial-*"))
    remove_partials(tmp_path / "missing")


# Pipes


@pytest.mark.parametrize(
    "read",
    [
        lambda path: Journal(path, {}),
        lambda path: read_json(path, "a run"),
        lambda path: read_checkpoint(path),
        lambda path: read_bindings(path),
        lambda path: open_array(path),
        lambda path: save_run(path.parent, "rave", "", ""),
    ],
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(read, make, tmp_path):
    make(tmp_path / "config.gin")
    with pytest.raises(ValueError, match="is not a file but a folder, a pipe or a device"):
        read(tmp_path / "config.gin")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
@pytest.mark.parametrize("name", ["preprocess", "augment"])
def test_a_pipe_among_recordings_is_skipped(name, suffix, command, tmp_path, capsys):
    os.mkfifo(tmp_path / "audio" / f"pipe{suffix}")
    assert main([name, *(command[1:] if name == "preprocess" else command[1:3])]) == 1
    assert f"skipped pipe{suffix}: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run.json", "model.gin", "checkpoint", "latents.json", "a.npy"])
def test_a_pipe_in_a_run_or_among_latents_is_one_sentence(name, command, tmp_path, capsys):
    made = write_run(tmp_path / "run")
    latents = tmp_path / "latents"
    assert main(["encode", str(made), command[1], str(latents)]) == 0
    array = next(latents.rglob("*.npy"))
    path = {"checkpoint": last_checkpoint(made), "a.npy": array}.get(name)
    path = path or (latents if name == "latents.json" else made) / name
    path.unlink()
    os.mkfifo(path)
    assert main(["decode", str(made), str(latents), str(tmp_path / "decoded")]) == 2
    assert "rave decode: error: " in capsys.readouterr().err


# Journals


@pytest.mark.parametrize(
    "line",
    [
        *("[" * depth for depth in (900, 100_000)),
        *('{"name": "a", "record": ' + '{"a":' * depth for depth in (900, 100_000)),
        '{"name": "a", "record": ' + "[" * 900 + "]" * 900 + "}",
        *("[]", "3", "null", '"name"', '{"name": 3, "record": {}}', '{"name": "a", "record": []}'),
        '{"name": "a", "record": {"path": 3}}',
        '{"name": "a", "record": {"path": ["x"]}}',
        '{"name": "a", "record": {"others": 3}}',
        '{"name": "a", "record": {"others": {"x": 1}}}',
        '{"name": "a", "record": {"others": [3]}}',
        '{"name": "a", "record": {"others": ["../x"]}}',
        '{"name": "a", "record": ' + "9" * 5000 + "}",
    ],
)
def test_a_line_of_a_journal_that_is_none_is_one_sentence(line, tmp_path):
    path = tmp_path / "journal"
    Journal(path, {}).add("b", {})
    path.write_text(path.read_text() + line + "\n" + '{"name": "c", "record": {}}\n')
    with pytest.raises(ValueError, match="damaged at line 3"):
        Journal(path, {})


@pytest.mark.parametrize("settings", ["[]", "3", "null", '"a"', "[" * 100_000, '{"hop": []}'])
def test_settings_of_a_journal_that_are_none_are_one_sentence(settings, tmp_path):
    path = tmp_path / "journal"
    path.write_text(f'{{"settings": {settings}}}\n{{"name": "c", "record": {{}}}}\n')
    with pytest.raises(ValueError, match=r"damaged at line 1|other settings"):
        Journal(path, {"hop": 3})


def test_a_header_of_any_depth_is_one_sentence(tmp_path):
    write_json(tmp_path / "a.json", np.zeros(3).tolist())
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_json(tmp_path / "a.json", "a run")
