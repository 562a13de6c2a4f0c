"""Outcomes as a table, as JSON, and as a plot of cost against length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEADS = (
    *("row", "what", "threads", "side", "median (lowest to highest)", "rate", "of the limit"),
    *("peak memory", "ratio (lowest to highest)"),
)
UNITS = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}


def table(records: Sequence[dict[str, Any]]) -> str:
    """Return rows of results as a table in Markdown, and below it how outputs differ."""
    lines = [HEADS, ("---",) * len(HEADS)]
    notes = []
    for record in records:
        lines += [_line(record, side) for side in record["sides"]]
        where = f"{record['row']}, {record['what']}"
        for name, value in record["differences"].items():
            notes.append(f"- {where}, {record['threads']} threads, {name}: {value:.1e}")
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text + ("\n\n" + "\n".join(notes) if notes else "")


def _line(record: dict[str, Any], side: dict[str, Any]) -> tuple[str, ...]:
    begin = (record["row"], record["what"], str(record["threads"]), side["name"])
    if "seconds" not in side:
        return (*begin, side["error"], "", "", "", "")
    share = side.get("share_of_limit")
    ratio = next((each for each in record["ratios"] if each["of"] == side["name"]), None)
    unit = "× real time" if record["unit"] == "s of audio" else f"{record['unit']}/s"
    return (
        *begin,
        "; ".join([_with_spread(side["seconds"], " s"), *_told(side)]),
        f"{_short(side['rate'])} {unit}",
        "" if share is None else f"{100 * share:.0f} %",
        f"{side['peak_mib']:.0f} MiB",
        "" if ratio is None else _with_spread(ratio, " ×"),
    )


def _told(side: dict[str, Any]) -> list[str]:
    """Return what a side measured itself, and why it stopped."""
    found = [
        f"{name} {_with_spread(value, '')}"
        for name, value in side.items()
        if name != "seconds" and isinstance(value, dict)
    ]
    return [*found, side["error"]] if side["error"] else found


def _with_spread(found: dict[str, Any], unit: str) -> str:
    low, high = _short(found["lowest"]), _short(found["highest"])
    return f"{_short(found['median'])}{unit} ({low} to {high})"


def _short(value: float) -> str:
    for size, letter in UNITS.items():
        if value >= size and size > 1e3:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def plot_length(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot time and memory of rows that have a size against it, as PNG."""
    from diffwave.pages.plots import drawn

    with drawn(path, 10, 4, 1, 2) as axes:
        for what in dict.fromkeys(record["what"].split()[0] for record in records):
            some = [record for record in records if record["what"].split()[0] == what]
            minutes = [record["size"] for record in some]
            seconds = [record["sides"][0]["seconds"]["median"] for record in some]
            peaks = [record["sides"][0]["peak_mib"] for record in some]
            axes[0].loglog(minutes, seconds, "o-", label=what)
            axes[1].semilogx(minutes, peaks, "o-", label=what)
        for axis, label in zip(axes, ("time, s", "peak memory, MiB"), strict=True):
            axis.set(xlabel="length, minutes", ylabel=label)
            axis.set_ylim(bottom=None if axis is axes[0] else 0)
            axis.legend()
