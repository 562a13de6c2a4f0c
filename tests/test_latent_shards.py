"""A sharded set is the latent folder again, packed: what is written and read."""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import webdataset
from diffwave_data import autoregression, settings, write_latent_folder
from shard_data import NAMES, write_folder

import rave.latents.folder as rave_latents
from diffwave import diagnose, train
from diffwave.clips import split_clips
from rave.latent_dataset import LatentDataset
from rave.latents.folder import LatentHeader
from rave.latents.shard_writer import key_of_path
from rave.main_cli import main


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_set_holds_the_clips_of_its_folder(latents, shards):
    header, dataset = LatentHeader.read(latents), LatentDataset(shards)
    assert dataset.header == replace(header, files=[])
    found = {file.entry.path: (file.entry, index) for index, file in enumerate(dataset.files)}
    assert list(found) != list(NAMES)  # shuffled
    assert {entry for entry, _ in found.values()} == set(header.files)
    for name, (entry, index) in found.items():
        assert dataset.files[index].path == name
        assert dataset.files[index].source == entry.source
        needed = np.load(latents / name)
        np.testing.assert_array_equal(dataset.array(index), needed)
        np.testing.assert_array_equal(dataset[index], needed)


def test_unpacked_it_is_the_folder_again(latents, shards, tmp_path, rave):
    again = tmp_path / "again"
    code, out, _ = rave("unshard", shards, again)
    assert (code, f"{len(NAMES)} written now" in out) == (0, True)
    found, needed = LatentHeader.read(again), LatentHeader.read(latents)
    assert replace(found, files=[]) == replace(needed, files=[])
    assert set(found.files) == set(needed.files)
    for name in NAMES:
        assert (again / name).read_bytes() == (latents / name).read_bytes()
    (again / "a.npy").unlink()
    assert "1 written now" in rave("unshard", shards, again)[1]
    assert rave("shard", latents, tmp_path / "other", "--shard-mb", "0.02")[0] == 0
    assert "made with other settings" in rave("unshard", tmp_path / "other", again)[2]
    assert "is a latent folder already" in rave("unshard", shards, latents)[2]


def test_tar_and_numpy_alone_read_it(latents, shards):
    with tarfile.open(shards / "shard-00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    keys = {name: key_of_path(name) for name in NAMES}
    assert {name.removesuffix(".npy") for name in members if ".npy" in name} == {*keys.values()}
    files = {file.path: file for file in LatentHeader.read(latents).files}
    for name in NAMES:
        assert members[f"{keys[name]}.npy"] == (latents / name).read_bytes()
        told = json.loads(members[f"{keys[name]}.json"])
        assert told == {key: vars(files[name])[key] for key in told}
        assert len(told) == 4


# 2026-11: webdataset leaves files open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_each_clip_as_a_sample_whatever_its_name(latents, tmp_path, rave):
    names = [*NAMES, "take.1.npy", "take.2.npy", "__s.1__/x\ny/100%.npy", "..a.npy"]
    shutil.rmtree(latents)
    write_folder(latents, names)
    assert rave("shard", latents, tmp_path / "shards")[0] == 0
    address = str(tmp_path / "shards" / "shard-{00000..00000}.tar")
    found = {}
    for item in webdataset.WebDataset(address, shardshuffle=False).decode():
        found[unquote(item["__key__"]) + ".npy"] = item["npy"]
        assert item["json"]["source_sample_rate_hz"] == 16000
    assert set(found) == set(names)
    for name, array in found.items():
        np.testing.assert_array_equal(array, np.load(latents / name))


def test_a_set_is_cut_into_shards_and_depends_on_clips_and_seed_alone(latents, tmp_path, rave):
    many = tmp_path / "many"
    write_folder(many, [f"{number:03d}.npy" for number in range(600)])
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        code = rave("shard", many, tmp_path / out, "--shard-mb", "1", "--seed", seed)[0]
        assert code == 0
    one, two, three = (contents(tmp_path / out) for out in ("one", "two", "three"))
    assert one == two
    assert one["shard-00000.tar"] != three["shard-00000.tar"]
    sizes = [len(content) for name, content in one.items() if name.startswith("shard-")]
    assert len(sizes) >= 4
    assert max(sizes) < 1.5e6
    assert not [name for name in one if name.startswith(".index")]
    numbers = [int(file.path[:3]) for file in LatentDataset(tmp_path / "one").files]
    assert sorted(numbers) == list(range(600))
    half = np.mean(numbers[:150])  # a shard stands for all
    assert 250 < half < 350


def test_folders_are_merged_and_their_statistics_too(latents, tmp_path, rave):
    write_folder(tmp_path / "more", ["x.npy", "y.npy"], seed=50)
    code, _, _ = rave("shard", latents, tmp_path / "more", tmp_path / "shards")
    assert code == 0
    dataset = LatentDataset(tmp_path / "shards")
    assert {file.path for file in dataset.files} == {*NAMES, "x.npy", "y.npy"}
    frames = np.concatenate([dataset.array(index) for index in range(len(dataset))], axis=1)
    statistics = dataset.header.statistics
    np.testing.assert_allclose(statistics.mean, frames.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(statistics.std, frames.std(axis=1), rtol=1e-4)
    assert statistics.num_frames == frames.shape[1]


def test_folders_that_do_not_belong_together_are_refused(latents, tmp_path, rave):
    write_folder(tmp_path / "clash", ["z.npy", "sub/e.npy"])
    write_latent_folder(tmp_path / "other", {"z.npy": autoregression(4, 9, 0.9, 0)}, codec="0ther")
    sampled = {"z.npy": autoregression(4, 9, 0.9, 0)}
    write_latent_folder(tmp_path / "sampled", sampled, contents="posterior sample")
    for folder, words in (
        ("clash", "both hold 'sub/e.npy'"),
        ("other", "is of another codec"),
        ("sampled", "holds posterior sample latents"),
    ):
        code, _, err = rave("shard", latents, tmp_path / folder, tmp_path / "shards")
        assert code == 2
        assert words in err
    assert not (tmp_path / "shards").exists()
    for out, words in (
        (latents / "inside", "inside the input folder"),
        (tmp_path / "clash", "is a latent folder itself"),
    ):
        code, _, err = rave("shard", latents, out)
        assert code == 2
        assert words in err


def test_stopped_packing_goes_on_and_ends_the_same(tmp_path, rave, monkeypatch):
    many = tmp_path / "many"
    write_folder(many, [f"{number:03d}.npy" for number in range(600)])
    command = ("shard", many, tmp_path / "parts", "--shard-mb", "1.0")
    assert rave("shard", many, tmp_path / "whole", "--shard-mb", "1.0")[0] == 0
    num_read, read = 0, rave_latents.read_latents

    def interrupted(*arguments):
        nonlocal num_read
        num_read += 1
        if num_read == 400:
            raise KeyboardInterrupt
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("rave.api.shard.read_latents", interrupted)
        assert rave(*command)[0] == 130
    with pytest.raises(ValueError, match="is not a latent folder"):
        LatentDataset(tmp_path / "parts")
    code, out, _ = rave(*command, "--json")
    figures = json.loads(out)
    assert code == 0
    assert 0 < figures["num_done"] < figures["num_shards"]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert json.loads(rave(*command, "--json")[1])["num_done"] == 0
    assert "other settings (seed 0, now 1)" in rave(*command, "--seed", "1")[2]
    (tmp_path / "whole" / ".shard.jsonl").unlink()
    assert "holds another sharded set" in rave("shard", many, tmp_path / "whole")[2]
    assert len(LatentDataset(tmp_path / "whole")) == 600
    assert rave(*command, "--seed", "1", "--force")[0] == 0
    (tmp_path / "parts" / "shard-00001.tar").unlink()
    assert "is not a complete sharded set: shard-00001.tar has 0 of" in _refusal(tmp_path / "parts")
    assert rave(*command, "--seed", "1")[0] == 0
    assert len(LatentDataset(tmp_path / "parts")) == 600


def test_a_damaged_clip_is_named_and_left_out_until_it_is_mended(latents, tmp_path, rave):
    whole = (latents / "a.npy").read_bytes()
    (latents / "a.npy").write_bytes(whole[:300])
    code, out, err = rave("shard", latents, tmp_path / "shards", "--json")
    assert code == 1
    assert list(json.loads(out)["skipped"]) == ["a.npy"]
    assert "skipped a.npy" in err
    assert len(LatentDataset(tmp_path / "shards")) == len(NAMES) - 1
    (latents / "a.npy").write_bytes(whole)
    assert rave("shard", latents, tmp_path / "shards")[0] == 0
    assert len(LatentDataset(tmp_path / "shards")) == len(NAMES)


def test_a_command_that_needs_a_folder_says_so(shards, tmp_path, refused, run):
    words = "is a sharded set of latents; a latent folder is needed here"
    assert words in refused(main, "decode", run, shards, tmp_path / "out")
    assert words in refused(diagnose.main, shards)
    out = ["--out", str(tmp_path / "r"), "--config", "tiny"]
    assert train.main([str(shards), *out, *settings()]) == 0
    assert words in refused(diagnose.main, tmp_path / "r")


def test_an_empty_clip_and_a_long_one_are_kept(tmp_path, rave):
    arrays = {name: autoregression(4, n, 0.9, n) for name, n in (("a.npy", 30), ("b.npy", 9))}
    arrays["empty.npy"] = np.zeros((4, 0), np.float32)
    write_latent_folder(tmp_path / "latents", arrays)
    assert rave("shard", tmp_path / "latents", tmp_path / "shards")[0] == 0
    dataset = LatentDataset(tmp_path / "shards")
    assert {file.path: file.array.shape for file in dataset.files} == {
        name: array.shape for name, array in arrays.items()
    }
    training, held_out = split_clips(dataset.files, 0.5)
    assert {clip.file.path for clip in [*training, *held_out]} == {"a.npy", "b.npy"}


def _refusal(place: Path) -> str:
    with pytest.raises(ValueError) as caught:
        LatentDataset(place)
    return str(caught.value)
