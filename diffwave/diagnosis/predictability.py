"""Can latents be predicted from a spectrogram? What a linear regression explains of held-out music.

K latent size, N latent frames, M mel bands, R mel frames per latent frame.

A model that follows a spectrogram, or plays from notes, must guess what the regression leaves: the
less a small one explains, the more of the latents is not heard, such as the waveform's phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from diffwave.conditioner import SPECTROGRAM
from diffwave.dataset import conditions_of
from diffwave.diagnosis.run_data import RunData
from diffwave.model import LatentDiffusion
from rave.compute.arrays import Float64Array
from rave.latent_dataset import Clip

# Segments of training and of held-out music, at most: half an hour each.
NUM_SEGMENTS = 512
# Latent frames before and after, whose mel frames the regression sees too.
CONTEXT = 1
# Share of the mean power of the inputs that is added to each, so that few frames cannot be learned
# by heart.
RIDGE = 0.1
Pair = tuple[Float64Array, Float64Array]


def predictability(model: LatentDiffusion, data: RunData) -> float | None:
    """Return what is explained of a run's held-out latents; None if it follows no spectrogram."""
    if SPECTROGRAM not in model.conditioners:
        return None
    return explained_share(*(_heard(model, data, each) for each in (data.training, data.held_out)))


def predictability_in_words(share: float) -> str:
    """Return what is explained, as a sentence."""
    return (
        f"A linear regression from the spectrogram explains {share:.2f} of the variance of "
        "held-out latents."
    )


def _heard(model: LatentDiffusion, data: RunData, clips: list[Clip]) -> Iterator[Pair]:
    """Yield spectrograms and latents of segments."""
    for segment in data.segments(clips, NUM_SEGMENTS):
        latents = model.standardizer.standardize(segment["raw"][None].to(model.standardizer.mean))
        spectrogram = conditions_of(segment)[SPECTROGRAM]
        yield spectrogram.double().numpy(), latents[0].cpu().double().numpy()


def explained_share(training: Iterable[Pair], held_out: Iterable[Pair]) -> float:
    """Return the explained variance R² of held-out latents, at most 1.

    Args:
        training: Spectrograms (M, N·R) and standardized latents (K, N) of stretches.
        held_out: The same of held-out music.
    """
    count, sums, products = 0, 0.0, 0.0
    for spectrogram, latents in training:
        rows = np.concatenate([_context(spectrogram, latents.shape[1]), latents])
        count += rows.shape[1]
        sums = sums + rows.sum(axis=1)
        products = products + rows @ rows.T
    mean = np.asarray(sums) / count
    covariance = np.asarray(products) / count - np.outer(mean, mean)
    size = latents.shape[0]
    inputs, both = covariance[:-size, :-size], covariance[:-size, -size:]
    # The inputs are scaled to variance 1, which the ridge is relative to.
    scale = 1.0 / np.sqrt(np.maximum(np.diag(inputs), 1e-12))
    scaled = inputs * scale * scale[:, None]
    weights = np.linalg.solve(scaled + RIDGE * np.eye(len(scaled)), scale[:, None] * both)
    errors = power = 0.0
    for spectrogram, latents in held_out:
        rows = _context(spectrogram, latents.shape[1])
        centred = scale[:, None] * (rows - mean[:-size, None])
        target = latents - mean[-size:, None]
        errors += np.square(target - weights.T @ centred).sum()
        power += np.square(target).sum()
    return float(1.0 - errors / max(power, 1e-30))


def _context(spectrogram: Float64Array, num_frames: int) -> Float64Array:
    """Return (M·R·(2·CONTEXT + 1), N): what each latent frame is predicted from."""
    mels = spectrogram.shape[0]
    ratio = spectrogram.shape[1] // num_frames
    padded = np.pad(spectrogram, ((0, 0), (CONTEXT * ratio, CONTEXT * ratio)), mode="edge")
    steps = (2 * CONTEXT + 1) * ratio
    rows = [padded[:, step : step + num_frames * ratio : ratio] for step in range(steps)]
    return np.stack(rows).reshape(steps * mels, num_frames)
