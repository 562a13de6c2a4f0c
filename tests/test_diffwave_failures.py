"""Each known failure, planted, is named by its own detector and by no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diagnosed_runs import MEMORIES, SMALL
from diffwave_data import HOP, RATE_HZ, autoregression, write_latent_folder
from numpy.typing import NDArray

import diffwave.diagnosis.run
import diffwave.diagnosis.run_samples
import diffwave.diagnosis.samples
import diffwave.network
import diffwave.sampling.generation
from diffwave import train
from diffwave.conditions.controls import LOUDNESS
from diffwave.diagnosis import run_picture, run_report
from diffwave.diagnosis.failures import NOTES_LOST, PHASE_IN_LATENTS, REMEDIES, WHITE_LATENTS
from diffwave.diagnosis.latents import diagnose_latents
from diffwave.diagnosis.run import RunDiagnosis, diagnose_run
from diffwave.model import LatentDiffusion
from diffwave.schedule import named_schedule
from diffwave.standardizer import Standardizer
from rave.latents.folder import LatentHeader, read_latents
from rave.runs.checkpoint import BEST, CHECKPOINTS


class StubCodec:
    """Decodes latents to audio of their own level, or only those it knows; encodes the means.

    Attributes:
        known: Raw latents (D, N) of clips, the only ones it decodes to more than a whisper.
    """

    def __init__(self, known: list[NDArray[np.float32]] | None = None) -> None:
        self.known = known
        self.format: Any = SimpleNamespace(sample_rate_hz=RATE_HZ, hop_samples=HOP, num_channels=1)

    def check_latents(self, header: LatentHeader, folder: Path) -> None:
        """Take any latents."""

    def decode(self, latents: NDArray[np.float32], noise: Any) -> NDArray[np.float32]:
        """Return the latents as audio (D, N·hop), each held until the next."""
        held = np.repeat(latents, self.format.hop_samples, axis=1)
        if self.known is not None and not any(self._holds(clip, latents) for clip in self.known):
            return 1e-4 * held
        return 0.1 * held

    def encode(self, audio: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        """Return the mean of each frame: latents (D, N) that move with the audio."""
        frames = audio.reshape(len(audio), -1, self.format.hop_samples)
        return 10.0 * frames.mean(axis=2), None

    @staticmethod
    def _holds(clip: NDArray[np.float32], part: NDArray[np.float32]) -> bool:
        starts = np.flatnonzero(clip[0] == part[0, 0])
        return any(np.array_equal(clip[:, i : i + part.shape[1]], part) for i in starts)


class Copier(StubCodec):
    """Copies samples: the latents of a frame are its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.format.hop_samples = len(MEMORIES)

    def decode(self, latents: NDArray[np.float32], noise: Any) -> NDArray[np.float32]:
        """Return the latents one after the other."""
        return 0.1 * latents.T.reshape(1, -1)

    def encode(self, audio: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        """Return the samples of each frame."""
        return 10.0 * audio.reshape(-1, self.format.hop_samples).T, None


def use_codec(monkeypatch: pytest.MonkeyPatch, codec: StubCodec) -> None:
    monkeypatch.setattr(diffwave.diagnosis.run, "load_codec", lambda *_: codec)
    monkeypatch.setattr(diffwave.diagnosis.run_samples, "DecoderNoise", lambda *_: None)


Weights = dict[str, torch.Tensor]
# Changes the weights of a run, given those; or what its sampling is made of; or both.
Plant = Callable[[Path, Weights, pytest.MonkeyPatch], None]


def broadcast_output(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("network.output.weight", "network.output.bias"):
        weights[name][:] = weights[name].mean(dim=0, keepdim=True)


def residual_readout(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the prediction as the diary's model did."""

    def forward(self: Any, noisy: Any, step: Any, condition: Any = None) -> torch.Tensor:
        x = self.input(noisy).relu()
        embedding = self.step(diffwave.network.embed_step(step))
        for block in self.blocks:
            x, _ = block(x, embedding, condition)
        prediction: torch.Tensor = self.output(self.skip(x).relu())
        return prediction

    monkeypatch.setattr(diffwave.network.DiffWave, "forward", forward)


def foreign_schedule(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let checkpoint and config agree on a schedule that the network was not trained with."""
    weights["_extra_state"] = named_schedule("audioldm").alpha_bar
    for name in ("model.gin", "config.gin"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace("SCHEDULE = 'cosine'", "SCHEDULE = 'audioldm'"))


def ignored_conditioner(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the conditioner always answer what stands for no condition."""
    prefix = f"conditioners.{LOUDNESS}"
    weights[f"{prefix}.layers.2.weight"].zero_()
    weights[f"{prefix}.layers.2.bias"][:] = weights[f"{prefix}.null_condition"][:, 0]


def clamped_sampler(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut latents to [-1, 1] after every step, as is right for audio."""
    build = diffwave.sampling.generation.build_sampler

    def build_clamped(*arguments: Any) -> Any:
        sampler = build(*arguments)
        return replace(sampler, step=lambda *given: sampler.step(*given).clamp(-1.0, 1.0))

    monkeypatch.setattr(diffwave.sampling.generation, "build_sampler", build_clamped)


def exploding_norm(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exaggerate the condition far beyond what the model has seen."""
    guided = LatentDiffusion.guided

    def exaggerated(self: Any, inputs: Any, guidance: Any, *sizes: int) -> Any:
        return guided(self, inputs, dict.fromkeys(inputs, 40.0), *sizes)

    monkeypatch.setattr(LatentDiffusion, "guided", exaggerated)


def level_lost(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the model's latents for raw ones."""
    monkeypatch.setattr(Standardizer, "unstandardize", lambda self, latents: latents)


def silent_decode(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode with a codec that knows the latents of its own training only."""
    paths = sorted((run.parent / "latents").glob("*.npy"))
    use_codec(monkeypatch, StubCodec([read_latents(path, len(MEMORIES)) for path in paths]))


def memorised(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Denoise towards what was trained on: the optimum of a network that could hold all of it."""
    known = {}

    def recall(self: Any, noisy: torch.Tensor, timestep: torch.Tensor, terms: Any) -> torch.Tensor:
        num_frames = noisy.shape[2]
        if num_frames not in known:
            data = diffwave.diagnosis.run.open_data(*known["open"])
            segments = data.segments(data.training, 64)
            raw = torch.stack([segment["raw"] for segment in segments])
            known[num_frames] = self.standardizer.standardize(raw)
        clips = known[num_frames]
        alpha_bar = float(self.alpha_bar(timestep)[0])
        away = torch.cdist(noisy.flatten(1), alpha_bar**0.5 * clips.flatten(1)).square()
        weight = torch.softmax(-away / (2.0 * (1.0 - alpha_bar)), dim=1)
        return torch.einsum("bs,skn->bkn", weight, clips)

    open_data = diffwave.diagnosis.run.open_data

    def remember(*arguments: Any) -> Any:
        known["open"] = arguments
        return open_data(*arguments)

    monkeypatch.setattr(diffwave.diagnosis.run, "open_data", remember)
    monkeypatch.setattr(LatentDiffusion, "denoise_guided", recall)


def phase_in_latents(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode and decode with a codec that copies samples."""
    use_codec(monkeypatch, Copier())


PLANTS: dict[str, Plant] = {
    name.replace("_", "-"): plant
    for name, plant in (
        (each.__name__, each)
        for each in (
            broadcast_output,
            residual_readout,
            foreign_schedule,
            ignored_conditioner,
            clamped_sampler,
            exploding_norm,
            level_lost,
            silent_decode,
            memorised,
            phase_in_latents,
        )
    )
}


def diagnose(run: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant | None) -> RunDiagnosis:
    """Return the diagnosis of a run with a failure planted in it."""
    use_codec(monkeypatch, StubCodec())
    if plant is not None:
        path = run / CHECKPOINTS / BEST
        checkpoint = torch.load(path, weights_only=True)
        state = checkpoint["state_dict"]
        weights = {k.removeprefix("model."): v for k, v in state.items() if "model." in k}
        plant(run, weights, monkeypatch)
        checkpoint["state_dict"] = {f"model.{name}": value for name, value in weights.items()}
        torch.save(checkpoint, path)
    return diagnose_run(run, codec=Path("codec"))


@pytest.mark.parametrize("planted", [None, *PLANTS])
def test_a_planted_failure_is_named_by_its_detector_alone(
    healthy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str | None
) -> None:
    run = tmp_path / "run"
    shutil.copytree(healthy_run, run)
    shutil.copytree(healthy_run.parent / "latents", tmp_path / "latents")
    found = diagnose(run, monkeypatch, PLANTS[planted] if planted else None)
    assert [each.name for each in found.findings] == ([planted] if planted else [])
    kept = found.figures["phase"]["same"]
    if planted != PHASE_IN_LATENTS:
        assert min(kept) > 0.6  # half a hop, of latents that remember 0.8 to 0.95 of a frame
        assert found.figures["phase"]["between"] == pytest.approx([1.0] * 5)
        return
    # One of three independent samples each becomes another: E(a − b)² = 2 of variance 1.
    assert found.figures["phase"]["shifts"] == [1]
    assert kept == [pytest.approx(-1.0, abs=0.25)]
    sentence = f"If sound moves by 0.06 ms, its latents keep {kept[0]:.2f} of their variance"
    assert sentence in found.findings[0].message
    words = run_report.words(found)
    assert f"keep if the sound moves: 1 sample {kept[0]:.2f}; half a hop" in words


def test_white_latents_are_named_alone_before_training_and_after(
    healthy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert diagnose_latents(healthy_run.parent / "latents").findings == []
    noise = {f"{file}.npy": autoregression(3, 1500, 0.0, file) for file in range(6)}
    write_latent_folder(tmp_path / "latents", noise)
    found = diagnose_latents(tmp_path / "latents")
    assert [each.name for each in found.findings] == [WHITE_LATENTS]
    short = [*SMALL, "MAX_STEPS=40", "VALIDATE_EVERY=40"]
    options = [text for setting in short for text in ("--set", setting)]
    paths = [str(tmp_path / "latents"), "--out", str(tmp_path / "run")]
    assert train.main([*paths, "--device", "cpu", *options]) == 0
    after = diagnose(tmp_path / "run", monkeypatch, None)
    assert [each.name for each in after.findings] == [WHITE_LATENTS]


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        ((ignored_conditioner, clamped_sampler), ["ignored-conditioner", "clamped-sampler"]),
        # What a foreign schedule does to the norm follows from it.
        ((foreign_schedule, exploding_norm), ["foreign-schedule"]),
    ],
)
def test_of_two_failures_both_are_named_unless_one_follows_from_the_other(
    healthy_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    planted: tuple[Plant, ...],
    named: list[str],
) -> None:
    def plant(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
        for each in planted:
            each(run, weights, monkeypatch)

    run = tmp_path / "run"
    shutil.copytree(healthy_run, run)
    found = diagnose(run, monkeypatch, plant)
    assert [each.name for each in found.findings] == named
    if foreign_schedule in planted:
        sampling = found.figures["sampling"]
        assert max(sampling["noisy"]) > 2 * max(sampling["expected"])


def test_each_known_failure_is_planted() -> None:
    """Lost notes: test_diffwave_lost_notes.py."""
    assert {WHITE_LATENTS, NOTES_LOST, *PLANTS} == set(REMEDIES)


def test_a_checkpoint_with_another_schedule_than_its_config_is_named(
    healthy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchange(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
        # So near to the right one that the network itself shows nothing of it.
        weights["_extra_state"] = named_schedule("flow").alpha_bar

    run = tmp_path / "run"
    shutil.copytree(healthy_run, run)
    (found,) = diagnose(run, monkeypatch, exchange).findings
    assert found.name == "foreign-schedule"
    names = "cosine", "flow"
    one, other = (named_schedule(name).alpha_bar for name in names)
    assert f"differs by up to {(one - other).abs().max():.2g} of signal power" in found.message


def test_a_diverged_network_has_an_exploding_norm_and_nothing_else(
    healthy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(run: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
        weights["network.output.weight"].fill_(float("nan"))

    run = tmp_path / "run"
    shutil.copytree(healthy_run, run)
    found = diagnose(run, monkeypatch, diverge)
    assert [each.name for each in found.findings] == ["exploding-norm"]
    assert "not finite, after sampling step 1 of 20" in found.findings[0].message
    json.loads(json.dumps(found.record(), allow_nan=False))
    assert "not finite" in run_report.words(found)
    run_picture.draw(found.figures, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 0
