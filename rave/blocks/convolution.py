"""Convolutions with explicit padding, weight normalisation and a known receptive field.

B batch, C channels, T time steps.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

LEAKY_SLOPE = 0.2  # arXiv:2111.05011 and its code; in every layer of the family


def padding(kernel_size: int, dilation: int = 1, *, is_causal: bool = False) -> tuple[int, int]:
    """Return the zeros to put left and right of the input so that stride 1 keeps its length.

    A centred convolution of even span has the extra zero on the right:

        kernel 4:   0 [a b c d] 0 0      output 0 sees (0, a, b, c)
    """
    span = (kernel_size - 1) * dilation
    return (span, 0) if is_causal else (span // 2, span - span // 2)


class Conv1d(nn.Module):
    """Zero-padded convolution; T → ceil(T / stride).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps.
        stride: Input steps per output step.
        dilation: Input steps between taps.
        is_causal: Put all zeros on the left, so that no output sees later input.
        groups: Channel groups that do not see each other.
        has_bias: Add a number to each output channel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        is_causal: bool = False,
        groups: int = 1,
        has_bias: bool = False,
    ) -> None:
        super().__init__()
        left, right = padding(kernel_size, dilation, is_causal=is_causal)
        self.left, self.right = left, right
        self.stride, self.dilation, self.groups = stride, dilation, groups
        reference = nn.Conv1d(in_channels, out_channels, kernel_size, groups=groups, bias=has_bias)
        # torch's default initialisation
        self.weight, self.bias = reference.weight, reference.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, ceil(T / stride)) for (B, in_channels, T)."""
        x = functional.pad(x, (self.left, self.right))
        return functional.conv1d(
            x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class ConvTranspose1d(nn.Module):
    """Transposed convolution of kernel 2r and stride r; T → r·T.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Output steps per input step, r; even, or the length would not be r·T.
        has_bias: Add a number to each output channel.

    Raises:
        ValueError: If `stride` is odd.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, has_bias: bool = False
    ) -> None:
        super().__init__()
        if stride % 2:
            raise ValueError(f"Upsampling ratio {stride} is odd; use even ratios such as 2 or 4.")
        self.stride = stride
        reference = nn.ConvTranspose1d(in_channels, out_channels, 2 * stride, bias=has_bias)
        self.weight, self.bias = reference.weight, reference.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, r·T) for (B, in_channels, T)."""
        return functional.conv_transpose1d(x, self.weight, self.bias, self.stride, self.stride // 2)


def normalised(layer: nn.Module) -> nn.Module:
    """Return the layer with weight normalisation over all axes but the first (arXiv:1602.07868)."""
    return weight_norm(layer)


def fold_weight_norm(module: nn.Module) -> None:
    """Replace every normalised weight in `module` by its value, for inference and export."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")


def reach(layers: Iterable[nn.Module], samples_per_step: int) -> tuple[int, int]:
    """Return how many samples left and right of a step a chain of layers can see, as a bound.

    Args:
        layers: Layers in order; only `Conv1d` and `ConvTranspose1d` reach beyond a step.
        samples_per_step: Samples per time step of the chain's input.
    """
    left = right = 0
    for layer in layers:
        if isinstance(layer, Conv1d):
            left += layer.left * samples_per_step
            right += layer.right * samples_per_step
            samples_per_step *= layer.stride
        elif isinstance(layer, ConvTranspose1d):
            left += 2 * samples_per_step
            right += samples_per_step
            samples_per_step //= layer.stride
    return left, right
