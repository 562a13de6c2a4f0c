"""What the documents name is there, and the commands take what they are given there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from rave.main_cli import AVAILABLE_SCRIPTS

DOCS = Path(__file__).parents[1] / "docs"
LINK = re.compile(r"\[(\w+)\]\(\.\./tests/(test_\w+\.py)\)")


def rows():
    lines = (DOCS / "upstream-compatibility.md").read_text().splitlines()
    return [line for line in lines if line.startswith("| ") and not line.endswith("| test |")]


def test_every_test_that_is_named_is_there():
    links = [link for row in rows() for link in LINK.findall(row)]
    assert links
    for name, file in links:
        assert f"\ndef test_{name}(" in (DOCS.parent / "tests" / file).read_text(), (name, file)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[2:40])
def test_every_line_names_its_test(row):
    cells = row.strip("| ").split(" | ")
    assert len(cells) == 3
    assert LINK.search(cells[2])


# A line of a block of commands, and what a cell of a table says with two arguments or more.
VERB = rf"(?:rave (?:{'|'.join(AVAILABLE_SCRIPTS)})|python -m diffwave\.\w+)"
LINE = re.compile(rf"^ {{4}}({VERB} (?:[^#\n\\]|\\\n)+)", re.MULTILINE)
CELL = re.compile(rf"`({VERB} [^`\s]+ [^`]+)`")


def commands():
    root = DOCS.parent
    for path in (
        root / "README.md",
        *sorted(DOCS.glob("*.md")),
        *sorted(root.glob("models/**/*.md")),
    ):
        text = path.read_text()
        found = LINE.findall(text) + CELL.findall(text)
        for line in found:
            for command in line.replace("\\\n", " ").split("&&"):
                yield path.name, command.strip()


def test_every_command_in_the_documents_is_understood(capsys):
    told = list(dict.fromkeys(commands()))
    assert len(told) > 50
    for document, command in told:
        words = shlex.split(command)
        is_rave = words[0] == "rave"
        name = f"rave.commands.{words[1]}" if is_rave else words[2]
        name += ".__main__" * (name == "diffwave.experiments")
        try:
            importlib.import_module(name).parser().parse_args(words[2 if is_rave else 3 :])
        except SystemExit:
            pytest.fail(f"{document}: {command}\n{capsys.readouterr().err}")
