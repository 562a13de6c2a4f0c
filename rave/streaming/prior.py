"""A prior that generates an endless stream of latents, frame after frame.

B batch, E raw latent size, D modelled dimensions, R classes of a value, n frames of a block.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.prior import LatentPrior, PriorBlock
from rave.streaming.noise import PRIOR, PositionalUniform
from rave.streaming.tracing import interface, traced


@interface
class Step(nn.Module):
    """Interface of `_Step`, so that it is compiled separately."""

    def forward(self, column: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        pass


class StreamingPrior(nn.Module):
    """`LatentPrior.sample` of a stream.

    Frame t is complete with column t + D - 1. Each frame of a block makes one column, so that the
    load is even, and latents are late by `delay_frames`, D - 1; earlier output is meaningless.

    Args:
        prior: Prior to sample from; its weights are copied.
    """

    step: Step
    states: Tensor
    columns: Tensor

    def __init__(self, prior: LatentPrior) -> None:
        super().__init__()
        prior = prior.eval().requires_grad_(False)
        size, rest = prior.latent_size, len(prior.rest)
        self.latent_size, self.delay_frames = size, size - 1
        column = torch.full((1, size, 1), -1)
        step = _Step(prior)
        states = torch.zeros(1, step.num_states)
        value = torch.zeros(1, size, 1)
        self.step = cast(Step, traced(step, (column, states)))
        example = (column.clamp(min=0), value, torch.zeros(1, rest, 1))
        self.latents = traced(_Latents(prior), example)
        # For each column: a place in the distribution of each class, one within each class, values
        # of the other axes.
        self.noise = PositionalUniform(2 * size + rest, PRIOR)
        self.num_states = step.num_states
        self.num_columns = 0
        self.register_buffer("states", states)
        self.register_buffer("columns", column.expand(1, size, size))

    def forward(self, control: Tensor, seed: int, is_first: bool) -> Tensor:
        """Return the next raw latents (B, E, n), `delay_frames` late.

        Args:
            control: (B, 1, n): softplus of it, over ln 2, is the temperature; 0 gives 1, as in
                acids-rave.
            seed: Random seed of the first item; negative: new numbers each time.
            is_first: Begin a stream.
        """
        batch = control.shape[0]
        if is_first:
            self.num_columns = 0
            self.states = torch.zeros(batch, self.num_states)
            self.columns = torch.full((batch, self.latent_size, self.latent_size), -1)
        frames: list[Tensor] = []
        for index in range(control.shape[2]):
            noise = self.next_column(control[:, 0, index], seed)
            # dimension d of this frame is in the d-th of the last D columns
            classes = self.columns.diagonal(dim1=1, dim2=2)[:, :, None]
            size = self.latent_size
            rest = math.sqrt(2.0) * torch.erfinv(2.0 * noise[:, 2 * size :] - 1.0)
            frames.append(self.latents(classes, noise[:, size : 2 * size], rest))
        return torch.cat(frames, 2)

    def next_column(self, control: Tensor, seed: int) -> Tensor:
        """Draw a column at the controls (B) and return its random numbers (B, rows, 1)."""
        size = self.latent_size
        last = self.columns[:, :, size - 1 :]
        columns: list[Tensor] = []
        states: list[Tensor] = []
        noises: list[Tensor] = []
        for item in range(control.shape[0]):
            of_item = seed if seed < 0 else seed + item
            noise = self.noise(of_item, self.num_columns, 1, self.states[:1, None])
            logits, state = self.step(last[item : item + 1], self.states[item : item + 1])
            temperature = functional.softplus(control[item].double()) / math.log(2.0)
            share = (logits.double() / temperature).softmax(2).cumsum(2)
            drawn = (share < noise[:, :size, None]).sum(2)
            columns.append(drawn.clamp(max=logits.shape[2] - 1))
            states.append(state)
            noises.append(noise)
        self.states = torch.cat(states)
        self.columns = torch.cat([self.columns[:, :, 1:], torch.cat(columns)], 2)
        self.num_columns += 1
        return torch.cat(noises)


class _Step(nn.Module):
    """One column of a prior, its states in one row."""

    def __init__(self, prior: LatentPrior) -> None:
        super().__init__()
        self.prior = prior
        blocks = (cast(PriorBlock, block) for block in prior.blocks)
        convolutions = [prior.first, *(block.dilated for block in blocks)]
        self.shapes = [(c.in_channels, c.reach) for c in convolutions]
        self.num_states = sum(channels * steps for channels, steps in self.shapes)

    def forward(self, column: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (1, D, R, 1) and states of a column (1, D, 1) and the states before it."""
        parts = states.split([channels * steps for channels, steps in self.shapes], 1)
        pairs = zip(parts, self.shapes, strict=True)
        logits, after = self.prior(column, [part.reshape(1, *shape) for part, shape in pairs])
        return logits, torch.cat([state.flatten(1) for state in after], 1)


class _Latents(nn.Module):
    """The raw latents of classes."""

    def __init__(self, prior: LatentPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, classes: Tensor, position: Tensor, noise: Tensor) -> Tensor:
        """Return `LatentPrior.latents`."""
        return self.prior.latents(classes, position, noise)
