"""Convert latent runs of the patched lmnt diffwave to our model, and our model to theirs.

    RUN/
      weights.pt      step, params, model, ema: plain tensors and builtins
      latents.json    header of the training latents, as in our own runs

Network, conditioner and standardizer are the same functions as ours under other names, with two
differences. Their residual block has the sigmoid in the first half of its channels, ours in the
second. Their network always has a condition: a run without spectrograms has a constant one, which
is added to the bias here.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffwave.conditioner import SPECTROGRAM, SpectrogramConditioner
from diffwave.model import LatentDiffusion
from diffwave.network import CONCATENATION, DiffWave
from diffwave.standardizer import Standardizer
from diffwave.upstream.params import MAX_DILATION_CYCLE, Params, checked_weight
from rave.files.atomic import atomic_write
from rave.latents.folder import HEADER_NAME, LatentHeader
from rave.runs.checkpoint import packed, read_checkpoint
from rave.runs.model_size import limited_size

WEIGHTS = "weights.pt"
CONDITIONER, NULL_CONDITION = "spectrogram_upsampler", "spectrogram_upsampler.null_condition"
# Training settings: our name, their name.
SETTINGS = {
    "batch_size": "batch_size",
    "segment_frames": "crop_frames",
    "held_out_fraction": "held_out_fraction",
    "held_out_segments": "held_out_segments",
}
# Parts of the model: our name, their name.
NAMES = {
    r"network\.input": "input_projection",
    r"network\.step\.0": "diffusion_embedding.projection1",
    r"network\.step\.2": "diffusion_embedding.projection2",
    r"network\.blocks\.(\d+)\.step": r"residual_layers.\1.diffusion_projection",
    r"network\.blocks\.(\d+)\.dilated": r"residual_layers.\1.dilated_conv",
    r"network\.blocks\.(\d+)\.condition": r"residual_layers.\1.conditioner_projection",
    r"network\.blocks\.(\d+)\.output": r"residual_layers.\1.output_projection",
    r"network\.skip": "skip_projection",
    r"network\.output": "output_projection",
    r"conditioners\.spectrogram": CONDITIONER,
    r"standardizer": "standardizer",
}
# Predictions of the patched lmnt diffwave.
PREDICTIONS = ("epsilon", "v", "x0")
LINK_BYTES = 64
NUMBERED = re.compile(r"weights-(\d+)\.pt")
GATED = re.compile(r".*\.(dilated_conv|conditioner_projection)\.(weight|bias)")


def is_lmnt_run(path: Path) -> bool:
    """Return whether `path` is a run folder of lmnt diffwave, or its weights file."""
    if path.is_dir():
        return weights_file(path).exists() and not (path / "run.json").exists()
    return path.suffix == ".pt" and path.exists()


def weights_file(path: Path) -> Path:
    """Return the checkpoint of a run folder; a checkpoint is returned as given.

    weights.pt is a link to the newest checkpoint. A file system without links may have copied the
    link as a text file, which is followed. If the link is missing or broken, the newest of
    weights-STEP.pt is used.
    """
    if path.is_dir():
        folder, path = path, path / WEIGHTS
        matches = [NUMBERED.fullmatch(found.name) for found in folder.glob("weights-*.pt")]
        saved = {int(match[1]): folder / match[0] for match in matches if match}
        if not path.exists() and saved:
            return saved[max(saved)]
    if path.is_file() and path.stat().st_size <= LINK_BYTES:
        text = path.read_bytes().decode(errors="replace").strip()
        if NUMBERED.fullmatch(text):
            return path.with_name(text)
    return path


def read_lmnt_run(path: Path) -> tuple[LatentDiffusion, LatentHeader, int]:
    """Return model, header of the training latents, and number of training steps.

    Args:
        path: Run folder or weights file, as accepted by `is_lmnt_run`.

    Raises:
        ValueError: If the run cannot be read, or is not a run on latents.
    """
    weights_path = weights_file(path)
    what = f"'{weights_path}'"
    checkpoint = read_checkpoint(weights_path, "Give a run folder of diffwave.train.")
    model = model_from_checkpoint(checkpoint, what)
    if not (weights_path.parent / HEADER_NAME).exists():
        raise ValueError(
            f"{what} has no {HEADER_NAME} beside it, which names the codec. Copy the "
            f"{HEADER_NAME} of its training latents there."
        )
    header = LatentHeader.read(weights_path.parent)
    values = Params(checkpoint["params"], what)
    size, hop = values.size("raw_size"), values.size("hop_samples_latent")
    if (size, hop) != (header.latent_size, header.hop_samples):
        raise ValueError(
            f"{what} was trained on latents with {size} dimensions, hop {hop}, but the "
            f"{HEADER_NAME} beside it states {header.latent_size} dimensions, hop "
            f"{header.hop_samples}. Copy the {HEADER_NAME} of its training latents there."
        )
    num_steps = checkpoint.get("step")
    return model, header, num_steps if isinstance(num_steps, int) else 0


def read_lmnt_settings(path: Path) -> dict[str, Any]:
    """Return the training settings of a run, by our names.

    Args:
        path: Run folder or weights file, as accepted by `is_lmnt_run`.

    Raises:
        ValueError: If the run cannot be read.
    """
    weights_path = weights_file(path)
    params = read_checkpoint(weights_path, "Give a run folder of diffwave.train.").get("params")
    values = params if isinstance(params, dict) else {}
    return {ours: values[theirs] for ours, theirs in SETTINGS.items() if theirs in values}


def write_lmnt_run(folder: Path, checkpoint: dict[str, Any], header: LatentHeader) -> None:
    """Write weights.pt and latents.json, from a checkpoint of `checkpoint_from_model`.

    Raises:
        OSError: If the folder cannot be written.
    """
    content = packed(checkpoint)
    with atomic_write(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)
        (folder / HEADER_NAME).unlink(missing_ok=True)  # no old header beside new weights
    replace(header, files=[], skipped={}).write(folder)


def model_from_checkpoint(checkpoint: dict[str, Any], what: str) -> LatentDiffusion:
    """Return the model of their checkpoint, with its averaged weights if there are any.

    Args:
        checkpoint: Content of weights.pt.
        what: Name of the checkpoint in a message.

    Raises:
        ValueError: If it is a model of audio instead of latents, or a value or weight is missing,
            unknown or has another size; the message names it.
    """
    params = checkpoint.get("params")
    weights = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(params, dict) or not isinstance(weights, dict):
        raise ValueError(
            f"{what} is not a checkpoint of lmnt diffwave: params or model is missing. "
            "Give a run folder of diffwave.train."
        )
    if "latent_size" not in params:
        raise ValueError(
            f"{what} is a model of audio, not of latents (params has no latent_size). Use it with "
            "python -m diffwave.vocode; for latents, train the patched lmnt diffwave on a latent "
            "folder."
        )
    values = Params(params, what)
    is_conditional = bool(params.get("spectrogram_mels"))
    if not is_conditional:
        weights = _without_condition(weights, values)
    schedule = values.schedule()
    # On the device meta: no memory before the sizes are compared with the weights.
    with limited_size(what), torch.device("meta"):
        conditioner = _conditioner(values) if is_conditional else None
        network = DiffWave(
            latent_size=values.size("latent_size"),
            num_blocks=values.size("residual_layers"),
            hidden_channels=values.size("residual_channels"),
            segment_frames=1,  # unused: the cycle is given
            dilation_cycle=values.size("dilation_cycle_length", MAX_DILATION_CYCLE),
            condition_channels=values.size("n_mels") if is_conditional else 0,
        )
        standardizer = Standardizer(values.size("raw_size"), network.latent_size)
    model = LatentDiffusion(standardizer, network, schedule, values.text("prediction"), conditioner)
    load_weights(model, {name: lmnt_name(name) for name in _named_weights(model)}, weights, what)
    return model


def _conditioner(values: Params) -> SpectrogramConditioner:
    return SpectrogramConditioner(
        values.size("spectrogram_mels"),
        values.size("n_mels"),
        values.size("hop_samples_latent"),
        values.size("mel_hop_samples"),
    )


def checkpoint_from_model(
    model: LatentDiffusion, header: LatentHeader, num_steps: int
) -> dict[str, Any]:
    """Return the content of weights.pt for one of our models.

    It has no optimizer state: further training starts with new moments, and with lmnt diffwave's
    training settings.

    Args:
        model: Trained model.
        header: Header of its training latents.
        num_steps: Training steps of the weights.

    Raises:
        ValueError: If their network does not support a part of the model; the message names it.
    """
    network, conditioner = model.network, model.conditioner
    if not isinstance(network, DiffWave):
        raise ValueError(
            "The model's network is a transformer, which lmnt diffwave does not support. "
            "Train a model with another --config."
        )
    others = [name for name in model.conditioners if name != SPECTROGRAM]
    if others:
        raise ValueError(
            f"The model follows {', '.join(others)}, which lmnt diffwave does not support. "
            "Train a model with spectrograms only, or without conditions."
        )
    if model.prediction not in PREDICTIONS:
        raise ValueError(
            f"The model predicts '{model.prediction}', which lmnt diffwave does not support. "
            "Train a model with --set PREDICTION=v."
        )
    if network.condition_channels and network.conditioning != CONCATENATION:
        raise ValueError(
            f"The model's CONDITIONING is '{network.conditioning}', which lmnt diffwave does not "
            f"support. Train a model with --set CONDITIONING={CONCATENATION}."
        )
    params: dict[str, Any] = {
        "sample_rate": header.sample_rate_hz,
        "unconditional": False,
        "latent_size": network.latent_size,
        "raw_size": model.standardizer.raw_size,
        "hop_samples_latent": header.hop_samples,
        "mel_hop_samples": None if conditioner is None else conditioner.mel_hop_samples,
        "spectrogram_mels": 0 if conditioner is None else conditioner.num_mels,
        "n_mels": max(network.condition_channels, 1),
        "prediction": model.prediction,
        "noise_schedule": model.schedule.betas.tolist(),
        "timesteps": len(model.schedule),
        "residual_layers": len(network.blocks),
        "residual_channels": network.input.out_channels,
        "dilation_cycle_length": network.dilation_cycle,
    }
    weights = {
        lmnt_name(name): _with_halves_swapped(lmnt_name(name), tensor.detach()).cpu().clone()
        for name, tensor in _named_weights(model).items()
    }
    if conditioner is None:
        weights |= _zero_condition(network)
    return {
        "step": num_steps,
        "params": params,
        "model": weights,
        "ema": weights,
        "optimizer": {},
        "scaler": {},
    }


def lmnt_name(name: str) -> str:
    """Return their name of a weight of `LatentDiffusion`."""
    for ours, theirs in NAMES.items():
        renamed, count = re.subn(rf"^{ours}(?=\.)", theirs, name)
        if count:
            return renamed
    raise AssertionError(f"no name for {name}")


def _named_weights(model: LatentDiffusion) -> dict[str, Tensor]:
    """Return parameters and buffers, without the schedule, which is in their params."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _with_halves_swapped(name: str, tensor: Tensor) -> Tensor:
    """Return their weight as ours, or ours as theirs, with content and gate swapped."""
    return torch.cat(tensor.chunk(2)[::-1]) if GATED.fullmatch(name) else tensor


def load_weights(
    model: nn.Module, names: dict[str, str], weights: dict[str, Any], what: str
) -> None:
    """Load the weights of their checkpoint into a model.

    Args:
        model: Model to load into; may be on the device meta.
        names: Their name of each weight, by our name.
        weights: Weights by their names.
        what: Name of the checkpoint in a message.

    Raises:
        ValueError: If a weight is missing, unknown or has another shape; the message names it.
    """
    unknown = sorted(set(weights) - set(names.values()))
    if unknown:
        raise ValueError(
            f"{what} holds {len(unknown)} weights that do not belong to the model of its params "
            f"(first: '{unknown[0]}')."
        )
    state: dict[str, Any] = model.state_dict()  # with the schedule
    for ours, theirs in names.items():
        weight = checked_weight(weights, theirs, state[ours].shape, what).float()
        state[ours] = _with_halves_swapped(theirs, weight)
    model.load_state_dict(state, assign=True)


def _without_condition(weights: dict[str, Any], values: Params) -> dict[str, Any]:
    """Return the weights of an equivalent network without a condition."""
    channels, hidden = values.size("n_mels"), values.size("residual_channels")
    null = checked_weight(weights, NULL_CONDITION, torch.Size([channels, 1]), values.what)
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(CONDITIONER)}
    for index in range(values.size("residual_layers")):
        projection = f"residual_layers.{index}.conditioner_projection"
        bias_name = f"residual_layers.{index}.dilated_conv.bias"
        weight = checked_weight(
            kept, f"{projection}.weight", torch.Size([2 * hidden, channels, 1]), values.what
        )
        size = torch.Size([2 * hidden])
        bias, projected = (
            checked_weight(kept, name, size, values.what)
            for name in (bias_name, f"{projection}.bias")
        )
        constant = weight[:, :, 0].double() @ null[:, 0].double() + projected.double()
        kept[bias_name] = (bias.double() + constant).float()
        del kept[f"{projection}.weight"], kept[f"{projection}.bias"]
    return kept


def _zero_condition(network: DiffWave) -> dict[str, Tensor]:
    """Return the weights of a one-channel condition that has no effect."""
    size = 2 * network.input.out_channels
    zeros = {NULL_CONDITION: torch.zeros(1, 1)}
    for index in range(len(network.blocks)):
        projection = f"residual_layers.{index}.conditioner_projection"
        zeros[f"{projection}.weight"] = torch.zeros(size, 1, 1)
        zeros[f"{projection}.bias"] = torch.zeros(size)
    return zeros
