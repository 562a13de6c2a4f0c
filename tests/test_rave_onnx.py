import builtins
import json

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


@pytest.mark.parametrize(
    "recipe", [STEREO, NOISY, HYBRID, DISCRETE], ids=["stereo", "noisy", "hybrid", "discrete"]
)
def test_onnx_runtime_gives_what_torch_gives(tmp_path, recipe, capsys):
    reason = "onnxruntime or onnxscript is not installed (extra [onnx])"
    pytest.importorskip("onnxscript", reason=reason)
    runtime = pytest.importorskip("onnxruntime", reason=reason)
    run = write_run(tmp_path / "run", *recipe)
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "onnx"]) == 0
    assert "equals the run to" in capsys.readouterr().out
    codec = load_codec(run, torch.device("cpu"))
    header = json.loads((tmp_path / "out" / "codec.json").read_text())
    assert header["fingerprint"] == codec.format.fingerprint
    shape = codec.format.num_channels, 21 * codec.format.hop_samples
    audio = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    session = runtime.InferenceSession(str(tmp_path / "out" / "encoder.onnx"))
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
