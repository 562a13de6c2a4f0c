import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from audio_files import sine, write
from rave_models import write_run
from rave_runs import TINY, checkpoint, prepare, train

from rave.api.train import train_codec
from rave.main_cli import main
from rave.runs.checkpoint import last_checkpoint
from rave.training import RaveSystem


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("prepared"))


def error_of(capsys):
    """Return the one line of an error, without the program's name."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert lines[0].startswith("rave train: error: ")
    return lines[0]


# Settings


def test_dry_run_prints_the_resolved_recipe_and_writes_nothing(prepared, tmp_path, capsys):
    assert train(prepared, tmp_path / "run", options=("--dry-run",)) == 0
    text = capsys.readouterr().out
    assert "CAPACITY = 2\n" in text
    assert "SAMPLE_RATE_HZ = 22050\n" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("CAPACITYY=3", "Nothing in recipe 'v2' uses CAPACITYY. It uses: .*CAPACITY"),
        ("v2.EncoderV2.depth=3", "Cannot read recipe 'v2': .*depth"),
        ("CAPACITY", "'CAPACITY' is not NAME=VALUE"),
        ("CAPACITY=[", "Cannot read recipe 'v2'"),
        ("RATIOS=[3, 2]", "ratio 3 is odd; use even"),
    ],
)
def test_a_setting_that_is_not_understood_is_refused(prepared, tmp_path, capsys, setting, message):
    assert train(prepared, tmp_path / "run", setting) == 2
    assert re.search(message, error_of(capsys))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("SAMPLE_RATE_HZ=44100", "contradicts the prepared audio, whose SAMPLE_RATE_HZ is 22050"),
        ("NUM_CHANNELS=2", "contradicts the prepared audio, whose NUM_CHANNELS is 1"),
    ],
)
def test_a_setting_that_contradicts_the_audio_is_refused(
    prepared, tmp_path, capsys, setting, message
):
    assert train(prepared, tmp_path / "run", setting) == 2
    assert message in error_of(capsys)


def test_crops_too_short_for_the_distances_are_refused_and_nothing_is_left(
    prepared, tmp_path, capsys
):
    assert train(prepared, tmp_path / "run", "CROP_SAMPLES=64") == 2
    assert "Crops of 64 samples are too short for the spectral distances" in error_of(capsys)
    assert train(prepared, tmp_path / "run", "CROP_SAMPLES=65537") == 2
    assert "65537 samples are not a multiple of the model's hop" in error_of(capsys)
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_is_refused_with_those_there_are(prepared, tmp_path, capsys):
    where = ["--data", str(prepared), "--out", str(tmp_path / "run")]
    assert main(["train", "v9", *where]) == 2
    told = error_of(capsys)
    assert "no recipe 'v9'. Give a .gin file or one of: " in told
    for recipe in ("tiny", "v1", "v2_small"):
        assert recipe in told


def test_a_recipe_that_imports_foreign_code_is_refused(prepared, tmp_path, capsys):
    (tmp_path / "foreign.gin").write_text("import os\nos.system.command = 'true'\n")
    where = ["--data", str(prepared), "--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "foreign.gin"), *where]) == 2
    assert "it imports 'os'" in error_of(capsys)


def test_a_folder_that_is_not_prepared_audio_is_refused(tmp_path, capsys):
    assert train(tmp_path / "none", tmp_path / "run") == 2
    assert "does not exist. Give a folder that `rave preprocess` wrote" in error_of(capsys)
    (tmp_path / "recordings").mkdir()
    assert train(tmp_path / "recordings", tmp_path / "run") == 2
    assert "is not a folder that `rave preprocess` wrote" in error_of(capsys)


def test_a_higher_max_steps_continues_a_finished_run(prepared, tmp_path):
    out = tmp_path / "run"
    assert train(prepared, out, "MAX_STEPS=2", "PHASE_1_STEPS=2") == 0
    assert train(prepared, out, "MAX_STEPS=5", "PHASE_1_STEPS=3") == 0
    assert checkpoint(out)["global_step"] == 5
    assert "MAX_STEPS = 5" in (out / "config.gin").read_text()
    assert train(prepared, out, "MAX_STEPS=4", "PHASE_1_STEPS=3") == 2


def test_another_setting_into_the_same_run_is_refused_with_both_values(prepared, tmp_path, capsys):
    assert train(prepared, tmp_path / "run", "MAX_STEPS=1") == 0
    before = last_checkpoint(tmp_path / "run").read_bytes()
    capsys.readouterr()
    assert train(prepared, tmp_path / "run", "MAX_STEPS=1", "CAPACITY=3") == 2
    assert "other settings (CAPACITY 2, now 3)" in error_of(capsys)
    assert train(prepared, tmp_path / "run", "MAX_STEPS=1", options=("--seed", "4")) == 2
    assert "other settings (SEED 0, now 4)" in error_of(capsys)
    assert last_checkpoint(tmp_path / "run").read_bytes() == before


# Arguments


def test_data_with_config_recipe_with_data_and_the_function_make_one_run(prepared, tmp_path):
    settings = [*TINY, "MAX_STEPS=2"]
    sets = [part for setting in settings for part in ("--set", setting)]
    assert train(prepared, tmp_path / "old", "MAX_STEPS=2") == 0
    words = [str(prepared), "--config", "v2", "--out", str(tmp_path / "new"), "--device", "cpu"]
    assert main(["train", *words, *sets]) == 0
    made = train_codec(prepared, tmp_path / "call", config="v2", settings=settings, device="cpu")
    assert made.figures["steps"] == 2
    weights = checkpoint(tmp_path / "old")["state_dict"]
    for name in ("new", "call"):
        for file in ("model.gin", "config.gin"):
            text = (tmp_path / name / file).read_text()
            assert text == (tmp_path / "old" / file).read_text()
        found = checkpoint(tmp_path / name)["state_dict"]
        assert list(found) == list(weights)
        assert all(torch.equal(found[key], value) for key, value in weights.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("v2 --data {} --config v2", "Two recipes were given, 'v2' and --config v2"),
        ("v2+causal", "is a recipe. Write: rave train DATA --config v2+causal --out RUN."),
        ("none", "'none' does not exist. Give a folder that `rave preprocess` wrote"),
        ("{} --set SEED=1", "SEED cannot be set: it follows from --seed."),
    ],
)
def test_arguments_that_contradict_or_miss_something_are_refused(
    prepared, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words.format(prepared).split(), "--out", "run"]) == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "run").exists()


# Runs


def test_a_stereo_run_trains_through_both_phases(tmp_path, capsys):
    assert train(prepare(tmp_path, 2), tmp_path / "run", options=("--json",)) == 0
    output = capsys.readouterr().out
    figures = json.loads(output[output.index("{") :])
    assert figures["steps"] == 8
    assert figures["latents/dimensions_99"] >= 1
    assert "NUM_CHANNELS = 2" in (tmp_path / "run" / "model.gin").read_text()


def test_a_run_leaves_checkpoints_curves_and_its_recipe_and_no_partial_file(prepared, tmp_path):
    assert train(prepared, tmp_path / "run", "MAX_STEPS=4") == 0
    names = {p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*.*")}
    curves = {name for name in names if name.startswith("tensorboard/events.out.tfevents.")}
    assert len(curves) == 1
    checkpoints = {"checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    assert names - curves - checkpoints - {"tensorboard/hparams.yaml"} == {
        "run.json",
        "model.gin",
        "config.gin",
        "split.json",
        "training_audio.json",
    }


# What ends a run


def test_an_impossible_learning_rate_ends_with_one_sentence(prepared, tmp_path, capsys):
    assert train(prepared, tmp_path / "run", "LEARNING_RATE=1e10") == 2
    assert re.search(
        r"The loss became (nan|inf) at step \d+, .*lower LEARNING_RATE\.$", error_of(capsys)
    )
    assert not last_checkpoint(tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    prepared, tmp_path, capsys, monkeypatch
):
    loss_of = RaveSystem._generator_loss

    def poisoned(self, audio, generator):
        return loss_of(self, audio, generator) * (float("nan") if self.global_step >= 5 else 1.0)

    monkeypatch.setattr(RaveSystem, "_generator_loss", poisoned)
    assert train(prepared, tmp_path / "run") == 2
    error = error_of(capsys)
    assert "The last checkpoint is not affected" in error
    assert re.search(
        r"nan at step 6, on '\d\.wav' at \d\.\d\d s, '\d\.wav' at \d\.\d\d s, so", error
    )
    state = checkpoint(tmp_path / "run")
    assert state["global_step"] == 4
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())
    monkeypatch.undo()
    assert train(prepared, tmp_path / "run") == 0


def test_a_finite_loss_of_an_infinite_gradient_keeps_the_last_checkpoint(
    prepared, tmp_path, capsys, monkeypatch
):
    loss_of = RaveSystem._generator_loss

    def steep(self, audio, generator):
        loss = loss_of(self, audio, generator)
        weight = next(self.model.decoder.parameters())
        return loss + (0 * weight.sum()).sqrt() if self.global_step == 7 else loss

    monkeypatch.setattr(RaveSystem, "_generator_loss", steep)
    assert train(prepared, tmp_path / "run") == 2
    assert "A weight became NaN or infinite by step 8" in error_of(capsys)
    state = checkpoint(tmp_path / "run")
    assert state["global_step"] == 4
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


def test_a_damaged_checkpoint_is_named(prepared, tmp_path, capsys):
    assert train(prepared, tmp_path / "run", "MAX_STEPS=1") == 0
    path = last_checkpoint(tmp_path / "run")
    path.write_bytes(path.read_bytes()[:500])
    capsys.readouterr()
    assert train(prepared, tmp_path / "run", "MAX_STEPS=1") == 2
    assert f"Cannot read checkpoint '{path}'" in error_of(capsys)


def test_a_disk_that_is_full_ends_with_one_sentence_and_no_partial_file(
    prepared, tmp_path, capsys, monkeypatch
):
    def full(self, content):
        with self.open("wb") as file:
            file.write(b"some")
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert train(prepared, tmp_path / "run", "MAX_STEPS=1") == 2
    assert "No space left on device" in error_of(capsys)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


# What is imported

CODEC = """
import sys
from rave.main_cli import main
run, audio, latents, decoded = sys.argv[1:]
assert main(["encode", run, audio, latents, "--device", "cpu"]) == 0
assert main(["decode", run, latents, decoded, "--device", "cpu"]) == 0
heavy = {"pytorch_lightning", "lightning", "tensorboard", "librosa"} & set(sys.modules)
assert not heavy, heavy
"""


def test_encode_and_decode_do_not_import_the_training_library(tmp_path):
    run = write_run(tmp_path / "run", "v2_small")
    write(tmp_path / "audio" / "a.wav", sine(440, 44100, 0.2))
    paths = [run, *(tmp_path / name for name in ("audio", "latents", "decoded"))]
    command = [sys.executable, "-c", CODEC, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
