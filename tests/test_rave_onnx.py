import builtins
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from rave_models import SHORT, write_run

from rave.codec import load_codec
from rave.main_cli import main

NOISY = ("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[1, 3], [1], [1]]")
STEREO = ("v2", *SHORT, "NUM_CHANNELS=2")
HYBRID = ("hybrid+adain",)  # a spectrogram, a recurrent network, layers with branches
DISCRETE = ("discrete", *SHORT)  # rows of noise

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(
    not HAS_ONNX, reason="onnxruntime or onnxscript is not installed (extra [onnx])"
)


@needs_onnx
def test_onnx_runtime_tells_nobody(tmp_path):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    command = [sys.executable, "-m", "rave.main_cli", "export", run, tmp_path / "out", "--format"]
    known = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    known |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    subprocess.run([*map(str, command), "onnx"], env=known, check=True, capture_output=True)
    assert not list((tmp_path / "home").rglob("*onnxruntime*"))  # with telemetry: a device's number


@needs_onnx
@pytest.mark.parametrize(
    "recipe", [STEREO, NOISY, HYBRID, DISCRETE], ids=["stereo", "noisy", "hybrid", "discrete"]
)
def test_onnx_runtime_gives_what_torch_gives(tmp_path, recipe, capsys):
    run = write_run(tmp_path / "run", *recipe)
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "onnx"]) == 0
    assert "equals the run to" in capsys.readouterr().out
    codec = load_codec(run, torch.device("cpu"))
    header = json.loads((tmp_path / "out" / "codec.json").read_text())
    assert header["fingerprint"] == codec.format.fingerprint
    shape = codec.format.num_channels, 21 * codec.format.hop_samples
    audio = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    import onnxruntime  # later than the export, which sees to it that nobody is told

    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "encoder.onnx"))
    found = session.run(None, {"audio": audio[None]})
    for a, b in zip(found, codec.encode(audio), strict=True):
        assert np.abs(a[0] - b).max() < 1e-4 * np.abs(b).max()


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
