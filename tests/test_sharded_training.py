"""A sharded set is trained on as its folder is: what is held out, drawn and trained on."""

import json
import pickle
import signal

import numpy as np
import pytest
import torch
from diffwave_data import HOP, RATE_HZ, settings
from killing import differences
from shard_data import NAMES, in_memory, name_of, write_folder, write_set
from torch.utils.data import DataLoader

import rave.trainer as trainer_module
from diffwave import train
from diffwave.clips import ShardedClips, label_names, sample, split_clips
from diffwave.conditions.controls import LOUDNESS, ControlHeader
from diffwave.dataset import ClipReader, FixedSegments, SegmentDataset
from diffwave.standardizer import Standardizer
from rave.latent_dataset import LatentDataset
from rave.latents.folder import LatentHeader, write_latents
from rave.runs.checkpoint import LAST, last_checkpoint, read_checkpoint
from rave.trainer import StepBatches


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
    plain = SegmentDataset(ClipReader(LatentDataset(latents)), list(training), 16, seed=3)
    sharded = SegmentDataset(ClipReader(LatentDataset(shards)), training, 16, seed=3)
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
    for module in ("rave.latents.shards", "diffwave.clips"):
        monkeypatch.setattr(f"{module}.WINDOW_SHARDS", 4)


def drawn_from(place, seed=0):
    dataset = LatentDataset(place)
    training, _ = split_clips(dataset.files, 0.1)
    reader = ClipReader(dataset)
    return SegmentDataset(reader, training, 16, seed), training


def test_every_frame_is_as_likely_as_any_other(many, few_slots):
    _, training = drawn_from(many)
    num_draws, shards = 30000, np.zeros(len(training.shards.shards))
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
    assert len(set(shards)) > 25


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
    fixed = FixedSegments(ClipReader(LatentDataset(many)), held_out, 16, 32)
    assert {clip.file.path for clip in fixed.clips} <= kept_back
    assert len(fixed) == 32


def test_fixed_segments_and_measures_do_not_grow_with_the_set(many, monkeypatch, few_slots):
    _, training = drawn_from(many)
    opened = set()
    chosen = ShardedClips._chosen
    monkeypatch.setattr(
        ShardedClips, "_chosen", lambda self, shard: opened.add(shard) or chosen(self, shard)
    )
    fixed = FixedSegments(ClipReader(LatentDataset(many)), training, 16, 40)
    assert len(fixed) == 40
    assert len(opened) <= 4
    assert len({clip.file.offset for clip in fixed.clips}) > 30
    assert sample(training) is training
    monkeypatch.setattr("diffwave.clips.FIT_FRAMES", 4000)
    some = list(sample(training))
    assert 3000 < sum(clip.num_frames for clip in some) < 5000
    assert some == list(sample(training))


def test_segments_that_are_read_again_are_not_fetched_again(many):
    remote = LatentDataset(in_memory(many))
    segments = FixedSegments(ClipReader(remote), split_clips(remote.files, 0.1)[1], 16, 40)
    first = list(segments)
    for path in remote.files.storage.folder.glob("shard-*"):
        path.unlink()
    assert [differences(dict(a), dict(b)) for a, b in zip(first, segments, strict=True)] == [
        []
    ] * 40
    assert not list(remote.files.storage.folder.glob("shard-*"))


def test_dimensions_measured_on_a_sample_are_those_of_all(tmp_path, monkeypatch, rave):
    write_folder(tmp_path / "latents", [f"{number:03d}.npy" for number in range(300)])
    assert rave("shard", tmp_path / "latents", tmp_path / "shards", "--shard-mb", "1")[0] == 0
    dataset = LatentDataset(tmp_path / "shards")
    training, _ = split_clips(dataset.files, 0.1)
    reader = ClipReader(dataset)
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


def test_conditions_are_found_beside_a_set(latents, shards, tmp_path):
    header = LatentHeader.read(latents)
    controls = tmp_path / "controls"
    for file in header.files:
        curve = np.arange(file.num_frames, dtype=np.float32)[None] - 80
        write_latents(controls / LOUDNESS / file.path, [curve], 1)
    lengths = {file.path: file.num_frames for file in header.files}
    ControlHeader(header.codec, RATE_HZ, HOP, {LOUDNESS: 1}, lengths).write(controls)
    dataset = LatentDataset(shards)
    training, _ = split_clips(dataset.files, 0.2)
    labels = label_names(training)
    readers = [
        ClipReader.open(each, controls=controls, labels=labels)
        for each in (LatentDataset(latents), dataset)
    ]
    plain, sharded = (
        SegmentDataset(reader, clips, 16, 0)
        for reader, clips in zip(readers, (list(training), training), strict=True)
    )
    for index in range(30):
        assert {LOUDNESS, "label"} < set(plain[index])
        assert differences(dict(plain[index]), dict(sharded[index])) == []


def test_a_remote_set_is_read_from_few_copies_which_are_removed(many, few_slots):
    remote, local = LatentDataset(in_memory(many)), LatentDataset(many)
    storage = remote.files.storage
    data = SegmentDataset(ClipReader(remote), split_clips(remote.files, 0.1)[0], 16, 0)
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
    told = refused(train.main, "nothing://x/y", *out)
    assert told.startswith("Cannot open 'nothing://x/y': Protocol not known: nothing.")
    told = refused(train.main, "memory://nothing", *out)
    assert told.startswith("'memory://nothing/shards.json' does not exist. Give the address")
    assert not (tmp_path / "run").exists()


def test_training_on_a_set_resumes_bit_for_bit_also_from_afar(
    shards, tmp_path, monkeypatch, few_slots
):
    def trained(place, name, *more):
        out = ["--out", str(tmp_path / name), "--config", "tiny", "--device", "cpu"]
        return train.main([str(place), *out, "--labels", *settings(*more)])

    assert trained(shards, "whole") == 0
    keep = trainer_module._Keeper.on_train_batch_end

    def stopped(self, trainer, *rest):
        if trainer.global_step == 5:
            self._request_stop(signal.SIGTERM, None)
        keep(self, trainer, *rest)

    address = in_memory(shards)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module._Keeper, "on_train_batch_end", stopped)
        assert trained(address, "parts") == 130
    assert trained(address, "parts") == 0
    one, other = (
        read_checkpoint(tmp_path / run / "checkpoints" / LAST) for run in ("whole", "parts")
    )
    assert differences(one, other) == []
    saved = json.loads((tmp_path / "whole" / "latents.json").read_text())
    assert saved["files"] == []


def test_a_prior_is_trained_on_a_set_as_on_its_folder(latents, shards, tmp_path, rave):
    small = ("NUM_BLOCKS=1", "HIDDEN_CHANNELS=4", "SKIP_CHANNELS=4", "MAX_STEPS=2", "BATCH_SIZE=2")
    chosen = [word for setting in (*small, "SEGMENT_FRAMES=32") for word in ("--set", setting)]
    results = []
    for place in (latents, shards):
        out = ("--out", tmp_path / f"prior of {place.name}", "--json")
        code, figures, err = rave("train_prior", place, *out, "--config", "prior/tiny", *chosen)
        assert code == 0, err
        results.append((json.loads(figures), read_checkpoint(last_checkpoint(out[1]))))
    (figures, saved), (of_set, saved_of_set) = results
    for name in ("steps", "resumed_from", "latent_size", "uniform"):
        assert figures[name] == of_set[name]
    # Clips of a set are in another order, and so are the segments that are drawn.
    assert of_set["held_out_loss"] == pytest.approx(figures["held_out_loss"], rel=0.01)
    for name in ("mean", "basis", "scale"):
        weights = (each["state_dict"][f"model.{name}"] for each in (saved, saved_of_set))
        torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)
    digests = {each["callbacks"]["_Keeper"]["data"]["digest"] for each in (saved, saved_of_set)}
    assert len(digests) == 1
