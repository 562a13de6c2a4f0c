"""Export a run as a run folder that acids-rave opens and continues. M bands, P taps per band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rave.blocks.bottleneck import Discrete, Spherical
from rave.blocks.noise import NoiseGenerator
from rave.blocks.signals import Recurrent
from rave.blocks.v1 import UNIT_KERNEL, DecoderV1, EncoderV1
from rave.blocks.v2 import DecoderV2, EncoderV2
from rave.codec import OpenedRun, open_run
from rave.export.acids_rave_config import (
    attenuation_db,
    capacity,
    config_text,
    is_causal,
    scales,
    training,
)
from rave.export.acids_rave_networks import LATENTS, theirs
from rave.files.atomic import atomic_folder, check_new_folder
from rave.model import RAVE
from rave.pqmf import prototype_filter
from rave.runs.checkpoint import model_weights, packed
from rave.upstream.config import Config
from rave.upstream.discriminators import Discriminators, discriminator_rules, discriminators
from rave.upstream.names import naming, their_name
from rave.upstream.run import CONFIG, is_run

CHECKPOINT = Path("version_0") / "checkpoints" / "last.ckpt"
# Learning rates and betas of acids-rave's two optimizers, and decay of the first in phase 1.
RATES, MOMENTUM, LAST_RATE_FACTOR = (1e-3, 1e-4), (0.5, 0.9), 0.1


def export_run(run: Path, out: Path, opened: OpenedRun | None = None) -> bool:
    """Write a run of `rave train` as a run folder of acids-rave, whole or not at all.

    Discriminators are exported if the checkpoint has them and acids-rave supports them. It then
    continues the run at its step, with fresh optimizers; without them it only encodes, decodes and
    exports.

    Args:
        run: Folder of `rave train`.
        out: Folder to make; may exist if it is empty.
        opened: The run, if it is already open.

    Returns:
        Whether the discriminators were exported.

    Raises:
        ValueError: If the run cannot be read, acids-rave has no such model, or `out` is not empty.
        OSError: If `out` cannot be written.
    """
    if is_run(run):
        raise ValueError(f"'{run}' is already a run of acids-rave. Copy it.")
    check_new_folder(out)
    model, _, checkpoint = opened or open_run(run)
    ours = Config(run / "config.gin")
    _check_expressible(model, ours, run)
    described = discriminators(ours, capacity(model, ours))
    weights = _discriminator_weights(checkpoint, described)
    content = {
        "epoch": int(checkpoint.get("epoch", 0)),
        "global_step": int(checkpoint["global_step"]),
        "pytorch-lightning_version": "1.9.0",  # acids-rave's: newer ones have other states
        "state_dict": {**_model_weights(checkpoint, model, ours), **weights},
        "callbacks": {},
    }
    if weights:
        content |= _training_state(checkpoint, model, ours)
    with atomic_folder(out) as folder:
        (folder / CONFIG).write_text(config_text(model, ours, described))
        (folder / CHECKPOINT).parent.mkdir(parents=True)
        (folder / CHECKPOINT).write_bytes(packed(content))
    return bool(weights)


def _check_expressible(model: RAVE, ours: Config, run: Path) -> None:
    """Refuse a model with parts that acids-rave does not have."""
    parts = (type(model.encoder), type(model.decoder))
    if parts not in ((EncoderV1, DecoderV1), (EncoderV2, DecoderV2)):
        names = " with ".join(part.__name__ for part in parts)
        raise ValueError(f"'{run}' uses {names}, which acids-rave does not have.")
    for part in parts:
        for argument in ("activation", "adaptation"):
            theirs(ours.part(part.__name__).arguments.get(argument))
    if type(model.bottleneck) not in LATENTS:
        raise ValueError(
            f"'{run}' has {type(model.bottleneck).__name__} latents, which acids-rave does not "
            "have. Export it as TorchScript."
        )
    noise = getattr(model.decoder, "noise", None)
    if noise is not None and not _is_their_noise(noise, ours, parts[1] is DecoderV1):
        raise ValueError(
            f"'{run}' uses {type(noise).__name__} in a way that acids-rave does not support, such "
            "as with overlapping responses. Export it as TorchScript, or train with "
            "--set noise.NoiseGenerator.overlaps=False --set noise.NoiseGenerator.is_causal=True."
        )
    causal = {name: is_causal(ours, name) for name in ("PQMF", *(p.__name__ for p in parts))}
    if len(set(causal.values())) > 1:
        values = ", ".join(f"{name} {value}" for name, value in causal.items())
        raise ValueError(
            f"'{run}' is partly causal (is_causal: {values}); acids-rave supports only runs that "
            "are causal as a whole or not at all."
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
    """Return the weights of acids-rave's model of this kind, without discriminators."""
    rules = naming(model)
    weights = {their_name(n, rules): value for n, value in model_weights(checkpoint).items()}
    bands = model.pqmf.num_bands
    prototype = torch.from_numpy(prototype_filter(attenuation_db(ours), bands)).float()
    weights |= {
        "pqmf.h": prototype,
        "pqmf.hk": model.pqmf.analysis_weight[:, 0, :-1].clone(),  # (M, P), one zero tap less
        "receptive_field": torch.zeros(2, dtype=torch.int64),  # not measured: acids-rave will
    }
    if not isinstance(model.bottleneck, Spherical):
        # Also in phase 2, which its callback's state stores: a frozen encoder cannot be measured.
        weights["encoder.warmed_up"] = torch.tensor(0)
    if isinstance(model.bottleneck, Discrete):
        is_learnt = model.bottleneck.is_enabled.float().reshape(1)
        for index in range(len(model.bottleneck.quantizer.stages)):
            weights[f"encoder.rvq.layers.{index}._codebook.inited"] = is_learnt.clone()
    if any(isinstance(layer, Recurrent) for layer in model.decoder.modules()):
        weights["decoder.net.0.gru_state"] = torch.tensor(0)  # acids-rave does not use it
    if isinstance(model.decoder, DecoderV1):
        weights["decoder.warmed_up"] = torch.tensor(1)  # enables the noise there
    noise = getattr(model.decoder, "noise", None)
    if noise is not None:
        size = torch.tensor(noise.block_steps)
        weights[their_name("decoder.noise.target_size", rules)] = size
    for index, num_taps in enumerate(scales(ours)):
        for distance in ("audio_distance", "multiband_audio_distance"):
            name = f"{distance}.multiscale_stft.stfts.{index}.window"
            weights[name] = torch.hann_window(num_taps)
    return weights


def _discriminator_weights(
    checkpoint: dict[str, Any], described: Discriminators
) -> dict[str, Tensor]:
    """Return the weights of the discriminators, or none if acids-rave does not support them."""
    state, rules = checkpoint["state_dict"], discriminator_rules(described.num_parts)
    found = {
        their_name(n, rules): value for n, value in state.items() if n.startswith("discriminator.")
    }
    return {**found, **described.windows} if found and described.are_ours else {}


def _training_state(checkpoint: dict[str, Any], model: RAVE, ours: Config) -> dict[str, Any]:
    """Return the state with which acids-rave continues at the step, with fresh optimizers."""
    step, phase_1_steps = checkpoint["global_step"], training(ours, "phase_1_steps", 1000000)
    progress = min(step / max(phase_1_steps, 1), 1.0)
    rate = RATES[0] * (1.0 - (1.0 - LAST_RATE_FACTOR) * progress)
    state = checkpoint["state_dict"]
    sizes = (
        len(list(model.parameters())),
        len([n for n in state if n.startswith("discriminator.")]),  # no buffers among them
    )
    groups = [
        {
            **torch.optim.Adam([torch.zeros(1)], first, MOMENTUM).param_groups[0],
            "params": [*range(size)],
        }
        for first, size in zip(RATES, sizes, strict=True)
    ]
    groups[0] |= {"lr": rate, "initial_lr": RATES[0]}
    schedule = {
        "start_factor": 1.0,
        "end_factor": LAST_RATE_FACTOR,
        "total_iters": phase_1_steps,
        "base_lrs": [RATES[0]],
        "last_epoch": step,
        "_step_count": step + 1,
        "_last_lr": [rate],
    }
    return {
        "optimizer_states": [{"state": {}, "param_groups": [group]} for group in groups],
        "lr_schedulers": [schedule],
        "callbacks": {
            name: {"training_steps": step}
            for name in ("WarmupCallback", "QuantizeCallback", "BetaWarmupCallback")
        },
    }
