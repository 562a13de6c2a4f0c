"""What the patches are: text that says why, applies one by one, and can be made again."""

import re
import shutil

import apply_patches
import make_patches
import pytest
from apply_patches import PATCHES, read_series, read_versions
from source_archives import ARCHIVES, commit_all, fresh, git, snapshot, version_of

SERIES = sorted(PATCHES.glob("*/series*"))
series_of_all = pytest.mark.parametrize("series", SERIES, ids=lambda p: f"{p.parent.name}-{p.name}")


@pytest.fixture(scope="module", params=ARCHIVES)
def unpacked(request, tmp_path_factory):
    return fresh(request.param, request.config, tmp_path_factory.mktemp("upstream"))


@pytest.fixture
def tree(unpacked, tmp_path):
    return shutil.copytree(unpacked, tmp_path / "tree")


def test_every_python_file_compiles_after_each_patch(tree):
    for patch in version_of(tree).series:
        git(tree, "init", "--quiet")
        git(tree, "apply", patch)
        for path in tree.rglob("*.py"):
            compile(path.read_text("utf-8"), str(path), "exec")


def test_git_am_makes_the_same_tree(tree, tmp_path):
    other = shutil.copytree(tree, tmp_path / "other")
    commit_all(other)
    series = version_of(tree).series
    git(other, "am", "--quiet", *series)
    apply_patches.change(tree, version_of(tree))
    assert snapshot(other) == snapshot(tree)
    assert git(other, "rev-list", "--count", "HEAD").strip() == str(1 + len(series))


def edits(patch):
    """Return the lines that a patch adds and removes; their numbers vary with the version."""
    diff = patch.read_text("utf-8").partition("\ndiff --git")[2]
    return [line for line in diff.splitlines() if line[:1] in ("+", "-")]


def test_make_patches_makes_the_patches_again(tree, monkeypatch, tmp_path):
    version, before = version_of(tree), tmp_path / "before"
    shutil.copytree(tree, before)
    commit_all(tree)
    git(tree, "am", "--quiet", *version.series)
    monkeypatch.setattr(make_patches, "PATCHES", tmp_path / "patches")
    for _ in range(2):
        target = make_patches.make(tree, f"HEAD~{len(version.series)}..HEAD", [])
        made = read_series(target / "series")
        assert {path.name for path in target.iterdir()} == {p.name for p in made} | {
            "series",
            "BASE",
        }
        assert [edits(path) for path in made] == [edits(path) for path in version.series]
        (target / "0000-stale.patch").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(apply_patches, "PATCHES", tmp_path / "patches")
        again = version_of(before)
    assert (again.before, again.after) == (version.before, version.after)


def test_make_patches_refuses_what_it_cannot_make(tree, monkeypatch, tmp_path, capsys):
    def refused(*arguments):
        assert make_patches.main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    version = version_of(tree)
    other = shutil.copytree(tree, tmp_path / "other")
    commit_all(tree)
    monkeypatch.setattr(make_patches, "PATCHES", tmp_path / "patches")
    assert "has no commits" in refused(tree, "HEAD..HEAD")
    git(tree, "am", "--quiet", *version.series)
    commits = f"HEAD~{len(version.series)}..HEAD"
    path = next(path for path in version.before if path.endswith(".py"))
    (other / path).write_text("other\n")
    err = refused(tree, commits, f"0.0.9={other}")
    assert "Version 0.0.9" in err and path in err
    target = tmp_path / "patches" / make_patches.UPSTREAMS[version.name.split()[0]][0]
    target.mkdir(parents=True)
    (target / "series-0.0.9").write_text("")
    assert "No version uses series-0.0.9" in refused(tree, commits)
    assert [file.name for file in target.iterdir()] == ["series-0.0.9"]
    setup = tree / "setup.py"
    setup.write_text(setup.read_text().replace(version.name.split()[0], "other"))
    git(tree, "commit", "--quiet", "--all", "--message", "Rename")
    git(tree, "commit", "--quiet", "--allow-empty", "--message", "More")
    assert "is a clone of other" in refused(tree, "HEAD~1..HEAD")


def test_every_patch_is_in_a_series():
    assert SERIES
    for folder in {series.parent for series in SERIES}:
        listed = {path for series in folder.glob("series*") for path in read_series(series)}
        assert listed == set(folder.glob("*.patch"))


@series_of_all
def test_patches_say_who_what_and_why_and_are_text(series):
    for number, patch in enumerate(read_series(series), 1):
        text = patch.read_text("utf-8")
        header, _, diff = text.partition("\n---\n")
        header, _, why = header.partition("\n\n")
        assert patch.name.startswith(f"{number:04d}-")
        assert "From: rave-diffwave <patches@rave-diffwave.invalid>\n" in header
        subject = re.search(r"Subject: \[PATCH\] (.*(?:\n .*)*)", header)[1].replace("\n", "")
        assert subject.isascii() and 10 < len(subject) <= 72
        assert len(why.split()) > 5
        assert "GIT binary patch" not in diff and "Binary files" not in diff
        assert "\r" not in text
        files = [line[6:] for line in diff.splitlines() if line.startswith("+++ b/")]
        unwanted = re.compile("README|egg-info|__pycache__|\\.pyc$")
        assert files and not any(unwanted.search(path) for path in files)


@series_of_all
def test_base_has_every_file_of_its_series_and_the_hash_of_every_new_one(series, tmp_path):
    package = "acids-rave" if series.parent.name == "acids-rave" else "diffwave"
    versions = [
        v for v in read_versions(package).values() if set(v.series) == set(read_series(series))
    ]
    assert versions
    for version in versions:
        diffs = "".join(path.read_text() for path in version.series)
        files = {line[6:] for line in diffs.splitlines() if line[:6] in ("+++ b/", "--- a/")}
        assert files == {*version.before, *version.after}
        new = [path for path in version.after if path not in version.before]
        folder = tmp_path / version.name
        folder.mkdir()
        apply_patches.apply_series(folder, version.series, new)
        assert {path: apply_patches.digest(folder / path) for path in new} == {
            path: version.after[path] for path in new
        }
