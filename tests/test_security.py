"""Code in files that strangers send never runs.

Each is refused with one sentence and exit code 2, and a canary, which the code in the file would
have made, is not there.
"""

import json
import os
import shutil
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
from upstream_runs import CHECKPOINT, write_upstream_run

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


SPOILT = {  # what is said of it
    write_objects: "Array can't be memory-mapped: Python objects in dtype.",
    write_archive: r"the magic string is not correct; expected b'\x93NUMPY', got b'PK",
    write_pickle: r"the magic string is not correct; expected b'\x93NUMPY', got b'\x80",
    write_absurd_shape: "overflow",
    write_code_in_the_header: "malformed node or string",
}


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

    def unreadable(what, path):
        return f"Cannot read {what} '{path}' ({SPOILT[spoil]}"

    told = refused(main, "decode", made, tmp_path / "latents", tmp_path / "out")
    assert told.startswith(f"No file of '{tmp_path / 'latents'}' can be used.")
    for name in ("a.npy", "b.npy"):
        assert f"skipped {name}: {unreadable('latents', tmp_path / 'latents' / name)}" in told
    assert list((tmp_path / "out").rglob("*.wav")) == []
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    prior = (main, "train_prior", tmp_path / "latents", "--out", tmp_path / "prior")
    for name, command in {
        "b": (*prior, "--set", "SEGMENT_FRAMES=32"),  # what is held out is read first
        "a": (diffwave_train.main, tmp_path / "latents", "--out", tmp_path / "diffusion"),
        "a.npy": (inference.main, free, tmp_path / "out", "--vary", tmp_path / "latents" / "a.npy"),
    }.items():
        path = (tmp_path / "latents" / name).with_suffix(".npy")
        assert unreadable("latents", path) in refused(*command)
    assert not (tmp_path / "out").exists()
    spectrograms = tmp_path / "vocoder"
    spectrograms.mkdir()
    torch.save({**make_checkpoint(True)}, spectrograms / "weights.pt")
    latents_of(spectrograms)
    spoil(tmp_path / "a.spec.npy", canary)
    spectrogram = ("--spectrogram", tmp_path / "a.spec.npy")
    told = refused(inference.main, spectrograms, tmp_path / "out", *spectrogram)
    assert unreadable("spectrogram", tmp_path / "a.spec.npy") in told


def test_a_control_is_numbers_and_nothing_else(tmp_path, canary):
    for spoil in SPOILT:
        spoil(tmp_path / "a.npy", canary)
        with pytest.raises(ValueError, match="Cannot read the control") as error:
            open_control(tmp_path / "a.npy", "loudness")
        assert SPOILT[spoil] in str(error.value)
    assert not canary.exists()


# Sharded sets


@pytest.mark.parametrize("spoil", SPOILT)
def test_an_index_is_numbers_and_nothing_else(spoil, tmp_path, canary, refused):
    shards = sharded(tmp_path)
    spoil(shards / "index.npy", canary)
    out = tmp_path / "out"
    for command in ((diffwave_train.main, shards, "--out", out), (main, "unshard", shards, out)):
        told = refused(*command)
        assert f"'{shards}' is not a complete sharded set: index.npy cannot be read" in told
        assert SPOILT[spoil] in told
        assert not out.exists()


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
    assert "shard-00000.tar' is damaged" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".unshard.jsonl"]


def test_a_member_that_is_a_link_is_not_followed(tmp_path, refused):
    shards = sharded(tmp_path)

    def become_link(info):
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"

    change_members(shards / "shard-00000.tar", become_link)
    assert "it has no name" in refused(main, "unshard", shards, tmp_path / "out")
