"""The bundled models: they are whole, small, as good as their cards say, and they play."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from demo_piano import make_recordings
from training_curves import CODEC_DECIBELS, CURVES, SKILL

from diffwave import inference
from rave.evaluation.audio_statistics import followed
from rave.main_cli import main as rave

MODELS = sorted(path.parent for path in (Path(__file__).parents[1] / "models").glob("*/codec"))
MAX_BYTES = 25_000_000
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda path: path.name)


def test_together_they_are_small():
    files = [path for path in MODELS[0].parent.rglob("*") if path.is_file()]
    assert [model.name for model in MODELS] == ["drums", "piano"]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES


@each_model
def test_a_card_tells_whose_music_it_is_and_what_was_measured(model):
    card = (model / "README.md").read_text()
    assert re.search(r"^## Data and licence\n\n.*CC", card, re.MULTILINE | re.DOTALL)
    evaluation = json.loads((model / "evaluation.json").read_text())
    told = {**evaluation["position"], "skill": open_skill(model)}
    for value in (told["value"], told["following"], told["skill"]):
        assert f"{value:.2f}".replace("-", "−") in card
    for key in ("diversity", "copying"):
        assert f"{evaluation[key]['ratio']:.2f}" in card
    rungs = {rung["name"]: rung for rung in evaluation["rungs"]}
    for name in ("reconstruction", "modelled", "following"):
        assert "{note_f1:.2f} ({frame_f1:.2f})".format(**rungs[name]) in card
    shifts = evaluation["latents"]["shifts"]
    kept = [shifts["same"][shifts["shifts"].index(16)], shifts["between"][-1]]
    kept.append(evaluation["latents"]["predictability"])
    assert "; ".join(f"{each:.2f}".replace("-", "−") for each in kept) in card
    curves = json.loads((model / CURVES).read_text())
    assert {CODEC_DECIBELS, SKILL} < set(curves)


def open_skill(model):
    return json.loads((model / "diffusion" / "skill.json").read_text())["skill"]


@each_model
def test_generated_music_lies_in_the_lower_third_of_the_ladder(model):
    evaluation = json.loads((model / "evaluation.json").read_text())
    distances = {rung["name"]: rung["frechet"] for rung in evaluation["rungs"]}
    ladder = ["generated", "gaussian", "normal", "noise"]
    assert sorted(ladder, key=distances.get) == ladder
    assert evaluation["position"]["value"] < evaluation["position"]["bar"] == 1 / 3


@each_model
def test_the_diffusion_model_is_of_the_codec_beside_it(model, tmp_path):
    generated = tmp_path / "generated"
    options = ["--count", "1", "--seconds", "2", "--steps", "10"]
    assert inference.main([str(model / "diffusion"), str(generated), *options]) == 0
    assert rave(["decode", str(model / "codec"), str(generated), str(tmp_path / "audio")]) == 0
    audio, _ = soundfile.read(tmp_path / "audio" / "generated_000.wav")
    level_db = 20 * np.log10(np.sqrt(np.mean(np.square(audio))))
    assert -45 < level_db < -12  # the music that they know has about -24 and -31 dBFS


def test_the_piano_follows_a_recording_that_it_never_heard(tmp_path):
    """Another piece shows what chance would give."""
    model = MODELS[-1]
    recordings = make_recordings(tmp_path / "recordings")
    source, other = recordings[0], recordings[1]
    options = ["--from-audio", str(source), "--count", "1", "--steps", "20"]
    assert inference.main([str(model / "diffusion"), str(tmp_path / "after"), *options]) == 0
    assert rave(["decode", str(model / "codec"), str(tmp_path / "after"), str(tmp_path / "a")]) == 0
    audio, rate = soundfile.read(next((tmp_path / "a").glob("*.wav")), dtype="float32")
    right, wrong = (
        followed(audio, soundfile.read(path, dtype="float32")[0], rate) for path in (source, other)
    )
    assert right["chroma"] > 0.5 > wrong["chroma"]
    assert right["loudness"] > 0.7
