"""The whole path, as `make demo-train` walks it, with models too small for music."""

import io
import json
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import demo_train
import demo_walk
import numpy as np
import pytest
import soundfile
from demo_train import DIFFWAVE_HELD_OUT
from forks import Fork

from rave.held_out import split_names
from rave.latents.folder import GENERATED, POSTERIOR_MEAN, LatentHeader


def fork_command(command, folder):
    """Run a command of the demo as `run_command` does, in a process that starts at once."""
    program, *words = shlex.split(command)
    if program == "python":
        option, module, *words = words
        assert option == "-m"
    else:
        assert program == "rave"
        module = "rave.main_cli"
    code, out, err = Fork(module, *words, folder=folder).finish()
    sys.stderr.write(err)
    return code, out


def walk(folder):
    """Return exit code, stdout and stderr of a walk."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(demo_walk, "run_command", fork_command)
        code = demo_train.main(["--quick", "--out", str(folder)])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def first_walk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("end-to-end") / "demo"
    code, out, err = walk(folder)
    assert code == 0, err
    return folder, out, err


@pytest.fixture(scope="module")
def demo(first_walk):
    return first_walk[0]


@pytest.fixture(scope="module")
def journal(demo):
    return json.loads((demo / "demo.json").read_text())


def wavs(folder):
    return {path.name: soundfile.info(path) for path in sorted(folder.glob("*.wav"))}


def test_the_demo_ends_with_where_its_report_is(first_walk):
    folder, out, _ = first_walk
    assert out.rstrip().endswith(f"Listen and look: {folder / 'report.html'}")


def test_a_command_starts_as_a_user_in_the_folder_would_start_it(tmp_path):
    code, out = demo_walk.run_command("rave --version", tmp_path)
    assert (code, out.split()[0]) == (0, "rave-diffwave")
    code, out = demo_walk.run_command("python -c 'import rave, os; print(os.getcwd())'", tmp_path)
    assert (code, out) == (0, f"{tmp_path}\n")


def test_every_command_of_the_readme_is_walked(journal):
    commands = [" ".join(entry["command"].split()[:3]) for entry in journal["commands"]]
    for command in ("preprocess", "train", "encode", "decode", "interpolate", "export"):
        assert any(walked.startswith(f"rave {command}") for walked in commands)
    for module in ("preprocess", "train", "inference"):
        assert f"python -m diffwave.{module}" in commands


def test_reconstructions_have_the_names_lengths_and_rates_of_the_recordings(demo):
    recordings, reconstructions = wavs(demo / "audio"), wavs(demo / "reconstructions")
    assert len(recordings) == 6
    assert recordings.keys() == reconstructions.keys()
    for name, recording in recordings.items():
        back = reconstructions[name]
        assert (back.frames, back.samplerate) == (recording.frames, recording.samplerate)


def test_latents_have_one_frame_for_each_hop_that_the_audio_begins(demo):
    header = LatentHeader.read(demo / "latents")
    assert header.contents == POSTERIOR_MEAN
    recordings = wavs(demo / "audio")
    for file in header.files:
        num_frames = -(-recordings[Path(file.path).stem + ".wav"].frames // header.hop_samples)
        latents = np.load(demo / "latents" / file.path)
        assert latents.shape == (header.latent_size, num_frames) == (8, file.num_frames)
        assert np.isfinite(latents).all()


@pytest.mark.parametrize(("name", "num_clips"), [("generated", 4), ("generated_conditioned", 2)])
def test_generated_latents_decode_to_their_length(demo, name, num_clips):
    header = LatentHeader.read(demo / name)
    assert header.contents == GENERATED
    assert header.codec == LatentHeader.read(demo / "latents").codec
    assert len(header.files) == num_clips
    decoded = wavs(demo / f"{name}_audio")
    for file in header.files:
        audio = decoded[Path(file.path).stem + ".wav"]
        assert audio.frames == file.num_frames * header.hop_samples
        assert audio.samplerate == header.sample_rate_hz


def test_conditioned_clips_are_as_long_as_what_they_follow(demo, journal):
    header = LatentHeader.read(demo / "generated_conditioned")
    followed = Path(journal["followed"]).stem + ".npy"
    (source,) = (f for f in LatentHeader.read(demo / "latents").files if f.path == followed)
    assert {file.num_frames for file in header.files} == {source.num_frames}


def test_what_is_followed_was_held_out_of_both_trainings(first_walk, journal):
    followed = journal["followed"]
    assert followed in journal["held_out"]
    assert f"held out: {', '.join(journal['held_out'])}\n" in first_walk[2]
    header = LatentHeader.read(first_walk[0] / "latents")
    origins = {file.path: file.origin for file in header.files}
    _, held_out = split_names(origins, DIFFWAVE_HELD_OUT)
    assert Path(followed).stem + ".npy" in held_out


def test_blends_begin_and_end_with_the_two_recordings(demo):
    audio = {path.stem: soundfile.read(path)[0] for path in (demo / "interpolation").glob("*.wav")}
    assert len(audio) == 12
    assert np.array_equal(audio["lerp_00_0.00"], audio["slerp_00_0.00"])
    assert np.array_equal(audio["lerp_04_1.00"], audio["slerp_04_1.00"])


def test_the_report_holds_a_player_for_each_clip(demo):
    page = (demo / "report.html").read_text()
    num_clips = 2 * 1 + 4 + (1 + 2) + 12
    assert page.count("<audio controls") == num_clips
    assert (demo / "report.html").stat().st_size < 8e6


def test_the_losses_stand_beside_their_references(journal):
    (output,) = (e["output"] for e in journal["commands"] if "diffwave.train" in e["command"])
    assert re.search(r"Held-out loss .* white .* gaussian .* skill", output)


def test_a_second_walk_trains_and_encodes_nothing_again(demo, journal):
    kept = [
        *(demo / "latents").glob("*.npy"),
        *(demo / "reconstructions").glob("*.wav"),
        *(demo / "runs").glob("*/checkpoints/*"),
    ]
    times = {path: path.stat().st_mtime_ns for path in kept}
    assert len(kept) == 16
    code, _, err = walk(demo)
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    again = json.loads((demo / "demo.json").read_text())
    assert [e["command"] for e in again["commands"]] == [e["command"] for e in journal["commands"]]
