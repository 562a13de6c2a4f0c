"""Fixtures that several files of tests share."""

import pytest


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A RAVE run of a few steps whose latents say something: 22.05 kHz, mono, hop 64, 4 latents."""
    from rave_runs import make_informative, prepare, train

    folder = tmp_path_factory.mktemp("run")
    assert train(prepare(folder), folder / "run") == 0
    make_informative(folder / "run")
    return folder / "run"


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
def healthy_run(tmp_path_factory):
    """A small diffusion run that has learned, beside its latents and controls; to be copied."""
    from diagnosed_runs import train_healthy

    return train_healthy(tmp_path_factory.mktemp("healthy"))
