"""Figures that show whether, and what, a trained model has learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import default_collate

from diffwave.dataset import NO_CONDITIONS, FixedSegments, Segment, conditions_of
from diffwave.diagnosis.failures import IGNORED_CONDITIONER, Finding
from diffwave.diagnosis.network import Probe, rms
from diffwave.model import LatentDiffusion
from diffwave.objective import Objective
from diffwave.skill import CENTRES
from diffwave.training import held_out_errors
from rave.latent_dataset import Clip

BATCH_SIZE = 16
# A condition is reported as ignored if its gain is below the first, and conditions of other clips
# change the prediction by less than the second, relatively. A class label may carry little about
# each frame and still be followed; a spectrogram that is followed always changes the prediction.
SMALLEST_GAIN, SMALLEST_CHANGE = 1.02, 0.1


@dataclass(frozen=True)
class ConditionerGain:
    """How much better a model predicts with the right conditions than with those of other clips.

    Attributes:
        loss: Held-out loss with the right conditions.
        shuffled_loss: Held-out loss with conditions of other clips.
    """

    loss: float
    shuffled_loss: float

    @property
    def gain(self) -> float:
        """Return shuffled loss over right loss: 1 if the conditions are ignored."""
        return self.shuffled_loss / self.loss


@torch.no_grad()
def conditioner_gain(
    model: LatentDiffusion,
    segments: FixedSegments,
    objective: Objective,
    names: Sequence[str] | None = None,
    is_alone: bool = False,
) -> ConditionerGain:
    """Return the held-out loss with right conditions and with conditions shuffled across clips.

    Each segment has the same noise and timestep both times.

    Args:
        model: Model in evaluation mode.
        segments: Held-out segments, with all conditions of the model.
        objective: Objective of the training.
        names: Names of the conditions to shuffle; the others stay right. None: all.
        is_alone: Whether the others are absent instead.

    Raises:
        ValueError: If the model does not follow one of the names, or there is one segment only.
    """
    names = list(model.conditioners) if names is None else list(names)
    model.check_conditions(names)
    if not names or len(segments) < 2:
        raise ValueError(
            f"Conditions cannot be shuffled: the run has {len(names)} of them and {len(segments)} "
            "held-out segments; 1 and 2 are needed. Train with a condition, on more audio."
        )
    order = order_across_clips(segments.clips)
    device = model.standardizer.mean.device
    right, shuffled = list[Tensor](), list[Tensor]()
    for start in range(0, len(segments), BATCH_SIZE):
        indices = range(start, min(start + BATCH_SIZE, len(segments)))
        items = [segments[index] for index in indices]
        if is_alone:
            kept = (*NO_CONDITIONS, *names)
            items = [cast(Segment, {k: v for k, v in i.items() if k in kept}) for i in items]
        others = [conditions_of(segments[order[index]]) for index in indices]
        swapped = [
            cast(Segment, {**item, **{name: other[name] for name in names}})
            for item, other in zip(items, others, strict=True)
        ]
        for group, errors in ((items, right), (swapped, shuffled)):
            batch = {name: value.to(device) for name, value in default_collate(group).items()}
            found = held_out_errors(model, cast(Segment, batch), len(segments), objective)
            errors.append(found.cpu())
    return ConditionerGain(*(float(torch.cat(errors).mean()) for errors in (right, shuffled)))


def order_across_clips(clips: Sequence[Clip]) -> list[int]:
    """Return for each segment the index of one of another clip.

    If one clip has more than half of the segments, it may be a distant one of the same clip.

    Args:
        clips: Clip of each segment; segments of one clip are neighbours.
    """
    longest = max(Counter((clip.file.path, clip.start) for clip in clips).values())
    shift = min(longest, len(clips) // 2)
    return [(index + shift) % len(clips) for index in range(len(clips))]


def conditioner_curves(probe: Probe, others: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Return the effect of conditions of other clips at each noise level.

    Args:
        probe: Probe of a conditional model.
        others: Conditions of other clips for each segment of the probe, by name.

    Returns:
        By name of the exchanged condition (the others stay right), and "all" if there are several:
        `log_snr` of the levels, `gain` of the squared error, and `change`, the root mean square
        change of the prediction relative to the prediction.
    """
    names = list(probe.inputs)
    sets = {"all": names} if len(names) > 1 else {}
    sets |= {name: [name] for name in names}
    timesteps = sorted({probe.timestep(level) for level in CENTRES}, reverse=True)
    log_snr = probe.model.schedule.log_snr[timesteps].clamp(min=CENTRES[0]).tolist()
    curves: dict[str, dict[str, Any]] = {
        key: {"log_snr": log_snr, "gain": [], "change": []} for key in sets
    }
    for timestep in timesteps:
        right, wanted = probe.predict(timestep)
        for key, exchanged in sets.items():
            inputs = {**probe.inputs, **{name: others[name] for name in exchanged}}
            wrong, _ = probe.predict(timestep, inputs=inputs)
            curves[key]["gain"].append((rms(wrong - wanted) / rms(right - wanted)) ** 2)
            curves[key]["change"].append(rms(wrong - right) / max(rms(right), 1e-12))
    return curves


def ignored_conditioner(
    gains: Mapping[str, float], changes: Mapping[str, float], loss: float, white: float
) -> Finding | None:
    """Return a finding if a network has learnt something but ignores a condition.

    Args:
        gains: Conditioner gain by name; of several conditions the higher of the gains beside the
            others and alone.
        changes: Largest relative change of the prediction by conditions of other clips, by name.
        loss: Held-out loss.
        white: Held-out loss of treating the latents as white noise.
    """
    if not loss < white:
        return None  # nothing has been learnt yet
    ignored = [
        name
        for name, gain in gains.items()
        if gain < SMALLEST_GAIN and changes[name] < SMALLEST_CHANGE
    ]
    if not ignored:
        return None
    listed = ", ".join(
        f"{name} (gain {gains[name]:.3f}, prediction changed by {changes[name]:.1%})"
        for name in ignored
    )
    return Finding(IGNORED_CONDITIONER, f"Conditions of other clips give the same error: {listed}.")
