"""What cannot be used counts nowhere: files and figures are those of a folder without it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from audio_files import noise, sine, write
from diffwave_data import HOP
from planted import FIRST, PlantedLatents, held_out_below
from rave_models import SHORT, write_run
from test_diffwave_waveform import GOLDEN, make_checkpoint
from test_diffwave_waveform import write_run as write_vocoder
from test_held_out import TRAININGS, are_equal, learned

from diffwave import preprocess, vocode
from rave.cli import EXIT_SKIPPED
from rave.held_out import Split
from rave.latents.folder import LatentFile, LatentHeader, write_latents
from rave.main_cli import main

ROOT = Path(__file__).parents[1]
GOOD, BAD = ("a.wav", "sub/b.wav"), "sub/c.wav"
RATE_HZ, SECONDS = 44100, 0.3


def audio(folder: Path, is_damaged: bool, seconds: float = SECONDS) -> Path:
    """Write recordings, and one that is no audio."""
    for index, name in enumerate(GOOD):
        music = sine(220.0 * (index + 1), RATE_HZ, seconds)
        write(folder / name, music + noise(music.shape[1], seed=index), RATE_HZ)
    if is_damaged:
        (folder / BAD).write_bytes(b"no music")
    return folder


def encoded(folder: Path, codec: Path, is_damaged: bool) -> Path:
    """Write latents of the recordings, of which one is then not as long as it is said to be."""
    audio(folder / "in", False)
    if is_damaged:
        write(folder / "in" / BAD, noise(9000), RATE_HZ)
    assert main(["encode", str(codec), str(folder / "in"), str(folder / "latents")]) == 0
    return folder / "latents"


def with_damaged_latents(folder: Path, codec: Path, is_damaged: bool) -> Path:
    latents = encoded(folder, codec, is_damaged)
    if is_damaged:
        np.save(latents / f"{BAD[:-4]}.npy", np.zeros((4, 7), np.float32))
    return latents


def with_damaged_audio(folder: Path, codec: Path, is_damaged: bool) -> list[Any]:
    latents = encoded(folder, codec, is_damaged)
    if is_damaged:
        (folder / "in" / BAD).write_bytes(b"no music")
    return [latents, folder / "in", folder / "out"]


def two_folders(folder: Path, is_damaged: bool) -> list[Any]:
    """Write recordings beside what should equal them, and a pair of silence."""
    for side in ("in", "other"):
        for index, name in enumerate(GOOD):
            write(folder / side / name, noise(70_000, seed=index), 22050)
        if is_damaged:
            write(folder / side / BAD, np.zeros((1, 70_000)), 22050)
    return [folder / "in", folder / "other"]


def vocoder(folder: Path) -> Path:
    with np.load(GOLDEN) as found:
        arrays = {name: torch.from_numpy(found[name]) for name in found.files}
    return write_vocoder(folder / "vocoder", make_checkpoint(arrays, "conditional"))


class Skipping(NamedTuple):
    """A command that leaves out what it cannot use.

    Attributes:
        module: Of its code.
        arguments: Writes its input into a folder, given a codec, with or without what cannot be
            used.
        command: Runs it.
    """

    module: str
    arguments: Callable[[Path, Path, bool], list[Any]]
    command: Callable[[list[str]], int] = main


def of_audio(name: str, *more: Any) -> Callable[[Path, Path, bool], list[Any]]:
    """Return the arguments of a command that makes a folder of a folder of audio."""
    return lambda folder, codec, is_damaged: [
        name,
        *([codec] if name in ("encode", "generate") else []),
        audio(folder / "in", is_damaged),
        folder / "out",
        *more,
    ]


SKIPPING = {
    "rave preprocess": Skipping(
        "rave/api/preprocess.py", of_audio("preprocess", "--sample-rate", RATE_HZ)
    ),
    "rave augment": Skipping("rave/api/augment.py", of_audio("augment")),
    "rave encode": Skipping("rave/api/encode.py", of_audio("encode")),
    "rave generate": Skipping("rave/api/generate.py", of_audio("generate")),
    "rave transcribe": Skipping("rave/api/transcribe.py", of_audio("transcribe")),
    "rave decode": Skipping(
        "rave/api/decode.py",
        lambda folder, codec, is_damaged: [
            *("decode", codec, with_damaged_latents(folder, codec, is_damaged), folder / "out")
        ],
    ),
    "rave shard": Skipping(
        "rave/api/shard.py",
        lambda folder, codec, is_damaged: [
            *("shard", with_damaged_latents(folder, codec, is_damaged), folder / "out")
        ],
    ),
    "rave evaluate": Skipping(
        "rave/api/evaluate.py",
        lambda folder, codec, is_damaged: [
            *("evaluate", *two_folders(folder, is_damaged), "--patches", 2),
            *("--follows", folder / "in" / GOOD[0]),
        ],
    ),
    "diffwave.preprocess": Skipping(
        "diffwave/api/preprocess.py",
        lambda folder, codec, is_damaged: [
            *with_damaged_audio(folder, codec, is_damaged),
            "--mel-hop",
            32,
            "--mels",
            8,
        ],
        preprocess.main,
    ),
    "diffwave.preprocess --controls": Skipping(
        "diffwave/api/preprocess.py",
        lambda folder, codec, is_damaged: [
            *with_damaged_audio(folder, codec, is_damaged),
            "--controls",
        ],
        preprocess.main,
    ),
    "diffwave.vocode --make-spectrograms": Skipping(
        "diffwave/api/vocode.py",
        lambda folder, codec, is_damaged: [
            *(audio(folder / "in", is_damaged), folder / "out"),
            *("--make-spectrograms", "--mels", 8),
        ],
        vocode.main,
    ),
    "diffwave.vocode": Skipping(
        "diffwave/api/vocode.py",
        lambda folder, codec, is_damaged: [
            *(vocoder(folder), folder / "out", "--from-audio"),
            *(audio(folder / "in", is_damaged), "--fast"),
        ],
        vocode.main,
    ),
}
# They pass on what the work on a file has refused.
PASSED_ON = {
    "rave/jobs/loop.py",
    "rave/cli.py",
    "rave/jobs/ray_engine.py",
    "diffwave/app/commands.py",
}


def test_every_command_that_can_leave_something_out_is_listed_here():
    telling = re.compile(
        r"report\.skipped|(?<!class )\bSkipFile\(|\bskipped_line\(|\bnum_skipped=|\.num_skipped\b"
    )
    paths = [*ROOT.glob("rave/**/*.py"), *ROOT.glob("diffwave/**/*.py")]
    found = {p.relative_to(ROOT).as_posix() for p in paths if telling.search(p.read_text())}
    assert found == {each.module for each in SKIPPING.values()} | PASSED_ON


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("codec") / "run", "v2", *SHORT)


# They say what was left out, and so differ.
OF_SKIPPED = ("skipped", "num_skipped", "not_compared_one_by_one")
# Measured by `rave encode`, on what clips do not hold: the posterior.
OF_ENCODING = ("statistics",)


def without_skipped(text: str, root: Path) -> Any:
    """Return JSON without what it says of files that were left out."""

    left_out = OF_SKIPPED + (OF_ENCODING if "rave-latent-shards" in text else ())

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: kept(each) for name, each in value.items() if name not in left_out}
        return [kept(each) for each in value] if isinstance(value, list) else value

    return kept(json.loads(text.replace(str(root), "ROOT")))


def written(root: Path) -> dict[str, Any]:
    """Return the content of all results."""
    found: dict[str, Any] = {}
    for path in sorted((root / "out").rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".json":
            found[name] = without_skipped(path.read_text(), root)
        elif path.is_file() and not path.name.startswith("."):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", SKIPPING)
def test_files_and_figures_are_those_without_what_is_left_out(name, codec, tmp_path, capsys):
    skipping, results = SKIPPING[name], []
    for is_damaged in (True, False):
        root = tmp_path / str(is_damaged)
        arguments = [*map(str, skipping.arguments(root, codec, is_damaged)), "--json"]
        capsys.readouterr()
        assert skipping.command(arguments) == (EXIT_SKIPPED if is_damaged else 0)
        out = capsys.readouterr().out
        assert bool(json.loads(out).get("num_skipped")) == is_damaged
        results.append((without_skipped(out, root), written(root)))
    assert results[0][0] == results[1][0]
    assert results[0][1].keys() == results[1][1].keys()
    assert results[0][1] == results[1][1]


LEAST_FRAMES = {"rave train_prior": 9, "diffwave.train": 0}
SHORT_ONES = ("x/k", "y/m", "y/n")  # by whose names, did they count, others were held out


def test_every_training_on_latents_is_listed_here():
    assert set(LEAST_FRAMES) == {name for name, each in TRAININGS.items() if each.is_of_latents}


@pytest.mark.parametrize("name", LEAST_FRAMES)
def test_clips_too_short_to_train_on_change_nothing_that_is_learned(name, tmp_path):
    """They have no say either in which recordings are held out."""
    assert held_out_below(FIRST + SHORT_ONES) != held_out_below(FIRST)
    found = []
    for has_short in (True, False):
        data = PlantedLatents(tmp_path / str(has_short))
        if has_short:
            add_short(data, LEAST_FRAMES[name])
        run = tmp_path / f"run {has_short}"
        assert TRAININGS[name].command(data, data.latents, run) == 0
        found.append((learned(TRAININGS[name], run), Split.read(run)))
    assert found[0][1] == found[1][1]
    assert are_equal(found[0][0], found[1][0])


def add_short(data: PlantedLatents, num_frames: int) -> None:
    """Add recordings of a few frames to planted latents and their conditions."""
    header, added = LatentHeader.read(data.latents), []
    for name in (f"{recording}.npy" for recording in SHORT_ONES):
        write_latents(data.latents / name, [np.ones((4, num_frames), np.float32)], 4)
        added.append(LatentFile(name, num_frames, f"{name[:-4]}.wav", RATE_HZ, num_frames * HOP))
        data.add_conditions(name, np.ones(num_frames, np.float32))
    replace(header, files=[*header.files, *added]).write(data.latents)
