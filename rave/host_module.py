"""What nn~ (Max, PureData, SuperCollider) asks of any module, whatever its methods do.

It asks for `<method>_params` (channels and samples per step of input and of output), `get_methods`,
`get_attributes` with `<attribute>_params`, `get_…` and `set_…`, buffers and the sample rate. It
calls a method with whole blocks: a power of two of samples, at least the largest step.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import torch
from torch import Tensor, nn

BOOL_CODE, INT_CODE, FLOAT_CODE = range(3)  # of attribute types in nn~


class HostModule(nn.Module):
    """Methods and attributes by name, a sample rate, and no buffers.

    Args:
        sample_rate_hz: That the module works at.
    """

    methods: list[str]
    attributes: list[str]

    def __init__(self, sample_rate_hz: int) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.methods, self.attributes = [], []

    def offer_method(
        self, name: str, inputs: list[str], in_samples: int, outputs: list[str], out_samples: int
    ) -> None:
        """Tell the host of a method.

        Args:
            name: Of the method.
            inputs: A label for each channel of the input.
            in_samples: Of the host per step of the input.
            outputs: A label for each channel of the output.
            out_samples: Of the host per step of the output.
        """
        shape = torch.tensor([len(inputs), in_samples, len(outputs), out_samples])
        self.register_buffer(f"{name}_params", shape)
        setattr(self, f"{name}_input_labels", inputs)
        setattr(self, f"{name}_output_labels", outputs)
        self.methods.append(name)

    def offer_attribute(self, name: str, code: int) -> None:
        """Tell the host of an attribute with one value of a type."""
        self.register_buffer(f"{name}_params", torch.tensor([code]))
        self.attributes.append(name)

    @torch.jit.export
    def get_methods(self) -> list[str]:
        """Return the names of the methods of the host."""
        return self.methods

    @torch.jit.export
    def get_attributes(self) -> list[str]:
        """Return the names of the attributes of the host."""
        return self.attributes

    @torch.jit.export
    def get_sample_rate(self) -> int:
        """Return the sample rate that the module works at."""
        return self.sample_rate_hz

    @torch.jit.export
    def set_sample_rate(self, sample_rate_hz: int) -> int:
        """Hear of the host's rate, and keep the module's: its weights are made for it."""
        return 0

    @torch.jit.export
    def get_buffer_attributes(self) -> list[str]:
        """Return no names: the module reads no buffers of the host."""
        empty: list[str] = []
        return empty

    @torch.jit.export
    def set_buffer_attribute(self, name: str, buffer: Tensor, sample_rate_hz: int) -> int:
        """Refuse."""
        return -1

    @torch.jit.export
    def clear_buffer_attribute(self, name: str) -> int:
        """Refuse."""
        return -1

    @torch.jit.export
    def is_buffer_empty(self, name: str) -> bool:
        """Return True."""
        return True
