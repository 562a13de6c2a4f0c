"""What each stage of a model computes, here and in acids-rave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.upstream.exports import difference
from rave.audio.derivative import differentiated
from rave.codec import load_run

# Of acids-rave's centred synthesis, which ours takes out.
SYNTHESIS_LAG = 16


def largest(found: Mapping[str, float]) -> float:
    """Return the largest difference of all stages."""
    return max(found.values())


@torch.inference_mode()
def compare(run: Path, stages: Path, how: str = "") -> dict[str, float]:
    """Return the difference of each stage that `family.py` wrote.

    Args:
        run: Of ours or of acids-rave, with the weights of the model whose stages they are.
        stages: The file.
        how: As that program opened the run.
    """
    model, _ = load_run(run, ema=how == "averages")
    with np.load(stages) as file:
        needed = {name: torch.from_numpy(file[name]) for name in file.files}
    audio = needed["audio"]
    if how == "derivative":
        audio = torch.from_numpy(next(differentiated([audio[0].numpy()]))[None])
    found = {}
    if "bands" in needed:
        found["filter bank"] = difference(model.pqmf.analysis(audio), needed["bands"])
    size = model.latent_size
    mean, _ = model.posterior_parameters(audio)
    is_variational = needed["encoded"].shape[1] == 2 * size
    theirs = needed["encoded" if is_variational else "latents"][:, :size]
    found["latents"] = difference(mean, theirs)
    if model.pads_layers:  # a run of acids-rave, at any length of audio
        ends = {int(n.removeprefix("ends_")): v for n, v in needed.items() if n.startswith("ends_")}
        rows = {n: model.encoder_rows(audio[..., :n])[..., : v.shape[-1]] for n, v in ends.items()}
        joined = [torch.cat([each[n] for n in ends], dim=-1) for each in (rows, ends)]
        found["any length"] = difference(joined[0], joined[1])
    noise = None
    if "draw_0" in needed:  # (B, steps, rows, block) of theirs, in [0, 1)
        blocks = 2.0 * needed["draw_0"] - 1.0
        noise = blocks.reshape(1, -1, *blocks.shape[-2:]).permute(0, 2, 1, 3).flatten(2)
    latents = needed["latents"]
    lag = 0
    if not model.is_raw_output:
        bands = model.decode_bands(latents, noise)
        found["decoder"] = difference(bands, needed["decoded_bands"])
        left, right = model.pqmf.synthesis_padding
        lag = SYNTHESIS_LAG if right >= left else 0  # a causal one keeps it
    audio = model.decode(latents, noise)
    theirs = needed["decoded"][..., lag:]
    found["audio"] = difference(audio[..., : theirs.shape[-1]], theirs)
    return found
