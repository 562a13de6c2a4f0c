"""The diary's faulty network, reproduced with its faults from a description of it. Not for use.

Everything that makes a diffusion model of latents fail is here on purpose, so that each
failure can be had on demand: an output of one channel that is broadcast, an output read from the
residual stream instead of the skips, latents flattened to one channel, a spectrogram stretched over
an axis that is not time. What works is in `diffwave.network`.

B batch, D latent size, N latent frames, L length of the stream (N, or D·N if flattened), R hidden
channels, M mel bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDING_SIZE, STEP_CHANNELS = 128, 512
DILATION_CYCLE = 10
NUM_MELS = 80
LEAK = 0.4
# Mel frames that the conditioner wants: a fixed number per latent frame as long as latents are
# seen as channels; one for 16 places of the stream once they are flattened.
MEL_FRAMES_PER_FRAME, PLACES_PER_MEL_FRAME = 8, 16


@dataclass(frozen=True)
class DiaryNetwork:
    """Variations of the diary's network.

    Attributes:
        is_flattened: False: (D, N) in and 1 channel out, until 23 August. True: one channel of D·N
            places, from 24 August.
        hidden_channels: R.
        num_blocks: Residual blocks.
        conditioner_channels: Between the conditioner's layers; 0 for a network without condition.
        extra_conditioner_layers: Added to its two.
        condition_gain: Above 0, y becomes (y + gain · condition) / 2.
        batch_norm: "", "output" (of each block, the model of 3 September), "y", "output and skips"
            or "everywhere" (before each activation of each block).
        scaled: "", "first" or "every": blocks that bring x, y, step and condition to one magnitude.
    """

    is_flattened: bool = False
    hidden_channels: int = 64
    num_blocks: int = 30
    conditioner_channels: int = 0
    extra_conditioner_layers: int = 0
    condition_gain: float = 0.0
    batch_norm: str = ""
    scaled: str = ""


class DiaryDiffWave(nn.Module):
    """DiffWave as the diary had it.

    Args:
        latent_size: D.
        design: Variation of the network.
    """

    def __init__(self, latent_size: int, design: DiaryNetwork) -> None:
        super().__init__()
        self.design = design
        channels = design.hidden_channels
        self.input = nn.Conv1d(1 if design.is_flattened else latent_size, channels, 1)
        self.step = nn.Sequential(
            nn.Linear(EMBEDDING_SIZE, STEP_CHANNELS),
            nn.SiLU(),
            nn.Linear(STEP_CHANNELS, STEP_CHANNELS),
            nn.SiLU(),
        )
        self.conditioner = DiaryConditioner(design) if design.conditioner_channels else None
        self.blocks = nn.ModuleList(
            DiaryBlock(design, index, 2 ** (index % DILATION_CYCLE))
            for index in range(design.num_blocks)
        )
        self.last = nn.Conv1d(channels, channels, 1)
        self.output = nn.Conv1d(channels, 1, 1)  # the fault of August: 1, whatever the input has
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, noisy: Tensor, timestep: Tensor, spectrogram: Tensor | None = None) -> Tensor:
        """Return the predicted noise.

        Args:
            noisy: (B, D, N).
            timestep: (B,) int64.
            spectrogram: (B, M, any number of frames), exactly if there is a conditioner.

        Returns:
            (B, D, N) if flattened, else (B, 1, N), which broadcasts against the noise.
        """
        prediction = self.trace(noisy, timestep, spectrogram)[0]
        return prediction.reshape(noisy.shape) if self.design.is_flattened else prediction

    def trace(
        self, noisy: Tensor, timestep: Tensor, spectrogram: Tensor | None = None
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Return the prediction over the stream, (B, 1, L), and each block's tensors."""
        stream = noisy.flatten(1)[:, None] if self.design.is_flattened else noisy
        embedding = self.step(embed_timestep(timestep))
        condition = None
        if self.conditioner is not None:
            if spectrogram is None:
                raise ValueError("This network was built with a conditioner; it needs one.")
            condition = self.conditioner(spectrogram, noisy.shape[2], stream.shape[2])
        x = functional.relu(self.input(stream))
        parts = []
        skips = torch.zeros_like(x)
        for block in self.blocks:
            x, skip, tensors = block(x, embedding, condition)
            skips = skips + skip
            parts.append(tensors)
        skips = skips / math.sqrt(len(self.blocks))  # summed, scaled, and then not used
        return self.output(functional.relu(self.last(x))), parts


class DiaryBlock(nn.Module):
    """One block: gate of a dilated convolution, half to the stream, half to the unused skips."""

    def __init__(self, design: DiaryNetwork, index: int, dilation: int) -> None:
        super().__init__()
        channels = design.hidden_channels
        self.gain = design.condition_gain
        self.is_scaled = design.scaled == "every" or (design.scaled == "first" and index == 0)
        self.step = nn.Linear(STEP_CHANNELS, channels)
        self.dilated = nn.Conv1d(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.condition = (
            nn.Conv1d(NUM_MELS, 2 * channels, 1) if design.conditioner_channels else None
        )
        self.project = nn.Conv1d(channels, 2 * channels, 1)
        kind = design.batch_norm
        self.norm_y = _norm(2 * channels, kind in ("y", "everywhere"))
        self.norm_gate = _norm(channels, kind == "everywhere")
        self.norm_output = _norm(channels, kind in ("output", "output and skips", "everywhere"))
        self.norm_skip = _norm(channels, kind == "output and skips")

    def forward(
        self, x: Tensor, embedding: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the stream, the skip, and the tensors inside: x, y, step, condition, skip."""
        step = self.step(embedding)[:, :, None]
        if self.is_scaled:
            x, step = _to_one_magnitude(x), _to_one_magnitude(step)
        y = self.norm_y(self.dilated(x + step))
        tensors = {"x": x, "step": step}
        if self.condition is not None:
            bias = self.condition(condition)
            tensors["condition"] = bias
            if self.is_scaled:
                y, bias = _to_one_magnitude(y), _to_one_magnitude(bias)
            tensors["y"] = y
            y = (y + self.gain * bias) / 2 if self.gain else y + bias
        else:
            y = _to_one_magnitude(y) if self.is_scaled else y
            tensors["y"] = y
        content, gate = y.chunk(2, dim=1)
        gated = self.norm_gate(content.tanh() * gate.sigmoid())
        residual, skip = self.project(gated).chunk(2, dim=1)
        skip = self.norm_skip(skip)
        x = self.norm_output((residual + x) / math.sqrt(2.0))
        return x, skip, {**tensors, "gated": gated, "residual": residual, "skip": skip}


class DiaryConditioner(nn.Module):
    """Spectrogram to the length of the stream: 3×3 convolutions, or transposed ones if flattened.

    The spectrogram is first brought to the number of frames that the diary's strides need, which
    there followed from its hops: 8 for each latent frame.
    """

    def __init__(self, design: DiaryNetwork) -> None:
        super().__init__()
        self.is_flattened = design.is_flattened
        inner = design.conditioner_channels
        if design.is_flattened:
            first: nn.Module = nn.ConvTranspose2d(1, inner, (4, 15), stride=(1, 4), padding=(1, 0))
            last: nn.Module = nn.ConvTranspose2d(inner, 1, (4, 10), stride=(1, 4), padding=(1, 1))
        else:
            first = nn.Conv2d(1, inner, 3, stride=(1, 3), padding=(1, 14))
            last = nn.Conv2d(inner, 1, 3, stride=(1, 3), padding=(1, 14))
        between = [
            nn.ConvTranspose2d(inner, inner, 3, padding=1)
            for _ in range(design.extra_conditioner_layers)
        ]
        self.layers = nn.ModuleList([first, *between, last])

    def forward(self, spectrogram: Tensor, num_frames: int, length: int) -> Tensor:
        """Return (B, M, L) from a spectrogram (B, M, any number of frames)."""
        needed = MEL_FRAMES_PER_FRAME * num_frames
        if self.is_flattened:
            needed = math.ceil(length / PLACES_PER_MEL_FRAME)
        x = functional.interpolate(spectrogram, size=needed, mode="linear", align_corners=False)
        x = x[:, None]
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), LEAK)
        x = x[:, 0, :NUM_MELS, :length]
        return functional.pad(x, (0, length - x.shape[2]), mode="replicate")


class DiaryCNN(nn.Module):
    """The diary's small CNN: latents as a picture, a sigmoid at the end, the timestep ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, noisy: Tensor, timestep: Tensor, spectrogram: Tensor | None = None) -> Tensor:
        """Return a prediction in (0, 1), (B, D, N), for noise that is as often below 0."""
        return self.layers(noisy[:, None])[:, 0]


def embed_timestep(timestep: Tensor) -> Tensor:
    """Return sines and cosines of timesteps at 64 frequencies from 1 up to 10,000: (B, 128)."""
    half = EMBEDDING_SIZE // 2
    frequencies = 10.0 ** (torch.arange(half, dtype=torch.float32) * 4.0 / (half - 1))
    angles = timestep.float()[:, None] * frequencies.to(timestep.device)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _norm(channels: int, is_wanted: bool) -> nn.Module:
    return nn.BatchNorm1d(channels) if is_wanted else nn.Identity()


def _to_one_magnitude(tensor: Tensor) -> Tensor:
    """Return a tensor brought to a root mean square of 1."""
    return tensor / tensor.square().mean().sqrt().clamp(min=1e-8)
