"""Open models of audio that were trained with lmnt diffwave (0.1.7 and later).

    RUN/weights.pt      step, params, model: plain tensors and builtins

Their network is our latent network with one channel and with the halves of its gate swapped.
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
# The fast schedule of lmnt diffwave, for checkpoints from before it was stored.
FAST_BETAS = [0.0001, 0.001, 0.01, 0.05, 0.2, 0.5]
LARGEST_BETA = 0.999


@dataclass(frozen=True)
class Vocoder:
    """A trained model of audio.

    Attributes:
        model: The model, in evaluation mode.
        sample_rate_hz: Sample rate of its audio.
        num_samples: Training length in samples of a model without spectrograms; None for others.
        has_known_window: Whether its spectrograms are those of `LogMel.of_lmnt_diffwave`.
        num_steps: Training steps of the weights.
        stamp: Stamp of the weights file, taken before it was read.
    """

    model: WaveformDiffusion
    sample_rate_hz: int
    num_samples: int | None
    has_known_window: bool
    num_steps: int
    stamp: dict[str, int] = field(default_factory=dict)


def read_vocoder(path: Path) -> Vocoder | None:
    """Return the model of a waveform run of lmnt diffwave; None if the run is of another kind.

    Args:
        path: Run folder or weights file.

    Raises:
        ValueError: If the checkpoint cannot be read, or its values and weights do not fit.
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
    """Return the model of a checkpoint of lmnt diffwave, with the sizes of its params.

    Args:
        checkpoint: Content of weights.pt.
        what: Name of the checkpoint in a message.

    Raises:
        ValueError: If a value or weight is missing, unknown or has another size; the message names
            it.
    """
    params, weights = checkpoint.get("params"), checkpoint.get("model")
    if not isinstance(params, dict) or not isinstance(weights, dict):
        raise ValueError(
            f"{what} is not a checkpoint of lmnt diffwave: params or model is missing. "
            "Give its run folder, or its weights.pt."
        )
    params = {"inference_noise_schedule": FAST_BETAS, **params}
    values = Params(params, what, "Give a checkpoint as lmnt diffwave saves it.")
    is_conditional = not params.get("unconditional")
    if is_conditional and values.size("hop_samples") != HOP_SAMPLES:
        raise values.refusal("hop_samples", f"{HOP_SAMPLES} (the factor of its upsampler)")
    # On the device meta: no memory before the sizes are compared with the weights.
    with limited_size(what), torch.device("meta"):
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
        raise values.refusal(name, "a list of betas above 0 (at least two)")
    return betas


def _name(ours: str) -> str:
    layer, _, kind = ours.rpartition(".")
    return f"{UPSAMPLER[layer]}.{kind}" if layer in UPSAMPLER else lmnt_name(ours)
