"""A run of ours as a run folder that acids-rave opens. M bands, P taps of a band filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rave.blocks.bottleneck import Gaussian
from rave.blocks.noise import NoiseGenerator
from rave.blocks.signals import Recurrent
from rave.blocks.v1 import UNIT_KERNEL, DecoderV1, EncoderV1
from rave.blocks.v2 import DecoderV2, EncoderV2
from rave.checkpoint import last_checkpoint, model_weights, packed, read_checkpoint
from rave.codec import load_model
from rave.files import atomic_folder
from rave.gin_text import Reference
from rave.model import RAVE
from rave.pqmf import prototype_filter
from rave.upstream.config import Config
from rave.upstream.export_config import (
    DISCRIMINATORS,
    attenuation_db,
    config_text,
    is_causal,
    scales,
    theirs,
    training,
)
from rave.upstream.names import COMMON, naming, their_name
from rave.upstream.run import CONFIG, is_run

CHECKPOINT = Path("version_0") / "checkpoints" / "last.ckpt"


def export_run(run: Path, out: Path) -> bool:
    """Write a run of `rave train` as a run folder of acids-rave, whole or not at all.

    Discriminators go along if the checkpoint has them and they are of the kinds that acids-rave
    has. States of the optimizers do not: acids-rave encodes, decodes and exports such a run, but
    cannot continue it.

    Args:
        run: Folder of `rave train`.
        out: Folder to make; may exist if it is empty.

    Returns:
        Whether the discriminators went along.

    Raises:
        ValueError: If the run cannot be read, acids-rave has no such model, or `out` is not empty.
        OSError: If `out` cannot be written.
    """
    if is_run(run):
        raise ValueError(f"'{run}' is a run of acids-rave already. Copy it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"'{out}' exists and is not an empty folder. Choose another name.")
    model, ours = load_model(run), Config(run / "config.gin")
    _check_expressible(model, ours, run)
    checkpoint = read_checkpoint(last_checkpoint(run))
    discriminators = _discriminator_weights(checkpoint, ours)
    weights = {**_model_weights(checkpoint, model, ours), **discriminators}
    content = {
        "epoch": int(checkpoint.get("epoch", 0)),
        "global_step": int(checkpoint["global_step"]),
        "pytorch-lightning_version": str(checkpoint.get("pytorch-lightning_version", "2.6.2")),
        "state_dict": weights,
        "callbacks": {},
    }
    with atomic_folder(out) as folder:
        (folder / CONFIG).write_text(config_text(model, ours))
        (folder / CHECKPOINT).parent.mkdir(parents=True)
        (folder / CHECKPOINT).write_bytes(packed(content))
    return bool(discriminators)


def _check_expressible(model: RAVE, ours: Config, run: Path) -> None:
    """Refuse a model that acids-rave has no parts for."""
    parts = (type(model.encoder), type(model.decoder))
    if parts not in ((EncoderV1, DecoderV1), (EncoderV2, DecoderV2)):
        told = " with ".join(part.__name__ for part in parts)
        raise ValueError(f"'{run}' uses {told}, which acids-rave does not have.")
    for part in parts:
        for argument in ("activation", "adaptation"):
            theirs(ours.part(part.__name__).arguments.get(argument))
    if type(model.bottleneck) is not Gaussian:
        raise ValueError(
            f"'{run}' has {type(model.bottleneck).__name__} latents, which this version cannot "
            "write for acids-rave. Export it as TorchScript."
        )
    is_recurrent = any(isinstance(layer, Recurrent) for layer in model.decoder.modules())
    if model.spectrogram is not None or model.is_raw_output or is_recurrent:
        raise ValueError(
            f"'{run}' sees a spectrogram, gives audio without bands, or is recurrent, which this "
            "version cannot write for acids-rave. Export it as TorchScript."
        )
    noise = getattr(model.decoder, "noise", None)
    if noise is not None and not _is_their_noise(noise, ours, parts[1] is DecoderV1):
        raise ValueError(
            f"'{run}' uses {type(noise).__name__} in a way that acids-rave does not have, such as "
            "with responses that overlap. Export it as TorchScript."
        )
    causal = {name: is_causal(ours, name) for name in ("PQMF", *(p.__name__ for p in parts))}
    if len(set(causal.values())) > 1:
        told = ", ".join(f"{name} {value}" for name, value in causal.items())
        raise ValueError(
            f"'{run}' is causal in parts (is_causal: {told}); in acids-rave a run is so as a whole."
        )


def _is_their_noise(noise: NoiseGenerator, ours: Config, is_v1: bool) -> bool:
    arguments = ours.part("NoiseGenerator").arguments
    if noise.overlaps:
        return False
    if not is_v1:
        return noise.is_causal and arguments.get("kernel_size") is None
    capacity = ours.part("DecoderV1").arguments["capacity"]
    return (
        arguments.get("kernel_size") == UNIT_KERNEL
        and arguments["hidden_channels"] == capacity
        and arguments.get("activation") is None
        and noise.is_causal == is_causal(ours, "DecoderV1")
    )


def _model_weights(checkpoint: dict[str, Any], model: RAVE, ours: Config) -> dict[str, Tensor]:
    """Return what acids-rave's model of this kind keeps, but its discriminators."""
    rules = naming(model)
    weights = {their_name(n, rules): value for n, value in model_weights(checkpoint).items()}
    bands = model.pqmf.num_bands
    prototype = torch.from_numpy(prototype_filter(attenuation_db(ours), bands)).float()
    is_second_phase = checkpoint["global_step"] >= training(ours, "phase_1_steps", 1000000)
    weights |= {
        "pqmf.h": prototype,
        "pqmf.hk": model.pqmf.analysis_weight[:, 0, :-1].clone(),  # (M, P), one zero tap less
        "encoder.warmed_up": torch.tensor(int(is_second_phase)),
        "receptive_field": torch.zeros(2, dtype=torch.int64),  # not measured: acids-rave will
    }
    if isinstance(model.decoder, DecoderV1):
        weights["decoder.warmed_up"] = torch.tensor(1)  # there the noise waits for it
    noise = getattr(model.decoder, "noise", None)
    if noise is not None:
        size = torch.tensor(noise.block_steps)
        weights[their_name("decoder.noise.target_size", rules)] = size
    for index, num_taps in enumerate(scales(ours)):
        for distance in ("audio_distance", "multiband_audio_distance"):
            name = f"{distance}.multiscale_stft.stfts.{index}.window"
            weights[name] = torch.hann_window(num_taps)
    return weights


def _discriminator_weights(checkpoint: dict[str, Any], ours: Config) -> dict[str, Tensor]:
    """Return the weights of the discriminators, or none if acids-rave has none of their kinds."""
    combined = ours.part("CombinedDiscriminator").arguments.get("discriminators", [])
    names = [d.name.rpartition(".")[2] for d in combined if isinstance(d, Reference)]
    if names != DISCRIMINATORS:
        return {}
    state = checkpoint["state_dict"]
    return {
        their_name(n, COMMON): value for n, value in state.items() if n.startswith("discriminator.")
    }
