"""One page of all results in a folder, and their table for documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffwave.experiments.plots import plot, scatter
from diffwave.pages.markup import Html, escape, figure, grid, paragraph, section, signed, table
from diffwave.pages.markup import write_page as write_html
from rave.files.atomic import atomic_write, read_json

PAGE, TABLE = "index.html", "table.md"
TITLE = "The diary, repeated"
LEAD = (
    "A diary of 2023 describes how a DiffWave on RAVE latents failed. Each line of it is an "
    "experiment here: once with a reproduction of its faulty model, once with ours, beside the "
    "prediction of closed form."
)
READING = (
    "Orange is the diary's model, a reproduction with all its faults. 'Predicted' follows from "
    "schedule and loss alone, before any training. The measure of ours is skill: the share by "
    "which its loss is below that of the best linear denoiser. 0 is as good as that, below 0 "
    "worse. Losses of different schedules cannot be compared. A prediction is met if the "
    "measurement is within 0.02."
)
DIFFERENCES = (
    "What differs from the diary everywhere: latents of {latent_size} dimensions at "
    "{frame_rate_hz:.1f} frames per second instead of 128 at 21.5, of other music and another "
    "codec; its model sees posterior samples, as in the diary, drawn from the folder's "
    "{contents}s, each dimension scaled to variance 1, as the diary's nearly were; {clip_frames} "
    "frames per clip; a quarter of its hidden channels; its Adam's learning rate falls to 0 over a "
    "few hundred steps, instead of thousands; no spectrograms except in experiments about them. "
    "Ours sees the latents of the folder, standardized: v-prediction, MSE, cosine schedule, one "
    "stratified timestep per item, averaged weights, 8 blocks of 64 channels, {our_steps} steps: "
    "enough to compare with the references, not to make music."
)
YES_NO = {True: "yes", False: "no"}
COLUMNS = ("variant", "the diary saw", "predicted", "the diary's model", "ours", "within 0.02")


def read_results(folder: Path, texts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results in a folder, in the order of the texts and with them."""
    pairs = [(folder / f"{text['name']}.json", text) for text in texts]
    return [{**read_json(path, "a result"), **text} for path, text in pairs if path.exists()]


def write_pages(folder: Path, texts: Sequence[dict[str, Any]]) -> Path:
    """Write the page and the table of a folder of results; return the page's path.

    Args:
        folder: Folder of the results.
        texts: `Experiment.texts` of all experiments, in their order.
    """
    header = read_json(folder / "experiments.json", "a folder of experiments")
    results = read_results(folder, texts)
    footer = f"Made by python -m diffwave.experiments; scale '{header['scale']['name']}'."
    sections = [_summary(header, results), *map(_section, results)]
    write_html(folder / PAGE, TITLE, LEAD, _figures(header, results), sections, footer)
    with atomic_write(folder / TABLE) as temporary:
        temporary.write_text(f"{differences(header)}\n\n{markdown(results)}", encoding="utf-8")
    return folder / PAGE


def _bars(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for result in results for row in result["rows"] if row["passed"] is not None]


def _figures(header: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, str]:
    bars = _bars(results)
    met = sum(row["passed"] for row in bars)
    seconds = sum(result["cpu_seconds"]["measuring"] for result in results)
    trainings: dict[str, float] = {}
    for result in results:
        trainings.update(result["cpu_seconds"]["trainings"])
    seconds += sum(trainings.values())
    carrying = header["latent_size"] - header["collapsed_dimensions"]
    return {
        "experiments": f"{len(results)}",
        "trainings": f"{len(trainings)}",
        "predictions met": f"{met} of {len(bars)}",
        "informative dimensions": f"{carrying} of {header['latent_size']}",
        "clips: training, held out": f"{header['training_clips']}, {header['held_out_clips']}",
        "CPU time": f"{seconds / 60:.0f} min",
    }


def _summary(header: dict[str, Any], results: list[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        bars = _bars([result])
        met = sum(row["passed"] for row in bars)
        skills = [s for row in result["rows"] if (s := row["ours"].get("skill")) is not None]
        cells = (
            Html(f'<a href="#{escape(result["name"])}">{escape(result["title"])}</a>'),
            "; ".join(result["diary"]),
            _coloured(f"{met} of {len(bars)}", met == len(bars)) if bars else "–",
            f"{_number(min(skills))} to {_number(max(skills))}" if skills else "–",
        )
        rows.append(cells)
    heads = ("experiment", "the diary", "predictions met", "our skill")
    points = [
        (first(row["predicted"]), first(row["diary"]))
        for row in _bars(results)
        if first(row["diary"]) is not None
    ]
    pictures = []
    if points:
        label = "Predicted against measured losses of the diary's model"
        caption = f"All {len(points)} figures of the diary's model that have a closed form."
        pictures.append(figure(scatter(points, label), caption))
    return section(
        "Summary",
        paragraph(READING),
        paragraph(differences(header), "soft"),
        grid(pictures, "plots"),
        table("All experiments", heads, rows),
    )


def differences(header: dict[str, Any]) -> str:
    """Return the differences from the diary that all experiments have."""
    return DIFFERENCES.format(**header, our_steps=header["scale"]["our_steps"])


def _section(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        note = f"<small>{escape(row['note'])}</small>" if row["note"] else ""
        name = Html(escape(row["label"]) + note)
        sides = (_cell(row[side]) for side in ("predicted", "diary", "ours"))
        passed = "–" if row["passed"] is None else _coloured(YES_NO[row["passed"]], row["passed"])
        rows.append((name, row["saw"] or "–", *sides, passed))
    lines = "".join(f"<li>{escape(line)}</li>" for line in result["diary"])
    pictures = [figure(plot(picture), picture["title"]) for picture in result["pictures"]]
    differs = f"Unlike the diary: {result['differs']}"
    return section(
        result["title"],
        f'<ul class="lines">{lines}</ul>',
        paragraph(result["why"]),
        table(result["title"], COLUMNS, rows),
        grid(pictures, "plots") if pictures else "",
        paragraph(differs, "soft") if result["differs"] else "",
        paragraph(Html(f"<code>--run {escape(result['name'])}</code>"), "soft"),
        anchor=result["name"],
    )


def _cell(figures: dict[str, Any]) -> str:
    """Return named figures: the first one large."""
    if not figures:
        return "–"
    (name, value), *rest = figures.items()
    more = ", ".join(f"{escape(key)} {_number(other)}" for key, other in rest)
    below = f'<small class="more">{more}</small>' if more else ""
    return Html(f"<b>{_number(value)}</b> <small>{escape(name)}</small>{below}")


def _coloured(text: str, is_good: bool) -> Html:
    return Html(f'<span class="{YES_NO[is_good]}">{escape(text)}</span>')


def first(figures: dict[str, Any]) -> Any:
    """Return the first of named figures."""
    return next(iter(figures.values()))


def _number(value: float | None) -> str:
    """Return a number without needless digits; None, in JSON, is one that is not finite."""
    if value is None:
        return "not finite"
    if isinstance(value, int):
        return f"{value}"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        digits, exponent = f"{value:.1e}".split("e")
        return signed(f"{digits}e{int(exponent)}")
    return signed(f"{value:.{3 if abs(value) < 10 else 1}f}")


def markdown(results: list[dict[str, Any]]) -> str:
    """Return the table of all results."""
    lines = []
    for result in results:
        lines += [f"### {result['title']} (`{result['name']}`)", ""]
        lines += [f"> {line}" + "  " for line in result["diary"]]
        lines += ["", result["why"], "", "| " + " | ".join(COLUMNS) + " |"]
        lines.append("|" + "---|" * len(COLUMNS))
        for row in result["rows"]:
            passed = {None: "", True: "yes", False: "**no**"}[row["passed"]]
            sides = [_in_line(row[side]) for side in ("predicted", "diary", "ours")]
            lines.append("| " + " | ".join([row["label"], row["saw"], *sides, passed]) + " |")
        lines.append("")
        if result["differs"]:
            lines += [f"Unlike the diary: {result['differs']}", ""]
    return "\n".join(lines)


def _in_line(figures: dict[str, Any]) -> str:
    parts = [f"{name} {_number(value)}" for name, value in figures.items()]
    return ", ".join(parts)
