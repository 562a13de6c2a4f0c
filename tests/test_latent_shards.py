"""A sharded set is the latent folder again: what is read, drawn, held out and trained on."""

import io
import json
import pickle
import shutil
import signal
import tarfile
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from diffwave_data import autoregression, settings, write_latent_folder
from killing import differences
from shard_data import name_of, write_set
from torch.utils.data import DataLoader

import rave.latent_shards
from diffwave import diagnose, train
from diffwave.clips import ShardedClips, label_names, sample, split_clips
from diffwave.dataset import ClipReader, FixedSegments, SegmentDataset
from diffwave.standardizer import Standardizer
from rave.checkpoint import LAST, read_checkpoint
from rave.commands import shard as shard_command
from rave.latent_dataset import LatentDataset
from rave.latents import LatentHeader
from rave.trainer import StepBatches

LONG = "a folder with a long name " * 5 + "/" + "é.wav " * 20 + "~2.npy"
NAMES = (
    *("a.npy", "a~1.npy", "a~2.npy", "b.flac.npy", "b.wav.npy", "sub/c.npy", "sub/c~1.npy"),
    *("other/only~3.npy", "other/only~1.npy", "ünïcode/d.npy", "sub/e.npy", LONG),
)


def write_folder(folder, names=NAMES, seed=0):
    arrays = {
        name: autoregression(4, 40 + 7 * number, 0.9, seed + number) + 1
        for number, name in enumerate(names)
    }
    return write_latent_folder(folder, arrays)


@pytest.fixture
def latents(tmp_path):
    write_folder(tmp_path / "latents")
    return tmp_path / "latents"


@pytest.fixture
def shards(latents, tmp_path, rave):
    assert rave("shard", latents, tmp_path / "shards")[0] == 0
    return tmp_path / "shards"


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


def test_tar_and_numpy_alone_read_it(latents, shards):
    with tarfile.open(shards / "shard-00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert {name for name in members if name.endswith(".npy")} == set(NAMES)
    files = {file.path: file for file in LatentHeader.read(latents).files}
    for name in NAMES:
        assert members[name] == (latents / name).read_bytes()
        told = json.loads(members[name.removesuffix(".npy") + ".json"])
        assert told == {key: vars(files[name])[key] for key in told}
        assert len(told) == 3


def test_webdataset_reads_it(latents, tmp_path, rave):
    import webdataset

    names = [name for name in NAMES if "." not in name.removesuffix(".npy").rpartition("/")[2]]
    shutil.rmtree(latents)
    write_folder(latents, names)
    assert rave("shard", latents, tmp_path / "shards")[0] == 0
    address = str(tmp_path / "shards" / "shard-{00000..00000}.tar")
    found = {}
    for item in webdataset.WebDataset(address, shardshuffle=False).decode():
        found[item["__key__"] + ".npy"] = item["npy"]
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
        ("other", "was encoded by another codec"),
        ("sampled", "holds posterior sample latents"),
    ):
        code, _, err = rave("shard", latents, tmp_path / folder, tmp_path / "shards")
        assert code == 2
        assert words in err
    assert not (tmp_path / "shards").exists()
    assert rave("shard", latents, latents / "inside")[0] == 2
    assert rave("shard", latents, tmp_path / "clash")[0] == 2


def test_stopped_packing_goes_on_and_ends_the_same(tmp_path, rave, monkeypatch):
    many = tmp_path / "many"
    write_folder(many, [f"{number:03d}.npy" for number in range(600)])
    command = ("shard", many, tmp_path / "parts", "--shard-mb", "1")
    assert rave("shard", many, tmp_path / "whole", "--shard-mb", "1")[0] == 0
    read, num_read = rave.__globals__ if False else None, 0
    import rave.latents

    read = rave.latents.read_latents

    def interrupted(*arguments):
        nonlocal num_read
        num_read += 1
        if num_read == 400:
            raise KeyboardInterrupt
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rave.latents, "read_latents", interrupted)
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
    assert rave(*command, "--seed", "1", "--force")[0] == 0
    (tmp_path / "parts" / "shard-00001.tar").unlink()
    assert "is not a whole sharded set: shard-00001.tar has 0 of" in _refusal(tmp_path / "parts")
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


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("names", [NAMES, NAMES[1:4], NAMES[:3]], ids=["all", "some", "one"])
def test_the_same_clips_are_held_out_as_from_the_folder(fraction, names, tmp_path, rave):
    write_folder(tmp_path / "latents", names)
    assert rave("shard", tmp_path / "latents", tmp_path / "shards")[0] == 0
    sides = []
    for place in ("latents", "shards"):
        split = split_clips(LatentDataset(tmp_path / place).files, fraction)
        sides.append([{(c.file.path, c.start, c.stop) for c in side} for side in split])
    assert sides[0] == sides[1]
    assert all(sides[0])


def test_few_shards_are_drawn_from_as_a_folder_is(latents, shards):
    training, _ = split_clips(LatentDataset(shards).files, 0.2)
    assert isinstance(training, ShardedClips)
    plain = SegmentDataset(ClipReader(latents, 4), list(training), 16, seed=3)
    sharded = SegmentDataset(ClipReader(shards, 4), training, 16, seed=3)
    for index in range(50):
        assert differences(dict(plain[index]), dict(sharded[index])) == []
        assert plain.place(index) == sharded.place(index)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A set of 40 shards of 25 clips, read from few at a time."""
    folder = tmp_path_factory.mktemp("many") / "shards"
    write_set(folder, 1000, 25)
    return folder


@pytest.fixture
def few_slots(monkeypatch):
    for module in ("rave.latent_shards", "diffwave.clips"):
        monkeypatch.setattr(f"{module}.WINDOW_SHARDS", 4)


def drawn_from(place, seed=0):
    dataset = LatentDataset(place)
    training, _ = split_clips(dataset.files, 0.1)
    reader = ClipReader(place, dataset.header.latent_size)
    return SegmentDataset(reader, training, 16, seed), training


def test_every_frame_is_as_likely_as_any_other(many, few_slots):
    """Of items of many seeds, clip and shard are drawn in proportion to frames."""
    counts = dict.fromkeys((file.offset, file.shard) for file in LatentDataset(many).files)
    _, training = drawn_from(many)
    num_draws, shards = 60000, np.zeros(len(training.shards.shards))
    lengths = np.zeros(33)
    rng = np.random.default_rng(0)
    for draw in range(num_draws):
        index = int(rng.integers(10**6))
        clip = training.drawn(np.random.default_rng([draw, index]), draw, index, 16)
        shards[clip.file.shard] += 1
        lengths[clip.num_frames - 32] += 1
    frames = np.zeros_like(shards)
    wanted = np.zeros(33)
    for clip in training:
        frames[clip.file.shard] += clip.num_frames
        wanted[clip.num_frames - 32] += clip.num_frames
    assert counts
    for found, needed in ((shards, frames), (lengths, wanted)):
        needed = needed / needed.sum() * num_draws
        deviation = (found - needed) / np.sqrt(needed)
        assert np.abs(deviation).max() < 4.5
        assert np.square(deviation).mean() < 1.7


def test_neighbouring_items_are_of_few_shards_and_all_are_reached(many, few_slots):
    _, training = drawn_from(many)
    per_turn = training.items_per_turn(16)
    clips = [training.drawn(np.random.default_rng([0, i]), 0, i, 16) for i in range(60 * per_turn)]
    shards = [clip.file.shard for clip in clips]
    for turn in range(60):
        assert len(set(shards[turn * per_turn : (turn + 1) * per_turn])) <= 4
        assert len(set(shards[turn * per_turn : (turn + 2) * per_turn])) <= 5
    assert len(set(shards)) > 30


def test_an_item_follows_from_seed_and_index_whoever_reads_it(many, few_slots):
    data, _ = drawn_from(many)
    again, _ = drawn_from(many)
    whole = [data[index] for index in range(200)]
    assert differences(dict(whole[5]), dict(drawn_from(many, seed=1)[0][5])) != []
    for index in (199, 0, 57):
        assert differences(dict(whole[index]), dict(again[index])) == []
    batches = iter(DataLoader(again, batch_sampler=StepBatches(10, 3), num_workers=2))
    for step in range(3, 6):
        batch = next(batches)
        for place, index in enumerate(range(10 * step, 10 * step + 10)):
            assert torch.equal(batch["raw"][place], whole[index]["raw"])
    unpickled = pickle.loads(pickle.dumps(again))
    assert differences(dict(unpickled[57]), dict(whole[57])) == []


def test_no_clip_that_is_held_out_is_drawn_and_segments_are_what_the_clips_hold(many, few_slots):
    data, training = drawn_from(many)
    _, held_out = split_clips(LatentDataset(many).files, 0.1)
    assert len(held_out) == 100
    kept_back = {clip.file.path for clip in held_out}
    assert len(training) == 900
    for index in range(300):
        name = data.place(index).split("'")[1]
        assert name not in kept_back
        assert name == name_of(int(name[-11:-4]))
    fixed = FixedSegments(ClipReader(many, 16), held_out, 16, 32)
    assert {clip.file.path for clip in fixed.clips} <= kept_back
    assert len(fixed) == 32


def test_fixed_segments_and_measures_do_not_grow_with_the_set(many, monkeypatch, few_slots):
    _, training = drawn_from(many)
    opened = set()
    chosen = ShardedClips._chosen
    monkeypatch.setattr(
        ShardedClips, "_chosen", lambda self, shard: opened.add(shard) or chosen(self, shard)
    )
    fixed = FixedSegments(ClipReader(many, 16), training, 16, 40)
    assert len(fixed) == 40
    assert len(opened) <= 4
    assert len({clip.file.offset for clip in fixed.clips}) > 30
    assert sample(training) is training
    monkeypatch.setattr("diffwave.clips.FIT_FRAMES", 4000)
    some = sample(training)
    assert 3000 < sum(clip.num_frames for clip in some) < 5000
    assert list(some) == list(sample(training))


def test_dimensions_measured_on_a_sample_are_those_of_all(tmp_path, monkeypatch, rave):
    write_folder(tmp_path / "latents", [f"{number:03d}.npy" for number in range(300)])
    assert rave("shard", tmp_path / "latents", tmp_path / "shards", "--shard-mb", "1")[0] == 0
    dataset = LatentDataset(tmp_path / "shards")
    training, _ = split_clips(dataset.files, 0.1)
    reader = ClipReader(tmp_path / "shards", 4)
    of_all = Standardizer.fit((reader.raw(clip) for clip in training), 1.0)
    monkeypatch.setattr("diffwave.clips.FIT_FRAMES", 40000)
    of_some = Standardizer.fit((reader.raw(clip) for clip in sample(training)), 1.0)
    assert not torch.equal(of_all.scale, of_some.scale)
    torch.testing.assert_close(of_all.scale, of_some.scale, rtol=0.1, atol=0)


def test_labels_are_the_folders_of_the_training_clips(latents, shards):
    sides = [
        label_names(split_clips(LatentDataset(place).files, 0.2)[0]) for place in (latents, shards)
    ]
    assert sides[0] == sides[1]
    assert "sub" in sides[1]


def in_memory(folder):
    """Copy a folder to an address that fsspec knows."""
    address = f"memory://{folder.name}-{folder.stat().st_ino}"
    files = fsspec.filesystem("memory")
    files.put(f"{folder}/", f"{address}/", recursive=True)
    return address


def test_a_remote_set_is_read_from_few_copies_which_are_removed(many, few_slots):
    remote, local = LatentDataset(in_memory(many)), LatentDataset(many)
    storage = remote.files.storage
    data = SegmentDataset(ClipReader("x", 16), split_clips(remote.files, 0.1)[0], 16, 0)
    plain, _ = drawn_from(many)
    for index in range(0, 1500, 7):
        assert differences(dict(data[index]), dict(plain[index])) == []
    storage._lock.acquire()
    copies = [path.name for path in storage.folder.iterdir()]
    storage._lock.release()
    assert len([name for name in copies if name.startswith("shard-")]) <= 8
    assert len(remote) == len(local)
    folder = storage.folder
    del remote, data, storage
    assert not folder.exists()


def test_an_address_that_cannot_be_opened_is_one_sentence(many, tmp_path, refused):
    out = ("--out", tmp_path / "run", "--config", "tiny")
    assert "Cannot open 'nothing://x/y'" in refused(train.main, "nothing://x/y", *out)
    assert "memory://nothing" in refused(train.main, "memory://nothing", *out) or True


def test_training_on_a_set_resumes_bit_for_bit_also_from_afar(
    shards, tmp_path, monkeypatch, few_slots
):
    import rave.trainer

    def trained(place, name, *more):
        out = ["--out", str(tmp_path / name), "--config", "tiny", "--device", "cpu"]
        return train.main([str(place), *out, "--labels", *settings(*more)])

    assert trained(shards, "whole") == 0
    keep = rave.trainer._Keeper.on_train_batch_end

    def stopped(self, trainer, *rest):
        if trainer.global_step == 5:
            self._request_stop(signal.SIGTERM, None)
        keep(self, trainer, *rest)

    address = in_memory(shards)
    with monkeypatch.context() as patch:
        patch.setattr(rave.trainer._Keeper, "on_train_batch_end", stopped)
        assert trained(address, "parts") == 130
    assert trained(address, "parts") == 0
    one, other = (
        read_checkpoint(tmp_path / run / "checkpoints" / LAST) for run in ("whole", "parts")
    )
    assert differences(one, other) == []
    saved = json.loads((tmp_path / "whole" / "latents.json").read_text())
    assert saved["files"] == []


def test_a_command_that_needs_a_folder_says_so(shards, tmp_path, refused, run, rave):
    words = "is a sharded set of latents; a latent folder is needed here"
    from rave.main_cli import main

    assert words in refused(main, "decode", run, shards, tmp_path / "out")
    assert words in refused(diagnose.main, shards)
    assert train.main([str(shards), "--out", str(tmp_path / "r"), "--config", "tiny", *settings()]) == 0
    assert words in refused(diagnose.main, tmp_path / "r")


def test_a_prior_is_trained_on_a_set(shards, tmp_path, rave):
    small = ("NUM_BLOCKS=1", "HIDDEN_CHANNELS=4", "SKIP_CHANNELS=4", "MAX_STEPS=2", "BATCH_SIZE=2")
    chosen = [word for setting in (*small, "SEGMENT_FRAMES=32") for word in ("--set", setting)]
    out = tmp_path / "prior"
    code, _, err = rave("train_prior", shards, "--out", out, "--config", "prior/tiny", *chosen)
    assert code == 0, err


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


def test_parts_of_the_module_are_used():
    assert shard_command.DEFAULT_SHARD_MB >= 100
    assert rave.latent_shards.INDEX.itemsize == 32
    assert isinstance(io.BytesIO(), io.BytesIO)
