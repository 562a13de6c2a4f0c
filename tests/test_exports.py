"""Every export is of one checkpoint, read once, and appears only if it does what the run does."""

import shutil

import numpy as np
import pytest
import torch
from rave_models import write_run
from test_rave_onnx import FEW, needs_onnx

import rave.codec
import rave.codec_source
import rave.export.torchscript
from rave.codec import load_codec
from rave.main_cli import main
from rave.runs.checkpoint import last_checkpoint

CPU = torch.device("cpu")
FORMATS = {
    "torchscript": ("a.ts",),
    "streaming": ("a.ts", "--streaming", "--fidelity", "1"),
    "acids-rave": ("a", "--format", "acids-rave"),
    "onnx": ("a", "--format", "onnx"),
}
IDS = [pytest.param(name, marks=[needs_onnx] if name == "onnx" else []) for name in FORMATS]


def exported(run, folder, kind):
    """Export a run in a format; return the exit code and what was written."""
    name, *rest = FORMATS[kind]
    return main(["export", str(run), str(folder / name), *rest]), folder / name


def heard(path):
    """Return what a codec makes of noise."""
    audio = np.random.default_rng(0).standard_normal((1, 64 * 9)).astype(np.float32)
    if path.suffix == ".ts" or not (path / "encoder.onnx").exists():
        return load_codec(path, CPU).encode(audio)[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path / "encoder.onnx"))
    return session.run(None, {"audio": audio[None]})[0][0]


@pytest.mark.parametrize("kind", IDS)
def test_a_run_in_training_is_exported_as_it_was_when_it_was_opened(tmp_path, monkeypatch, kind):
    run, later = write_run(tmp_path / "run", "v2", *FEW), tmp_path / "later"
    wanted, read = heard(run), rave.codec.read_checkpoint
    write_run(later, "v2", *FEW, seed=1)
    assert np.abs(heard(later) - wanted).max() > 1e-3

    def read_and_train_on(path, *rest):
        content = read(path, *rest)
        shutil.copyfile(last_checkpoint(later), last_checkpoint(run))
        return content

    monkeypatch.setattr(rave.codec, "read_checkpoint", read_and_train_on)
    code, out = exported(run, tmp_path, kind)
    monkeypatch.undo()
    assert code == 0
    assert np.abs(heard(out) - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", IDS)
def test_no_export_appears_that_is_beyond_the_bound(tmp_path, monkeypatch, capsys, kind):
    run = write_run(tmp_path / "run", "v2", *FEW)
    monkeypatch.setattr(rave.codec_source, "LARGEST_DIFFERENCE", -1.0)
    assert exported(run, tmp_path, kind)[0] == 2
    assert "was not written: it would differ from the run by" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_export_of_changed_or_broken_weights_does_not_appear(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", "v2", *FEW)
    fold_weight_norm = rave.export.torchscript.fold_weight_norm
    for factor, figure in ((1.01, "e-0"), (float("nan"), "nan")):

        def fold(model, factor=factor):
            fold_weight_norm(model)
            with torch.no_grad():
                next(iter(model.encoder.parameters())).mul_(factor)

        monkeypatch.setattr(rave.export.torchscript, "fold_weight_norm", fold)
        assert exported(run, tmp_path, "torchscript")[0] == 2
        assert figure in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
