"""What the documents name is there: tests, files, pages, sections; the map of folders is theirs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("models/*/*.md")]
LINK = re.compile(r"\[(\w+)\]\(\.\./tests/(test_\w+\.py)\)")
ANY_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)|(?:src|href)=\"(?!\w+:)([^\"]+)\"")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`((?:rave|diffwave|tests|benchmarks|scripts)/[\w/.*]*)`")


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


def anchors(page):
    """Return the fragments of a page's headings, as GitHub makes them."""
    titles = HEADING.findall(FENCE.sub("", page.read_text()))
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target, anchor, source in ANY_LINK.findall(FENCE.sub("", page.read_text())):
        path = page.parent / (target or source) if target or source else page
        assert path.exists(), f"{page.name}: {target or source}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name}: {target}#{anchor}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if PATH.search(page.read_text())], ids=lambda page: page.name
)
def test_every_file_that_is_named_is_there(page):
    if page.name == "CHANGELOG.md":  # names what was there
        return
    for path in PATH.findall(page.read_text()):
        assert list(ROOT.glob(path)), f"{page.name}: {path}"


def test_the_map_of_the_readme_has_the_question_of_each_folder():
    map_of_folders = (ROOT / "README.md").read_text().partition("\n## Folders\n")[2]
    for package in ("rave", "diffwave"):
        part = re.split(rf"^    {package}/ .*$", map_of_folders, flags=re.MULTILINE)[1]
        part = re.split(r"^    \w", part, flags=re.MULTILINE)[0]
        shown = dict(re.findall(r"^      (\w+)/ +(.*)$", part, re.MULTILINE))
        assert shown.pop("configs")
        asked = {}
        for file in ROOT.glob(f"{package}/*/__init__.py"):
            question = ast.get_docstring(ast.parse(file.read_text()))
            assert question, file
            asked[file.parent.name] = question.partition("?")[0] + "?"
        assert shown == asked


def test_the_index_of_the_documents_lists_each_page():
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_the_citation_names_this_version():
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text()
