"""Figures that tell whether, and what, a trained model has learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import default_collate

from diffwave.dataset import FixedSegments, Segment, conditions_of
from diffwave.model import LatentDiffusion
from diffwave.training import held_out_errors

BATCH_SIZE = 16


@dataclass(frozen=True)
class ConditionerGain:
    """How much better a model predicts with the right conditions than with those of other clips.

    Attributes:
        loss: Held-out loss with the right conditions.
        shuffled_loss: With conditions of other clips.
    """

    loss: float
    shuffled_loss: float

    @property
    def gain(self) -> float:
        """Return shuffled over right: 1 where the conditions are ignored."""
        return self.shuffled_loss / self.loss


@torch.no_grad()
def conditioner_gain(
    model: LatentDiffusion,
    segments: FixedSegments,
    loss: str = "mse",
    weighting: str = "none",
    names: Sequence[str] | None = None,
) -> ConditionerGain:
    """Return the held-out loss with right conditions and with conditions shuffled across clips.

    Both times each segment meets the same noise at the same timestep.

    Args:
        model: In evaluation mode.
        segments: Held-out, with all conditions of the model.
        loss: mse or l1.
        weighting: none or min-snr.
        names: Of the conditions to shuffle, the others being right; None for all.

    Raises:
        ValueError: If the model does not follow one of the names, or there is one segment only.
    """
    names = list(model.conditioners) if names is None else list(names)
    model.check_conditions(names)
    if not names or len(segments) < 2:
        raise ValueError(
            f"Conditions cannot be shuffled: there are {len(names)} of them in {len(segments)} "
            "held-out segments; 1 and 2 are needed. Train with a condition, on more audio."
        )
    order = _order_across_clips(segments)
    device = model.standardizer.mean.device
    right, shuffled = list[Tensor](), list[Tensor]()
    for start in range(0, len(segments), BATCH_SIZE):
        indices = range(start, min(start + BATCH_SIZE, len(segments)))
        items = [segments[index] for index in indices]
        others = [conditions_of(segments[order[index]]) for index in indices]
        swapped = [
            cast(Segment, {**item, **{name: other[name] for name in names}})
            for item, other in zip(items, others, strict=True)
        ]
        for group, errors in ((items, right), (swapped, shuffled)):
            batch = {name: value.to(device) for name, value in default_collate(group).items()}
            found = held_out_errors(model, cast(Segment, batch), len(segments), loss, weighting)
            errors.append(found.cpu())
    return ConditionerGain(*(float(torch.cat(errors).mean()) for errors in (right, shuffled)))


def _order_across_clips(segments: FixedSegments) -> list[int]:
    """Return for each segment one of another clip, or one far away where a clip is the most."""
    clips = segments.clips
    longest = max(Counter((clip.file.path, clip.start) for clip in clips).values())
    shift = min(longest, len(clips) // 2)
    return [(index + shift) % len(clips) for index in range(len(clips))]
