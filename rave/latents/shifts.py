"""Do latents move with the sound? What they do when it moves by less than a frame.

D latent size, N latent frames. Sound that begins a little later is the same sound: latents should
stay almost as they are, and move on from one frame to the next as the shift grows. Latents that
carry the phase of the waveform change completely within a fraction of its period, so nothing can
predict them that does not hear the phase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rave.compute.arrays import Float32Array, Float64Array

SHIFTS_SAMPLES = (1, 8, 16, 128)  # and half a hop
# At each end of a recording the encoder sees the end, which does not move with the sound.
EDGE_FRAMES = 2
# Frames of a recording that are needed.
FEWEST_FRAMES = 8


@dataclass(frozen=True)
class ShiftConsistency:
    """Explained variance of the latents of moved recordings; 1 if they are what is expected.

    Attributes:
        shifts: Samples, ascending.
        same: Expected: the latents of the recording that was not moved.
        between: Expected: a linear interpolation of the frames before and after.
        by_axis: `same` of each principal axis, largest variance first; a list per shift.
    """

    shifts: list[int]
    same: list[float]
    between: list[float]
    by_axis: list[list[float]]

    def at(self, shift: int) -> float:
        """Return `same` at a shift."""
        return self.same[self.shifts.index(shift)]


def shift_consistency(
    encode: Callable[[Float32Array], Float32Array],
    recordings: Iterable[Float32Array],
    hop_samples: int,
) -> ShiftConsistency:
    """Measure a codec.

    Args:
        encode: Audio (C, T) → latents (D, ceil(T / hop_samples)).
        recordings: (C, T) each, of at least eight hops.
        hop_samples: Samples per latent frame.

    Raises:
        ValueError: If all recordings are shorter.
    """
    shifts = sorted({*(s for s in SHIFTS_SAMPLES if s < hop_samples), hop_samples // 2})
    still: list[Float32Array] = []
    moved: dict[int, list[Float32Array]] = {shift: [] for shift in shifts}
    for audio in recordings:
        length = audio.shape[1] // hop_samples * hop_samples - hop_samples
        if length < (FEWEST_FRAMES - 1) * hop_samples:
            continue
        still.append(encode(audio[:, :length]))
        for shift in shifts:
            moved[shift].append(encode(audio[:, shift : shift + length]))
    if not still:
        raise ValueError("At least eight latent frames of audio are needed.")
    _, axes = np.linalg.eigh(np.cov(np.concatenate(still, axis=1)))
    axes = np.atleast_2d(axes.T[::-1])
    still = [axes @ each for each in still]
    found = ShiftConsistency(shifts, [], [], [])
    for shift in shifts:
        turned = [axes @ each for each in moved[shift]]
        errors, variances = shift_errors(still, turned, 0.0)
        found.same.append(explained(errors, variances))
        found.by_axis.append((1.0 - errors / np.maximum(variances, 1e-30)).tolist())
        errors, variances = shift_errors(still, turned, shift / hop_samples)
        found.between.append(explained(errors, variances))
    return found


def explained(errors: Float64Array, variances: Float64Array) -> float:
    """Return the explained variance; 1 for latents that never change."""
    return float(1.0 - errors.sum() / max(variances.sum(), 1e-30))


def shift_errors(
    still: Sequence[Float32Array], moved: Sequence[Float32Array], share: float
) -> tuple[Float64Array, Float64Array]:
    """Return the squared errors and the squared deviations from the mean, (D) each, summed.

    Args:
        still: Latents (D, N) of recordings.
        moved: Latents of the same recordings, which begin `share` of a frame later.
        share: Where between two frames the latents are expected, 0 to 1.
    """
    inner = [each[:, EDGE_FRAMES : each.shape[1] - EDGE_FRAMES] for each in still]
    mean = np.concatenate(inner, axis=1).mean(axis=1, keepdims=True, dtype=np.float64)
    errors = variances = np.zeros(len(mean))
    for one, other in zip(still, moved, strict=True):
        stop = one.shape[1] - EDGE_FRAMES
        here, there = one[:, EDGE_FRAMES:stop], one[:, EDGE_FRAMES + 1 : stop + 1]
        expected = (1.0 - share) * here + share * there
        errors = errors + np.square(other[:, EDGE_FRAMES:stop] - expected).sum(axis=1)
        variances = variances + np.square(here - mean).sum(axis=1)
    return errors, variances
