"""The interface that nn~ (Max, PureData, SuperCollider) needs of any module.

It reads `<method>_params` (channels and samples per step of input and of output), `get_methods`,
`get_attributes` with `<attribute>_params`, `get_…` and `set_…`, buffers and the sample rate. It
calls a method with whole blocks: a power of two of samples, at least the largest step.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import warnings
from inspect import get_annotations
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

# Codes of attribute types in nn~. Its booleans (0) cannot be switched off: it passes numbers as
# text, and reads "0.000000" as true. So switches are integers.
INT_CODE, FLOAT_CODE = 1, 2


class HostModule(nn.Module):
    """A module with named methods and attributes, a sample rate and no buffers for nn~.

    Args:
        sample_rate_hz: Sample rate of the module.
    """

    methods: list[str]
    attributes: list[str]
    users: dict[str, str]

    def __init_subclass__(cls) -> None:
        """Repeat the types of attributes: TorchScript reads only those of the last class."""
        bases = [base for base in reversed(cls.__mro__) if issubclass(base, HostModule)]
        cls.__annotations__ = dict(chain(*(get_annotations(base).items() for base in bases)))

    def __init__(self, sample_rate_hz: int) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.methods, self.attributes = [], []
        self.users, self.is_warm = {}, False
        self.offer_attribute("reset", INT_CODE)
        self.offer_attribute("rate_hz", INT_CODE)

    def offer_method(
        self, name: str, inputs: list[str], in_samples: int, outputs: list[str], out_samples: int
    ) -> None:
        """Declare a method to the host.

        Args:
            name: Name of the method.
            inputs: A label for each channel of the input.
            in_samples: Host samples per input step.
            outputs: A label for each channel of the output.
            out_samples: Host samples per output step.
        """
        shape = torch.tensor([len(inputs), in_samples, len(outputs), out_samples])
        self.register_buffer(f"{name}_params", shape)
        setattr(self, f"{name}_input_labels", inputs)
        setattr(self, f"{name}_output_labels", outputs)
        self.methods.append(name)

    def offer_attribute(self, name: str, code: int) -> None:
        """Declare an attribute with one value to the host; `code` is its type."""
        self.register_buffer(f"{name}_params", torch.tensor([code]))
        self.attributes.append(name)

    def begins(self, method: str, parts: list[str], batch: int) -> bool:
        """Return whether a method must restart its parts.

        It must at first, after a reset, with another batch size, and if another method has used one
        of them since.
        """
        user = f"{method} of {batch}"
        is_new = False
        for part in parts:
            is_new = is_new or self.users.get(part, "") != user
            self.users[part] = user
        return is_new

    def warm_up(self) -> None:
        """Run parts that take long at their first run."""

    @torch.jit.export
    def get_methods(self) -> list[str]:
        """Return the names of the methods; the host calls this when it loads the file."""
        if not self.is_warm:
            self.is_warm = True
            with torch.no_grad():
                self.warm_up()
        return self.methods

    @torch.jit.export
    def get_attributes(self) -> list[str]:
        """Return the names of the attributes."""
        return self.attributes

    @torch.jit.export
    def get_sample_rate(self) -> int:
        """Return the sample rate of the module."""
        return self.sample_rate_hz

    @torch.jit.export
    def set_sample_rate(self, sample_rate_hz: int) -> int:
        """Warn if the host's rate is not the module's, for which its weights were trained."""
        if sample_rate_hz != self.sample_rate_hz:
            warnings.warn(
                f"This file plays at {self.sample_rate_hz} Hz; at the host's {sample_rate_hz} Hz "
                "its speed and pitch change. Set the host's rate, or export with --host-rate.",
                stacklevel=2,
            )
        return 0

    @torch.jit.export
    def get_rate_hz(self) -> list[int]:
        """Return the sample rate that the host must run at."""
        return [self.sample_rate_hz]

    @torch.jit.export
    def set_rate_hz(self, rate_hz: int) -> int:
        """Refuse: the rate was fixed by the export."""
        return -1

    @torch.jit.export
    def get_reset(self) -> list[int]:
        """Return 1 if no stream has begun, else 0."""
        return [int(len(self.users) == 0)]

    @torch.jit.export
    def set_reset(self, reset: int) -> int:
        """Unless 0, forget the streams so far; the next block begins one."""
        if reset != 0:
            self.users.clear()
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


def rate_note(path: Path, rate_hz: int) -> str:
    """Return a note on the sample rate of a file; suggests a name with the rate if it has none."""
    note = (
        f"The host must run at {rate_hz} Hz: at another rate, speed and pitch change, unless you "
        "export with --host-rate."
    )
    if str(rate_hz) in path.stem:
        return note
    return f"{note} A name such as '{path.stem}_{rate_hz}{path.suffix}' would show the rate."
