"""acids-rave's model and data; called where it is installed, by its public interfaces alone."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any


def open_run(run: Path, device: str) -> Any:
    """Return the model of a run of acids-rave. Discriminators need not be in it."""
    import gin
    import torch

    core = import_module("rave.core")
    gin.parse_config_file(core.search_for_config(str(run)))
    model = vars(import_module("rave"))["RAVE"](n_channels=1)
    found = torch.load(core.search_for_run(str(run)), map_location="cpu", weights_only=False)
    model.load_state_dict(found["state_dict"], strict=False)
    return model.to(device).eval()


def new_model(settings: list[str], kind: Any = None) -> Any:
    """Return a v2 of acids-rave, ready to train.

    Args:
        settings: Lines of gin.
        kind: Takes its class and returns the class to build.
    """
    import gin

    rave = import_module("rave")
    package = Path(str(rave.__file__)).parent
    for folder in (package, package / "configs"):
        gin.add_config_file_search_path(str(folder))
    gin.parse_config_files_and_bindings(["v2.gin"], settings)
    built = vars(rave)["RAVE"]
    return (kind(built) if kind else built)(n_channels=1)
