"""Arrays of latents stay open from one segment to the next: few, and never those of an old file."""

import pickle

import numpy as np
import pytest
from diffwave_data import write_latent_folder
from torch.utils.data import DataLoader

import rave.latents.folder as rave_latents
from diffwave.dataset import ClipReader, SegmentDataset
from rave.latent_dataset import Clip, LatentDataset
from rave.prior_training import PriorSegments
from rave.trainer import StepBatches

NUM_FILES, FRAMES = 12, 20


def write(folder, first=0.0):
    """Write latents of which each value shows its file and frame."""
    values = first + np.arange(NUM_FILES * FRAMES, dtype=np.float32).reshape(NUM_FILES, 1, FRAMES)
    write_latent_folder(folder, {f"{n:02d}.npy": value for n, value in enumerate(values)})
    return values[:, 0]


def clips_of(dataset):
    return [Clip(file, 0, file.num_frames) for file in dataset.files]


def read_all(dataset):
    return np.concatenate([dataset.read(clip) for clip in clips_of(dataset)])


@pytest.fixture
def opened(monkeypatch):
    """Three arrays are kept; note each that is opened."""
    paths, read = [], rave_latents.open_array
    monkeypatch.setattr(rave_latents, "MAX_OPEN", 3)
    monkeypatch.setattr(rave_latents, "open_array", lambda path: paths.append(path) or read(path))
    return paths


def test_an_array_is_opened_once_and_few_are_kept(tmp_path, opened):
    values, dataset = write(tmp_path), LatentDataset(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(read_all(dataset), values)
    assert len(opened) == 2 * NUM_FILES
    *_, one, two, three = clips_of(dataset)
    for clip in (three, one, two, three, one):
        dataset.read(clip)
    assert len(opened) == 2 * NUM_FILES
    dataset.read(clips_of(dataset)[0])  # the least recently read one, `two`, makes room
    dataset.read(three)
    dataset.read(one)
    assert len(opened) == 2 * NUM_FILES + 1
    dataset.read(two)
    assert len(opened) == 2 * NUM_FILES + 2
    assert len(dataset._arrays._opened) == 3


def test_a_prior_is_trained_on_more_clips_than_are_open(tmp_path, opened):
    values, dataset = write(tmp_path), LatentDataset(tmp_path)
    segments = PriorSegments(dataset, clips_of(dataset), FRAMES, NUM_FILES, seed=None)
    np.testing.assert_array_equal(np.concatenate([segments[n] for n in range(NUM_FILES)]), values)
    assert len(dataset._arrays._opened) == 3


def test_another_process_reads_the_same_and_is_sent_no_array(tmp_path):
    write(tmp_path)
    dataset = LatentDataset(tmp_path)
    data = SegmentDataset(ClipReader.open(dataset), clips_of(dataset), 8, seed=0)
    empty = len(pickle.dumps(data))
    whole = np.stack([data[index]["raw"] for index in range(40)])
    assert len(pickle.dumps(data)) == empty
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[7]["raw"], whole[7])
    batches = iter(DataLoader(data, batch_sampler=StepBatches(10), num_workers=2))
    np.testing.assert_array_equal(np.concatenate([next(batches)["raw"] for _ in range(4)]), whole)


def test_a_replaced_file_is_read_anew_by_the_next_dataset(tmp_path):
    before, dataset = write(tmp_path), LatentDataset(tmp_path)
    np.testing.assert_array_equal(read_all(dataset), before)
    after = write(tmp_path, first=1000.0)
    np.testing.assert_array_equal(read_all(LatentDataset(tmp_path)), after)
    np.testing.assert_array_equal(read_all(dataset), before)  # a run does not change its data
