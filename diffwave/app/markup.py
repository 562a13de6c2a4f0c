"""Pieces of the page as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from urllib.parse import quote

from diffwave.app.workshop import Made


def words(text: str) -> str:
    """Return a line of explanation."""
    return f'<p class="words">{html.escape(text)}</p>'


def status(text: str, *, is_error: bool = False) -> str:
    """Return what is told of the work; screen readers say it."""
    kind, text = "error" if is_error else "fine", html.escape(text.strip())
    return f'<p class="told {kind}" role="status" aria-live="polite">{text}</p>'


def article(made: Made, seen: str) -> str:
    """Return a result: to hear, to see, to keep, to make again.

    Args:
        made: The result.
        seen: Its pictures.
    """
    title = html.escape(made.title)
    source = f"gradio_api/file={quote(made.audio.as_posix())}"
    name = f"{made.audio.parents[1].name}.wav"
    return (
        f'<article class="clip"><h2>{title}</h2>'
        f'<audio controls preload="auto" src="{source}" aria-label="{title}"></audio>{seen}'
        f'<p class="facts">{made.seconds:.1f} s · seed {made.seed} · '
        f'<a download="{name}" href="{source}">Download {name}</a></p>'
        "<details open><summary>The command that makes it again</summary>"
        f'<pre tabindex="0">{html.escape(made.command)}</pre></details></article>'
    )


def joined(articles: Sequence[str]) -> str:
    """Return results, the newest open and the earlier ones behind a word."""
    newest, *older = articles
    if not older:
        return newest
    return f'{newest}<details class="older"><summary>Earlier</summary>{"".join(older)}</details>'
