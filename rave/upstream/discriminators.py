"""The discriminators of acids-rave: its config.gin for ours, and its names of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rave.discriminator import NUM_LAYERS, PERIOD_KERNEL, SCALE_KERNEL, STRIDE
from rave.runs.gin_text import Reference
from rave.spectral_discriminators import BAND_EDGES
from rave.upstream.config import Config
from rave.upstream.names import COMMON, Rules

PERIODS, SCALES, SPECTRA, DESCRIPT, COMBINED = (
    *("MultiPeriodDiscriminator", "MultiScaleDiscriminator", "SpectralDiscriminator"),
    *("DescriptDiscriminator", "CombinedDiscriminator"),
)
# Defaults of a run that states none: the values of the paper's second version.
DEFAULT, DEFAULT_PERIODS, DEFAULT_NUM_SCALES = (PERIODS, SCALES), [2, 3, 5, 7, 11], 3


@dataclass
class Discriminators:
    """The discriminators of a run in acids-rave.

    Attributes:
        name: Class name in the config.
        bindings: Bindings of the class and of its parts.
        are_ours: Whether they are those of the run; if not, acids-rave's defaults replace them.
        num_parts: Number of discriminators if it combines several.
        windows: Buffers that only acids-rave's checkpoint stores.
    """

    name: str
    bindings: dict[str, str]
    are_ours: bool = True
    num_parts: int = 1
    windows: dict[str, Tensor] = field(default_factory=dict)


def discriminator_rules(num_parts: int) -> Rules:
    """Return the rules from our names of a discriminator's weights to acids-rave's.

    Args:
        num_parts: Number of combined discriminators; acids-rave does not combine a single one.
    """
    single = [(r"^discriminator\.discriminators\.0\.", "discriminator.")]
    return (*(single if num_parts == 1 else []), *COMMON)


def discriminators(ours: Config, capacity: int) -> Discriminators:
    """Return the discriminators of a run as acids-rave's config describes them.

    Args:
        ours: The settings of the run.
        capacity: Capacity of the encoder.
    """
    chosen = _class_name(ours.part("RaveTraining").arguments.get("discriminator"))
    if chosen == DESCRIPT:
        return _descript(ours)
    listed = ours.part(COMBINED).arguments.get("discriminators", [])
    names = [_class_name(part) for part in listed]
    are_ours = chosen == COMBINED and bool(names) and set(names) <= set(_PARTS)
    if not are_ours:
        names = list(DEFAULT)
    found = Discriminators("", {}, are_ours, len(names))
    for index, name in enumerate(names):
        place = "" if len(names) == 1 else f"discriminators.{index}."
        _PARTS[name](ours.part(name).arguments, capacity, found, f"discriminator.{place}")
    theirs = [f"@{_THEIRS[name]}" for name in names]
    if len(names) == 1:
        found.name = _THEIRS[names[0]]
    else:
        found.name = "discriminator.CombineDiscriminators"
        found.bindings[f"{found.name}.discriminators"] = f"[{', '.join(theirs)}]"
    if {PERIODS, SCALES} & set(names):
        found.bindings |= {
            "discriminator.ConvNet.out_size": "1",
            "discriminator.ConvNet.n_layers": repr(NUM_LAYERS),
            "discriminator.ConvNet.stride": repr(STRIDE),
        }
    return found


def _class_name(reference: Any) -> str:
    return reference.name.rpartition(".")[2] if isinstance(reference, Reference) else ""


Arguments = Mapping[str, Any]


def _periods(arguments: Arguments, capacity: int, found: Discriminators, place: str) -> None:
    found.bindings |= {
        "periods/discriminator.ConvNet.conv": "@nn.Conv2d",
        "periods/discriminator.ConvNet.kernel_size": f"({PERIOD_KERNEL}, 1)",
        "periods/discriminator.ConvNet.capacity": repr(arguments.get("capacity", capacity)),
        f"{_THEIRS[PERIODS]}.periods": repr(arguments.get("periods", DEFAULT_PERIODS)),
        f"{_THEIRS[PERIODS]}.convnet": "@periods/discriminator.ConvNet",
    }


def _scales(arguments: Arguments, capacity: int, found: Discriminators, place: str) -> None:
    found.bindings |= {
        "scales/discriminator.ConvNet.conv": "@nn.Conv1d",
        "scales/discriminator.ConvNet.kernel_size": repr(SCALE_KERNEL),
        "scales/discriminator.ConvNet.capacity": repr(arguments.get("capacity", capacity)),
        f"{_THEIRS[SCALES]}.n_discriminators": repr(
            arguments.get("num_scales", DEFAULT_NUM_SCALES)
        ),
        f"{_THEIRS[SCALES]}.convnet": "@scales/discriminator.ConvNet",
    }


def _spectra(arguments: Arguments, capacity: int, found: Discriminators, place: str) -> None:
    found.bindings |= {
        f"{_THEIRS[SPECTRA]}.scales": repr(arguments["sizes"]),
        f"{_THEIRS[SPECTRA]}.convnet": "@discriminator.EncodecConvNet",
        "discriminator.EncodecConvNet.capacity": repr(arguments["capacity"]),
    }
    for index, size in enumerate(arguments["sizes"]):
        found.windows[f"{place}specs.{index}.window"] = torch.hann_window(size)


def _descript(ours: Config) -> Discriminators:
    arguments, name = ours.part(DESCRIPT).arguments, _THEIRS[DESCRIPT]
    edges = list(pairwise(BAND_EDGES))
    windows = {
        f"discriminator.discriminators.{index}.stft.window": torch.hann_window(size)
        for index, size in enumerate(arguments["sizes"], len(arguments["periods"]))
    }
    bindings = {
        f"{name}.rates": "[]",
        f"{name}.periods": repr(arguments["periods"]),
        f"{name}.fft_sizes": repr(arguments["sizes"]),
        f"{name}.sample_rate": "%SAMPLING_RATE",
        f"{name}.bands": repr(edges),
    }
    return Discriminators(
        name, bindings, num_parts=len(windows) + len(arguments["periods"]), windows=windows
    )


_PARTS = {PERIODS: _periods, SCALES: _scales, SPECTRA: _spectra}
_THEIRS = {
    PERIODS: "discriminator.MultiPeriodDiscriminator",
    SCALES: "discriminator.MultiScaleDiscriminator",
    SPECTRA: "discriminator.MultiScaleSpectralDiscriminator",
    DESCRIPT: "descript_discriminator.DescriptDiscriminator",
}
