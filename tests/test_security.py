"""Code in files that strangers send never runs.

Each is refused with one sentence and exit code 2, and a canary, which the code in the file would
have made, is not there.
"""

import json
import os
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lmnt_runs import make_checkpoint
from rave_models import write_run
from strangers import (
    audio_of,
    diffusion_run,
    edit_header,
    format_of,
    latents_of,
    lmnt_run,
    prior_run,
    sharded,
    upstream_prior,
)
from test_rave_upstream_lmdb import GOLDEN as DATABASE
from upstream_runs import CHECKPOINT, CONFIG, write_upstream_run

from diffwave import inference
from diffwave import train as diffwave_train
from diffwave.conditions.controls import open_control
from diffwave.experiments.laboratory import Laboratory
from rave.latents.folder import LatentHeader
from rave.main_cli import main
from rave.runs.checkpoint import last_checkpoint, read_checkpoint


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


LAST = last_checkpoint(Path())
# What makes a run, where its weights lie, and the command that opens it.
OPENED = {
    "rave": (write_run, LAST, lambda r, o: (main, "encode", r, audio_of(o), o / "out")),
    "acids-rave": (
        write_upstream_run,
        CHECKPOINT,
        lambda r, o: (main, "encode", r, audio_of(o), o / "out"),
    ),
    "averaged": (
        write_upstream_run,
        CHECKPOINT,
        lambda r, o: (main, "generate", r, audio_of(o), o / "out", "--ema"),
    ),
    "prior": (prior_run, LAST, lambda r, o: (main, "sample_prior", r, o / "out")),
    "acids-rave prior": (
        upstream_prior,
        CHECKPOINT,
        lambda r, o: (main, "sample_prior", r, o / "out", "--codec", r),
    ),
    "diffwave": (diffusion_run, LAST, lambda r, o: (inference.main, r, o / "out")),
    "lmnt diffwave": (lmnt_run, "weights.pt", lambda r, o: (inference.main, r, o / "out")),
}


@pytest.mark.filterwarnings("default")  # torch's of its older file form
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kind", OPENED)
def test_code_in_weights_never_runs(kind, is_zip, tmp_path, canary, refused):
    make, where, command = OPENED[kind]
    path = make(tmp_path / "run") / where
    content = read_checkpoint(path) | {"more": Code(canary)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    told = refused(*command(tmp_path / "run", tmp_path))
    assert "Cannot read checkpoint" in told
    assert "holds more than tensors and plain data" in told


def test_code_in_a_run_that_is_continued_never_runs(tmp_path, canary, refused):
    latents_of(tmp_path / "latents")
    made = diffusion_run(tmp_path / "run")
    content = read_checkpoint(made / LAST) | {"more": Code(canary)}
    (made / "config.gin").unlink()  # any settings continue it
    torch.save(content, made / LAST)
    where = (tmp_path / "latents", "--out", made, "--config", "tiny")
    assert "Cannot read checkpoint" in refused(diffwave_train.main, *where)


def test_code_in_a_result_of_an_experiment_never_runs(tmp_path, canary):
    laboratory = Laboratory.__new__(Laboratory)
    laboratory.figures_path = lambda _: tmp_path / "a.json"
    torch.save({"more": Code(canary)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds more than tensors"):
        laboratory._weights(None)
    assert not canary.exists()


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(tmp_path, refused):
    made = write_run(tmp_path / "run")
    packed = tmp_path / "packed.ckpt"
    with (
        zipfile.ZipFile(made / LAST) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        target.writestr("archive/data/more", bytes(50_000_000))
    assert packed.stat().st_size < 2_000_000
    packed.replace(made / LAST)
    assert "it is compressed" in refused(main, "export", made, tmp_path / "a.ts")


# Gin


BEGIN = (
    "from __gin__ import dynamic_registration\nfrom rave import experiment\nfrom rave import {}\n"
)
CALLS = {
    "a module behind one of ours": BEGIN.format("files")
    + "files.os.mkdir.path = '{canary}'\nexperiment.build_model.model = @files.os.mkdir()\n",
    "one behind a model": BEGIN.format("model")
    + "model.torch.hub.os.mkdir.path = '{canary}'\n"
    + "experiment.build_model.model = @model.RAVE()\n"
    + "model.RAVE.latent_size = @model.torch.hub.os.mkdir()\n",
    "a function of ours": BEGIN.format("files")
    + "files.check_inside.name = '/'\nexperiment.build_model.model = @files.check_inside()\n",
    "a class of ours that is no model": BEGIN.format("journal")
    + "journal.Journal.path = '{canary}'\nexperiment.build_model.model = @journal.Journal()\n",
    "a macro": BEGIN.format("files")
    + "X = [{{'a': @s/files.os.mkdir()}}]\ns/files.os.mkdir.path = '{canary}'\n"
    + "experiment.build_model.model = %X\n",
    "a name without its module": BEGIN.format("model")
    + "experiment.build_model.model = @os.mkdir()\n",
    "a block": BEGIN.format("files")
    + "files.os.mkdir:\n  path = '{canary}'\nexperiment.build_model.model = @files.os.mkdir()\n",
    "an import": BEGIN.format("model")
    + "import os\nos.mkdir.path = '{canary}'\nexperiment.build_model.model = @os.mkdir()\n",
    "an import on two lines": BEGIN.format("model")
    + "import\\\n os\nos.mkdir.path = '{canary}'\nexperiment.build_model.model = @os.mkdir()\n",
    "an inclusion": "include '{harm}'\n",
    "an inclusion behind a space": "  include '{harm}'\n",
    "an expression": BEGIN.format("model")
    + "experiment.build_model.model = __import__('os').mkdir('{canary}')\n",
    "no module of ours at all": "build_model.model = @mkdir()\n",
}


def gin_text(case, tmp_path, canary):
    harm = tmp_path / "harm.gin"
    harm.write_text(CALLS["a module behind one of ours"].format(canary=canary))
    return CALLS[case].format(canary=canary, harm=harm)


@pytest.mark.parametrize("case", CALLS)
def test_a_run_of_ours_names_parts_of_models_and_nothing_else(case, tmp_path, canary, refused):
    for name, make in (("a", write_run), ("b", prior_run), ("c", diffusion_run)):
        made = make(tmp_path / name)
        (made / "model.gin").write_text(gin_text(case, tmp_path, canary))
        command = {
            "a": (main, "encode", made, audio_of(tmp_path)),
            "b": (main, "sample_prior", made),
            "c": (inference.main, made),
        }[name]
        told = refused(*command, tmp_path / "out")
        assert "Refused" in told or "Cannot read" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CALLS)
def test_a_recipe_and_a_setting_name_no_more(case, tmp_path, canary, refused):
    recipe = tmp_path / "recipe.gin"
    recipe.write_text(gin_text(case, tmp_path, canary))
    where = ("--data", DATABASE, "--out", tmp_path / "out")
    told = refused(main, "train", recipe, *where)
    assert "Refused" in told or "Cannot read" in told
    setting = f"model.torch.hub.os.mkdir.path = '{canary}'"
    told = refused(main, "train", "v2", *where, "--set", setting)
    assert "it names 'model.torch.hub.os.mkdir'" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CALLS)
def test_a_config_of_acids_rave_is_data(case, tmp_path, canary, refused):
    """What its model is not made of is not looked at; nothing is imported, included or called."""
    text = CONFIG + "\n" + gin_text(case, tmp_path, canary)
    text = re.sub(r"(experiment\.)?build_model\.model", "RAVE.latent_size", text)
    made = write_upstream_run(tmp_path / "run", text)
    refused(main, "encode", made, audio_of(tmp_path), tmp_path / "out")


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


# Arrays


def write_objects(path, canary):
    np.save(path, np.array([Code(canary)], dtype=object), allow_pickle=True)


def write_archive(path, canary):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3, np.float32))


def write_pickle(path, canary):
    path.write_bytes(b"\x80\x04cos\nmkdir\n(V" + str(canary).encode() + b"\ntR.")


def write_absurd_shape(path, canary):
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (4, 2**61)}
        np.lib.format.write_array_header_1_0(file, header)


def write_code_in_the_header(path, canary):
    text = f"{{'descr': __import__('os').mkdir('{canary}'), 'shape': (), 'fortran_order': 0}}"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())


SPOILT = (
    *(write_objects, write_archive, write_pickle, write_absurd_shape),
    write_code_in_the_header,
)


@pytest.mark.parametrize("spoil", SPOILT)
def test_an_array_is_numbers_and_nothing_else(spoil, tmp_path, canary, refused):
    made, free = write_run(tmp_path / "run"), diffusion_run(tmp_path / "free")
    format = format_of(made)
    latents_of(tmp_path / "latents", codec=format.fingerprint)
    header = LatentHeader.read(tmp_path / "latents")
    edit_header(
        tmp_path / "latents",
        hop_samples=format.hop_samples,
        sample_rate_hz=format.sample_rate_hz,
        files=[{**vars(file), "source_num_samples": 1} for file in header.files],
    )
    for name in "ab":
        spoil(tmp_path / "latents" / f"{name}.npy", canary)
    told = refused(main, "decode", made, tmp_path / "latents", tmp_path / "out")
    assert "No file of" in told
    for command in (
        (main, "train_prior", tmp_path / "latents", "--out", tmp_path / "prior"),
        (diffwave_train.main, tmp_path / "latents", "--out", tmp_path / "diffusion"),
        (inference.main, free, tmp_path / "out", "--vary", tmp_path / "latents" / "a.npy"),
    ):
        refused(*command)
    spectrograms = tmp_path / "vocoder"
    spectrograms.mkdir()
    torch.save({**make_checkpoint(True)}, spectrograms / "weights.pt")
    latents_of(spectrograms)
    spoil(tmp_path / "a.spec.npy", canary)
    spectrogram = ("--spectrogram", tmp_path / "a.spec.npy")
    refused(inference.main, spectrograms, tmp_path / "out", *spectrogram)


def test_a_control_is_numbers_and_nothing_else(tmp_path, canary):
    for spoil in SPOILT:
        spoil(tmp_path / "a.npy", canary)
        with pytest.raises(ValueError, match="Cannot read the control"):
            open_control(tmp_path / "a.npy", "loudness")
    assert not canary.exists()


# Sharded sets


@pytest.mark.parametrize("spoil", SPOILT)
def test_an_index_is_numbers_and_nothing_else(spoil, tmp_path, canary, refused):
    shards = sharded(tmp_path)
    spoil(shards / "index.npy", canary)
    out = tmp_path / "diffusion"
    assert "index.npy" in refused(diffwave_train.main, shards, "--out", out)
    assert "index.npy" in refused(main, "unshard", shards, tmp_path / "out")


def edit_index(shards, field, value):
    table = np.load(shards / "index.npy")
    table[field][0] = value
    np.save(shards / "index.npy", table)


@pytest.mark.parametrize(
    ("field", "value"),
    [("offset", -8), ("offset", 2**62), ("offset", 10), ("num_frames", 2**32 - 1), ("head", 60000)],
)
def test_an_index_that_leads_out_of_its_shard_is_refused(field, value, tmp_path, refused):
    shards = sharded(tmp_path)
    if field == "num_frames":  # as its header tells
        header = json.loads((shards / "shards.json").read_text())
        header["shards"][0]["num_frames"] = 64 + value
        (shards / "shards.json").write_text(json.dumps(header))
    edit_index(shards, field, value)
    for command in (
        (diffwave_train.main, shards, "--out", tmp_path / "diffusion"),
        (main, "unshard", shards, tmp_path / "out"),
    ):
        assert "index.npy leads out of shard-00000.tar" in refused(*command)


def change_members(path, change):
    """Change what the headers of the clips a and b in a shard say."""
    content = path.read_bytes()
    for clip in (b"a.npy", b"b.npy"):
        begin = content.index(clip + bytes(8))
        info = tarfile.TarInfo.frombuf(content[begin : begin + 512], "utf-8", "strict")
        change(info)
        content = content[:begin] + info.tobuf(tarfile.GNU_FORMAT) + content[begin + 512 :]
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["../canary", "/canary", "a/../../canary", "C:\\canary"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name, tmp_path, canary, refused):
    shards = sharded(tmp_path)
    change_members(shards / "shard-00000.tar", lambda info: setattr(info, "name", name))
    told = refused(main, "unshard", shards, tmp_path / "out")
    assert "is damaged" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".unshard.jsonl"]


def test_a_member_that_is_a_link_is_not_followed(tmp_path, refused):
    shards = sharded(tmp_path)

    def become_link(info):
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"

    change_members(shards / "shard-00000.tar", become_link)
    assert "it has no name" in refused(main, "unshard", shards, tmp_path / "out")
