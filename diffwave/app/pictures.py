"""A sound as pictures that share one axis of time: wave, spectrogram, latents. HTML and SVG."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffwave.conditions.spectrogram import WINDOW_SAMPLES, LogMel
from rave.audio.io import read_audio

Array = NDArray[np.float32]
# Columns of a spectrogram, points of a curve: what a wide window can show.
NUM_COLUMNS, NUM_POINTS = 1000, 500
NUM_MELS = 96
# Of the 100 dB of a log-mel spectrogram, what is drawn from dark to light.
QUIET, LOUD = 0.3, 0.95
COLOURS = "magma"
NUM_AXES = 6
LANE = 40  # height of an axis, of 1000 a whole width


def timeline(path: Path, sample_rate_hz: int, axes: tuple[Array, Array] | None = None) -> str:
    """Return a file's wave, spectrogram and, if given, latents, one below the other.

    Args:
        path: Audio.
        sample_rate_hz: To read it at.
        axes: Latents along their axes (D, N), and the share of the variance of each.
    """
    audio = read_audio(path, sample_rate_hz, 1)[0]
    parts = [_wave(audio), _spectrogram(audio, sample_rate_hz)]
    if axes is not None:
        parts.append(_curves(*axes))
    seconds = len(audio) / sample_rate_hz
    return (
        f'<div class="timeline" data-seconds="{seconds:.4f}">{"".join(parts)}'
        '<div class="region" hidden></div><div class="cursor" hidden></div></div>'
        f'<div class="times"><span>0 s</span><span>{seconds:.1f} s</span></div>'
    )


def spectrogram_picture(audio: Array, sample_rate_hz: int) -> Image.Image:
    """Return the log-mel spectrogram of audio (T,), low bands at the bottom."""
    hop = max(len(audio) // NUM_COLUMNS, WINDOW_SAMPLES // 8)
    num_frames = max(len(audio) // hop, 1)
    blocks = LogMel(sample_rate_hz, hop, NUM_MELS).blocks([audio], num_frames)
    levels = np.concatenate(list(blocks), axis=1)
    shown = np.clip((levels - QUIET) / (LOUD - QUIET), 0, 1)
    image = Image.fromarray((255 * shown).astype(np.uint8)[::-1]).convert("P")
    colours = matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3]
    image.putpalette(colours.tobytes())
    return image


def _spectrogram(audio: Array, sample_rate_hz: int) -> str:
    buffer = io.BytesIO()
    spectrogram_picture(audio, sample_rate_hz).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img class="spectrogram" alt="Spectrogram" draggable="false" '
        f'src="data:image/png;base64,{data}">'
    )


def _wave(audio: Array) -> str:
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


def _curves(along: Array, shares: Array) -> str:
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


def _thinned(curve: Array) -> Array:
    if len(curve) <= NUM_POINTS:
        return curve
    edges = np.linspace(0, len(curve), NUM_POINTS + 1).astype(int)
    sums = np.add.reduceat(curve, edges[:-1])
    return np.asarray(sums / np.diff(edges), dtype=np.float32)
