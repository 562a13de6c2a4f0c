"""Skill over noise levels: where a model knows more than the best linear denoiser.

At high noise a model shows what it knows of form, at low noise what it knows of detail. A loss
averaged over a schedule hides both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffwave.reference_loss import Array, LossCurve, ReferenceLosses
from rave.files import write_json

SKILL_FILE = "skill.json"
# Between bins of log-SNR; the first and the last bin have no other end. The same for every
# schedule, so that curves can be compared.
EDGES = (-7, -5, -3, -1, 1, 3, 5, 7)
CENTRES = (-8, -6, -4, -2, 0, 2, 4, 6, 8)


@dataclass(frozen=True)
class SkillBin:
    """Held-out segments of similar noise level.

    Attributes:
        log_snr: Centre of the bin.
        num_segments: Whose level lies in it.
        loss: Mean over them.
        zero: Mean loss of predicting nothing.
        white: Mean loss of taking the latents for white noise.
        gaussian: Mean loss of the best linear denoiser.
        skill: 1 - loss / gaussian.
    """

    log_snr: int
    num_segments: int
    loss: float
    zero: float
    white: float
    gaussian: float
    skill: float


def skill_bins(losses: Array, levels: LossCurve) -> list[SkillBin]:
    """Return the bins that hold a segment.

    Args:
        losses: (S,) of each segment.
        levels: The references of the same segments, each at its own noise level.
    """
    place = np.digitize(levels.log_snr, EDGES)
    bins = []
    for index, centre in enumerate(CENTRES):
        here = place == index
        gaussian = float(levels.gaussian[here].sum())
        if gaussian <= 0:  # no segment, or pure noise that the loss does not count
            continue
        loss = float(losses[here].mean())
        zero, white, gaussian = (
            float(each[here].mean()) for each in (levels.zero, levels.white, levels.gaussian)
        )
        skill = 1.0 - loss / gaussian
        bins.append(SkillBin(centre, int(here.sum()), loss, zero, white, gaussian, skill))
    return bins


def save_skill(
    run_folder: Path,
    step: int,
    objective: dict[str, str],
    loss: float,
    references: ReferenceLosses,
    bins: Sequence[SkillBin],
) -> dict[str, Any]:
    """Write skill.json into a run, whole or not at all, and return what it says.

    Args:
        run_folder: The run.
        step: Of the weights that were measured.
        objective: Prediction, loss and weighting.
        loss: Held-out loss over all noise levels.
        references: To compare `loss` with.
        bins: Of `skill_bins`.
    """
    content = {
        "step": step,
        **objective,
        "held_out_loss": loss,
        **asdict(references),
        "skill": references.skill(loss),
        "by_log_snr": [asdict(each) for each in bins],
    }
    write_json(run_folder / SKILL_FILE, content)
    return content
