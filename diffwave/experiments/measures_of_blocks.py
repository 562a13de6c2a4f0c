"""Measurements inside the diary's network: magnitudes by block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from diffwave.denoiser import add_noise
from diffwave.experiments.diary_model import DiaryDiffWave
from diffwave.experiments.diary_training import DiaryRun, mix
from diffwave.experiments.measures import SAMPLE_STREAM, Lab, Rows
from diffwave.experiments.our_model import OurRun
from diffwave.experiments.results import Picture, ResultRow
from diffwave.network import DiffWave
from diffwave.training import generator_for


@torch.no_grad()
def magnitudes(lab: Lab, diary: DiaryRun, ours: OurRun) -> Rows:
    """Measure x, y, step, condition, residual and skip by block index, and the model's output."""
    rows, pictures = [], []
    untrained = replace(diary, num_steps=0)
    runs = [("untrained", untrained), ("trained", diary)]
    if lab.data.training.spectrograms is not None:
        assert diary.network is not None
        network = replace(diary.network, conditioner_channels=1)
        conditional = replace(untrained, network=network, item_rows=None)
        runs.append(("untrained, with a condition", conditional))
    in_ours = _in_ours(lab, ours)
    for label, run in runs:
        by_block, output, left = _by_block(lab, run)
        first, last = by_block[0], by_block[-1]
        for name in first:
            rows.append(
                ResultRow(
                    f"{name}, {label}",
                    SEEN.get(name, ""),
                    {},
                    {"first block": first[name], "last block": last[name]},
                    in_ours.get(name, {}) if run is diary else {},
                )
            )
        wanted = 2.0 ** (-(len(by_block) - 1) / 2)
        rows.append(
            ResultRow(
                f"share of the first block's x in the last one's, {label}",
                "",
                {"straight through, 2^(−blocks/2)": wanted},
                {"with what the residuals say again": left},
            )
        )
        rows.append(ResultRow(f"model output, {label}", "", {}, {"rms": output}))
        index = [float(number) for number in range(len(by_block))]
        pictures.append(
            Picture(
                f"Magnitudes by block, {label}",
                "block",
                "root mean square",
                [(name, index, [block[name] for block in by_block], "other") for name in first],
                is_log_y=True,
            )
        )
    return rows, pictures


def _in_ours(lab: Lab, run: OurRun) -> dict[str, dict[str, float]]:
    """Return the size of x behind the first and the last block of ours, and of their skips."""
    model, _ = lab.ours(run)
    assert isinstance(model.network, DiffWave)
    sizes: dict[str, list[float]] = {"x": [], "skip": []}

    def note(block: nn.Module, given: Any, found: tuple[Tensor, Tensor]) -> None:
        for name, tensor in zip(sizes, found, strict=True):
            sizes[name].append(float(tensor.square().mean().sqrt()))

    handles = [block.register_forward_hook(note) for block in model.network.blocks]
    latents = model.standardizer.standardize(lab.data.held_out.raw[:2])
    timestep = torch.full((len(latents),), len(model.schedule) // 2)
    noise = torch.randn(latents.shape, generator=generator_for(run.seed, SAMPLE_STREAM))
    model(add_noise(latents, noise, model.schedule.alpha_bar[timestep]), timestep)
    for handle in handles:
        handle.remove()
    return {n: {"first block": each[0], "last block": each[-1]} for n, each in sizes.items()}


SEEN = {
    "x": "shrinks with depth (norm 3000 at the first)",
    "y": "shrinks with depth (norm 6000 at the first)",
    "condition": "constant (norm 1000)",
    "step": "constant (norm 140)",
    "skip": "to be found out",
}


def _by_block(lab: Lab, run: DiaryRun) -> tuple[list[dict[str, float]], float, float]:
    network, _ = lab.diary(run)
    assert isinstance(network, DiaryDiffWave)
    clips, generator = lab.data.held_out, generator_for(run.seed, SAMPLE_STREAM)
    latents = clips.sampled[:2, : run.item_rows]
    schedule = run.noise_schedule
    timestep = torch.full((len(latents),), len(schedule) // 2)
    noise = torch.randn(latents.shape, generator=generator)
    noisy = mix(latents, noise, schedule.alpha_bar[timestep], True)
    spectrogram = None if clips.spectrograms is None else clips.spectrograms[: len(latents)]
    output, parts = network.trace(noisy, timestep, spectrogram if run.is_conditional else None)
    first, last = parts[0]["x"].flatten(), parts[-1]["x"].flatten()
    first = first - first.mean()
    left = float((first @ last) / (first @ first))
    rms = [
        {name: float(tensor.square().mean().sqrt()) for name, tensor in block.items()}
        for block in parts
    ]
    return rms, float(output.square().mean().sqrt()), left
