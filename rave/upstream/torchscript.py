"""A .ts file of acids-rave as a codec: streaming or not, mono or stereo, with its cropped latents.

None of its code runs but what loading it runs: settings and weights are read off its layers, and
the model is built of ours. So it decodes whole files as a run does, and streaming files have no
memory.

K latents of the file, D of the model, N latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rave.blocks.v2 import DecoderV2, EncoderV2
from rave.convolution import fold_weight_norm
from rave.model import RAVE
from rave.pqmf import PQMF
from rave.upstream.names import naming, their_name
from rave.upstream.run import fingerprint

VARIATIONAL = "VariationalScriptedRAVE"
CONVOLUTIONS = ("Conv1d", "CachedConv1d")
TRANSPOSED = ("ConvTranspose1d", "CachedConvTranspose1d")
ATTENUATION_DB = 100.0  # of every shipped configuration; the file brings its filters


class CroppedRAVE(nn.Module):
    """A model seen through its first K principal latents, as acids-rave exports it.

    Args:
        model: The model.
        num_latents: K.
    """

    def __init__(self, model: RAVE, num_latents: int) -> None:
        super().__init__()
        self.model, self.num_latents = model, num_latents

    def posterior_parameters(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std of the principal latents, each (B, K, N)."""
        mean, std = self.model.posterior_parameters(audio)
        axes = self.model.latent_pca[: self.num_latents]
        rotated = torch.matmul(axes, mean - self.model.latent_mean[:, None])
        return rotated, torch.matmul(axes.square(), std.square()).sqrt()

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the audio of principal latents (B, K, N).

        Args:
            latents: The principal ones.
            noise: (B, D − K, N) uniform in [-1, 1), made normal for the others; zero if None.
        """
        if noise is None:
            noise = latents.new_zeros(
                latents.shape[0], len(self.model.latent_mean) - self.num_latents, latents.shape[2]
            )
        # float32 has a −1 itself, which no normal number stands for
        normal = math.sqrt(2) * torch.erfinv(noise.clamp(min=-1 + 2**-23))
        whole = torch.cat([latents, normal], 1)
        raw = torch.matmul(self.model.latent_pca.T, whole) + self.model.latent_mean[:, None]
        return self.model.decode(raw)


def is_export(network: Any) -> bool:
    """Return whether a loaded .ts is of acids-rave."""
    return str(network.original_name).endswith("ScriptedRAVE")


def open_export(network: Any, path: Path) -> tuple[CroppedRAVE, RAVE, str]:
    """Return the codec in a loaded .ts of acids-rave, its model, and its fingerprint.

    Args:
        network: What torch.jit.load gave.
        path: Of the file; only to tell the user.

    Raises:
        ValueError: If it holds a model that this version cannot open; the message names what.
    """
    reader = _Reader(network, path)
    model = reader.model()
    count = int(reader.attribute("latent_size"))
    if not 1 <= count <= model.latent_size:
        raise reader.refused(f"{count} latents")
    digest = sha256(f"{reader.fingerprint} {count}".encode())
    for buffer in (model.latent_pca, model.latent_mean):
        digest.update(buffer.numpy().tobytes())
    return CroppedRAVE(model, count), model, digest.hexdigest()[:16]


class _Reader:
    """Reads settings and weights off the layers of a loaded file."""

    def __init__(self, network: Any, path: Path) -> None:
        self.path, self.network = path, network
        self.weights = dict(network.state_dict())
        # without the memory of a streaming file
        weights = {n: w for n, w in self.weights.items() if n.endswith(".weight")}
        self.fingerprint = fingerprint(weights)

    def refused(self, what: str) -> ValueError:
        return ValueError(
            f"'{self.path}' uses {what}, which this version cannot open. "
            "Open the run folder that it was exported from."
        )

    def attribute(self, *names: str) -> Any:
        for name in names:
            if getattr(self.network, name, None) is not None:
                return getattr(self.network, name)
        raise ValueError(f"'{self.path}' does not say its {names[0]}; is it of acids-rave 2?")

    def model(self) -> RAVE:
        kind = self.network.original_name
        if kind != VARIATIONAL:
            raise self.refused(f"a {kind}")
        for name in ("input_mode", "output_mode"):
            if getattr(self.network, name, "pqmf") != "pqmf":
                raise self.refused(f"{name} '{getattr(self.network, name)}'")
        if "resampler" in dict(self.network.named_children()):
            raise self.refused("a resampler")
        num_bands = self._weight("pqmf.forward_conv").shape[0]
        encoder_layers = self._layers("encoder.encoder", "EncoderV2")
        decoder_layers = self._layers("decoder", "GeneratorV2")
        capacity, in_rows, _ = self._weight("encoder.encoder.net.0").shape
        right = _right(encoder_layers[0])
        ratios, dilations, kernel_size = self._blocks(encoder_layers[1:-2])
        num_channels, latent_size = in_rows // num_bands, len(self.weights["latent_mean"])
        up_ratios, up_dilations, _ = self._blocks(decoder_layers[1:-2])
        up_dilations = [*up_dilations[1:], self._tail]
        if up_ratios != ratios[::-1] or up_dilations != dilations[::-1]:
            raise self.refused(f"a decoder of ratios {up_ratios} and dilations {up_dilations}")
        shape = (num_bands, num_channels, capacity, ratios, latent_size, kernel_size, dilations)
        encoder = EncoderV2(*shape, is_causal=right == 0)
        decoder = DecoderV2(*shape, is_causal=right == 0)
        pqmf = PQMF(ATTENUATION_DB, num_bands, is_causal=right == 0)
        rate_hz = int(self.attribute("sr", "sampling_rate"))
        model = RAVE(pqmf, encoder, decoder, latent_size, ratios, rate_hz, num_channels).eval()
        fold_weight_norm(model)
        self._fill(model)
        return model.requires_grad_(False)

    def _weight(self, layer: str) -> Tensor:
        if f"{layer}.weight" not in self.weights:
            raise self.refused(f"no {layer}.weight")
        return self.weights[f"{layer}.weight"]

    def _layers(self, name: str, kind: str) -> list[Any]:
        """Return the layers of encoder or decoder; refuse another kind and parts beside `net`."""
        part = self.network
        for step in name.split("."):
            part = getattr(part, step)
        if part.original_name != kind:
            raise self.refused(f"a {part.original_name}")
        for child, module in part.named_children():
            if child != "net":
                raise self.refused(f"a {module.original_name}")
        return list(part.net.children())

    def _blocks(self, layers: Iterable[Any]) -> tuple[list[int], list[list[int]], int]:
        """Return ratios, the dilations before each, and the units' kernel size.

        The dilations after the last ratio are kept as `_tail`.
        """
        ratios, dilations, kernel_size = [], [], 0
        self._tail: list[int] = []
        for layer in layers:
            kind = layer.original_name
            if kind == "Residual":
                unit = next(iter(layer.aligned.branches.children()))
                members = list(unit.net.children())
                self._activations(members[::2])
                if [m.original_name in CONVOLUTIONS for m in members] != [False, True] * 2:
                    raise self.refused(f"a {members[0].original_name}")
                self._tail.append(members[1].dilation[0])
                kernel_size = members[1].kernel_size[0]
            elif kind in CONVOLUTIONS or kind in TRANSPOSED:
                ratios.append(layer.stride[0])
                dilations.append(self._tail)
                self._tail = []
            else:
                self._activations([layer])
        return ratios, dilations, kernel_size

    def _activations(self, layers: Iterable[Any]) -> None:
        for layer in layers:
            if layer.original_name != "LeakyReLU":
                raise self.refused(f"a {layer.original_name}")

    def _fill(self, model: RAVE) -> None:
        """Copy the weights into a model."""
        rules, state = naming(model), model.state_dict()
        for ours in state:
            theirs = their_name(ours, rules)
            found = self.weights.get(theirs)
            if found is None or found.shape != state[ours].shape:
                what = "no" if found is None else f"a {tuple(found.shape)}"
                raise self.refused(f"{what} {theirs}")
            state[ours] = found
        model.load_state_dict(state)


def _right(conv: Any) -> int:
    """Return the input steps right of a step that a stride-1 convolution sees."""
    return int(conv._pad[1] if hasattr(conv, "_pad") else conv.cumulative_delay)
