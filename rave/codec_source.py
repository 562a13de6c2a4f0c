"""How to open a codec, in whatever process needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rave.codec import Codec, load_codec


@dataclass
class CodecSource:
    """A codec that is opened once in each process; sent to another, it is how to open it there.

    Args:
        path: See `load_codec`.
        device: To compute on; in another process the one of that kind that it is given.
        backend: See `load_codec`.
        precision: See `load_codec`.
        ema: See `load_codec`.
        derivative: See `load_codec`.
    """

    path: Path
    device: torch.device
    backend: str = "torch"
    precision: str = "float32"
    ema: bool = False
    derivative: bool = False
    _fingerprint: str = field(default="", init=False)

    @cached_property
    def codec(self) -> Codec:
        """Return the codec.

        Raises:
            ValueError: If it cannot be opened so, or is another than where it was opened first.
        """
        codec = load_codec(
            self.path,
            self.device,
            backend=self.backend,
            precision=self.precision,
            ema=self.ema,
            derivative=self.derivative,
        )
        if self._fingerprint not in ("", codec.format.fingerprint):
            raise ValueError(
                f"The codec '{self.path}' is another on one of the machines (fingerprint "
                f"{codec.format.fingerprint}, not {self._fingerprint}). Give a path to the same "
                "codec on all of them."
            )
        return codec

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "codec"}
        known = {"_fingerprint": self.codec.format.fingerprint}
        device = torch.device(self.device.type)
        return state | known | {"path": self.path.absolute(), "device": device}
