"""The pieces that the report's page is made of. Everything they show is inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

import soundfile
from report_plots import spectrogram_png


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def clip(path: Path, caption: str) -> str:
    """Return a figure of one audio file: what it is, its spectrogram, and a player."""
    audio, sample_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    packed = io.BytesIO()
    soundfile.write(packed, audio, sample_rate_hz, format="MP3")
    picture = _data_address("image/png", spectrogram_png(audio.mean(axis=1), sample_rate_hz))
    name = escape(f"{caption}, {path.stem}", quote=True)
    return (
        f'<figure class="clip"><figcaption>{escape(caption)}</figcaption>'
        f'<div class="picture"><img src="{picture}" alt="Spectrogram: {name}"><i></i></div>'
        f'<audio controls preload="metadata" aria-label="{name}" '
        f'src="{_data_address("audio/mpeg", packed.getvalue())}"></audio></figure>'
    )


def card(*clips: str, title: str = "") -> str:
    """Return clips that belong together."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card">{head}{"".join(clips)}</div>'


def grid(cards: Iterable[str], style: str = "grid") -> str:
    """Return cards side by side, as many as fit; `style` is a class of report.css."""
    return f'<div class="{style}">{"".join(cards)}</div>'


def section(title: str, text: str, *content: str) -> str:
    """Return a section of the page."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{''.join(content)}</section>"


def plot_figure(svg: str, caption: str) -> str:
    """Return a plot with what it says."""
    return f'<figure class="card">{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def picture_figure(path: Path, caption: str) -> str:
    """Return a picture, a .png file, with what it says."""
    address = _data_address("image/png", path.read_bytes())
    alt = escape(caption, quote=True)
    return (
        f'<figure class="card wide"><img src="{address}" alt="{alt}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
