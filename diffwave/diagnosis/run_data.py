"""The latents and conditions that a run was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from diffwave.clips import split_clips
from diffwave.conditioner import LABEL, SPECTROGRAM, LabelConditioner
from diffwave.conditions.controls import CONTROLS
from diffwave.dataset import ClipReader, FixedSegments, conditions_of
from diffwave.model import LatentDiffusion
from diffwave.run import DiffusionRun, TrainingData
from diffwave.settings import TrainingSettings
from rave.held_out import Split
from rave.latent_dataset import Clip, LatentDataset

# Frames read at once.
STRETCH_FRAMES = 4096


@dataclass(frozen=True)
class RunData:
    """The latents of a run, with their conditions.

    Attributes:
        reader: Reader of latents and conditions.
        training: Clips that the run was trained on.
        held_out: Held-out clips.
        num_frames: Frames per segment; the longest clip of each kind has at least as many.
        is_known: Whether they are the same latents as those of the training.
    """

    reader: ClipReader
    training: list[Clip]
    held_out: list[Clip]
    num_frames: int
    is_known: bool

    def segments(self, clips: list[Clip], count: int) -> FixedSegments:
        """Return at most `count` segments without padding."""
        long_enough = [clip for clip in clips if clip.num_frames >= self.num_frames]
        return FixedSegments(self.reader, long_enough, self.num_frames, count)

    def batch(
        self, segments: FixedSegments, model: LatentDiffusion
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return raw latents (B, D, N), latents (B, K, N) and conditions of all segments."""
        device = model.standardizer.mean.device
        batch = default_collate(list(segments))
        raw = batch["raw"].to(device)
        inputs = {name: value.to(device) for name, value in conditions_of(batch).items()}
        return raw, model.standardizer.standardize(raw), inputs

    def stretches(self, model: LatentDiffusion, overlap: int, num_frames: int) -> Iterator[Tensor]:
        """Yield standardized training latents, (K, n) each.

        Args:
            model: Model with the standardizer.
            overlap: Frames that neighbouring stretches of one clip share.
            num_frames: Largest number of frames in all, evenly spread over the clips.
        """
        device = model.standardizer.mean.device
        stretches = [
            Clip(clip.file, first, min(first + STRETCH_FRAMES + overlap, clip.stop))
            for clip in self.training
            for first in range(clip.start, clip.stop, STRETCH_FRAMES)
        ]
        step = max(len(stretches) * STRETCH_FRAMES / num_frames, 1.0)
        for index in np.arange(0, len(stretches), step).astype(int):
            raw = torch.from_numpy(np.array(self.reader.raw(stretches[index])))
            yield model.standardizer.standardize(raw[None].to(device))[0].cpu()


def open_data(
    run: DiffusionRun, settings: TrainingSettings, moved: TrainingData, fewest_frames: int
) -> RunData:
    """Return the latents and conditions of a run.

    Args:
        run: Opened run.
        settings: Settings of its training.
        moved: Folders that replace those that the run names.
        fewest_frames: Smallest number of frames per segment.

    Raises:
        ValueError: If a folder is not found, does not fit the run, or is not needed; or if there
            is too little held-out music.
    """
    model, stored = run.model, TrainingData.read(run.folder)
    names = [name for name in model.conditioners if name in CONTROLS]
    latents = _folder("latents", moved.latents, stored.latents, run, True)
    spectrograms = _folder(
        "spectrograms",
        moved.spectrograms,
        stored.spectrograms,
        run,
        SPECTROGRAM in model.conditioners,
    )
    controls = _folder("controls", moved.controls, stored.controls, run, bool(names))
    assert latents is not None
    dataset = LatentDataset(latents, takes_shards=False)
    header = dataset.header
    header.identity.check_same(run.header.identity, f"'{latents}'", f"run '{run.folder}'")
    labels = model.named_conditioners().get(LABEL)
    reader = ClipReader.open(
        dataset,
        spectrograms,
        controls,
        names,
        labels.names if isinstance(labels, LabelConditioner) else (),
    )
    split = Split.read(run.folder)
    is_grown = split is not None and latents == stored.latents  # since the run began
    is_known = is_grown or header.statistics == run.header.statistics
    clips = split_clips(header.files, (is_known and split) or settings.held_out_fraction)
    longest = min(max(clip.num_frames for clip in kind) for kind in clips)
    if longest < fewest_frames:
        raise ValueError(
            f"The longest held-out or training clip of '{latents}' has {longest} frames; "
            f"{fewest_frames} are needed for a diagnosis. Encode longer audio."
        )
    num_frames = min(max(settings.segment_frames, fewest_frames), longest)
    return RunData(reader, *clips, num_frames, is_known)


def _folder(
    what: str,
    moved: Path | str | None,
    stored: Path | str | None,
    run: DiffusionRun,
    is_needed: bool,
) -> Path | None:
    """Return the folder of latents or conditions; None if the run needs none."""
    if not is_needed:
        if moved is not None:
            raise ValueError(f"Run '{run.folder}' follows no {what}. Leave out --{what}.")
        return None
    if moved is not None:
        return Path(moved)
    if stored is None:
        raise ValueError(
            f"Run '{run.folder}' does not store where its {what} are. Add --{what} DIR: the folder "
            "that it was trained on."
        )
    if isinstance(stored, str):
        raise ValueError(
            f"Run '{run.folder}' was trained on the sharded set '{stored}'. Add --{what} DIR: a "
            f"folder of the same {what}, as rave unshard writes it."
        )
    if not stored.is_dir():
        raise ValueError(
            f"The {what} of run '{run.folder}' were in '{stored}', which no longer exists. "
            f"Add --{what} DIR: their new place."
        )
    return stored
