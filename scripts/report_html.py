"""The pieces that the report's page is made of. Everything they show is inside the page."""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import soundfile
from report_plots import SPECTROGRAM_RANGE_DB, colour_ramp, spectrogram_png

from rave.api.result import Result
from rave.cli import command_parser, execute
from rave.files.atomic import atomic_write


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def clip(path: Path, caption: str, span_s: tuple[float, float] | None = None) -> str:
    """Return a figure of one audio file: what it is, its spectrogram, and a player.

    Args:
        path: The file.
        caption: What it is.
        span_s: Seconds to mark in the picture.
    """
    audio, sample_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    packed = io.BytesIO()
    soundfile.write(packed, audio, sample_rate_hz, format="MP3")
    picture = _data_address("image/png", spectrogram_png(audio.mean(axis=1), sample_rate_hz))
    name = escape(f"{caption}, {path.stem}", quote=True)
    duration_s = len(audio) / sample_rate_hz
    mark = ""
    if span_s is not None:
        low, high = (100 * second / duration_s for second in span_s)
        mark = f'<b style="left: {low:.2f}%; width: {high - low:.2f}%"></b>'
    return (
        f'<figure class="clip"><figcaption>{escape(caption)}</figcaption>'
        f'<div class="picture" role="slider" tabindex="0" aria-label="Position in {name}" '
        f'aria-valuemin="0" aria-valuemax="{duration_s:.2f}" aria-valuenow="0" '
        f'aria-valuetext="0 of {duration_s:.1f} seconds">'
        f'<img src="{picture}" alt="Spectrogram: {name}">{mark}<i></i></div>'
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


def clip_cards(folder: Path, caption: str, span_s: tuple[float, float] | None = None) -> list[str]:
    """Return the wav files of a folder, each in a card, numbered."""
    paths = sorted(folder.glob("*.wav"))
    return [card(clip(path, f"{caption}, {n}", span_s)) for n, path in enumerate(paths, 1)]


def blend_cards(folder: Path) -> list[str]:
    """Return what `rave interpolate` wrote, a grid of each kind."""
    kinds = [sorted(folder.glob(f"{kind}*.wav")) for kind in ("lerp", "slerp", "mean")]
    return [
        grid((card(clip(path, blend_title(path.stem))) for path in paths), "small grid")
        for paths in kinds
        if paths
    ]


def blend_title(stem: str) -> str:
    """Return what a blend is: `lerp_01_0.25` is "lerp, 25 %"."""
    kind, *rest = stem.split("_")
    if kind in ("lerp", "slerp") and len(rest) == 2:
        return f"{kind}, {100 * float(rest[1]):.0f} %"
    return stem.replace("_", " ")


def signed(value: float, num_decimals: int = 3) -> str:
    """Return a number with a true minus sign."""
    return f"{value:.{num_decimals}f}".replace("-", "−")


def plain(value: float) -> str:
    """Return a distance as one reads it: 2710, 5.6, never 2.7e+03."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def spectrogram_scale() -> str:
    """Return the colours of the spectrograms, and how to use them."""
    low, high = (f"{signed(value, 0)} dB" for value in SPECTROGRAM_RANGE_DB)
    return (
        f'<div class="scale"><span>{low}</span><b style="background: {colour_ramp()}"></b>'
        f"<span>{high}</span><span>Low to high on the mel scale; a full-scale sine has 0 dB. "
        "Click in a picture to listen from there; or with the keyboard: Tab, arrows, Space."
        "</span></div>"
    )


def commands(journal: dict[str, Any]) -> str:
    """Return the section with the commands, their times and what they said."""
    items = [
        f"<li><details><summary><span>{escape(entry['title'])}<code>{escape(entry['command'])}"
        f"</code></span><span>{entry['seconds']:.0f} s</span></summary>"
        f"<pre>{escape(entry['output'].strip())}</pre></details></li>"
        for entry in journal["commands"]
    ]
    return section(
        "Commands",
        f"Typed in this report's folder, seed {journal['seed']}. Open one to see what it said.",
        f'<ol class="steps">{"".join(items)}</ol>',
    )


def scroll_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table that scrolls by itself where the page is narrow.

    Args:
        caption: What it says.
        heads: Of its columns; the first is that of the rows' names.
        rows: Cells, the name of the row first.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return (
        f'<figure class="table"><figcaption>{escape(caption)}</figcaption>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></figure>"
    )


def key_figures(figures: Mapping[str, str]) -> str:
    """Return the figures at the top of a page."""
    items = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in figures.items()
    )
    return f'<dl class="figures">{items}</dl>'


def write_page(path: Path, title: str, head: str, content: Iterable[str], foot: str) -> None:
    """Write a page that needs nothing but itself.

    Args:
        path: File to write.
        title: Of the page.
        head: HTML below the title.
        content: Sections.
        foot: HTML at the end.
    """
    style, script = (Path(__file__).with_name(f"report.{x}").read_text() for x in ("css", "js"))
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<header><button class="theme" type="button">Dark</button>'
        f"<h1>{escape(title)}</h1>{head}</header>\n<main>\n"
        + "\n".join(content)
        + f"\n</main>\n<footer>{foot}</footer>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


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


def report_program(
    write_report: Callable[[Path], Path],
    name: str,
    example: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a program that makes the report of a folder, and return its exit code.

    Args:
        write_report: Makes it.
        name: Of the program.
        example: Folder that it may be given.
        arguments: Of the command line; None for the program's own.
    """
    parser = command_parser(
        name,
        "Make report.html of what a demo left in a folder.",
        f"python scripts/{name} {example}",
    )
    parser.add_argument("demo_dir", type=Path, help="the folder of the demo")

    def run(options: argparse.Namespace) -> Result:
        report = write_report(options.demo_dir)
        return Result(f"{report}", {"report": str(report)})

    return execute(parser, run, arguments)
