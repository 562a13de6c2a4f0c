"""Pictures of a sound on one time axis: wave, spectrogram, latents. HTML and SVG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffwave.pages.markup import image
from diffwave.pages.plots import spectrogram_png
from rave.audio.io import read_audio
from rave.compute.arrays import Float32Array

# Columns of a spectrogram, points of a curve: as many as a wide window can show.
NUM_COLUMNS, NUM_POINTS = 1000, 500
MIN_HOP = 128
NUM_AXES = 6
LANE = 40  # height of an axis; the width is 1000


def timeline(
    path: Path, sample_rate_hz: int, axes: tuple[Float32Array, Float32Array] | None = None
) -> str:
    """Return a file's wave, spectrogram and latents, one below the other.

    Args:
        path: Audio file.
        sample_rate_hz: Rate at which to read it.
        axes: Latents along their axes (D, N), and each axis's share of the variance; None for no
            latents.
    """
    audio = read_audio(path, sample_rate_hz, 1)[0]
    hop = max(len(audio) // NUM_COLUMNS, MIN_HOP)
    spectrogram = image(spectrogram_png(audio, sample_rate_hz, hop), "Spectrogram")
    parts = [_wave(audio), spectrogram]
    if axes is not None:
        parts.append(_curves(*axes))
    seconds = len(audio) / sample_rate_hz
    return (
        f'<div class="timeline" data-seconds="{seconds:.4f}">{"".join(parts)}'
        '<div class="region" hidden></div><div class="cursor" hidden></div></div>'
        f'<div class="times"><span>0 s</span><span>{seconds:.1f} s</span></div>'
    )


def _wave(audio: Float32Array) -> str:
    edges = np.linspace(0, len(audio), min(NUM_POINTS, len(audio)) + 1).astype(int)[:-1]
    high, low = np.maximum.reduceat(audio, edges), np.minimum.reduceat(audio, edges)
    x = np.linspace(0, 1000, len(edges))
    points = [*zip(x, 50 - 48 * high, strict=True)]
    points += [*zip(x[::-1], 50 - 48 * low[::-1], strict=True)]
    shape = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return (
        '<svg class="wave" viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Wave"><polygon points="{shape}"/></svg>'
    )


def _curves(along: Float32Array, shares: Float32Array) -> str:
    lanes = []
    for axis in range(min(NUM_AXES, len(along))):
        curve = _thinned(along[axis])
        reach = max(float(np.abs(curve - curve.mean()).max()), 1e-6)
        y = LANE * (0.5 - 0.45 * (curve - curve.mean()) / reach)
        x = (np.arange(len(y)) + 0.5) * 1000 / len(y)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lanes.append(
            f'<div class="lane"><svg viewBox="0 0 1000 {LANE}" preserveAspectRatio="none" '
            f'role="img" aria-label="Latents along axis {axis}"><polyline points="{points}"/>'
            f"</svg><span>axis {axis} · {shares[axis]:.0%}</span></div>"
        )
    return "".join(lanes)


def _thinned(curve: Float32Array) -> Float32Array:
    if len(curve) <= NUM_POINTS:
        return curve
    edges = np.linspace(0, len(curve), NUM_POINTS + 1).astype(int)
    sums = np.add.reduceat(curve, edges[:-1])
    return np.asarray(sums / np.diff(edges), dtype=np.float32)
