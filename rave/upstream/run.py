"""A run of acids-rave: find its files, read its weights, open it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from rave.blocks.bottleneck import Gaussian
from rave.model import RAVE
from rave.runs.checkpoint import BEST, LAST, read_checkpoint
from rave.runs.model_size import limited_size
from rave.upstream.config import Config
from rave.upstream.family import build_model
from rave.upstream.names import naming, their_name
from rave.upstream.posteriors import check_codebooks

CONFIG, CHECKPOINTS = "config.gin", "*.ckpt"
# Parts of a checkpoint that encode and decode do not need.
TRAINING_WEIGHTS = re.compile(
    r"(discriminator|audio_distance|multiband_audio_distance)\."
    r"|(receptive_field|(en|de)coder\.warmed_up|pqmf\.hk|pqmf\.h)$"
    r"|decoder\..*\.target_size$"  # of a noise generator: its block length
    r"|decoder\.net\.0\.gru_state$"
    r"|encoder\.rvq\.layers\.\d+\._codebook\.inited$"
    r"|.*\.(pad|cache)$"  # state of a streaming model
)
NOISE_IS_ON = "decoder.warmed_up"
# Weights that determine latents and audio; including codebooks, if there are any.
FINGERPRINTED = re.compile(r"encoder\.encoder\.|decoder\.|pqmf\.(forward|inverse)_conv\.weight$")
FINGERPRINTED_POINTS = re.compile(r"encoder\.|" + FINGERPRINTED.pattern)


def is_run(path: Path) -> bool:
    """Return whether a path looks like a run of acids-rave: a checkpoint, or a folder with one.

    A folder with a run.json is one of our runs.
    """
    if not path.is_dir():
        return path.suffix == ".ckpt"
    if (path / "run.json").exists():
        return False
    return (path / CONFIG).exists() or next(path.rglob(CHECKPOINTS), None) is not None


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that acids-rave uses: the newest in a folder, or the file itself.

    If several have the same time, as after a copy without times, last.ckpt comes before best.ckpt,
    and both before the others.

    Raises:
        ValueError: If there is none.
    """
    if path.suffix == ".ckpt":
        if not path.is_file():
            raise ValueError(f"The checkpoint '{path}' does not exist.")
        return path

    def age(found: Path) -> tuple[int, int, str]:
        rank = {LAST: 2, BEST: 1}.get(found.name, 0)
        return found.stat().st_mtime_ns, rank, str(found)

    found = list(path.rglob(CHECKPOINTS))
    if not found:
        raise ValueError(
            f"'{path}' holds no checkpoint (*.ckpt). Give the run folder that acids-rave trained."
        )
    return max(found, key=age)


def find_config(checkpoint: Path) -> Path:
    """Return the config.gin of a checkpoint: beside it, or up to two folders above.

    Raises:
        ValueError: If there is none, or the checkpoint belongs to a run of ours.
    """
    folders = [checkpoint.absolute().parent, *checkpoint.absolute().parents[1:3]]
    for folder in folders:
        if (folder / "run.json").exists():
            raise ValueError(
                f"'{checkpoint}' belongs to the run folder '{folder}' of `rave train`. "
                "Give that folder."
            )
        if (folder / CONFIG).is_file():
            return folder / CONFIG
    raise ValueError(
        f"There is no {CONFIG} beside '{checkpoint}' or up to two folders above it. Copy it there "
        "from the run folder that acids-rave trained."
    )


def fingerprint(weights: Mapping[str, Tensor], is_variational: bool = True) -> str:
    """Return the fingerprint of the weights of a run, by their names in its checkpoint.

    The first 16 hexadecimal digits of the sha256 of the encoder's network, the decoder and the two
    filter banks, in the order of their names: the name, then the little-endian float32 values. In a
    model that is not variational, the whole state of the encoder counts.
    """
    digest = sha256()
    counted = FINGERPRINTED if is_variational else FINGERPRINTED_POINTS
    for name in sorted(filter(counted.match, weights)):
        value = weights[name].detach().cpu()
        array = (value.float() if value.is_floating_point() else value).numpy()
        digest.update(name.encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:16]


def read_weights(checkpoint: Path, ema: bool = False) -> dict[str, Tensor]:
    """Return the weights in a checkpoint of acids-rave, by its names; no code in it is run.

    Args:
        checkpoint: The file.
        ema: Take the averaged weights, which its `train --ema` stores.

    Raises:
        ValueError: If the file is damaged, its weights are not tensors, or it has no averages.
    """
    content = read_checkpoint(checkpoint, "Take another checkpoint of the run.")
    weights = content.get("state_dict")
    if not _is_weights(weights):
        raise ValueError(f"'{checkpoint}' holds no model weights (state_dict).")
    if not ema:
        return weights
    callbacks = content.get("callbacks")
    averages = callbacks.get("EMA") if isinstance(callbacks, dict) else None
    if not averages or not _is_weights(averages):
        raise ValueError(f"'{checkpoint}' holds no averaged weights (EMA). Open it without --ema.")
    return {**weights, **averages}


def _is_weights(content: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def open_run(path: Path, ema: bool = False) -> tuple[RAVE, str, dict[str, Tensor]]:
    """Open a run of acids-rave: its folder, a version of it, or a checkpoint.

    Args:
        path: Run folder, version folder or checkpoint.
        ema: Take the averaged weights.

    Returns:
        The model, the fingerprint of its weights, and the weights as they were read.

    Raises:
        ValueError: If files are missing or damaged, or this version cannot open the run.
    """
    checkpoint = find_checkpoint(path)
    config = Config(find_config(checkpoint))
    weights = read_weights(checkpoint, ema)
    with limited_size(f"'{checkpoint}'"):
        model = build_model(config, weights)
    state = model.state_dict()
    names = {their_name(name, naming(model)): name for name in state}
    for theirs, ours in names.items():
        found = tuple(weights[theirs].shape) if theirs in weights else "missing"
        if found != tuple(state[ours].shape):
            needed = tuple(state[ours].shape)
            raise ValueError(
                f"The checkpoint '{checkpoint}' does not fit its {CONFIG} ({theirs} is {found}; "
                f"{needed} is needed)."
            )
    left = [n for n in weights if n not in names and not TRAINING_WEIGHTS.match(n)]
    if left:
        raise ValueError(
            f"The checkpoint '{checkpoint}' does not fit its {CONFIG}: it has unknown weights such "
            f"as {left[0]} ({len(left)} in total)."
        )
    model.load_state_dict({ours: weights[theirs] for theirs, ours in names.items()})
    if not weights.get(NOISE_IS_ON, 1):  # v1 in phase 1: an untrained generator
        setattr(model.decoder, "noise", None)  # noqa: B010 - typed as a Module
    check_codebooks(model.bottleneck, weights, f"'{checkpoint}'")
    return model, fingerprint(weights, isinstance(model.bottleneck, Gaussian)), weights
