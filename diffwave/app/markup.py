"""Pieces of the page as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from urllib.parse import quote

from diffwave.app.kept import Made


def words(text: str) -> str:
    """Return a line of explanation."""
    return f'<p class="words">{html.escape(text)}</p>'


def status(text: str, *, is_error: bool = False) -> str:
    """Return what is said of the work; screen readers say it."""
    kind, text = "error" if is_error else "fine", html.escape(text.strip())
    return f'<p class="told {kind}" role="status" aria-live="polite">{text}</p>'


def warnings(texts: Sequence[str]) -> str:
    """Return what commands warned of, one below the other."""
    return "".join(f'<p class="warning" role="note">{html.escape(text)}</p>' for text in texts)


def article(made: Made, seen: str) -> str:
    """Return a result: to hear, to see, to keep, to make again.

    Args:
        made: The result.
        seen: Its pictures.
    """
    title = html.escape(made.title)
    source = f"gradio_api/file={quote(made.audio.as_posix())}"
    name = html.escape(made.audio.name)
    return (
        f'<article class="clip"><h2>{title}</h2>{warnings(made.warnings)}'
        f'<audio controls preload="metadata" src="{source}" aria-label="{title}"></audio>{seen}'
        f'<p class="facts">{made.seconds:.1f} s · seed {made.seed} · '
        f'<a download="{name}" href="{source}">Download {name}</a></p>'
        "<details open><summary>The command that makes it again</summary>"
        f'<pre tabindex="0">{html.escape(made.command)}</pre></details></article>'
    )


def joined(articles: Sequence[str], folder: str) -> str:
    """Return results, the newest open and the earlier ones behind a word.

    Args:
        articles: The newest first, at least one.
        folder: That keeps them, and those before them.
    """
    newest, *older = articles
    if older:
        older = ['<details class="older"><summary>Earlier</summary>', *older, "</details>"]
    return "".join([newest, *older, words(f"All that was made is kept in {folder}.")])
