"""DiffWave over audio: a spectrogram to audio by the six fast steps, lmnt's sizes on both sides."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.comparison import Bench, Comparison, Side

ROW = "vocoder"
NUM_MELS, HOP_SAMPLES, RATE_HZ = 80, 256, 22050
NUM_BLOCKS, CHANNELS, DILATION_CYCLE = 30, 64, 10


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    num_frames = bench.size(86, 4)
    duration_s = num_frames * HOP_SAMPLES / RATE_HZ
    given = {"num_frames": num_frames}
    sides = [Side("ours", "vocoder:ours", given, is_counted=True)]
    if bench.upstream is not None:
        sides.append(Side("lmnt diffwave", "vocoder:theirs", given, True, is_counted=True))
    what = f"{duration_s:.2f} s in 6 steps"
    return [
        Comparison(ROW, what, sides, duration_s, "s of audio", threads) for threads in bench.threads
    ]


def ours(num_frames: int, device: str) -> tuple[Callable[[], Any], dict[str, int]]:
    """Return what makes the audio, and the number of parameters."""
    import numpy as np
    import torch

    from diffwave.upstream.vocoder import FAST_BETAS
    from diffwave.upstream.waveform import WaveformDiffusion

    betas = np.linspace(1e-4, 0.05, 50).tolist()
    sizes = (NUM_MELS, NUM_BLOCKS, CHANNELS, DILATION_CYCLE)
    model = WaveformDiffusion(*sizes, betas, FAST_BETAS).to(device).eval()
    spectrogram = torch.rand(1, NUM_MELS, num_frames, device=device)
    noise = torch.randn(1, num_frames * HOP_SAMPLES, device=device)

    def run() -> Any:
        generator = torch.Generator().manual_seed(0)
        return model.sample(noise, spectrogram, generator, is_fast=True).cpu().numpy()

    return run, {"parameters": sum(each.numel() for each in model.parameters())}


def theirs(num_frames: int, device: str) -> tuple[Callable[[], Any], dict[str, int]]:
    """Return what does the same with lmnt diffwave."""
    import tempfile
    from pathlib import Path

    import torch

    package = {name: import_module(f"diffwave.{name}") for name in ("model", "params", "inference")}
    params = package["params"].params
    model = package["model"].DiffWave(params)
    count = sum(each.numel() for each in model.parameters())
    folder = tempfile.mkdtemp()
    torch.save({"model": model.state_dict()}, Path(folder) / "weights.pt")
    spectrogram = torch.rand(NUM_MELS, num_frames)
    where = torch.device(device)

    def run() -> Any:
        audio, _ = package["inference"].predict(
            spectrogram, folder, device=where, fast_sampling=True
        )
        return audio.cpu().numpy()

    return run, {"parameters": count}
