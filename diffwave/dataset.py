"""Segments of latents, with their spectrograms: what training and validation read.

D raw latent size, N frames of a segment, M mel bands, R mel frames per latent frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from diffwave.spectrogram import SpectrogramHeader, read_spectrogram
from rave.latents import LatentFile, LatentHeader, read_latents, split_names


class Segment(TypedDict, total=False):
    """One item, or a batch of them with a leading B.

    raw: (D, N) raw latents, zero where a clip is shorter than the segment.
    mask: (N,) 1 where a frame exists.
    spectrogram: (M, N·R), if there are spectrograms.
    index: () int64, of the item.
    """

    raw: Tensor
    mask: Tensor
    spectrogram: Tensor
    index: Tensor


@dataclass(frozen=True)
class Clip:
    """A stretch of one latent file, from frame `start` up to frame `stop`."""

    file: LatentFile
    start: int
    stop: int

    @property
    def num_frames(self) -> int:
        """Return the length."""
        return self.stop - self.start


def split_clips(
    files: Sequence[LatentFile], held_out_fraction: float
) -> tuple[list[Clip], list[Clip]]:
    """Return training and held-out clips: whole files, or the end of the file if there is one.

    Raises:
        ValueError: If there are not two frames to divide.
    """
    files = [file for file in files if file.num_frames > 0]
    if sum(file.num_frames for file in files) < 2:
        raise ValueError("The latents hold fewer than 2 frames. Encode more audio.")
    if len(files) == 1:
        num_frames = files[0].num_frames
        num_held_out = min(max(round(held_out_fraction * num_frames), 1), num_frames - 1)
        cut = num_frames - num_held_out
        return [Clip(files[0], 0, cut)], [Clip(files[0], cut, num_frames)]
    names = [file.path for file in files]
    held_out_names = set(split_names(names, held_out_fraction)[1])
    clips = [Clip(file, 0, file.num_frames) for file in files]
    return (
        [clip for clip in clips if clip.file.path not in held_out_names],
        [clip for clip in clips if clip.file.path in held_out_names],
    )


@dataclass(frozen=True)
class ClipReader:
    """Reads parts of latent files and of the spectrograms beside them, memory-mapped.

    Attributes:
        folder: The latent folder.
        latent_size: D.
        spectrograms: The spectrogram folder and its header, or None.
    """

    folder: Path
    latent_size: int
    spectrograms: tuple[Path, SpectrogramHeader] | None = None

    @classmethod
    def open(cls, folder: Path, header: LatentHeader, spectrograms: Path | None) -> ClipReader:
        """Return a reader of a latent folder.

        Raises:
            ValueError: If the spectrograms do not belong to these latents.
        """
        if spectrograms is None:
            return cls(folder, header.latent_size)
        spectrogram_header = SpectrogramHeader.read(spectrograms)
        spectrogram_header.check_matches(header, f"'{spectrograms}'", f"'{folder}'")
        return cls(folder, header.latent_size, (spectrograms, spectrogram_header))

    def raw(self, clip: Clip) -> NDArray[np.float32]:
        """Return the raw latents of a clip, (D, frames)."""
        path = self.folder / clip.file.path
        return read_latents(path, self.latent_size, clip.file.num_frames)[:, clip.start : clip.stop]

    def spectrogram(self, clip: Clip) -> NDArray[np.float32]:
        """Return the spectrogram of a clip, (M, frames·R)."""
        assert self.spectrograms is not None
        folder, header = self.spectrograms
        array = read_spectrogram(folder / clip.file.path, header, clip.file.num_frames)
        return array[:, clip.start * header.ratio : clip.stop * header.ratio]

    def segment(self, clip: Clip, start: int, num_frames: int, index: int) -> Segment:
        """Return the segment that begins `start` frames into a clip, padded with zeros."""
        part = Clip(clip.file, clip.start + start, min(clip.start + start + num_frames, clip.stop))
        raw = torch.zeros(self.latent_size, num_frames)
        raw[:, : part.num_frames] = torch.from_numpy(np.array(self.raw(part)))
        mask = (torch.arange(num_frames) < part.num_frames).float()
        item = Segment(raw=raw, mask=mask, index=torch.tensor(index))
        if self.spectrograms is not None:
            header = self.spectrograms[1]
            spectrogram = torch.zeros(header.num_mels, num_frames * header.ratio)
            found = torch.from_numpy(np.array(self.spectrogram(part)))
            spectrogram[:, : found.shape[1]] = found
            item["spectrogram"] = spectrogram
        return item


class SegmentDataset(Dataset[Segment]):
    """Endless random segments; item i follows from the seed and i alone.

    A clip is drawn in proportion to its length, the start uniformly. Clips shorter than a segment
    are padded and used.

    Args:
        reader: Of the clips.
        clips: To draw from.
        num_frames: N.
        seed: Of the draws.
    """

    def __init__(self, reader: ClipReader, clips: Sequence[Clip], num_frames: int, seed: int):
        self.reader = reader
        self.clips = list(clips)
        self.num_frames = num_frames
        self.seed = seed
        self._ends = np.cumsum([clip.num_frames for clip in self.clips])

    def __getitem__(self, index: int) -> Segment:
        """Return item `index`, any whole number from 0."""
        generator = np.random.default_rng([self.seed, index])
        position = generator.integers(self._ends[-1])
        clip = self.clips[int(np.searchsorted(self._ends, position, side="right"))]
        last_start = max(clip.num_frames - self.num_frames, 0)
        start = int(generator.integers(last_start + 1))
        return self.reader.segment(clip, start, self.num_frames, index)


class FixedSegments(Dataset[Segment]):
    """The same segments each time, evenly spread over the clips.

    Args:
        reader: Of the clips.
        clips: To take from.
        num_frames: N.
        max_segments: No more than this many; fewer if segments half overlapping are fewer.
    """

    def __init__(
        self, reader: ClipReader, clips: Sequence[Clip], num_frames: int, max_segments: int
    ) -> None:
        self.reader = reader
        self.num_frames = num_frames
        hop = max(num_frames // 2, 1)
        places = [
            (clip, min(start, max(clip.num_frames - num_frames, 0)))
            for clip in clips
            for start in range(0, max(clip.num_frames - num_frames, 0) + hop, hop)
        ]
        count = min(max_segments, len(places))
        self._places = [places[index * len(places) // count] for index in range(count)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Segment:
        """Return segment `index`."""
        if not 0 <= index < len(self._places):
            raise IndexError(index)
        clip, start = self._places[index]
        return self.reader.segment(clip, start, self.num_frames, index)

    def __iter__(self) -> Iterator[Segment]:
        return (self[index] for index in range(len(self)))
