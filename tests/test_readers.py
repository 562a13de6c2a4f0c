"""What is measured is measured on its own side: training or held-out, by whatever reads latents.

Each recording shows where it is from (`planted`), and each reader is listed with its side.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from audio_files import write
from diffwave_data import RATE_HZ
from planted import (
    FIRST,
    FRACTION,
    HELD_OUT,
    NUM_MELS,
    RATIO,
    TRAINING,
    PlantedLatents,
    ramp,
)
from test_frames_and_conditions import OF_LABEL, obedient_model
from test_held_out import train_diffusion

from diffwave.clips import split_clips
from diffwave.conditioner import LABEL, SPECTROGRAM
from diffwave.conditions.controls import CONTROLS
from diffwave.dataset import ClipReader, ConditionSource
from diffwave.diagnosis import run as run_diagnosis
from diffwave.diagnosis import run_samples
from diffwave.diagnosis.expected_losses import Recipe
from diffwave.diagnosis.latents import diagnose_latents
from diffwave.diagnosis.run_data import RunData
from diffwave.evaluation import figures as evaluation
from diffwave.evaluation import ladder
from diffwave.evaluation.ladder import Ladder
from diffwave.experiments import data as experiments
from diffwave.run import DiffusionRun
from rave.latent_dataset import LatentDataset

ROOT = Path(__file__).parents[1]
BOTH = None  # looked at by what it makes of it
# Who reads latents or conditions, and of which side. A new reader belongs here.
READERS = {
    # Models and scales are fitted to what is trained on.
    "PrincipalDimensions.of": TRAINING,
    "ControlConditioner.fit": TRAINING,
    "SpectrogramConditioner.fit": TRAINING,
    "SegmentDataset.__getitem__": TRAINING,
    "reference_loss.fit_gaussian": TRAINING,
    "latents._over_time": TRAINING,
    "samples.nearest_distances": TRAINING,
    # What they are worth is measured on what is held out.
    "_EvaluationLoop.run": HELD_OUT,
    "train._result": HELD_OUT,
    "training.measure_references": HELD_OUT,
    "conditioner.conditioner_gain": HELD_OUT,
    "latents.diagnose_latents": HELD_OUT,
    "run._linear": HELD_OUT,
    "predictability._heard": BOTH,
    "run._learned": HELD_OUT,
    "run._probe": HELD_OUT,
    "Ladder.reconstruction": HELD_OUT,
    "Ladder.following": HELD_OUT,
    "figures._copying": HELD_OUT,
    # Real music of both sides is set beside generated music.
    "run_samples.diagnose_samples": BOTH,
    "data._read": BOTH,
    "data._spectrograms": BOTH,
}

# What divides recordings, or reads what was divided, and is run here or in test_held_out.
DIVIDING = {
    "rave/api/train.py",
    "rave/api/train_prior.py",
    "rave/levels.py",
    "diffwave/api/train.py",
    "diffwave/diagnosis/latents.py",
    "diffwave/diagnosis/run.py",
    "diffwave/api/evaluate.py",
    "diffwave/experiments/data.py",
}


class Reads:
    """Which sides each reader has read."""

    def __init__(self) -> None:
        self.sides: dict[str, set[str]] = defaultdict(set)

    def note(self, sides: set[str]) -> None:
        """Note what is being read by whom."""
        frame = sys._getframe(1)
        names = []
        while (found := frame.f_back) is not None:
            frame = found
            known = frame.f_locals
            owner = known.get("self", known.get("cls"))
            kind = owner if isinstance(owner, type) else type(owner)
            module = frame.f_globals["__name__"].rpartition(".")[2]
            function = frame.f_code.co_name
            name = f"{module if owner is None else kind.__name__}.{function}"
            if name in READERS:
                self.sides[name] |= sides
                return
            names.append(name)
        raise AssertionError(f"latents are read by a reader that is not listed: {names}")


@contextmanager
def noted(data: PlantedLatents) -> Iterator[Reads]:
    """Note who reads what of planted latents and of their conditions."""
    reads = Reads()
    read_raw, read_condition = ClipReader.raw, ConditionSource.read

    def raw(self: ClipReader, clip: Any) -> Any:
        array = read_raw(self, clip)
        reads.note(data.sides_in(array[None]))
        return array

    def condition(self: ConditionSource, name: str, clip: Any) -> Any:
        array = read_condition(self, name, clip)
        reads.note(data.sides_in(np.floor(array)[None]))
        return array

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ClipReader, "raw", raw)
        monkeypatch.setattr(ConditionSource, "read", condition)
        yield reads


def test_all_that_divides_recordings_is_listed_here():
    call = re.compile(r"(?<!def )\b(split_audio|split_clips|divide|open_data)\(")
    paths = [*ROOT.glob("rave/**/*.py"), *ROOT.glob("diffwave/**/*.py")]
    found = {p.relative_to(ROOT).as_posix() for p in paths if call.search(p.read_text())}
    assert found - {"diffwave/diagnosis/run_data.py"} == DIVIDING


HOP_SAMPLES, NUM_SEGMENT_FRAMES, COUNT = 8, 16, 6  # of the ladder's; more than one batch
FULL = 2.0**15


def small_ladder(data: PlantedLatents, monkeypatch: pytest.MonkeyPatch) -> Ladder:
    """Return a ladder that hears nothing: its pieces are the audio, which shows where it is from.

    Its model makes what it is told, its codec's audio is the latents.
    """
    for name in data.files:
        places = np.load(data.latents / name)[:1]
        recording = np.repeat(places, HOP_SAMPLES, axis=1) / FULL
        write(data.folder / "audio" / f"{name[:-4]}.wav", recording, RATE_HZ, subtype="FLOAT")
    monkeypatch.setattr(
        ladder, "measure_blocks", lambda blocks, *_: [np.concatenate(list(blocks), axis=1)]
    )
    monkeypatch.setattr(ladder, "DecoderNoise", lambda *_: None)
    labels = ["x", "y"] if data.cut is None else []
    model = obedient_model(*CONTROLS, SPECTROGRAM, *([LABEL] if labels else []), size=4)
    folders = (data.folder / "spectrograms", data.folder / "controls")
    reader = ClipReader.open(LatentDataset(data.latents), *folders, labels=labels)
    sides = split_clips(data.header.files, FRACTION)
    form = SimpleNamespace(hop_samples=HOP_SAMPLES, latent_size=4, sample_rate_hz=RATE_HZ)
    codec: Any = SimpleNamespace(format=form, decode_blocks=lambda raw, _: [raw])
    return Ladder(
        DiffusionRun(data.folder, model, data.header, 1),
        RunData(reader, *sides, NUM_SEGMENT_FRAMES, True),
        data.folder / "audio",
        codec,
        listener=None,
        count=COUNT,
        seed=0,
        num_steps=2,
        guidance={},
        progress=lambda: None,
    )


@dataclass
class Everything:
    """All commands that read both sides, and what they read."""

    data: PlantedLatents
    reads: Reads
    run: Any
    experiments: Any


@pytest.fixture(scope="module", params=[False, True], ids=["recordings", "the only one"])
def everything(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Everything:
    folder = tmp_path_factory.mktemp("readers")
    planted = {"recordings": FIRST[:1], "first": None} if request.param else {}
    data = PlantedLatents(folder, scale=3.0, **planted)
    with noted(data) as reads, pytest.MonkeyPatch.context() as monkeypatch:
        assert train_diffusion(data, data.latents, folder / "run") == 0
        recipe = Recipe(held_out_fraction=FRACTION, segment_frames=NUM_SEGMENT_FRAMES)
        diagnose_latents(data.latents, recipe)
        for name in ("NUM_GENERATED", "NUM_REAL"):
            monkeypatch.setattr(run_samples, name, 8)
        monkeypatch.setattr(run_diagnosis, "NUM_PROBED", 4)
        run = run_diagnosis.diagnose_run(folder / "run")
        made = small_ladder(data, monkeypatch)
        for rung in (made.reconstruction, made.following, made.gaussian):
            rung()
        evaluation._copying(made, torch.zeros(1, 4, NUM_SEGMENT_FRAMES))
        monkeypatch.setattr(experiments, "CLIP_FRAMES", NUM_SEGMENT_FRAMES)
        monkeypatch.setattr(experiments, "HELD_OUT_FRACTION", FRACTION)
        experimented = experiments.read_data(data.latents, folder / "spectrograms", 12)
    return Everything(data, reads, run, experimented)


@pytest.mark.parametrize("name", READERS)
def test_each_reader_reads_its_own_side(everything, name):
    side = READERS[name]
    assert everything.reads.sides[name] == ({TRAINING, HELD_OUT} if side is BOTH else {side})


def test_a_diagnosis_sets_each_side_beside_what_is_generated(everything):
    found = {
        name: np.array(everything.run.record()["samples"][name]["std"])
        for name in ("training", "held_out")
    }
    assert np.all(found["held_out"][1:] > 1.5 * found["training"][1:])


def test_experiments_learn_from_training_clips_and_their_own_spectrograms(everything):
    for side, clips in (
        (TRAINING, everything.experiments.training),
        (HELD_OUT, everything.experiments.held_out),
    ):
        assert everything.data.sides_in(clips.raw.numpy()) == {side}
        for raw, mels in zip(clips.raw.numpy(), clips.spectrograms.numpy(), strict=True):
            np.testing.assert_array_equal(mels, ramp(raw[0], NUM_MELS, RATIO))


@pytest.fixture
def rungs(everything, monkeypatch) -> Ladder:
    return small_ladder(everything.data, monkeypatch)


def places(pieces: list[Any]) -> np.ndarray:
    """Return the frames that pieces of a recording are of."""
    return np.concatenate(pieces, axis=1)[0, ::HOP_SAMPLES] * FULL


def test_the_reference_of_a_ladder_is_all_recordings_that_were_trained_on(everything, rungs):
    data = everything.data
    names = [name for name, side in data.sides.items() if side == TRAINING and "~" not in name]
    wanted = [np.load(data.latents / name)[0, : data.cut] for name in names]
    np.testing.assert_array_equal(np.sort(places(rungs.reference())), np.concatenate(wanted))


def test_held_out_recordings_of_a_ladder_are_those_of_its_segments(rungs):
    for pieces, segment in zip(rungs.held_out(), rungs.segments, strict=True):
        (audio,) = pieces
        assert audio.shape[1] == NUM_SEGMENT_FRAMES * HOP_SAMPLES
        np.testing.assert_array_equal(places(pieces), segment["raw"][0].numpy())


def test_reconstructions_of_a_ladder_are_those_of_its_segments(rungs):
    for (audio,), segment in zip(rungs.reconstruction(), rungs.segments, strict=True):
        np.testing.assert_allclose(audio[0], segment["raw"].mean(0).numpy(), rtol=1e-6)


def test_clips_of_a_ladder_follow_each_the_conditions_of_its_own_segment(rungs):
    clips, latents = rungs.following()
    assert len(clips) == len(rungs.segments) > ladder.BATCH_SIZE
    for made, (audio,), segment in zip(latents, clips, rungs.segments, strict=True):
        label = float(segment.get("label", torch.tensor(0)))
        wanted = (len(CONTROLS) + 1) * segment["raw"][0] + OF_LABEL * label
        torch.testing.assert_close(made, wanted.expand(4, -1), rtol=1e-5, atol=0.01)
        np.testing.assert_allclose(audio[0], wanted.numpy(), rtol=1e-5)
