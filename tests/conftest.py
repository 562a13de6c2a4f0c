"""Fixtures that several files of tests share."""

import os

# Before torch and numpy are loaded: the tests run side by side, one a core, and some fork.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import gc
import shutil

import pytest
from filelock import FileLock

# The files that take longest come first, so that no core waits for the last of them.
LONG = (
    "test_documented_commands.py",
    "test_diffwave_experiments_runs.py",
    "test_ray.py",
    "test_app_page.py",
    "test_end_to_end.py",
    "test_processes.py",
    "test_kill.py",
    "test_diffwave_laws.py",
    "test_rave_recipes.py",
    "test_rave_evaluation.py",
    "test_backend.py",
    "test_app.py",
    "test_demo.py",
)


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


def pytest_collection_finish():
    # What was imported stays: a fifth of a short training went by in looking at it again.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return a function that makes a folder, of this name, once for all workers of pytest."""

    def call(name, make):
        place = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            place = place.parent
        folder, done = place / name, place / f"{name}.made"
        with FileLock(place / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return call


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="the full sizes of docs/reliability.md")


@pytest.fixture(scope="session")
def is_soak(request):
    """Whether tests of reliability run at full size, as `make soak` does."""
    return request.config.getoption("--soak")


@pytest.fixture(scope="session")
def run(made_once):
    """A RAVE run of a few steps whose latents say something: 22.05 kHz, mono, hop 64, 4 latents."""
    from rave_runs import make_informative, prepare, train

    def make(folder):
        assert train(prepare(folder), folder / "run") == 0
        make_informative(folder / "run")

    return made_once("run", make) / "run"


@pytest.fixture
def rave(capsys):
    """Return a function that runs a `rave` command and returns exit code, stdout and stderr."""
    from rave.main_cli import main

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def healthy_run(made_once):
    """A small diffusion run that has learned, beside its latents and controls; to be copied."""
    from diagnosed_runs import train_healthy

    return made_once("healthy", train_healthy) / "run"


@pytest.fixture
def canary(tmp_path):
    """What code in a stranger's file would have made."""
    return tmp_path / "canary"


@pytest.fixture
def refused(capsys, canary):
    """Return a function that runs a command, which must refuse, and returns why."""

    def call(command, *arguments):
        capsys.readouterr()
        assert command([str(argument) for argument in arguments]) == 2
        assert not canary.exists()
        out, err = capsys.readouterr()
        assert (out, err.count(": error: ")) == ("", 1)
        assert "Traceback" not in err
        return err.partition(": error: ")[2]

    return call


@pytest.fixture(scope="session")
def instrument(run, made_once):
    """A codec run, a diffusion run on its latents that follows loudness and chroma, and a tone."""
    from diffwave_data import settings

    from diffwave import preprocess, train
    from rave.main_cli import main

    tones = run.parent / "tones"

    def make(folder):
        latents, controls = folder / "latents", folder / "controls"
        assert main(["encode", str(run), str(tones), str(latents)]) == 0
        names = ["loudness", "chroma"]
        paths = [str(latents), str(tones), str(controls)]
        assert preprocess.main([*paths, "--controls", *names]) == 0
        options = ["--out", str(folder / "diffusion"), "--controls", str(controls), *names]
        assert train.main([str(latents), *options, "--config", "tiny", *settings()]) == 0

    return run, made_once("instrument", make) / "diffusion", tones / "1.wav"


@pytest.fixture
def latents(tmp_path):
    """A latent folder of clips whose names are hard to get right."""
    from shard_data import write_folder

    write_folder(tmp_path / "latents")
    return tmp_path / "latents"


@pytest.fixture
def shards(latents, tmp_path, rave):
    """The sharded set of `latents`."""
    assert rave("shard", latents, tmp_path / "shards")[0] == 0
    return tmp_path / "shards"


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """What every command works on, by its name: see every_command.py; to be read only."""
    import every_command

    return every_command.make(tmp_path_factory.mktemp("every"))
