"""`rave train`: train an autoencoder on prepared audio."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import RAVE_RUN, add_device, add_processes, add_seed, add_settings, command_parser
from rave.compute.launch import is_first
from rave.files.atomic import read_json, typed, write_json
from rave.parsing import existing, one_line
from rave.runs.recipes import check_settings, list_options, list_recipes, recipe_type, stated

if TYPE_CHECKING:
    from rave.audio.prepared import AudioStore
    from rave.dataset import PreparedCropsDataset
    from rave.held_out import Split
    from rave.trainer import Loaders
    from rave.training import RaveSystem, RaveTraining

ORIGIN = "initial.json"  # in a run folder: whose weights it started from
SAME_MODEL = 1e-3  # of the largest value: what two ways to compute the same may differ by


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave train`."""
    parser = command_parser(
        "rave train",
        "Train an autoencoder. The same command again resumes where the last checkpoint stopped.",
        "rave train tiny --data prepared --out runs/piano --set MAX_STEPS=7000",
    )
    recipe = parser.add_argument(
        "recipe",
        type=recipe_type("rave"),
        metavar="RECIPE",
        help=f"one of {', '.join(list_recipes('rave'))}; with options behind it, e.g. "
        f"v2+causal+noise, of {', '.join(list_options('rave'))}; or a .gin file",
    )
    recipe.completer = lambda **_: list_recipes("rave")  # type: ignore[attr-defined]
    parser.add_argument(
        "--data",
        type=existing("what `rave preprocess` wrote, or an LMDB folder of acids-rave"),
        required=True,
        help="prepared audio, or an LMDB folder of acids-rave",
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument(
        "--initialise-from",
        type=existing(RAVE_RUN),
        metavar="RUN",
        help="start a new run from the weights of this one, of `rave train` or of acids-rave; the "
        "recipe must have its sizes (default: random weights)",
    )
    add_settings(parser)
    add_device(parser)
    add_processes(parser)
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Build, save the resolved recipe, train, and report the last validation."""
    check_settings("rave", options.recipe, options.settings)
    from rave.files.atomic import check_output_folder
    from rave.upstream.lmdb import open_audio

    check_output_folder(options.out, options.data)
    store = open_audio(options.data)
    for file in store.files:
        store.check(file)
    import torch

    from rave import experiment
    from rave.compute.device import choose_device, choose_precision
    from rave.held_out import Split, recording_keys
    from rave.levels import remember
    from rave.runs.checkpoint import finished_steps
    from rave.trainer import fit
    from rave.training import RaveSystem

    device = choose_device(options.device)
    settings = _with_data_format(options.settings, store.sample_rate_hz, store.num_channels)
    settings.append(f"SEED={options.seed}")
    torch.manual_seed(options.seed)  # the initial weights
    experiment.parse_recipe("rave", options.recipe, settings)
    model = experiment.new_model()
    model_config = experiment.resolved_config()
    training: RaveTraining = experiment.build_training()
    config = experiment.resolved_config()
    if options.dry_run:
        return Result(config.rstrip(), {"config": config})
    _warn_of_rate(options.recipe, store.sample_rate_hz)
    precision = choose_precision(training.precision, device)
    system = RaveSystem(model, training)
    resumed_from = finished_steps(options.out)
    split = Split.read(options.out) or Split.of(
        recording_keys(file.origin for file in store.files), training.held_out_fraction
    )
    origin = None
    if options.initialise_from is not None:
        if resumed_from:
            _check_origin(options.out, options.initialise_from)
        else:
            origin = _initialise(system, options.initialise_from)
    if is_first():
        experiment.save_run(options.out, "rave", model_config, config)
        split.write(options.out)
        if origin is not None:
            write_json(options.out / ORIGIN, origin)
    warnings: list[str] = []  # repeated at the end, which may be days later
    fit(
        system,
        lambda start_step: _loaders(store, split, training, start_step, warnings),
        options.out,
        training.max_steps,
        training.validate_every_steps,
        device=options.device,
        num_devices=options.devices,
        num_nodes=options.nodes,
        precision=precision,
        log_every_steps=training.log_every_steps,
    )
    if is_first():
        remember(options.out, store, split, device)
    result = _result(system, options.out, resumed_from)
    told = "".join(f"\nWarning: {sentence}" for sentence in warnings)
    return replace(
        result, summary=result.summary + told, figures={**result.figures, "warnings": warnings}
    )


def _warn(sentence: str) -> None:
    print(f"rave train: warning: {sentence}", file=sys.stderr)


def _warn_of_rate(recipe: str, sample_rate_hz: int) -> None:
    """Say if a recipe is made for another sample rate than that of the data."""
    made_for = stated("rave", recipe, "SAMPLE_RATE_HZ")
    if made_for is None or float(made_for) == sample_rate_hz:
        return
    _warn(
        f"recipe '{recipe}' is made for {made_for} Hz, and the data has {sample_rate_hz} Hz: all "
        f"that it counts in samples lasts {float(made_for) / sample_rate_hz:.2f} times as long. If "
        "that is not meant, prepare the audio again: rave preprocess AUDIO_DIR PREPARED_DIR "
        f"--sample-rate {made_for}"
    )


def _emptiness(store: AudioStore, crops: dict[str, PreparedCropsDataset]) -> list[str]:
    """Return sentences if the data can teach nothing: is silent, constant, or one file many times.

    Args:
        store: The audio.
        crops: Some of what is trained on, and of what is held out.
    """
    from rave.dataset import are_copies

    means = {
        "trained on": "Nothing can be learned from it",
        "held out": "The held-out figures will mean nothing",
    }
    found = []
    for name, some in crops.items():
        heard = [  # without the zeros behind the end
            some[index][:, : piece.num_samples - start]
            for index, (piece, start) in enumerate(some.crops)
        ]
        if not any(float(crop.max() - crop.min()) for crop in heard):
            level = max(float(crop.abs().max()) for crop in heard)
            what = "one constant value (DC)" if level else "digital silence"
            found.append(f"all {len(some)} crops of what is {name} are {what}. {means[name]}.")
    if len(store.files) > 1 and are_copies(store):
        found.append(
            f"all {len(store.files)} files hold the same audio, so what is held out is trained on. "
            f"{means['held out']}."
        )
    return found


def _initialise(system: RaveSystem, run: Path) -> dict[str, str]:
    """Take the weights of a run, report what was taken, and return what to keep of it."""
    from rave.initial_weights import take_weights

    taken = take_weights(system.model, system.discriminator, run)
    what = (
        "encoder, decoder and discriminators"
        if taken.has_discriminator
        else ("encoder and decoder; discriminators begin anew")
    )
    print(f"weights of '{run}': {what}", file=sys.stderr)
    if taken.largest_difference > SAME_MODEL:
        _warn(
            f"with them this recipe computes something else than '{run}' does (by "
            f"{taken.largest_difference:.1e}); is it causal, are its dilations, activations and "
            "noise the same?"
        )
    return {"run": str(run.absolute()), "fingerprint": taken.fingerprint}


def _read_origin(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    what = "a record of initial weights"
    try:
        known: dict[str, str] = typed(read_json(path, what), dict[str, str], "it")
        return {name: known[name] for name in ("run", "fingerprint")}
    except (TypeError, KeyError) as error:
        raise ValueError(f"'{path}' is not {what} ({error}). Remove it.") from error


def _check_origin(out: Path, run: Path) -> None:
    """Check that a run that is begun started from the weights of another."""
    from rave.codec import load_run

    known = _read_origin(out / ORIGIN)
    if known.get("run") == str(run.absolute()):
        return
    if known and known.get("fingerprint") == load_run(run)[1].fingerprint:  # it was moved
        return
    begun_from = f"the weights of '{known.get('run')}'" if known else "random weights"
    raise ValueError(
        f"'{out}' was begun from {begun_from}, not from those of '{run}'. Leave --initialise-from "
        "out to go on, or give another --out."
    )


def _with_data_format(settings: list[str], sample_rate_hz: int, num_channels: int) -> list[str]:
    """Add the prepared audio's format to the settings; refuse settings that contradict it."""
    known = {"SAMPLE_RATE_HZ": sample_rate_hz, "NUM_CHANNELS": num_channels}
    for setting in settings:
        name, _, value = (part.strip() for part in setting.partition("="))
        if name in known and value != str(known[name]):
            raise ValueError(
                f"--set {setting} contradicts the prepared audio, whose {name} is {known[name]}. "
                "Leave the setting out, or prepare the audio again."
            )
    return [*settings, *(f"{name}={value}" for name, value in known.items())]


def _loaders(
    store: AudioStore,
    split: Split,
    training: RaveTraining,
    start_step: int,
    warnings: list[str],
) -> Loaders:
    from torch.utils.data import DataLoader

    from rave.dataset import PreparedAudioDataset, PreparedCropsDataset, split_audio
    from rave.held_out import data_state, recording_keys
    from rave.trainer import Loaders, StepBatches

    train_ranges, held_out_ranges = split_audio(store, split)
    names = ", ".join(piece.name for piece in held_out_ranges[:8])
    print(f"held out: {one_line(names)}", file=sys.stderr)
    num_items = (training.max_steps + 1) * training.batch_size  # loaders read one batch ahead
    crops = PreparedAudioDataset(
        store,
        training.crop_samples,
        num_items,
        training.seed,
        train_ranges,
        training.augmentations,
    )
    size, most = training.crop_samples, training.max_held_out_crops
    held_out = PreparedCropsDataset(store, size, held_out_ranges, most)
    known = PreparedCropsDataset(store, size, train_ranges, most)
    for sentence in _emptiness(store, {"trained on": known, "held out": held_out}):
        _warn(sentence)
        warnings.append(sentence)
    return Loaders(
        train=DataLoader(crops, batch_sampler=StepBatches(training.batch_size, start_step)),
        held_out=DataLoader(held_out, batch_size=training.batch_size),
        data=data_state(
            recording_keys(file.origin for file in store.files),
            [file.num_samples for file in store.files],
        ),
    )


def _result(system: RaveSystem, out: Path, resumed_from: int) -> Result:
    """Return the figures of the last validation."""
    steps = system.training_recipe.max_steps
    figures: dict[str, Any] = {"run": str(out), "steps": steps, "resumed_from": resumed_from}
    if resumed_from >= steps:
        return Result(f"All {steps} steps of '{out}' were done before.", figures)
    metrics = {name: float(value) for name, value in system.trainer.callback_metrics.items()}
    figures |= {name: v for name, v in metrics.items() if name.startswith(("held_out", "latents"))}
    text = f"{steps} steps done in '{out}'."
    if "held_out/log_spectral_distance_db" in figures:
        text += (
            f" Held-out crops: log-spectral distance "
            f"{figures['held_out/log_spectral_distance_db']:.2f} dB, level "
            f"{figures['held_out/level_db']:+.1f} dB; "
            f"{figures['latents/dimensions_95']:.0f} of {system.model.latent_size} latent "
            f"dimensions carry 95 %, {figures['latents/dimensions_99']:.0f} carry 99 %."
        )
    return Result(text, figures)
