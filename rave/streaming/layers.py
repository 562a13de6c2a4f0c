"""Layers that process a stream block by block, with the same output as for the whole signal.

A layer that looks ahead must wait: its output is delayed. `streamed` converts a chain of layers
and sums up the delay; a strided layer waits until its delay is a whole number of output steps, so
that an encoder is late by whole latent frames and its output equals the offline encoder's.

    offline   a0 a1 a2 a3 a4 a5        each a depends on inputs up to 2 steps later
    stream    ·  ·  a0 a1 a2 a3        the same numbers, 2 steps late

The caller of the layers counts time. Every block comes with `frame`, the latent frame of its first
step if nothing were delayed, and with `is_first`, which clears the layers' memory. A layer treats
input before time 0 as zeros, as offline padding does, so that even the first outputs are equal.

B batch, C channels, n steps of a block.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.adain import AdaIN
from rave.blocks.convolution import Conv1d, ConvTranspose1d
from rave.blocks.linear import LinearEncoder
from rave.blocks.oscillators import BandConv
from rave.blocks.snake import Snake
from rave.blocks.v1 import EncoderV1
from rave.blocks.v2 import EncoderV2, Residual

# Up to this many steps, a matrix product reads the weights faster than torch's convolution.
MOST_STEPS_OF_PRODUCT = 32


@dataclass(frozen=True)
class Clock:
    """The time of a stream at one place in a chain of layers.

    Attributes:
        delay_steps: Delay of the stream in its steps.
        steps_per_frame: Its steps per latent frame.
    """

    delay_steps: int
    steps_per_frame: int

    def later(self, steps: int) -> "Clock":
        """Return the clock of the stream delayed by further steps."""
        return replace(self, delay_steps=self.delay_steps + steps)


def silence_before_start(x: Tensor, frame: int, steps_per_frame: int, delay_steps: int) -> Tensor:
    """Return a block (B, C, n) with zeros where it lies before time 0."""
    early = min(max(delay_steps - frame * steps_per_frame, 0), x.shape[2])
    if early == 0:
        return x
    return torch.cat([torch.zeros_like(x[:, :, :early]), x[:, :, early:]], 2)


def remembered(memory: Tensor, x: Tensor, steps: int, is_first: bool) -> Tensor:
    """Return a block with the `steps` before it, from `memory` or zeros, in front."""
    if is_first:
        memory = x.new_zeros(x.shape[0], x.shape[1], steps)
    return torch.cat([memory, x], 2)


class Delay(nn.Module):
    """Delay a stream by some steps."""

    memory: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("memory", torch.zeros(1, 1, 0))

    def forward(self, x: Tensor, is_first: bool) -> Tensor:
        """Return (B, C, n) for (B, C, n)."""
        if self.steps == 0:
            return x
        x = remembered(self.memory, x, self.steps, is_first)
        self.memory = x[:, :, x.shape[2] - self.steps :].clone()
        return x[:, :, : x.shape[2] - self.steps]


class StreamingConv1d(nn.Module):
    """A convolution of a stream: (B, C, n) → (B, out_channels, n / stride), stride a divisor of n.

    Args:
        weight: (out_channels, C / groups, kernel).
        bias: (out_channels), or None.
        reach: Steps left and right that an output sees.
        stride: Input steps per output step.
        dilation: Input steps between taps.
        groups: Number of channel groups.
        clock: Clock of the input.
    """

    memory: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        reach: tuple[int, int],
        stride: int,
        dilation: int,
        groups: int,
        clock: Clock,
    ) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight, False), bias
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.span = (weight.shape[2] - 1) * dilation + 1
        self.product_steps = MOST_STEPS_OF_PRODUCT * stride
        self.delay_steps, self.steps_per_frame = clock.delay_steps, clock.steps_per_frame
        delay = clock.delay_steps + reach[1]
        self.wait = -delay % stride
        self.kept = sum(reach) + self.wait
        self.clock_after = Clock((delay + self.wait) // stride, clock.steps_per_frame // stride)
        self.register_buffer("memory", torch.zeros(1, 1, 0))

    def forward(self, x: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return the outputs that are complete with this block."""
        x = silence_before_start(x, frame, self.steps_per_frame, self.delay_steps)
        if self.kept > 0:
            x = remembered(self.memory, x, self.kept, is_first)
            self.memory = x[:, :, x.shape[2] - self.kept :].clone()
        x = x[:, :, : x.shape[2] - self.wait]
        if self.groups == 1 and x.shape[2] < self.span + self.product_steps:
            seen = x.unfold(2, self.span, self.stride)[:, :, :, :: self.dilation]
            rows = seen.transpose(1, 2).flatten(2)
            return functional.linear(rows, self.weight.flatten(1), self.bias).transpose(1, 2)
        return functional.conv1d(
            x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class StreamingConvTranspose1d(nn.Module):
    """A transposed convolution of kernel 2r and stride r of a stream: n → r·n, late by r/2.

    A product of matrices gives each input step its 2r outputs; their second half is added to the
    first half of the next.
    """

    tail: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, clock: Clock) -> None:
        super().__init__()
        self.weight, self.bias, self.stride = nn.Parameter(weight, False), bias, stride
        self.delay_steps, self.steps_per_frame = clock.delay_steps, clock.steps_per_frame
        self.clock_after = Clock(
            clock.delay_steps * stride + stride // 2, clock.steps_per_frame * stride
        )
        self.register_buffer("tail", torch.zeros(1, 1, 1, 0))

    def forward(self, x: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return (B, out_channels, r·n) for (B, C, n)."""
        x = silence_before_start(x, frame, self.steps_per_frame, self.delay_steps)
        rows = x.transpose(1, 2).matmul(self.weight.flatten(1))
        begun, ended = rows.unflatten(2, (self.weight.shape[1], 2, self.stride)).unbind(3)
        tail = torch.zeros_like(ended[:, :1]) if is_first else self.tail
        self.tail = ended[:, -1:].clone()
        out = (begun + torch.cat([tail, ended[:, :-1]], 1)).transpose(1, 2).flatten(2)
        return out if self.bias is None else out + self.bias[:, None]


class StreamingBandConv(nn.Module):
    """`BandConv` of a stream, late by the steps that it looks ahead."""

    memory: Tensor

    def __init__(self, layer: BandConv, clock: Clock) -> None:
        super().__init__()
        self.layer, self.kept = layer, layer.left + layer.right
        self.delay_steps, self.steps_per_frame = clock.delay_steps, clock.steps_per_frame
        self.clock_after = clock.later(layer.right)
        self.register_buffer("memory", torch.zeros(1, 1, 0))

    def forward(self, x: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return (B, out·K, n) for (B, in·K, n)."""
        x = silence_before_start(x, frame, self.steps_per_frame, self.delay_steps)
        x = remembered(self.memory, x, self.kept, is_first)
        self.memory = x[:, :, x.shape[2] - self.kept :].clone()
        return self.layer.inner(x)


class Pointwise(nn.Module):
    """A layer whose output at a step depends on its input at that step only."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return a block of the same length."""
        return self.layer(x)


class StreamingAdaIN(nn.Module):
    """`AdaIN` with its own statistics; `adaptation` controls when it learns.

    Attributes:
        adaptation: (4) shared by the layers of a network: learn the source, learn the target,
            blocks learnt of the source, of the target.
    """

    adaptation: Tensor
    mean_x: Tensor
    std_x: Tensor
    mean_y: Tensor
    std_y: Tensor

    def __init__(self, layer: AdaIN) -> None:
        super().__init__()
        self.floor = layer.floor
        for name in ("mean_x", "std_x", "mean_y", "std_y"):
            self.register_buffer(name, getattr(layer, name).clone())
        counts = layer.num_update_x, layer.num_update_y
        self.register_buffer("adaptation", torch.cat([torch.zeros(2), *counts]))

    def forward(self, x: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return a block of the same shape."""
        size = x.shape[0]
        if bool(self.adaptation[1] > 0):
            self.learn(x, self.mean_y, self.std_y, self.adaptation[3])
            return x
        if bool(self.adaptation[0] > 0):
            self.learn(x, self.mean_x, self.std_x, self.adaptation[2])
        if bool(self.adaptation[2:].min() > 0):
            x = (x - self.mean_x[:size]) / (self.std_x[:size] + self.floor)
            x = x * self.std_y[:size] + self.mean_y[:size]
        return x

    def learn(self, x: Tensor, mean: Tensor, std: Tensor, count: Tensor) -> None:
        """Update the running means of mean and standard deviation with a block."""
        size = x.shape[0]
        mean[:size] += (x.mean(-1, keepdim=True) - mean[:size]) / (count + 1.0)
        std[:size] += (x.std(-1, keepdim=True) - std[:size]) / (count + 1.0)


class Chain(nn.Module):
    """Layers one after the other."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return the output of the last layer."""
        for layer in self.layers:
            x = layer(x, frame, is_first)
        return x


class StreamingResidual(nn.Module):
    """x + net(x), with x delayed like net(x)."""

    def __init__(self, net: nn.Module, delay_steps: int) -> None:
        super().__init__()
        self.net, self.delay = net, Delay(delay_steps)

    def forward(self, x: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return a block of the same shape."""
        return self.delay(x, is_first) + self.net(x, frame, is_first)


@singledispatch
def streamed(layer: nn.Module, clock: Clock) -> tuple[nn.Module, Clock]:
    """Return the streaming form of a layer, which shares its weights, and the clock after it.

    Args:
        layer: Layer without weight norm (`fold_weight_norm`).
        clock: Clock of its input.

    Raises:
        ValueError: If it has no streaming form.
    """
    raise ValueError(
        f"Layer {type(layer).__name__} has no streaming form. Export without --streaming."
    )


@streamed.register(nn.LeakyReLU)
@streamed.register(nn.SiLU)
@streamed.register(nn.BatchNorm1d)
@streamed.register(Snake)
def _(layer: nn.Module, clock: Clock) -> tuple[nn.Module, Clock]:
    return Pointwise(layer), clock


@streamed.register
def _(layer: AdaIN, clock: Clock) -> tuple[nn.Module, Clock]:
    return StreamingAdaIN(layer), clock


@streamed.register
def _(layer: Conv1d, clock: Clock) -> tuple[nn.Module, Clock]:
    bias, groups = layer.bias, layer.groups
    reach = layer.left, layer.right
    conv = StreamingConv1d(layer.weight, bias, reach, layer.stride, layer.dilation, groups, clock)
    return conv, conv.clock_after


@streamed.register
def _(layer: BandConv, clock: Clock) -> tuple[nn.Module, Clock]:
    conv = StreamingBandConv(layer, clock)
    return conv, conv.clock_after


@streamed.register
def _(layer: ConvTranspose1d, clock: Clock) -> tuple[nn.Module, Clock]:
    conv = StreamingConvTranspose1d(layer.weight, layer.bias, layer.stride, clock)
    return conv, conv.clock_after


@streamed.register
def _(layer: nn.Sequential, clock: Clock) -> tuple[nn.Module, Clock]:
    layers = []
    for member in layer:
        streaming, clock = streamed(member, clock)
        layers.append(streaming)
    return Chain(layers), clock


@streamed.register
def _(layer: Residual, clock: Clock) -> tuple[nn.Module, Clock]:
    net, after = streamed(layer.net, clock)
    return StreamingResidual(net, after.delay_steps - clock.delay_steps), after


@streamed.register(EncoderV1)
@streamed.register(EncoderV2)
@streamed.register(LinearEncoder)
def _(layer: EncoderV1 | EncoderV2 | LinearEncoder, clock: Clock) -> tuple[nn.Module, Clock]:
    return streamed(layer.net, clock)
