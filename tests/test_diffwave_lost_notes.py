"""A run that follows recordings is named if what follows has not their notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnosed_runs import PITCHES, train_playing
from diffwave_data import HOP, RATE_HZ
from numpy.typing import NDArray
from PIL import Image
from test_diffwave_failures import StubCodec, clamped_sampler, use_codec

from diffwave.diagnosis import run_picture, run_report
from diffwave.diagnosis.failures import NOTES_LOST, PHASE_IN_LATENTS
from diffwave.diagnosis.notes import notes_lost
from diffwave.diagnosis.run import RunDiagnosis, diagnose_run
from diffwave.diagnosis.run_data import open_data
from diffwave.evaluation.latents import latents_in_words, measure_latents
from diffwave.model import LatentDiffusion
from diffwave.run import TrainingData, open_run, training_settings


class Player(StubCodec):
    """Plays the pitch of each dimension, with decay, where it is above 0.5."""

    def decode(self, latents: NDArray[np.float32], noise: Any) -> NDArray[np.float32]:
        audio = np.zeros(latents.shape[1] * HOP)
        for pitch, row in zip(PITCHES, latents, strict=True):
            steps = np.diff(np.concatenate([[0], (row > 0.5).astype(int), [0]]))
            for start, stop in zip(*(np.flatnonzero(steps == s) for s in (1, -1)), strict=True):
                seconds = np.arange((stop - start) * HOP) / RATE_HZ
                tone = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * seconds)
                audio[start * HOP : stop * HOP] += 0.2 * tone * np.exp(-2 * seconds)
        return audio[None].astype(np.float32)

    def encode(self, audio: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        """Return how loud each pitch is in each frame."""
        return np.abs(self.heard(audio)), None

    @staticmethod
    def heard(audio: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Return level and phase of each pitch in each frame, (D, N); the level is 1 at first."""
        window = np.hanning(HOP)
        hz = 440 * 2 ** ((np.array(PITCHES) - 69) / 12)
        waves = np.exp(-2j * np.pi * hz[:, None] * np.arange(HOP) / RATE_HZ)
        heard = (10 * window / window.sum() * waves) @ audio[0].reshape(-1, HOP).T
        return heard.astype(np.complex64)


class PhasePlayer(Player):
    """Encodes the phase of each pitch too."""

    def encode(self, audio: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        """Return one component of each pitch in each frame."""
        return self.heard(audio).real, None


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_playing(tmp_path_factory.mktemp("playing"))


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each sample follow the conditions of the next one."""
    guided = LatentDiffusion.guided

    def of_the_next(self: Any, inputs: Any, *more: Any) -> Any:
        return guided(self, {name: value.roll(1, 0) for name, value in inputs.items()}, *more)

    monkeypatch.setattr(LatentDiffusion, "guided", of_the_next)


def diagnosis(
    run: Path, monkeypatch: pytest.MonkeyPatch, codec: Player | None = None
) -> RunDiagnosis:
    use_codec(monkeypatch, codec or Player())
    return diagnose_run(run, codec=Path("codec"))


def test_a_run_that_follows_the_notes_is_healthy(
    playing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = diagnosis(playing, monkeypatch)
    assert found.findings == []
    notes = found.figures["notes"]
    assert 2 < notes["per_second"] < 6
    assert notes["modelled"] == {"note_f1": 1.0, "frame_f1": 1.0}  # all dimensions are
    assert notes["followed"]["note_f1"] > 0.9
    assert notes["followed"]["frame_f1"] > 0.9
    phase, predictable = (found.figures[name] for name in ("phase", "predictability"))
    assert phase["same"][:3] == pytest.approx([1.0] * 3, abs=0.02)  # up to 16 samples
    assert predictable > 0.9  # the spectrogram is the latents
    sentence = f"from the spectrogram explains {predictable:.2f} of the variance"
    assert sentence in run_report.words(found)


@pytest.mark.usefixtures("others")
def test_a_run_whose_music_has_other_notes_is_named_with_both_figures(
    playing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = diagnosis(playing, monkeypatch)
    assert [each.name for each in found.findings] == [NOTES_LOST]
    notes = found.figures["notes"]
    lost = f"{notes['followed']['note_f1']:.2f}"
    assert float(lost) < 0.5
    assert f"an F1 of 1.00, what follows it {lost}." in found.findings[0].message
    assert f"following {lost} (frames " in run_report.words(found)
    json.loads(json.dumps(found.record(), allow_nan=False))
    for name, roll in notes["rolls"].items():
        assert np.mean([pitch in PITCHES for *_, pitch in roll]) > 0.9, name
        assert all(0 <= start < end for start, end, _ in roll)
    widths = []
    without_notes = {**found.figures, "notes": None}
    for figures in (found.figures, without_notes, {**without_notes, "phase": None}):
        run_picture.draw(figures, tmp_path / "picture.png")
        with Image.open(tmp_path / "picture.png") as picture:
            widths.append(picture.width)
    assert widths[0] == widths[1]  # four columns with a codec
    assert widths[1] * 3 == widths[2] * 4


@pytest.mark.usefixtures("others")
def test_notes_that_another_failure_loses_are_not_named(
    playing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clamped_sampler(playing, {}, monkeypatch)
    found = diagnosis(playing, monkeypatch)
    assert [each.name for each in found.findings] == ["clamped-sampler"]
    assert notes_lost(found.figures["notes"]) is not None


@pytest.mark.usefixtures("others")
def test_phase_in_latents_is_named_beside_lost_notes_and_beside_another_failure(
    playing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = diagnosis(playing, monkeypatch, PhasePlayer())
    assert [each.name for each in found.findings] == [PHASE_IN_LATENTS, NOTES_LOST]
    kept = found.figures["phase"]["same"][2]
    assert f"moves by 1.00 ms, its latents keep {kept:.2f}" in found.findings[0].message
    clamped_sampler(playing, {}, monkeypatch)
    found = diagnosis(playing, monkeypatch, PhasePlayer())
    assert [each.name for each in found.findings] == ["clamped-sampler", PHASE_IN_LATENTS]


def test_an_evaluation_measures_the_same_on_a_minute_of_recordings(
    playing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(playing)
    data = open_data(run, training_settings(playing), TrainingData(None, None, None), 32)
    lengths_s = []

    def recorded(_: Any, clip: Any, first: int, last: int, rate_hz: int, channels: int) -> Any:
        assert (rate_hz, channels) == (RATE_HZ, 1)
        lengths_s.append((last - first) / RATE_HZ)
        raw = np.array(data.reader.raw(clip))[:, first // HOP : last // HOP]
        return [Player().decode(raw, None)]

    monkeypatch.setattr("diffwave.evaluation.latents.recorded", recorded)
    codec: Any = Player()
    found = measure_latents(run.model, data, Path("recordings"), codec)
    assert 50 < sum(lengths_s) <= 60.5
    assert found["shifts"]["same"][:3] == pytest.approx([1.0] * 3, abs=0.02)
    assert found["predictability"] == diagnose_run(playing).figures["predictability"]
    sentence = latents_in_words(found)
    assert f"explains {found['predictability']:.2f} of the variance" in sentence


def test_notes_are_heard_with_a_spectrogram_to_follow_and_a_codec_only(
    playing: Path, healthy_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_codec = diagnose_run(playing)
    assert without_codec.figures["notes"] is without_codec.figures["phase"] is None
    assert without_codec.figures["predictability"] > 0.9
    assert "if the sound moves" not in run_report.words(without_codec)
    use_codec(monkeypatch, StubCodec())
    without = diagnose_run(healthy_run, codec=Path("codec"))  # a loudness says no pitch
    assert without.figures["notes"] is without.figures["predictability"] is None
    assert without.figures["phase"] is not None
    assert "Notes" not in run_report.words(without)


@pytest.mark.parametrize(
    ("per_second", "modelled", "followed", "is_lost"),
    [
        (8.8, 0.90, 0.57, True),
        (8.8, 0.90, 0.73, False),
        (0.5, 0.50, 0.39, True),
        (0.49, 0.90, 0.1, False),  # hardly a note
        (8.8, 0.49, 0.1, False),  # nothing that could be followed
    ],
)
def test_notes_are_lost_where_a_fifth_of_what_could_be_kept_is(
    per_second: float, modelled: float, followed: float, is_lost: bool
) -> None:
    scores = {"modelled": {"note_f1": modelled}, "followed": {"note_f1": followed}}
    assert (notes_lost({"per_second": per_second, **scores}) is not None) == is_lost
