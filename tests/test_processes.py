"""Training in two processes is training in one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from diffwave_data import autoregression, settings, write_latent_folder
from forks import Fork, fork_all, fork_the_others
from pytorch_lightning.strategies import DDPStrategy
from rave_runs import checkpoint, prepare, train_words
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rave.compute.strategy import SharedBatches, placement

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo's sockets are Unix's")
TWO = ("--devices", "2")
RAVE, DIFFWAVE = "rave.main_cli", "diffwave.train"


def start(module, *words):
    return Fork(module, *words, before=fork_the_others)


def run(module, *words, code=0):
    found, out, err = start(module, *words).finish()
    assert found == code, err
    return out, err


def run_as_users_do(module, *words):
    """Start Python, and let Lightning start the other."""
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def curves(run_folder):
    """Return the values of each curve of a run, by name and step."""
    events = EventAccumulator(str(run_folder / "tensorboard")).Reload()
    return {
        name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]
    }


def assert_overlay(one, two, names, tolerance):
    for name in names:
        assert one[name].keys() == two[name].keys()
        values = list(one[name].values())
        assert list(two[name].values()) == pytest.approx(values, rel=tolerance), name


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents") / "latents"
    arrays = {f"{n}.npy": autoregression(6, 60, 0.9, seed=n) for n in range(6)}
    write_latent_folder(folder, arrays)
    return folder


def rave_words(prepared, out, *sets, options=()):
    return train_words(prepared, out, *sets, options=options)


def diffwave_words(latents, out, *sets, options=()):
    return [
        latents,
        "--out",
        out,
        "--config",
        "tiny",
        "--device",
        "cpu",
        *settings(*sets),
        *options,
    ]


@pytest.fixture(scope="module")
def rave_alone(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("rave") / "run"
    run(RAVE, *rave_words(prepared, out))
    return out


@pytest.fixture(scope="module")
def diffwave_alone(latents, tmp_path_factory):
    out = tmp_path_factory.mktemp("diffwave") / "run"
    run(DIFFWAVE, *diffwave_words(latents, out))
    return out


def test_a_step_shared_by_two_is_the_step_of_one():
    """Of every family of models: gradients, what is learnt without them, and what is logged."""
    code, out, err = Fork("sharing").finish()
    assert code == 0, err
    found = json.loads(out)
    assert len(found) > 8
    for case, differences in found.items():
        # Sums in float32 that nearly cancel: the layer by itself is equal to 1e-15.
        allowed = 1e-3 if case == "batch normalisation" else 2e-5
        assert differences["gradient"] < allowed, case
        assert max(differences["learnt"], differences["log"]) < 1e-6, case
    assert max(found["layer"].values()) < 1e-14


def test_rave_trains_in_two_processes_as_in_one(prepared, rave_alone, tmp_path):
    out, err = run(RAVE, *rave_words(prepared, tmp_path / "run", options=TWO))
    assert out.count("8 steps done") == 1
    assert err.count("held out:") == 1
    one, two = curves(rave_alone), curves(tmp_path / "run")
    # Adam makes a step of a gradient that is nothing but rounding, so runs part slowly.
    names = ("train/loss", "train/kl", "train/spectral_distance", "train/discriminator_loss")
    assert_overlay(one, two, (*names, "held_out/spectral_distance", "latents/kl"), 5e-3)
    first = min(one["train/loss"])
    assert two["train/loss"][first] == pytest.approx(one["train/loss"][first], rel=1e-6)
    states = checkpoint(rave_alone), checkpoint(tmp_path / "run")
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    assert states[0].keys() == states[1].keys()
    assert states[0]["global_step"] == states[1]["global_step"] == 8
    assert [str(p) for p in (tmp_path / "run").rglob(".partial*")] == []


def test_a_run_goes_on_in_another_number_of_processes(prepared, rave_alone, tmp_path):
    run(RAVE, *rave_words(prepared, tmp_path / "run", "MAX_STEPS=3", options=TWO))
    out, _ = run(RAVE, *rave_words(prepared, tmp_path / "run"))
    assert "8 steps done" in out
    one, two = curves(rave_alone), curves(tmp_path / "run")
    assert_overlay(one, two, ("train/loss", "train/kl"), 5e-3)


def test_diffwave_trains_in_two_processes_as_in_one(latents, diffwave_alone, tmp_path):
    shared = tmp_path / "run"
    out, _ = run_as_users_do(DIFFWAVE, *diffwave_words(latents, shared, options=TWO))
    assert out.count("Held-out loss") == 1
    assert_overlay(curves(diffwave_alone), curves(shared), ("train_loss", "held_out_loss"), 1e-4)
    one, two = checkpoint(diffwave_alone), checkpoint(shared)
    for kind in ("state_dict", "averaging_state", "current_model_state"):
        assert (kind in one) == (kind in two)
    for name, weights in one["state_dict"].items():
        difference = (weights - two["state_dict"][name]).double().norm()
        assert difference <= 0.02 * weights.double().norm() + 1e-6, name
    skills = [json.loads((out / "skill.json").read_text()) for out in (diffwave_alone, shared)]
    assert skills[0]["held_out_loss"] == pytest.approx(skills[1]["held_out_loss"], rel=1e-4)


def test_torchrun_starts_it_too(latents, diffwave_alone, tmp_path):
    words = diffwave_words(latents, tmp_path / "run")
    options = ("--standalone", "--nproc-per-node", "2", "-m", DIFFWAVE)
    code, out, err = Fork("torch.distributed.run", *options, *words, before=fork_all).finish()
    assert code == 0, err
    assert out.count("Held-out loss") == 1
    assert_overlay(curves(diffwave_alone), curves(tmp_path / "run"), ("train_loss",), 1e-4)


def children_of(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_steps(out, process):
    """Wait until a run has saved something."""
    for _ in range(6000):
        if (out / "checkpoints" / "last.ckpt").exists():
            return
        assert process.poll() is None, process.finish()[2]
        time.sleep(0.01)
    raise AssertionError("no checkpoint was written")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the other process in /proc")
def test_a_lost_process_ends_the_other_and_the_same_command_goes_on(latents, tmp_path):
    words = diffwave_words(
        latents, tmp_path / "run", "MAX_STEPS=100000", "VALIDATE_EVERY=5", options=TWO
    )
    process = start(DIFFWAVE, *words)
    wait_for_steps(tmp_path / "run", process)
    (other,) = children_of(process.pid)
    os.kill(other, signal.SIGKILL)
    code, _, err = process.finish()
    assert (code, err.count("Another process of this training is gone")) == (2, 1), err
    before = checkpoint(tmp_path / "run")["global_step"]
    words = diffwave_words(
        latents, tmp_path / "run", f"MAX_STEPS={before + 5}", "VALIDATE_EVERY=5", options=TWO
    )
    run(DIFFWAVE, *words)
    assert checkpoint(tmp_path / "run")["global_step"] == before + 5


def test_a_process_that_is_lost_while_a_checkpoint_is_saved_is_named(monkeypatch):
    def reset(*_):
        raise RuntimeError("connection reset\nby peer")

    monkeypatch.setattr(torch.distributed, "barrier", reset)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(f"{DDPStrategy.__module__}._distributed_is_initialized", lambda: True)
    why = r"Another process of this training is gone \(connection reset\)\. The same command"
    with pytest.raises(ValueError, match=why):
        SharedBatches().barrier("Trainer.save_checkpoint")


@pytest.mark.parametrize("is_all", [True, False], ids=["Ctrl-C", "SIGTERM of the first"])
def test_a_signal_stops_all_processes_at_one_step(is_all, latents, tmp_path):
    words = diffwave_words(
        latents, tmp_path / "run", "MAX_STEPS=100000", "VALIDATE_EVERY=5", options=TWO
    )
    process = start(DIFFWAVE, *words)
    wait_for_steps(tmp_path / "run", process)
    if is_all:
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, signal.SIGTERM)
    code, _, err = process.finish()
    assert (code, err.count("the same command continues")) == (130, 1), err
    assert checkpoint(tmp_path / "run")["global_step"] > 0


def test_a_loss_that_is_not_finite_ends_both(prepared, tmp_path):
    words = rave_words(prepared, tmp_path / "run", "LEARNING_RATE=1e10", options=TWO)
    _, err = run(RAVE, *words, code=2)
    assert "so training stopped" in err
    assert "Another process" not in err


def test_a_batch_that_cannot_be_shared_is_refused(latents, tmp_path):
    words = diffwave_words(latents, tmp_path / "run", "BATCH_SIZE=3", options=TWO)
    _, err = run(DIFFWAVE, *words, code=2)
    assert "A batch of 3 cannot be divided evenly among 2 processes. Set BATCH_SIZE to 4" in err


@pytest.mark.parametrize(
    ("device", "num_devices", "num_nodes", "words"),
    [
        ("cuda:1", 2, 1, "'cuda:1' is a single one. Give --device cuda"),
        ("mps", 2, 1, "'mps' is a single one"),
        ("cpu", 0, 1, "--devices 0 --nodes 1 were given; 1 or more"),
        ("cpu", 1, -1, "--devices 1 --nodes -1 were given"),
        ("cuda", 99, 1, r"99 GPUs are requested; this machine has \d+\. Lower"),
    ],
)
def test_devices_that_are_not_there_are_refused(device, num_devices, num_nodes, words):
    with pytest.raises(ValueError, match=words):
        placement(torch.device(device), num_devices, num_nodes)


def test_a_device_of_a_number_is_one_device():
    assert placement(torch.device("cuda:1"), 1, 1) == {"devices": [1]}
    assert placement(torch.device("cpu"), 1, 1) == {"devices": 1}
