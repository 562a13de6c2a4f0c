"""Train an autoregressive prior on latents."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.compute.launch import is_first
from rave.files.atomic import check_output_folder
from rave.latents.storage import is_address
from rave.parsing import check_seed
from rave.runs.recipes import read_recipe

if TYPE_CHECKING:
    from rave.latent_dataset import ClipFile
    from rave.prior_training import PriorTraining

GIVEN = {"SEED": "--seed", "RAW_SIZE": "the latents", "LATENT_SIZE": "the latents and FIDELITY"}


def train_prior(
    latents: str | Path,
    out: str | Path,
    *,
    config: str = "prior/default",
    settings: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    dry_run: bool = False,
) -> Result:
    """Train an autoregressive prior. The same call again resumes from the last checkpoint.

    Args:
        latents: Folder that `rave encode` or `rave shard` wrote, or an address such as
            s3://bucket/set.
        out: Run folder, which `rave sample_prior` reads.
        config: prior/default, prior/tiny, or path of a .gin file.
        settings: Lines NAME=VALUE that change the recipe, such as "MAX_STEPS=5000".
        seed: Random seed of weights and segments, 0 to 2^32 - 1.
        device: auto, cpu, cuda, cuda:N or mps.
        devices: GPUs (or processes on the CPU) of each node that share each batch.
        nodes: Nodes that share each batch; each makes this call.
        dry_run: Return the resolved recipe and write nothing.

    Returns:
        Figures: `steps`, `resumed_from`, `latent_size` (modelled dimensions), and in nats per value
        `held_out_loss` and `uniform`, the loss of a uniform guess.

    Raises:
        ValueError: If the latents, the recipe or a setting cannot be used, or `out` holds another
            run; if the loss becomes NaN or infinite.
        OSError: If a file cannot be read or written.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once the step is finished and saved.
    """
    check_seed(seed)
    recipe, out = read_recipe("rave", config, settings, GIVEN), Path(out)
    import numpy as np
    from torch.utils.data import DataLoader

    from rave.compute.device import choose_device
    from rave.experiment import build, rebuild_model, save_run, training_of
    from rave.held_out import Split, data_state, recording_keys
    from rave.latent_dataset import LatentDataset
    from rave.latents.folder import HEADER_NAME
    from rave.latents.generated import check_header, save_header
    from rave.prior import KIND, LatentPrior, principal_axes
    from rave.prior_training import HELD_OUT_SEGMENTS, PriorSegments, PriorSystem, divide
    from rave.runs.checkpoint import finished_steps
    from rave.trainer import Loaders, StepBatches, fit

    choose_device(device)
    if not is_address(latents):
        latents = Path(latents)
        check_output_folder(out, latents)
    dataset = LatentDataset(latents)
    header = dataset.header
    check_header(out, header)
    is_begun = (out / HEADER_NAME).exists()
    earlier = rebuild_model(out, KIND, LatentPrior) if is_begun else None
    recipe = recipe.bind({"SEED": seed, "RAW_SIZE": header.latent_size, "LATENT_SIZE": 1})
    training: PriorTraining = training_of(recipe)
    files = _long_enough(dataset.files, training.segment_frames)
    origins = {name: file.origin for name, file in files.items()}
    keys = recording_keys(origins.values())
    split = Split.read(out) or Split.of(keys, training.held_out_fraction)
    training_clips, held_out_clips = divide(files, origins, split, training.segment_frames)
    for clip in held_out_clips:  # one that cannot be read is reported before the training
        dataset.read(clip)
    mean, axes, std = principal_axes(dataset.read(clip) for clip in training_clips)
    if std.max() <= 1e-6 * (1.0 + np.abs(mean).max()):
        raise ValueError(
            "The training latents do not vary at all, so there is nothing to learn from. "
            "Is the audio silent, or the codec untrained?"
        )
    latent_size = training.latent_size(std) if earlier is None else earlier.latent_size
    if training.segment_frames <= latent_size:
        raise ValueError(
            f"SEGMENT_FRAMES is {training.segment_frames}, but {latent_size} modelled dimensions "
            "need more frames. Raise it, or lower FIDELITY."
        )
    built = build(recipe.bind({"LATENT_SIZE": latent_size}), seed)
    if dry_run:
        return Result(built.config.rstrip(), {"config": built.config})
    built.model.fit(mean, axes, std)  # a resumed run takes them from its checkpoint
    if is_first():
        save_run(out, KIND, built.model_config, built.config)
        split.write(out)
        save_header(out, header)
    resumed_from = finished_steps(out)
    frames = training.segment_frames
    num_items = (training.max_steps + 1) * training.batch_size  # loaders read one batch ahead
    segments = PriorSegments(dataset, training_clips, frames, num_items, training.seed)
    held_out = PriorSegments(dataset, held_out_clips, frames, HELD_OUT_SEGMENTS, None)
    system = PriorSystem(built.model, training)
    fit(
        system,
        lambda start_step: Loaders(
            DataLoader(segments, batch_sampler=StepBatches(training.batch_size, start_step)),
            DataLoader(held_out, batch_size=training.batch_size),
            data_state(keys, [file.num_frames for file in files.values()], header.statistics),
        ),
        out,
        training.max_steps,
        min(training.validate_every_steps, training.max_steps),
        device=device,
        num_devices=devices,
        num_nodes=nodes,
        log_every_steps=training.log_every_steps,
    )
    figures: dict[str, Any] = {
        "run": str(out),
        "steps": training.max_steps,
        "resumed_from": resumed_from,
        "latent_size": latent_size,
        "uniform": math.log(built.model.num_classes),
    }
    text = f"{training.max_steps} steps done in '{out}', {latent_size} dimensions."
    if resumed_from < training.max_steps and "held_out_loss" in system.trainer.callback_metrics:
        figures["held_out_loss"] = float(system.trainer.callback_metrics["held_out_loss"])
        text += (
            f" Held-out loss {figures['held_out_loss']:.3f} nats per value (uniform guess: "
            f"{figures['uniform']:.3f})."
        )
    return Result(text, figures)


def _long_enough(files: Sequence[ClipFile], num_frames: int) -> dict[str, ClipFile]:
    """Return the files that hold a segment, by name; report the others."""
    named = {file.path: file for file in files}
    short = [name for name, file in named.items() if file.num_frames < num_frames]
    if len(short) == len(named):
        longest = max(file.num_frames for file in files)
        raise ValueError(
            f"No clip holds a segment of {num_frames} frames (the longest has {longest}). Set a "
            "smaller one with --set SEGMENT_FRAMES=…"
        )
    if short:
        print(
            f"left out, shorter than {num_frames} frames: {', '.join(short[:8])}"
            f" ({len(short)} in total)",
            file=sys.stderr,
        )
    return {name: file for name, file in named.items() if file.num_frames >= num_frames}
