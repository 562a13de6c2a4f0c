"""Help is instant because it imports nothing heavy; that, and not the time, is tested."""

import subprocess
import sys

import pytest

from diffwave.__main__ import PROGRAMS
from rave.main_cli import AVAILABLE_SCRIPTS

HEAVY = [
    "torch",
    "numpy",
    "pytorch_lightning",
    "librosa",
    "scipy",
    "numba",
    "diffusers",
    "matplotlib",
    "gin",
]


def heavy_after(code):
    """The heavy modules that a fresh interpreter holds after `code`, and what it printed."""
    script = (
        "import sys\n"
        f"try:\n    {code}\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    output, _, heavy = run.stdout.rpartition("HEAVY ")
    return heavy.strip(), output


@pytest.mark.parametrize("package", ["rave", "diffwave"])
def test_importing_a_package_imports_nothing_heavy(package):
    assert heavy_after(f"import {package}")[0] == "[]"


@pytest.mark.parametrize("command", [None, *AVAILABLE_SCRIPTS])
def test_help_of_rave_imports_nothing_heavy_and_ends_with_an_example(command):
    arguments = [command, "--help"] if command else ["--help"]
    heavy, output = heavy_after(f"from rave.main_cli import main; sys.exit(main({arguments}))")
    assert heavy == "[]"
    assert "usage: rave" in output
    if command:
        assert output.strip().splitlines()[-1].strip().startswith(f"rave {command} ")


@pytest.mark.parametrize("module", [f"diffwave.{name}" for name in PROGRAMS])
def test_help_of_diffwave_imports_nothing_heavy_and_ends_with_an_example(module):
    run = f"runpy.run_module('{module}', run_name='__main__', alter_sys=True)"
    heavy, output = heavy_after(f"import runpy; sys.argv[1:] = ['--help']; {run}")
    assert heavy == "[]"
    assert f"usage: python -m {module} " in output
    assert output.strip().splitlines()[-1].strip().startswith(f"python -m {module} ")


def test_a_folder_named_diffwave_beside_the_user_hides_nothing(tmp_path):
    (tmp_path / "diffwave").mkdir()
    program = "from rave.runs.recipes import list_recipes; print(list_recipes('diffwave'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "default" in done.stdout
