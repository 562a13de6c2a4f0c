"""TorchScript files with the layers, names and attributes of acids-rave's exports, and no code."""

import json
import warnings
from functools import cache

import numpy as np
import torch
from torch import nn
from upstream_runs import GOLDEN


@cache
def exports():
    """Return the reference arrays of golden/acids_rave_exports.npz by name."""
    with np.load(GOLDEN / "acids_rave_exports.npz") as file:
        return {name: file[name] for name in file.files}


def kinds():
    """Return what the reference data tells of."""
    return list(json.loads(str(exports()["layout"])))


def outputs(kind):
    """Return what a file's encode gave of the signal, and its decode of that."""
    return (torch.from_numpy(exports()[f"{kind}/{name}"]) for name in ("encoded", "decoded"))


@cache
def of_class(name):
    """Return an empty module class of a name."""
    return type(name, (nn.Module,), {})


def write_export(path, kind, changed_weights=None, **changed):
    """Write a file of a kind in the reference data, and return the path.

    Args:
        path: Of it.
        kind: One of `kinds`.
        changed_weights: New values by name; None takes one away.
        **changed: Layers by name ("" is the file itself): their class, or None for what it is,
            and attributes to change; None takes one away. A layer that is not there is added.
    """
    layout = json.loads(str(exports()["layout"]))[kind]
    for name, (class_name, attributes) in changed.items():
        known, others = layout.get(name, (None, {}))
        layout[name] = class_name or known, {**others, **attributes}
    root = None
    for name, (class_name, attributes) in layout.items():
        layer = of_class(class_name)()
        for attribute, value in attributes.items():
            if value is not None:
                setattr(layer, attribute, tuple(value) if isinstance(value, list) else value)
        if root is None:
            root = layer
        else:
            _parent(root, name).add_module(name.rpartition(".")[2], layer)
    prefix = f"{kind}/weights/"
    weights = {k.removeprefix(prefix): v for k, v in exports().items() if k.startswith(prefix)}
    for name in ("forward_conv", "inverse_conv"):
        weights[f"pqmf.{name}.weight"] = exports()[f"pqmf/{name}"]
    weights |= changed_weights or {}
    for name, value in weights.items():
        if value is not None:
            buffer = torch.as_tensor(value).clone()
            _parent(root, name).register_buffer(name.rpartition(".")[2], buffer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(root), str(path))
    return path


def _parent(root, name):
    return root.get_submodule(name.rpartition(".")[0])
