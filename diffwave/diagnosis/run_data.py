"""The music that a run was trained on, found again."""

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

# Read at a time.
STRETCH_FRAMES = 4096


@dataclass(frozen=True)
class RunData:
    """The latents of a run, with their conditions.

    Attributes:
        reader: Of both.
        training: Clips it was trained on.
        held_out: The others.
        num_frames: Of a segment; some clip of each kind is as long.
        is_known: Whether they are the very latents of the training.
    """

    reader: ClipReader
    training: list[Clip]
    held_out: list[Clip]
    num_frames: int
    is_known: bool

    def segments(self, clips: list[Clip], count: int) -> FixedSegments:
        """Return segments without padding, at most `count`."""
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
            model: Holds the standardizer.
            overlap: Frames that stretches of one clip share.
            num_frames: Frames in all, at most, evenly spread over the clips.
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
    run: DiffusionRun, settings: TrainingSettings, given: TrainingData, fewest_frames: int
) -> RunData:
    """Return the latents and conditions of a run.

    Args:
        run: The run.
        settings: Of its training.
        given: Folders that stand in for those the run names.
        fewest_frames: Of a segment.

    Raises:
        ValueError: If a folder is not found, does not fit the run, or is not needed; or if there
            is too little held-out music.
    """
    model, known = run.model, TrainingData.read(run.folder)
    names = [name for name in model.conditioners if name in CONTROLS]
    latents = _folder("latents", given.latents, known.latents, run, True)
    spectrograms = _folder(
        "spectrograms",
        given.spectrograms,
        known.spectrograms,
        run,
        SPECTROGRAM in model.conditioners,
    )
    controls = _folder("controls", given.controls, known.controls, run, bool(names))
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
    is_grown = split is not None and latents == known.latents  # since the run began
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
    given: Path | str | None,
    known: Path | str | None,
    run: DiffusionRun,
    is_needed: bool,
) -> Path | None:
    """Return where something is, None if it is not needed."""
    if not is_needed:
        if given is not None:
            raise ValueError(f"Run '{run.folder}' follows no {what}; leave out --{what}.")
        return None
    if given is not None:
        return Path(given)
    if known is None:
        raise ValueError(
            f"Run '{run.folder}' does not say where its {what} are. Add --{what} DIR: the folder "
            "that it was trained on."
        )
    if isinstance(known, str):
        raise ValueError(
            f"Run '{run.folder}' was trained on the sharded set '{known}'. Add --{what} DIR: a "
            f"folder of the same {what}, as rave unshard makes it."
        )
    if not known.is_dir():
        raise ValueError(
            f"The {what} of run '{run.folder}' were in '{known}', which is not there any more. "
            f"Add --{what} DIR."
        )
    return known
