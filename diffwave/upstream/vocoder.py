"""Models of audio that lmnt diffwave trained (0.1.7 and later), opened as they are.

    RUN/weights.pt      step, params, model: plain tensors and builtins

Their network is that of our latents with one channel, the halves of its gate exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from diffwave.conditions.spectrogram import WINDOW_SAMPLES
from diffwave.upstream.params import MAX_DILATION_CYCLE, Params
from diffwave.upstream.run import is_lmnt_run, lmnt_name, load_weights, weights_file
from diffwave.upstream.waveform import HOP_SAMPLES, WaveformDiffusion
from rave.files.atomic import source_stamp
from rave.runs.checkpoint import read_checkpoint
from rave.runs.model_size import limited_size

UPSAMPLER = {
    "upsampler.0": "spectrogram_upsampler.conv1",
    "upsampler.2": "spectrogram_upsampler.conv2",
}
# What checkpoints older than the fast sampling lack: the levels that lmnt diffwave has for it.
FAST_BETAS = [0.0001, 0.001, 0.01, 0.05, 0.2, 0.5]
LARGEST_BETA = 0.999


@dataclass(frozen=True)
class Vocoder:
    """A trained model of audio.

    Attributes:
        model: In evaluation mode.
        sample_rate_hz: Of its audio.
        num_samples: How much a model without a spectrogram makes at a time; None for the others.
        has_known_window: Whether its spectrograms are those of `LogMel.of_lmnt_diffwave`.
        num_steps: Training steps behind the weights.
        stamp: Of the file of the weights, from before it was read.
    """

    model: WaveformDiffusion
    sample_rate_hz: int
    num_samples: int | None
    has_known_window: bool
    num_steps: int
    stamp: dict[str, int] = field(default_factory=dict)


def read_vocoder(path: Path) -> Vocoder | None:
    """Return the model of a run of lmnt diffwave; None if the run models latents, or is another's.

    Args:
        path: A run folder, or its weights file.

    Raises:
        ValueError: If it is a checkpoint that cannot be read; see `vocoder_from_checkpoint`.
    """
    if not is_lmnt_run(path):
        return None
    weights_path = weights_file(path)
    stamp = source_stamp(weights_path)
    checkpoint = read_checkpoint(weights_path, "Give a run folder of lmnt diffwave.")
    params = checkpoint.get("params")
    if not isinstance(params, dict) or "latent_size" in params:
        return None
    return replace(vocoder_from_checkpoint(checkpoint, f"'{weights_path}'"), stamp=stamp)


def vocoder_from_checkpoint(checkpoint: dict[str, Any], what: str) -> Vocoder:
    """Return the model of a checkpoint of lmnt diffwave, of the sizes that its params tell.

    Args:
        checkpoint: What weights.pt holds.
        what: What to call it in a message.

    Raises:
        ValueError: If a value or a weight is missing, unknown or of another size; the message names
            it.
    """
    params, weights = checkpoint.get("params"), checkpoint.get("model")
    if not isinstance(params, dict) or not isinstance(weights, dict):
        raise ValueError(
            f"{what} is no checkpoint of lmnt diffwave: it lacks params or model. "
            "Give its run folder, or its weights.pt."
        )
    params = {"inference_noise_schedule": FAST_BETAS, **params}
    values = Params(params, what, "Give a checkpoint as lmnt diffwave saves it.")
    is_conditional = not params.get("unconditional")
    if is_conditional and values.size("hop_samples") != HOP_SAMPLES:
        raise values.refusal("hop_samples", f"{HOP_SAMPLES}, which is what its upsampler makes,")
    with (
        limited_size(what),
        torch.device("meta"),
    ):  # sizes only, until they are known to be those of the weights
        model = WaveformDiffusion(
            num_mels=values.size("n_mels") if is_conditional else 0,
            num_blocks=values.size("residual_layers"),
            hidden_channels=values.size("residual_channels"),
            dilation_cycle=values.size("dilation_cycle_length", MAX_DILATION_CYCLE),
            betas=_betas(values, params, "noise_schedule"),
            fast_betas=_betas(values, params, "inference_noise_schedule"),
        )
    names = {name: _name(name) for name, _ in model.named_parameters()}
    load_weights(model, names, weights, what)
    num_steps = checkpoint.get("step")
    return Vocoder(
        model.eval().requires_grad_(False),
        values.size("sample_rate"),
        None if is_conditional else values.size("audio_len"),
        params.get("n_fft") == WINDOW_SAMPLES,
        num_steps if isinstance(num_steps, int) else 0,
    )


def _betas(values: Params, params: dict[str, Any], name: str) -> list[float]:
    betas = values.betas(name, LARGEST_BETA)
    if min(betas) == 0 or (name == "noise_schedule" and len(betas) < 2):
        raise values.refusal(name, "a list of betas above 0, two at least,")
    return betas


def _name(ours: str) -> str:
    layer, _, kind = ours.rpartition(".")
    return f"{UPSAMPLER[layer]}.{kind}" if layer in UPSAMPLER else lmnt_name(ours)
