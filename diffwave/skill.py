"""Skill over noise levels: where a model is better than the best linear denoiser.

The skill at high noise measures form, the skill at low noise measures detail. A loss averaged over
a schedule shows neither.

A few held-out segments may give a skill by chance, so each verdict includes its uncertainty. S
segments; a unit is a group of segments that counts as independent of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffwave.objective import Objective
from diffwave.reference_loss import LossCurve, ReferenceLosses
from rave.compute.arrays import Float64Array
from rave.files.atomic import write_json
from rave.latent_dataset import Clip
from rave.latents.shards import ShardedFile

SKILL_FILE = "skill.json"
# Edges between bins of log-SNR; the first and the last bin are open. The same for every schedule,
# so that curves can be compared.
EDGES = (-7, -5, -3, -1, 1, 3, 5, 7)
CENTRES = (-8, -6, -4, -2, 0, 2, 4, 6, 8)


# A smaller skill may be due to the random held-out noise.
SMALLEST_SKILL = 0.02
# Uncertainty in standard errors, about 95 %.
NUM_ERRORS = 2.0
# With a larger uncertainty, only a skill above it counts.
LARGEST_ERROR = 0.1
# A standard error needs this many units; with fewer recordings, units are runs of segments.
FEWEST_UNITS, MOST_RUNS = 8, 32
TOO_LITTLE = "There is too little held-out music to tell"


@dataclass(frozen=True)
class Verdict:
    """The meaning of a held-out loss, and its uncertainty.

    Attributes:
        skill: 1 - loss / gaussian.
        skill_uncertainty: Half-width of the 95 % interval of the skill; None if there is too little
            music to estimate it.
        verdict: Verdict in words; skill.json holds this text.
    """

    skill: float
    skill_uncertainty: float | None
    verdict: str


def units(clips: Sequence[Clip]) -> NDArray[np.int64]:
    """Return the unit (S,) of each held-out segment: its recording, or its run of neighbours.

    Segments of one recording resemble each other, and neighbours overlap.

    Args:
        clips: Clip of each segment; segments of one clip are neighbours.
    """
    numbers: dict[Any, int] = {}
    recordings: list[int] = []
    for clip in clips:
        file = clip.file  # in a sharded set, its name would have to be read
        key = (file.shard, file.offset) if isinstance(file, ShardedFile) else file.path
        numbers.setdefault(key, len(numbers))
        recordings.append(numbers[key])
    if len(numbers) >= FEWEST_UNITS:
        return np.array(recordings)
    return np.arange(len(clips)) // max(2, len(clips) // MOST_RUNS)


def judge(
    losses: Float64Array, levels: LossCurve, references: ReferenceLosses, clips: Sequence[Clip]
) -> Verdict:
    """Return the verdict on the held-out losses of a model.

    Args:
        losses: (S,) loss of each segment.
        levels: Reference losses of each segment at its own noise level.
        references: Reference losses of all segments over the whole schedule.
        clips: Clip of each segment.

    Source: jackknife (leave out one unit after the other) of a ratio of sums, Quenouille 1956,
    doi:10.1093/biomet/43.3-4.353. Differs: adds the difference to the references over the whole
    schedule.
    """
    loss, unit = float(losses.mean()), units(clips)
    skill, over_white = references.skill(loss), 1.0 - loss / references.white
    figures = (
        f"Held-out loss {loss:.3f} against white {references.white:.3f} and gaussian "
        f"{references.gaussian:.3f}, skill {skill:.3f}"
    )
    if len(set(unit.tolist())) < FEWEST_UNITS:
        needed = FEWEST_UNITS * 2
        return Verdict(
            skill,
            None,
            f"{figures}, of {len(losses)} segments. {TOO_LITTLE} what the model has learned: "
            f"{FEWEST_UNITS} recordings or {needed} segments are needed. Hold out more: add "
            "recordings, or raise HELD_OUT_FRACTION or HELD_OUT_SEGMENTS.",
        )
    error, white_error = (
        NUM_ERRORS * _ratio_error(losses, level, unit) + abs(losses.sum() / level.sum() - ratio)
        for level, ratio in ((levels.gaussian, 1.0 - skill), (levels.white, 1.0 - over_white))
    )
    figures += f" ± {error:.3f}"
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
    return Verdict(skill, float(error), figures + meaning)


def _ratio_error(losses: Float64Array, reference: Float64Array, unit: NDArray[np.int64]) -> float:
    """Return the standard error of (sum of losses) / (sum of reference losses)."""
    above, below = (np.bincount(unit, each) for each in (losses, reference))
    left_out = (above.sum() - above) / (below.sum() - below)
    return float(np.sqrt((len(above) - 1) * left_out.var()))


@dataclass(frozen=True)
class SkillBin:
    """Held-out segments of similar noise level.

    Attributes:
        log_snr: Centre of the bin.
        num_segments: Number of segments in the bin.
        loss: Mean loss of the model.
        zero: Mean loss of predicting 0.
        white: Mean loss of the denoiser that assumes white noise as data.
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


def skill_bins(losses: Float64Array, levels: LossCurve) -> list[SkillBin]:
    """Return the bins that contain segments.

    Args:
        losses: (S,) loss of each segment.
        levels: Reference losses of each segment at its own noise level.
    """
    place = np.digitize(levels.log_snr, EDGES)
    bins = []
    for index, centre in enumerate(CENTRES):
        is_inside = place == index
        gaussian = float(levels.gaussian[is_inside].sum())
        if gaussian <= 0:  # no segment, or pure noise that has the weight 0
            continue
        loss = float(losses[is_inside].mean())
        zero, white, gaussian = (
            float(level[is_inside].mean()) for level in (levels.zero, levels.white, levels.gaussian)
        )
        skill = 1.0 - loss / gaussian
        bins.append(SkillBin(centre, int(is_inside.sum()), loss, zero, white, gaussian, skill))
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
    """Write skill.json into a run, whole or not at all, and return its content.

    Args:
        run_folder: Run folder.
        step: Training step of the measured weights.
        objective: Objective of the training.
        loss: Held-out loss over all noise levels.
        references: Reference losses over all noise levels.
        verdict: Verdict of `judge`.
        bins: Bins of `skill_bins`.
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
