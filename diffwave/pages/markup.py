"""HTML of pages that need nothing but themselves: document, sections, tables, figures, players."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rave.files.atomic import atomic_write


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: str) -> str:
    """Return text as HTML, also for a quoted attribute; `Html` stays as it is."""
    return text if isinstance(text, Html) else html.escape(text)


def write_page(
    path: Path,
    title: str,
    lead: str,
    figures: Mapping[str, str],
    sections: Iterable[str],
    footer: str,
) -> None:
    """Write a page.

    Args:
        path: File to write.
        title: Title of the page.
        lead: Text below the title.
        figures: Key figures below the lead, by name.
        sections: HTML of each section.
        footer: Text at the end.
    """
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text() for kind in ("css", "js"))
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in figures.items())
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<header><button class="theme" type="button">Dark</button>'
        f"<h1>{escape(title)}</h1>{paragraph(lead, 'lead')}"
        f'<dl class="figures">{"".join(items)}</dl></header>\n<main>\n'
        + "\n".join(sections)
        + f"\n</main>\n<footer>{escape(footer)}</footer>\n"
        + f"<script>\n{script}</script>\n</body>\n</html>\n"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def section(title: str, *content: str, anchor: str = "") -> str:
    """Return a section: a title and its HTML; `anchor` is what links to it name."""
    name = f' id="{escape(anchor)}"' if anchor else ""
    return f"<section><h2{name}>{escape(title)}</h2>{''.join(content)}</section>"


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph; `style` is a class of the style sheet."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def grid(items: Iterable[str], style: str = "grid") -> str:
    """Return HTML side by side, as much as fits; `style` is a class of the style sheet."""
    return f'<div class="{style}">{"".join(items)}</div>'


def figure(content: str, caption: str, style: str = "card") -> str:
    """Return HTML of a picture or a table with its caption."""
    return f'<figure class="{style}">{content}<figcaption>{escape(caption)}</figcaption></figure>'


def table(label: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table that scrolls by itself where the page is narrow.

    Args:
        label: Name for screen readers.
        heads: Names of the columns; the first column names the rows.
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
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def data_address(kind: str, content: bytes) -> str:
    """Return the address of a file that lies inside the page; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def image(png: bytes, name: str) -> str:
    """Return a PNG as a picture inside the page; `name` describes it."""
    return f'<img src="{data_address("image/png", png)}" alt="{escape(name)}" draggable="false">'


def player(address: str, name: str) -> str:
    """Return an audio player; `name` describes what it plays."""
    return (
        f'<audio controls preload="metadata" src="{escape(address)}" '
        f'aria-label="{escape(name)}"></audio>'
    )


def signed(text: str) -> str:
    """Return a number with a true minus sign."""
    return text.replace("-", "−")
