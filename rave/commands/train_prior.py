"""`rave train_prior`: train an autoregressive prior on latents."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import add_device, add_processes, add_seed, add_settings, command_parser
from rave.latents.storage import latents_place
from rave.runs.recipes import check_settings, recipe_type

if TYPE_CHECKING:
    from rave.prior_training import PriorTraining

# Each is memory-mapped for the whole training, and Linux maps 65,530 at most.
MAX_CLIPS = 60_000


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave train_prior`."""
    options = command_parser(
        "rave train_prior",
        "Train an autoregressive prior on latents, from which `rave sample_prior` makes new ones. "
        "The same\ncommand again resumes where the last checkpoint stopped.",
        "rave train_prior latents --out runs/prior --set MAX_STEPS=5000",
    )
    options.add_argument(
        "latents",
        type=latents_place,
        metavar="LATENTS",
        help="what rave encode wrote, or rave shard: a folder, or an address such as s3://bucket/set",
    )
    options.add_argument("--out", type=Path, required=True, help="run folder")
    options.add_argument(
        "--config",
        type=recipe_type("rave"),
        default="prior/default",
        help="prior/default, of acids-rave's size, for a GPU (default); prior/tiny, minutes on a "
        "CPU; or a .gin file",
    )
    add_settings(options)
    add_device(options)
    add_processes(options)
    add_seed(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Fit the axes, train, and report the held-out loss."""
    check_settings("rave", options.config, options.settings)
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from rave import experiment
    from rave.compute.device import choose_device
    from rave.compute.launch import is_first
    from rave.files.atomic import check_output_folder
    from rave.held_out import Split, data_state, recording_keys
    from rave.latent_dataset import LatentDataset
    from rave.latents.folder import HEADER_NAME
    from rave.latents.generated import check_header, save_header
    from rave.prior import KIND, LatentPrior, principal_axes
    from rave.prior_training import HELD_OUT_SEGMENTS, PriorSegments, PriorSystem, divide
    from rave.runs.checkpoint import finished_steps
    from rave.trainer import Loaders, StepBatches, fit

    choose_device(options.device)
    if isinstance(options.latents, Path):
        check_output_folder(options.out, options.latents)
    dataset = LatentDataset(options.latents)
    if len(dataset) > MAX_CLIPS:
        raise ValueError(
            f"'{options.latents}' holds {len(dataset)} clips; rave train_prior takes at most "
            f"{MAX_CLIPS}. Give it some of the folders."
        )
    header = dataset.header
    check_header(options.out, header)
    is_begun = (options.out / HEADER_NAME).exists()
    earlier = experiment.rebuild_model(options.out, KIND, LatentPrior) if is_begun else None
    settings = [*options.settings, f"SEED={options.seed}", f"RAW_SIZE={header.latent_size}"]
    experiment.parse_recipe("rave", options.config, [*settings, "LATENT_SIZE=1"])
    training: PriorTraining = experiment.build_training()
    clips = {file.path: dataset.array(index) for index, file in enumerate(dataset.files)}
    _check_long_enough(clips, training.segment_frames)
    origins = {
        name: file.origin
        for name, file in zip(clips, dataset.files, strict=True)
        if clips[name].shape[1] >= training.segment_frames
    }
    keys = recording_keys(origins.values())
    split = Split.read(options.out) or Split.of(keys, training.held_out_fraction)
    training_clips, held_out_clips = divide(clips, origins, split, training.segment_frames)
    mean, axes, std = principal_axes([*training_clips.values()])
    if std.max() <= 1e-6 * (1.0 + np.abs(mean).max()):
        raise ValueError(
            "The training latents do not vary at all, so there is nothing to learn from. "
            "Is the audio silent, or the codec untrained?"
        )
    latent_size = training.latent_size(std) if earlier is None else earlier.latent_size
    if training.segment_frames <= latent_size:
        raise ValueError(
            f"SEGMENT_FRAMES is {training.segment_frames}, but {latent_size} dimensions are "
            "modelled, which need more frames. Raise it, or lower FIDELITY."
        )
    experiment.parse_recipe("rave", options.config, [*settings, f"LATENT_SIZE={latent_size}"])
    torch.manual_seed(options.seed)  # of the first weights
    model = experiment.new_model()
    model_config = experiment.resolved_config()
    training = experiment.build_training()
    config = experiment.resolved_config()
    if options.dry_run:
        return Result(config.rstrip(), {"config": config})
    model.fit(mean, axes, std)  # of a run that continues its checkpoint brings them
    if is_first():
        experiment.save_run(options.out, KIND, model_config, config)
        split.write(options.out)
        save_header(options.out, header)
    resumed_from = finished_steps(options.out)
    frames, seed = training.segment_frames, training.seed
    num_items = (training.max_steps + 1) * training.batch_size  # loaders read one batch ahead
    segments = PriorSegments(training_clips, frames, num_items, seed)
    held_out = PriorSegments(held_out_clips, frames, HELD_OUT_SEGMENTS, None)
    system = PriorSystem(model, training)
    fit(
        system,
        lambda start_step: Loaders(
            DataLoader(segments, batch_sampler=StepBatches(training.batch_size, start_step)),
            DataLoader(held_out, batch_size=training.batch_size),
            data_state(keys, [clips[name].shape[1] for name in origins], header.statistics),
        ),
        options.out,
        training.max_steps,
        min(training.validate_every_steps, training.max_steps),
        device=options.device,
        num_devices=options.devices,
        num_nodes=options.nodes,
        log_every_steps=training.log_every_steps,
    )
    figures: dict[str, Any] = {
        "run": str(options.out),
        "steps": training.max_steps,
        "resumed_from": resumed_from,
        "latent_size": latent_size,
        "uniform": math.log(model.num_classes),
    }
    text = f"{training.max_steps} steps done in '{options.out}', {latent_size} dimensions."
    if resumed_from < training.max_steps and "held_out_loss" in system.trainer.callback_metrics:
        figures["held_out_loss"] = float(system.trainer.callback_metrics["held_out_loss"])
        text += (
            f" Held-out loss {figures['held_out_loss']:.3f} nats a value; knowing nothing costs "
            f"{figures['uniform']:.3f}."
        )
    return Result(text, figures)


def _check_long_enough(clips: dict[str, Any], num_frames: int) -> None:
    """Check that a clip holds a segment; report those that do not."""
    short = [name for name, clip in clips.items() if clip.shape[1] < num_frames]
    if len(short) == len(clips):
        longest = max(clip.shape[1] for clip in clips.values())
        raise ValueError(
            f"No clip holds a segment of {num_frames} frames (the longest has {longest}). Lower "
            "it with --set SEGMENT_FRAMES=…"
        )
    if short:
        print(
            f"left out, shorter than {num_frames} frames: {', '.join(short[:8])}"
            f" ({len(short)} in all)",
            file=sys.stderr,
        )
