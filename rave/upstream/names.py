"""Names of our weights in acids-rave."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from rave.blocks.v1 import DecoderV1
from rave.model import RAVE
from rave.upstream.posteriors import BOTTLENECK_NAMES
from rave.upstream.signals import SIGNAL_NAMES

Rules = Sequence[tuple[str, str]]  # pattern in our name, its replacement in theirs
COMMON: Rules = (
    (r"^encoder\.", "encoder.encoder."),
    (r"^pqmf\.analysis_weight$", "pqmf.forward_conv.weight"),
    (r"^pqmf\.synthesis_weight$", "pqmf.inverse_conv.weight"),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    *BOTTLENECK_NAMES,
    *SIGNAL_NAMES,
)
V1: Rules = (
    (
        r"^decoder\.net\.(\d+)\.(\d+)\.net\.",
        r"decoder.net.\1.net.branches.0.net.\2.net.aligned.branches.0.",
    ),
    (r"^decoder\.net\.(\d+)\.1\.", r"decoder.net.\1.net.1."),
    (r"^decoder\.wave\.", "decoder.synth.branches.0."),
    (r"^decoder\.loudness\.", "decoder.synth.branches.1."),
    (r"^decoder\.noise\.", "decoder.synth.branches.2."),
)
V2: Rules = (
    (r"^((?:en|de)coder\.net\.\d+)\.net\.", r"\1.aligned.branches.0.net."),
    (r"^decoder\.noise\.", "decoder.noise_module."),
)


def naming(model: RAVE) -> Rules:
    """Return the rules from names in the state of a model to acids-rave's."""
    decoder = model.decoder
    if isinstance(decoder, DecoderV1):
        return (*V1, *COMMON)
    net = decoder.get_submodule("net")
    assert isinstance(net, nn.Sequential)
    has_noise = getattr(decoder, "noise", None) is not None
    wave = "decoder.waveform_module." if has_noise else f"decoder.net.{len(net)}."
    return (*V2, (r"^decoder\.wave\.", wave), *COMMON)


def their_name(name: str, rules: Rules) -> str:
    """Return acids-rave's name of one of our weights."""
    for ours, theirs in rules:
        name = re.sub(ours, theirs, name)
    return name
