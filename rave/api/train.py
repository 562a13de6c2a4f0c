"""Train an autoencoder on prepared audio."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.compute.launch import is_first
from rave.files.atomic import check_output_folder, read_json, typed, write_json
from rave.parsing import check_seed, one_line
from rave.runs.recipes import Recipe, read_recipe

if TYPE_CHECKING:
    from rave.audio.prepared import AudioStore
    from rave.dataset import PreparedCropsDataset
    from rave.held_out import Split
    from rave.trainer import Loaders
    from rave.training import RaveSystem, RaveTraining

DATA = "a folder that `rave preprocess` wrote, or an LMDB folder of acids-rave"
ORIGIN = "initial.json"  # in a run folder: the run whose weights it started from
SAME_MODEL = 1e-3  # largest difference of equal models, relative to the largest value


def train_codec(
    data: str | Path,
    out: str | Path,
    *,
    config: str = "v2",
    settings: Sequence[str] = (),
    initialise_from: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    dry_run: bool = False,
) -> Result:
    """Train an autoencoder. The same call again resumes where the last checkpoint stopped.

    Args:
        data: Folder that `rave preprocess` wrote, or an LMDB folder of acids-rave.
        out: Run folder: model.gin, config.gin, checkpoints, curves (`rave.experiment`).
        config: Name of a recipe, such as v2 or v2+causal+noise, or path of a .gin file.
        settings: Lines NAME=VALUE that change the recipe, such as "MAX_STEPS=5000".
        initialise_from: Run of `rave train` or acids-rave with the same sizes, whose weights a new
            run starts from. None: random weights.
        seed: Random seed of weights, crops and noise, 0 to 2^32 - 1.
        device: auto, cpu, cuda, cuda:N or mps.
        devices: GPUs (or processes on the CPU) of each node that share each batch.
        nodes: Nodes that share each batch; each makes this call.
        dry_run: Return the resolved recipe and write nothing.

    Returns:
        Figures of the last validation: `steps`, `resumed_from`, `held_out/…` and `latents/…`.

    Raises:
        ValueError: If an input cannot be read, the recipe or a setting is invalid, `out` holds a
            run with other settings, or the loss becomes NaN or infinite.
        OSError: If a file cannot be read or written.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once the step is finished and saved.
    """
    check_seed(seed)
    data, out = Path(data), Path(out)
    if not data.exists():
        raise ValueError(f"'{data}' does not exist. Give {DATA}.")
    recipe = read_recipe("rave", config, settings, given={"SEED": "--seed"})
    from rave.upstream.lmdb import open_audio

    check_output_folder(out, data)
    store = open_audio(data)
    for file in store.files:
        store.check(file)
    from rave.compute.device import choose_device, choose_precision
    from rave.experiment import build, save_run
    from rave.held_out import Split, recording_keys
    from rave.levels import remember
    from rave.runs.checkpoint import finished_steps
    from rave.trainer import fit
    from rave.training import RaveSystem

    processor = choose_device(device)
    built = build(_with_data_format(recipe, store).bind({"SEED": seed}), seed)
    training: RaveTraining = built.training
    if dry_run:
        return Result(built.config.rstrip(), {"config": built.config})
    _warn_of_rate(recipe, store.sample_rate_hz)
    precision = choose_precision(training.precision, processor)
    system = RaveSystem(built.model, training)
    resumed_from = finished_steps(out)
    split = Split.read(out) or Split.of(
        recording_keys(file.origin for file in store.files), training.held_out_fraction
    )
    origin = None
    if initialise_from is not None:
        if resumed_from:
            _check_origin(out, Path(initialise_from))
        else:
            origin = _initialise(system, Path(initialise_from))
    if is_first():
        save_run(out, "rave", built.model_config, built.config)
        split.write(out)
        if origin is not None:
            write_json(out / ORIGIN, origin)
    warnings: list[str] = []  # repeated at the end, perhaps days later
    fit(
        system,
        lambda start_step: _loaders(store, split, system, start_step, origin is None, warnings),
        out,
        training.max_steps,
        training.validate_every_steps,
        device=device,
        num_devices=devices,
        num_nodes=nodes,
        precision=precision,
        log_every_steps=training.log_every_steps,
    )
    if is_first():
        remember(out, store, split, processor)
    result = _result(system, out, resumed_from)
    lines = "".join(f"\nWarning: {sentence}" for sentence in warnings)
    return replace(
        result, summary=result.summary + lines, figures={**result.figures, "warnings": warnings}
    )


def _warn(sentence: str) -> None:
    print(f"rave train: warning: {sentence}", file=sys.stderr)


def _warn_of_rate(recipe: Recipe, sample_rate_hz: int) -> None:
    """Warn if a recipe is made for another sample rate than that of the data."""
    made_for = recipe.value("SAMPLE_RATE_HZ")
    if made_for is None or made_for == sample_rate_hz:
        return
    _warn(
        f"recipe '{recipe.name}' is made for {made_for} Hz, but the data has {sample_rate_hz} Hz: "
        f"its hop, crops and windows last {made_for / sample_rate_hz:.2f} times as long. If this "
        "is not intended, prepare the audio again: rave preprocess AUDIO_DIR PREPARED_DIR "
        f"--sample-rate {made_for}"
    )


def _data_warnings(store: AudioStore, crops: dict[str, PreparedCropsDataset]) -> list[str]:
    """Return warnings if the data is silent, constant, or many copies of one file.

    Args:
        store: The audio.
        crops: Some training crops, and some held-out crops.
    """
    from rave.dataset import are_copies

    consequences = {
        "trained on": "Nothing can be learned from it",
        "held out": "The held-out figures will be meaningless",
    }
    found = []
    for name, some in crops.items():
        heard = [  # without the zeros after the end
            some[index][:, : piece.num_samples - start]
            for index, (piece, start) in enumerate(some.crops)
        ]
        if not any(float(crop.max() - crop.min()) for crop in heard):
            level = max(float(crop.abs().max()) for crop in heard)
            what = "one constant value (DC)" if level else "digital silence"
            found.append(f"all {len(some)} crops that are {name} are {what}. {consequences[name]}.")
    if len(store.files) > 1 and are_copies(store):
        found.append(
            f"all {len(store.files)} files hold the same audio, so the held-out audio is also "
            f"trained on. {consequences['held out']}."
        )
    return found


def _initialise(system: RaveSystem, run: Path) -> dict[str, str]:
    """Take the weights of a run, report them, and return a record of their origin."""
    from rave.initial_weights import take_weights

    taken = take_weights(system.model, system.discriminator, run)
    what = (
        "encoder, decoder and discriminators"
        if taken.has_discriminator
        else "encoder and decoder; discriminators start from random weights"
    )
    print(f"weights of '{run}': {what}", file=sys.stderr)
    if taken.largest_difference > SAME_MODEL:
        _warn(
            f"with these weights the outputs of this recipe and of '{run}' differ by "
            f"{taken.largest_difference:.1e}; check causality, dilations, activations and noise."
        )
    return {"run": str(run.absolute()), "fingerprint": taken.fingerprint}


def _read_origin(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    what = "a record of initial weights"
    try:
        origin: dict[str, str] = typed(read_json(path, what), dict[str, str], "it")
        return {name: origin[name] for name in ("run", "fingerprint")}
    except (TypeError, KeyError) as error:
        raise ValueError(f"'{path}' is not {what} ({error}). Remove it.") from error


def _check_origin(out: Path, run: Path) -> None:
    """Check that an existing run started from the weights of `run`."""
    from rave.codec import load_run

    origin = _read_origin(out / ORIGIN)
    if origin.get("run") == str(run.absolute()):
        return
    if origin and origin.get("fingerprint") == load_run(run)[1].fingerprint:  # it was moved
        return
    started_from = f"the weights of '{origin.get('run')}'" if origin else "random weights"
    raise ValueError(
        f"'{out}' started from {started_from}, not from those of '{run}'. Leave --initialise-from "
        "out to continue, or give another --out."
    )


def _with_data_format(recipe: Recipe, store: AudioStore) -> Recipe:
    """Return the recipe for the prepared audio's format; refuse settings that contradict it."""
    data_format = {"SAMPLE_RATE_HZ": store.sample_rate_hz, "NUM_CHANNELS": store.num_channels}
    for name, value in data_format.items():
        if (setting := recipe.settings.get(name, value)) != value:
            raise ValueError(
                f"--set {name}={setting} contradicts the prepared audio, whose {name} is {value}. "
                "Leave the setting out, or prepare the audio again."
            )
    return recipe.bind(data_format)


def _loaders(
    store: AudioStore,
    split: Split,
    system: RaveSystem,
    start_step: int,
    is_fitted: bool,
    warnings: list[str],
) -> Loaders:
    from torch.utils.data import DataLoader

    from rave.dataset import PreparedAudioDataset, PreparedCropsDataset, split_audio
    from rave.held_out import data_state, recording_keys
    from rave.initial_weights import NUM_FITTED_FRAMES, fit_linear_layers
    from rave.trainer import Loaders, StepBatches

    training = system.training_recipe
    train_ranges, held_out_ranges = split_audio(store, split)
    names = ", ".join(piece.name for piece in held_out_ranges[:8])
    print(f"held out: {one_line(names)}", file=sys.stderr)
    # Loaders read one batch ahead; layers are fitted to as many crops however short the training.
    num_items = max((training.max_steps + 1) * training.batch_size, NUM_FITTED_FRAMES)
    crops = PreparedAudioDataset(
        store,
        training.crop_samples,
        num_items,
        training.seed,
        train_ranges,
        training.augmentations,
    )
    if is_fitted and start_step == 0:
        fit_linear_layers(system.model, crops, training.seed)
    size, most = training.crop_samples, training.max_held_out_crops
    held_out = PreparedCropsDataset(store, size, held_out_ranges, most)
    trained_on = PreparedCropsDataset(store, size, train_ranges, most)
    for sentence in _data_warnings(store, {"trained on": trained_on, "held out": held_out}):
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
        return Result(f"All {steps} steps of '{out}' were already done.", figures)
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
