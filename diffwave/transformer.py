"""A diffusion transformer over latents, with the interface of `network.LatentNetwork`.

B batch, K latent size, H hidden channels, N latent frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffwave.network import STEP_CHANNELS, LatentNetwork, embed_step, step_layers, zeroed

HEAD_CHANNELS = 32
# Kernel size of the convolution before attention: a frame and two on each side.
LOCAL_FRAMES = 5
# The longest period of the rotary positions is about 2π times this many frames.
LONGEST_ROTATION = 1000.0
Rotation = tuple[Tensor, Tensor]


class DiffusionTransformer(LatentNetwork):
    """Predict the training target from noisy latents, their timestep and a condition.

    Args:
        latent_size: K, input and output channels.
        num_blocks: Number of blocks, each with attention and a multilayer perceptron.
        hidden_channels: H, a multiple of 32.
        attention_frames: Frames to each side that a frame attends to. The limit lets a model
            generate clips longer than its training segments, also in windows.
        condition_channels: Channels of the condition; 0 for a network without one.

    Attributes:
        receptive_field_frames: Frames that one output frame depends on.

    Raises:
        ValueError: If a size is not a whole number from 1, or H is not a multiple of 32.

    Source: Peebles & Xie 2023, arXiv:2212.09748, section 3.2 (modulation by the timestep). Differs:
    gates start at 1, not 0; rotary positions (Su et al. 2021, arXiv:2104.09864, section 3.2); a
    depthwise convolution before attention; attention to near frames only; the condition is
    concatenated with the input, frame by frame.
    """

    def __init__(
        self,
        latent_size: int,
        num_blocks: int,
        hidden_channels: int,
        attention_frames: int,
        condition_channels: int = 0,
    ) -> None:
        super().__init__(
            latent_size,
            condition_channels,
            num_blocks=num_blocks,
            hidden_channels=hidden_channels,
            attention_frames=attention_frames,
        )
        if hidden_channels % HEAD_CHANNELS:
            raise ValueError(
                f"hidden_channels is {hidden_channels}; the transformer needs a multiple of "
                f"{HEAD_CHANNELS}."
            )
        self.attention_frames = attention_frames
        # The input's convolution, then the convolution and attention of each block.
        self.receptive_field_frames = 3 + num_blocks * (LOCAL_FRAMES - 1 + 2 * attention_frames)
        self.input = nn.Conv1d(latent_size + condition_channels, hidden_channels, 3, padding=1)
        self.step = step_layers()
        self.blocks = nn.ModuleList(TransformerBlock(hidden_channels) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(hidden_channels)
        self.output = zeroed(nn.Conv1d(hidden_channels, latent_size, 1))

    def forward(self, noisy: Tensor, step: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the prediction, (B, K, N), as `LatentNetwork.forward`."""
        self._check(noisy, condition)
        inputs = noisy if condition is None else torch.cat([noisy, condition], dim=1)
        x = self.input(inputs).transpose(1, 2)
        embedding = self.step(embed_step(step))
        position = torch.arange(x.shape[1], device=x.device)
        is_near = (position[:, None] - position).abs() <= self.attention_frames
        half = HEAD_CHANNELS // 2
        speed = LONGEST_ROTATION ** -(torch.arange(half, device=x.device) / half)
        angle = position[:, None].float() * speed
        rotation = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, embedding, rotation, is_near)
        prediction: Tensor = self.output(self.norm(x).transpose(1, 2))
        return prediction


class TransformerBlock(nn.Module):
    """Attention to near frames, then a multilayer perceptron, both modulated by the timestep.

    Args:
        channels: H.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(
            channels, channels, LOCAL_FRAMES, padding=LOCAL_FRAMES // 2, groups=channels
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(channels, elementwise_affine=False) for _ in range(2)
        )
        self.queries_keys_values = nn.Linear(channels, 3 * channels)
        self.mix = nn.Linear(channels, channels)
        self.perceptron = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.modulation = nn.Linear(STEP_CHANNELS, 6 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedding: Tensor, rotation: Rotation, is_near: Tensor) -> Tensor:
        """Return the residual stream (B, N, H) after this block.

        Args:
            x: (B, N, H) residual stream before this block.
            embedding: (B, STEP_CHANNELS) embedding of the timestep.
            rotation: Cosine and sine of each position, (N, 16) each.
            is_near: (N, N) bool, whether a frame attends to another.
        """
        changes = self.modulation(embedding)[:, None].chunk(6, dim=2)
        shift, scale, gate = changes[:3]
        y = self.norms[0](x) * (1.0 + scale) + shift
        y = y + self.near(y.transpose(1, 2)).transpose(1, 2)
        queries, keys, values = (
            part.unflatten(2, (-1, HEAD_CHANNELS)).transpose(1, 2)
            for part in self.queries_keys_values(y).chunk(3, dim=2)
        )
        y = functional.scaled_dot_product_attention(
            _rotated(queries, rotation), _rotated(keys, rotation), values, attn_mask=is_near
        )
        x = x + (1.0 + gate) * self.mix(y.transpose(1, 2).flatten(2))
        shift, scale, gate = changes[3:]
        change: Tensor = self.perceptron(self.norms[1](x) * (1.0 + scale) + shift)
        return x + (1.0 + gate) * change


def _rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Return queries or keys (B, heads, N, 32), rotated by their position."""
    cosine, sine = rotation
    one, other = x.chunk(2, dim=3)
    return torch.cat([one * cosine - other * sine, one * sine + other * cosine], dim=3)
