"""Blends of latents: between two clips, and the mean of several. D latent size, N latent frames.

A mean of N(0, 1) vectors is shorter than they are, and the decoder was not trained on such vectors.
Spherical blends keep the length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rave.compute.arrays import Float32Array, FloatArray

PARALLEL = 1e-4  # radians; nearer directions are blended along a line


def lerp(a: Float32Array, b: Float32Array, weight: float) -> Float32Array:
    """Return the blend along a straight line: a at weight 0, b at weight 1. All (D, N)."""
    return np.asarray((1.0 - weight) * a + weight * b, dtype=np.float32)


def slerp(a: Float32Array, b: Float32Array, weight: float) -> Float32Array:
    """Return the blend along a great circle, frame by frame, of lengths blended along a line.

    Args:
        a: (D, N), blended from.
        b: (D, N), blended to.
        weight: 0 gives a, 1 gives b.

    Returns:
        (D, N). Where the directions are equal or opposite, or a vector is 0, the linear blend,
        rescaled to the blended length.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3.
    """
    length_a, length_b = (_length(vectors) for vectors in (a, b))
    unit_a, unit_b = a / np.maximum(length_a, 1e-12), b / np.maximum(length_b, 1e-12)
    cosine = np.sum(unit_a * unit_b, axis=0, keepdims=True, dtype=np.float64)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    sine = np.sin(angle)
    is_line = sine < PARALLEL
    safe = np.where(is_line, 1.0, sine)
    weight_a = np.where(is_line, 1.0 - weight, np.sin((1.0 - weight) * angle) / safe)
    weight_b = np.where(is_line, weight, np.sin(weight * angle) / safe)
    return _with_length(weight_a * unit_a + weight_b * unit_b, lerp(length_a, length_b, weight))


def mean(clips: Sequence[Float32Array]) -> Float32Array:
    """Return the mean of clips (D, N)."""
    return np.asarray(np.mean(np.stack(clips), axis=0, dtype=np.float64), dtype=np.float32)


def mean_of_length(clips: Sequence[Float32Array]) -> Float32Array:
    """Return the mean of clips (D, N), each frame rescaled to the mean length of their frames."""
    return _with_length(mean(clips), mean([_length(clip) for clip in clips]))


def _length(vectors: Float32Array) -> Float32Array:
    return np.linalg.norm(vectors, axis=0, keepdims=True)


def _with_length(vectors: FloatArray, length: FloatArray) -> Float32Array:
    norm = np.linalg.norm(vectors, axis=0, keepdims=True)
    return np.asarray(vectors * (length / np.maximum(norm, 1e-12)), dtype=np.float32)
