"""Read our settings from the layers of a .ts file of acids-rave: strides, dilations, padding.

Layers that ours do not compute exactly are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rave.blocks.adain import AdaIN
from rave.blocks.convolution import LEAKY_SLOPE
from rave.blocks.noise import NoiseGenerator
from rave.blocks.signals import MelSpectrogram, Recurrent
from rave.blocks.snake import Snake
from rave.blocks.v1 import DILATIONS, UNIT_KERNEL, DecoderV1, EncoderV1
from rave.blocks.v2 import DecoderV2, EncoderV2

CONVOLUTIONS = ("Conv1d", "CachedConv1d")
TRANSPOSED = ("ConvTranspose1d", "CachedConvTranspose1d")
UNIT = [False, True, False, True]  # which layers of a residual unit are convolutions
# Settings with which their spectrogram equals ours; the filters are in the file.
SPECTROGRAM = {"power": 2.0, "normalized": True, "center": True, "pad_mode": "reflect", "pad": 0}


class Layers:
    """The layers of a loaded file by name, and its weights.

    Args:
        network: Result of torch.jit.load.
        path: Path of the file; only for messages.
    """

    def __init__(self, network: Any, path: Path) -> None:
        self.network, self.path = network, path
        self.weights: dict[str, Tensor] = dict(network.state_dict())

    def refused(self, what: str) -> ValueError:
        """Return the error for something that this version cannot open."""
        return ValueError(
            f"'{self.path}' uses {what}, which this version cannot open. "
            "Open the run folder that it was exported from."
        )

    def part(self, name: str) -> Any:
        """Return a module by its name, or None."""
        found = self.network
        for step in name.split("."):
            found = getattr(found, step, None)
        return found

    def kind(self, name: str) -> str:
        """Return the class of a module."""
        if self.part(name) is None:
            raise self.refused(f"no {name}")
        return str(self.part(name).original_name)

    def children(self, name: str) -> list[Any]:
        """Return the members of a module."""
        self.kind(name)
        return list(self.part(name).children())

    def weight(self, layer: str) -> Tensor:
        """Return the weight of a layer."""
        return self.buffer(f"{layer}.weight")

    def buffer(self, name: str) -> Tensor:
        """Return a buffer of the file."""
        if name not in self.weights:
            raise self.refused(f"no {name}")
        return self.weights[name]

    def is_causal(self, layer: str) -> bool:
        """Return whether the first convolution of a chain sees no later input."""
        self.weight(layer)
        conv = self.part(layer)
        return not int(conv._pad[1] if hasattr(conv, "_pad") else conv.cumulative_delay)

    def activation(self, layers: Iterable[Any]) -> type[nn.Module] | None:
        """Return the one class of activations: None for a leaky ReLU, or Snake."""
        kinds = {layer.original_name for layer in layers}
        if kinds == {"Snake"}:
            return Snake
        for layer in layers:
            if layer.original_name != "LeakyReLU":
                raise self.refused(f"a {layer.original_name}")
            if float(layer.negative_slope) != LEAKY_SLOPE:
                raise self.refused(f"a LeakyReLU of slope {layer.negative_slope}")
        return None

    def unit(self, members: list[Any]) -> tuple[int, int]:
        """Return the dilations of the two convolutions of a residual unit."""
        self.activation(members[::2])
        if [member.original_name in CONVOLUTIONS for member in members] != UNIT:
            raise self.refused(f"a unit of {len(members)} layers")
        return members[1].dilation[0], members[3].dilation[0]


class _NetV2:
    """Settings of the layers between the first and the last convolution, in their order.

    Attributes:
        ratios: Strides.
        dilations: Dilations of the units before each stride, then of those after the last.
        arguments: Arguments that encoder and decoder share.
    """

    def __init__(self, layers: Layers, members: list[Any]) -> None:
        self.ratios: list[int] = []
        self.dilations: list[list[int]] = [[]]
        activations, has_adaptation = [], False
        for member in members:
            kind = member.original_name
            if kind == "Residual":
                unit = next(iter(member.aligned.branches.children()))
                self.dilations[-1].append(layers.unit(list(unit.net.children()))[0])
            elif kind in CONVOLUTIONS or kind in TRANSPOSED:
                self.ratios.append(member.stride[0])
                self.dilations.append([])
            elif kind == "AdaptiveInstanceNormalization":
                has_adaptation = True
            else:
                activations.append(member)
        self.arguments: dict[str, Any] = {
            "activation": layers.activation(activations),
            "adaptation": AdaIN if has_adaptation else None,
        }


def encoder_of(
    layers: Layers, num_bands: int, latent_size: int, rows_per_latent: int
) -> tuple[nn.Module, list[int]]:
    """Return the encoder of a file, and its ratios.

    Args:
        layers: Layers of the file.
        num_bands: Rows per channel of the encoder's input.
        latent_size: D.
        rows_per_latent: Rows per latent of its output.
    """
    name = "encoder.encoder"
    kind = layers.kind(name)
    if kind not in ("Encoder", "EncoderV2"):
        raise layers.refused(f"a {kind}")
    members, is_causal = layers.children(f"{name}.net"), layers.is_causal(f"{name}.net.0")
    capacity, in_rows, kernel_size = layers.weight(f"{name}.net.0").shape
    if kind == "Encoder":
        if rows_per_latent != 2:
            raise layers.refused("an Encoder of v1 for such latents")
        others = [m for m in members if m.original_name not in (*CONVOLUTIONS, "BatchNorm1d")]
        layers.activation(others)
        ratios = [m.stride[0] for m in members[1:-1] if m.original_name in CONVOLUTIONS]
        size = num_bands, in_rows // num_bands, capacity, ratios, latent_size
        return EncoderV1(*size, is_causal=is_causal), ratios
    net = _NetV2(layers, members[1:-1])
    return EncoderV2(
        num_bands,
        in_rows // num_bands,
        capacity,
        net.ratios,
        latent_size,
        (kernel_size - 1) // 2,
        net.dilations[:-1],
        is_causal,
        rows_per_latent=rows_per_latent,
        **net.arguments,
    ), net.ratios


def decoder_of(
    layers: Layers, num_bands: int, num_channels: int
) -> tuple[nn.Module, list[int], int]:
    """Return the decoder of a file, its ratios, and its number of input rows."""
    kind = layers.kind("decoder")
    if kind not in ("Generator", "GeneratorV2"):
        raise layers.refused(f"a {kind}")
    members = layers.children("decoder.net")
    if kind == "Generator":
        v1, ratios = _decoder_v1(layers, members, num_bands, num_channels)
        return v1, ratios, layers.weight("decoder.net.0").shape[1]
    if not layers.part("decoder").amplitude_modulation:
        raise layers.refused("a decoder without amplitude modulation")
    first, recurrent, noise = 0, None, None
    if members[0].original_name == "GRU":
        size = layers.buffer("decoder.net.0.gru.weight_hh_l0").shape[1]
        first, recurrent = 1, Recurrent(size, int(members[0].gru.num_layers))
    if layers.part("decoder.noise_module") is not None:
        noise = _noise(layers, "decoder.noise_module", num_bands, num_channels)
    else:
        members = members[:-1]  # the last is the convolution that outputs the bands
    channels, num_rows, kernel_size = layers.weight(f"decoder.net.{first}").shape
    net = _NetV2(layers, members[first + 1 :])
    _check_ratios(layers, net.ratios)
    # Our decoder expects the encoder's order.
    decoder = DecoderV2(
        num_bands,
        num_channels,
        channels // 2 ** len(net.ratios),
        net.ratios[::-1],
        num_rows,
        kernel_size,
        net.dilations[:0:-1],
        noise,
        layers.is_causal(f"decoder.net.{first}"),
        recurrent=recurrent,
        **net.arguments,
    )
    return decoder, net.ratios, num_rows


def _check_ratios(layers: Layers, ratios: list[int]) -> None:
    if any(ratio % 2 for ratio in ratios):  # acids-rave gives a sample too many there
        raise layers.refused(f"a decoder of ratios {ratios}")


def _decoder_v1(
    layers: Layers, members: list[Any], num_bands: int, num_channels: int
) -> tuple[DecoderV1, list[int]]:
    if int(layers.part("decoder").loud_stride) != 1:
        raise layers.refused(f"a loud_stride of {layers.part('decoder').loud_stride}")
    for layer in members[1::2]:
        layers.activation(list(layer.net.children())[:1])
    for layer in members[2::2]:
        chains = [list(block.net.children()) for block in layer.net.branches.children()]
        units = [[next(iter(u.net.aligned.branches.children())) for u in chain] for chain in chains]
        found = [[layers.unit(list(unit.children())) for unit in chain] for chain in units]
        if found != [[(dilation, 1) for dilation in DILATIONS]]:
            raise layers.refused(f"residual stacks of dilations {found}")
    ratios = [list(layer.net.children())[1].stride[0] for layer in members[1::2]]
    _check_ratios(layers, ratios)
    channels, num_rows, _ = layers.weight("decoder.net.0").shape
    is_causal, noise = layers.is_causal("decoder.net.0"), None
    has_noise = layers.part("decoder").use_noise
    if has_noise and int(layers.buffer("decoder.warmed_up")):  # else it is not trained
        noise = _noise(layers, "decoder.synth.branches.2", num_bands, num_channels, is_causal)
    size = num_bands, num_channels, channels // 2 ** len(ratios), ratios, num_rows
    return DecoderV1(*size, noise, is_causal), ratios


def _noise(
    layers: Layers, name: str, num_bands: int, num_channels: int, is_causal: bool | None = None
) -> NoiseGenerator:
    """Return a noise generator: of v1, causal or not, or of v2, always causal."""
    members = layers.children(f"{name}.net")
    hidden, in_channels, _ = layers.weight(f"{name}.net.0").shape
    out_rows = layers.weight(f"{name}.net.{len(members) - 1}").shape[0]
    return NoiseGenerator(
        in_channels,
        hidden,
        num_bands,
        num_channels,
        [layer.stride[0] for layer in members[::2]],
        out_rows // (num_bands * num_channels),
        kernel_size=None if is_causal is None else UNIT_KERNEL,
        is_causal=is_causal is None or is_causal,
        overlaps=False,
        activation=layers.activation(members[1::2]),
    )


def spectrogram_of(layers: Layers) -> MelSpectrogram | None:
    """Return the mel spectrogram that the encoder of a file sees, or None."""
    mode = getattr(layers.network, "input_mode", "pqmf")
    if mode == "pqmf":
        return None
    part = layers.part("spectrogram.spectrogram")
    if mode != "mel" or part is None:
        raise layers.refused(f"input_mode '{mode}'")
    for name, needed in SPECTROGRAM.items():
        if getattr(part, name) != needed:
            raise layers.refused(f"a spectrogram of {name} {getattr(part, name)}")
    rate_hz, num_bands = layers.part("spectrogram").sample_rate, layers.part("spectrogram").n_mels
    if part.win_length != part.n_fft:
        raise layers.refused(f"a spectrogram of win_length {part.win_length}")
    return MelSpectrogram(int(rate_hz), int(part.n_fft), int(part.hop_length), int(num_bands))
