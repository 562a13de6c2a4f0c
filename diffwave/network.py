"""The DiffWave network over latents: gated dilated convolutions with skip connections.

B batch, K latent size, H hidden channels, N latent frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDING_SIZE = 128
STEP_CHANNELS = 512
KERNEL_SIZE = 3
CONCATENATION, FILM = "concatenation", "film"
# The longest period of the step embedding is 2π times about this many steps.
LONGEST_PERIOD = 1e4


def receptive_field(num_blocks: int, dilation_cycle: int) -> int:
    """Return the number of input frames that one output frame depends on."""
    dilation_cycle = min(dilation_cycle, num_blocks)  # there are no more dilations than blocks
    num_cycles, rest = divmod(num_blocks, dilation_cycle)
    dilations = num_cycles * ((1 << dilation_cycle) - 1) + (1 << rest) - 1
    return 1 + (KERNEL_SIZE - 1) * dilations


def fit_dilation_cycle(num_blocks: int, segment_frames: int) -> int:
    """Return the longest dilation cycle whose receptive field fits into a segment.

    DiffWave's cycle of 10 spans 0.28 s of audio but minutes of latents, most of it padding.
    """
    longest = min(num_blocks, segment_frames.bit_length())  # longer cycles never fit
    cycles = [
        cycle
        for cycle in range(1, longest + 1)
        if receptive_field(num_blocks, cycle) <= segment_frames
    ]
    return max(cycles, default=1)


class LatentNetwork(nn.Module):
    """Base class of networks over latents: (K, N) in, (K, N) out.

    Args:
        latent_size: K.
        condition_channels: Channels of the condition; 0 for a network without one.
        sizes: Other sizes by name; they are only checked to be whole numbers from 1.

    Attributes:
        receptive_field_frames: Frames that one output frame depends on; it is in their middle.
        input: First layer, applied to the noisy latents.
        blocks: Blocks of the network, applied one after the other.

    Raises:
        ValueError: If a size is not a whole number from 1.
    """

    receptive_field_frames: int
    input: nn.Conv1d
    blocks: nn.ModuleList

    def __init__(self, latent_size: int, condition_channels: int, **sizes: int) -> None:
        super().__init__()
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} is {size!r}; a whole number from 1 is needed.")
        self.latent_size = latent_size
        self.condition_channels = condition_channels

    def forward(self, noisy: Tensor, step: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the prediction.

        Args:
            noisy: (B, K, N) noisy latents.
            step: (B,) position in the schedule, 0 (no noise) to 1000 (all noise).
            condition: (B, condition_channels, N); None for a network without a condition.

        Returns:
            (B, K, N).

        Raises:
            ValueError: If shapes differ from these, or a condition is missing or not expected.
        """
        raise NotImplementedError

    def _check(self, noisy: Tensor, condition: Tensor | None) -> None:
        if noisy.ndim != 3 or noisy.shape[1] != self.latent_size:
            raise ValueError(
                f"The noisy latents have shape {tuple(noisy.shape)}; "
                f"(batch, {self.latent_size}, frames) is needed."
            )
        needed = (noisy.shape[0], self.condition_channels, noisy.shape[2])
        shape = (noisy.shape[0], 0, noisy.shape[2]) if condition is None else condition.shape
        if tuple(shape) != needed:
            raise ValueError(
                f"The condition has shape {tuple(shape)}; {needed} is needed (0 channels: no "
                "condition)."
            )


def step_layers() -> nn.Sequential:
    """Return the layers from the embedding of a timestep to (B, STEP_CHANNELS)."""
    return nn.Sequential(
        nn.Linear(EMBEDDING_SIZE, STEP_CHANNELS),
        nn.SiLU(),
        nn.Linear(STEP_CHANNELS, STEP_CHANNELS),
        nn.SiLU(),
    )


class DiffWave(LatentNetwork):
    """Predict the training target from noisy latents, their timestep and a condition.

    Args:
        latent_size: K, input and output channels.
        num_blocks: Number of residual blocks.
        hidden_channels: H.
        segment_frames: Length of a training segment, to which the dilation cycle is fitted.
        dilation_cycle: Blocks after which the dilation starts at 1 again; None to fit it.
        condition_channels: Channels of the condition; 0 for a network without one.
        out_channels: None, or K.
        conditioning: How each block uses the condition: "concatenation" with its other inputs, or
            "film", which scales and shifts each channel in each frame.

    Attributes:
        dilation_cycle: The given or fitted dilation cycle.
        receptive_field_frames: Frames that one output frame depends on.

    Raises:
        ValueError: If `out_channels` differs from `latent_size`, a size is not a whole number from
            1, or there is no such conditioning.

    Source: Kong et al. 2020, arXiv:2009.09761, section 3 and figure 2. Differs: K channels in and
    out instead of 1, lower frequencies in the step embedding (timesteps run to 1000, not 50), cycle
    fitted to the latent rate. Film: Perez et al. 2018, arXiv:1709.07871, equation 2.
    """

    def __init__(
        self,
        latent_size: int,
        num_blocks: int,
        hidden_channels: int,
        segment_frames: int,
        dilation_cycle: int | None = None,
        condition_channels: int = 0,
        out_channels: int | None = None,
        conditioning: str = CONCATENATION,
    ) -> None:
        super().__init__(
            latent_size,
            condition_channels,
            num_blocks=num_blocks,
            hidden_channels=hidden_channels,
            segment_frames=segment_frames,
            dilation_cycle=1 if dilation_cycle is None else dilation_cycle,
        )
        if out_channels not in (None, latent_size):
            raise ValueError(
                f"The network has {latent_size} input channels but {out_channels} output channels; "
                "both must be the latent size. A prediction of 1 channel would be broadcast to "
                "every channel of the noise: its best value is 0, and the loss stays at 0.8 (L1) "
                "or 1.0 (MSE)."
            )
        if conditioning not in (CONCATENATION, FILM):
            raise ValueError(
                f"There is no conditioning '{conditioning}'. "
                f"Choose one of: {CONCATENATION}, {FILM}."
            )
        cycle = dilation_cycle or fit_dilation_cycle(num_blocks, segment_frames)
        self.conditioning = conditioning
        self.dilation_cycle = cycle
        self.receptive_field_frames = receptive_field(num_blocks, cycle)
        self.input = _kaiming(nn.Conv1d(latent_size, hidden_channels, 1))
        self.step = step_layers()
        self.blocks = nn.ModuleList(
            ResidualBlock(
                hidden_channels, 2 ** (index % cycle), condition_channels, conditioning == FILM
            )
            for index in range(num_blocks)
        )
        self.skip = _kaiming(nn.Conv1d(hidden_channels, hidden_channels, 1))
        self.output = zeroed(nn.Conv1d(hidden_channels, latent_size, 1))

    def forward(self, noisy: Tensor, step: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the prediction, (B, K, N), as `LatentNetwork.forward`."""
        self._check(noisy, condition)
        return self.predict(noisy, self.step(embed_step(step)), condition)

    def predict(self, noisy: Tensor, embedding: Tensor, condition: Tensor | None) -> Tensor:
        """Return the prediction, (B, K, N), for an embedded step, (B, STEP_CHANNELS)."""
        x = functional.relu(self.input(noisy))
        skips = torch.zeros_like(x)
        for block in self.blocks:
            x, skip = block(x, embedding, condition)
            skips = skips + skip
        x = functional.relu(self.skip(skips / math.sqrt(len(self.blocks))))
        prediction: Tensor = self.output(x)
        return prediction


class ResidualBlock(nn.Module):
    """A gated dilated convolution that adds to the residual stream and to the skips.

    Args:
        channels: H.
        dilation: Frames between the taps of the convolution.
        condition_channels: Channels of the condition; 0 for none.
        is_scaled: Whether the condition also scales, instead of only shifting.
    """

    def __init__(
        self, channels: int, dilation: int, condition_channels: int, is_scaled: bool = False
    ) -> None:
        super().__init__()
        self.step = nn.Linear(STEP_CHANNELS, channels)
        self.dilated = _kaiming(
            nn.Conv1d(channels, 2 * channels, KERNEL_SIZE, padding=dilation, dilation=dilation)
        )
        self.condition = (
            _kaiming(nn.Conv1d(condition_channels, 2 * channels, 1)) if condition_channels else None
        )
        # Adding a projection of the condition equals convolving both concatenated.
        self.scale = (
            zeroed(nn.Conv1d(condition_channels, 2 * channels, 1))
            if condition_channels and is_scaled
            else None
        )
        self.output = _kaiming(nn.Conv1d(channels, 2 * channels, 1))

    def forward(
        self, x: Tensor, embedding: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream and this block's skip, each (B, H, N)."""
        y = self.dilated(x + self.step(embedding)[:, :, None])
        if self.scale is not None:
            y = y * (1.0 + self.scale(condition))
        if self.condition is not None:
            y = y + self.condition(condition)
        content, gate = y.chunk(2, dim=1)
        residual, skip = self.output(content.tanh() * gate.sigmoid()).chunk(2, dim=1)
        return (x + residual) / math.sqrt(2.0), skip


def embed_step(step: Tensor) -> Tensor:
    """Return sines and cosines of a position in the schedule: (B,) to (B, EMBEDDING_SIZE).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    half = EMBEDDING_SIZE // 2
    exponents = torch.arange(half, device=step.device, dtype=torch.float32) / (half - 1)
    angles = step.float()[:, None] * LONGEST_PERIOD**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def zeroed(layer: nn.Conv1d) -> nn.Conv1d:
    """Return a layer whose output is 0 until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _kaiming(layer: nn.Conv1d) -> nn.Conv1d:
    nn.init.kaiming_normal_(layer.weight)
    return layer
