"""Endless latents in TorchScript, in the windows of `diffwave.sampling.overlap`.

    frames requested   ···|····block····|···
    being played       [ window k - 1     ]
    being sampled           [ context | window k ········ | margin ]

Each block makes its share of the steps of the next window. So the load is even, and a window is
finished when its first frame is due. The first window is sampled during the frames of one context;
this is the delay of the latents. A model with conditions waits for all conditions of a window: its
latents have one window more of delay.

B batch, D raw latent size, K latent size, R rows of conditions, W frames of a window, H condition
channels, n frames of a block.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

from typing import cast

import torch
from torch import Tensor, nn

from diffwave.conditioner import SPECTROGRAM, LabelConditioner
from diffwave.model import LatentDiffusion
from diffwave.sampling.overlap import Windows
from diffwave.sampling.samplers import NOISE_BLOCK
from diffwave.streaming.normal import SMALLEST_COUNT, ScriptedNormal
from diffwave.streaming.sampler_steps import step_table
from rave.streaming.tracing import interface, traced


@interface
class Denoiser(nn.Module):
    """The interface of `_Denoiser`, which is compiled on its own."""

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:  # noqa: D102
        pass


class StreamingSampler(nn.Module):
    """The latents of `Sampling.stream`, block by block and endlessly.

    Args:
        model: A trained model in evaluation mode, on the CPU.
        windows: Division of the stream.
        sampler: Name of a sampler that draws no noise at its steps.
        max_steps: Largest number of sampling steps.

    Attributes:
        followed: Number of rows by name: those of each control, and one for a label. A spectrogram
            cannot be followed; its null condition replaces it.
        delay_frames: Delay of the latents.

    Raises:
        ValueError: If the sampler draws noise, or a window is too short.
    """

    denoiser: Denoiser
    timesteps: Tensor
    steps: Tensor
    rows: Tensor
    noise: Tensor
    done: Tensor
    noisy: Tensor
    before: Tensor
    conditions: Tensor
    known: list[Tensor]
    path: list[Tensor]
    weights: list[float]
    row_counts: list[int]

    def __init__(
        self, model: LatentDiffusion, windows: Windows, sampler: str, max_steps: int
    ) -> None:
        super().__init__()
        size, frames = model.standardizer.latent_size, windows.num_frames
        if size * frames < SMALLEST_COUNT:
            raise ValueError(f"A window of {frames} frames is too short. Give a longer one.")
        self.num_frames, self.context, self.margin = frames, windows.context, windows.margin
        self.latent_size, self.noise_block = size, NOISE_BLOCK
        timesteps, steps = step_table(sampler, model.schedule, max_steps)
        self.register_buffer("timesteps", timesteps)
        self.register_buffer("steps", steps)
        self.standardizer_mean = nn.Buffer(model.standardizer.mean[:, None].clone())
        self.standardizer_basis = nn.Buffer(
            (model.standardizer.basis.T * model.standardizer.scale).contiguous()
        )
        self._trace(model)
        self.wait_frames = frames if self.followed else 0
        self.delay_frames = self.wait_frames + self.context
        self.normal = ScriptedNormal()
        self.time = self.start = self.step = self.num_steps = 0
        self.ready = self.first = 0
        self.known, self.path, self.weights = [], [], [1.0]
        for name in ("rows", "noise", "done", "noisy", "before", "conditions"):
            self.register_buffer(name, torch.zeros(0))

    def _trace(self, model: LatentDiffusion) -> None:
        """Trace the conditioners and the denoiser of a window."""
        channels, frames = model.network.condition_channels, self.num_frames
        conditioners = model.named_conditioners()
        self.followed = {
            name: getattr(conditioner, "num_channels", 1)
            for name, conditioner in conditioners.items()
            if name != SPECTROGRAM
        }
        self.row_counts = list(self.followed.values())
        examples = [torch.zeros(1, count, frames) for count in self.row_counts]
        self.conditioners = nn.ModuleList(
            traced(_Rows(conditioners[name]), (example,))
            for name, example in zip(self.followed, examples, strict=True)
        )
        nulls = [conditioner.null_condition.detach() for conditioner in conditioners.values()]
        of_rows = [conditioners[name].null_condition.detach() for name in self.followed]
        width = max(channels, 1)
        self.null = nn.Buffer(sum(nulls, torch.zeros(width, 1)))
        self.nulls = nn.Buffer(torch.stack([torch.zeros(width, 1), *of_rows])[1:])
        example = (
            torch.zeros(1, self.latent_size, frames),
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(1, width, frames),
        )
        self.denoiser = cast(Denoiser, traced(_Denoiser(model), example))

    @torch.jit.export
    def warm_up(self) -> None:
        """Compile the network: torch does it in the first two runs."""
        noisy = torch.zeros(1, self.latent_size, self.num_frames)
        for _ in range(2):
            self.denoiser(noisy, self.timesteps[0, :1], self.null.expand(1, -1, self.num_frames))

    def forward(
        self,
        rows: Tensor,
        num_steps: int,
        temperature: float,
        guidance: float,
        follows: list[bool],
        seed: int,
        is_first: bool,
    ) -> Tensor:
        """Return the next raw latents (B, D, n), delayed by `delay_frames`; at first their mean.

        Args:
            rows: (B, R, n) conditions; not used by a model without conditions.
            num_steps: Sampling steps, from the next window on.
            temperature: Scale of the noise that sampling begins with.
            guidance: Guidance scale of all conditions.
            follows: For each of `followed`, whether it is used; if not, its null condition is.
            seed: Random seed of the first item. Negative: a new one each time.
            is_first: Whether a stream begins.
        """
        batch, count = rows.shape[0], rows.shape[2]
        if is_first:
            self.begin(batch, seed)
        until = self.time + count
        if self.wait_frames > 0:
            self.rows = torch.cat([self.rows, rows], 2)
        is_behind = True
        while is_behind:
            if self.step == 0:
                if until <= self.ready:
                    is_behind = False
                else:
                    self.begin_window(num_steps, temperature, guidance, follows)
            if is_behind:
                due = self.first + self.delay_frames
                wanted = self.num_steps
                if until <= due:  # a share of the steps, rounded up
                    wanted = -(-self.num_steps * (until - self.ready) // (due - self.ready))
                while self.step < wanted:
                    self.make_step()
                if self.step == self.num_steps:
                    self.end_window()
                else:
                    is_behind = False
        early = min(max(self.delay_frames - self.time, 0), count)
        ready = self.done[:, :, : count - early]
        self.done = self.done[:, :, count - early :].clone()
        self.time = until
        silence = torch.zeros(batch, self.latent_size, early)
        latents = torch.cat([silence, ready], 2)
        return torch.matmul(self.standardizer_basis, latents) + self.standardizer_mean

    def begin(self, batch: int, seed: int) -> None:
        """Begin a stream."""
        if seed < 0:
            seed = int(torch.randint(0, 1 << 31, (1,)).item())
        self.normal.seed([seed + item for item in range(batch)])
        self.time = self.start = self.step = self.first = 0
        self.ready = self.wait_frames
        self.known, self.path = [], []
        self.rows = torch.zeros(batch, sum(self.row_counts), 0)
        self.noise = torch.zeros(batch, self.latent_size, 0)
        self.done = torch.zeros(batch, self.latent_size, 0)

    def begin_window(
        self, num_steps: int, temperature: float, guidance: float, follows: list[bool]
    ) -> None:
        """Draw the noise of a window, and set its conditions."""
        if num_steps != self.num_steps:
            self.known = []  # other steps: this window cannot continue the one before
        self.num_steps, self.path = num_steps, []
        while self.noise.shape[2] < self.num_frames:
            is_first = self.start == 0 and self.noise.shape[2] == 0
            count = self.num_frames if is_first else self.noise_block
            block = self.normal(self.latent_size * count)
            block = block.reshape(block.shape[0], self.latent_size, count)
            self.noise = torch.cat([self.noise, block], 2)
        self.noisy = self.noise[:, :, : self.num_frames] * temperature
        self.before = torch.zeros_like(self.noisy)
        self.read(guidance, follows)

    def read(self, guidance: float, follows: list[bool]) -> None:
        """Set the conditions (terms, B, H, W) whose predictions, weighted, are the guided one."""
        batch = self.noisy.shape[0]
        full = self.null.expand(batch, -1, self.num_frames)
        changes: list[Tensor] = []
        first_row = 0
        for index, conditioner in enumerate(self.conditioners):
            last_row = first_row + self.row_counts[index]
            if follows[index]:
                rows = self.rows[:, first_row:last_row, : self.num_frames]
                parts = [conditioner(rows[item : item + 1]) for item in range(batch)]
                change = torch.cat(parts) - self.nulls[index]
                full = full + change
                changes.append(change)
            first_row = last_row
        terms, self.weights = [full], [1.0 + (guidance - 1.0) * len(changes)]
        if guidance != 1.0:
            for change in changes:
                terms.append(full - change)
                self.weights.append(1.0 - guidance)
        self.conditions = torch.stack(terms)

    def make_step(self) -> None:
        """Make a sampling step."""
        noisy = self.noisy
        if len(self.known) > 0:
            noisy = torch.cat([self.known[self.step], noisy[:, :, self.context :]], 2)
        last = self.num_frames - self.margin
        self.path.append(noisy[:, :, last - self.context : last].clone())
        timestep = self.timesteps[self.num_steps, self.step : self.step + 1]
        items: list[Tensor] = []
        for item in range(noisy.shape[0]):
            one = noisy[item : item + 1]
            total = torch.zeros_like(one)
            for term, weight in enumerate(self.weights):
                condition = self.conditions[term, item : item + 1]
                total = total + weight * self.denoiser(one, timestep, condition)
            items.append(total)
        denoised = torch.cat(items)
        a, b, c = self.steps[self.num_steps, self.step].unbind()
        self.noisy = a * noisy + b * denoised + c * self.before
        self.before = denoised
        self.step += 1

    def end_window(self) -> None:
        """Keep the frames of a window without its margin, and go to the next window."""
        last = self.num_frames - self.margin
        kept_from = self.context if self.start > 0 else 0
        self.done = torch.cat([self.done, self.noisy[:, :, kept_from:last]], 2)
        advance = last - self.context
        self.ready = self.first + self.delay_frames
        self.first = self.start + last
        self.start += advance
        if self.wait_frames > 0:
            self.ready = max(self.ready, self.start + self.num_frames)
            self.rows = self.rows[:, :, advance:].clone()
        self.noise = self.noise[:, :, advance:].clone()
        self.known, self.step = self.path, 0


class _Rows(nn.Module):
    """The condition (1, H, W) of rows (1, C, W): a control, or the number of a label per frame."""

    def __init__(self, conditioner: nn.Module) -> None:
        super().__init__()
        self.conditioner = conditioner

    def forward(self, rows: Tensor) -> Tensor:
        """Return the condition."""
        if isinstance(self.conditioner, LabelConditioner):
            last = len(self.conditioner.names) - 1
            labels = rows[0, 0].round().long().clamp(max=last)
            return self.conditioner(labels)[:, :, 0].T[None]
        return self.conditioner(rows)


class _Denoiser(nn.Module):
    """The denoised latents (1, K, W) of a model with a condition (1, H, W)."""

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Return the denoised latents."""
        known = condition if self.model.is_conditional else None
        return self.model.denoise_guided(noisy, timestep, [(1.0, known)])
