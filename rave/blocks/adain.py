"""Adaptive instance normalisation: give one sound the statistics of another in each layer.

B batch, C channels, T time steps. x is the source, y the target; names are acids-rave's, so that
its weights fit.
"""

import torch
from torch import Tensor, nn

MAX_BATCH = 64  # items with their own statistics, as in acids-rave
STD_FLOOR = 1e-5


class AdaIN(nn.Module):
    """The identity, until statistics of a source and of a target have been learnt.

    Args:
        num_channels: C.

    Attributes:
        mean_x: (MAX_BATCH, C, 1) mean of the source; std_x, mean_y, std_y likewise.
        num_update_x: (1) number of blocks in the source's statistics; num_update_y likewise.
        learn_x: (1) 1 while the source's statistics are learnt in evaluation; learn_y likewise.

    Source: Huang & Belongie 2017, arXiv:1703.06868, equation 8.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        for side in ("x", "y"):
            self.register_buffer(f"mean_{side}", torch.zeros(MAX_BATCH, num_channels, 1))
            self.register_buffer(f"std_{side}", torch.ones(MAX_BATCH, num_channels, 1))
            self.register_buffer(f"learn_{side}", torch.zeros(1))
            self.register_buffer(f"num_update_{side}", torch.zeros(1))
        self.floor = STD_FLOOR  # TorchScript reads attributes, but no globals

    mean_x: Tensor
    std_x: Tensor
    learn_x: Tensor
    num_update_x: Tensor
    mean_y: Tensor
    std_y: Tensor
    learn_y: Tensor
    num_update_y: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T) of the input's shape; B at most MAX_BATCH in evaluation."""
        if self.training:
            return x
        size = x.shape[0]
        if bool(self.learn_y):
            self._learn(x, self.mean_y, self.std_y, self.num_update_y)
            return x
        if bool(self.learn_x):
            self._learn(x, self.mean_x, self.std_x, self.num_update_x)
        if bool(self.num_update_x) and bool(self.num_update_y):
            x = (x - self.mean_x[:size]) / (self.std_x[:size] + self.floor)
            x = x * self.std_y[:size] + self.mean_y[:size]
        return x

    def _learn(self, x: Tensor, mean: Tensor, std: Tensor, count: Tensor) -> None:
        """Update the running means of mean and standard deviation with a block."""
        size = x.shape[0]
        mean[:size] += (x.mean(-1, keepdim=True) - mean[:size]) / (count + 1.0)
        std[:size] += (x.std(-1, keepdim=True) - std[:size]) / (count + 1.0)
        count += 1.0

    def reset(self) -> None:
        """Forget both statistics, so that the layer is the identity again."""
        for mean, std, count in (
            (self.mean_x, self.std_x, self.num_update_x),
            (self.mean_y, self.std_y, self.num_update_y),
        ):
            mean.zero_()
            std.fill_(1.0)
            count.zero_()

    def fixed(self) -> nn.Module:
        """Return the current state of the layer for a single item, without branches."""
        if not (bool(self.num_update_x) and bool(self.num_update_y)):
            return nn.Identity()
        scale = self.std_y[:1] / (self.std_x[:1] + self.floor)
        return Affine(scale, self.mean_y[:1] - self.mean_x[:1] * scale)


class Affine(nn.Module):
    """scale · x + shift, both (1, C, 1)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.clone())
        self.register_buffer("shift", shift.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T) of the input's shape."""
        return self.scale * x + self.shift
