import builtins
import importlib.util
import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from forks import Fork
from rave_models import FEW_OSCILLATORS, SHORT, write_run

from rave.codec import load_codec
from rave.main_cli import main
from rave.noise import DecoderNoise

# To export takes time by the number of layers.
FEW = ("RATIOS=[2, 2]", "DILATIONS=[[3], [1]]")
MEL = ("ENCODER_RATIOS=[2]", "ENCODER_DILATIONS=[[1]]")
MEL += ("RATIOS=[4, 4, 2]", "DILATIONS=[[3], [1], [1]]")
NOISY = ("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[3], [1], [1]]")
STEREO = ("v2", *FEW, "NUM_CHANNELS=2")
HYBRID = ("hybrid+adain", *MEL)  # a spectrogram, a recurrent network, layers with branches
DISCRETE = ("discrete", *FEW)  # rows of noise

OSCILLATORS = ("small", *FEW_OSCILLATORS)  # a clock
RECIPES = {"stereo": STEREO, "noisy": NOISY, "hybrid": HYBRID, "discrete": DISCRETE}
RECIPES["oscillators"] = OSCILLATORS

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(
    not HAS_ONNX, reason="onnxruntime or onnxscript is not installed (extra [onnx])"
)


def be_new_here(home):
    """Let a process have a home that is empty, and no word on telemetry."""
    for name in [name for name in os.environ if "TELEMETRY" in name]:
        del os.environ[name]
    os.environ |= {"HOME": str(home), "XDG_CACHE_HOME": str(home)}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder: runs of all recipes, their exports by name, and the exporting process's home."""
    folder = tmp_path_factory.mktemp("onnx")
    home = folder / "home"
    home.mkdir()
    for name, recipe in RECIPES.items():
        write_run(folder / name / "run", *recipe)
    made = Fork("onnx_exports", folder, before=partial(be_new_here, home))
    code, out, err = made.finish(timeout_s=None)
    assert code == 0, err
    assert out.count("equals the run to") == len(RECIPES)
    return folder


@needs_onnx
def test_onnx_runtime_tells_nobody(exports):
    # with telemetry: a device's number
    assert not list((exports / "home").rglob("*onnxruntime*"))


@needs_onnx
@pytest.mark.parametrize("name", RECIPES)
def test_onnx_runtime_gives_what_torch_gives(exports, name):
    codec = load_codec(exports / name / "run", torch.device("cpu"))
    out = exports / name / "out"
    header = json.loads((out / "codec.json").read_text())
    assert header["fingerprint"] == codec.format.fingerprint
    shape = codec.format.num_channels, 21 * codec.format.hop_samples
    audio = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    audio[:, shape[1] // 2 :] = 0  # of which a logarithm must not be infinite
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out / "encoder.onnx"))
    found = session.run(None, {"audio": audio[None]})
    for a, b in zip(found, codec.encode(audio), strict=True):
        assert np.abs(a[0] - b).max() < 1e-4 * np.abs(b).max()


@needs_onnx
@pytest.mark.parametrize("name", RECIPES)
def test_a_decoder_in_onnx_takes_noise_or_a_clock_of_any_time(exports, name):
    codec = load_codec(exports / name / "run", torch.device("cpu"))
    decoder = exports / name / "out" / "decoder.onnx"
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import
    import onnxruntime

    session, noise = onnxruntime.InferenceSession(str(decoder)), DecoderNoise(codec.format, 0)
    latents = np.random.default_rng(0).standard_normal((codec.format.latent_size, 5))
    given = {"latents": noise.decoder_input(latents.astype(np.float32), 1000)[None]}
    if (bands := noise.bands(1000, 5)) is not None:
        given["noise"] = bands.numpy()
    assert {each.name for each in session.get_inputs()} == set(given)
    assert ("noise" in given) == (name in ("noisy", "oscillators"))
    parts = map(torch.from_numpy, given.values())
    wanted = codec.network.decode(*parts).detach().numpy()
    assert np.abs(session.run(None, given)[0] - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_onnx_without_its_packages_is_refused(tmp_path, capsys, monkeypatch):
    imported = builtins.__import__

    def without(name, *rest, **named):
        if name == "onnxruntime":
            raise ImportError("No module", name=name)
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    run = write_run(tmp_path / "run", "v2", *SHORT)
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "onnx"]) == 2
    assert "not installed (onnxruntime). Install it with pip" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
