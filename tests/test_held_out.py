"""What is held out and what is trained on never meet: in every training, for every kind of data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from diffwave_data import settings
from planted import (
    FIRST,
    FRACTION,
    HELD_OUT,
    MORE,
    TRAINING,
    PlantedAudio,
    PlantedLatents,
    held_out_below,
    ramp,
    side_of_each,
)
from rave_runs import RATE_HZ, train
from test_rave_prior import SETTINGS as PRIOR
from test_rave_upstream_lmdb import LAZY, lazy_record, samples_record, write_database

from diffwave import train as diffwave_train
from diffwave.conditioner import LABEL, SPECTROGRAM
from diffwave.conditions.controls import CONTROLS
from diffwave.dataset import conditions_of
from diffwave.training import DiffusionSystem
from rave.files.atomic import read_json
from rave.main_cli import main
from rave.prior_training import PriorSystem
from rave.runs.checkpoint import last_checkpoint, read_checkpoint
from rave.training import RaveSystem
from rave.training_audio import NAME as TRAINING_AUDIO

NUM_ITEMS = 40  # that are looked at beside those of the steps
ALL = FIRST + MORE


# Kinds of data


def prepared(folder: Path, **planted: Any) -> tuple[PlantedAudio, Path]:
    audio = PlantedAudio(folder / "audio", **planted)
    options = ["--sample-rate", str(RATE_HZ)]
    assert main(["preprocess", str(folder / "audio"), str(folder / "prepared"), *options]) == 0
    return audio, folder / "prepared"


def lazy_lmdb(folder: Path, **planted: Any) -> tuple[PlantedAudio, Path]:
    audio = PlantedAudio(folder / "audio", prefix=f"{folder}/audio/", **planted)
    paths = [folder / "audio" / name for name in audio.names]
    records = [lazy_record(str(path), soundfile.info(path).frames / RATE_HZ) for path in paths]
    return audio, write_database(folder / "lmdb", records, LAZY)


def lmdb(folder: Path, **planted: Any) -> tuple[PlantedAudio, Path]:
    """Write a database of samples, whose records are recordings by their number."""
    number_of = {name: f"{number:08d}" for number, name in enumerate(ALL)}
    chosen = {"recordings": ALL, "first": ALL} | planted
    for key in ("recordings", "first"):
        chosen[key] = chosen[key] and tuple(number_of[name] for name in chosen[key])
    audio = PlantedAudio(folder / "audio", **chosen)
    records = [
        samples_record(np.round(soundfile.read(folder / "audio" / f"{name}.wav")[0] * 2**15)[None])
        for name in chosen["recordings"]
    ]
    return audio, write_database(folder / "lmdb", records)


def latent_folder(folder: Path, **planted: Any) -> tuple[PlantedLatents, Path]:
    latents = PlantedLatents(folder, **planted)
    return latents, latents.latents


def shards(folder: Path, **planted: Any) -> tuple[PlantedLatents, Path]:
    latents = PlantedLatents(folder, **planted)
    assert main(["shard", str(latents.latents), str(folder / "shards")]) == 0
    return latents, folder / "shards"


AUDIO = {"prepared": prepared, "lazy LMDB": lazy_lmdb, "LMDB": lmdb}
# A set at an address is read as one in a folder is, bit for bit: see test_sharded_training.
LATENTS = {"folder": latent_folder, "shards": shards}


# Commands


def train_codec(data: Any, place: Path, run: Path, *more: str) -> int:
    sizes = ("MAX_STEPS=2", "PHASE_1_STEPS=1", "VALIDATE_EVERY_STEPS=1", "CROP_SAMPLES=4096")
    return train(place, run, *sizes, f"HELD_OUT_FRACTION={FRACTION}", *more)


def train_prior(data: Any, place: Path, run: Path, *more: str) -> int:
    chosen = (*PRIOR, "MAX_STEPS=3", "VALIDATE_EVERY=2", "FIDELITY=1.0")
    chosen += (f"HELD_OUT_FRACTION={FRACTION}", *more)
    sets = [text for each in chosen for text in ("--set", each)]
    return main(["train_prior", str(place), "--out", str(run), *sets])


def train_diffusion(data: Any, place: Path, run: Path, *more: str) -> int:
    chosen = settings("MAX_STEPS=3", "SEGMENT_FRAMES=48", "FIDELITY=1.0", *more)
    chosen += ["--set", f"HELD_OUT_FRACTION={FRACTION}", "--config", "tiny"]
    chosen += ["--controls", str(data.folder / "controls")]
    chosen += ["--labels"] if data.cut is None else []  # of which one recording has one
    chosen += ["--spectrograms", str(data.folder / "spectrograms")]
    return diffwave_train.main([str(place), "--out", str(run), *chosen])


@dataclass(frozen=True)
class Training:
    """A command that trains, and what makes its steps."""

    command: Callable[..., int]
    system: type
    kinds: dict[str, Callable[..., Any]]
    # Measured on held-out audio, as documented.
    of_held_out: tuple[str, ...] = ()

    @property
    def is_of_latents(self) -> bool:
        """Return whether it trains on latents."""
        return self.kinds is LATENTS


TRAININGS = {
    "rave train": Training(
        train_codec,
        RaveSystem,
        AUDIO,
        ("model.latent_mean", "model.latent_pca", "model.fidelity"),
    ),
    "rave train_prior": Training(train_prior, PriorSystem, LATENTS),
    "diffwave.train": Training(train_diffusion, DiffusionSystem, LATENTS),
}
CASES = [
    (name, kind, is_one)
    for name, training in TRAININGS.items()
    for kind in training.kinds
    for is_one in (False, True)
    # The end of the only one is held out before anything else is done with it.
    if not is_one or kind in ("prepared", "folder")
]


@dataclass
class Steps:
    """What the steps of a training got."""

    training: list[Any] = field(default_factory=list)
    validation: list[Any] = field(default_factory=list)


def watched(monkeypatch: pytest.MonkeyPatch, system: type) -> Steps:
    """Return what the steps of a training get from now on."""
    steps = Steps()

    def watch(name: str, batches: list[Any], is_training: bool) -> None:
        make_step = getattr(system, name)

        def step(self: Any, batch: Any, batch_idx: int) -> Any:
            if is_training and not batches:  # of later steps too: what other draws would give
                items = self.trainer.train_dataloader.dataset
                count = len(items) if hasattr(items, "__len__") else NUM_ITEMS
                batches.extend(_batch(items[index]) for index in range(count))
            batches.append(batch)
            return make_step(self, batch, batch_idx)

        monkeypatch.setattr(system, name, step)

    watch("training_step", steps.training, True)
    watch("validation_step", steps.validation, False)
    return steps


def _batch(item: Any) -> Any:
    if isinstance(item, dict):
        return {name: value[None] for name, value in item.items()}
    return item[None]


def sides_in(data: Any, batches: list[Any]) -> set[str]:
    assert batches
    found = set()
    for batch in batches:
        if isinstance(batch, dict):
            found |= data.sides_in(batch["raw"].numpy(), batch["mask"].numpy() > 0)
        else:
            found |= data.sides_in(batch.numpy())
    return found


def learned(training: Training, run: Path) -> dict[str, Any]:
    """Return all that a training leaves but for what is measured on held-out audio."""
    state = read_checkpoint(last_checkpoint(run))
    found = {k: v for k, v in state["state_dict"].items() if k not in training.of_held_out}
    audio = read_json(run / TRAINING_AUDIO, "a run") if (run / TRAINING_AUDIO).exists() else {}
    return found | {name: value for name, value in audio.items() if name != "fingerprint"}


def held_out_loss(run: Path) -> float:
    """Return the lowest held-out loss of a run."""
    callbacks = read_checkpoint(last_checkpoint(run))["callbacks"].values()
    (best,) = (each["best"] for each in callbacks if "best" in each)
    return float(best)


def are_equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    assert one.keys() == other.keys()
    pairs = [(one[name], other[name]) for name in one]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@dataclass
class Trained:
    """A training, and one on the same but for what is held out."""

    training: Training
    data: Any
    steps: Steps
    run: Path
    other: Path


def name_of(case: tuple[str, str, bool]) -> str:
    return f"{case[0]}, {case[1]}{', the only one' * case[2]}"


@pytest.fixture(scope="module", params=CASES, ids=name_of)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    name, kind, is_one = request.param
    training, folder = TRAININGS[name], tmp_path_factory.mktemp("trained")
    planted = {"recordings": FIRST[:1], "first": None} if is_one else {}
    changed = planted | ({"loud": 60} if kind in AUDIO else {"scale": 3.0})
    data, place = training.kinds[kind](folder, **planted)
    with pytest.MonkeyPatch.context() as monkeypatch:
        steps = watched(monkeypatch, training.system)
        assert training.command(data, place, folder / "run") == 0
    # At the same place: of some databases the path of a file is its name.
    shutil.move(folder, before := folder.with_name(f"{folder.name}-before"))
    other, place = training.kinds[kind](folder, **changed)
    assert training.command(other, place, folder / "run") == 0
    return Trained(training, data, steps, before / "run", folder / "run")


def test_no_training_reads_what_it_holds_out_and_no_validation_reads_anything_else(trained):
    assert sides_in(trained.data, trained.steps.training) == {TRAINING}
    assert sides_in(trained.data, trained.steps.validation) == {HELD_OUT}


def test_each_condition_of_a_step_is_that_of_its_frames(trained):
    """The conditions are ramps, and so are the latents beside them."""
    batches = [*trained.steps.training, *trained.steps.validation]
    for segment in (each for each in batches if isinstance(each, dict)):
        assert {SPECTROGRAM, *CONTROLS} <= set(conditions_of(segment))
        for name, values in conditions_of(segment).items():
            for raw, mask, value in zip(segment["raw"], segment["mask"], values, strict=True):
                count = int(mask.sum())
                places = raw[0, :count].numpy()
                if name == LABEL:
                    assert "xy"[int(value)] == trained.data.name_of(places[0])[0]
                    continue
                ratio = value.shape[1] // len(mask)
                wanted = np.zeros(value.shape, np.float32)
                wanted[:, : count * ratio] = ramp(places, len(value), ratio)
                np.testing.assert_array_equal(value.numpy(), wanted)


def test_nothing_that_is_learned_or_measured_for_it_changes_with_what_is_held_out(trained):
    one, other = (learned(trained.training, run) for run in (trained.run, trained.other))
    assert are_equal(one, other)
    assert held_out_loss(trained.run) != held_out_loss(trained.other)


@pytest.mark.parametrize("name", TRAININGS)
def test_recordings_that_come_later_take_none_to_the_other_side(tmp_path, monkeypatch, name):
    training = TRAININGS[name]
    kind = next(iter(training.kinds.values()))
    data, place = kind(tmp_path)
    assert training.command(data, place, tmp_path / "run") == 0
    data, place = kind(tmp_path, recordings=ALL)
    sides = {name: side for name, side in data.sides.items() if "~" not in name}
    assert sides != side_of_each({name: name[:-4] for name in sides}, held_out_below(ALL))
    steps = watched(monkeypatch, training.system)
    assert training.command(data, place, tmp_path / "run", "MAX_STEPS=6") == 0
    assert sides_in(data, steps.training) == {TRAINING}
    assert sides_in(data, steps.validation) == {HELD_OUT}


def test_a_recording_that_cannot_be_divided_is_refused(tmp_path, capsys):
    data = PlantedLatents(tmp_path, FIRST[:1], first=None)
    assert train_prior(data, data.latents, tmp_path / "run", "SEGMENT_FRAMES=100") == 2
    told = "The only recording has 160 frames; two segments of 100 are needed"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
