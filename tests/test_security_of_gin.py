"""Gin text that strangers send names parts of models and nothing else; see test_security.py."""

import re

import pytest
from rave_models import write_run
from strangers import audio_of, diffusion_run, prior_run
from test_rave_upstream_lmdb import GOLDEN as DATABASE
from upstream_runs import CONFIG, write_upstream_run

from diffwave import inference
from rave.main_cli import main

BEGIN = "from __gin__ import dynamic_registration\nfrom rave import experiment\nfrom {} import {}\n"
ATOMIC, JOURNAL = BEGIN.format("rave.files", "atomic"), BEGIN.format("rave.jobs", "journal")
MODEL = BEGIN.format("rave", "model")
NAMED = "it names '{}'. A recipe may name only classes of models and of training."
IMPORTED = "it imports 'os'. A recipe may import only from rave and diffwave."
USES = "uses {}, which this version cannot open."
INCLUDED = "it includes '{harm}'; only a recipe may include others"
MALFORMED = "malformed node or string on line 1"
# The text; why a run of ours or a recipe that has it is refused; why a config of acids-rave is.
CALLS = {
    "a module behind one of ours": (
        ATOMIC
        + "atomic.os.mkdir.path = '{canary}'\nexperiment.build_model.model = @atomic.os.mkdir()\n",
        NAMED.format("atomic.os.mkdir"),
        USES.format("atomic.os.mkdir"),
    ),
    "one behind a model": (
        MODEL
        + "model.torch.hub.os.mkdir.path = '{canary}'\n"
        + "experiment.build_model.model = @model.RAVE()\n"
        + "model.RAVE.latent_size = @model.torch.hub.os.mkdir()\n",
        NAMED.format("model.torch.hub.os.mkdir"),
        USES.format("model.RAVE"),
    ),
    "a function of ours": (
        ATOMIC
        + "atomic.check_inside.name = '/'\nexperiment.build_model.model = @atomic.check_inside()\n",
        NAMED.format("atomic.check_inside"),
        USES.format("atomic.check_inside"),
    ),
    "a class of ours that is no model": (
        JOURNAL
        + "journal.Journal.path = '{canary}'\nexperiment.build_model.model = @journal.Journal()\n",
        NAMED.format("journal.Journal"),
        USES.format("journal.Journal"),
    ),
    "a macro": (
        ATOMIC
        + "X = [{{'a': @s/atomic.os.mkdir()}}]\ns/atomic.os.mkdir.path = '{canary}'\n"
        + "experiment.build_model.model = %X\n",
        NAMED.format("atomic.os.mkdir"),
        USES.format("RAVE.latent_size = [{{'a': @s/atomic.os.mkdir()}}]"),
    ),
    "a name without its module": (
        MODEL + "experiment.build_model.model = @os.mkdir()\n",
        "'os' is not imported",
        USES.format("os.mkdir"),
    ),
    "a block": (
        ATOMIC
        + "atomic.os.mkdir:\n  path = '{canary}'\n"
        + "experiment.build_model.model = @atomic.os.mkdir()\n",
        NAMED.format("atomic.os.mkdir"),
        USES.format("atomic.os.mkdir"),
    ),
    "an import": (
        MODEL
        + "import os\nos.mkdir.path = '{canary}'\nexperiment.build_model.model = @os.mkdir()\n",
        IMPORTED,
        USES.format("os.mkdir"),
    ),
    "an import on two lines": (
        MODEL
        + "import\\\n os\nos.mkdir.path = '{canary}'\nexperiment.build_model.model = @os.mkdir()\n",
        IMPORTED,
        USES.format("os.mkdir"),
    ),
    "an inclusion": ("include '{harm}'\n", INCLUDED, INCLUDED),
    "an inclusion behind a space": ("  include '{harm}'\n", INCLUDED, INCLUDED),
    "an expression": (
        MODEL + "experiment.build_model.model = __import__('os').mkdir('{canary}')\n",
        MALFORMED,
        MALFORMED,
    ),
    "no module of ours at all": (
        "build_model.model = @mkdir()\n",
        "'build_model' is not imported",
        USES.format("mkdir"),
    ),
}


def gin_text(case, tmp_path, canary):
    """The text of a case, why ours is refused, and why one of acids-rave is."""
    harm = tmp_path / "harm.gin"
    harm.write_text(CALLS["a module behind one of ours"][0].format(canary=canary))
    return [words.format(canary=canary, harm=harm) for words in CALLS[case]]


@pytest.mark.parametrize("case", CALLS)
def test_a_run_of_ours_names_parts_of_models_and_nothing_else(case, tmp_path, canary, refused):
    text, why, _ = gin_text(case, tmp_path, canary)
    for name, make in (("a", write_run), ("b", prior_run), ("c", diffusion_run)):
        made = make(tmp_path / name)
        (made / "model.gin").write_text(text)
        command = {
            "a": (main, "encode", made, audio_of(tmp_path)),
            "b": (main, "sample_prior", made),
            "c": (inference.main, made),
        }[name]
        told = refused(*command, tmp_path / "out")
        assert told.startswith(("Refused", "Cannot read"))
        assert f" '{made / 'model.gin'}': {why}" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CALLS)
def test_a_recipe_and_a_setting_name_no_more(case, tmp_path, canary, refused):
    recipe = tmp_path / "recipe.gin"
    text, why, _ = gin_text(case, tmp_path, canary)
    recipe.write_text(text)
    where = ("--data", DATABASE, "--out", tmp_path / "out")
    told = refused(main, "train", recipe, *where)
    if why.startswith("it includes"):  # a recipe may; what it includes may not do more
        why = CALLS["a module behind one of ours"][1]
    assert f" recipe '{recipe}': {why}" in told
    setting = f"model.torch.hub.os.mkdir.path = '{canary}'"
    told = refused(main, "train", "v2", *where, "--set", setting)
    assert "it names 'model.torch.hub.os.mkdir'" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CALLS)
def test_a_config_of_acids_rave_is_data(case, tmp_path, canary, refused):
    """What its model is not made of is not looked at; nothing is imported, included or called."""
    text, _, why = gin_text(case, tmp_path, canary)
    text = re.sub(r"(experiment\.)?build_model\.model", "RAVE.latent_size", CONFIG + "\n" + text)
    made = write_upstream_run(tmp_path / "run", text)
    told = refused(main, "encode", made, audio_of(tmp_path), tmp_path / "out")
    assert f"'{made / 'config.gin'}'" in told
    assert why in told
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_built_is_one_sentence(tmp_path, refused):
    made = write_run(tmp_path / "run")
    text = (made / "model.gin").read_text()
    for old, new, words in (
        ("LATENT_SIZE = 4", "LATENT_SIZE = 'x'", "describes a model that cannot be built"),
        ("LATENT_SIZE = 4", "LATENT_SIZE = 10000000000", "describes a model that cannot be built"),
        ("= @model.RAVE()", "= @pqmf.PQMF()", "describes a PQMF; a RAVE is needed"),
        ("= @model.RAVE()", "= 3", "describes a int; a RAVE is needed"),
        ("CAPACITY = 2", "CAPACITY = 4", "does not fit its model.gin"),
    ):
        assert old in text
        (made / "model.gin").write_text(text.replace(old, new))
        assert words in refused(main, "export", made, tmp_path / "a.ts")
