"""Whether latents carry the phase of the waveform, which no model can predict.

S segments, D raw latent size, N latent frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffwave.diagnosis.failures import PHASE_IN_LATENTS, Finding
from rave.codec import Codec
from rave.compute.arrays import Float32Array, FloatArray
from rave.latents.shifts import FEWEST_FRAMES, ShiftConsistency, shift_consistency
from rave.noise import DecoderNoise

NUM_MOVED = 8  # segments
# Reported: at this shift, less than a millisecond, less of the variance stays.
SHIFT_SAMPLES, SMALLEST_SHARE = 16, 0.5


def measure_phase(
    codec: Codec, latents: FloatArray, noise: DecoderNoise
) -> ShiftConsistency | None:
    """Decode latents, and encode what is heard again, moved by a part of a frame.

    Args:
        codec: Codec of the latents.
        latents: Raw latents (S, D, N) of held-out segments.
        noise: Noise of the decoder.

    Returns:
        None if segments have fewer frames than are needed.
    """
    if latents.shape[2] < FEWEST_FRAMES:
        return None

    def encode(audio: Float32Array) -> Float32Array:
        return codec.encode(audio)[0]

    audio = (codec.decode(each.astype(np.float32), noise) for each in latents[:NUM_MOVED])
    return shift_consistency(encode, audio, codec.format.hop_samples)


def phase_in_latents(found: ShiftConsistency | None, sample_rate_hz: int) -> Finding | None:
    """Return a finding if latents change where sound has hardly moved.

    Args:
        found: What `measure_phase` returns.
        sample_rate_hz: Sample rate of the codec.
    """
    if found is None:
        return None
    shift = max((each for each in found.shifts if each <= SHIFT_SAMPLES), default=0)
    if not shift or found.at(shift) >= SMALLEST_SHARE:
        return None
    return Finding(
        PHASE_IN_LATENTS,
        f"If sound moves by {1000 * shift / sample_rate_hz:.2f} ms, its latents keep "
        f"{found.at(shift):.2f} of their variance (1: they stay, below 0: they are others).",
    )


def phase_in_words(found: Mapping[str, Any]) -> str:
    """Return the shares of the variance that shifts leave, as a sentence.

    Args:
        found: The fields of `ShiftConsistency`.
    """
    kept = ", ".join(
        f"{shift} sample{'s' * (shift > 1)} {share:.2f}"
        for shift, share in zip(found["shifts"], found["same"], strict=True)
    )
    return (
        f"Variance that latents keep if the sound moves: {kept}; half a hop, against the frames "
        f"before and after, {found['between'][-1]:.2f}."
    )
