"""Snake, a periodic activation. B batch, C channels, T time steps."""

import torch
from torch import Tensor, nn

ALPHA_FLOOR = 1e-9  # acids-rave's


class Snake(nn.Module):
    """x + sin²(αx) / α, one learnt frequency α per channel.

    Args:
        num_channels: C.

    Source: Ziyin et al. 2020, arXiv:2006.08195, equation 3.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(num_channels, 1))
        self.floor = ALPHA_FLOOR  # TorchScript reads attributes, but no globals

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape, (B, C, T)."""
        return x + torch.sin(self.alpha * x).square() / (self.alpha + self.floor)
