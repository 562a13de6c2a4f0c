"""The attributes by which a host gives one sound the statistics of another (AdaIN)."""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import torch
from torch import Tensor

from rave.host_module import BOOL_CODE, HostModule
from rave.streaming_model import StreamingRAVE

ATTRIBUTES = ("learn_source", "learn_target", "reset_source", "reset_target")


class Adaptation(HostModule):
    """`get_…` and `set_…` of `ATTRIBUTES`, which models without such layers do not offer.

    Args:
        streaming: The model; its layers read what is set here.
        sample_rate_hz: That the module works at.
    """

    encoder_adaptation: Tensor
    decoder_adaptation: Tensor

    def __init__(self, streaming: StreamingRAVE, sample_rate_hz: int) -> None:
        super().__init__(sample_rate_hz)
        self.register_buffer("encoder_adaptation", streaming.encoder_adaptation)
        self.register_buffer("decoder_adaptation", streaming.decoder_adaptation)
        for name in ATTRIBUTES if streaming.has_adaptation else ():
            self.offer_attribute(name, BOOL_CODE)

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
    def get_learn_source(self) -> list[bool]:
        """Return whether the statistics of the source are being learnt."""
        return [self.learns(0)]

    @torch.jit.export
    def set_learn_source(self, learn: bool) -> int:
        """Learn the statistics of the source from what comes in, or stop."""
        return self.adapt(0, 1.0 if learn else 0.0)

    @torch.jit.export
    def get_reset_source(self) -> list[bool]:
        """Return whether no statistics of the source are known."""
        return [not self.knows(0)]

    @torch.jit.export
    def set_reset_source(self, reset: bool) -> int:
        """Forget the statistics of the source."""
        return self.adapt(2, 0.0) if reset else 0

    @torch.jit.export
    def get_learn_target(self) -> list[bool]:
        """Return whether the statistics of the target are being learnt."""
        return [self.learns(1)]

    @torch.jit.export
    def set_learn_target(self, learn: bool) -> int:
        """Learn the statistics of the target from what comes in, or stop."""
        return self.adapt(1, 1.0 if learn else 0.0)

    @torch.jit.export
    def get_reset_target(self) -> list[bool]:
        """Return whether no statistics of the target are known."""
        return [not self.knows(1)]

    @torch.jit.export
    def set_reset_target(self, reset: bool) -> int:
        """Forget the statistics of the target."""
        return self.adapt(3, 0.0) if reset else 0
