"""Open a codec in any process, and compare the outputs of two codecs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rave.codec import Codec, load_codec
from rave.compute.arrays import Float32Array
from rave.compute.device import choose_device
from rave.noise import DecoderNoise

# Of an export and its run, relative to the largest value; 0 to 2e-6 was measured over all formats.
LARGEST_DIFFERENCE = 1e-4
COMPARED_FRAMES = 4
Outputs = tuple[Float32Array, Float32Array, Float32Array]


@dataclass
class CodecSource:
    """A codec that is opened once per process; when pickled, it stores how to open it.

    Args:
        path: Run folder, or .ts file.
        device: Device to compute on; another process uses its own device of that kind.
        backend: auto, torch or openvino.
        precision: float32 or bfloat16, of encoder and decoder.
        ema: Take the averaged weights of a run of acids-rave.
        derivative: The codec was trained on the derivative of audio.
    """

    path: Path
    device: torch.device
    backend: str = "torch"
    precision: str = "float32"
    ema: bool = False
    derivative: bool = False
    _fingerprint: str = field(default="", init=False)

    @classmethod
    def of(cls, codec: str | Path, device: str, *how: Any) -> CodecSource:
        """Return the source of a codec; `how` is backend, precision, ema and derivative.

        Raises:
            ValueError: If there is no such device.
        """
        return cls(Path(codec), choose_device(device), *how)

    @cached_property
    def codec(self) -> Codec:
        """Return the codec.

        Raises:
            ValueError: If it cannot be opened, or differs from the codec of the first process.
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
                f"The codec '{self.path}' is not the same on all machines (fingerprint "
                f"{codec.format.fingerprint} instead of {self._fingerprint}). Give a path that "
                "leads to one codec on all of them."
            )
        return codec

    @property
    def settings(self) -> dict[str, str]:
        """Return the choices that a journal stores: only those that change results."""
        return {} if self.precision == "float32" else {"precision": self.precision}

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "codec"}
        state |= {"_fingerprint": self.codec.format.fingerprint}
        return state | {"path": self.path.absolute(), "device": torch.device(self.device.type)}


def noise_outputs(codec: Codec, run: Outputs | None = None) -> Outputs:
    """Return a codec's outputs for noise: posterior mean and std (D, N), and audio (C, T).

    Args:
        codec: Codec to run. Run it before its export, which folds its weights.
        run: Outputs of the run, whose latents are decoded; None: the codec is the run.
    """
    form, rng = codec.format, np.random.default_rng(0)
    audio = rng.standard_normal((form.num_channels, COMPARED_FRAMES * form.hop_samples))
    mean, std = codec.encode(0.1 * audio.astype(np.float32))
    noise = DecoderNoise(form, 0, as_encoded=True)  # not every format states what is uninformative
    return mean, std, codec.decode(mean if run is None else run[0], noise)


def largest_difference(wanted: Sequence[Any], found: Sequence[Any]) -> float:
    """Return the largest difference of arrays or tensors from those that they should equal.

    Each is relative to its largest value.
    """
    pairs = zip(wanted, found, strict=True)
    found = [float(abs(a - b).max()) / max(float(abs(a).max()), 1e-9) for a, b in pairs]
    return float(np.max(found))  # NaN if one is


def check_difference(difference: float, path: Path) -> None:
    """Refuse an export whose outputs differ from its run's, before it is written.

    Args:
        difference: Difference relative to the largest value, from `largest_difference`.
        path: Path of the export.

    Raises:
        ValueError: If it exceeds `LARGEST_DIFFERENCE` or is not a number.
    """
    if not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"'{path}' was not written: it would differ from the run by {difference:.1e} of the "
            f"largest value, more than {LARGEST_DIFFERENCE:.0e}. Check that the run is trained and "
            "its weights are finite; if so, report this as a bug."
        )
