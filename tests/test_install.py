"""What `make` installs, and from where: the Makefile itself, with a stand-in for Python."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Writes what it is called with; makes an environment of itself; `pip` finds what it is said to.
PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    "-m pip config list") echo "$PIP_CONFIG" ;;
    *--index-url*) exit "$INDEX_STATUS" ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that installs by make, and returns the calls of pip and what was said."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "requirements", tmp_path / "requirements")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh", "mkdir", "cp", "touch", "grep", "echo"):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"there is no {name} here")
        (tools / name).symlink_to(found)
    _executable(tools / "python3", PYTHON)

    def call(*arguments, system="Linux", config="", index_status=0, target=".venv/installed"):
        _executable(tools / "uname", f"#!/bin/sh\necho {system}\n")
        calls = tmp_path / "calls"
        environment = {
            "PATH": str(tools),
            "CALLS": str(calls),
            "PIP_CONFIG": config,
            "INDEX_STATUS": str(index_status),
        }
        command = ["make", f"DRIVER_FILES={tmp_path / 'driver'}", target, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        installs = [c for c in calls.read_text().splitlines() if c.startswith("-m pip install")]
        return installs, done.stderr

    call.folder = tmp_path
    return call


def _executable(path, text):
    path.write_text(text)
    path.chmod(0o755)


def index_of(installs):
    """Return the index that torch alone is taken from, or None; the rest is pip's own to choose."""
    hashed, *torch, project = installs
    assert "--require-hashes" in hashed
    assert project.endswith("--no-deps --no-build-isolation --editable .")
    assert not any("--index-url" in other for other in (hashed, torch.pop(), project))
    if not torch:
        return None
    words = torch[0].split()
    assert (words[-1], words.count("--no-deps"), len(torch)) == ("torch", 1, 1)
    return words[words.index("--index-url") + 1]


def test_without_a_driver_torch_comes_from_the_index_of_cpu_builds(make):
    installs, said = make()
    assert index_of(installs) == CPU_INDEX
    assert said == ""


@pytest.mark.parametrize("sign", ["driver", "tools/nvidia-smi"])
def test_with_a_driver_torch_comes_from_pips_index(make, sign):
    _executable(make.folder / sign, "")
    assert index_of(make()[0]) is None


def test_systems_without_builds_for_cuda_take_torch_from_pips_index(make):
    assert index_of(make(system="Darwin")[0]) is None


@pytest.mark.parametrize("line", ["global.index-url='https://m'", ":env:.no-index='1'"])
def test_an_index_that_pip_is_configured_with_is_left_to_it(make, line):
    assert index_of(make(config=line)[0]) is None


def test_more_places_that_pip_looks_at_do_not_replace_the_index_of_cpu_builds(make):
    assert index_of(make(config="global.extra-index-url='https://m'")[0]) == CPU_INDEX


@pytest.mark.parametrize("config", ["", "global.index-url='https://m'"])
@pytest.mark.parametrize(("chosen", "expected"), [("", None), ("https://own", "https://own")])
def test_an_argument_chooses_the_index_of_torch(make, config, chosen, expected):
    (make.folder / "driver").touch()
    assert index_of(make(f"TORCH_INDEX={chosen}", config=config)[0]) == expected


def test_an_index_that_cannot_be_had_is_named_and_pips_own_is_taken(make):
    installs, said = make(index_status=1)
    assert len(installs) == 4
    assert f"'{CPU_INDEX}' has no torch for this machine, or cannot be reached" in said
    assert "TORCH_INDEX=" in said


def test_the_demo_installs_nothing_that_only_tests_need(make):
    installs, _ = make(target="demo")
    assert "requirements/all.txt" not in " ".join(installs)
    installs, _ = make(target=".venv/all-installed")
    assert installs[-1].endswith("--no-deps --require-hashes --requirement requirements/all.txt")


def test_the_folder_of_the_environment_can_be_chosen(make):
    make("VENV=other", target="other/installed")
    assert (make.folder / "other" / "installed").exists()
    assert not (make.folder / ".venv").exists()
    assert os.access(make.folder / "other" / "bin" / "python", os.X_OK)


def pins(name):
    """Return the hashes of each pin, with its marker, of a file of requirements."""
    found = {}
    for line in (REPOSITORY / name).read_text().splitlines():
        if "==" in line and not line.startswith(("#", " ")):
            found[pin := line.removesuffix("\\").strip()] = []
        elif line.startswith("    --hash"):
            found[pin].append(re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})( \\)?", line)[1])
    return found


def test_what_make_installs_has_the_versions_of_the_constraints_and_a_hash_of_each_file():
    core, everything = pins("requirements/core.txt"), pins("requirements/all.txt")
    constraints = pins("constraints.txt")
    for pinned in (core, everything):
        assert all(pinned.values())
        assert {versions(pin) for pin in pinned} <= {versions(pin) for pin in constraints}
    without = {versions(pin)[0] for pin in constraints} - {versions(pin)[0] for pin in everything}
    assert {name for name in without if not re.match("nvidia-|cuda-|triton|torch$", name)} == set()


def versions(pin):
    return tuple(pin.split(";")[0].strip().split("=="))


def test_what_the_project_needs_and_is_built_with_is_installed_by_hash():
    core, everything = (
        {versions(pin)[0] for pin in pins(f"requirements/{name}.txt")} for name in ("core", "all")
    )
    needed = importlib.metadata.requires("rave-diffwave")
    names = {re.match(r"[\w-]+", line)[0].lower(): "extra ==" in line for line in needed}
    assert {"gradio", "numpy"} <= names.keys()
    assert names.keys() - {"torch"} <= everything
    assert {name for name, is_extra in names.items() if not is_extra} - {"torch"} <= core
    assert "setuptools" in core
