"""Train a diffusion model on latents."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffwave.recipe import diffusion_recipe
from rave.api.result import Result
from rave.compute.launch import is_first
from rave.files.atomic import check_output_folder
from rave.latents.storage import is_address
from rave.parsing import check_seed

if TYPE_CHECKING:
    from diffwave.dataset import ClipReader, FixedSegments
    from diffwave.model import LatentDiffusion
    from diffwave.objective import Objective
    from diffwave.reference_loss import LossCurve, ReferenceLosses
    from diffwave.settings import TrainingSettings
    from diffwave.standardizer import Standardizer
    from rave.latent_dataset import Clip
    from rave.latents.folder import LatentHeader


def train_diffusion(
    latents: str | Path,
    out: str | Path,
    *,
    config: str = "default",
    settings: Sequence[str] = (),
    spectrograms: str | Path | None = None,
    controls: str | Path | None = None,
    control_names: Sequence[str] = (),
    labels: bool = False,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    dry_run: bool = False,
) -> Result:
    """Train a diffusion model. The same call again resumes from the last checkpoint.

    Args:
        latents: Folder of `rave encode` or `rave shard`, or an address such as s3://bucket/set.
        out: Run folder to write; `diffwave.inference` reads it.
        config: Name of a recipe, such as default or tiny, or path of a .gin file.
        settings: Settings NAME=VALUE that change the recipe, such as "MAX_STEPS=5000".
        spectrograms: Folder of `diffwave.preprocess`, for a model that follows spectrograms.
        controls: Folder of `diffwave.preprocess --controls`, for a model that follows controls.
        control_names: Controls to follow. Empty: all controls of the folder.
        labels: Follow class labels: the names of the top folders of the latents.
        seed: Random seed of weights, segments, noise and timesteps, 0 to 2^32 - 1.
        device: auto, cpu, cuda, cuda:N or mps.
        devices: GPUs (or processes on the CPU) per node that share each global batch.
        nodes: Nodes that share each global batch; each node makes this call.
        dry_run: Return the resolved recipe and write nothing.

    Returns:
        Figures: `num_steps`; `best_step`; the `latent_size` of `raw_size` dimensions that hold
        `fidelity` of the variance; the held-out loss and its references (`diffwave.skill`); with
        conditions also `conditioner_gain`. With several processes, only the first returns figures.

    Raises:
        ValueError: If the latents, the conditions, the recipe or a setting cannot be used, `out`
            holds another run, or the loss becomes NaN or infinite.
        OSError: If a file cannot be read or written.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once the step is finished and saved.
    """
    check_seed(seed)
    recipe, out = diffusion_recipe(config, settings).bind({"SEED": seed}), Path(out)
    spectrograms = Path(spectrograms) if spectrograms else None
    controls = Path(controls) if controls else None
    if controls and not controls.exists():
        raise ValueError(
            f"'{controls}' does not exist. Give a folder of diffwave.preprocess --controls."
        )
    from torch.utils.data import DataLoader

    from diffwave.clips import sample, split_clips
    from diffwave.conditioner import NormalizedConditioner
    from diffwave.conditions.controls import check_controls
    from diffwave.dataset import ClipReader, FixedSegments, SegmentDataset
    from diffwave.diagnosis.latents import white_latents
    from diffwave.reference_loss import REFERENCE_SEGMENTS
    from diffwave.run import KIND, TrainingData
    from diffwave.training import DiffusionSystem, averaged_weights, measure_references
    from rave.compute.device import choose_device, choose_precision
    from rave.experiment import build, save_run, training_of
    from rave.held_out import Split, data_state
    from rave.latent_dataset import LatentDataset, keys_and_lengths
    from rave.latents.generated import check_header, save_header
    from rave.runs.checkpoint import check_not_released, finished_steps
    from rave.trainer import Loaders, StepBatches, fit

    processor = choose_device(device)
    latents = latents if is_address(latents) else Path(latents)
    for folder in (latents, spectrograms, controls):
        if isinstance(folder, Path):
            check_output_folder(out, folder)
    check_not_released(out)
    dataset = LatentDataset(latents)
    header = dataset.header
    check_header(out, header)
    _check_contents(header, latents)
    training: TrainingSettings = training_of(recipe)
    precision = choose_precision(training.precision, processor)
    keys, lengths = keys_and_lengths(dataset.files)
    split = Split.read(out) or Split.of(keys, training.held_out_fraction)
    training_clips, held_out_clips = split_clips(dataset.files, split)
    earlier = _earlier(out)
    reader = ClipReader.open(
        dataset,
        spectrograms=spectrograms,
        controls=controls,
        control_names=check_controls(control_names) if control_names else (),
        labels=_labels(training_clips, earlier) if labels else (),
    )
    fitted = _fitted_standardizer(reader, training_clips, training.fidelity, earlier)
    bindings = {
        "RAW_SIZE": header.latent_size,
        "LATENT_SIZE": fitted.latent_size,
        **_condition_bindings(reader),
    }
    built = build(recipe.bind(bindings), seed)
    if dry_run:
        return Result(built.config.rstrip(), {"config": built.config})
    model: LatentDiffusion = built.model
    model.standardizer.load_state_dict(fitted.state_dict())
    for name, conditioner in model.named_conditioners().items():
        if isinstance(conditioner, NormalizedConditioner):
            conditioner.fit(reader.condition(name, clip) for clip in sample(training_clips))

    if is_first():
        save_run(out, KIND, built.model_config, built.config)
        split.write(out)
        save_header(out, header)
        TrainingData(latents, spectrograms, controls).write(out)
    if finished_steps(out):
        assert earlier is not None
        model.load_state_dict(earlier.state_dict())  # keeps the scales of conditions
    num_frames = training.segment_frames
    held_out = FixedSegments(reader, held_out_clips, num_frames, training.held_out_segments)
    measured = FixedSegments(reader, training_clips, num_frames, REFERENCE_SEGMENTS)
    objective = training.objective(model.prediction)
    references, levels = measure_references(model, measured, held_out, objective)
    if warning := white_latents(references, f"{objective.prediction}, {objective.loss}"):
        print(f"warning: {warning}", file=sys.stderr)
    segments = SegmentDataset(reader, training_clips, num_frames, training.seed)
    held_out_batches: Any = DataLoader(held_out, batch_size=training.batch_size)

    def data_for(start_step: int) -> Loaders:
        batches = StepBatches(training.batch_size, start_step)
        loader = DataLoader(segments, batch_sampler=batches)
        return Loaders(loader, held_out_batches, data_state(keys, lengths, header.statistics))

    fit(
        DiffusionSystem(model, training, references, levels),
        data_for,
        out,
        training.max_steps,
        training.validate_every_steps,
        device=device,
        num_devices=devices,
        num_nodes=nodes,
        precision=precision,
        log_every_steps=training.log_every_steps,
        gradient_clip_norm=training.gradient_clip_norm,
        callbacks=[averaged_weights(training.ema_decay)],
    )
    return _result(out, training, held_out, held_out_batches, references, levels)


def _result(
    out: Path,
    training: TrainingSettings,
    held_out: FixedSegments,
    batches: Any,
    references: ReferenceLosses,
    levels: LossCurve,
) -> Result:
    """Judge the trained model on held-out segments, and write skill.json."""
    import torch

    from diffwave.run import open_run
    from diffwave.skill import judge, save_skill, skill_bins
    from diffwave.training import held_out_errors

    if not is_first():
        return Result("")
    trained = open_run(out)
    model, objective = trained.model, training.objective(trained.model.prediction)
    errors = [held_out_errors(model, batch, len(held_out), objective) for batch in batches]
    losses = torch.cat(errors).double().numpy()
    bins = skill_bins(losses, levels)
    judged = judge(losses, levels, references, held_out.clips)
    loss = float(losses.mean())
    skill = save_skill(out, trained.num_steps, objective, loss, references, judged, bins)
    figures = {
        "run": str(out),
        "num_steps": training.max_steps,
        "best_step": trained.num_steps,
        "latent_size": model.standardizer.latent_size,
        "raw_size": model.standardizer.raw_size,
        "fidelity": float(model.standardizer.fidelity),
        **skill,
    }
    verdict = judged.verdict
    if model.is_conditional:
        verdict += " (The model sees the conditions, the references do not.)"
        gains = _gains(model, held_out, objective)
        figures["conditioner_gain"] = gains
        if gains:
            shown = ", ".join(f"{name} {gain:.2f}" for name, gain in gains.items())
            verdict += (
                "\nConditioner gain (held-out loss with conditions of other clips / with the right "
                f"ones): {shown}."
            )
    return Result(verdict, figures)


def _earlier(run: Path) -> LatentDiffusion | None:
    """Return the model of a run to resume, with its last weights if it has any; or None."""
    from diffwave.model import LatentDiffusion
    from diffwave.run import KIND
    from rave.experiment import rebuild_model
    from rave.runs.checkpoint import last_checkpoint, load_weights, read_checkpoint

    if not (run / "model.gin").exists():
        return None
    model = rebuild_model(run, KIND, LatentDiffusion)
    if last_checkpoint(run).exists():
        load_weights(model, read_checkpoint(last_checkpoint(run)), run)
    return model


def _labels(clips: Sequence[Clip], earlier: LatentDiffusion | None) -> Sequence[str]:
    """Return the names of the labels, in the order of the run if it is resumed.

    Raises:
        ValueError: If there are fewer than two, or the run was started without one of them.
    """
    from diffwave.clips import label_names
    from diffwave.conditioner import LABEL, LabelConditioner

    conditioner = earlier.named_conditioners().get(LABEL) if earlier else None
    found = label_names(clips)
    if not isinstance(conditioner, LabelConditioner):
        return found
    if new := sorted(set(found) - set(conditioner.names)):
        raise ValueError(
            f"The latents have a labelled folder '{new[0]}', but the run was started with "
            f"{', '.join(conditioner.names)}. Remove the folder, or give another --out."
        )
    return conditioner.names


def _gains(model: Any, held_out: Any, objective: Objective) -> dict[str, float]:
    """Return the conditioner gain of all conditions together, and of each if there are several."""
    from diffwave.diagnosis.conditioner import conditioner_gain

    if len(held_out) < 2:
        return {}
    gains = {"all": conditioner_gain(model, held_out, objective).gain}
    if len(model.conditioners) > 1:
        for name in model.conditioners:
            gains[name] = conditioner_gain(model, held_out, objective, [name]).gain
    return gains


def _check_contents(header: LatentHeader, folder: Path | str) -> None:
    from rave.latents.folder import GENERATED, POSTERIOR_SAMPLE

    if header.contents == POSTERIOR_SAMPLE:
        print(
            f"warning: '{folder}' holds samples of the posterior. Its uninformative dimensions "
            "are white noise, which no model can learn; encode the posterior mean instead.",
            file=sys.stderr,
        )
    if header.contents == GENERATED:
        print(f"warning: '{folder}' holds generated latents, not music.", file=sys.stderr)


def _fitted_standardizer(
    reader: ClipReader, clips: Sequence[Clip], fidelity: float, earlier: LatentDiffusion | None
) -> Standardizer:
    """Return the standardizer of the clips; a resumed run keeps its latent size."""
    from diffwave.clips import sample
    from diffwave.standardizer import Standardizer

    latent_size = earlier.standardizer.latent_size if earlier else None
    return Standardizer.fit((reader.raw(clip) for clip in sample(clips)), fidelity, latent_size)


def _condition_bindings(reader: ClipReader) -> dict[str, Any]:
    """Return the recipe's values that follow from the conditions; empty without conditions."""
    from diffwave.conditioner import LABEL, SPECTROGRAM
    from rave.runs.gin_text import Macro, Reference

    bindings: dict[str, Any] = {}
    conditioners = {
        name: Reference(f"{name}/conditioner.ControlConditioner")
        for name in reader.sources
        if name != SPECTROGRAM
    }
    if reader.spectrograms is not None:
        spectrogram = Reference("conditioner.SpectrogramConditioner")
        conditioners = {SPECTROGRAM: spectrogram, **conditioners}
        _, mels = reader.spectrograms
        bindings |= {
            "NUM_MELS": mels.num_mels,
            "HOP_SAMPLES": mels.hop_samples,
            "MEL_HOP_SAMPLES": mels.mel_hop_samples,
        }
    if reader.labels:
        conditioners[LABEL] = Reference("conditioner.LabelConditioner")
        bindings["LABELS"] = list(reader.labels)
    if conditioners:
        bindings |= {
            "model.LatentDiffusion.conditioners": conditioners,
            "NETWORK_CONDITION_CHANNELS": Macro("CONDITION_CHANNELS"),
        }
    return bindings
