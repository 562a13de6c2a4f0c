"""Datasets of audio: a folder of audio files, and crops of the audio that training reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rave.audio.io import check_rate_and_channels, list_audio_files, read_audio
from rave.audio.prepared import AudioStore, StoredFile
from rave.augmentation import Augmentations, change_pitch
from rave.compute.arrays import Float32Array
from rave.held_out import Split, first_held_out, recording_keys, split_names
from rave.upstream.lmdb import open_audio

BLOCK_SAMPLES = 1 << 16  # samples compared at a time


class AudioFilesDataset(torch.utils.data.Dataset[Tensor]):
    """The audio files of any format under a folder, each decoded as a whole on access.

    Args:
        folder: Folder, searched with its subfolders (`rave.audio.io.list_audio_files`).
        sample_rate_hz: Every file is resampled to this rate.
        num_channels: Every file is mixed to this many channels.

    Attributes:
        files: Relative posix names, in the order of the items.

    Raises:
        ValueError: If the folder holds no audio, or the rate or channels are impossible.

    Example:
        >>> audio = AudioFilesDataset(Path("recordings"), 44100, 1)[0]   # (1, T)
    """

    def __init__(self, folder: Path, sample_rate_hz: int, num_channels: int = 1) -> None:
        check_rate_and_channels(sample_rate_hz, num_channels)
        paths = list_audio_files(folder)
        self.files = list(paths)
        self._paths = list(paths.values())
        self.sample_rate_hz = sample_rate_hz
        self.num_channels = num_channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """Return the audio of a file, (C, T).

        Raises:
            AudioError: If the file cannot be used.
        """
        audio = read_audio(self._paths[index], self.sample_rate_hz, self.num_channels)
        return torch.from_numpy(audio)


@dataclass(frozen=True)
class AudioRange:
    """Samples `start` to `stop` of a file."""

    file: StoredFile
    start: int
    stop: int

    @property
    def num_samples(self) -> int:
        """Return the number of samples."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """Return the name of the file, with the samples where it is not the whole file."""
        is_whole = self.num_samples == self.file.num_samples
        return self.file.name + ("" if is_whole else f" [{self.start}:{self.stop}]")


def split_audio(
    store: AudioStore, held_out: float | Split
) -> tuple[list[AudioRange], list[AudioRange]]:
    """Divide audio into training and held-out ranges.

    Whole recordings are held out, as `rave.held_out.split_names` chooses them. If there is only
    one, its last part is held out, and that part of its versions is not trained on.

    Args:
        store: The audio.
        held_out: Fraction of the files, or of the one file, above 0 and below 1; or the split of a
            run.

    Returns:
        Training ranges and held-out ranges.

    Raises:
        ValueError: If the fraction is out of range, the only file has one sample, or a run's split
            leaves nothing on one side.
    """
    if not isinstance(held_out, Split) and not 0 < held_out < 1:
        raise ValueError(f"The held-out fraction is {held_out}; it must be above 0 and below 1.")
    files = {file.name: file for file in store.files}
    origins = {name: file.origin for name, file in files.items()}
    keys = dict(zip(files, recording_keys(origins.values()).tolist(), strict=True))
    split = Split.of(list(keys.values()), held_out)
    starts = {}
    for name, file in files.items():
        if split.divides(keys[name]):
            if file.num_samples < 2:
                raise ValueError(f"'{name}' has 1 sample, too little to train on. Add audio.")
            starts[name] = first_held_out(file.num_samples, split.fraction)
    training, kept_back = split_names(origins, split)
    return (
        [AudioRange(files[n], 0, starts.get(n, files[n].num_samples)) for n in training],
        [AudioRange(files[n], starts.get(n, 0), files[n].num_samples) for n in kept_back],
    )


def are_copies(store: AudioStore) -> bool:
    """Return whether all files hold the same samples; reads until two differ."""
    first, *others = store.files
    return all(
        other.num_samples == first.num_samples
        and all(
            np.array_equal(
                store.read(first, start, stop - start), store.read(other, start, stop - start)
            )
            for start in range(0, first.num_samples, BLOCK_SAMPLES)
            for stop in [min(start + BLOCK_SAMPLES, first.num_samples)]
        )
        for other in others
    )


class _Crops:
    """Ranges of audio, and how to read a crop of one."""

    def __init__(
        self, audio: AudioStore | Path, crop_samples: int, ranges: Sequence[AudioRange] | None
    ) -> None:
        if crop_samples < 1:
            raise ValueError(f"The crop length is {crop_samples} samples; at least 1 is needed.")
        self.store = open_audio(audio) if isinstance(audio, Path) else audio
        self.crop_samples = crop_samples
        self.sample_rate_hz = self.store.sample_rate_hz
        self.num_channels = self.store.num_channels
        if ranges is None:
            ranges = [AudioRange(file, 0, file.num_samples) for file in self.store.files]
        if not ranges:
            raise ValueError("The folder holds no audio to read. Preprocess audio into it.")
        self.ranges = list(ranges)
        for file in {piece.file for piece in self.ranges}:
            self.store.check(file)

    def _read_crop(self, piece: AudioRange, start: int, ratio: float = 1.0) -> Float32Array:
        """Return (C, crop_samples) from sample `start` of a range, zero-padded at its end.

        Played `ratio` times as fast.
        """
        num_samples = min(ceil(self.crop_samples * ratio), piece.num_samples - start)
        read = self.store.read(piece.file, piece.start + start, num_samples)
        read = change_pitch(read, ratio)[:, : self.crop_samples]
        crop = np.zeros((self.num_channels, self.crop_samples), dtype=np.float32)
        crop[:, : read.shape[1]] = read
        return crop


class PreparedAudioDataset(_Crops, torch.utils.data.Dataset[Tensor]):
    """Random crops of prepared audio; item i depends only on the seed and i.

    A range is drawn with probability in proportion to its length, then a start, uniform over all
    positions. A range shorter than a crop is used whole, with zeros after it.

    Args:
        audio: The audio, or its folder.
        crop_samples: Length of every crop.
        num_items: Number of crops in an epoch.
        seed: Random seed of the crops.
        ranges: Draw from these only (see `split_audio`).
        augmentations: Augmentations of every crop, drawn from the crop's generator.

    Raises:
        ValueError: If the folder is not a prepared folder, is incomplete, or holds no audio.

    Example:
        >>> crop = PreparedAudioDataset(Path("prepared"), 131072, 10_000, seed=0)[0]   # (C, 131072)
    """

    def __init__(
        self,
        audio: AudioStore | Path,
        crop_samples: int,
        num_items: int,
        seed: int = 0,
        ranges: Sequence[AudioRange] | None = None,
        augmentations: Augmentations | None = None,
    ) -> None:
        super().__init__(audio, crop_samples, ranges)
        self.seed = seed
        self.augmentations = augmentations or Augmentations()
        self._num_items = num_items
        self._range_ends = np.cumsum([piece.num_samples for piece in self.ranges])

    def __len__(self) -> int:
        return self._num_items

    def __getitem__(self, index: int) -> Tensor:
        """Return a crop, (C, crop_samples), in [-1, 1)."""
        if not 0 <= index < self._num_items:
            raise IndexError(f"item {index} of {self._num_items}")
        generator, piece, start, ratio = self._drawn(index)
        crop = self._read_crop(piece, start, ratio)
        return torch.from_numpy(self.augmentations(crop, self.sample_rate_hz, generator))

    def place(self, index: int) -> str:
        """Return the file of a crop, and where in it the crop begins."""
        _, piece, start, _ = self._drawn(index)
        return f"'{piece.file.name}' at {(piece.start + start) / self.sample_rate_hz:.2f} s"

    def _drawn(self, index: int) -> tuple[np.random.Generator, AudioRange, int, float]:
        generator = np.random.default_rng((self.seed, index))
        position = generator.integers(self._range_ends[-1])
        piece = self.ranges[int(np.searchsorted(self._range_ends, position, side="right"))]
        pitch = self.augmentations.pitch
        ratio = 1.0 if pitch is None else pitch.draw(generator)
        num_samples = ceil(self.crop_samples * ratio)
        start = int(generator.integers(max(piece.num_samples - num_samples, 0) + 1))
        return generator, piece, start, ratio


class PreparedCropsDataset(_Crops, torch.utils.data.Dataset[Tensor]):
    """Consecutive crops that cover prepared audio, for validation; the last one is padded.

    Args:
        audio: The audio, or its folder.
        crop_samples: Length of every crop.
        ranges: Cover these only (see `split_audio`).
        max_crops: Keep at most this many, evenly spread.

    Attributes:
        crops: The range, and the start in it, of each item.

    Raises:
        ValueError: If the folder is not a prepared folder, is incomplete, or holds no audio.
    """

    def __init__(
        self,
        audio: AudioStore | Path,
        crop_samples: int,
        ranges: Sequence[AudioRange] | None = None,
        max_crops: int | None = None,
    ) -> None:
        super().__init__(audio, crop_samples, ranges)
        crops = [
            (piece, start)
            for piece in self.ranges
            for start in range(0, piece.num_samples, crop_samples)
        ]
        if max_crops is not None and max_crops < len(crops):
            kept = np.linspace(0, len(crops) - 1, max_crops).round().astype(int)
            crops = [crops[index] for index in kept]
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Tensor:
        """Return a crop, (C, crop_samples), in [-1, 1)."""
        return torch.from_numpy(self._read_crop(*self.crops[index]))
