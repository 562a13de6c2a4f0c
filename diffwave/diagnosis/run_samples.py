"""Samples of a run, compared with its training and held-out latents."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from diffwave.conditioner import SPECTROGRAM
from diffwave.diagnosis import notes, phase, samples
from diffwave.diagnosis.failures import Finding
from diffwave.diagnosis.run_data import RunData
from diffwave.diagnosis.sample_statistics import windows
from diffwave.model import LatentDiffusion
from diffwave.reference_loss import GaussianModel
from diffwave.run import DiffusionRun
from rave.codec import Codec
from rave.compute.arrays import FloatArray
from rave.noise import DecoderNoise

# Number of segments: generated, real ones for comparison (at most), decoded.
NUM_GENERATED, NUM_REAL, NUM_DECODED = 32, 128, 4
# Frames that a segment needs for autocorrelation and windows.
FEWEST_FRAMES = 2 * samples.PHRASE_FRAMES
# Largest number of training frames searched for copies: three hours at 21.5 frames per second.
SEARCHED_FRAMES = 2**18


def diagnose_samples(
    run: DiffusionRun, data: RunData, gaussian: GaussianModel, decoder: Codec | None, seed: int
) -> tuple[dict[str, Any], list[Finding]]:
    """Generate samples; return their measurements and findings.

    Args:
        run: Run with its model on the device to compute on.
        data: Latents of the run. Samples follow the conditions of held-out clips.
        gaussian: Best linear denoiser of the training latents.
        decoder: Codec that decodes the samples. None: they are not decoded.
        seed: Random seed of the samples.
    """
    model, header = run.model, run.header
    raw_held_out, latents, _ = data.batch(data.segments(data.held_out, NUM_REAL), model)
    held_out = latents.cpu().double().numpy()
    _, latents, _ = data.batch(data.segments(data.training, NUM_GENERATED), model)
    training = latents.cpu().double().numpy()
    followed = data.segments(data.held_out, NUM_GENERATED)
    raw_followed, _, inputs = data.batch(followed, model)
    count = len(followed) if inputs else NUM_GENERATED
    latents, trace = samples.trace_sampling(model, data.num_frames, count, seed, inputs, gaussian)
    raw = model.standardizer.unstandardize(latents)
    generated = latents.cpu().double().numpy()
    figures: dict[str, Any] = {
        "sampling": {
            "count": count,
            "num_steps": len(trace.denoised),
            **{name: value.tolist() for name, value in asdict(trace).items()},
        },
        "samples": None,
        "nearest": None,
        "decoded": None,
        "phase": None,
        "notes": None,
    }
    exploding = samples.exploding_norm(trace)
    if not np.isfinite(generated).all():
        assert exploding is not None
        return figures, [exploding]
    mean, std = (np.asarray(each) for each in (header.statistics.mean, header.statistics.std))
    deviation = np.sqrt(np.square(raw.cpu().double().numpy() - mean[:, None]).mean(axis=(0, 2)))
    level = samples.relative_level(deviation, std)
    figures["samples"] = {
        "level": level,
        "clamped_share": samples.clamped_share(generated),
        **samples.describe(generated, training, held_out),
    }
    few = held_out[_places(len(held_out), NUM_GENERATED)]
    queries = (windows(each, samples.PHRASE_FRAMES) for each in (generated, few))
    near, real = training_distances(data, model, *queries)
    figures["nearest"] = {
        "generated": float(np.median(near)),
        "held_out": float(np.median(real)),
    }
    findings = [
        samples.clamped_sampler(generated) or samples.clamped_sampler(raw.cpu().numpy()),
        # The level of exploded latents follows from the explosion.
        exploding or samples.level_lost(deviation, std),
        samples.memorised(near, real),
    ]
    if decoder is not None:
        noise = DecoderNoise(decoder.format, seed)
        decoded = {
            name: samples.decoded_db(decoder, _some(clips, NUM_DECODED), noise)
            for name, clips in (("generated", raw), ("held_out", raw_held_out))
        }
        figures["decoded"] = decoded
        findings.append(samples.silent_decode(decoded["generated"], decoded["held_out"], level))
        held_out_clips = _some(raw_held_out, phase.NUM_MOVED)
        moved = phase.measure_phase(decoder, held_out_clips, noise)
        figures["phase"] = asdict(moved) if moved is not None else None
        findings.append(phase.phase_in_latents(moved, decoder.format.sample_rate_hz))
        if SPECTROGRAM in inputs:
            heard = {
                notes.HEARD: raw_followed,
                notes.MODELLED: model.standardizer.project(raw_followed),
                notes.FOLLOWED: raw,
            }
            clips = {name: _some(each, notes.NUM_HEARD) for name, each in heard.items()}
            figures["notes"] = notes.measure_notes(decoder, clips, noise)
            findings.append(notes.notes_lost(figures["notes"]))
    return figures, [each for each in findings if each is not None]


def training_distances(
    data: RunData, model: LatentDiffusion, *queries: FloatArray
) -> list[FloatArray]:
    """Return for each set of windows (Q, K·`PHRASE_FRAMES`) the distances to the training (Q,)."""
    points = np.concatenate([each.astype(np.float32) for each in queries])
    points = points.reshape(len(points), -1, samples.PHRASE_FRAMES)
    stretches = data.stretches(model, samples.PHRASE_FRAMES - 1, SEARCHED_FRAMES)
    distances = samples.nearest_distances(points, (each.numpy() for each in stretches))
    return np.split(distances, np.cumsum([len(each) for each in queries[:-1]]))


def _some(clips: Tensor, count: int) -> Any:
    """Return at most `count` of the clips as an array."""
    return clips[_places(len(clips), count)].cpu().numpy()


def _places(length: int, count: int) -> Any:
    """Return at most `count` indices of a list, evenly spread."""
    return np.linspace(0, length - 1, min(count, length)).astype(int)
