"""The ladder's figures: distances from the training recordings, position, diversity, copying.

D raw latent size, K latent size, N latent frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffwave.diagnosis.run_samples import training_distances
from diffwave.diagnosis.sample_statistics import windows
from diffwave.diagnosis.samples import PHRASE_FRAMES
from diffwave.evaluation.ladder import (
    FOLLOWING,
    GAUSSIAN,
    GENERATED,
    HELD_OUT,
    MODELLED,
    NOISE,
    NORMAL,
    RECONSTRUCTION,
    TITLES,
    Ladder,
)
from rave.compute.arrays import Float32Array
from rave.evaluation.audio_statistics import DISTANCES
from rave.evaluation.folders import Piece, all_distances, groups, num_patches, pair_scores, pooled
from rave.evaluation.frechet import estimate, estimate_kernel
from rave.notes.statistics import NOTE_DISTANCES

FORMAT, VERSION = "rave-diffwave-evaluation", 1
# Generated music should be nearer than this, from reconstructions (0) to Gaussian latents (1).
BAR = 1 / 3
# Largest number of windows whose nearest neighbour in the training is searched.
NUM_SEARCHED = 256
# Rungs that should play what is held out.
PAIRED = (RECONSTRUCTION, MODELLED, FOLLOWING)
Clips = list[list[Piece]]


@dataclass(frozen=True)
class LadderFigures:
    """The figures of a ladder. docs/evaluation.md has the keys.

    Attributes:
        rungs: Figures of each rung, from the recordings down.
        position: Position of generated music between reconstructions and Gaussian latents.
        diversity: Distances of generated clips from each other, and of held-out clips.
        copying: Distances of generated clips from the training, and of held-out clips.
    """

    rungs: list[dict[str, Any]]
    position: dict[str, Any]
    diversity: dict[str, float]
    copying: dict[str, float]

    def record(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        return {**asdict(self), "reading": reading(asdict(self))}

    def words(self) -> str:
        """Return the table of rungs and the conclusions as text."""
        lines = [
            f"{'distance from the training recordings':42}{'Fréchet':>17}"
            f"{'spectra':>10}{'onsets':>9}{'chroma':>9}{'loudness':>10}",
            f"{'':42}{'± std':>17}{'dB':>10}{'octaves':>9}{'%':>9}{'dB':>10}",
        ]
        for rung in self.rungs:
            spread = f"{rung['frechet']:.1f} ± {rung['frechet_std']:.1f}"
            cells = (
                _cell(rung[name]).rjust(width)
                for name, width in zip(DISTANCES, (10, 9, 9, 10), strict=True)
            )
            lines.append(f"{rung['title']:42}{spread:>17}{''.join(cells)}")
        lines += [
            "",
            f"{'distance from the training recordings':42}{'KAD':>14}"
            + "".join(f"{title:>11}" for title in ("notes/s", "at once", "pitch", "classes", "key"))
            + f"{'intervals':>11}{'note F1':>9}{'frame F1':>9}",
            f"{'':42}{'± std':>14}{'octaves':>11}{'notes':>11}{'semitones':>11}{'%':>11}{'':>11}"
            f"{'octaves':>11}",
        ]
        for rung in self.rungs:
            spread = f"{rung['kernel']:.2f} ± {rung['kernel_std']:.2f}"
            cells = (_cell(rung[name]).rjust(11) for name in NOTE_DISTANCES)
            scores = (_cell(rung[name]).rjust(9) for name in ("note_f1", "frame_f1"))
            lines.append(f"{rung['title']:42}{spread:>14}{''.join(cells)}{''.join(scores)}")
        return "\n".join([*lines, *reading(asdict(self))])


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def reading(record: Mapping[str, Any]) -> list[str]:
    """Return the conclusions from the figures of a ladder, a sentence each.

    Args:
        record: The fields of `LadderFigures`.
    """
    # What is modelled may lie on either side of the reconstruction.
    rungs = [rung for rung in record["rungs"] if rung["name"] != MODELLED]
    position = record["position"]
    named = [f"{rung['title']} ({rung['frechet']:.1f})" for rung in rungs]
    wrong = [
        f"{named[index]} beyond {named[index + 1]}"
        for index, (one, other) in enumerate(pairwise(rungs))
        if one["frechet"] > other["frechet"]
    ]
    sentences = [
        f"The ladder is out of order: {'; '.join(wrong)}."
        if wrong
        else "The ladder is in order, every rung below the next."
    ]
    value, std = position["value"], position["std"]
    if value is None:
        sentences.append(
            "The position of generated music is not known: Gaussian latents come no farther "
            "from the recordings than the codec's reconstructions."
        )
    else:
        side = "within" if value <= BAR else "not within"
        sentences.append(
            f"Generated music lies at {value:.2f} ± {std:.2f} of the way from the codec's "
            f"reconstructions (0) to Gaussian latents (1): {side} the lower third."
        )
    sentences.append(
        f"Generated clips differ from each other {record['diversity']['ratio']:.2f} times as much "
        "as held-out music does."
    )
    sentences.append(
        f"Their nearest neighbours in the training lie at {record['copying']['ratio']:.2f} of the "
        "distance at which those of held-out music lie (far below 1: copies)."
    )
    return sentences


def measure_ladder(ladder: Ladder, num_sets: int, size: int | None = None) -> LadderFigures:
    """Make and measure every rung.

    Args:
        ladder: Makes the rungs.
        num_sets: Sets of generated clips; they show the spread over seeds.
        size: Patches of 3 s that distances are measured with. None: all patches of a rung.

    Raises:
        ValueError: If recordings are missing or too short, or generated values are not finite.
    """
    reference = ladder.reference()
    held_out = ladder.held_out()
    power = pooled(_joined(held_out)).power
    reconstruction = ladder.reconstruction()
    sets = [ladder.generated(number) for number in range(num_sets)]
    clips: dict[str, list[Clips]] = {
        HELD_OUT: [held_out],
        RECONSTRUCTION: [reconstruction],
        MODELLED: [ladder.modelled()],
        GENERATED: [each for each, _ in sets],
    }
    if ladder.run.model.conditioners:
        clips[FOLLOWING] = [ladder.following()[0]]
    clips[GAUSSIAN] = [ladder.gaussian()]
    clips[NORMAL] = [ladder.normal()]
    clips[NOISE] = [ladder.noise(power)]
    most = min(
        num_patches(each)
        for each in [reference, *(_joined(one) for some in clips.values() for one in some)]
    )
    size = most if size is None else size
    if not 2 <= size <= most:
        raise ValueError(
            f"Sets of {size} patches of 3 s are not possible: 2 is the least, and rungs and "
            f"recordings have {most}. Give fewer --patches, or more --count or --seconds."
        )
    rungs = [
        {
            **_rung(name, some, reference, size, ladder.seed),
            **_notes(held_out, some[0] if name in PAIRED else []),
        }
        for name, some in clips.items()
    ]
    by_name = {rung["name"]: rung for rung in rungs}
    return LadderFigures(
        rungs,
        _position(by_name),
        _diversity(sets[0][0], reconstruction),
        _copying(ladder, sets[0][1]),
    )


def _rung(
    name: str, sets: list[Clips], reference: list[Piece], size: int, seed: int
) -> dict[str, Any]:
    """Return the figures of a rung with one or more sets of clips."""
    joined = [_joined(clips) for clips in sets]
    pieces = _joined(joined)
    kernel = estimate_kernel(groups(reference), groups(pieces), size, seed)
    found = [estimate(groups(reference), groups(each), size, seed) for each in joined]
    seeds = [each.distance for each in found]
    return {
        "name": name,
        "title": TITLES[name],
        "frechet": float(np.mean(seeds)),
        # Over sets if there are several, else over resampled pieces.
        "frechet_std": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else found[0].std,
        "interval": np.mean([each.interval for each in found], axis=0).tolist(),
        "patches": size,
        "seeds": seeds,
        "kernel": kernel.distance,
        "kernel_std": kernel.std,
        **all_distances(reference, pieces),
    }


def _notes(held_out: Clips, clips: Clips) -> dict[str, float | None]:
    """Return the F1 of notes and of frames of clips that should play what is held out, and std."""
    pairs = [pair_scores(*pair) for pair in zip(held_out, clips, strict=bool(clips))]
    scores: dict[str, float | None] = {}
    for name in ("note_f1", "frame_f1"):
        values = [pair[name] for pair in pairs]
        scores[name] = float(np.mean(values)) if values else None
        scores[f"{name}_std"] = float(np.std(values)) if values else None
    return scores


def _position(rungs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    nearest, farthest = rungs[RECONSTRUCTION]["frechet"], rungs[GAUSSIAN]["frechet"]
    position: dict[str, Any] = {"value": None, "std": None, "seeds": [], "bar": BAR}
    if farthest <= nearest:
        return position
    values = [(each - nearest) / (farthest - nearest) for each in rungs[GENERATED]["seeds"]]
    position["seeds"] = values
    position["value"] = float(np.mean(values))
    position["std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if FOLLOWING in rungs:
        position["following"] = (rungs[FOLLOWING]["frechet"] - nearest) / (farthest - nearest)
    return position


def _diversity(generated: Clips, real: Clips) -> dict[str, float]:
    """Return the mean distance between the mean embeddings of two clips, generated and real."""
    ours, theirs = (_mean_pairwise(clips) for clips in (generated, real))
    return {"generated": ours, "held_out": theirs, "ratio": ours / max(theirs, 1e-12)}


def _mean_pairwise(clips: Clips) -> float:
    means = np.stack([np.concatenate(groups(clip)).mean(axis=0) for clip in clips])
    between = np.linalg.norm(means[:, None] - means[None], axis=2)
    return float(between.sum() / max(len(means) * (len(means) - 1), 1))


def _copying(ladder: Ladder, latents: Tensor) -> dict[str, float]:
    """Return the median distance from windows of latents to their nearest training window."""
    raw = np.stack([each["raw"].numpy() for each in ladder.segments])
    standardizer = ladder.run.model.standardizer
    real = (
        standardizer.standardize(torch.from_numpy(raw).to(standardizer.mean.device)).cpu().numpy()
    )
    queries = (_windows(each) for each in (latents.numpy(), real))
    distances = training_distances(ladder.data, ladder.run.model, *queries)
    ours, theirs = (float(np.median(each)) for each in distances)
    return {"generated": ours, "held_out": theirs, "ratio": ours / max(theirs, 1e-12)}


def _windows(segments: Float32Array) -> Float32Array:
    """Return at most `NUM_SEARCHED` windows (Q, K·W) of segments, evenly spread."""
    points = windows(segments, PHRASE_FRAMES)
    places = np.linspace(0, len(points) - 1, min(NUM_SEARCHED, len(points))).astype(int)
    chosen: Float32Array = points[places]
    return chosen


def _joined(clips: Sequence[list[Piece]]) -> list[Piece]:
    return [piece for clip in clips for piece in clip]
