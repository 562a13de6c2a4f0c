"""Parts of the report's page: clips, blends, the scale of the spectrograms, the commands."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import soundfile

from diffwave.pages.markup import (
    data_address,
    escape,
    grid,
    image,
    paragraph,
    player,
    section,
    signed,
)
from diffwave.pages.plots import SPECTROGRAM_RANGE_DB, colour_ramp, spectrogram_png
from rave.api.result import Result
from rave.cli import command_parser, execute

BLENDS = (
    "Each clip names the share of the second recording. Along a line (lerp); along a great circle "
    "(slerp); the mean, unchanged and stretched to the usual length of latents."
)


def clip(path: Path, caption: str, span_s: tuple[float, float] | None = None) -> str:
    """Return a figure of one audio file: caption, spectrogram and player.

    Args:
        path: The file.
        caption: Text above its picture.
        span_s: Start and end to mark in the picture, in seconds.
    """
    audio, sample_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    packed = io.BytesIO()
    soundfile.write(packed, audio, sample_rate_hz, format="MP3")
    name = f"{caption}, {path.stem}"
    picture = image(spectrogram_png(audio.mean(axis=1), sample_rate_hz), f"Spectrogram: {name}")
    sound = player(data_address("audio/mpeg", packed.getvalue()), name)
    duration_s = len(audio) / sample_rate_hz
    mark = ""
    if span_s is not None:
        low, high = (100 * second / duration_s for second in span_s)
        mark = f'<b style="left: {low:.2f}%; width: {high - low:.2f}%"></b>'
    return (
        f'<figure class="clip"><figcaption>{escape(caption)}</figcaption>'
        f'<div class="picture" role="slider" tabindex="0" aria-label="Position in {escape(name)}" '
        f'aria-valuemin="0" aria-valuemax="{duration_s:.2f}" aria-valuenow="0" '
        f'aria-valuetext="0 of {duration_s:.1f} seconds">'
        f"{picture}{mark}<i></i></div>{sound}</figure>"
    )


def card(*clips: str, title: str = "") -> str:
    """Return clips that belong together."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card">{head}{"".join(clips)}</div>'


def clip_cards(folder: Path, caption: str, span_s: tuple[float, float] | None = None) -> list[str]:
    """Return the wav files of a folder, each in a card, numbered."""
    paths = sorted(folder.glob("*.wav"))
    return [card(clip(path, f"{caption}, {n}", span_s)) for n, path in enumerate(paths, 1)]


def blend_cards(folder: Path) -> list[str]:
    """Return the blends of `rave interpolate`, a grid for each kind."""
    kinds = [sorted(folder.glob(f"{kind}*.wav")) for kind in ("lerp", "slerp", "mean")]
    return [
        grid((card(clip(path, blend_title(path.stem))) for path in paths), "small grid")
        for paths in kinds
        if paths
    ]


def blend_title(stem: str) -> str:
    """Return the title of a blend: "lerp, 25 %" of `lerp_01_0.25`."""
    kind, *rest = stem.split("_")
    if kind in ("lerp", "slerp") and len(rest) == 2:
        return f"{kind}, {100 * float(rest[1]):.0f} %"
    return stem.replace("_", " ")


def plain(value: float) -> str:
    """Return a distance without an exponent: 2710, 5.6, never 2.7e+03."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def spectrogram_scale() -> str:
    """Return the colour scale of the spectrograms, and how to use them."""
    low, high = (signed(f"{value:.0f} dB") for value in SPECTROGRAM_RANGE_DB)
    return (
        f'<div class="scale"><span>{low}</span><b style="background: {colour_ramp()}"></b>'
        f"<span>{high}</span><span>Low to high on the mel scale; a full-scale sine has 0 dB. "
        "Click in a picture to listen from there, or use the keyboard: Tab, arrows, Space."
        "</span></div>"
    )


def commands(journal: dict[str, Any]) -> str:
    """Return the section with the commands, their times and outputs."""
    items = [
        f"<li><details><summary><span>{escape(entry['title'])}<code>{escape(entry['command'])}"
        f"</code></span><span>{entry['seconds']:.0f} s</span></summary>"
        f"<pre>{escape(entry['output'].strip())}</pre></details></li>"
        for entry in journal["commands"]
    ]
    return section(
        "Commands",
        paragraph(f"Run in this report's folder, seed {journal['seed']}. Open one for its output."),
        f'<ol class="steps">{"".join(items)}</ol>',
    )


def report_program(
    write_report: Callable[[Path], Path],
    name: str,
    example: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a program that writes the report of a demo folder, and return its exit code.

    Args:
        write_report: Writes the report into a folder and returns its path.
        name: Name of the program.
        example: Folder for the example in its help.
        arguments: Words of the command line; None for those of the program.
    """
    parser = command_parser(
        name,
        "Write report.html into the folder of a demo.",
        f"python scripts/{name} {example}",
    )
    parser.add_argument("demo_dir", type=Path, help="the folder of the demo")

    def run(options: argparse.Namespace) -> Result:
        report = write_report(options.demo_dir)
        return Result(f"{report}", {"report": str(report)})

    return execute(parser, run, arguments)
