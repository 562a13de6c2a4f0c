"""What `rave train` says of data that its recipe is not made for, or that can teach nothing."""

import json

import numpy as np
import pytest
from audio_files import noise, sine, write
from diffwave_data import settings, write_latent_folder
from rave_runs import RATE_HZ, prepare, train
from test_rave_prior import SETTINGS as PRIOR

from diffwave import train as diffwave_train
from rave.main_cli import main
from rave.runs.recipes import list_recipes, read_recipe

LENGTH = RATE_HZ // 2


def prepared(folder, *arrays, rate_hz=RATE_HZ):
    """Prepare audio (1, T) and return the prepared folder."""
    for index, array in enumerate(arrays):
        write(folder / "in" / f"{index}.wav", array.astype(np.float32), rate_hz)
    options = ["--sample-rate", str(rate_hz)]
    assert main(["preprocess", str(folder / "in"), str(folder / "out"), *options]) == 0
    return folder / "out"


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ([0, 0], ["that are trained on are digital silence. Nothing can", "held out are digital"]),
        ([0.25, 0.1], ["that are trained on are one constant value (DC)"]),
        (
            ["a", "a", "a"],
            ["all 3 files hold the same audio, so the held-out audio is also trained on"],
        ),
        (["a", "b"], []),
    ],
    ids=["silence", "constant", "copies", "music"],
)
def test_data_that_can_teach_nothing_is_said_so_at_the_start_and_at_the_end(
    tmp_path, capsys, arrays, told
):
    audio = [
        sine(220.0 if what == "a" else 330.0, RATE_HZ, 0.5)
        if isinstance(what, str)
        else np.full((1, LENGTH), what)
        for what in arrays
    ]
    data = prepared(tmp_path, *audio)
    capsys.readouterr()
    sizes = ("MAX_STEPS=1", "PHASE_1_STEPS=1", "VALIDATE_EVERY_STEPS=1")
    assert train(data, tmp_path / "run", *sizes, options=("--json",)) == 0
    out, error = capsys.readouterr()
    warnings = json.loads(out)["warnings"]
    assert bool(warnings) == bool(told)
    for words in told:
        assert words in error
        assert any(words in sentence for sentence in warnings)


def test_silence_at_the_held_out_end_is_said_to_make_its_figures_meaningless(tmp_path, capsys):
    music = np.concatenate([noise(LENGTH, seed=0, gain=0.1), np.zeros((1, LENGTH // 4))], axis=1)
    sizes = ("MAX_STEPS=1", "VALIDATE_EVERY_STEPS=1")
    assert train(prepared(tmp_path, music), tmp_path / "run", *sizes) == 0
    out, error = capsys.readouterr()
    told = "that are held out are digital silence. The held-out figures will be meaningless."
    assert told in error
    assert told in out
    assert "Nothing can be learned" not in error


def test_latents_that_do_not_vary_are_refused(tmp_path, capsys):
    write_latent_folder(tmp_path / "in", {f"{n}.npy": np.ones((4, 40), "f4") for n in "abc"})
    prior = [text for each in PRIOR for text in ("--set", each)]
    words = [str(tmp_path / "in"), "--out", str(tmp_path / "run")]
    for command in (
        lambda: diffwave_train.main([*words, "--config", "tiny", *settings()]),
        lambda: main(["train_prior", *words, *prior]),
    ):
        assert command() == 2
        assert "latents do not vary at all" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Sample rates


def test_every_recipe_states_the_rate_that_it_is_made_for():
    rates = {n: read_recipe("rave", n).value("SAMPLE_RATE_HZ") for n in list_recipes("rave")}
    assert {name for name, rate in rates.items() if rate == 22050} == {"small", "tiny", "waveform"}
    assert set(rates.values()) == {22050, 44100}
    assert read_recipe("rave", "small+causal").value("SAMPLE_RATE_HZ") == 22050


def test_another_rate_than_that_of_the_recipe_is_said_with_what_to_do(tmp_path, capsys):
    data = prepare(tmp_path)
    for recipe, made_for in (("v2_small", 44100), ("v2+causal", 44100), ("v2", 44100)):
        capsys.readouterr()
        run = tmp_path / recipe
        sizes = ("MAX_STEPS=1", "PHASE_1_STEPS=1", "VALIDATE_EVERY_STEPS=1")
        sizes += ("noise.NoiseGenerator.ratios=[2, 2]",) if recipe == "v2_small" else ()
        assert train(data, run, *sizes, recipe=recipe) == 0
        error = capsys.readouterr().err
        assert f"recipe '{recipe}' is made for {made_for} Hz, but the data has 22050 Hz" in error
        assert f"rave preprocess AUDIO_DIR PREPARED_DIR --sample-rate {made_for}\n" in error


def test_nothing_is_said_of_the_rate_that_the_recipe_is_made_for(tmp_path, capsys):
    recipe = tmp_path / "mine.gin"
    recipe.write_text("include 'recipes/v2.gin'\nSAMPLE_RATE_HZ = 22050\n")
    assert train(prepare(tmp_path), tmp_path / "run", "MAX_STEPS=1", recipe=str(recipe)) == 0
    assert "is made for" not in capsys.readouterr().err
