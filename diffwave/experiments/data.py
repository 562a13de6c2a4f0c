"""Clips of a latent folder, as the diary saw latents and as our model sees them.

S clips, D raw latent size, N frames of a clip, M mel bands, R mel frames per latent frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffwave.clips import split_clips
from diffwave.conditions.spectrogram import SpectrogramHeader
from diffwave.dataset import ClipReader
from rave.latent_dataset import Clip, LatentDataset
from rave.latents.folder import POSTERIOR_MEAN, LatentHeader

# Of a clip: 5 s at the diary's 21.5 frames a second.
CLIP_FRAMES = 109
HELD_OUT_FRACTION = 0.2
NOISE_SEED = 1


@dataclass(frozen=True)
class ClipSet:
    """Clips of one side of the split.

    Attributes:
        raw: (S, D, N) as the folder holds them.
        sampled: (S, D, N) posterior samples, each dimension of mean 0 and variance 1.
        spectrograms: (S, M, N·R), or None.
    """

    raw: Tensor
    sampled: Tensor
    spectrograms: Tensor | None

    def __len__(self) -> int:
        return len(self.raw)


@dataclass(frozen=True)
class Data:
    """Data that all experiments share.

    Attributes:
        training: To learn from.
        held_out: To judge by: other files, if there are several.
        is_collapsed: (D,) bool, dimensions that carry nothing.
        header: Header of the latents.
        spectrogram_header: Header of the spectrograms, or None.
        spread: (D,) standard deviation of the posterior samples before it was made 1.
    """

    training: ClipSet
    held_out: ClipSet
    is_collapsed: Tensor
    header: LatentHeader
    spectrogram_header: SpectrogramHeader | None
    spread: Tensor

    @property
    def latent_size(self) -> int:
        """Return D."""
        return self.header.latent_size

    @property
    def num_frames(self) -> int:
        """Return N."""
        return self.training.raw.shape[2]

    def identity(self) -> dict[str, Any]:
        """Return the identity of these data, JSON-able."""
        return {
            "codec": self.header.codec,
            "clips": sha256(self.training.raw.numpy().tobytes()).hexdigest()[:16],
            "contents": self.header.contents,
            "latent_size": self.latent_size,
            "clip_frames": self.num_frames,
            "training_clips": len(self.training),
            "held_out_clips": len(self.held_out),
            "collapsed_dimensions": int(self.is_collapsed.sum()),
            "frame_rate_hz": round(self.header.frame_rate_hz, 3),
            "spectrograms": self.spectrogram_header is not None,
        }


def read_data(folder: Path, spectrograms: Path | None, max_clips: int) -> Data:
    """Return the clips of a latent folder, with their spectrograms.

    Args:
        folder: Folder of `rave encode`: posterior means, from which samples are drawn here, or
            posterior samples.
        spectrograms: Folder of `diffwave.preprocess` for the same audio, or None.
        max_clips: No more than this many training clips, evenly spread.

    Raises:
        ValueError: If the folder holds fewer than two clips, or the spectrograms are of others.
    """
    dataset = LatentDataset(folder, takes_shards=False)
    header, reader = dataset.header, ClipReader.open(dataset, spectrograms)
    num_frames = CLIP_FRAMES
    sides = [_places(clips, num_frames) for clips in split_clips(header.files, HELD_OUT_FRACTION)]
    if not all(sides):
        raise ValueError(
            f"'{folder}' does not hold a clip of {num_frames} frames on both "
            "sides of the split into training and held-out latents. Encode more audio."
        )
    training = _spread_out(sides[0], max_clips)
    held_out = _spread_out(sides[1], max(max_clips // 3, 1))
    raw = [_read(reader, places, num_frames) for places in (training, held_out)]
    sampled = [_sampled(part, header, NOISE_SEED + side) for side, part in enumerate(raw)]
    mean = sampled[0].mean(dim=(0, 2))[:, None]
    spread = sampled[0].std(dim=(0, 2)).clamp(min=1e-9)[:, None]
    sets = [
        ClipSet(part, (drawn - mean) / spread, _spectrograms(reader, places, num_frames))
        for part, drawn, places in zip(raw, sampled, (training, held_out), strict=True)
    ]
    return Data(
        training=sets[0],
        held_out=sets[1],
        is_collapsed=torch.from_numpy(~header.statistics.is_informative),
        header=header,
        spectrogram_header=reader.spectrograms[1] if reader.spectrograms else None,
        spread=spread[:, 0],
    )


def _places(clips: list[Clip], num_frames: int) -> list[tuple[Clip, int]]:
    return [
        (clip, start)
        for clip in clips
        for start in range(0, clip.num_frames - num_frames + 1, num_frames)
    ]


def _spread_out(places: list[tuple[Clip, int]], count: int) -> list[tuple[Clip, int]]:
    count = min(count, len(places))
    return [places[index * len(places) // count] for index in range(count)]


def _read(reader: ClipReader, places: list[tuple[Clip, int]], num_frames: int) -> Tensor:
    parts = [
        np.array(reader.raw(Clip(clip.file, clip.start + at, clip.start + at + num_frames)))
        for clip, at in places
    ]
    return torch.from_numpy(np.stack(parts))


def _spectrograms(
    reader: ClipReader, places: list[tuple[Clip, int]], num_frames: int
) -> Tensor | None:
    if reader.spectrograms is None:
        return None
    parts = [
        np.array(reader.spectrogram(Clip(clip.file, clip.start + at, clip.start + at + num_frames)))
        for clip, at in places
    ]
    return torch.from_numpy(np.stack(parts))


def _sampled(raw: Tensor, header: LatentHeader, seed: int) -> Tensor:
    """Return raw latents as the diary's `encode` made them: with the posterior's noise in them."""
    if header.contents != POSTERIOR_MEAN:
        return raw
    generator = torch.Generator().manual_seed(seed)
    std = torch.tensor(header.statistics.posterior_std)[:, None]
    return raw + std * torch.randn(raw.shape, generator=generator)
