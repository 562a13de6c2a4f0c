"""The tests that the documents name are there."""

import re
from pathlib import Path

import pytest

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
