"""Plots and spectrograms: one style for files and for SVG that follows the colours of a page.

T is a number of audio samples.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from diffwave.pages.markup import escape
from rave.files.atomic import atomic_write

Array = NDArray[Any]
# (x, y) pairs.
Curve = Sequence[tuple[float, float]]

REAL, GENERATED, OTHER = "#3f86e0", "#e5792b", "#777777"
COLOURS = (REAL, GENERATED, "#9a6fd0", "#2f9e6e", "#c23b5a", OTHER)
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.prop_cycle": matplotlib.rcsetup.cycler(color=COLOURS),
    "axes.formatter.useoffset": False,
    "figure.constrained_layout.hspace": 0.08,
    "grid.alpha": 0.15,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "rave-diffwave",
}
DOTS_PER_INCH = 110
# In an SVG for a page, what has this colour takes the colour of the page's text.
INK = "#010203"
INK_PARTS = "text.color axes.labelcolor axes.edgecolor xtick.color ytick.color grid.color"
INLINE: Any = {**STYLE, "svg.fonttype": "none", **dict.fromkeys(INK_PARTS.split(), INK)}
INLINE_INCHES = (4.9, 3.1)

NUM_MELS, STFT_SAMPLES, SPECTROGRAM_HOP = 96, 2048, 512
# Of a mel band; a sine at full scale has 0 dB. The same for every picture, so that they compare.
SPECTROGRAM_RANGE_DB = (-95.0, -20.0)
SPECTROGRAM_COLOURS = "magma"


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float, *shape: int, **options: Any) -> Iterator[Any]:
    """Yield the axes of a figure, and write it as a whole .png or .svg file.

    Args:
        path: File to write.
        width: In inches.
        height: In inches.
        shape: Rows and columns of axes; one if left out.
        options: Further arguments of `Figure.subplots`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(*shape, **options)
        metadata: Any = {"Date": None} if path.suffix == ".svg" else None
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata=metadata)


def inline_svg(
    draw: Callable[[Any], None],
    label: str,
    height: float = INLINE_INCHES[1],
    num_rows: int = 1,
    **options: Any,
) -> str:
    """Return a plot as SVG inside a page.

    Args:
        draw: Draws into the axes that it is given.
        label: Name for screen readers.
        height: Of the figure, in inches.
        num_rows: Number of axes, one below the other.
        options: Further arguments of `Figure.subplots`.
    """
    with matplotlib.rc_context({**INLINE, "svg.hashsalt": label}):
        figure = Figure(figsize=(INLINE_INCHES[0], height), layout="constrained")
        draw(figure.subplots(num_rows, 1, **options))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # they repeat from plot to plot
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def line(axes: Axes, curve: Curve, colour: str, label: str | None = None, **looks: Any) -> None:
    """Draw a curve, if it has a point."""
    if curve:
        axes.plot(*zip(*curve, strict=True), color=colour, label=label, **looks)


def draw_notes(axes: Axes, notes: Iterable[Sequence[float]], colour: str, label: str = "") -> None:
    """Draw notes (start in s, end in s, pitch) as a piano roll."""
    starts, ends, pitches = np.array([*notes], dtype=float).reshape(-1, 3).T
    axes.hlines(pitches, starts, ends, colors=colour, linewidth=3, label=label or "")


def legend_above(axes: Axes, num_columns: int = 2) -> None:
    """Put the legend above the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=num_columns, borderaxespad=0.2)


def mel_spectrogram_db(
    audio: Array, sample_rate_hz: int, hop_samples: int = SPECTROGRAM_HOP
) -> Array:
    """Return the level of each mel band of audio (T,), (NUM_MELS, frames), low bands first."""
    from rave.compute.numba_safe import librosa

    window = np.hanning(STFT_SAMPLES + 1)[:-1]
    audio = np.pad(audio.astype(np.float32), (0, max(0, STFT_SAMPLES - len(audio))))
    spectrum = librosa.stft(audio, n_fft=STFT_SAMPLES, hop_length=hop_samples, window=window)
    power = np.square(np.abs(spectrum) / (window.sum() / 2))
    filters = librosa.filters.mel(
        sr=sample_rate_hz, n_fft=STFT_SAMPLES, n_mels=NUM_MELS, norm=None, dtype=np.float64
    )
    level_db: Array = 10 * np.log10(filters @ power + 1e-12)
    return level_db


def spectrogram_png(audio: Array, sample_rate_hz: int, hop_samples: int = SPECTROGRAM_HOP) -> bytes:
    """Return a PNG of the log-mel spectrogram of audio (T,), in the colours of `colour_ramp`."""
    low, high = SPECTROGRAM_RANGE_DB
    level = (mel_spectrogram_db(audio, sample_rate_hz, hop_samples) - low) / (high - low)
    indices = (255 * np.clip(level, 0, 1)).astype(np.uint8)[::-1]
    image = Image.fromarray(indices).convert("P")
    image.putpalette(_colours(256)[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def colour_ramp(num_stops: int = 9) -> str:
    """Return the colours of the spectrograms, quiet to loud, as a CSS gradient."""
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b, _ in _colours(num_stops))
    return f"linear-gradient(to right, {stops})"


def _colours(count: int) -> Array:
    colours: Array = matplotlib.colormaps[SPECTROGRAM_COLOURS](np.linspace(0, 1, count), bytes=True)
    return colours
