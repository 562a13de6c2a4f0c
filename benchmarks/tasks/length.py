"""Cost against length: encode, decode and sample, each block thrown away as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.comparison import Bench, Comparison, Side

ROW = "length"
MINUTES, QUICK_MINUTES = (1.0, 10.0, 60.0, 180.0), (0.02, 0.04)
WARM_UP_MINUTES = 0.5
WHAT = ("encode", "decode", "sample")
NUM_STEPS = 20
PATTERN_FRAMES = 64


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    codec = str(inputs.codec(bench))
    found = []
    for what in WHAT:
        for minutes in bench.size(MINUTES, QUICK_MINUTES):
            given = {"minutes": minutes, "codec": codec}
            sides = [Side("ours", f"length:{what}", given)]
            name = f"{what} {minutes:g} min"
            for threads in bench.threads[-1:]:
                found.append(
                    Comparison(
                        *(ROW, name, sides, 60 * minutes, "s of audio", threads),
                        max_rounds=1,
                        size=minutes,
                        has_warm_up=False,
                    )
                )
    return found


def encode(minutes: float, codec: str, device: str) -> Callable[[], None]:
    """Return what encodes audio of a length."""
    import torch

    from rave.codec import load_codec

    opened = load_codec(Path(codec), torch.device(device), backend="auto")

    return _work(lambda length: opened.encode_blocks(inputs.blocks(60 * length)), minutes)


def decode(minutes: float, codec: str, device: str) -> Callable[[], None]:
    """Return what decodes latents of a length."""
    import numpy as np
    import torch

    from rave.codec import load_codec
    from rave.noise import DecoderNoise

    opened = load_codec(Path(codec), torch.device(device), backend="auto")
    frames_per_minute = 60 * inputs.RATE_HZ / opened.format.hop_samples
    shape = (opened.format.latent_size, PATTERN_FRAMES)
    pattern = np.random.default_rng(inputs.SEED).standard_normal(shape).astype(np.float32)
    noise = DecoderNoise(opened.format, 0, as_encoded=True)

    def blocks(length: float) -> Iterable[Any]:
        values: Any = Repeated(pattern, round(length * frames_per_minute))
        return opened.decode_blocks(values, noise)

    return _work(blocks, minutes)


def sample(minutes: float, codec: str, device: str) -> Callable[[], None]:
    """Return what samples latents of a length with the network of `diffusion`."""
    from benchmarks.tasks.diffusion import our_model
    from diffwave.sampling.generation import Sampling
    from diffwave.sampling.overlap import Windows

    frames_per_minute = 60 * inputs.RATE_HZ / inputs.V2_HOP
    model = our_model([], 16).to(device).eval()
    sampling = Sampling(model, [0], 0, num_steps=NUM_STEPS, windows=Windows.of(model))

    return _work(lambda length: sampling.stream(round(length * frames_per_minute)), minutes)


def _work(blocks: Callable[[float], Iterable[Any]], minutes: float) -> Callable[[], None]:
    """Return what goes through the blocks of so many minutes, once warmed up on a few."""

    def run(length: float = minutes) -> None:
        for _ in blocks(length):
            pass

    run(min(minutes, WARM_UP_MINUTES))
    return run


class Repeated:
    """An array (D, N) of any length that repeats a short one, and takes no memory."""

    def __init__(self, pattern: Any, num_frames: int) -> None:
        self._pattern, self.shape = pattern, (len(pattern), num_frames)

    def __getitem__(self, place: tuple[slice, slice]) -> Any:
        """Return some frames of all rows."""
        columns = range(*place[1].indices(self.shape[1]))
        return self._pattern[:, [column % PATTERN_FRAMES for column in columns]]
