"""The patches, on the source archives of both upstreams; skipped where these cannot be had."""

import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import apply_patches
import pytest
from apply_patches import PATCHES, identify, read_versions
from source_archives import ARCHIVES, commit_all, fresh, git, snapshot, version_of

SCRIPT = Path(apply_patches.__file__)


@pytest.fixture(scope="session", params=ARCHIVES)
def unpacked(request, tmp_path_factory):
    return fresh(request.param, request.config, tmp_path_factory.mktemp("upstream"))


@pytest.fixture
def tree(unpacked, tmp_path):
    """A source archive, freshly unpacked into a folder whose name says nothing."""
    return Path(shutil.copytree(unpacked, tmp_path / "outer" / "it"))


@pytest.fixture
def apply(capsys):
    """Return a function that runs the program and returns exit code, stdout and stderr."""

    def call(*arguments):
        capsys.readouterr()
        code = apply_patches.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def assert_refused(apply, tree, *needed, option=None):
    """Check that nothing is changed, and that one line on stderr has what is needed."""
    before = snapshot(tree)
    code, out, err = apply(tree, *([option] if option else []))
    assert (code, out, err.count("\n")) == (2, "", 1), (out, err)
    assert err.startswith("apply_patches: error: ")
    for text in needed:
        assert text in err
    assert snapshot(tree) == before


def edited(version):
    """Return a file in a folder of the tree that the patches edit."""
    return next(path for path in version.before if path in version.after and "/" in path)


def added(version):
    return next(path for path in version.after if path not in version.before)


def test_check_says_that_the_patches_would_apply_and_changes_nothing(tree, apply):
    before = snapshot(tree)
    code, out, err = apply(tree, "--check")
    assert (code, err) == (0, "")
    assert "unpatched" in out and "would apply" in out
    assert snapshot(tree) == before


def test_patched_tree_is_what_base_says_and_says_what_to_run_next(tree, apply):
    version, before = version_of(tree), snapshot(tree)
    code, out, err = apply(tree)
    assert (code, err) == (0, "")
    assert apply_patches.state_of(tree, version) == ("patched", {})
    after = snapshot(tree)
    files = {
        path for path in after if after[path] != before.get(path) and after[path][0] is not True
    }
    assert files == set(version.after)
    for path in files:
        assert f"{'edited' if path in version.before else 'added':9}{path}\n" in out
        assert path not in before or after[path][1] == before[path][1]
    assert "pip install" in out
    assert "patched" in apply(tree, "--list")[1].splitlines()[0]


def test_the_commands_to_run_next_have_these_options(tree, apply):
    commands = [line.split() for line in apply(tree)[1].splitlines() if " --" in line]
    for words in commands:
        name = words[1] if words[0] == "rave" else words[2].split(".")[1]
        text = "".join(path.read_text("utf-8") for path in tree.rglob(f"{name}.py"))
        for option in (word[2:] for word in words if word.startswith("--")):
            assert re.search(rf"['\"](--)?{option}['\"]", text), (name, option)
    assert commands


def test_reverse_restores_every_byte_and_mode(tree, apply):
    (tree / "setup.py").chmod(0o755)
    before = snapshot(tree)
    assert apply(tree)[0] == 0
    assert snapshot(tree) != before
    code, out, err = apply(tree, "--reverse")
    assert (code, err) == (0, "")
    version = version_of(tree)
    for path in version.after:
        assert f"{'restored' if path in version.before else 'removed':9}{path}\n" in out
    assert snapshot(tree) == before


def test_list_names_each_patch_and_the_state(tree, apply):
    code, out, _ = apply(tree, "--list")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].endswith("unpatched")
    assert len(lines) == 1 + len(version_of(tree).series)
    (tree / edited(version_of(tree))).write_text("")
    assert f"  {edited(version_of(tree))}: changed" in apply(tree, "--list")[1].splitlines()


def test_patching_twice_and_reversing_what_is_not_patched_are_refused(tree, apply):
    assert_refused(apply, tree, "not patched", option="--reverse")
    assert apply(tree)[0] == 0
    assert_refused(apply, tree, "already patched")
    assert_refused(apply, tree, "already patched", option="--check")


def test_files_that_the_patches_do_not_concern_may_be_changed(tree, apply):
    (tree / "README.md").write_text("mine")
    (tree / "notes").mkdir()
    (tree / "notes" / "a.py").write_text("mine")
    assert apply(tree)[0] == 0
    assert apply(tree, "--reverse")[0] == 0
    assert (tree / "notes" / "a.py").read_text() == (tree / "README.md").read_text() == "mine"


def test_a_changed_byte_in_the_context_of_a_patch_is_refused_by_name(tree, apply):
    version = version_of(tree)
    path = edited(version)
    text = (tree / path).read_text()
    for patch in version.series:
        _, _, diff = patch.read_text().partition(f"+++ b/{path}\n")
        context = [line[1:] for line in diff.splitlines() if line[:1] == " " and line.strip()]
        if context and text.count(f"{context[0]}\n"):
            break
    (tree / path).write_text(text.replace(f"{context[0]}\n", f"{context[0]}!\n"))
    for option in (None, "--check"):
        words = f"'{tree}'", "local changes", f"{path} (changed)"
        assert_refused(apply, tree, *words, option=option)


def test_local_changes_of_a_patched_tree_stop_its_reversal(tree, apply):
    version = version_of(tree)
    assert apply(tree)[0] == 0
    with (tree / added(version)).open("a") as file:
        file.write("# mine\n")
    assert_refused(apply, tree, f"{added(version)} (in the way)", option="--reverse")


def test_missing_files_and_new_ones_in_the_way_are_refused_by_name(tree, apply):
    version = version_of(tree)
    (tree / edited(version)).unlink()
    (tree / added(version)).parent.mkdir(exist_ok=True)
    (tree / added(version)).write_text("mine")
    needed = [f"{edited(version)} (missing)", f"{added(version)} (in the way)"]
    assert_refused(apply, tree, *needed)
    (tree / added(version)).unlink()
    (tree / added(version)).mkdir()
    assert_refused(apply, tree, f"{added(version)} (a folder)")


def test_a_file_behind_a_symbolic_link_is_refused_by_name(tree, apply):
    path = edited(version_of(tree))
    parent = (tree / path).parent
    outside = parent.rename(tree.parent / "outside")
    parent.symlink_to(outside)
    before = snapshot(outside)
    assert_refused(apply, tree, f"{path} (a symbolic link)")
    assert snapshot(outside) == before


def test_windows_line_endings_are_named(tree, apply):
    for path in version_of(tree).before:
        (tree / path).write_bytes((tree / path).read_bytes().replace(b"\n", b"\r\n"))
    assert_refused(apply, tree, "Windows line endings", "core.autocrlf=false")


def test_another_version_is_refused_and_those_known_are_named(tree, apply):
    package, label = identify(tree)
    for path in tree.rglob("*.py"):
        path.write_text(path.read_text().replace(label, "0.0.9"))
    assert_refused(apply, tree, f"{package} 0.0.9", *read_versions(package))


def test_what_is_no_tree_of_an_upstream_is_refused(tmp_path, apply):
    assert_refused(apply, tmp_path, "no setup.py", "acids-rave or diffwave")
    (tmp_path / "setup.py").write_text("setup(name='other')")
    assert_refused(apply, tmp_path, "the source of 'other'")
    for path in (tmp_path / "setup.py", tmp_path / "nothing"):
        code, _, err = apply(path)
        assert code == 2 and "is no folder" in err


def test_patches_inside_another_repository(tree, apply, monkeypatch):
    commit_all(tree.parent)
    for is_in_a_hook in (False, True):
        with monkeypatch.context() as patch:
            if is_in_a_hook:
                patch.setenv("GIT_DIR", str(tree.parent / ".git"))
                patch.setenv("GIT_WORK_TREE", str(tree.parent))
            assert apply(tree)[0] == 0
            assert apply_patches.state_of(tree, version_of(tree)) == ("patched", {})
            assert apply(tree, "--reverse")[0] == 0
    assert git(tree, "status", "--porcelain") == ""


def test_patches_a_clone_whatever_the_users_git_settings(tree, apply, monkeypatch, tmp_path):
    commit_all(tree)
    settings = tmp_path / "settings"
    settings.write_text("[core]\nautocrlf = true\n[apply]\nwhitespace = error\n")
    with monkeypatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(settings))
        assert apply(tree)[0] == 0
    status = git(tree, "status", "--porcelain", "--untracked-files=all", "--ignored").splitlines()
    assert {line[3:] for line in status} == set(version_of(tree).after)
    assert apply(tree, "--reverse")[0] == 0
    assert git(tree, "status", "--porcelain", "--ignored") == ""


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(28, "No space left on device", "x")]
)
@pytest.mark.parametrize("option", [None, "--reverse"])
def test_an_interrupted_run_leaves_all_or_nothing(tree, apply, monkeypatch, error, option):
    if option:
        assert apply(tree)[0] == 0
    before, replace = snapshot(tree), os.replace
    for number in (0, 1, len(version_of(tree).before) - 1):
        moved = []

        def fail(source, target, number=number, moved=moved):
            moved.append(target)
            if len(moved) == number + 1:
                raise error
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            code, _, err = apply(tree, *([option] if option else []))
        assert len(moved) > number
        assert code == (130 if isinstance(error, KeyboardInterrupt) else 2)
        assert "interrupted" in err or "No space left on device" in err
        assert snapshot(tree) == before


@pytest.mark.parametrize("option", [None, "--reverse"])
def test_what_a_kill_left_half_done_the_next_run_finishes_or_undoes(tree, apply, option):
    untouched = snapshot(tree)
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import apply_patches\n"
        "replace, moved = os.replace, []\n"
        "def stop(*names):\n"
        "    if len(moved) == 2: os._exit(9)\n"
        "    moved.append(replace(*names))\n"
        "os.replace = stop; apply_patches.main(sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", program, str(SCRIPT.parent), str(tree)]
    assert subprocess.run(command).returncode == 9
    assert list(tree.glob(".rave-diffwave-*"))
    code, out, _ = apply(tree, "--check")
    assert code == 0 and "half patched" in out
    assert apply(tree, *([option] if option else []))[0] == 0
    assert not list(tree.glob(".rave-diffwave-*"))
    if not option:
        assert apply_patches.state_of(tree, version_of(tree)) == ("patched", {})
        assert apply(tree, "--reverse")[0] == 0
    assert snapshot(tree) == untouched


def test_a_failure_that_cannot_be_undone_says_so_and_the_next_run_goes_on(tree, apply, monkeypatch):
    replace, moved = os.replace, set()
    before = {tree / path for path in version_of(tree).before}

    def fail(source, target):
        if moved & before:
            raise OSError(5, "Input/output error", str(target))
        moved.add(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        code, _, err = apply(tree)
    assert code == 2 and moved & before
    assert "Stopped halfway" in err and "run again" in err
    assert apply(tree)[0] == 0
    assert apply_patches.state_of(tree, version_of(tree)) == ("patched", {})


@contextlib.contextmanager
def unwritable(folder):
    """Forbid writing in a folder, to the superuser too."""
    is_root = os.geteuid() == 0
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(mode)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_tree_that_may_not_be_written_is_refused_and_unchanged(unpacked, apply):
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        tree = Path(shutil.copytree(unpacked, Path(name) / "tree"))
        with unwritable(tree):
            assert_refused(apply, tree, "Permission denied", "Nothing was changed")
        for path in (tree, *tree.rglob("*")):  # but for one folder, the last to be written
            os.chmod(path, 0o777)
        with unwritable((tree / max(version_of(tree).after)).parent):
            assert_refused(apply, tree, "Permission denied", "Nothing was changed")


def test_a_file_that_may_not_be_written_is_named(tree, apply, monkeypatch):
    file = str(tree / edited(version_of(tree)))
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != file)
    assert_refused(apply, tree, "No permission to write", file)


def test_a_missing_git_is_one_sentence(tree, apply, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert_refused(apply, tree, "git is needed")


def test_patches_that_are_not_those_of_base_change_nothing(tree, apply, monkeypatch, tmp_path):
    copy = Path(shutil.copytree(PATCHES, tmp_path / "patches"))
    monkeypatch.setattr(apply_patches, "PATCHES", copy)
    version = version_of(tree)
    for base in copy.glob("*/BASE"):
        sha = version.after[added(version)]
        base.write_text(base.read_text().replace(sha, sha[::-1]))
    assert_refused(apply, tree, f"do not make '{added(version)}' as in BASE")
    version.series[-1].write_text("no patch")
    assert_refused(apply, tree, version.series[-1].name)
    version.series[-1].unlink()
    assert_refused(apply, tree, version.series[-1].name)


def test_windows_checkout_of_the_patches_makes_the_same_tree(tree, apply, monkeypatch, tmp_path):
    copy = Path(shutil.copytree(PATCHES, tmp_path / "patches"))
    for path in copy.glob("*/*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr(apply_patches, "PATCHES", copy)
    assert apply(tree)[0] == 0
    monkeypatch.undo()
    assert apply_patches.state_of(tree, version_of(tree)) == ("patched", {})


def test_runs_on_a_bare_python(tree):
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert apply_patches.state_of(tree, version_of(tree)) == ("patched", {})


def lines_without_end(path):
    path.write_bytes(b"\n" * (2**20 - 1))


def too_large(path):
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.parametrize("name", ["setup.py", "package/version.py"])
@pytest.mark.parametrize(
    "attack",
    [lines_without_end, too_large, os.mkfifo, lambda path: path.symlink_to("/dev/zero")],
    ids=["lines", "size", "pipe", "device"],
)
def test_no_file_of_a_tree_takes_time_or_memory_without_end(tmp_path, name, attack):
    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    attack(path)
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("apply_patches: error: ")
    assert done.stderr.count("\n") == 1
