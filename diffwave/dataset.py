"""Segments of latents with their conditions, for training and validation.

D raw latent size, N frames of a segment, C channels of a condition, R its frames per latent frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from diffwave.clips import ShardedClips, drawable, spread
from diffwave.conditioner import LABEL, NO_LABEL, SPECTROGRAM
from diffwave.conditions.controls import ControlHeader, open_control
from diffwave.conditions.spectrogram import SpectrogramHeader, open_spectrogram
from diffwave.standardizer import Standardizer
from rave.compute.arrays import Float32Array
from rave.latent_dataset import Clip, LatentDataset
from rave.latents.folder import OpenArrays
from rave.latents.shards import top_folder


class Segment(TypedDict, total=False):
    """One item, or a batch of items with a leading dimension B.

    raw: (D, N) raw latents, zero where a clip is shorter than the segment.
    mask: (N,) 1 where a frame exists.
    index: () int64 index of the item.

    Each condition that is used, under its name:

    spectrogram, loudness, chroma, onsets: (C, N·R), zero where a clip is shorter.
    label: () int64.
    """

    raw: Tensor
    mask: Tensor
    index: Tensor
    spectrogram: Tensor
    loudness: Tensor
    chroma: Tensor
    onsets: Tensor
    label: Tensor


# Neighbouring segments overlap, so cross-validation must not put them into different halves.
RUN_OF_SEGMENTS = 8
NO_CONDITIONS = ("raw", "mask", "index")


def conditions_of(segment: Segment) -> dict[str, Tensor]:
    """Return the conditions of a segment, or of a batch of them, by name."""
    values = cast(dict[str, Tensor], segment)
    return {name: value for name, value in values.items() if name not in NO_CONDITIONS}


@dataclass(frozen=True)
class ConditionSource:
    """The arrays of one condition.

    Attributes:
        folder: Folder with one array per latent file.
        num_channels: C.
        ratio: R.
    """

    folder: Path
    num_channels: int
    ratio: int
    _arrays: OpenArrays = field(default_factory=OpenArrays, repr=False, compare=False)

    def read(self, name: str, clip: Clip) -> Float32Array:
        """Return the condition of a clip, (C, frames·R), memory-mapped."""
        path, num_frames = self.folder / clip.file.path, clip.file.num_frames * self.ratio

        def opened() -> Float32Array:
            if name == SPECTROGRAM:
                return open_spectrogram(path, self.num_channels, num_frames)
            return open_control(path, name, num_frames)

        array = self._arrays.get(path, opened)
        return array[:, clip.start * self.ratio : clip.stop * self.ratio]


@dataclass(frozen=True)
class ClipReader:
    """Read parts of latent files and of their conditions, memory-mapped.

    Attributes:
        latents: The latent files.
        sources: Arrays of each condition that is a curve, by name.
        labels: Names of the class labels; empty without labels.
        spectrograms: Folder and header of the spectrograms, or None.
    """

    latents: LatentDataset
    sources: Mapping[str, ConditionSource] = field(default_factory=dict)
    labels: Sequence[str] = ()
    spectrograms: tuple[Path, SpectrogramHeader] | None = None

    @classmethod
    def open(
        cls,
        latents: LatentDataset,
        spectrograms: Path | None = None,
        controls: Path | None = None,
        control_names: Sequence[str] = (),
        labels: Sequence[str] = (),
    ) -> ClipReader:
        """Return a reader of latents and of the folders of conditions made for them.

        Args:
            latents: The latent files.
            spectrograms: Folder of diffwave.preprocess, or None.
            controls: Folder of diffwave.preprocess --controls, or None.
            control_names: Names of the controls to read; empty for all.
            labels: Names of the class labels (`diffwave.clips.label_names`); empty without labels.

        Raises:
            ValueError: If the conditions were not made for these latents, or a named control is
                missing.
        """
        sources: dict[str, ConditionSource] = {}
        mel_folder = None
        if spectrograms is not None:
            mels = SpectrogramHeader.read(spectrograms)
            mels.check_matches(latents.header, f"'{spectrograms}'", f"'{latents.place}'")
            sources[SPECTROGRAM] = ConditionSource(spectrograms, mels.num_mels, mels.ratio)
            mel_folder = (spectrograms, mels)
        if controls is not None:
            found = ControlHeader.read(controls)
            found.check_matches(latents.header, f"'{controls}'", f"'{latents.place}'")
            found.check_has(control_names, controls)
            for name, num_channels in found.controls.items():
                if name in control_names or not control_names:
                    sources[name] = ConditionSource(controls / name, num_channels, 1)
        return cls(latents, sources, labels, mel_folder)

    def raw(self, clip: Clip) -> Float32Array:
        """Return the raw latents of a clip, (D, frames)."""
        return self.latents.read(clip)

    def condition(self, name: str, clip: Clip) -> Float32Array:
        """Return a condition of a clip, (C, frames·R)."""
        return self.sources[name].read(name, clip)

    def spectrogram(self, clip: Clip) -> Float32Array:
        """Return the spectrogram of a clip, (M, frames·R)."""
        return self.condition(SPECTROGRAM, clip)

    def label(self, clip: Clip) -> int:
        """Return the index of a clip's label; `NO_LABEL` if it is not a label of the training."""
        name = top_folder(clip.file.path)
        return self.labels.index(name) if name in self.labels else NO_LABEL

    def segment(self, clip: Clip, start: int, num_frames: int, index: int) -> Segment:
        """Return the segment that starts `start` frames into a clip, padded with zeros."""
        part = Clip(clip.file, clip.start + start, min(clip.start + start + num_frames, clip.stop))
        mask = (torch.arange(num_frames) < part.num_frames).float()
        item: dict[str, Tensor] = {
            "raw": _padded(self.raw(part), num_frames),
            "mask": mask,
            "index": torch.tensor(index),
        }
        for name, source in self.sources.items():
            item[name] = _padded(source.read(name, part), num_frames * source.ratio)
        if self.labels:
            item[LABEL] = torch.tensor(self.label(clip))
        return cast(Segment, item)


def _padded(array: Float32Array, num_frames: int) -> Tensor:
    """Return an array (C, n) as a tensor (C, num_frames) with zeros at the end."""
    padded = torch.zeros(len(array), num_frames)
    padded[:, : array.shape[1]] = torch.from_numpy(np.array(array))
    return padded


class SegmentDataset(Dataset[Segment]):
    """Endless random segments; item i depends only on the seed and i.

    A clip is drawn in proportion to its length, the start uniformly. Clips shorter than a segment
    are padded.

    Args:
        reader: Reader of the clips.
        clips: Clips to draw from.
        num_frames: N.
        seed: Seed of the draws.
    """

    def __init__(self, reader: ClipReader, clips: Sequence[Clip], num_frames: int, seed: int):
        self.reader = reader
        self.clips = drawable(clips)
        self.num_frames = num_frames
        self.seed = seed

    def __getitem__(self, index: int) -> Segment:
        """Return item `index`, any whole number from 0."""
        clip, start = self._drawn(index)
        return self.reader.segment(clip, start, self.num_frames, index)

    def place(self, index: int) -> str:
        """Return the file and the first frame of an item, as text for a message."""
        clip, start = self._drawn(index)
        return f"'{clip.file.path}' at frame {clip.start + start}"

    def _drawn(self, index: int) -> tuple[Clip, int]:
        generator = np.random.default_rng([self.seed, index])
        clip = self.clips.drawn(generator, self.seed, index, self.num_frames)
        last_start = max(clip.num_frames - self.num_frames, 0)
        return clip, int(generator.integers(last_start + 1))


class FixedSegments(Dataset[Segment]):
    """Segments that are always the same, evenly spread over the clips (or some of a sharded set).

    Args:
        reader: Reader of the clips.
        clips: Clips to take segments from.
        num_frames: N.
        max_segments: Largest number of segments; fewer if there are fewer that overlap by half.

    Attributes:
        places: Clip and first frame of each segment.
    """

    def __init__(
        self, reader: ClipReader, clips: Sequence[Clip], num_frames: int, max_segments: int
    ) -> None:
        self.reader = reader
        self.num_frames = num_frames
        hop = max(num_frames // 2, 1)
        places = [
            (clip, min(start, max(clip.num_frames - num_frames, 0)))
            for clip in spread(clips, max_segments)
            for start in range(0, max(clip.num_frames - num_frames, 0) + hop, hop)
        ]
        count = min(max_segments, len(places))
        self.places = [places[index * len(places) // count] for index in range(count)]
        # The local copy of a remote shard may be deleted before a segment is read again.
        self._are_kept = isinstance(clips, ShardedClips)
        self._kept: dict[int, Segment] = {}

    @property
    def clips(self) -> list[Clip]:
        """Return the clip of each segment; segments of one clip are neighbours."""
        return [clip for clip, _ in self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Segment:
        """Return segment `index`."""
        if not 0 <= index < len(self.places):
            raise IndexError(index)
        if index in self._kept:
            return self._kept[index]
        clip, start = self.places[index]
        segment = self.reader.segment(clip, start, self.num_frames, index)
        if self._are_kept:
            self._kept[index] = segment
        return segment

    def __iter__(self) -> Iterator[Segment]:
        return (self[index] for index in range(len(self)))


def standardized(standardizer: Standardizer, batch: Segment) -> Tensor:
    """Return the latents (B, K, N) of a batch, zero where they are padding."""
    return standardizer.standardize(batch["raw"]) * batch["mask"][:, None]


def standardized_runs(
    standardizer: Standardizer, segments: FixedSegments, run_of_segments: int = RUN_OF_SEGMENTS
) -> Iterator[tuple[Float32Array, float]]:
    """Yield latents (S, K, N) of neighbouring segments, and their number of frames not padding."""
    for start in range(0, len(segments), run_of_segments):
        stop = min(start + run_of_segments, len(segments))
        batch = default_collate([segments[index] for index in range(start, stop)])
        yield standardized(standardizer, batch).numpy(), float(batch["mask"].sum())
