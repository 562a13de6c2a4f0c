# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.train`: train a diffusion model on a folder of latents."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import add_device, add_processes, add_seed, add_settings, command_parser, execute
from rave.latents.storage import latents_place
from rave.parsing import existing
from rave.runs import recipes
from rave.runs.recipes import list_recipes, recipe_type

if TYPE_CHECKING:
    from diffwave.clips import Clip
    from diffwave.dataset import ClipReader
    from diffwave.model import LatentDiffusion
    from diffwave.settings import TrainingSettings
    from rave.latents.folder import LatentHeader

# Values of the recipe that follow from the data and the command line.
GIVEN = (
    "SEED",
    "RAW_SIZE",
    "LATENT_SIZE",
    "NUM_MELS",
    "HOP_SAMPLES",
    "MEL_HOP_SAMPLES",
    "LABELS",
    "NETWORK_CONDITION_CHANNELS",
)


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.train",
        "Train a diffusion model on the latents that `rave encode` wrote. The same command again "
        "resumes.",
        "python -m diffwave.train latents --out runs/piano --set MAX_STEPS=5000",
    )
    options.add_argument(
        "latents",
        type=latents_place,
        metavar="LATENTS",
        help="what rave encode wrote, or rave shard: a folder, or an address such as s3://bucket/set",
    )
    options.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder")
    options.add_argument(
        "--config",
        type=recipe_type("diffwave"),
        default="default",
        metavar="RECIPE",
        help=f"{', '.join(list_recipes('diffwave'))}, or a .gin file (default default)",
    )
    options.add_argument(
        "--spectrograms",
        type=existing("what diffwave.preprocess wrote"),
        metavar="DIR",
        help="what diffwave.preprocess wrote, for a model that follows a spectrogram",
    )
    options.add_argument(
        "--controls",
        type=str,
        nargs="+",
        metavar=("DIR", "NAME"),
        help="what diffwave.preprocess --controls wrote, for a model that follows its controls, or "
        "those named",
    )
    options.add_argument(
        "--labels",
        action="store_true",
        help="the folders at the top of the latent tree are classes, for a model that follows them",
    )
    add_settings(options)
    add_seed(options)
    add_device(options)
    add_processes(options)
    return options


def run(options: argparse.Namespace) -> Result:
    """Train, and say what was learnt."""
    check_settings(options.config, options.settings)
    controls = Path(options.controls[0]) if options.controls else None
    if controls and not controls.exists():
        raise ValueError(
            f"'{controls}' does not exist. Give what diffwave.preprocess --controls wrote."
        )
    import torch
    from torch.utils.data import DataLoader

    from diffwave.clips import sample, split_clips
    from diffwave.conditioner import NormalizedConditioner
    from diffwave.dataset import FixedSegments, SegmentDataset
    from diffwave.diagnosis.latents import white_latents
    from diffwave.reference_loss import REFERENCE_SEGMENTS
    from diffwave.run import KIND, TrainingData, open_run
    from diffwave.skill import judge, save_skill, skill_bins
    from diffwave.training import (
        DiffusionSystem,
        averaged_weights,
        held_out_errors,
        measure_references,
    )
    from rave.compute.device import choose_device, choose_precision
    from rave.compute.launch import is_first
    from rave.experiment import build_training, new_model, resolved_config, save_run
    from rave.files.atomic import check_output_folder
    from rave.held_out import Split, data_state
    from rave.latent_dataset import LatentDataset, keys_and_lengths
    from rave.latents.generated import check_header, save_header
    from rave.runs.checkpoint import check_not_released, finished_steps
    from rave.trainer import Loaders, StepBatches, fit

    device = choose_device(options.device)
    for folder in (options.latents, options.spectrograms, controls):
        if isinstance(folder, Path):
            check_output_folder(options.out, folder)
    check_not_released(options.out)
    dataset = LatentDataset(options.latents)
    header = dataset.header
    check_header(options.out, header)
    _check_contents(header, options.latents)
    settings = read_settings(options.config, options.settings, options.seed)
    precision = choose_precision(settings.precision, device)
    keys, lengths = keys_and_lengths(dataset.files)
    split = Split.read(options.out) or Split.of(keys, settings.held_out_fraction)
    training_clips, held_out_clips = split_clips(dataset.files, split)
    earlier = _earlier(options.out)
    reader = _reader(options, header, training_clips, earlier)
    fitted = _fit_model_input(options, settings, header, reader, training_clips, earlier)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)  # of the first weights
        model = new_model()
    model_config = resolved_config()
    settings = build_training()
    config = resolved_config()
    if options.dry_run:
        return Result(config, {"config": config})
    model.standardizer.load_state_dict(fitted.state_dict())
    for name, conditioner in model.named_conditioners().items():
        if isinstance(conditioner, NormalizedConditioner):
            conditioner.fit(reader.condition(name, clip) for clip in sample(training_clips))

    if is_first():
        save_run(options.out, KIND, model_config, config)
        split.write(options.out)
        save_header(options.out, header)
        TrainingData(options.latents, options.spectrograms, controls).write(options.out)
    if finished_steps(options.out):
        assert earlier is not None
        model.load_state_dict(earlier.state_dict())  # scales of conditions, as measured at first
    num_frames = settings.segment_frames
    held_out = FixedSegments(reader, held_out_clips, num_frames, settings.held_out_segments)
    known = FixedSegments(reader, training_clips, num_frames, REFERENCE_SEGMENTS)
    references, levels = measure_references(model, known, held_out, settings)
    if white := white_latents(references, f"{model.prediction}, {settings.loss}"):
        print(f"warning: {white}", file=sys.stderr)
    segments = SegmentDataset(reader, training_clips, num_frames, settings.seed)
    held_out_batches: Any = DataLoader(held_out, batch_size=settings.batch_size)

    def data_for(start_step: int) -> Loaders:
        batches = StepBatches(settings.batch_size, start_step)
        loader = DataLoader(segments, batch_sampler=batches)
        return Loaders(loader, held_out_batches, data_state(keys, lengths, header.statistics))

    fit(
        DiffusionSystem(model, settings, references, levels),
        data_for,
        options.out,
        settings.max_steps,
        settings.validate_every_steps,
        device=options.device,
        num_devices=options.devices,
        num_nodes=options.nodes,
        precision=precision,
        log_every_steps=settings.log_every_steps,
        gradient_clip_norm=settings.gradient_clip_norm,
        callbacks=[averaged_weights(settings.ema_decay)],
    )
    if not is_first():
        return Result("")
    trained = open_run(options.out)
    errors = [
        held_out_errors(trained.model, batch, len(held_out), settings.loss, settings.weighting)
        for batch in held_out_batches
    ]
    losses = torch.cat(errors).double().numpy()
    loss, names = float(losses.mean()), {"loss": settings.loss, "weighting": settings.weighting}
    objective = {"prediction": model.prediction, **names}
    bins = skill_bins(losses, levels)
    judged = judge(losses, levels, references, held_out.clips)
    skill = save_skill(options.out, trained.num_steps, objective, loss, references, judged, bins)
    figures = {
        "run": str(options.out),
        "num_steps": settings.max_steps,
        "best_step": trained.num_steps,
        "latent_size": model.standardizer.latent_size,
        "raw_size": model.standardizer.raw_size,
        "fidelity": float(trained.model.standardizer.fidelity),
        **skill,
    }
    verdict = judged.verdict
    if model.is_conditional:
        verdict += " (The references do not see the conditions, the model does.)"
        gains = _gains(trained.model, held_out, settings.loss, settings.weighting)
        figures["conditioner_gain"] = gains
        if gains:
            told = ", ".join(f"{name} {gain:.2f}" for name, gain in gains.items())
            verdict += (
                "\nConditioner gain (held-out loss with conditions of other clips, over that with "
                f"the right ones): {told}."
            )
    return Result(verdict, figures)


def _earlier(run: Path) -> LatentDiffusion | None:
    """Return the model of a run that is begun, with its last weights if it has any; or None."""
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
    """Return the names of the labels: those of the run, if it is begun.

    Raises:
        ValueError: If there are fewer than two, or one that the run does not know.
    """
    from diffwave.clips import label_names
    from diffwave.conditioner import LABEL, LabelConditioner

    known = earlier.named_conditioners().get(LABEL) if earlier else None
    found = label_names(clips)
    if not isinstance(known, LabelConditioner):
        return found
    if new := sorted(set(found) - set(known.names)):
        raise ValueError(
            f"The latents have a labelled folder '{new[0]}', which the run does not know; it was "
            f"begun with {', '.join(known.names)}. Take the folder out, or give another --out."
        )
    return known.names


def _reader(
    options: argparse.Namespace,
    header: LatentHeader,
    clips: Sequence[Clip],
    earlier: LatentDiffusion | None,
) -> ClipReader:
    """Return a reader of the latents and of the conditions asked for."""
    from diffwave.conditions.controls import check_controls
    from diffwave.dataset import ClipReader

    folder, *names = options.controls or [None]
    return ClipReader.open(
        options.latents,
        header,
        spectrograms=options.spectrograms,
        controls=Path(folder) if folder else None,
        control_names=check_controls(names) if names else (),
        labels=_labels(clips, earlier) if options.labels else (),
    )


def _gains(model: Any, held_out: Any, loss: str, weighting: str) -> dict[str, float]:
    """Return the conditioner gain of all conditions together, and of each if there are several."""
    from diffwave.diagnosis.conditioner import conditioner_gain

    if len(held_out) < 2:
        return {}
    gains = {"all": conditioner_gain(model, held_out, loss, weighting).gain}
    if len(model.conditioners) > 1:
        for name in model.conditioners:
            gains[name] = conditioner_gain(model, held_out, loss, weighting, [name]).gain
    return gains


def _check_contents(header: LatentHeader, folder: Path | str) -> None:
    from rave.latents.folder import GENERATED, POSTERIOR_SAMPLE

    if header.contents == POSTERIOR_SAMPLE:
        print(
            f"warning: '{folder}' holds samples of the posterior. Dimensions that carry nothing "
            "are white noise in it, which no model can learn; encode the posterior mean instead.",
            file=sys.stderr,
        )
    if header.contents == GENERATED:
        print(f"warning: '{folder}' holds generated latents, not music.", file=sys.stderr)


def check_settings(config: str, chosen: Sequence[str]) -> None:
    """Check settings of a recipe as far as text alone says.

    Raises:
        ValueError: If one cannot be read, nothing uses it, or it follows from the data.
    """
    for setting in chosen:
        name = setting.partition("=")[0].strip()
        if name in GIVEN:
            raise ValueError(
                f"{name} cannot be set: it follows from the latents and the other options. "
                "The number of dimensions follows from FIDELITY, the seed from --seed."
            )
    recipes.check_settings("diffwave", config, chosen)


def read_settings(config: str, chosen: Sequence[str], seed: int) -> TrainingSettings:
    """Return the training settings of a recipe, before anything is known of the data.

    Raises:
        ValueError: If it cannot be read, or sets what follows from the data.
    """
    from rave.experiment import build_training, parse_recipe

    check_settings(config, chosen)
    parse_recipe("diffwave", config, [*chosen, f"SEED={seed}"])
    settings: TrainingSettings = build_training()
    return settings


def _fit_model_input(
    options: argparse.Namespace,
    settings: TrainingSettings,
    header: LatentHeader,
    reader: ClipReader,
    clips: Sequence[Clip],
    earlier: LatentDiffusion | None,
) -> Any:
    """Fit the standardizer, and parse the recipe again with the sizes that follow from the data.

    Of a run that is begun the sizes are what they were.
    """
    from diffwave.clips import sample
    from diffwave.conditioner import LABEL, SPECTROGRAM
    from diffwave.standardizer import Standardizer
    from rave.experiment import parse_recipe

    latent_size = earlier.standardizer.latent_size if earlier else None
    raw = (reader.raw(clip) for clip in sample(clips))
    standardizer = Standardizer.fit(raw, settings.fidelity, latent_size)
    given = [
        f"SEED={options.seed}",
        f"RAW_SIZE={header.latent_size}",
        f"LATENT_SIZE={standardizer.latent_size}",
    ]
    parts = {
        name: f"@{name}/conditioner.ControlConditioner()"
        for name in reader.sources
        if name != SPECTROGRAM
    }
    if reader.spectrograms is not None:
        parts = {SPECTROGRAM: "@conditioner.SpectrogramConditioner()", **parts}
        _, mels = reader.spectrograms
        given += [
            f"NUM_MELS={mels.num_mels}",
            f"HOP_SAMPLES={mels.hop_samples}",
            f"MEL_HOP_SAMPLES={mels.mel_hop_samples}",
        ]
    if reader.labels:
        parts[LABEL] = "@conditioner.LabelConditioner()"
        given.append(f"LABELS={list(reader.labels)!r}")
    if parts:
        items = ", ".join(f"'{name}': {part}" for name, part in parts.items())
        given += [
            f"model.LatentDiffusion.conditioners={{{items}}}",
            "NETWORK_CONDITION_CHANNELS=%CONDITION_CHANNELS",
        ]
    parse_recipe("diffwave", options.config, [*options.settings, *given])
    return standardizer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
