"""Diagnosis of a run: what it has learned, its network, its conditions, its samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import default_collate

from diffwave.dataset import FixedSegments, Segment, standardized_runs
from diffwave.diagnosis import network
from diffwave.diagnosis.conditioner import (
    BATCH_SIZE,
    conditioner_curves,
    conditioner_gain,
    ignored_conditioner,
    order_across_clips,
)
from diffwave.diagnosis.failures import (
    BROADCAST_OUTPUT,
    EXPLODING_NORM,
    FOREIGN_SCHEDULE,
    LEVEL_LOST,
    NOTES_LOST,
    PHASE_IN_LATENTS,
    RESIDUAL_READOUT,
    SILENT_DECODE,
    Finding,
)
from diffwave.diagnosis.latents import USUAL, white_latents
from diffwave.diagnosis.predictability import predictability
from diffwave.diagnosis.run_data import RunData, open_data
from diffwave.diagnosis.run_samples import FEWEST_FRAMES, NUM_REAL, diagnose_samples
from diffwave.model import LatentDiffusion
from diffwave.objective import Objective
from diffwave.reference_loss import (
    REFERENCE_SEGMENTS,
    GaussianModel,
    LossCurve,
    ReferenceLosses,
    SpectralDensity,
    fit_gaussian,
    reference_losses,
)
from diffwave.run import KIND, DiffusionRun, TrainingData, open_run, training_settings
from diffwave.schedule import COSINE, named_schedule
from diffwave.skill import judge, skill_bins
from diffwave.training import held_out_errors, measure_references
from diffwave.upstream.run import is_lmnt_run
from rave.codec import load_codec
from rave.experiment import rebuild_model

# Held-out segments that the network is measured on; each costs about a hundred passes.
NUM_PROBED = 16
# A network that is wired wrong, or sampled with another schedule than its own, may generate any
# level. That follows from the first failure, so it is not reported.
WRONG_NETWORKS = (BROADCAST_OUTPUT, RESIDUAL_READOUT, FOREIGN_SCHEDULE)
LEVELS_OF_SAMPLES = (EXPLODING_NORM, LEVEL_LOST, SILENT_DECODE)


@dataclass(frozen=True)
class RunDiagnosis:
    """Measurements of a run, and its known failures.

    Attributes:
        figures: Numbers, texts, and lists and dicts of them.
        findings: Failures found; none in a healthy run.
    """

    figures: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return findings and figures as JSON-able data."""
        record = {"findings": [each.record() for each in self.findings], **self.figures}
        return cast(dict[str, Any], _jsonable(record))


def diagnose_run(
    folder: Path,
    *,
    latents: Path | None = None,
    spectrograms: Path | None = None,
    controls: Path | None = None,
    codec: Path | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> RunDiagnosis:
    """Diagnose a run.

    Args:
        folder: Run of diffwave.train or of the patched lmnt diffwave.
        latents: Folder of the latents that it was trained on, if they have moved.
        spectrograms: Folder of its spectrograms, if they have moved.
        controls: Folder of its controls, if they have moved.
        codec: Codec that decodes generated latents. None: they are not decoded.
        device: Device to compute on. None: the CPU.
        seed: Random seed of the samples.
        progress: Called with a few words when a part of the work begins.

    Raises:
        ValueError: If the folder is no run, or its latents or conditions are not found or are
            those of another run.
    """
    progress = progress or (lambda _: None)
    device = device or torch.device("cpu")
    run, settings = open_run(folder), training_settings(folder)
    moved = TrainingData(latents, spectrograms, controls)
    data = open_data(run, settings, moved, FEWEST_FRAMES)
    decoder = None
    if codec is not None:
        decoder = load_codec(codec, device)
        decoder.check_latents(run.header, folder)
    figures: dict[str, Any] = {
        "kind": "run",
        "run": str(folder),
        "num_steps": run.num_steps,
        "latent_size": run.model.standardizer.latent_size,
        "raw_size": run.model.standardizer.raw_size,
        "follows": list(run.model.conditioners),
        "latents": str(data.reader.latents.place),
        "is_training_data": data.is_known,
        "segment_frames": data.num_frames,
        "frame_rate_hz": run.header.frame_rate_hz,
        "timesteps": None,
        "conditioner": None,
        "predictability": None,
    }
    progress("what has been learned")
    num_frames = settings.segment_frames
    held_out = FixedSegments(data.reader, data.held_out, num_frames, settings.held_out_segments)
    training = FixedSegments(data.reader, data.training, num_frames, REFERENCE_SEGMENTS)
    objective = settings.objective(run.model.prediction)
    references, levels = measure_references(run.model, training, held_out, objective)
    gaussian, usual = _linear(run.model, data)
    run.model.to(device)
    figures |= _learned(run.model, held_out, objective, references, levels)
    if not is_lmnt_run(folder):  # whose draws depend on its noise too
        figures["timesteps"] = network.timestep_coverage(
            settings.seed, settings.batch_size, run.num_steps, len(run.model.schedule)
        )
    progress("the network")
    probed = data.segments(data.held_out, NUM_PROBED)
    probe = _probe(run.model, data, probed, seed)
    figures["network"], causes = _network(run, probe)
    causes.append(white_latents(usual))
    if run.model.is_conditional and len(probed) > 1:
        progress("the conditions")
        figures["conditioner"] = followed = _conditioner(probe, probed, held_out, objective)
        changes = {name: max(each["change"]) for name, each in followed["curves"].items()}
        causes.append(
            ignored_conditioner(
                followed["best_gain"], changes, figures["held_out_loss"], references.white
            )
        )
    progress("what spectrograms say of the latents")
    figures["predictability"] = predictability(run.model, data)
    progress("the samples")
    more, effects = diagnose_samples(run, data, gaussian, decoder, seed)
    findings = [each for each in causes if each is not None]
    if any(each.name in WRONG_NETWORKS for each in findings):
        effects = [each for each in effects if each.name not in LEVELS_OF_SAMPLES]
    findings += effects
    if any(each.name not in (NOTES_LOST, PHASE_IN_LATENTS) for each in findings):
        findings = [each for each in findings if each.name != NOTES_LOST]  # they lose notes too
    return RunDiagnosis({**figures, **more}, findings)


def _linear(model: LatentDiffusion, data: RunData) -> tuple[GaussianModel, ReferenceLosses]:
    """Return the best linear denoiser, and the reference losses that show white latents."""
    standardizer = model.standardizer
    training = data.segments(data.training, REFERENCE_SEGMENTS)
    gaussian = fit_gaussian(standardized_runs(standardizer, training))
    density = SpectralDensity(standardizer.latent_size, data.num_frames)
    for latents, num_frames in standardized_runs(
        standardizer, data.segments(data.held_out, NUM_REAL)
    ):
        density.add(latents, num_frames)
    return gaussian, reference_losses(gaussian, density, named_schedule(COSINE), USUAL)


def _learned(
    model: LatentDiffusion,
    held_out: FixedSegments,
    objective: Objective,
    references: ReferenceLosses,
    levels: LossCurve,
) -> dict[str, Any]:
    """Return loss, references and skill over log-SNR, as training measures them."""
    device = model.standardizer.mean.device
    errors = []
    with torch.no_grad():
        for start in range(0, len(held_out), BATCH_SIZE):
            stop = min(start + BATCH_SIZE, len(held_out))
            batch = default_collate([held_out[index] for index in range(start, stop)])
            batch = cast(Segment, {name: value.to(device) for name, value in batch.items()})
            found = held_out_errors(model, batch, len(held_out), objective)
            errors.append(found.cpu().double())
    losses = torch.cat(errors).numpy()
    loss = float(losses.mean())
    return {
        **asdict(objective),
        "held_out_loss": loss,
        **asdict(references),
        **asdict(judge(losses, levels, references, held_out.clips)),
        "by_log_snr": [asdict(each) for each in skill_bins(losses, levels)],
    }


def _probe(
    model: LatentDiffusion, data: RunData, segments: FixedSegments, seed: int
) -> network.Probe:
    _, latents, inputs = data.batch(segments, model)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    return network.Probe(model, latents, noise.to(latents.device), inputs)


def _network(
    run: DiffusionRun, probe: network.Probe
) -> tuple[dict[str, Any], list[Finding | None]]:
    """Return measurements of the network, and findings."""
    share, change = network.broadcast_share(probe), network.readout_change(probe)
    shifted = network.shifted_errors(probe)
    figures = {
        "levels": [network.magnitudes(probe, level) for level in network.LEVELS],
        "broadcast_share": share,
        "readout_change": change,
        "told": shifted,
    }
    foreign = None
    if not is_lmnt_run(run.folder):
        named = rebuild_model(run.folder, KIND, LatentDiffusion).schedule
        foreign = network.other_schedule(run.model.schedule, named)
    return figures, [
        network.broadcast_output(share, run.model.standardizer.latent_size),
        network.residual_readout(change),
        foreign
        or network.foreign_schedule(*(np.asarray(shifted[each]) for each in ("error", "zero"))),
    ]


def _conditioner(
    probe: network.Probe,
    probed: FixedSegments,
    held_out: FixedSegments,
    objective: Objective,
) -> dict[str, Any]:
    """Return gains over all noise levels, and the effect of other conditions at each level."""
    order = order_across_clips(probed.clips)
    others = {name: value[order] for name, value in probe.inputs.items()}
    model = probe.model

    def gain(names: list[str], is_alone: bool = False) -> float:
        return conditioner_gain(model, held_out, objective, names, is_alone).gain

    names = list(model.conditioners)
    gains = {name: gain([name]) for name in names}
    alone = dict(gains)
    if len(names) > 1:
        alone = {name: gain([name], True) for name in names}
        gains["all"] = alone["all"] = gain(names)
    return {
        "gain": gains,
        "gain_alone": alone,
        "best_gain": {name: max(gains[name], alone[name]) for name in gains},
        "curves": conditioner_curves(probe, others),
    }


def _jsonable(content: Any) -> Any:
    """Return content with None for numbers that are not finite."""
    if isinstance(content, dict):
        return {key: _jsonable(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_jsonable(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
