"""Open runs of acids-rave's train_prior: their network, its latents, and the codec of these.

The checkpoint also holds the whole codec, under `synth.`, but not the settings to build it: the
codec is another run, identified by its weights.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from rave.prior import KERNEL_SIZE, LatentPrior
from rave.runs.gin_text import read_bindings
from rave.runs.model_size import limited_size
from rave.upstream.run import find_checkpoint, find_config, fingerprint, read_weights

CODEC = "synth."
# Ours, theirs.
NAMES = {
    r"first": "pre_net.0",
    r"blocks\.(\d+)\.dilated": r"residuals.\1.dconv",
    r"blocks\.(\d+)\.residual": r"residuals.\1.rconv",
    r"blocks\.(\d+)\.skip": r"residuals.\1.sconv",
    r"output\.(\d+)": r"post_net.\1",
}
CYCLE = re.compile(r"(.*[./])?VariationalPrior\.cycle_size")


def open_prior(path: Path) -> tuple[LatentPrior, str]:
    """Open a run of train_prior: its folder, a version of it, or a checkpoint.

    Returns:
        The prior, and the fingerprint of the codec of its latents.

    Raises:
        ValueError: If files are missing or damaged, or it is a run of another kind.
    """
    checkpoint = find_checkpoint(path)
    weights = read_weights(checkpoint)
    bindings = read_bindings(find_config(checkpoint))
    cycles = [value for name, value in bindings.items() if CYCLE.fullmatch(name)]
    if len(cycles) != 1 or not isinstance(cycles[0], int) or cycles[0] < 1:
        raise ValueError(
            f"The config.gin of '{path}' has no VariationalPrior.cycle_size, so it is not a run of "
            "train_prior."
        )
    codec = {k.removeprefix(CODEC): v for k, v in weights.items() if k.startswith(CODEC)}
    prior = prior_from_weights(weights, cycles[0], f"'{checkpoint}'")
    return prior, fingerprint(codec)


def prior_from_weights(weights: dict[str, Tensor], cycle_size: int, what: str) -> LatentPrior:
    """Return the prior of a checkpoint of acids-rave; its sizes follow from the weights.

    Args:
        weights: All weights by name, including the codec's.
        cycle_size: Blocks after which the dilation is 1 again.
        what: Name of the checkpoint in messages.

    Raises:
        ValueError: If a weight is missing or of another shape; the message names it.
    """
    hidden, num_classes, kernel = _shape(weights, "pre_net.0.weight", what)
    channels = _shape(weights, "post_net.2.weight", what)[0]
    skip = _shape(weights, "post_net.0.weight", what)[0]
    raw_size = _shape(weights, f"{CODEC}latent_pca", what)[0]
    axes, mean = weights[f"{CODEC}latent_pca"], weights.get(f"{CODEC}latent_mean")
    if mean is None or mean.shape != (raw_size,) or axes.shape != (raw_size, raw_size):
        raise ValueError(f"{what} lacks '{CODEC}latent_mean', or its latent_pca is not square.")
    latent_size, rest = divmod(channels, num_classes)
    if kernel != KERNEL_SIZE or rest or not 0 < latent_size <= raw_size:
        raise ValueError(
            f"{what} has a prior of kernel {kernel} and {channels} outputs for {num_classes} "
            f"classes and {raw_size} dimensions, which this version cannot open."
        )
    num_blocks = sum(bool(re.fullmatch(r"residuals\.\d+\.dconv\.weight", name)) for name in weights)
    with limited_size(what):
        prior = LatentPrior(
            raw_size,
            latent_size,
            num_classes,
            hidden,
            skip,
            num_blocks,
            cycle_size,
            num_groups=latent_size,
        )
    state: dict[str, Any] = prior.state_dict()
    for name, _ in prior.named_parameters():
        if _shape(weights, theirs := their_name(name), what) != tuple(state[name].shape):
            raise ValueError(
                f"{what}: weight '{theirs}' is {tuple(weights[theirs].shape)}; "
                f"{tuple(state[name].shape)} is needed."
            )
        state[name] = weights[theirs]
    prior.load_state_dict({**state, "mean": mean, "basis": axes[:latent_size]})
    prior.rest = axes[latent_size:].clone()
    return prior


def their_name(name: str) -> str:
    """Return acids-rave's name of a parameter of `LatentPrior`."""
    for ours, theirs in NAMES.items():
        name, count = re.subn(rf"^{ours}(?=\.(weight|bias)$)", theirs, name)
        if count:
            return name
    raise AssertionError(f"no name for {name}")


def _shape(weights: dict[str, Tensor], name: str, what: str) -> tuple[int, ...]:
    if name not in weights or not weights[name].numel():
        raise ValueError(f"{what} lacks '{name}', so it is not a checkpoint of train_prior.")
    return tuple(weights[name].shape)
