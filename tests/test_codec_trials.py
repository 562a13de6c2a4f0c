"""The comparison of ways to train a codec, at tiny sizes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from audio_files import write
from rave_runs import RATE_HZ
from training_curves import read_curves

from benchmarks import codec_trials, codec_trials_systems
from benchmarks.codec_trials import TRIALS, Trial, main, steps_for, train
from benchmarks.codec_trials_systems import (
    Consistent,
    Equivariant,
    WaveformFirst,
    between,
    inconsistency,
)
from rave import initial_weights
from rave.api.preprocess import preprocess_folder
from rave.blocks.posterior import DiagonalGaussian
from rave.dataset import split_audio
from rave.experiment import build
from rave.runs.checkpoint import last_checkpoint, read_checkpoint
from rave.runs.recipes import read_recipe
from rave.training import RaveSystem
from rave.upstream.lmdb import open_audio

SIZES = ("CAPACITY=2", "LATENT_SIZE=4", "CROP_SAMPLES=8192", "BATCH_SIZE=2", "SCALES=[512, 256]")
TINY = (*SIZES, "training.RaveTraining.log_every_steps=1")
FITTED, FIRST = (
    Trial("small", TINY),
    Trial("waveform", (*TINY, "PRECISION='32-true'"), WaveformFirst, 2),
)


def melody(seed):
    """Return ten notes that fade, (1, T)."""
    times, rng = np.arange(round(0.3 * RATE_HZ)) / RATE_HZ, np.random.default_rng(seed)
    pitches = 440 * 2 ** (rng.integers(-24, 12, 10) / 12)
    waves = [sum(np.sin(2 * np.pi * f * k * times) / k for k in range(1, 6)) for f in pitches]
    return np.concatenate([0.2 * np.exp(-5 * times) * w for w in waves])[None].astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared folder, and folders of the recordings that are held out, and of all."""
    folder = tmp_path_factory.mktemp("data")
    for seed in range(6):
        write(folder / "all" / f"{seed}.wav", melody(seed), RATE_HZ)
    preprocess_folder(folder / "all", folder / "prepared", sample_rate=RATE_HZ)
    for piece in split_audio(open_audio(folder / "prepared"), codec_trials.HELD_OUT_FRACTION)[1]:
        held_out = folder / "held-out" / piece.file.name
        held_out.parent.mkdir(exist_ok=True)
        held_out.symlink_to(folder / "all" / piece.file.name)
    return SimpleNamespace(**{p.name.replace("-", "_"): p for p in folder.iterdir()})


def values(run, name):
    """Return what the steps of a training logged; other steps repeat it."""
    return list(dict.fromkeys(value for _, value in read_curves(run)[f"train/{name}"]))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Tiny trials, of which few steps are timed, fitted to few frames."""
    monkeypatch.setattr(codec_trials, "TIMED_STEPS", 2)
    monkeypatch.setattr(codec_trials, "TRIALS", {"fitted": FITTED, "first": FIRST})
    monkeypatch.setattr(initial_weights, "NUM_FITTED_FRAMES", 256)


def test_trials_are_measured_once(data, tmp_path, monkeypatch, capsys):
    words = [str(each) for each in (data.prepared, data.held_out, tmp_path)]
    words += ["--minutes", "0.02"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| fitted | " in printed
    assert "| first | " in printed
    content = json.loads((tmp_path / "trials.json").read_text())
    for name, found in content.items():
        figures = found["figures"]
        assert found["minutes"] == 0.02
        assert figures["log_spectral_distance_db"] > 0
        assert 0 <= figures["note_f1"] <= 1
        assert 0 <= figures["frame_f1"] <= 1
        assert figures["explained_by_spectrogram"] <= 1
        assert figures["moved_16_samples"] <= 1
        assert figures["moved_half_a_hop"] <= 1
        assert 1 <= figures["dimensions_95"] <= 4
        assert 1 <= figures["phase_1_steps"] <= figures["steps"]
        saved = read_checkpoint(last_checkpoint(tmp_path / name))["global_step"]
        assert saved == figures["steps"]
    fitted, first = (content[name]["figures"] for name in ("fitted", "first"))
    # Power in long windows, whatever the decoder has learned: it stays, moves on, and is linear.
    assert fitted["moved_16_samples"] > 0.98
    assert fitted["moved_half_a_hop"] > 0.9
    assert fitted["phase_1_steps"] == fitted["steps"]
    assert first["phase_1_steps"] < first["steps"]

    monkeypatch.setattr(codec_trials, "run_trial", None)
    assert main(words) == 0
    assert capsys.readouterr().out == printed


def test_a_trial_that_fails_leaves_the_others(data, tmp_path, monkeypatch, capsys):
    def run_trial(trial, store, held_out, run, minutes):
        if trial is FITTED:
            raise ValueError("The loss became nan.")
        run.mkdir()
        figures = dict.fromkeys("abcdefgh", 0.5) | {"steps": 3, "phase_1_steps": 3, "cpu": 1.0}
        (run / "figures.json").write_text(json.dumps({"minutes": minutes, "figures": figures}))

    monkeypatch.setattr(codec_trials, "run_trial", run_trial)
    assert main([str(each) for each in (data.prepared, data.held_out, tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "Trial fitted failed: The loss became nan." in printed.err
    assert printed.out.splitlines()[-1] == "| first |" + " 0.50 |" * 8 + " 3 | 1.00 |"


def test_recordings_that_are_trained_on_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match=r"is trained on\. Give a folder of what is held out: "):
        main([str(each) for each in (data.prepared, data.all, tmp_path)])


def test_steps_fill_the_time_after_the_beginning(monkeypatch):
    skipped = codec_trials.SKIPPED_STEPS

    def clock(trial, store, run, steps):
        assert steps == [skipped + 2] * trial.num_phases
        # 10 s until the first step is done, slow steps, two of 0.5 s, slow ones, two of 2 s.
        costs = [10.0, *[3.0] * (skipped - 1), 0.5, 0.5, *[3.0] * skipped, 2.0, 2.0]
        return SimpleNamespace(seconds=np.cumsum([7.0, *costs]).tolist())

    monkeypatch.setattr(codec_trials, "train", clock)
    assert steps_for(FITTED, None, 1.5) == [160]  # 80 s
    assert steps_for(FIRST, None, 1.5) == [80, 20]  # 40 s each


def test_the_encoder_is_frozen_and_the_decoder_learns_on(data, tmp_path):
    weights = {}
    for steps in ((2, 1), (2, 3), (3, 2)):
        run = tmp_path / f"{steps}"
        train(FIRST, open_audio(data.prepared), run, steps)
        weights[steps] = read_checkpoint(last_checkpoint(run))["state_dict"]
        assert len(values(run, "waveform_distance")) == steps[0]

    def are_equal(part, one, other):
        return all(
            torch.equal(weight, weights[other][name])
            for name, weight in weights[one].items()
            if name.startswith(f"model.{part}.")
        )

    # The rate still rises, so it does not depend on the number of steps.
    assert are_equal("encoder", (2, 1), (2, 3))
    assert not are_equal("decoder", (2, 1), (2, 3))
    assert not are_equal("encoder", (2, 3), (3, 2))


def test_half_of_the_steps_are_moved(data, tmp_path):
    train(Trial("waveform", FIRST.settings, Equivariant), open_audio(data.prepared), tmp_path, [16])
    moved, still = (values(tmp_path, f"{name}spectral_distance") for name in ("moved_", ""))
    assert len(moved) + len(still) == 16
    assert min(len(moved), len(still)) >= 4


def test_consistency_without_weight_changes_nothing(data, tmp_path, monkeypatch):
    found = []
    for system, weight in ((RaveSystem, 0.0), (Consistent, 0.0), (Consistent, 1e6)):
        monkeypatch.setattr(codec_trials_systems, "CONSISTENCY_WEIGHT", weight)
        run = tmp_path / f"{len(found)}"
        train(Trial("waveform", FIRST.settings, system), open_audio(data.prepared), run, [2])
        found.append(read_checkpoint(last_checkpoint(run))["state_dict"])
    one, same, other = ([v for k, v in each.items() if "encoder" in k] for each in found)
    assert all(map(torch.equal, one, same))
    assert not any(map(torch.equal, one[-2:], other[-2:]))


def test_inconsistency_is_what_theory_says():
    torch.manual_seed(0)
    noise, tiny = torch.randn(64, 3, 200), torch.full((64, 3, 200), 1e-6)
    unrelated = torch.randn(64, 3, 199)
    share = 0.25
    expected = 1 + share**2 + (1 - share) ** 2
    for scale in (1.0, 100.0):
        posterior = DiagonalGaussian(scale * noise, tiny)
        assert inconsistency(posterior, scale * between(noise, share), share) < 1e-12
        found = inconsistency(posterior, scale * unrelated, share)
        assert float(found) == pytest.approx(expected, rel=0.02)
    # Noise of the posterior counts as variance: two dimensions of three are drowned in it.
    std = torch.tensor([1e-6, 3.0, 3.0])[:, None].expand(64, 3, 200)
    found = inconsistency(DiagonalGaussian(noise, std), unrelated, share)
    assert float(found) == pytest.approx(expected * (1 + 2 * 0.1) / 3, rel=0.02)


def test_magnitudes_are_decoded_against_discriminators_in_the_end(data, tmp_path):
    settings = (*FIRST.settings, "ENCODER_CAPACITY=4", "DISCRIMINATOR_CAPACITY=2")
    trial = Trial(codec_trials.MAGNITUDES, settings, num_phases=2)
    train(trial, open_audio(data.prepared), tmp_path, [2, 4])
    assert len(values(tmp_path, "discriminator_loss")) == 2
    assert len(values(tmp_path, "feature_matching")) == 2
    assert len(values(tmp_path, "spectral_distance")) == 4


def test_every_trial_has_a_recipe():
    for trial in TRIALS.values():
        assert read_recipe("rave", trial.recipe, trial.settings).settings.keys() == {
            setting.split("=")[0] for setting in trial.settings
        }
    recipe = read_recipe("rave", codec_trials.MAGNITUDES, SIZES[:2])
    built = build(recipe, 0)
    assert built.training.waveform_weight == 0
    assert built.model.hop_samples == 1024
    audio = torch.randn(1, 1, 4096)
    latents = built.model.encode(audio).mean
    assert torch.equal(latents, built.model.encode(-audio).mean)  # no phase
    assert built.model.decode(latents).shape == audio.shape
