"""Attributes with which a host controls adaptive instance normalisation (AdaIN)."""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import torch
from torch import Tensor

from rave.streaming.host_module import INT_CODE, HostModule
from rave.streaming.model import StreamingRAVE

ATTRIBUTES = ("learn_source", "learn_target", "reset_source", "reset_target")


class Adaptation(HostModule):
    """`get_…` and `set_…` of `ATTRIBUTES`, which models without such layers do not have.

    Args:
        streaming: The model; its layers read the values set here.
        sample_rate_hz: Sample rate of the module.
    """

    encoder_adaptation: Tensor
    decoder_adaptation: Tensor

    def __init__(self, streaming: StreamingRAVE, sample_rate_hz: int) -> None:
        super().__init__(sample_rate_hz)
        self.register_buffer("encoder_adaptation", streaming.encoder_adaptation)
        self.register_buffer("decoder_adaptation", streaming.decoder_adaptation)
        for name in ATTRIBUTES if streaming.has_adaptation else ():
            self.offer_attribute(name, INT_CODE)

    def adapt(self, index: int, value: float) -> int:
        """Set an entry of both networks' `adaptation`; return 0."""
        self.encoder_adaptation[index] = value
        self.decoder_adaptation[index] = value
        return 0

    def learns(self, index: int) -> bool:
        """Return whether a side is being learnt."""
        return bool(self.encoder_adaptation[index] > 0)

    def knows(self, index: int) -> bool:
        """Return whether statistics of a side are known."""
        counts = self.encoder_adaptation + self.decoder_adaptation
        return bool(counts[index + 2] > 0)

    @torch.jit.export
    def get_learn_source(self) -> list[int]:
        """Return 1 if the statistics of the source are being learnt, else 0."""
        return [int(self.learns(0))]

    @torch.jit.export
    def set_learn_source(self, learn: int) -> int:
        """Learn the statistics of the source from what comes in; 0 stops."""
        return self.adapt(0, float(learn != 0))

    @torch.jit.export
    def get_reset_source(self) -> list[int]:
        """Return 1 if no statistics of the source are known, else 0."""
        return [int(not self.knows(0))]

    @torch.jit.export
    def set_reset_source(self, reset: int) -> int:
        """Forget the statistics of the source, unless 0."""
        return self.adapt(2, 0.0) if reset != 0 else 0

    @torch.jit.export
    def get_learn_target(self) -> list[int]:
        """Return 1 if the statistics of the target are being learnt, else 0."""
        return [int(self.learns(1))]

    @torch.jit.export
    def set_learn_target(self, learn: int) -> int:
        """Learn the statistics of the target from what comes in; 0 stops."""
        return self.adapt(1, float(learn != 0))

    @torch.jit.export
    def get_reset_target(self) -> list[int]:
        """Return 1 if no statistics of the target are known, else 0."""
        return [int(not self.knows(1))]

    @torch.jit.export
    def set_reset_target(self, reset: int) -> int:
        """Forget the statistics of the target, unless 0."""
        return self.adapt(3, 0.0) if reset != 0 else 0
