"""The environment with the peers: that of `scripts/compare_upstream.py`, and two more of them."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT

# The packages name fewer dependencies than they import, or ones that nothing here needs.
PEERS = (
    *("diffwave==0.1.7", "audio-diffusion-pytorch==0.1.3", "a-unet==0.0.16"),
    "einops-exts==0.0.4",
)


def make_environment(folder: Path) -> Path:
    """Return the Python of the environment; what of it is there already is kept.

    Raises:
        ValueError: If this Python is too new for acids-rave, or pip fails.
    """
    shared = _script("upstream_environment")
    python: Path = shared.make_environment(folder)
    shared.add_packages(folder, "peers-installed", PEERS)
    return python


def export(python: Path, run: Path, folder: Path, *flags: str) -> Path:
    """Return the streaming file that acids-rave makes of a run; see scripts/upstream_exports.py."""
    made: Path = _script("upstream_exports").export(python, run, folder, "--streaming", *flags)
    return made


def _script(name: str) -> Any:
    folder = str(ROOT / "scripts")
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(name)
