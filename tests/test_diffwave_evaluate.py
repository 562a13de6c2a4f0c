"""`python -m diffwave.evaluate`: the ladder from recordings to noise."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from audio_files import write
from diffwave_data import settings
from rave_runs import RATE_HZ, make_informative, prepare
from rave_runs import train as train_codec
from test_rave_musicnn import prelude

from diffwave import evaluate, train
from diffwave import preprocess as diffwave_preprocess
from diffwave.evaluation import ladder
from diffwave.evaluation.figures import BAR, LadderFigures, _diversity, _position, reading
from diffwave.evaluation.ladder import (
    FOLLOWING,
    GAUSSIAN,
    GENERATED,
    MODELLED,
    RECONSTRUCTION,
    TITLES,
)
from rave.evaluation.audio_statistics import measure
from rave.evaluation.folders import Piece
from rave.latents.folder import LatentHeader
from rave.latents.shifts import ShiftConsistency
from rave.main_cli import main
from rave.notes.statistics import NOTE_DISTANCES

MODELS = Path(__file__).parents[1] / "models"

SAMPLE = Path(__file__).parent / "golden" / "evaluation.json"
RUNG_KEYS = set(["name", "title", "frechet", "frechet_std", "interval", "patches", "seeds"])
RUNG_KEYS |= set(["spectral", "onset", "chroma", "loudness", "kernel", "kernel_std"])
RUNG_KEYS |= set([*NOTE_DISTANCES, "note_f1", "note_f1_std", "frame_f1", "frame_f1_std"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Make recordings, a codec, latents, controls and a run of a few steps that follows them."""
    folder = tmp_path_factory.mktemp("evaluate")
    music = prelude()[None].astype(np.float32)
    for number in range(3):
        write(folder / "audio" / f"{number}.wav", np.roll(music, 16000 * number), 16000)
    assert train_codec(prepare(folder / "codec-data"), folder / "codec") == 0
    make_informative(folder / "codec")
    parts = [folder / name for name in ("codec", "audio", "latents")]
    assert main(["encode", *map(str, parts)]) == 0
    controls = [str(folder / name) for name in ("latents", "audio", "controls")]
    assert diffwave_preprocess.main([*controls, "--controls", "loudness"]) == 0
    paths = [str(folder / "latents"), "--out", str(folder / "run")]
    paths += ["--controls", str(folder / "controls"), "loudness", "--device", "cpu"]
    assert train.main([*paths, *settings("MAX_STEPS=4", "FIDELITY=1.0")]) == 0
    return folder


def run(folder, capsys, *more, **changed):
    """Return exit code, stdout and stderr of a small evaluation."""
    places = {"run": "run", "latents": "latents", "audio": "audio", "codec": "codec"} | changed
    paths = [str(folder / places[name]) for name in ("run", "latents", "audio")]
    options = ["--codec", str(folder / places["codec"]), "--count", "2", "--seconds", "3.2"]
    capsys.readouterr()
    code = evaluate.main([*paths, *options, "--seeds", "2", "--steps", "2", *map(str, more)])
    return code, *capsys.readouterr()


def test_the_ladder_is_measured_written_and_the_same_in_any_batch(folder, capsys, monkeypatch):
    code, text, shown = run(folder, capsys, "--out", folder / "one")
    assert code == 0
    done, total = re.findall(r"Measuring: 100%.* (\d+)/(\d+) \[", shown)[-1]
    assert done == total
    record = json.loads((folder / "one" / "evaluation.json").read_text())
    assert (folder / "one" / "ladder.png").stat().st_size > 1000
    assert [rung["name"] for rung in record["rungs"]] == list(TITLES)
    for rung in record["rungs"]:
        assert set(rung) == RUNG_KEYS
        assert rung["title"] in text
        assert rung["patches"] == 2
        assert f"{rung['kernel']:.2f} ± {rung['kernel_std']:.2f}" in text
        is_pair = rung["name"] in (RECONSTRUCTION, MODELLED, FOLLOWING)
        assert (rung["note_f1"] is not None) == (rung["frame_f1_std"] is not None) == is_pair
    named = {rung["name"]: rung for rung in record["rungs"]}
    # All dimensions are modelled.
    assert named[MODELLED]["frechet"] == pytest.approx(named[RECONSTRUCTION]["frechet"], rel=0.01)
    assert named["held_out"]["kernel"] < named["noise"]["kernel"]
    assert len(named[GENERATED]["seeds"]) == 2
    assert named["held_out"]["frechet"] < named["noise"]["frechet"]
    assert named["held_out"]["spectral"] < named["noise"]["spectral"]
    assert record["copying"]["held_out"] > 0
    for sentence in record["reading"]:
        assert sentence in text
    shifts, hop = record["latents"]["shifts"], LatentHeader.read(folder / "latents").hop_samples
    assert shifts["shifts"] == sorted({*(s for s in (1, 8, 16, 128) if s < hop), hop // 2})
    for kept, between in zip(shifts["same"], shifts["between"], strict=True):
        assert kept <= 1
        assert between <= 1
    assert record["latents"]["predictability"] is None  # it follows a loudness
    assert f"the sound moves: 1 sample {shifts['same'][0]:.2f}, 8 samples" in text
    assert record["command"].startswith("python -m diffwave.evaluate ")

    monkeypatch.setattr(ladder, "BATCH_SIZE", 1)
    assert run(folder, capsys, "--out", folder / "two")[0] == 0
    again = json.loads((folder / "two" / "evaluation.json").read_text())
    for one, other in zip(record["rungs"], again["rungs"], strict=True):
        assert one["frechet"] == pytest.approx(other["frechet"], rel=1e-3)
        assert one["kernel"] == pytest.approx(other["kernel"], rel=1e-3, abs=1e-3)
    # Another seed draws another set.
    assert named[GENERATED]["seeds"][0] != named[GENERATED]["seeds"][1]


def test_the_ladder_is_drawn_with_the_seed_that_is_given(folder, capsys, monkeypatch):
    """What follows from it: test_seeds_in_training.py."""

    def keep(ladder, num_sets, size):
        raise ValueError(f"drawn with {ladder.seed}")

    monkeypatch.setattr("diffwave.api.evaluate.measure_ladder", keep)
    assert "drawn with 23" in run(folder, capsys, "--seed", "23")[2]


@pytest.mark.parametrize(
    ("more", "changed", "told"),
    [
        (["--seconds", 1], {}, "it must be from 3.1 to 600"),
        (["--seconds", 60], {}, "the longest held-out recording lasts"),
        (["--count", 1], {}, "at least 2 are needed"),
        (["--seeds", 0], {}, "at least 1 is needed"),
        (["--seed", -1], {}, "is not a seed"),
        ([], {"audio": "latents"}, "Give the folder that rave encode read"),
        ([], {"codec": "audio"}, "audio"),
        (["--guidance", "chroma=2"], {}, "needs the condition chroma"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(folder, capsys, more, changed, told):
    code, _, errors = run(folder, capsys, "--out", folder / "refused", *more, **changed)
    assert code == 2
    assert told in errors.splitlines()[-1]
    assert not (folder / "refused").exists()


def rungs(generated, reconstruction=10.0, gaussian=40.0):
    """Return the rungs that a position needs."""
    return {
        RECONSTRUCTION: {"frechet": reconstruction},
        GAUSSIAN: {"frechet": gaussian},
        GENERATED: {"seeds": generated},
        FOLLOWING: {"frechet": 13.0},
    }


def test_the_position_is_0_of_reconstruction_and_1_of_gaussian_latents():
    position = _position(rungs([10.0, 40.0]))
    assert position["seeds"] == [0.0, 1.0]
    assert position["value"] == 0.5
    assert position["following"] == pytest.approx(0.1)
    assert _position(rungs([10.0], gaussian=9.0))["value"] is None


def test_rungs_out_of_order_are_told_by_name():
    def figures(*distances, modelled=1.0):
        found = [
            {"name": name, "title": TITLES[name], "frechet": distance, "frechet_std": 1.0}
            for name, distance in zip((RECONSTRUCTION, GENERATED, GAUSSIAN), distances, strict=True)
        ]
        rung = {"name": MODELLED, "title": TITLES[MODELLED], "frechet": modelled}
        found.insert(1, rung)
        position = _position({**rungs([distances[1]], distances[0], distances[2])})
        return LadderFigures(found, position, {"ratio": 1.0}, {"ratio": 1.0}).record()["reading"]

    assert "in order" in figures(1.0, 2.0, 30.0)[0]
    assert "in order" in figures(1.0, 2.0, 30.0, modelled=99.0)[0]  # it has no place
    assert "within the lower third" in figures(1.0, 2.0, 30.0)[1]
    assert "generated (50.0) beyond Gaussian" in figures(1.0, 50.0, 30.0)[0]
    assert "not within" in figures(1.0, 50.0, 30.0)[1]
    assert "is not known" in figures(9.0, 50.0, 3.0)[1]


@pytest.mark.parametrize("name", ["piano", "drums"])
def test_what_is_said_of_a_ladder_follows_the_rows_that_are_shown(name):
    record = json.loads((MODELS / name / "evaluation.json").read_text())
    assert record["reading"] == reading(record)
    ordered = [rung for rung in record["rungs"] if rung["name"] != MODELLED]
    assert len(ordered) == len(record["rungs"]) - 1
    rows = [(rung["title"], rung["frechet"]) for rung in ordered]
    is_in_order = all(one[1] <= other[1] for one, other in pairwise(rows))
    assert ("is in order" in record["reading"][0]) == is_in_order
    rising = sorted(ordered, key=lambda rung: rung["frechet"])
    assert "is in order" in reading({**record, "rungs": rising})[0]
    for index in range(len(rows) - 1):
        swapped = [*rising]
        swapped[index : index + 2] = reversed(swapped[index : index + 2])
        told = reading({**record, "rungs": swapped})[0]
        assert "out of order" in told
        assert swapped[index]["title"] in told


def test_clips_that_are_all_alike_have_no_diversity():
    rng = np.random.default_rng(0)
    sound = measure(rng.standard_normal(RATE_HZ), RATE_HZ)
    real = [[Piece("", rng.standard_normal((4, 8)), sound)] for _ in range(5)]
    assert _diversity([real[0]] * 5, real)["ratio"] == pytest.approx(0.0, abs=1e-6)
    assert _diversity(real, real)["ratio"] == pytest.approx(1.0)


def test_the_sample_of_the_format_has_the_keys_that_are_documented():
    record = json.loads(SAMPLE.read_text())
    assert (record["format"], record["version"]) == ("rave-diffwave-evaluation", 1)
    assert all(set(rung) == RUNG_KEYS for rung in record["rungs"])
    assert record["position"]["bar"] == pytest.approx(BAR, abs=1e-5)
    documented = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    assert set(record["latents"]["shifts"]) == {each.name for each in fields(ShiftConsistency)}
    latents = (*record["latents"], *record["latents"]["shifts"])
    for name in (*record, *RUNG_KEYS, *record["position"], *latents):
        assert f"`{name}`" in documented, name
