"""`python -m diffwave.diagnose`: what it takes for what, what it refuses, and what it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffwave_data import autoregression, write_latent_folder

from diffwave import diagnose
from diffwave.diagnosis import run as run_diagnosis
from diffwave.diagnosis import run_picture, run_report
from rave.latents.folder import GENERATED

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command; return exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = diagnose.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    arrays = {f"{n}.npy": autoregression(3, 600, 0.8, seed) for seed, n in enumerate("abc")}
    write_latent_folder(tmp_path / "latents", arrays)
    return tmp_path / "latents"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace the diagnosis of runs; return the list of what it is asked."""
    asked: list[dict[str, Any]] = []

    def diagnose_run(folder: Path, **options: Any) -> Any:
        options.pop("progress")("all of it")
        asked.append({"folder": folder, **options})
        return SimpleNamespace(record=lambda: {"findings": []}, figures=b"picture")

    monkeypatch.setattr(run_diagnosis, "diagnose_run", diagnose_run)
    monkeypatch.setattr(run_report, "words", lambda found: "Found something.")
    monkeypatch.setattr(run_picture, "draw", lambda found, path: path.write_bytes(found))
    return asked


def test_latents_are_diagnosed_in_words_and_leave_nothing(latents: Path, call: Call) -> None:
    before = sorted(latents.iterdir())
    code, told, _ = call(latents, "--set", "SEGMENT_FRAMES=32", "--set", "LOSS='l1'")
    assert code == 0
    assert told.startswith(f"'{latents}': 3 files, 1800 frames (115.2 s), 3 dimensions")
    assert "a training segment                    32 frames" in told
    assert "this recipe (cosine, v, l1)" in told
    assert sorted(latents.iterdir()) == before


def test_findings_are_no_error(tmp_path: Path, call: Call) -> None:
    noise = {f"{n}.npy": autoregression(2, 600, 0.0, seed) for seed, n in enumerate("abc")}
    write_latent_folder(tmp_path / "noise", noise)
    code, told, errors = call(tmp_path / "noise")
    assert (code, errors) == (0, "")
    assert "Found white-latents: " in told
    assert "(docs/diagnosis.md#white-latents)" in told


def test_out_holds_record_and_picture(latents: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "deep" / "out"
    code, told, _ = call(latents, "--out", out, "--json")
    assert code == 0
    assert json.loads((out / "diagnosis.json").read_text()) == json.loads(told)
    assert sorted(path.name for path in out.iterdir()) == ["diagnosis.json", "diagnosis.png"]
    assert call(latents, "--out", out)[0] == 0  # again
    assert str(out / "diagnosis.png") in call(latents, "--out", out)[1]


def test_generated_latents_are_compared_with_the_training(latents: Path, call: Call) -> None:
    arrays = {"g.npy": np.full((3, 50), 9.0, dtype=np.float32) + autoregression(3, 50, 0.5, 0)}
    write_latent_folder(latents.parent / "made", arrays, contents=GENERATED)
    code, told, _ = call(latents.parent / "made")
    assert code == 0
    assert "1 files of generated latents" in told


def test_a_run_is_told_from_the_latents_whose_header_it_holds(
    latents: Path, call: Call, asked: list[dict[str, Any]]
) -> None:
    ours, theirs = latents.parent / "ours", latents.parent / "theirs"
    codec = latents.parent / "codec"  # of which nothing is read, as of the controls
    codec.mkdir()
    for folder, name in ((ours, "run.json"), (theirs, "weights.pt")):
        folder.mkdir()
        shutil.copy(latents / "latents.json", folder)
        (folder / name).write_text("{}")
        code, told, errors = call(folder, "--seed", "3", "--device", "cpu", "--codec", codec)
        assert code == 0
        assert told.startswith("Found something.")
        assert errors == "Looking at all of it …\n"
        assert (folder / "diagnosis" / "diagnosis.json").exists()
        assert (folder / "diagnosis" / "diagnosis.png").read_bytes() == b"picture"
    weights = theirs / "weights.pt"
    out = latents.parent / "out"
    assert call(weights, "--latents", latents, "--controls", codec, "--out", out)[0] == 0
    assert (out / "diagnosis.png").exists()
    assert [each["folder"] for each in asked] == [ours, theirs, weights]
    assert asked[0]["seed"] == 3
    assert asked[0]["codec"] == codec
    assert asked[0]["latents"] is None
    assert (asked[2]["latents"], asked[2]["controls"]) == (latents, codec)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}"], "is neither a latent folder (with latents.json) nor a run (with run.json)"),
        (["{tmp}/nothing"], "nothing' does not exist. Give a folder that rave encode"),
        (
            ["{latents}", "--codec", "{tmp}"],
            "is a latent folder; --codec is for a run. Leave it out.",
        ),
        (["{run}", "--set", "LOSS='l1'"], "is a run; --set is for latents. Leave it out."),
        (["{run}"], "is a rave run; a diffwave run is needed here."),
        (["{latents}", "--seed", "-1"], "'-1' is not a seed"),
        (["{latents}", "--out", "{latents}/x"], "is inside the input folder"),
        (["{latents}", "--out", "{latents}/a.npy"], "is a file"),
        (["{run}", "--out", "{latents}/a.npy"], "is a file; the output is a folder."),
        (["{latents}", "--config", "loud"], "There is no recipe 'loud'"),
        (["{latents}", "--set", "LATENT_SIZE=2"], "LATENT_SIZE cannot be set"),
        (["{latents}", "--set", "PREDICTION='epsilon'"], "cannot be used with a schedule"),
        (["{latents}", "--set", "FIDELITY=0"], "FIDELITY is 0"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused_in_one_sentence(
    arguments: list[str], message: str, latents: Path, call: Call
) -> None:
    run = latents.parent / "run"
    run.mkdir()
    (run / "run.json").write_text(
        json.dumps({"format": "rave-diffwave-run", "version": 1, "kind": "rave"})
    )
    places = {"tmp": str(latents.parent), "latents": str(latents), "run": str(run)}
    code, told, errors = call(*(argument.format(**places) for argument in arguments))
    assert (code, told) == (2, "")
    assert message in errors
    assert "Traceback" not in errors
    assert not (run / "diagnosis").exists()
