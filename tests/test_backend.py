"""Backends and precisions of a codec: the same latents and audio, faster or not."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_files import sine, write
from rave_models import FEW_OSCILLATORS, SHORT, write_run

from diffwave import inference
from rave.codec import load_codec
from rave.compute.backend import LARGE, accelerated, choose_backend
from rave.losses import log_spectral_distance_db
from rave.noise import DecoderNoise

CPU = torch.device("cpu")
HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
RECIPES = (
    ("v2", *SHORT),
    ("v2", *SHORT, "NUM_CHANNELS=2"),
    ("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[1, 3], [1], [1]]"),  # hears noise
    ("small", *FEW_OSCILLATORS),
    ("tiny",),
    ("v1",),
)


def audio(num_samples, num_channels=1):
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal((num_channels, num_samples))).astype(np.float32)


def there_and_back(codec, num_frames=37, window_frames=16):
    """Return the mean of audio's posterior, and what the decoder makes of normal latents."""
    form = codec.format
    blocks = [audio(num_frames * form.hop_samples, form.num_channels)]
    means = [mean for mean, _ in codec.encode_blocks(blocks, window_frames)]
    size = form.latent_size
    noise = DecoderNoise(form, 0)
    latents = np.random.default_rng(1).standard_normal((size, num_frames)).astype(np.float32)
    return np.concatenate(means, 1), np.concatenate(
        list(codec.decode_blocks(latents, noise, window_frames)), 1
    )


@needs_openvino
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: " ".join(recipe[:2]))
def test_openvino_gives_what_torch_gives(recipe, tmp_path):
    run = write_run(tmp_path / "run", *recipe)
    exact, found = (
        there_and_back(load_codec(run, CPU, backend=backend)) for backend in ("torch", "openvino")
    )
    for a, b in zip(exact, found, strict=True):
        assert np.abs(a).max() > 1e-4
        assert np.abs(a - b).max() < 1e-4 * np.abs(a).max()


@pytest.fixture(scope="module")
def alone():
    """What a process says that uses OpenVINO for two models, drops them, and hears a signal."""
    code = (
        "import signal, subprocess, torch; from rave.compute.backend import accelerated\n"
        "one, two = (accelerated(torch.nn.Linear(1, 1), 'openvino', 'float32') for _ in range(2))\n"
        "one(torch.ones(1, 1)), two(torch.ones(1, 1))\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "print(telemetry_utils.tm.__name__, flush=True)\n"
        "del one, two\n"
        "signal.signal(signal.SIGCHLD, lambda *_: print('heard'))\n"
        "subprocess.run(['true'])\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@needs_openvino
def test_openvino_tells_nobody(alone):
    assert alone.stdout.split()[0] == "openvino.tools.ovc.telemetry_stub", alone.stderr


@needs_openvino
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="a process's cores are Linux's")
def test_openvino_binds_no_thread_to_a_core():
    """It would bind those of every process to the same ones."""
    network = accelerated(torch.nn.Linear(8, 8), "openvino", "float32")
    network(torch.zeros(1, 8))
    tasks = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    assert {len(os.sched_getaffinity(task)) for task in tasks} == {len(os.sched_getaffinity(0))}
    assert network._request.get_compiled_model().get_property("ENABLE_CPU_PINNING") is False


@needs_openvino
def test_a_process_survives_signals_after_two_models_are_gone(alone):
    assert (alone.returncode, alone.stdout.split()[1:]) == (0, ["heard"]), alone.stderr


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_bfloat16_is_near_and_not_the_same(backend, tmp_path):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    exact, found = (
        there_and_back(load_codec(run, CPU, backend=backend, precision=precision), 200, 200)
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact[1], found[1]) or backend == "openvino"  # not on every processor
    assert np.abs(exact[0] - found[0]).max() < 0.03 * np.abs(exact[0]).max()
    pair = (torch.from_numpy(each[1])[None] for each in (exact, found))
    assert float(log_spectral_distance_db(*pair)) < 0.5


def test_auto_takes_openvino_for_large_codecs_on_a_cpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert choose_backend("auto", CPU, LARGE) == "openvino"
    assert choose_backend("auto", CPU, LARGE - 1) == "torch"
    assert choose_backend("auto", torch.device("cuda"), LARGE) == "torch"
    assert choose_backend("openvino", CPU, 1) == "openvino"
    with pytest.raises(ValueError, match="the device is cuda"):
        choose_backend("openvino", torch.device("cuda"), LARGE)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_backend("auto", CPU, LARGE) == "torch"
    with pytest.raises(ValueError, match=r"-e '.\[fast\]'"):
        choose_backend("openvino", CPU, LARGE)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--backend", "tape", "There is no backend 'tape'. Choose one of: auto, torch, openvino."),
        ("--precision", "int8", "There is no precision 'int8'. Choose one of: float32, bfloat16."),
    ],
)
def test_what_there_is_not_is_refused(option, value, reason, run, rave, tmp_path):
    write(tmp_path / "in" / "a.wav", sine(220, 22050), 22050)
    code, out, err = rave("encode", run, tmp_path / "in", tmp_path / "out", option, value)
    assert (code, out) == (2, "")
    assert err == f"rave encode: error: {reason}\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_holds_latents_of_one_precision(run, rave, tmp_path):
    write(tmp_path / "in" / "a.wav", sine(220, 22050), 22050)
    encode = ("encode", run, tmp_path / "in", tmp_path / "out")
    assert rave(*encode, "--precision", "bfloat16")[0] == 0
    half = np.load(tmp_path / "out" / "a.npy")
    code, _, err = rave(*encode)
    assert code == 2
    assert "precision" in err
    assert rave(*encode, "--force")[0] == 0
    exact = np.load(tmp_path / "out" / "a.npy")
    assert 0 < np.abs(half - exact).max() < 0.05 * np.abs(exact).max()
    code, _, _ = rave("decode", run, tmp_path / "out", tmp_path / "back", "--precision", "bfloat16")
    assert code == 0


def test_an_exported_file_computes_in_its_own_precision(run, rave, tmp_path):
    assert rave("export", run, tmp_path / "codec.ts")[0] == 0
    with pytest.raises(ValueError, match="always computes in float32"):
        load_codec(tmp_path / "codec.ts", CPU, precision="bfloat16")


def test_torch_in_float32_is_the_network_itself():
    network = torch.nn.Conv1d(1, 1, 1)
    assert accelerated(network, "torch", "float32") is network


def test_generated_latents_hardly_depend_on_how_they_are_computed(instrument, tmp_path):
    _, run, _ = instrument

    def generated(name, *options):
        arguments = [run, tmp_path / name, "--count", "2", "--seconds", "1"]
        assert inference.main([str(each) for each in [*arguments, "--steps", "5", *options]]) == 0
        paths = sorted((tmp_path / name).glob("*.npy"))
        assert len(paths) == 2
        return np.stack([np.load(path) for path in paths])

    exact = generated("exact")
    scale = exact.std()
    if HAS_OPENVINO:
        assert np.abs(generated("openvino", "--backend", "openvino") - exact).max() < 1e-3 * scale
    half = generated("half", "--precision", "bfloat16")
    assert not np.array_equal(half, exact)
    assert np.abs(half - exact).std() < 0.05 * scale


@needs_openvino
def test_what_needs_gradients_is_computed_by_torch(instrument, tmp_path):
    _, run, _ = instrument
    given = next((run.parent / "latents").glob("*.npy"))
    for backend in ("torch", "openvino"):
        arguments = [run, tmp_path / backend, "--inpaint", given, "--count", "1"]
        span = ["--from", "0.1", "--to", "0.2", "--steps", "5", "--backend", backend]
        assert inference.main([str(each) for each in [*arguments, *span]]) == 0
    a, b = (np.load(next((tmp_path / backend).glob("*.npy"))) for backend in ("torch", "openvino"))
    assert np.abs(a - b).max() < 1e-2 * a.std()
