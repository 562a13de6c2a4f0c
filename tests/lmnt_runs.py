"""Checkpoints of the patched lmnt diffwave, and what its network computes, from its description.

Written without a line of `diffwave`: names and shapes as the format says, the network as in Kong
et al. 2020 (arXiv:2009.09761), figure 2, with the sigmoid in the first half of the channels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rave.latents.folder import LatentHeader

LATENT_SIZE, RAW_SIZE, HIDDEN, BLOCKS, CYCLE = 3, 4, 6, 5, 3
MELS, CHANNELS, HOP, MEL_HOP = 7, 5, 1024, 256
STRIDES = (2, 2)  # 1024 / 256


def cosine_betas(num_timesteps: int = 1000) -> list[float]:
    """Return the betas of Nichol & Dhariwal 2021, equation 17, the last of them 1."""
    position = np.arange(num_timesteps + 1) / num_timesteps
    power = np.cos((position + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = 1 - power[1:] / power[:-1]
    return [*betas[:-1].tolist(), 1.0]


def make_checkpoint(is_conditional: bool, **params: Any) -> dict[str, Any]:
    """Return what weights.pt holds, with random weights everywhere."""
    sizes = {
        "input_projection": (HIDDEN, LATENT_SIZE, 1),
        "diffusion_embedding.projection1": (512, 128),
        "diffusion_embedding.projection2": (512, 512),
        "skip_projection": (HIDDEN, HIDDEN, 1),
        "output_projection": (LATENT_SIZE, HIDDEN, 1),
    }
    for i in range(BLOCKS):
        sizes |= {
            f"residual_layers.{i}.dilated_conv": (2 * HIDDEN, HIDDEN, 3),
            f"residual_layers.{i}.diffusion_projection": (HIDDEN, 512),
            f"residual_layers.{i}.conditioner_projection": (2 * HIDDEN, CHANNELS, 1),
            f"residual_layers.{i}.output_projection": (2 * HIDDEN, HIDDEN, 1),
        }
    upsampler = "spectrogram_upsampler"
    if is_conditional:
        sizes[f"{upsampler}.layers.0"] = (CHANNELS, MELS, 3)
        for place, stride in enumerate(STRIDES, start=1):
            sizes[f"{upsampler}.layers.{2 * place}"] = (CHANNELS, CHANNELS, stride + 2)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, (out, *rest) in sizes.items():
        gain = 1.5 / math.sqrt(math.prod(rest))
        weights[f"{name}.weight"] = gain * torch.randn(out, *rest, generator=generator)
        weights[f"{name}.bias"] = 0.3 * torch.randn(out, generator=generator)
    weights[f"{upsampler}.null_condition"] = torch.randn(CHANNELS, 1, generator=generator)
    if is_conditional:
        weights[f"{upsampler}.mean"] = torch.rand(MELS, generator=generator)
        weights[f"{upsampler}.std"] = 0.1 + torch.rand(MELS, generator=generator)
    rotation = torch.linalg.qr(torch.randn(RAW_SIZE, RAW_SIZE, generator=generator))[0]
    weights["standardizer.mean"] = torch.randn(RAW_SIZE, generator=generator)
    weights["standardizer.basis"] = rotation[:LATENT_SIZE].contiguous()
    weights["standardizer.scale"] = 0.5 + torch.rand(LATENT_SIZE, generator=generator)
    weights["standardizer.fidelity"] = torch.tensor(0.9)
    known = {
        "latent_size": LATENT_SIZE,
        "raw_size": RAW_SIZE,
        "hop_samples_latent": HOP,
        "n_mels": CHANNELS,
        "residual_layers": BLOCKS,
        "residual_channels": HIDDEN,
        "dilation_cycle_length": CYCLE,
        "prediction": "v",
        "noise_schedule": cosine_betas(),
    }
    if is_conditional:
        known |= {"spectrogram_mels": MELS, "mel_hop_samples": MEL_HOP}
    return {"step": 7, "params": known | params, "model": weights, "optimizer": {}, "scaler": {}}


def network_output(
    checkpoint: dict[str, Any], noisy: Tensor, timestep: int, spectrogram: Tensor | None
) -> Tensor:
    """Return what their network answers to noisy latents (B, K, N), in float64."""
    w = {name: tensor.double() for name, tensor in checkpoint["model"].items()}

    def convolve(x: Tensor, name: str, **options: int) -> Tensor:
        return functional.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    if spectrogram is None:
        condition = w["spectrogram_upsampler.null_condition"][None].expand(1, -1, noisy.shape[2])
    else:
        mean, std = w["spectrogram_upsampler.mean"], w["spectrogram_upsampler.std"]
        condition = (spectrogram.double() - mean[None, :, None]) / std[None, :, None]
        condition = convolve(condition, "spectrogram_upsampler.layers.0", padding=1)
        for place, stride in enumerate(STRIDES, start=1):
            condition = condition * torch.sigmoid(condition)
            name = f"spectrogram_upsampler.layers.{2 * place}"
            condition = convolve(condition, name, stride=stride, padding=1)

    position = (timestep + 1) * 1000 / len(checkpoint["params"]["noise_schedule"])
    angles = position * 10.0 ** (-4 * torch.arange(64, dtype=torch.float64) / 63)
    embedding = torch.cat([angles.sin(), angles.cos()])
    for name in ("diffusion_embedding.projection1", "diffusion_embedding.projection2"):
        embedding = functional.linear(embedding, w[f"{name}.weight"], w[f"{name}.bias"])
        embedding = embedding * torch.sigmoid(embedding)

    x = torch.relu(convolve(noisy.double(), "input_projection"))
    skips = []
    for i in range(BLOCKS):
        name = f"residual_layers.{i}"
        dilation = 2 ** (i % checkpoint["params"]["dilation_cycle_length"])
        shift = w[f"{name}.diffusion_projection.weight"] @ embedding
        shift = shift + w[f"{name}.diffusion_projection.bias"]
        y = convolve(
            x + shift[None, :, None], f"{name}.dilated_conv", dilation=dilation, padding=dilation
        )
        y = y + convolve(condition, f"{name}.conditioner_projection")
        y = torch.sigmoid(y[:, :HIDDEN]) * torch.tanh(y[:, HIDDEN:])
        y = convolve(y, f"{name}.output_projection")
        x = (x + y[:, :HIDDEN]) / math.sqrt(2)
        skips.append(y[:, HIDDEN:])
    x = torch.relu(convolve(sum(skips) / math.sqrt(BLOCKS), "skip_projection"))
    return convolve(x, "output_projection")


def write_run(folder: Path, checkpoint: dict[str, Any], header: LatentHeader) -> Path:
    """Write a run folder of theirs."""
    folder.mkdir(parents=True)
    torch.save(checkpoint, folder / "weights-7.pt")
    (folder / "weights.pt").symlink_to("weights-7.pt")
    header.write(folder)
    return folder
