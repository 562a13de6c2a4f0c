"""TorchScript files with the layers, names and attributes of acids-rave's exports, and no code."""

import warnings
from pathlib import Path

import torch
from torch import nn

from rave.convolution import Conv1d as OurConv1d
from rave.convolution import ConvTranspose1d as OurConvTranspose1d
from rave.convolution import fold_weight_norm
from rave.model import RAVE
from rave.upstream.names import naming, their_name


class Node(nn.Module):
    """A part that holds others."""


class LeakyReLU(Node):
    pass


class Residual(Node):
    pass


class EncoderV2(Node):
    pass


class GeneratorV2(Node):
    pass


class Conv1d(nn.Module):
    def __init__(self, layer, delay):
        super().__init__()
        self.register_buffer("weight", layer.weight)
        self.stride, self.dilation = (layer.stride,), (getattr(layer, "dilation", 1),)
        self.kernel_size = (layer.weight.shape[2],)
        if delay is None:
            self._pad = (layer.left, layer.right)
        else:
            self.cumulative_delay = layer.right


class ConvTranspose1d(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.register_buffer("weight", layer.weight)
        self.stride = (layer.stride,)


class VariationalScriptedRAVE(nn.Module):
    pass


class DiscreteScriptedRAVE(nn.Module):
    pass


def _leaf(layer, is_streaming):
    if isinstance(layer, OurConv1d):
        return Conv1d(layer, 0 if is_streaming else None)
    return ConvTranspose1d(layer) if isinstance(layer, OurConvTranspose1d) else LeakyReLU()


def _place(root, name, module):
    *folders, last = name.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            kind = Residual if folder.isdigit() else Node
            setattr(root, folder, kind())
        root = getattr(root, folder)
    setattr(root, last, module)


def write_export(
    path: Path,
    model: RAVE,
    num_latents: int,
    is_streaming: bool = False,
    kind: type[nn.Module] = VariationalScriptedRAVE,
    **parts: object,
) -> Path:
    """Write a model as acids-rave would export it, and return the path.

    Args:
        path: The file.
        model: A model of ours; its weight norm is folded.
        num_latents: K.
        is_streaming: Give convolutions the attributes of a streaming export.
        kind: Of the file.
        **parts: Attributes and modules more.
    """
    fold_weight_norm(model)
    root, rules = kind(), naming(model)
    root.encoder, root.decoder = Node(), GeneratorV2()
    root.encoder.encoder = EncoderV2()
    for name, layer in model.named_modules():
        if name.startswith(("encoder.", "decoder.")) and not list(layer.children()):
            theirs = their_name(f"{name}.x", rules).removesuffix(".x")
            _place(root, theirs, _leaf(layer, is_streaming))
    for name in ("analysis_weight", "synthesis_weight"):
        holder = Node()
        holder.register_buffer("weight", getattr(model.pqmf, name))
        _place(root, their_name(f"pqmf.{name}", rules).removesuffix(".weight"), holder)
    for name in ("latent_mean", "latent_pca", "fidelity"):
        root.register_buffer(name, getattr(model, name))
    root.sr, root.latent_size = model.sample_rate_hz, num_latents
    for name, part in parts.items():
        _place(root, name, part) if isinstance(part, nn.Module) else setattr(root, name, part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(root), str(path))
    return path
