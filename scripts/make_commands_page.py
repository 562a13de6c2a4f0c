"""Write docs/commands.md, the reference of all commands, from their parsers.

    python scripts/make_commands_page.py

The page is built from the arguments of each parser and not from its help text, which argparse
formats differently in each version of Python.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from diffwave.__main__ import PROGRAMS
from rave.main_cli import AVAILABLE_SCRIPTS, command_module

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
INTRODUCTION = """# Commands

All commands with all arguments. `python scripts/make_commands_page.py` writes this page from the
parsers of the commands; `tests/test_commands_page.py` checks that it is current.
[tour.md](tour.md) shows most of the commands in use.

Exit codes: 0 all done; 1 done, but some files were skipped, each named with its reason; 2 bad
input, reported in one sentence; 130 interrupted, and the same command continues.

Every command takes these options:
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page as Markdown."""
    parsers = [command_module(name).parser() for name in AVAILABLE_SCRIPTS]
    for name in PROGRAMS:
        module = f"diffwave.{name}" + ".__main__" * (name == "experiments")
        parsers.append(import_module(module).parser())
    common = set.intersection(*({_row(a) for a in parser._actions} for parser in parsers))
    rows = (row for row in map(_row, parsers[0]._actions) if row in common)
    parts = [INTRODUCTION + "\n" + _table("option", rows), _contents(parsers)]
    return "\n".join([*parts, *(_section(parser, common) for parser in parsers)])


def _contents(parsers: Iterable[argparse.ArgumentParser]) -> str:
    whats = [*AVAILABLE_SCRIPTS.values(), *PROGRAMS.values()]
    rows = (
        f"| [`{parser.prog}`](#{_anchor(parser.prog)}) | {what} |"
        for parser, what in zip(parsers, whats, strict=True)
    )
    return _table("command", rows)


def _anchor(title: str) -> str:
    """Return the fragment that GitHub gives to a heading."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _section(parser: argparse.ArgumentParser, common: set[str]) -> str:
    """Return the section of one command, without the options that all commands share."""
    parts = [
        f"## {parser.prog}\n",
        f"{_prose(parser.description or '')}\n",
        f"```text\n{_usage(parser)}\n```\n",
    ]
    for group in parser._action_groups:
        rows = [row for row in map(_row, group._group_actions) if row not in common]
        if rows:
            known = {"positional arguments": "argument", "options": "option"}
            title = group.title or ""
            parts.append(_table(known.get(title, f"options: {title}"), rows))
    for choice in parser._mutually_exclusive_groups:
        names = ", ".join(f"`{action.option_strings[-1]}`" for action in choice._group_actions)
        parts.append(f"{'Exactly' if choice.required else 'At most'} one of {names}.\n")
    title, *lines = (parser.epilog or "").splitlines()
    parts.append("\n".join([f"{title.capitalize()}\n", *(f"    {x.strip()}" for x in lines), ""]))
    return "\n".join(parts)


def _usage(parser: argparse.ArgumentParser) -> str:
    """Return a command line with all required arguments."""
    words = [parser.prog]
    exclusive = {a for group in parser._mutually_exclusive_groups for a in group._group_actions}
    words += [_signature(a) for a in parser._actions if not a.option_strings]
    words += [_signature(a) for a in parser._actions if a.option_strings and a.required]
    for group in parser._mutually_exclusive_groups:
        if group.required:
            words.append(f"({' | '.join(map(_signature, group._group_actions))})")
    if any(a.option_strings and not a.required and a not in exclusive for a in parser._actions):
        words.append("[options]")
    return " ".join(words)


def _row(action: argparse.Action) -> str:
    """Return the row of an argument."""
    text = _prose((action.help or "") % vars(action)).replace("|", "\\|").replace("\n", " ")
    needed = " (required)" if action.option_strings and action.required else ""
    return f"| `{_signature(action)}` | {text}{needed} |"


def _signature(action: argparse.Action) -> str:
    """Return an argument as it is written: its name, and placeholders of its values."""
    return " ".join([*action.option_strings[-1:], *_placeholders(action)])


def _placeholders(action: argparse.Action) -> Iterator[str]:
    name = action.dest.upper()
    if action.metavar is not None:
        name = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    elif action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    if action.nargs == 0:
        return
    yield {"?": f"[{name}]", "*": f"[{name} …]", "+": f"{name} …"}.get(str(action.nargs), name)


def _prose(text: str) -> str:
    """Return text in which only code is marked as Markdown."""
    parts = text.split("`")
    return "`".join(
        re.sub(r"([*~<])", r"\\\1", p) if n % 2 == 0 else p for n, p in enumerate(parts)
    )


def _table(title: str, rows: Iterable[str]) -> str:
    return "\n".join([f"| {title} | |", "|---|---|", *rows, ""])


if __name__ == "__main__":
    main()
