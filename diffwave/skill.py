"""Skill over noise levels: where a model knows more than the best linear denoiser.

At high noise a model shows what it knows of form, at low noise what it knows of detail. A loss
averaged over a schedule hides both.

What a few held-out segments show may be chance: a verdict goes with the uncertainty of its skill.
S segments, U units that are independent of each other, as far as there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffwave.objective import Objective
from diffwave.reference_loss import Array, LossCurve, ReferenceLosses
from rave.files.atomic import write_json
from rave.latent_dataset import Clip
from rave.latents.shards import ShardedFile

SKILL_FILE = "skill.json"
# Between bins of log-SNR; the first and the last bin have no other end. The same for every
# schedule, so that curves can be compared.
EDGES = (-7, -5, -3, -1, 1, 3, 5, 7)
CENTRES = (-8, -6, -4, -2, 0, 2, 4, 6, 8)


# Below this a skill may come from the draw of the held-out noise.
SMALLEST_SKILL = 0.02
# Standard errors within which a skill counts as known, about 95 %.
NUM_ERRORS = 2.0
# A skill that is known no better shows nothing, unless it is larger.
LARGEST_ERROR = 0.1
# From fewer units no standard error follows; of few recordings, runs of segments are taken.
FEWEST_UNITS, MOST_RUNS = 8, 32
TOO_LITTLE = "There is too little held-out music to tell"


@dataclass(frozen=True)
class Verdict:
    """What a held-out loss means, and how far it can be trusted.

    Attributes:
        skill: 1 - loss / gaussian.
        skill_uncertainty: The skill of more such music lies within so much of it with 95 %; None
            if there is too little to estimate it.
        verdict: In words.
    """

    skill: float
    skill_uncertainty: float | None
    verdict: str


def units(clips: Sequence[Clip]) -> NDArray[np.int64]:
    """Return the unit (S,) of each held-out segment: its recording, or its run of neighbours.

    Segments of one recording resemble each other, and neighbours overlap.

    Args:
        clips: Of each segment; those of one clip are neighbours.
    """
    numbers: dict[Any, int] = {}
    found: list[int] = []
    for clip in clips:
        file = clip.file  # the name of one in a sharded set would have to be read
        key = (file.shard, file.offset) if isinstance(file, ShardedFile) else file.path
        numbers.setdefault(key, len(numbers))
        found.append(numbers[key])
    if len(numbers) >= FEWEST_UNITS:
        return np.array(found)
    return np.arange(len(clips)) // max(2, len(clips) // MOST_RUNS)


def judge(
    losses: Array, levels: LossCurve, references: ReferenceLosses, clips: Sequence[Clip]
) -> Verdict:
    """Return what the held-out losses of a model mean.

    Args:
        losses: (S,) of each segment.
        levels: The references of the same segments, each at its own noise level.
        references: Of all of them over the whole schedule.
        clips: Of each segment.

    Source: the standard error of a ratio of sums, by leaving out one unit after the other:
    Quenouille 1956, doi:10.1093/biomet/43.3-4.353. Differs: what the schedule's other noise levels
    would change is added.
    """
    loss, unit = float(losses.mean()), units(clips)
    skill, over_white = references.skill(loss), 1.0 - loss / references.white
    told = (
        f"Held-out loss {loss:.3f} against white {references.white:.3f} and gaussian "
        f"{references.gaussian:.3f}, skill {skill:.3f}"
    )
    if len(set(unit.tolist())) < FEWEST_UNITS:
        needed = FEWEST_UNITS * 2
        return Verdict(
            skill,
            None,
            f"{told}, of {len(losses)} segments. {TOO_LITTLE} what the model has learned: "
            f"{FEWEST_UNITS} recordings or {needed} segments are needed. Hold out more: add "
            "recordings, or raise HELD_OUT_FRACTION or HELD_OUT_SEGMENTS.",
        )
    error, white_error = (
        NUM_ERRORS * _ratio_error(losses, each, unit) + abs(losses.sum() / each.sum() - ratio)
        for each, ratio in ((levels.gaussian, 1.0 - skill), (levels.white, 1.0 - over_white))
    )
    told += f" ± {error:.3f}"
    if skill > max(SMALLEST_SKILL, error):
        meaning = ": the model has learned structure that no linear denoiser has."
    elif max(error, white_error) > LARGEST_ERROR and over_white > -white_error:
        meaning = f". {TOO_LITTLE} whether the model has learned anything. Hold out more."
    elif over_white < SMALLEST_SKILL:
        meaning = (
            ": no better than taking the latents for white noise. Train longer, or on more audio."
        )
    elif skill > -max(SMALLEST_SKILL, error):
        meaning = ": as good as the best linear denoiser, as far as this shows. Train longer."
    else:
        meaning = (
            ": the model has learned a part of what a linear denoiser knows. Train longer, or on "
            "more audio."
        )
    return Verdict(skill, float(error), told + meaning)


def _ratio_error(losses: Array, reference: Array, unit: NDArray[np.int64]) -> float:
    """Return the standard error of the sum of losses over that of a reference."""
    above, below = (np.bincount(unit, each) for each in (losses, reference))
    left_out = (above.sum() - above) / (below.sum() - below)
    return float(np.sqrt((len(above) - 1) * left_out.var()))


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
    objective: Objective,
    loss: float,
    references: ReferenceLosses,
    verdict: Verdict,
    bins: Sequence[SkillBin],
) -> dict[str, Any]:
    """Write skill.json into a run, whole or not at all, and return what it says.

    Args:
        run_folder: The run.
        step: Of the weights that were measured.
        objective: Of the training.
        loss: Held-out loss over all noise levels.
        references: To compare `loss` with.
        verdict: Of `judge`.
        bins: Of `skill_bins`.
    """
    content = {
        "step": step,
        **asdict(objective),
        "held_out_loss": loss,
        **asdict(references),
        **asdict(verdict),
        "by_log_snr": [asdict(each) for each in bins],
    }
    write_json(run_folder / SKILL_FILE, content)
    return content
