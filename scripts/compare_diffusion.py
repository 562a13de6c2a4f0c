"""Compare diffusion runs and samplers by their denoised and generated latents.

    python scripts/compare_diffusion.py latents runs/v runs/flow --out comparison.json
    python scripts/compare_diffusion.py latents runs/v --samplers dpm-solver++:20 ddpm:250 \
        --out samplers.json

Losses of different objectives cannot be compared, because they weight noise levels differently. The
error of the denoised latents at one noise level can. It is measured on one grid of log-SNR, on the
same held-out segments with the same noise, relative to the best linear denoiser at that level.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffwave.clips import split_clips
from diffwave.dataset import RUN_OF_SEGMENTS, ClipReader, FixedSegments
from diffwave.denoiser import add_noise
from diffwave.diagnosis.sample_statistics import compare
from diffwave.model import LatentDiffusion
from diffwave.objective import Objective
from diffwave.reference_loss import (
    REFERENCE_SEGMENTS,
    SpectralDensity,
    fit_gaussian,
    loss_curve,
)
from diffwave.run import open_run
from diffwave.sampling.generation import Sampling
from diffwave.schedule import alpha_bar_from_log_snr
from rave.compute.arrays import FloatArray
from rave.files.atomic import write_json
from rave.latent_dataset import LatentDataset

LOG_SNR = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
BATCH_SIZE = 16
NUM_FRAMES = 128


def parser() -> argparse.ArgumentParser:
    """Return the program's options."""
    assert __doc__ is not None
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("latents", type=Path, help="latent folder that the runs were trained on")
    options.add_argument("runs", type=Path, nargs="+", help="runs without conditions")
    options.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options.add_argument("--held-out-fraction", type=float, default=0.2, help="that of the runs")
    options.add_argument("--samplers", nargs="*", default=["dpm-solver++:20"], help="NAME:STEPS …")
    options.add_argument("--count", type=int, default=64, help="segments to generate (default 64)")
    options.add_argument("--seeds", type=int, default=1, help="sets to generate (default 1)")
    return options


def segments_of(reader: ClipReader, clips: Any) -> torch.Tensor:
    """Return raw segments (S, D, N) of N = 128 frames, half overlapping, without padding."""
    items = list(FixedSegments(reader, clips, NUM_FRAMES, REFERENCE_SEGMENTS))
    return torch.stack([item["raw"] for item in items if bool(item["mask"].all())])


@torch.no_grad()
def denoising_error(model: LatentDiffusion, latents: torch.Tensor, log_snr: float) -> float:
    """Return the mean squared error of the denoised latents (S, K, N) at a noise level."""
    timestep = int((model.schedule.log_snr - log_snr).abs().argmin())
    generator = torch.Generator().manual_seed(round(100 + log_snr))
    noise = torch.randn(latents.shape, generator=generator)
    total = 0.0
    for part, part_noise in zip(latents.split(BATCH_SIZE), noise.split(BATCH_SIZE), strict=True):
        timesteps = torch.full((len(part),), timestep)
        # Noise of exactly this level; the model gets the nearest timestep.
        level = alpha_bar_from_log_snr(torch.full((len(part),), log_snr, dtype=torch.float64))
        noisy = add_noise(part, part_noise, level)
        total += float((model.denoise(noisy, timesteps) - part).square().mean(dim=(1, 2)).sum())
    return total / len(latents)


def denoising(
    model: LatentDiffusion, training: torch.Tensor, held_out: torch.Tensor
) -> dict[str, Any]:
    """Return errors and skills at each level, and their means."""
    gaussian = fit_gaussian(
        (run.numpy(), float(run.shape[0] * run.shape[2])) for run in training.split(RUN_OF_SEGMENTS)
    )
    density = SpectralDensity(*held_out.shape[1:])
    density.add(held_out.numpy(), float(held_out.shape[0] * held_out.shape[2]))
    levels = alpha_bar_from_log_snr(torch.tensor(LOG_SNR, dtype=torch.float64)).numpy()
    curve = loss_curve(gaussian, density, levels, Objective("x0", "mse"))
    errors = np.array([denoising_error(model, held_out, log_snr) for log_snr in LOG_SNR])
    return {
        "log_snr": list(LOG_SNR),
        "error": errors.tolist(),
        "gaussian": curve.gaussian.tolist(),
        "skill": curve.skill(errors).tolist(),
        "mean_skill": float(curve.skill(errors).mean()),
    }


def generated(
    model: LatentDiffusion, sampler: str, count: int, seed: int
) -> tuple[FloatArray, float]:
    """Return standardized latents (count, K, N), and their CPU time in seconds."""
    name, _, steps = sampler.partition(":")
    start = time.process_time()
    raw = [
        Sampling(
            model, range(first, min(first + BATCH_SIZE, count)), seed * count, name, int(steps)
        ).generate(NUM_FRAMES)
        for first in range(0, count, BATCH_SIZE)
    ]
    latents = model.standardizer.standardize(torch.cat(raw))
    return latents.double().numpy(), time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write JSON after each run."""
    options = parser().parse_args(arguments)
    dataset = LatentDataset(options.latents)
    reader = ClipReader.open(dataset)
    clips = split_clips(dataset.files, options.held_out_fraction)
    raw_training, raw_held_out = (segments_of(reader, each) for each in clips)
    results: dict[str, Any] = {}
    for folder in options.runs:
        run = open_run(folder)
        standardize = run.model.standardizer.standardize
        training, held_out = standardize(raw_training), standardize(raw_held_out)
        real = held_out.double().numpy()
        # Reference: the distance of other pieces of the same music.
        samples: dict[str, Any] = {"training pieces": asdict(compare(training.numpy(), real))}
        for sampler in options.samplers:
            sets = [
                generated(run.model, sampler, options.count, seed) for seed in range(options.seeds)
            ]
            each = [asdict(compare(latents, real)) for latents, _ in sets]
            samples[sampler] = {
                "cpu_s": [seconds for _, seconds in sets],
                **{name: [one[name] for one in each] for name in each[0]},
            }
        results[folder.name] = {
            "step": run.num_steps,
            "prediction": run.model.prediction,
            "denoising": denoising(run.model, training, held_out),
            "samples": samples,
        }
        write_json(options.out, results)
        print(f"{folder.name}: {results[folder.name]}")


if __name__ == "__main__":
    main()
