import json

import numpy as np
import pytest
import torch
from audio_files import noise, sine, write
from torch.utils.data import DataLoader

from rave.audio.prepared import PreparedAudio, PreparedFile, PreparedHeader
from rave.dataset import (
    AudioFilesDataset,
    PreparedAudioDataset,
    PreparedCropsDataset,
    split_audio,
)
from rave.held_out import Origin, split_names


def prepare(folder, lengths, num_channels=1):
    """Write a prepared folder whose samples count up: sample n of file k is 1000·k + n."""
    folder.mkdir(exist_ok=True)
    files = []
    for number, num_samples in enumerate(lengths):
        name = f"{number}.wav"
        samples = np.arange(num_samples)[:, None] + 1000 * number + 100 * np.arange(num_channels)
        samples.astype("<i2").tofile(folder / f"{name}.pcm")
        files.append(PreparedFile(name, f"{name}.pcm", num_samples, 1.0, 0, str(number)))
    PreparedHeader(44100, num_channels, files).write(folder)
    return folder


def integers(crop):
    return (crop * 32768).int().tolist()


# AudioFilesDataset


def test_audio_files_of_every_kind_are_items(tmp_path):
    write(tmp_path / "sub" / "b.flac", noise(4800, 2), 48000)
    write(tmp_path / "a.wav", sine(440, 22050), 22050)
    dataset = AudioFilesDataset(tmp_path, 44100, num_channels=2)
    assert dataset.files == ["a.wav", "sub/b.flac"]
    assert [tuple(audio.shape) for audio in dataset] == [(2, 44100), (2, 4410)]
    assert dataset[0].dtype == torch.float32
    assert [audio.shape[2] for audio in DataLoader(dataset, num_workers=1)] == [44100, 4410]


def test_audio_files_dataset_checks_before_it_reads(tmp_path):
    with pytest.raises(ValueError, match="holds no audio files"):
        AudioFilesDataset(tmp_path, 44100)
    with pytest.raises(ValueError, match="sample rate is 5 Hz"):
        AudioFilesDataset(tmp_path, 5)


# Header


def test_header_reads_what_it_wrote(tmp_path):
    file = PreparedFile("ü.wav", "ü.pcm", 3, 1.5, 1, "ü")
    header = PreparedHeader(48000, 2, [file], {"b": "why"})
    header.write(tmp_path)
    assert PreparedHeader.read(tmp_path) == header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is not the header of a folder that `rave preprocess` wrote"),
        (
            {"version": 2},
            "wrote of format 2; this program reads 1",
        ),
        ({"files": [{}]}, "is not a complete header"),
        ({"more": 1}, "is not a complete header"),
    ],
)
def test_foreign_header_is_refused_with_the_reason(tmp_path, change, message):
    path = prepare(tmp_path, [10]) / "prepared.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        PreparedHeader.read(tmp_path)


def test_a_folder_that_is_not_prepared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a folder that `rave preprocess` wrote"):
        PreparedAudioDataset(tmp_path, 10, 1)


def test_an_incomplete_folder_is_refused(tmp_path):
    prepare(tmp_path, [10, 20])
    with pytest.raises(ValueError, match="crop length is 0 samples"):
        PreparedAudioDataset(tmp_path, 0, 1)
    with pytest.raises(ValueError, match=r"holds no audio to read"):
        PreparedAudioDataset(tmp_path, 10, 1, ranges=[])
    (tmp_path / "1.wav.pcm").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"'.*1\.wav\.pcm' has 3 bytes, not 40\. Delete"):
        PreparedAudioDataset(tmp_path, 10, 1)
    (tmp_path / "1.wav.pcm").unlink()
    with pytest.raises(ValueError, match=r"'.*1\.wav\.pcm' does not exist"):
        PreparedCropsDataset(tmp_path, 10)


# Random crops


def test_a_crop_tells_where_it_is_from(tmp_path):
    dataset = PreparedAudioDataset(prepare(tmp_path, [990, 900]), 20, 50)
    places = set()
    for index in range(50):
        number, start = divmod(integers(dataset[index])[0][0], 1000)
        assert dataset.place(index) == f"'{number}.wav' at {start / 44100:.2f} s"
        places.add(dataset.place(index))
    assert len(places) > 4


def test_every_crop_is_a_piece_of_one_file(tmp_path):
    dataset = PreparedAudioDataset(prepare(tmp_path, [100, 50], num_channels=2), 20, 50)
    assert (dataset.sample_rate_hz, dataset.num_channels, len(dataset)) == (44100, 2, 50)
    for crop in dataset:
        first, second = integers(crop)
        assert first == list(range(first[0], first[0] + 20))
        assert second == [sample + 100 for sample in first]


def test_crops_are_uniform_over_positions_edges_included(tmp_path):
    dataset = PreparedAudioDataset(prepare(tmp_path, [13]), 10, 2000)
    starts = np.bincount([integers(crop)[0][0] for crop in dataset])
    assert len(starts) == 4  # 0, 1, 2, 3
    assert np.abs(starts - 500).max() < 5 * np.sqrt(500 * 0.75)


def test_files_are_drawn_in_proportion_to_their_length(tmp_path):
    dataset = PreparedAudioDataset(prepare(tmp_path, [100, 300, 600]), 10, 2000)
    counts = np.bincount([integers(crop)[0][0] // 1000 for crop in dataset])
    assert np.abs(counts - [200, 600, 1200]).max() < 5 * np.sqrt(500)


@pytest.mark.parametrize("num_samples", [1, 9, 10])
def test_a_short_file_is_used_whole_and_padded(tmp_path, num_samples):
    (crop,) = PreparedAudioDataset(prepare(tmp_path, [0, num_samples]), 10, 1)
    assert integers(crop)[0] == [*range(1000, 1000 + num_samples), *[0] * (10 - num_samples)]


def test_a_seed_gives_the_same_item_for_any_workers_batch_and_number_of_items(tmp_path):
    prepare(tmp_path, [500, 900])
    dataset = PreparedAudioDataset(tmp_path, 10, 24, seed=3)
    items = torch.stack(list(dataset))
    for num_workers, batch_size in [(0, 5), (1, 24), (2, 3)]:
        loader = DataLoader(dataset, batch_size=batch_size, num_workers=num_workers)
        assert torch.equal(torch.cat(list(loader)), items)
    assert torch.equal(PreparedAudioDataset(tmp_path, 10, 10**9, seed=3)[7], items[7])
    assert not torch.equal(torch.stack(list(PreparedAudioDataset(tmp_path, 10, 24, 4))), items)
    assert len({tuple(item.flatten().tolist()) for item in items}) > 20
    with pytest.raises(IndexError):
        dataset[24]


# Consecutive crops


def test_consecutive_crops_cover_all_and_pad_the_last(tmp_path):
    dataset = PreparedCropsDataset(prepare(tmp_path, [25, 10]), 10)
    starts = [integers(crop)[0] for crop in dataset]
    assert [len(dataset), starts[0], starts[1], starts[3]] == [
        4,
        list(range(10)),
        list(range(10, 20)),
        list(range(1000, 1010)),
    ]
    assert starts[2] == [*range(20, 25), 0, 0, 0, 0, 0]


def test_fewer_crops_are_evenly_spread(tmp_path):
    prepare(tmp_path, [1000])
    dataset = PreparedCropsDataset(tmp_path, 10, max_crops=4)
    assert [start for _, start in dataset.crops] == [0, 330, 660, 990]
    assert len(PreparedCropsDataset(tmp_path, 10, max_crops=1000)) == 100


# Split


def test_whole_files_are_held_out_as_for_latents(tmp_path):
    prepare(tmp_path, [10] * 10)
    training, held_out = split_audio(PreparedAudio(tmp_path), 0.2)
    names = split_names({f"{n}.wav": Origin(f"{n}") for n in range(10)}, 0.2)
    assert ([r.name for r in training], [r.name for r in held_out]) == names
    assert len(held_out) == 2


def test_of_one_file_the_end_is_held_out(tmp_path):
    prepare(tmp_path, [100])
    training, held_out = split_audio(PreparedAudio(tmp_path), 0.1)
    assert [r.name for r in training + held_out] == ["0.wav [0:90]", "0.wav [90:100]"]
    crops = PreparedAudioDataset(tmp_path, 5, 500, ranges=training)
    assert max(max(integers(crop)[0]) for crop in crops) == 89
    (crop,) = PreparedCropsDataset(tmp_path, 20, held_out)
    assert integers(crop)[0] == [*range(90, 100), *[0] * 10]


def test_impossible_splits_are_refused(tmp_path):
    prepare(tmp_path, [1])
    with pytest.raises(ValueError, match=r"has 1 sample, too little"):
        split_audio(PreparedAudio(tmp_path), 0.1)
    with pytest.raises(ValueError, match=r"held-out fraction is 1\.0"):
        split_audio(PreparedAudio(tmp_path), 1.0)
