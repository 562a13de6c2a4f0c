"""Samples of a trained model: the trace of its sampling, and detectors of failures.

The detectors are functions of figures, so they serve both a run and a folder of generated latents.
S sampling steps, K latent size, D raw latent size, N frames, W frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffwave.diagnosis.failures import (
    CLAMPED_SAMPLER,
    EXPLODING_NORM,
    LEVEL_LOST,
    MEMORISED,
    SILENT_DECODE,
    Finding,
)
from diffwave.diagnosis.generated_latents import LOUD, QUIET
from diffwave.diagnosis.network import rms
from diffwave.diagnosis.sample_statistics import LAGS, autocorrelation, compare
from diffwave.model import LatentDiffusion
from diffwave.reference_loss import GaussianModel, SpectralDensity
from diffwave.sampling.generation import Sampling
from rave.compute.arrays import FloatArray

if TYPE_CHECKING:
    from rave.codec import Codec
    from rave.noise import DecoderNoise

# Steps of DPM-Solver++; more do not come nearer to held-out latents (docs/results.md).
NUM_STEPS = 20
# Frames per window for the search of copies: long enough to be a phrase, short enough that a
# segment holds several.
PHRASE_FRAMES = 16
# Reported as clamped: a larger share of values equal to the largest or the smallest one. Continuous
# data has two such values in all; N(0, 1) clamped at 3 standard deviations has 0.27 %.
CLAMPED_SHARE = 1e-3
# Smaller numbers of such values are not counted.
CLAMPED_COUNT = 10
# A dimension whose range is smaller, relative to the widest one, counts as constant.
SMALLEST_EXTENT = 1e-3
# Reported as exploding: a larger root mean square of the noisy latents, relative to the schedule's.
EXPLODING_RATIO = 2.0
# A dimension with a smaller share of the variance may have been left out by FIDELITY.
SMALLEST_VARIANCE_SHARE = 0.01
# Reported as silent: generated latents decode this far below held-out ones, or these to less than
# the second, of full scale.
SILENT_BELOW_DB, SILENT_DB = 20.0, -60.0
# Reported as memorised: a smaller median distance of generated windows to their nearest training
# window, relative to that of held-out windows. Windows of the same law have 1, copies 0.
MEMORISED_RATIO = 0.5


@dataclass(frozen=True)
class Trace:
    """Levels of the latents during sampling.

    Attributes:
        alpha_bar: (S + 1,) signal power at the start of each step, and 1 for the result.
        noisy: (S + 1,) root mean square of the input of each step, and of the result.
        expected: (S + 1,) root mean square that the schedule predicts.
        denoised: (S,) root mean square of the model's estimate of the clean latents.
        linear: (S,) the same of the best linear denoiser; a model that knows more, or follows
            conditions, has more.
    """

    alpha_bar: FloatArray
    noisy: FloatArray
    expected: FloatArray
    denoised: FloatArray
    linear: FloatArray


@torch.no_grad()
def trace_sampling(
    model: LatentDiffusion,
    num_frames: int,
    count: int,
    seed: int,
    inputs: Mapping[str, Tensor],
    gaussian: GaussianModel,
    num_steps: int = NUM_STEPS,
) -> tuple[Tensor, Trace]:
    """Generate latents (B, K, N) with `Sampling`; return them and their trace.

    Args:
        model: Trained model.
        num_frames: Frames N per item.
        count: Number of items B.
        seed: Random seed of the first item.
        inputs: Conditions of the items by name: curves (B, C, N·R), label (B,).
        gaussian: Gaussian model of the training latents, in segments of N frames.
        num_steps: Sampling steps S.
    """
    steps: list[tuple[float, float, float]] = []

    def observe(timestep: int, noisy: Tensor, denoised: Tensor) -> None:
        steps.append((float(model.schedule.alpha_bar[timestep]), rms(noisy), rms(denoised)))

    sampling = Sampling(
        model,
        range(count),
        seed,
        num_steps=num_steps,
        inputs_of=lambda *_: inputs,
        observe=observe,
    )
    (latents,) = sampling.latents(num_frames)
    alpha_bar, noisy, denoised = np.array([*steps, (1.0, rms(latents), 0.0)]).T
    weights, variance = SpectralDensity(1, num_frames).weights, gaussian.variance
    power = float(weights @ variance.mean(axis=1))
    expected = np.sqrt(alpha_bar * power + 1.0 - alpha_bar)
    level = alpha_bar[:-1, None, None]
    kept = level * np.square(variance) / (level * variance + 1.0 - level)  # Wiener's filter
    linear = np.sqrt(kept.mean(axis=2) @ weights)
    return latents, Trace(alpha_bar, noisy, expected, denoised[:-1], linear)


def exploding_norm(trace: Trace) -> Finding | None:
    """Return a finding if noisy latents grow far beyond what the schedule predicts."""
    ratio = trace.noisy / trace.expected
    if np.isfinite(ratio).all() and ratio.max() <= EXPLODING_RATIO:
        return None
    step = int(np.argmax(~(ratio <= EXPLODING_RATIO)))
    place = f"after sampling step {step} of {len(ratio) - 1}"
    if not np.isfinite(ratio).all():
        return Finding(EXPLODING_NORM, f"Sampling yields values that are not finite, {place}.")
    return Finding(
        EXPLODING_NORM,
        f"The norm of the noisy latents is up to {ratio.max():.1f} times what the schedule "
        f"predicts (above {EXPLODING_RATIO:g} first {place}).",
    )


def clamped_share(values: FloatArray) -> float:
    """Return the share of values that equal the largest or the smallest of them.

    Args:
        values: (..., D, N) latents. Dimensions that are (almost) constant are left out.
    """
    moving = _moving(values)
    count = int((moving == moving.min()).sum() + (moving == moving.max()).sum())
    return count / moving.size if CLAMPED_COUNT <= count < moving.size else 0.0


def _moving(values: FloatArray) -> FloatArray:
    """Return the dimensions of values (..., D, N) that are not constant; all if all are."""
    rows = np.moveaxis(values, -2, 0).reshape(values.shape[-2], -1)
    extent = rows.max(axis=1) - rows.min(axis=1)
    moving: FloatArray = rows[extent >= SMALLEST_EXTENT * extent.max()]
    return moving


def clamped_sampler(values: FloatArray) -> Finding | None:
    """Return a finding if many values equal the extremes.

    Args:
        values: (..., D, N) finite generated latents.
    """
    share = clamped_share(values)
    if share <= CLAMPED_SHARE:
        return None
    low, high = _moving(values).min(), _moving(values).max()
    return Finding(
        CLAMPED_SAMPLER,
        f"{share:.1%} of the generated values are exactly {low:.4g} or {high:.4g}: the sampler "
        "cuts them off.",
    )


def relative_level(deviation: FloatArray, training_std: FloatArray) -> float:
    """Return the level of raw latents over all dimensions, relative to the training latents'.

    Args:
        deviation: (D,) root mean square deviation from the training mean.
        training_std: (D,) standard deviation of the training latents.
    """
    return float(np.sqrt(np.square(deviation).mean() / np.square(training_std).mean()))


def level_lost(deviation: FloatArray, training_std: FloatArray) -> Finding | None:
    """Return a finding if raw generated latents have another level than the training latents.

    Args:
        deviation: (D,) root mean square deviation of generated raw latents from the training mean.
        training_std: (D,) standard deviation of the training latents.
    """
    variance = np.square(training_std)
    if not variance.any():
        return None
    counted = variance >= SMALLEST_VARIANCE_SHARE * variance.sum()
    ratio = deviation[counted] / training_std[counted]
    level = relative_level(deviation, training_std)
    num_off = int((~((ratio >= QUIET) & (ratio <= LOUD))).sum())
    if QUIET <= level <= LOUD and num_off <= len(ratio) / 2:
        return None
    return Finding(
        LEVEL_LOST,
        f"The level of generated latents is {level:.2f} of the training latents', and off by more "
        f"than a factor {LOUD:g} in {num_off} of the {len(ratio)} dimensions that matter.",
    )


def silent_decode(generated_db: float, held_out_db: float, level: float) -> Finding | None:
    """Return a finding if generated latents of the right level decode to (almost) nothing.

    Args:
        generated_db: Level of the audio that generated latents decode to, dB of full scale.
        held_out_db: The same of held-out latents.
        level: Level of generated latents, relative to the training latents'.
    """
    if not QUIET <= level <= LOUD:
        return None  # the latents are wrong, so their audio shows nothing
    if held_out_db < SILENT_DB:
        return Finding(
            SILENT_DECODE,
            f"Held-out latents decode to {held_out_db:.0f} dB of full scale: this is another "
            "codec than theirs, or it has not learnt to decode.",
        )
    if generated_db >= held_out_db - SILENT_BELOW_DB:
        return None
    return Finding(
        SILENT_DECODE,
        f"Generated latents decode to {generated_db:.0f} dB of full scale, held-out ones to "
        f"{held_out_db:.0f} dB, though their level is {level:.2f} of the training latents'.",
    )


def memorised(generated: FloatArray, held_out: FloatArray) -> Finding | None:
    """Return a finding if generated windows are much nearer to the training than held-out ones.

    Args:
        generated: Distance of each generated window to the nearest training window.
        held_out: The same of held-out windows.
    """
    ratio = float(np.median(generated) / max(float(np.median(held_out)), 1e-12))
    if ratio >= MEMORISED_RATIO:
        return None
    return Finding(
        MEMORISED,
        f"Windows of {PHRASE_FRAMES} generated frames are at {ratio:.2f} of the distance of "
        "held-out music from its nearest training windows: they are copies.",
    )


def nearest_distances(queries: FloatArray, training: Iterable[FloatArray]) -> FloatArray:
    """Return the distance of each window to its nearest training window, at any offset.

    Args:
        queries: (Q, K, W) windows of latents.
        training: Stretches of training latents, (K, n) each.

    Returns:
        (Q,) cosine distance, which does not depend on level: 0 for a copy, 1 if nothing is in
        common, 2 if there is no training window at all.
    """
    count, latent_size, num_frames = queries.shape
    points = _unit(queries.reshape(count, -1))
    nearest = np.full(count, -1.0)
    for stretch in training:
        if stretch.shape[1] < num_frames:
            continue
        others = np.lib.stride_tricks.sliding_window_view(stretch, num_frames, axis=1)
        cosine = points @ _unit(others.transpose(1, 0, 2).reshape(-1, latent_size * num_frames)).T
        nearest = np.maximum(nearest, cosine.max(axis=1))
    return 1.0 - nearest


def _unit(points: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit: FloatArray = points / np.maximum(lengths, 1e-12)
    return unit


def describe(generated: FloatArray, training: FloatArray, held_out: FloatArray) -> dict[str, Any]:
    """Compare generated and training segments with held-out segments.

    Args:
        generated: (S, K, N) generated segments.
        training: (S, K, N) training segments; they show how far real music is from real music.
        held_out: (S', K, N) held-out segments.

    Returns:
        `generated`, `training` and `held_out`: `mean` and `std` of each channel, `lowest` and
        `highest` value, `autocorrelation` at `lags`, averaged over channels. The first two also
        have `distance` from held-out segments: the fields of `SampleStatistics`, and
        `covariance`, relative to the norm of the held-out covariance.
    """
    sets = {"generated": generated, "training": training, "held_out": held_out}
    figures: dict[str, Any] = {"lags": list(LAGS)}
    for name, segments in sets.items():
        figures[name] = {
            "mean": segments.mean(axis=(0, 2)).tolist(),
            "std": segments.std(axis=(0, 2)).tolist(),
            "lowest": float(segments.min()),
            "highest": float(segments.max()),
            "autocorrelation": autocorrelation(segments).mean(axis=0).tolist(),
        }
        if name != "held_out":
            distance = asdict(compare(segments, held_out))
            covariances = [np.cov(np.hstack(list(each))) for each in (segments, held_out)]
            one, other = (np.atleast_2d(each) for each in covariances)
            distance["covariance"] = float(np.linalg.norm(one - other) / np.linalg.norm(other))
            figures[name]["distance"] = distance
    return figures


def decoded_db(codec: Codec, clips: FloatArray, noise: DecoderNoise) -> float:
    """Return the median level of the audio of raw latents (S, D, N), in dB of full scale."""
    levels = [
        20.0 * np.log10(np.sqrt(np.square(codec.decode(clip, noise)).mean()) + 1e-9)
        for clip in clips
    ]
    return float(np.median(levels))
