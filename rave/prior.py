"""The autoregressive prior: latents frame after frame, each dimension given those before it.

B batch, E raw latent size, D modelled dimensions, R classes of a value, N latent frames, S columns.

A column holds dimension d of frame n + D - 1 - d, so that a network that predicts a column from
those before it predicts dimension 1 of a frame knowing dimension 0, and so on: S = N - D + 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.compute.arrays import Float32Array, Float64Array

KIND = "rave-prior"  # kind of its runs
KERNEL_SIZE = 3
SLOPE = 0.2  # slope of the leaky ReLUs, as everywhere in RAVE
LARGEST_VALUE = 4.0  # standard deviations
States = list[Tensor]


class LatentPrior(nn.Module):
    """A causal network over classes of latents.

    Args:
        raw_size: E.
        latent_size: D.
        num_classes: R.
        hidden_channels: Channels of the stream.
        skip_channels: Channels of the skips.
        num_blocks: Residual blocks.
        dilation_cycle: Blocks after which the dilation is 1 again.
        num_groups: Groups of the first and the last layer; acids-rave has D.

    Attributes:
        mean: (E,) mean of the training latents.
        basis: (D, E) principal axes, largest variance first.
        scale: (D,) standard deviations along them.
        rest: Axes filled with N(0, 1) noise, as acids-rave does; none in our runs.

    Source: van den Oord et al. 2016, arXiv:1609.03499, section 2; the prior of acids-rave 2.3.1.
    Differs: each axis is scaled to variance 1, so that all classes are used alike.
    """

    def __init__(
        self,
        raw_size: int,
        latent_size: int,
        num_classes: int,
        hidden_channels: int,
        skip_channels: int,
        num_blocks: int,
        dilation_cycle: int,
        num_groups: int = 1,
    ) -> None:
        super().__init__()
        self.raw_size, self.latent_size, self.num_classes = raw_size, latent_size, num_classes
        channels = latent_size * num_classes
        self.first = CausalConv(channels, hidden_channels, groups=num_groups)
        self.blocks = nn.ModuleList(
            PriorBlock(hidden_channels, skip_channels, 2 ** (index % dilation_cycle))
            for index in range(num_blocks)
        )
        self.output = nn.Sequential(
            nn.Conv1d(skip_channels, skip_channels, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv1d(skip_channels, channels, 1, groups=num_groups),
        )
        self.mean: Tensor
        self.basis: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(raw_size))
        self.register_buffer("basis", torch.eye(latent_size, raw_size))
        self.register_buffer("scale", torch.ones(latent_size))
        self.rest: Tensor
        self.register_buffer("rest", torch.zeros(0, raw_size), persistent=False)

    def forward(self, columns: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """Return the logits of the column after each given one, and the states to continue with.

        Args:
            columns: (B, D, S) int64 classes 0 to R - 1, or -1 for a missing value.
            states: States that an earlier call returned for the columns before; None at the start.

        Returns:
            Logits (B, D, R, S), and the states after the last column.
        """
        states = [] if states is None else states
        left, kept = iter(states), []
        onehot = functional.one_hot(columns.clamp(min=0), self.num_classes)
        onehot = (onehot * (columns >= 0)[..., None]).float()
        x, state = self.first(onehot.movedim(3, 2).flatten(1, 2), next(left, None))
        x = functional.leaky_relu(x, SLOPE)
        kept.append(state)
        skips: Tensor | float = 0.0
        for block in self.blocks:
            x, skip, state = block(x, next(left, None))
            skips = skips + skip
            kept.append(state)
        logits: Tensor = self.output(skips)
        return logits.unflatten(1, (self.latent_size, self.num_classes)), kept

    def loss(self, latents: Tensor) -> Tensor:
        """Return the mean cross-entropy per item, (B,), in nats per value.

        Args:
            latents: (B, E, N) raw latents, N ≥ D.
        """
        columns = shift(self.classes(latents))
        begin = torch.full_like(columns[:, :, :1], -1)
        logits, _ = self(torch.cat([begin, columns[:, :, :-1]], dim=2))
        errors = functional.cross_entropy(logits.movedim(2, 1), columns, reduction="none")
        return errors.mean(dim=(1, 2))

    def classes(self, latents: Tensor) -> Tensor:
        """Return the classes (B, D, N) of raw latents (B, E, N)."""
        values = self.basis @ (latents - self.mean[:, None]) / self.scale[:, None]
        return quantize(values, self.num_classes)

    def latents(self, classes: Tensor, position: Tensor, noise: Tensor) -> Tensor:
        """Return raw latents (B, E, N).

        Args:
            classes: (B, D, N).
            position: (B, D, N) where in its class each value lies, in [0, 1).
            noise: (B, rest, N) values along the other axes.
        """
        values = dequantize(classes, position, self.num_classes) * self.scale[:, None]
        return self.basis.T @ values + self.rest.T @ noise + self.mean[:, None]

    @torch.inference_mode()
    def sample(
        self,
        num_frames: int,
        seeds: Sequence[Sequence[int]],
        temperature: float = 1.0,
        progress: Callable[[], object] = lambda: None,
    ) -> Tensor:
        """Return new raw latents (B, E, num_frames).

        Args:
            num_frames: N.
            seeds: Random seed of each item; an item does not depend on the others.
            temperature: Divides the logits; 0 takes the likeliest class.
            progress: Called after each column.

        Raises:
            ValueError: If the number of frames or the temperature is impossible.
        """
        if num_frames < 1 or not 0 <= temperature < math.inf:
            raise ValueError(
                f"Cannot sample {num_frames} frames at temperature {temperature}; give 1 frame or "
                "more, and a temperature of 0 or more."
            )
        device = self.mean.device
        drawn = [np.random.default_rng(list(seed)) for seed in seeds]
        column = torch.full((len(seeds), self.latent_size, 1), -1, device=device)
        columns, states = [], None
        for _ in range(num_frames + self.latent_size - 1):
            logits, states = self(column, states)
            if temperature == 0:
                column = logits.argmax(dim=2)
            else:
                place = _drawn(drawn, (self.latent_size, 1), device)
                share = (logits.double() / temperature).softmax(dim=2).cumsum(dim=2)
                column = (share < place[:, :, None]).sum(dim=2).clamp(max=self.num_classes - 1)
            columns.append(column)
            progress()
        classes = unshift(torch.cat(columns, dim=2))
        position = _drawn(drawn, tuple(classes.shape[1:]), device)
        noise = _drawn(drawn, (len(self.rest), num_frames), device, is_normal=True)
        return self.latents(classes, position.float(), noise.float())

    @torch.no_grad()
    def fit(self, mean: Float64Array, basis: Float64Array, std: Float64Array) -> None:
        """Set mean, axes and scales from `principal_axes`; the first D axes are kept."""
        self.mean.copy_(torch.from_numpy(mean))
        self.basis.copy_(torch.from_numpy(basis[: self.latent_size]))
        self.scale.copy_(torch.from_numpy(std[: self.latent_size].copy()).clamp(min=1e-6))


class CausalConv(nn.Conv1d):
    """Causal convolution with kernel 3, for pieces of any length."""

    def __init__(
        self, in_channels: int, out_channels: int, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, KERNEL_SIZE, dilation=dilation, groups=groups)
        self.reach = (KERNEL_SIZE - 1) * dilation

    def forward(  # type: ignore[override]
        self, x: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the output and the inputs that the next piece needs."""
        before = x.new_zeros(*x.shape[:2], self.reach) if state is None else state
        x = torch.cat([before, x], dim=2)
        return super().forward(x), x[:, :, -self.reach :]


class PriorBlock(nn.Module):
    """One gated convolution; adds to the stream and to the skips."""

    def __init__(self, channels: int, skip_channels: int, dilation: int) -> None:
        super().__init__()
        self.dilated = CausalConv(channels, 2 * channels, dilation)
        self.residual = nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, skip_channels, 1)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the stream, this block's skip, and the state."""
        y, state = self.dilated(x, state)
        gate, content = y.chunk(2, dim=1)
        y = gate.sigmoid() * content.tanh()
        return x + self.residual(y), self.skip(y), state


def quantize(values: Tensor, num_classes: int) -> Tensor:
    """Return the class of each value, int64; values from N(0, 1) fill all classes equally."""
    share = 0.5 * (1 + torch.erf(values / math.sqrt(2)))
    return (share * num_classes).floor().long().clamp(0, num_classes - 1)


def dequantize(classes: Tensor, position: Tensor, num_classes: int) -> Tensor:
    """Return values of classes, at a position in [0, 1) of each, not beyond ±LARGEST_VALUE."""
    share = (classes + position) / num_classes
    values = math.sqrt(2) * torch.erfinv(2 * share - 1)
    return values.clamp(-LARGEST_VALUE, LARGEST_VALUE)


def shift(frames: Tensor) -> Tensor:
    """Return columns (B, D, N - D + 1) of frames (B, D, N): column n has d of frame n + D - 1 - d.

    Raises:
        ValueError: If there are fewer frames than dimensions.
    """
    size, length = frames.shape[1:]
    if length < size:
        raise ValueError(f"{length} latent frames were given; {size} dimensions need {size}.")
    count = length - size + 1
    rows = [frames[:, d, size - 1 - d : size - 1 - d + count] for d in range(size)]
    return torch.stack(rows, dim=1)


def unshift(columns: Tensor) -> Tensor:
    """Return the frames (B, D, S - D + 1) that are complete in columns (B, D, S)."""
    return shift(columns.flip(1)).flip(1)


def principal_axes(
    clips: Iterable[Float32Array],
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return mean (E,), principal axes as rows (E, E) and standard deviations (E,) of latents.

    Args:
        clips: (E, N) each.
    """
    count, total, products = 0, np.zeros(1), np.zeros((1, 1))
    for clip in clips:
        values = clip.astype(np.float64)
        count += values.shape[1]
        total, products = total + values.sum(axis=1), products + values @ values.T
    mean = total / count
    variances, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
    return mean, axes.T[::-1].copy(), np.sqrt(np.maximum(variances[::-1], 0.0))


def _drawn(
    generators: Sequence[np.random.Generator],
    shape: tuple[int, ...],
    device: torch.device,
    is_normal: bool = False,
) -> Tensor:
    draws = [g.standard_normal(shape) if is_normal else g.random(shape) for g in generators]
    return torch.from_numpy(np.stack(draws)).to(device)
