"""A run of acids-rave: find its files, read its weights, name them, open it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from rave.blocks.bottleneck import Bottleneck, Gaussian
from rave.checkpoint import BEST, LAST, read_checkpoint
from rave.model import RAVE
from rave.upstream.config import Config
from rave.upstream.family import build_model
from rave.upstream.posteriors import BOTTLENECK_NAMES, check_codebooks
from rave.upstream.signals import SIGNAL_NAMES

CONFIG, CHECKPOINTS = "config.gin", "*.ckpt"
# Parts of a checkpoint that encode and decode do without.
TRAINING_WEIGHTS = re.compile(
    r"(discriminator|audio_distance|multiband_audio_distance)\."
    r"|(receptive_field|encoder\.warmed_up|pqmf\.hk|pqmf\.h)$"
    r"|decoder\.net\.0\.gru_state$"
    r"|encoder\.rvq\.layers\.\d+\._codebook\.inited$"
)
# The weights that make latents and audio what they are; codebooks too, where there are any.
FINGERPRINTED = re.compile(r"encoder\.encoder\.|decoder\.|pqmf\.(forward|inverse)_conv\.weight$")
FINGERPRINTED_POINTS = re.compile(r"encoder\.|" + FINGERPRINTED.pattern)


def is_run(path: Path) -> bool:
    """Return whether a path is meant as a run of acids-rave: a checkpoint, or a folder with one.

    A folder with a run.json is a run of ours.
    """
    if not path.is_dir():
        return path.suffix == ".ckpt"
    if (path / "run.json").exists():
        return False
    return (path / CONFIG).exists() or next(path.rglob(CHECKPOINTS), None) is not None


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that acids-rave takes: the newest in a folder, or the file itself.

    Of several of one time, as a copy that forgets times has them, last.ckpt goes before best.ckpt,
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


def num_decoder_layers(model: RAVE) -> int:
    """Return the number of layers before a decoder's last convolution."""
    return len(list(model.decoder.get_submodule("net").children()))


def their_name(name: str, num_decoder_layers: int) -> str:
    """Return acids-rave's name of one of our weights.

    Args:
        name: In the state of a `RAVE`, or `discriminator.…`.
        num_decoder_layers: Before the decoder's last convolution.
    """
    name = re.sub(r"^((?:en|de)coder\.net\.\d+)\.net\.", r"\1.aligned.branches.0.net.", name)
    for ours, theirs in (
        (r"^encoder\.", "encoder.encoder."),
        (r"^decoder\.wave\.", f"decoder.net.{num_decoder_layers}."),
        (r"^pqmf\.analysis_weight$", "pqmf.forward_conv.weight"),
        (r"^pqmf\.synthesis_weight$", "pqmf.inverse_conv.weight"),
        (r"\.parametrizations\.weight\.original0$", ".weight_g"),
        (r"\.parametrizations\.weight\.original1$", ".weight_v"),
        *BOTTLENECK_NAMES,
        *SIGNAL_NAMES,
    ):
        name = re.sub(ours, theirs, name)
    return name


def fingerprint(weights: Mapping[str, Tensor], bottleneck: Bottleneck) -> str:
    """Return the fingerprint of the weights of a run, by their names in its checkpoint.

    The first 16 hexadecimal digits of the sha256 of the encoder's network, the decoder and the two
    filter banks, in the order of their names: the name, then the little-endian float32 values. Of a
    model that is not variational, all that the encoder keeps counts.
    """
    digest = sha256()
    is_variational = isinstance(bottleneck, Gaussian)
    counted = FINGERPRINTED if is_variational else FINGERPRINTED_POINTS
    for name in sorted(filter(counted.match, weights)):
        value = weights[name].detach().cpu()
        array = (value.float() if value.is_floating_point() else value).numpy()
        digest.update(name.encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:16]


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint of acids-rave, by its names; no code in it is run.

    Raises:
        ValueError: If the file is damaged, or holds anything but tensors there.
    """
    content = read_checkpoint(checkpoint, "Take another checkpoint of the run.")
    weights = content.get("state_dict")
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise ValueError(f"'{checkpoint}' holds no weights of a model (state_dict).")
    return weights


def open_run(path: Path) -> tuple[RAVE, str]:
    """Open a run of acids-rave: its folder, a version of it, or a checkpoint.

    Returns:
        The model, and the fingerprint of its weights.

    Raises:
        ValueError: If files are missing or damaged, or the run uses what this version cannot open.
    """
    checkpoint = find_checkpoint(path)
    config = Config(find_config(checkpoint))
    weights = read_weights(checkpoint)
    model = build_model(config, weights)
    state = model.state_dict()
    names = {their_name(name, num_decoder_layers(model)): name for name in state}
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
            f"The checkpoint '{checkpoint}' does not fit its {CONFIG}, which explains nothing "
            f"named {left[0]} ({len(left)} in all)."
        )
    model.load_state_dict({ours: weights[theirs] for theirs, ours in names.items()})
    check_codebooks(model.bottleneck, weights, f"'{checkpoint}'")
    return model, fingerprint(weights, model.bottleneck)
