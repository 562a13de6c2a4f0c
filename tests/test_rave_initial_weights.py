"""Trainings that start from the weights of another run."""

import pytest
import torch
from rave_models import SHORT, SMALL, build_model, write_run
from rave_runs import checkpoint, prepare, train
from upstream_runs import golden_weights, write_upstream_run, write_whole_run

from rave import experiment
from rave.api.train import _check_origin
from rave.codec import load_run
from rave.export.acids_rave import export_run
from rave.files.atomic import read_json, write_json
from rave.initial_weights import take_weights
from rave.runs.checkpoint import last_checkpoint, model_weights

RECIPES = ("v1", "v2", "v3", "discrete", "v2+spectral_discriminator")


def fresh(recipe, *settings):
    """Return a model and a discriminator with other weights than those of `write_whole_run`."""
    settings = (*SMALL, *(SHORT if recipe.startswith("v2") else ()), *settings)
    model = build_model(recipe, *settings, seed=1)
    return model, experiment.build_training().discriminator


def whole_run(folder, recipe):
    return write_whole_run(
        folder, *(SHORT if recipe.startswith("v2") else ()), recipe=recipe, step=1
    )


@pytest.mark.parametrize("is_acids_rave", [False, True], ids=["ours", "acids-rave"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_model_and_discriminators_get_the_weights_of_a_run(tmp_path, recipe, is_acids_rave):
    run = whole_run(tmp_path / "run", recipe)
    needed = checkpoint(run)["state_dict"]
    if is_acids_rave:
        export_run(run, tmp_path / "theirs")
    model, discriminator = fresh(recipe)
    taken = take_weights(model, discriminator, tmp_path / ("theirs" if is_acids_rave else "run"))
    assert taken.has_discriminator
    assert taken.largest_difference == 0
    found = {f"model.{name}": value for name, value in model.state_dict().items()}
    found |= {f"discriminator.{n}": value for n, value in discriminator.state_dict().items()}
    assert set(found) == set(needed)
    assert all(torch.equal(found[name], needed[name]) for name in needed)


def test_a_run_without_discriminators_leaves_those_of_the_recipe_alone(tmp_path):
    weights = {n: v for n, v in golden_weights().items() if not n.startswith("discriminator.")}
    run = write_upstream_run(tmp_path / "run", weights=weights)
    model = build_model("v2", "CAPACITY=4", "LATENT_SIZE=16", seed=1)
    discriminator = experiment.build_training().discriminator
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    taken = take_weights(model, discriminator, run)
    assert not taken.has_discriminator
    source = load_run(run)[0].state_dict()
    assert all(torch.equal(value, source[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(v, before[name]) for name, v in discriminator.state_dict().items())


def test_what_differs_in_more_than_weights_is_seen(tmp_path):
    run = whole_run(tmp_path / "run", "v2")
    for recipe, settings in (("v2+causal", ()), ("v2", ("DILATIONS=[[1, 9], [1]]",))):
        assert take_weights(*fresh(recipe, *settings), run).largest_difference > 1e-3


def test_a_run_of_other_sizes_is_refused_by_name(tmp_path):
    run = whole_run(tmp_path / "run", "v2")
    for recipe, settings, message in (
        ("v2", ("CAPACITY=3",), r"original0 is \(2, 1, 1\) there, \(3, 1, 1\) here"),
        ("v2+snake", (), "alpha is missing there"),
    ):
        with pytest.raises(ValueError, match=message):
            take_weights(*fresh(recipe, *settings), run)


def test_noise_that_a_run_does_not_have_begins_anew(tmp_path):
    run = whole_run(tmp_path / "run", "v2")
    model, discriminator = fresh("v2+noise", "noise.NoiseGenerator.ratios=[2, 2]")
    before = model.decoder.noise.net[0].weight.clone()
    taken = take_weights(model, discriminator, run)
    assert torch.equal(model.decoder.noise.net[0].weight, before)
    assert taken.largest_difference == 0


# Command


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("prepared"))


def test_training_starts_from_a_run_and_resumes_from_itself(prepared, tmp_path, capsys):
    lazy = ("MAX_STEPS=1", "LEARNING_RATE=0.0")
    assert train(prepared, tmp_path / "old", "MAX_STEPS=2") == 0
    options = ("--initialise-from", str(tmp_path / "old"))
    assert train(prepared, tmp_path / "new", *lazy, options=options) == 0
    assert "encoder, decoder and discriminators" in capsys.readouterr().err
    old, new = (model_weights(checkpoint(tmp_path / name)) for name in ("old", "new"))
    assert all(torch.equal(old[n], new[n]) for n in old if n.startswith(("encoder", "decoder")))
    fingerprint = load_run(tmp_path / "old")[1].fingerprint
    assert read_json(tmp_path / "new" / "initial.json", "origin") == {
        "run": str(tmp_path / "old"),
        "fingerprint": fingerprint,
    }
    assert train(prepared, tmp_path / "new", "MAX_STEPS=2", lazy[1], options=options) == 0
    assert "weights of" not in capsys.readouterr().err
    assert checkpoint(tmp_path / "new")["global_step"] == 2


def test_a_run_that_is_begun_is_not_started_from_other_weights(prepared, tmp_path, capsys):
    moved = write_run(tmp_path / "moved", "v2", *SHORT)
    fingerprint = load_run(moved)[1].fingerprint
    write_json(tmp_path / "initial.json", {"run": "gone", "fingerprint": fingerprint})
    _check_origin(tmp_path, moved)
    write_json(tmp_path / "initial.json", {"run": str(moved), "fingerprint": "of then"})
    _check_origin(tmp_path, moved)  # trained further since
    other = write_run(tmp_path / "other", "v2", *SHORT, seed=1)
    with pytest.raises(
        ValueError, match=f"started from the weights of '{moved}', not from those of"
    ):
        _check_origin(tmp_path, other)
    assert train(prepared, tmp_path / "run", "MAX_STEPS=1") == 0
    before = last_checkpoint(tmp_path / "run").read_bytes()
    for most in ("MAX_STEPS=1", "MAX_STEPS=2"):
        options = ("--initialise-from", str(other))
        assert train(prepared, tmp_path / "run", most, options=options) == 2
        assert "started from random weights" in capsys.readouterr().err
    assert last_checkpoint(tmp_path / "run").read_bytes() == before


def test_a_causal_training_from_a_run_that_is_not_warns(prepared, tmp_path, capsys):
    assert train(prepared, tmp_path / "old", "MAX_STEPS=1") == 0
    options = ("--initialise-from", str(tmp_path / "old"))
    assert (
        train(prepared, tmp_path / "new", "MAX_STEPS=1", options=options, recipe="v2+causal") == 0
    )
    assert "check causality, dilations, activations and noise" in capsys.readouterr().err


def test_a_run_that_does_not_fit_is_refused_before_anything_is_written(prepared, tmp_path, capsys):
    assert train(prepared, tmp_path / "old", "MAX_STEPS=1") == 0
    options = ("--initialise-from", str(tmp_path / "old"))
    assert train(prepared, tmp_path / "new", "CAPACITY=3", options=options) == 2
    assert "Give the recipe and the sizes that it was trained with." in capsys.readouterr().err
    (tmp_path / "a.ts").touch()
    for name, message in (("none", "does not exist"), ("a.ts", "is an export")):
        options = ("--initialise-from", str(tmp_path / name))
        assert train(prepared, tmp_path / "new", options=options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
