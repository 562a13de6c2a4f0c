"""A run's diagnosis measures what training and sampling do, and says what it cannot find."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import lmnt_runs
import numpy as np
import pytest
import torch
from diffwave_data import HOP, autoregression, settings, write_latent_folder
from torch import Tensor, nn

from diffwave import diagnose, train, training
from diffwave.clips import split_clips
from diffwave.conditioner import ControlConditioner
from diffwave.conditions.controls import CHROMA, LOUDNESS, ControlHeader
from diffwave.dataset import ClipReader, FixedSegments
from diffwave.diagnosis import network as network_diagnosis
from diffwave.diagnosis import run_picture, run_report, run_samples
from diffwave.diagnosis.conditioner import conditioner_gain
from diffwave.diagnosis.network import Probe, magnitudes
from diffwave.diagnosis.run import RunDiagnosis, diagnose_run
from diffwave.diagnosis.samples import (
    trace_sampling,
)
from diffwave.model import LatentDiffusion
from diffwave.network import DiffWave
from diffwave.objective import Objective
from diffwave.reference_loss import GaussianModel
from diffwave.run import TrainingData, open_run, training_settings
from diffwave.sampling.generation import Sampling
from diffwave.schedule import named_schedule
from diffwave.standardizer import Standardizer
from rave.latent_dataset import LatentDataset
from rave.latents.folder import LatentHeader, write_latents


@pytest.fixture(scope="module")
def diagnosis(healthy_run: Path) -> RunDiagnosis:
    return diagnose_run(healthy_run)


def test_losses_and_gains_are_those_that_the_training_reported(
    healthy_run: Path, diagnosis: RunDiagnosis
) -> None:
    told = json.loads((healthy_run / "skill.json").read_text())
    figures = diagnosis.figures
    assert figures["verdict"] == told["verdict"]
    assert figures["skill_uncertainty"] == told["skill_uncertainty"]
    for name in ("held_out_loss", "zero", "white", "gaussian", "skill"):
        assert figures[name] == pytest.approx(told[name], rel=1e-6)
    assert [each["log_snr"] for each in figures["by_log_snr"]] == [
        each["log_snr"] for each in told["by_log_snr"]
    ]
    run = open_run(healthy_run)
    data = TrainingData.read(healthy_run)
    assert data.latents is not None
    latents = LatentDataset(data.latents)
    reader = ClipReader.open(latents, controls=data.controls)
    known = training_settings(healthy_run)
    held_out = split_clips(latents.files, known.held_out_fraction)[1]
    segments = FixedSegments(reader, held_out, known.segment_frames, known.held_out_segments)
    gain = conditioner_gain(run.model, segments, known.objective(run.model.prediction)).gain
    assert figures["conditioner"]["gain"] == {LOUDNESS: pytest.approx(gain, rel=1e-6)}


def test_a_diagnosis_is_the_same_each_time(healthy_run: Path, diagnosis: RunDiagnosis) -> None:
    assert diagnose_run(healthy_run).record() == diagnosis.record()
    other = diagnose_run(healthy_run, seed=7).figures
    assert other["sampling"]["noisy"] != diagnosis.figures["sampling"]["noisy"]


def test_words_and_picture_show_each_part(diagnosis: RunDiagnosis, tmp_path: Path) -> None:
    words = run_report.words(diagnosis)
    figures = diagnosis.figures
    assert "Nothing found: none of the twelve known failures shows in this run." in words
    assert f"Held-out loss {figures['held_out_loss']:.3f} against white" in words
    assert f"{figures['verdict']} Losses: v, mse" in words
    assert f"loudness {figures['conditioner']['gain'][LOUDNESS]:.2f}." in words
    assert f"Timesteps: {figures['timesteps']['share']:.1%} of them drawn in 300 steps" in words
    assert "Sampling 32 clips in 20 steps" in words
    assert max(len(line) for line in words.splitlines()) < 240
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        run_picture.draw(diagnosis.figures, tmp_path / f"picture{suffix}")
        assert (tmp_path / f"picture{suffix}").read_bytes().startswith(start)


def test_timesteps_replayed_are_those_that_the_training_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {f"{n}.npy": autoregression(3, 100, 0.9, seed) for seed, n in enumerate("abc")}
    write_latent_folder(tmp_path / "latents", arrays)
    drawn: list[int] = []

    def draw(*arguments: Any) -> Tensor:
        timesteps: Tensor = network_diagnosis.stratified_timesteps(*arguments)
        drawn.extend(timesteps.tolist())
        return timesteps

    monkeypatch.setattr(training, "stratified_timesteps", draw)
    paths = [str(tmp_path / "latents"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert train.main([*paths, "--seed", "3", *settings()]) == 0
    steps = open_run(tmp_path / "run").num_steps
    drawn = drawn[: 4 * steps]
    found = diagnose_run(tmp_path / "run").figures["timesteps"]
    assert found["num_steps"] == found["replayed_steps"] == steps
    assert found["share"] == pytest.approx(len(set(drawn)) / 1000)
    visits = np.bincount(np.array(drawn) // 100, minlength=10) / len(drawn)
    assert found["visits"] == pytest.approx(visits.tolist())


def small_model(conditions: int = 0) -> LatentDiffusion:
    torch.manual_seed(0)
    network = DiffWave(3, 4, 8, 32, condition_channels=4 if conditions else 0)
    nn.init.normal_(network.output.weight, std=0.5)
    conditioners = {
        name: ControlConditioner(channels, 4)
        for name, channels in ((LOUDNESS, 1), (CHROMA, 12))[:conditions]
    }
    schedule = named_schedule("cosine")
    model = LatentDiffusion(Standardizer(3, 3), network, schedule, "v", conditioners=conditioners)
    return model.eval().requires_grad_(False)


def test_magnitudes_are_those_of_the_formula() -> None:
    model = small_model(1)
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 4, 3, 40, generator=generator)
    told = torch.randn(4, 1, 40, generator=generator)
    found = magnitudes(Probe(model, latents, noise, {LOUDNESS: told}), 0.0)

    def size(values: Tensor) -> float:
        return float(values.square().mean().sqrt())

    timestep = int(model.schedule.log_snr.abs().argmin())
    alpha_bar = float(model.schedule.alpha_bar[timestep])
    noisy = math.sqrt(alpha_bar) * latents + math.sqrt(1 - alpha_bar) * noise
    network, condition = model.network, model.conditioners[LOUDNESS](told)
    x = network.input(noisy).relu()
    step = torch.full((4,), (timestep + 1) * 1000.0 / len(model.schedule))
    embedding = network.step(diffwave_embedding(step))
    skips: Any = 0.0
    assert found["input"] == pytest.approx(size(x), rel=1e-5)
    for block, figures in zip(network.blocks, found["blocks"], strict=True):
        from_step, from_condition = block.step(embedding)[:, :, None], block.condition(condition)
        y = block.dilated(x + from_step) + from_condition
        residual, skip = block.output(y[:, :8].tanh() * y[:, 8:].sigmoid()).chunk(2, dim=1)
        x, skips = (x + residual) / math.sqrt(2), skips + skip
        sizes = {"x": x, "y": y, "gate": y[:, 8:].sigmoid(), "skip": skip}
        sizes |= {"condition": from_condition, "timestep": from_step}
        assert figures == {name: pytest.approx(size(v), rel=1e-4) for name, v in sizes.items()}
    assert found["skip_sum"] == pytest.approx(size(skips / 2), rel=1e-4)  # of 4 blocks
    output = network.output(network.skip(skips / 2).relu())
    assert found["output"] == pytest.approx(size(output), rel=1e-4)


def diffwave_embedding(step: Tensor) -> Tensor:
    angles = step[:, None] * 10.0 ** (-4 * torch.arange(64) / 63)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def test_trace_of_an_exact_denoiser_is_as_the_schedule_has_it() -> None:
    model = small_model()
    nn.init.zeros_(model.network.output.weight)  # v = 0 is the best of N(0, 1)
    white = GaussianModel(np.ones((33, 3)), np.tile(np.eye(3, dtype=complex), (33, 1, 1)))
    latents, trace = trace_sampling(model, 64, 128, 0, {}, white)
    assert trace.alpha_bar[0] == 0.0
    assert trace.expected == pytest.approx(np.ones(21))
    assert trace.noisy == pytest.approx(trace.expected, rel=0.03)
    assert trace.denoised == pytest.approx(trace.linear, rel=0.03, abs=1e-6)
    assert trace.noisy[-1] == pytest.approx(float(latents.square().mean().sqrt()))
    same = Sampling(model, range(128), 0, num_steps=20).generate(64)
    assert torch.equal(model.standardizer.unstandardize(latents), same)


class Sum(nn.Module):
    """Predicts what its conditions add up to, in each channel."""

    def forward(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        return condition[:, :1].expand_as(noisy)


def test_a_condition_that_says_what_others_say_is_followed_alone(tmp_path: Path) -> None:
    arrays = {f"{n}.npy": autoregression(3, 200, 0.5, seed) for seed, n in enumerate("ab")}
    for array in arrays.values():
        array[1:] = array[:1]
    header = write_latent_folder(tmp_path / "latents", arrays)
    for name, array in arrays.items():  # loudness says all that there is to know, chroma as well
        for control, channels in ((LOUDNESS, 1), (CHROMA, 12)):
            rows = np.repeat(array[:1], channels, axis=0)
            write_latents(tmp_path / "controls" / control / name, [rows], channels)
    files = {file.path: file.num_frames for file in header.files}
    controls = ControlHeader(
        header.codec, header.sample_rate_hz, HOP, {LOUDNESS: 1, CHROMA: 12}, files
    )
    controls.write(tmp_path / "controls")
    reader = ClipReader.open(LatentDataset(tmp_path / "latents"), controls=tmp_path / "controls")
    segments = FixedSegments(reader, split_clips(header.files, 0.5)[1], 20, 12)
    model = small_model(2)
    model.prediction = "x0"
    model.network = Sum()

    class Half(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return 0.5 * value[:, :1].expand(-1, 4, -1)

    class Nothing(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return 0.0 * value[:, :1].expand(-1, 4, -1)

    for name in (LOUDNESS, CHROMA):
        model.conditioners[name].layers = Half()
        alone = conditioner_gain(model, segments, Objective("x0"), [name], is_alone=True)
        # Half of it right: (1/2)² is missed; half of another one: 1 + (1/2)².
        assert alone.gain == pytest.approx(5.0, rel=0.35)
        model.conditioners[name].layers = Nothing()
        assert conditioner_gain(model, segments, Objective("x0"), [name], is_alone=True).gain == 1.0
        model.conditioners[name].layers = Half()


def test_each_of_several_conditions_is_reported(tmp_path: Path) -> None:
    arrays = {
        f"{folder}/{n}.npy": autoregression(3, 100, 0.5, seed)
        for seed, (folder, n) in enumerate((f, n) for f in ("bach", "chopin") for n in "abc")
    }
    write_latent_folder(tmp_path / "latents", arrays)
    controls = write_loudness(tmp_path / "latents")
    paths = [str(tmp_path / "latents"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    paths += ["--controls", str(controls), LOUDNESS, "--labels"]
    assert train.main([*paths, *settings("HELD_OUT_FRACTION=0.4")]) == 0
    found = diagnose_run(tmp_path / "run")
    assert found.figures["follows"] == ["label", LOUDNESS]
    conditioner = found.figures["conditioner"]
    for figures in conditioner.values():
        assert set(figures) == {"label", LOUDNESS, "all"}
    assert "Without the others: label" in run_report.words(found)
    assert "change by loudness" in run_report.words(found)


def test_a_run_of_lmnt_diffwave_is_diagnosed(tmp_path: Path) -> None:
    arrays = {
        f"{n}.npy": autoregression(lmnt_runs.RAW_SIZE, 300, 0.8, i) for i, n in enumerate("abc")
    }
    header = write_latent_folder(tmp_path / "latents", arrays)
    checkpoint = lmnt_runs.make_checkpoint(False, crop_frames=48, held_out_fraction=0.3)
    run = lmnt_runs.write_run(tmp_path / "run", checkpoint, header)
    found = diagnose_run(run, latents=tmp_path / "latents")
    assert found.figures["segment_frames"] == 48
    assert len(found.figures["network"]["levels"][0]["blocks"]) == lmnt_runs.BLOCKS
    assert "not known for a run of lmnt diffwave" in run_report.words(found)


def test_a_run_finds_its_latents_until_they_move(
    healthy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(healthy_run.parent, folder)
    run = folder / "run"
    known = TrainingData.read(run)
    assert known == TrainingData(
        latents=healthy_run.parent / "latents", controls=healthy_run.parent / "controls"
    )
    monkeypatch.chdir(folder)
    TrainingData(Path("latents"), None, Path("controls")).write(run)
    monkeypatch.chdir(tmp_path)
    assert TrainingData.read(run).latents == folder / "latents"
    shutil.move(folder / "latents", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"which no longer exists\. Add --latents DIR"):
        diagnose_run(run)
    monkeypatch.setattr(run_samples, "NUM_GENERATED", 2)
    assert diagnose_run(run, latents=tmp_path / "elsewhere").figures["is_training_data"]
    (run / "data.json").unlink()
    with pytest.raises(ValueError, match=r"not store where its latents are\. Add --latents DIR"):
        diagnose_run(run)
    with pytest.raises(
        ValueError, match=r"does not store where its controls are\. Add --controls DIR"
    ):
        diagnose_run(run, latents=tmp_path / "elsewhere")


def test_folders_that_do_not_fit_a_run_are_refused(
    healthy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"follows no spectrograms\. Leave out --spectrograms"):
        diagnose_run(healthy_run, spectrograms=tmp_path)
    foreign = {"a.npy": autoregression(3, 200, 0.5, 0)}
    write_latent_folder(tmp_path / "foreign", foreign, codec="another")
    with pytest.raises(ValueError, match="another codec"):
        diagnose_run(healthy_run, latents=tmp_path / "foreign")
    write_latent_folder(tmp_path / "short", {"a.npy": autoregression(3, 60, 0.5, 0)})
    with pytest.raises(ValueError, match=r"has \d+ frames; 32 are needed for a diagnosis"):
        diagnose_run(
            healthy_run, latents=tmp_path / "short", controls=write_loudness(tmp_path / "short")
        )


def write_loudness(latents: Path) -> Path:
    header = LatentHeader.read(latents)
    folder = latents.parent / "controls"
    for file in header.files:
        told = np.load(latents / file.path)[:1]
        write_latents(folder / LOUDNESS / file.path, [told], 1)
    files = {file.path: file.num_frames for file in header.files}
    ControlHeader(header.codec, header.sample_rate_hz, HOP, {LOUDNESS: 1}, files).write(folder)
    return folder


def test_the_command_diagnoses_a_run(
    healthy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert diagnose.main([str(healthy_run), "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "none of the twelve known failures" in printed
    record = json.loads((out / "diagnosis.json").read_text())
    assert (record["kind"], record["findings"]) == ("run", [])
    assert (out / "diagnosis.png").exists()
    assert not (healthy_run / "diagnosis").exists()
