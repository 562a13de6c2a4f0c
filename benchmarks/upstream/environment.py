"""An environment with acids-rave, its commands, and ours."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

# acids-rave's own pins, and what they leave open as it was when they were made.
PINS = (
    *("acids-rave==2.3.1", "cached-conv==2.5.0", "nn-tilde==1.5.6", "udls==1.1.4", "lmdb==3.0.0"),
    *("torchaudio==2.11.0", "pytorch-lightning==1.9.0", "torchmetrics==1.9.0"),
)
PINS_WITH_DEPENDENCIES = (
    *("torch==2.13.0", "numpy==1.26.4", "scipy==1.10.0", "librosa==0.10.2.post1", "setuptools<81"),
    *("gin-config==0.5.0", "einops", "GPUtil", "scikit-learn", "tensorboard", "Flask", "absl-py"),
    *("PyYAML", "tqdm", "protobuf", "lightning-utilities", "fsspec", "packaging", "requests"),
)
# They name fewer dependencies than they import, or ones that nothing here needs.
PEERS = (
    *("diffwave==0.1.7", "audio-diffusion-pytorch==0.1.3", "a-unet==0.0.16"),
    "einops-exts==0.0.4",
)
FAMILY = Path(__file__).with_name("family.py")


def make_environment(folder: Path) -> Path:
    """Return the Python of an environment with acids-rave; it is made if it is not there.

    Raises:
        ValueError: If this Python is too new for it, or pip fails.
    """
    python = folder / "bin" / "python"
    done = folder / "acids-rave-installed"
    if done.exists():
        return python
    if sys.version_info >= (3, 12):
        raise ValueError(
            "acids-rave 2.3.1 needs scipy 1.10.0, which Python "
            f"{sys.version_info.major}.{sys.version_info.minor} cannot install. Run this program "
            "with Python 3.10 or 3.11."
        )
    venv.create(folder, with_pip=True, clear=True)
    for pins in (PINS_WITH_DEPENDENCIES, ("--no-deps", *PINS)):
        run_there(python, "-m", "pip", "install", "--quiet", *pins)
    for library in folder.glob("lib/python*/site-packages/torchaudio/**/*.so"):
        library.unlink()  # built for CUDA; acids-rave needs none of it here
    done.touch()
    return python


def add_peers(folder: Path) -> None:
    """Install the other peers into such an environment, if they are not there.

    Raises:
        ValueError: If pip fails.
    """
    done = folder / "peers-installed"
    if not done.exists():
        python = folder / "bin" / "python"
        run_there(python, "-m", "pip", "install", "--quiet", "--no-deps", *PEERS)
        done.touch()


def run_there(python: Path, *arguments: str, answer: str = "") -> None:
    """Run the Python of acids-rave's environment.

    Args:
        python: Of the environment.
        *arguments: Its arguments.
        answer: To what it asks.

    Raises:
        ValueError: If it fails; the message ends with the last line that it printed.
    """
    # Not where this project's own `rave` is found.
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    _run([str(python), *arguments], outside, answer)


def rave_there(python: Path, *arguments: str, answer: str = "") -> None:
    """Run the command `rave` of acids-rave; arguments as in `run_there`."""
    run_there(python, str(python.with_name("rave")), *arguments, answer=answer)


def rave_here(*arguments: str) -> str:
    """Run our command `rave`, and return what it printed.

    Raises:
        ValueError: If it fails; the message ends with its own.
    """
    return _run([sys.executable, "-m", "rave.main_cli", *arguments], dict(os.environ))


def _run(command: list[str], environment: dict[str, str], answer: str = "") -> str:
    run = subprocess.run(command, capture_output=True, text=True, env=environment, input=answer)
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"'{' '.join(command[1:4])} …' failed: {last[0]}")
    return run.stdout
