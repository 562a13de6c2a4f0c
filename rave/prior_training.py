"""Training of the autoregressive prior on a latent folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rave.compute.strategy import TrainingSystem
from rave.held_out import Origin, Split, first_held_out, recording_keys, split_names
from rave.latent_dataset import Clip, ClipFile, LatentDataset
from rave.prior import LatentPrior

HELD_OUT_SEGMENTS = 64


@dataclass(frozen=True)
class PriorTraining:
    """Training settings of a recipe.

    Attributes:
        seed: Random seed of the first weights and the segments.
        max_steps: Number of steps of the run.
        batch_size: Segments per step.
        segment_frames: Length of a segment.
        learning_rate: Learning rate of Adam.
        fidelity: Share of the latents' variance that the modelled dimensions hold.
        held_out_fraction: Fraction of the files that is held out.
        validate_every_steps: Steps between validations.
        log_every_steps: Steps between points of the curves.

    Raises:
        ValueError: If the fidelity is not above 0 and at most 1.
    """

    seed: int
    max_steps: int
    batch_size: int
    segment_frames: int
    learning_rate: float
    fidelity: float
    held_out_fraction: float
    validate_every_steps: int
    log_every_steps: int

    def __post_init__(self) -> None:
        if not 0 < self.fidelity <= 1:
            raise ValueError(f"FIDELITY is {self.fidelity}; above 0 and at most 1 is needed.")

    def latent_size(self, std: NDArray[np.float64]) -> int:
        """Return how many axes of these standard deviations hold `fidelity` of the variance."""
        share = np.cumsum(np.square(std)) / max(float(np.square(std).sum()), 1e-30)
        return min(int(np.searchsorted(share, self.fidelity - 1e-9)) + 1, len(std))


def divide(
    files: Mapping[str, ClipFile], origins: Mapping[str, Origin], split: Split, num_frames: int
) -> tuple[list[Clip], list[Clip]]:
    """Return training and held-out clips: whole recordings, or the end of the only one.

    Args:
        files: Files by name.
        origins: Origin of each name.
        split: Split of the run.
        num_frames: Frames per segment; every file, and the end of the only recording, has as many.

    Raises:
        ValueError: If a side has no segment.
    """
    keys = dict(zip(origins, recording_keys(origins.values()).tolist(), strict=True))
    lengths = {name: files[name].num_frames for name in origins}
    cuts = {
        name: min(first_held_out(lengths[name], split.fraction), lengths[name] - num_frames)
        for name in origins
        if split.divides(keys[name])
    }
    names, others = split_names(origins, split)
    training = [Clip(files[name], 0, cuts.get(name, lengths[name])) for name in names]
    held_out = [Clip(files[name], cuts.get(name, 0), lengths[name]) for name in others]
    training = [clip for clip in training if clip.num_frames >= num_frames]
    if not training:
        longest = max(lengths[name] for name in cuts)
        raise ValueError(
            f"The only recording has {longest} frames; two segments of {num_frames} are needed: to "
            "train on, and to hold out. Add recordings, or lower it with --set SEGMENT_FRAMES=…"
        )
    return training, held_out


class PriorSegments(Dataset[Tensor]):
    """Segments of clips, (E, num_frames); item i depends on the seed and i alone.

    Args:
        latents: Dataset of the clips.
        clips: Clips to draw from; all at least `num_frames` long.
        num_frames: Frames per segment.
        num_items: Number of items of the dataset.
        seed: Random seed of the draws; None: segments spread evenly over the clips.
    """

    def __init__(
        self,
        latents: LatentDataset,
        clips: Sequence[Clip],
        num_frames: int,
        num_items: int,
        seed: int | None,
    ) -> None:
        self.latents, self.clips, self.num_frames = latents, clips, num_frames
        self.num_items, self.seed = num_items, seed
        self._ends = np.cumsum([clip.num_frames - num_frames + 1 for clip in clips])

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, index: int) -> Tensor:
        """Return a segment."""
        return torch.from_numpy(np.array(self.latents.read(self._drawn(index))))

    def place(self, index: int) -> str:
        """Return the file of a segment, and its first frame there."""
        segment = self._drawn(index)
        return f"'{segment.file.path}' at frame {segment.start}"

    def _drawn(self, index: int) -> Clip:
        total = int(self._ends[-1])
        if self.seed is None:
            place = index * total // self.num_items
        else:
            place = int(np.random.default_rng([self.seed, index]).integers(total))
        number = int(np.searchsorted(self._ends, place, side="right"))
        clip = self.clips[number]
        start = place - int(self._ends[number]) + clip.stop - self.num_frames + 1
        return Clip(clip.file, start, start + self.num_frames)


class PriorSystem(TrainingSystem):
    """One step of training, and the held-out loss beside that of a uniform guess.

    Args:
        model: Prior to train.
        training: The recipe.
    """

    def __init__(self, model: LatentPrior, training: PriorTraining) -> None:
        super().__init__()
        self.model = model
        self.training_recipe = training

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        loss = self.model.loss(batch).mean()
        self.log("train_loss", self.global_batch.mean(loss), prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Add a batch to the held-out loss, in nats per value."""
        loss = self.model.loss(batch)
        self.log("held_out_loss", loss.mean(), batch_size=len(loss), prog_bar=True)
        self.log("reference/uniform", math.log(self.model.num_classes), batch_size=len(loss))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.model.parameters(), lr=self.training_recipe.learning_rate)
