"""Noise to a minute of audio on disk with a trained model: the work after loading; a cold start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.comparison import Bench, Comparison, Side
from benchmarks.tasks.codec import choices
from benchmarks.tasks.commands import PYTHON

ROW = "generation"
PARTS = ("codec", "diffusion")


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure.

    Raises:
        ValueError: If there is no trained model.
    """
    for part in PARTS:
        if not (bench.models / part / "run.json").exists():
            raise ValueError(
                f"'{bench.models / part}' is no model. Give --models a folder that holds codec/ "
                "and diffusion/."
            )
    duration_s, models = bench.size(60.0, 1.0), str(bench.models)
    given = {"models": models, "duration_s": duration_s, "out": str(bench.work / "generated.wav")}
    sides = [
        Side(
            f"ours, {backend}, {precision}",
            "generation:generate",
            {**given, "backend": backend, "precision": precision},
        )
        for backend, precision in choices(bench)
    ]
    code = f"from benchmarks.tasks.generation import load; load({models!r}, {bench.device!r})"
    start = {"steps": [[PYTHON, "-c", code]], "outputs": []}
    found = []
    for threads in bench.threads:
        what = f"noise to {duration_s:g} s on disk, after loading"
        found.append(Comparison(ROW, what, sides, duration_s, "s of audio", threads))
        cold = [Side("ours", "commands:commands", start)]
        found.append(Comparison(ROW, "cold start", cold, 1, "starts", threads, has_warm_up=False))
    return found


def load(
    models: str, device: str, backend: str = "auto", precision: str = "float32"
) -> tuple[Any, Any]:
    """Return diffusion run and codec, ready; by default as the commands open them."""
    import torch

    from diffwave.run import open_run
    from rave.codec import load_codec

    trained = open_run(Path(models) / "diffusion")
    trained.model.to(device)
    trained.model.accelerate(backend, precision)
    where, codec = torch.device(device), Path(models) / "codec"
    return trained, load_codec(codec, where, backend=backend, precision=precision)


def generate(
    models: str, duration_s: float, out: str, backend: str, precision: str, device: str
) -> Callable[[], None]:
    """Return what generates as `diffwave.inference` and `rave decode` do by default."""
    from diffwave.sampling.generation import Sampling
    from diffwave.sampling.overlap import Windows
    from rave.audio.io import write_audio
    from rave.noise import DecoderNoise

    trained, codec = load(models, device, backend, precision)
    num_frames = round(duration_s * trained.header.frame_rate_hz)

    def run() -> None:
        sampling = Sampling(trained.model, [0], 0, windows=Windows.of(trained.model))
        latents = sampling.generate(num_frames)[0].cpu().numpy()
        noise = DecoderNoise(codec.format, 0)
        blocks = codec.decode_blocks(latents, noise)
        form = codec.format
        num_samples = num_frames * form.hop_samples
        write_audio(Path(out), blocks, form.sample_rate_hz, form.num_channels, num_samples)

    return run
