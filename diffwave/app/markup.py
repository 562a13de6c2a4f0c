"""Parts of the page as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from diffwave.app.storage import Output
from diffwave.pages.markup import escape, paragraph, player


def words(text: str) -> str:
    """Return a line of explanation."""
    return paragraph(text, "words")


def status(text: str, *, is_error: bool = False) -> str:
    """Return the status line, which screen readers read aloud."""
    kind = "error" if is_error else "fine"
    text = escape(text.strip())
    return f'<p class="status {kind}" role="status" aria-live="polite">{text}</p>'


def warnings(texts: Sequence[str]) -> str:
    """Return warnings of commands, one below the other."""
    return "".join(f'<p class="warning" role="note">{escape(text)}</p>' for text in texts)


def article(result: Output, pictures: str) -> str:
    """Return a result with its player, pictures, download and command.

    Args:
        result: The result.
        pictures: HTML of its pictures.
    """
    source = f"gradio_api/file={quote(result.audio.as_posix())}"
    name = escape(result.audio.name)
    return (
        f'<article class="clip"><h2>{escape(result.title)}</h2>{warnings(result.warnings)}'
        f"{player(source, result.title)}{pictures}"
        f'<p class="facts">{result.seconds:.1f} s · seed {result.seed} · '
        f'<a download="{name}" href="{source}">Download {name}</a></p>'
        "<details open><summary>Command that makes it again</summary>"
        f'<pre tabindex="0">{escape(result.command)}</pre></details></article>'
    )


def joined(articles: Sequence[str], folder: str) -> str:
    """Return results, the newest shown and the earlier ones folded.

    Args:
        articles: HTML of each result, the newest first, at least one.
        folder: Folder of all results.
    """
    newest, *older = articles
    if older:
        older = ['<details class="older"><summary>Earlier results</summary>', *older, "</details>"]
    return "".join([newest, *older, words(f"All results are in {folder}.")])
