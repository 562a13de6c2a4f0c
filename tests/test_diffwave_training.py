"""Training: resumed equals uninterrupted, the run rebuilds its model, the loss is as it was."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffwave_data import autoregression, settings, write_latent_folder
from killing import differences
from pytorch_lightning import Callback, Trainer

import rave.trainer
from diffwave import train
from diffwave.clips import split_clips
from diffwave.dataset import ClipReader, FixedSegments, SegmentDataset
from diffwave.reference_loss import LossCurve, ReferenceLosses
from diffwave.run import open_run
from diffwave.training import (
    DiffusionSystem,
    averaged_weights,
    generator_for,
    learning_rate_factor,
)
from rave.cli import EXIT_INTERRUPTED
from rave.latent_dataset import Clip, LatentDataset
from rave.parsing import EXIT_ERROR
from rave.runs.checkpoint import BEST, CHECKPOINTS, finished_steps, last_checkpoint, read_checkpoint


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    lengths = {"a.npy": 100, "sub/b.npy": 60, "short.npy": 9, "c.npy": 70}
    arrays = {
        name: autoregression(4, length, 0.9, seed) + 1
        for seed, (name, length) in enumerate(lengths.items())
    }
    write_latent_folder(tmp_path / "latents", arrays)
    return tmp_path / "latents"


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send Ctrl-C to this process in the middle of a step."""

    class Interrupt(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == step:
                os.kill(os.getpid(), signal.SIGINT)

    fit = rave.trainer.fit

    def fit_interrupted(*arguments: Any, callbacks: Any = (), **named: Any) -> None:
        fit(*arguments, callbacks=[*callbacks, Interrupt()], **named)

    monkeypatch.setattr(rave.trainer, "fit", fit_interrupted)


@pytest.mark.parametrize("stops", [(3,), (2, 6)], ids=str)
def test_resumed_training_equals_uninterrupted_bit_for_bit(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    def train_once(name: str) -> int:
        run = ["--out", str(tmp_path / name), "--config", "tiny", "--device", "cpu"]
        return train.main([str(latents), *run, *settings()])

    assert train_once("whole") == 0
    for stop in stops:  # step 3 is one with a validation
        with monkeypatch.context() as patch:
            interrupt_at(patch, stop - 1)
            assert train_once("parts") == 130
        assert finished_steps(tmp_path / "parts") == stop
    torch.rand(7)  # global random state plays no part
    np.random.rand(7)
    assert train_once("parts") == 0
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (
            read_checkpoint(tmp_path / run / CHECKPOINTS / name) for run in ("whole", "parts")
        )
        assert differences(one, other) == []


def test_saved_run_rebuilds_the_model(latents: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [
        str(latents),
        "--out",
        str(out),
        "--config",
        "tiny",
        *settings("SCHEDULE='audioldm'"),
    ]
    assert train.main(options) == 0
    assert train.main(options) == 0  # finished: the same command only reports
    one, other = open_run(out), open_run(out)
    noisy, timestep = torch.randn(2, one.model.standardizer.latent_size, 16), torch.tensor([3, 700])
    torch.testing.assert_close(
        one.model(noisy, timestep), other.model(noisy, timestep), rtol=0, atol=0
    )
    weights = read_checkpoint(out / CHECKPOINTS / BEST)["state_dict"]
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, weights[f"model.{name}"])
    raw = torch.from_numpy(np.load(latents / "a.npy"))[None]
    standard = one.model.standardizer.standardize(raw)
    torch.testing.assert_close(one.model.standardizer.unstandardize(standard), raw)


def test_averaged_weights_are_the_ones_opened(latents: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main([str(latents), "--out", str(out), "--config", "tiny", *settings()]) == 0
    checkpoint = read_checkpoint(last_checkpoint(out))
    assert "current_model_state" in checkpoint
    assert differences(checkpoint["state_dict"], checkpoint["current_model_state"]) != []


def test_average_follows_fast_at_first() -> None:
    average = averaged_weights(0.999)._kwargs["avg_fn"]
    start, current = torch.zeros(1), torch.ones(1)
    assert average(start, current, 0) == pytest.approx(0.9)
    assert average(start, current, 10**6) == pytest.approx(0.001, rel=1e-3)


def test_learning_rate_rises_then_falls() -> None:
    factor = learning_rate_factor(10, 100)
    values = [factor(step) for step in range(101)]
    assert values[10] == 1.0
    assert values[:10] == sorted(values[:10])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] == pytest.approx(0.05)


def test_segments_follow_from_seed_and_index_and_reach_every_frame(latents: Path) -> None:
    clips, held_out = split_clips(header_files(latents), 0.25)
    assert {c.file.path for c in clips}.isdisjoint(c.file.path for c in held_out)
    reader = ClipReader(LatentDataset(latents))
    data = SegmentDataset(reader, clips, 16, seed=3)
    again = SegmentDataset(reader, clips, 16, seed=3)
    assert differences(dict(data[5]), dict(again[5])) == []
    assert differences(dict(data[5]), dict(SegmentDataset(reader, clips, 16, seed=4)[5])) != []
    every = {round(float(v), 5) for clip in clips for v in np.array(reader.raw(clip))[0]}
    seen = {
        round(float(v), 5)
        for item in (data[i] for i in range(2000))
        for v in item["raw"][0][item["mask"] > 0]
    }
    assert seen == every


def test_clip_shorter_than_a_segment_is_padded_and_masked(latents: Path) -> None:
    short = [file for file in header_files(latents) if file.path == "short.npy"]
    clip = Clip(short[0], 0, 9)
    item = SegmentDataset(ClipReader(LatentDataset(latents)), [clip], 16, seed=0)[0]
    assert item["mask"].tolist() == [1.0] * 9 + [0.0] * 7
    assert item["raw"][:, 9:].abs().max() == 0
    assert item["raw"][:, :9].abs().min() > 0


def test_only_file_is_divided_in_time(latents: Path) -> None:
    training, held_out = split_clips(header_files(latents)[:1], 0.2)
    assert [(c.start, c.stop) for c in training + held_out] == [(0, 80), (80, 100)]


def test_fixed_segments_cover_a_clip_to_its_end(latents: Path) -> None:
    clips = [split_clips(header_files(latents)[:1], 0.0)[0][0]]
    segments = FixedSegments(ClipReader(LatentDataset(latents)), clips, 16, max_segments=1000)
    raw = ClipReader(LatentDataset(latents)).raw(clips[0])
    np.testing.assert_array_equal(segments[0]["raw"], raw[:, :16])
    np.testing.assert_array_equal(segments[len(segments) - 1]["raw"], raw[:, -16:])
    assert len(FixedSegments(ClipReader(LatentDataset(latents)), clips, 16, max_segments=5)) == 5


def header_files(folder: Path) -> list[Any]:
    from rave.latents.folder import LatentHeader

    return LatentHeader.read(folder).files


GOLDEN_LOSS = 0.95255  # a change of it is a change of what is trained


def test_loss_of_one_step_is_golden(latents: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [str(latents), "--out", str(out), "--config", "tiny", *settings("MAX_STEPS=3")]
    assert train.main(options) == 0
    run = open_run(out)
    reader = ClipReader(LatentDataset(latents))
    segments = SegmentDataset(reader, split_clips(header_files(latents), 0.1)[0], 16, seed=0)
    batch = torch.utils.data.default_collate([segments[i] for i in range(4)])
    from rave.experiment import build_training

    references = ReferenceLosses(1.0, 1.0, 1.0)
    levels = LossCurve(*np.ones((4, 4)) * 0.5)
    training = build_settings(run.folder, build_training)
    system = DiffusionSystem(run.model, training, references, levels)
    system.log = lambda *_, **__: None
    loss = system.training_step(batch, 0).item()
    assert loss == pytest.approx(GOLDEN_LOSS, abs=2e-4)


def build_settings(folder: Path, build: Any) -> Any:
    from rave.experiment import parse_recipe

    parse_recipe("diffwave", str(folder / "config.gin"))
    return build()


def test_generators_of_different_numbers_differ() -> None:
    draws = {
        torch.rand(1, generator=generator_for(*n)).item()
        for n in ((0, 1), (1, 0), (0, 2), (0, 1, 1))
    }
    assert len(draws) == 4


def test_a_higher_max_steps_continues_a_finished_run(latents: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for num_steps in (5, 8):
        few = settings(f"MAX_STEPS={num_steps}")
        assert train.main([str(latents), "--out", str(run), "--config", "tiny", *few]) == 0
        assert finished_steps(run) == num_steps


def test_a_run_may_end_sooner_than_it_was_to_but_not_before_where_it_is(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"

    def exit_code(num_steps: int) -> int:
        options = ["--config", "tiny", *settings(f"MAX_STEPS={num_steps}")]
        return train.main([str(latents), "--out", str(run), *options])

    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        assert exit_code(9) == EXIT_INTERRUPTED
    done = finished_steps(run)
    assert 0 < done < 5
    assert exit_code(done - 1) == EXIT_ERROR
    assert f"has finished {done} steps; MAX_STEPS is {done - 1}" in capsys.readouterr().err
    assert exit_code(5) == 0
    assert finished_steps(run) == 5


@pytest.mark.parametrize("weighting", ["none", "min-snr"])
def test_skill_over_noise_levels_is_saved_with_the_run(
    latents: Path, tmp_path: Path, weighting: str
) -> None:
    run = tmp_path / "run"
    options = settings(f"WEIGHTING='{weighting}'", "HELD_OUT_SEGMENTS=8")
    assert train.main([str(latents), "--out", str(run), "--config", "tiny", *options]) == 0
    found = json.loads((run / "skill.json").read_text())
    assert (found["prediction"], found["loss"], found["weighting"]) == ("v", "mse", weighting)
    assert found["step"] == open_run(run).num_steps
    assert found["skill"] == pytest.approx(1 - found["held_out_loss"] / found["gaussian"])
    bins = found["by_log_snr"]
    num_segments = sum(each["num_segments"] for each in bins)
    total = sum(each["loss"] * each["num_segments"] for each in bins)
    assert total / num_segments == pytest.approx(found["held_out_loss"])
    for each in bins:
        assert each["skill"] == pytest.approx(1 - each["loss"] / each["gaussian"])
        assert each["zero"] >= each["gaussian"] * 0.5
