"""What a trained model generates: the trace of its sampling, and what is wrong with the samples.

The detectors are functions of measured figures, so that they serve a run and a folder of generated
latents alike. S sampling steps, K latent size, D raw latent size, N frames, W frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
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

if TYPE_CHECKING:
    from rave.codec import Codec
    from rave.noise import DecoderNoise

Array = NDArray[np.floating]
# Of DPM-Solver++; more do not come nearer to held-out latents (docs/results.md).
NUM_STEPS = 20
# Frames of the windows that are compared with the training's: long enough to be a phrase, short
# enough that a segment holds some.
PHRASE_FRAMES = 16
# Told as clamped: share of values that lie exactly on the largest or the smallest. Continuous
# values lie there twice in all; clamped at 3 standard deviations, N(0, 1) lies there 0.27 %.
CLAMPED_SHARE = 1e-3
# and number of them, so that few values are no pile.
CLAMPED_COUNT = 10
# A dimension whose values lie closer together, relative to the widest one, stands still.
SMALLEST_EXTENT = 1e-3
# Told as exploding: root mean square of the noisy latents over what the schedule predicts.
EXPLODING_RATIO = 2.0
# A dimension with a smaller share of the variance may have been left out by FIDELITY.
SMALLEST_VARIANCE_SHARE = 0.01
# Told as silent: generated latents decode this far below held-out ones, or these below full scale.
SILENT_BELOW_DB, SILENT_DB = 20.0, -60.0
# Told as memorised: median distance of generated windows to the training's nearest, over that of
# held-out windows. Windows of the same law have 1, copies 0.
MEMORISED_RATIO = 0.5


@dataclass(frozen=True)
class Trace:
    """The levels that latents pass through as they are sampled.

    Attributes:
        alpha_bar: (S + 1,) signal power at the beginning of each step, and 1 for the result.
        noisy: (S + 1,) root mean square of what each step begins with, and of the result.
        expected: (S + 1,) the same as the schedule predicts it.
        denoised: (S,) root mean square of what the model takes the latents for.
        linear: (S,) of what the best linear denoiser would; more is known by a model that knows
            more, and by one that follows conditions.
    """

    alpha_bar: Array
    noisy: Array
    expected: Array
    denoised: Array
    linear: Array


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
    """Return latents (B, K, N) as `Sampling` makes them, and their trace.

    Args:
        model: Trained.
        num_frames: N.
        count: B.
        seed: Of the first item.
        inputs: What each item follows, by name: curves (B, C, N·R), label (B,).
        gaussian: Of the latents that the model was trained on, in segments of N frames.
        num_steps: S.
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


def clamped_share(values: Array) -> float:
    """Return the share of values that lie exactly on the largest or the smallest of them.

    Args:
        values: (..., D, N). A dimension that (almost) stands still is left out.
    """
    moving = _moving(values)
    count = int((moving == moving.min()).sum() + (moving == moving.max()).sum())
    return count / moving.size if CLAMPED_COUNT <= count < moving.size else 0.0


def _moving(values: Array) -> Array:
    """Return the dimensions of values (..., D, N) that do not stand still; all, if all do."""
    rows = np.moveaxis(values, -2, 0).reshape(values.shape[-2], -1)
    extent = rows.max(axis=1) - rows.min(axis=1)
    moving: Array = rows[extent >= SMALLEST_EXTENT * extent.max()]
    return moving


def clamped_sampler(values: Array) -> Finding | None:
    """Return a finding if values pile up at their extremes.

    Args:
        values: (..., D, N) generated latents, all of them finite.
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


def relative_level(deviation: Array, training_std: Array) -> float:
    """Return the level of raw latents, all dimensions together, relative to the training's.

    Args:
        deviation: (D,) root mean square deviation from the training mean.
        training_std: (D,) standard deviation of the training latents.
    """
    return float(np.sqrt(np.square(deviation).mean() / np.square(training_std).mean()))


def level_lost(deviation: Array, training_std: Array) -> Finding | None:
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
        f"than a factor {LOUD:g} in {num_off} of {len(ratio)} dimensions that matter.",
    )


def silent_decode(generated_db: float, held_out_db: float, level: float) -> Finding | None:
    """Return a finding if generated latents of the right level decode to (almost) nothing.

    Args:
        generated_db: Level of the audio that generated latents decode to, dB of full scale.
        held_out_db: Of that which held-out latents decode to.
        level: Of generated latents, relative to the training latents'.
    """
    if not QUIET <= level <= LOUD:
        return None  # the latents are wrong, whatever the codec makes of them
    if held_out_db < SILENT_DB:
        return Finding(
            SILENT_DECODE,
            f"Real latents that were held out decode to {held_out_db:.0f} dB of full scale: the "
            "codec is not theirs, or has not learnt to decode.",
        )
    if generated_db >= held_out_db - SILENT_BELOW_DB:
        return None
    return Finding(
        SILENT_DECODE,
        f"Generated latents decode to {generated_db:.0f} dB of full scale, held-out ones to "
        f"{held_out_db:.0f} dB, though their level is {level:.2f} of the training latents'.",
    )


def memorised(generated: Array, held_out: Array) -> Finding | None:
    """Return a finding if generated windows lie much nearer to the training than held-out ones.

    Args:
        generated: Distance of each generated window to the nearest training window.
        held_out: The same of held-out windows.
    """
    ratio = float(np.median(generated) / max(float(np.median(held_out)), 1e-12))
    if ratio >= MEMORISED_RATIO:
        return None
    return Finding(
        MEMORISED,
        f"Windows of {PHRASE_FRAMES} generated frames lie at {ratio:.2f} of the distance to their "
        "nearest training window at which held-out music lies: they are copies.",
    )


def nearest_distances(queries: Array, training: Iterable[Array]) -> Array:
    """Return how far each window lies from the nearest one of the training, at any offset.

    Args:
        queries: (Q, K, W) windows of latents.
        training: Stretches of training latents, (K, n) each.

    Returns:
        (Q,) one minus the cosine between both, which no level changes: 0 of a copy, 1 of what has
        nothing in common. 2 where there is no training window at all.
    """
    count, latent_size, num_frames = queries.shape
    points = _unit(queries.reshape(count, -1))
    nearest = np.full(count, -1.0)
    for stretch in training:
        if stretch.shape[1] < num_frames:
            continue
        known = np.lib.stride_tricks.sliding_window_view(stretch, num_frames, axis=1)
        cosine = points @ _unit(known.transpose(1, 0, 2).reshape(-1, latent_size * num_frames)).T
        nearest = np.maximum(nearest, cosine.max(axis=1))
    return 1.0 - nearest


def _unit(points: Array) -> Array:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit: Array = points / np.maximum(lengths, 1e-12)
    return unit


def describe(generated: Array, training: Array, held_out: Array) -> dict[str, Any]:
    """Return statistics of generated segments, and of training ones, against held-out segments.

    Args:
        generated: (S, K, N).
        training: (S, K, N), as many, to show how far real music lies from real music.
        held_out: (S', K, N).

    Returns:
        `generated`, `training` and `held_out`: `mean` and `std` of each channel, `lowest` and
        `highest` value, `autocorrelation` at `lags`, averaged over channels. Of the first two as
        well their distances from held-out segments: those of `sample_statistics`, under
        `distance`, and `covariance`, relative to the norm of the held-out covariance.
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


def decoded_db(codec: Codec, clips: Array, noise: DecoderNoise) -> float:
    """Return the median level of the audio that raw latents (S, D, N) decode to, dB full scale."""
    levels = [
        20.0 * np.log10(np.sqrt(np.square(codec.decode(clip, noise)).mean()) + 1e-9)
        for clip in clips
    ]
    return float(np.median(levels))
