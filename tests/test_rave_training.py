import math
import os
import signal

import pytest
import torch
from pytorch_lightning import Callback
from rave_models import build_model
from rave_runs import TINY, checkpoint, prepare, tiny_parts, train
from torch.utils.data import DataLoader

from rave.codec import load_run
from rave.trainer import Loaders, fit
from rave.training import RaveSystem, num_dimensions, update_latent_axes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """A run of 4 steps of phase 1 and 4 of phase 2, not interrupted."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert train(prepared, out) == 0
    return out


# What one step does


class Recorder(Callback):
    """Keeps the weights before and after each step, and what is logged."""

    def __init__(self):
        self.weights, self.metrics, self.rates = [], [], []

    def _weights(self, system):
        return {name: value.detach().clone() for name, value in system.state_dict().items()}

    def on_train_start(self, trainer, system):
        self.weights.append(self._weights(system))

    def on_train_batch_end(self, trainer, system, outputs, batch, batch_idx):
        self.weights.append(self._weights(system))
        self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items()})
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def moved(self, step, prefix):
        """Return whether the step changed any weight whose name begins so."""
        before, after = self.weights[step : step + 2]
        return any(not torch.equal(before[k], after[k]) for k in before if k.startswith(prefix))


def recorded(folder, max_steps, *settings):
    """Train on one crop of a decaying chord, and return what happened."""
    model, training = tiny_parts(f"MAX_STEPS={max_steps}", *settings)
    times = torch.arange(4096) / 22050
    crop = sum(torch.sin(2 * torch.pi * f * times) for f in (220, 553, 1710)) * 0.2
    audio = (crop * torch.exp(-3 * times)).expand(2, 1, -1).contiguous()
    recorder = Recorder()
    system = RaveSystem(model, training)
    loaders = Loaders(
        train=DataLoader([audio] * max_steps, batch_size=None),
        held_out=DataLoader([audio], batch_size=None),
    )
    fit(
        system,
        lambda start: loaders,
        folder,
        max_steps,
        max_steps,
        device="cpu",
        log_every_steps=1,
        callbacks=[recorder],
    )
    return recorder


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory):
    every = "training.RaveTraining.discriminator_every_steps=3"
    return recorded(tmp_path_factory.mktemp("two"), 12, "PHASE_1_STEPS=5", every)


def test_the_loss_of_phase_1_falls(tmp_path):
    steps = recorded(tmp_path, 20, "PHASE_1_STEPS=20", "LEARNING_RATE=1e-2").metrics
    distances = [metrics["train/spectral_distance"] for metrics in steps]
    assert sum(distances[-4:]) < 0.9 * sum(distances[:4])
    assert all(math.isfinite(metrics["train/loss"]) for metrics in steps)


def test_phase_1_moves_encoder_and_decoder_and_never_the_discriminator(two_phases):
    for step in range(5):
        assert two_phases.moved(step, "model.encoder.")
        assert two_phases.moved(step, "model.decoder.")
        assert not two_phases.moved(step, "discriminator.")


def test_phase_2_leaves_the_encoder_and_moves_the_discriminator_every_so_many_steps(two_phases):
    for step in range(5, 12):
        is_discriminator_step = step % 3 == 0
        assert not two_phases.moved(step, "model.encoder.")
        assert two_phases.moved(step, "discriminator.") == is_discriminator_step
        assert two_phases.moved(step, "model.decoder.") != is_discriminator_step


def test_the_filter_bank_is_never_trained(two_phases):
    assert not any(two_phases.moved(step, "model.pqmf.") for step in range(12))


def test_the_learning_rate_used_is_that_of_the_schedule(two_phases):
    _, training = tiny_parts("PHASE_1_STEPS=5")
    needed = [1e-3 * training.learning_rate_factor(step) for step in range(12)]
    assert two_phases.rates == pytest.approx(needed)


def test_the_learning_rate_warms_up_falls_along_half_a_cosine_and_stays():
    _, training = tiny_parts("PHASE_1_STEPS=102")
    factors = [training.learning_rate_factor(step) for step in (0, 1, 2, 52, 102, 10_000)]
    assert factors == pytest.approx([0.5, 1, 1, 0.55, 0.1, 0.1])


def test_beta_rises_along_a_line_in_the_logarithm_and_stays(two_phases):
    _, training = tiny_parts("training.RaveTraining.beta_warmup_steps=100")
    values = [training.beta_at(step) for step in (-1, 49, 99, 1000)]
    assert values == pytest.approx([1e-6, math.sqrt(1e-6 * 0.1), 0.1, 0.1])
    # acids-rave's first value with its own end point, 0.05, and 20000 steps
    _, training = tiny_parts("BETA=0.05")
    assert training.beta_at(0) == pytest.approx(1.000541e-6, rel=1e-6)
    assert two_phases.metrics[0]["train/beta"] == pytest.approx(1.000576e-6, rel=1e-5)


def test_kl_counts_in_phase_1_only_and_the_terms_add_up(two_phases):
    first, last = two_phases.metrics[0], two_phases.metrics[11]  # step 11 trains the generator
    distance = "train/spectral_distance", "train/band_spectral_distance"
    needed = sum(first[name] for name in distance) + first["train/beta"] * first["train/kl"]
    assert first["train/loss"] == pytest.approx(needed, rel=1e-5)
    needed = sum(last[name] for name in distance)
    needed += 20 * last["train/feature_matching"] + last["train/adversarial"]
    assert last["train/loss"] == pytest.approx(needed, rel=1e-5)


# Resuming


def assert_same_state(run, needed):
    found, needed = checkpoint(run), checkpoint(needed)
    assert found["global_step"] == needed["global_step"]
    assert found["state_dict"].keys() == needed["state_dict"].keys()
    for name, value in needed["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name
    for mine, theirs in zip(found["optimizer_states"], needed["optimizer_states"], strict=True):
        for index, moments in theirs["state"].items():
            assert all(torch.equal(mine["state"][index][k], v) for k, v in moments.items())


def at_steps(monkeypatch, events):
    """Call an event at the beginning of a step, once each."""
    step_of = RaveSystem.training_step

    def training_step(self, audio, batch_idx):
        events.pop(self.global_step, lambda: None)()
        return step_of(self, audio, batch_idx)

    monkeypatch.setattr(RaveSystem, "training_step", training_step)


def test_a_run_stopped_by_signals_in_both_phases_equals_one_that_was_not(
    prepared, finished, tmp_path, monkeypatch, capsys
):
    stop, interrupt = (
        lambda n=number: os.kill(os.getpid(), n) for number in (signal.SIGTERM, signal.SIGINT)
    )
    at_steps(monkeypatch, {1: stop, 3: interrupt, 6: stop})
    reached = []
    for _ in range(3):
        assert train(prepared, tmp_path / "run") == 130
        assert "interrupted; the same command continues" in capsys.readouterr().err
        reached.append(checkpoint(tmp_path / "run")["global_step"])
    assert reached == [2, 4, 7]
    assert train(prepared, tmp_path / "run") == 0
    assert_same_state(tmp_path / "run", finished)


def test_a_run_that_broke_off_between_checkpoints_equals_one_that_did_not(
    prepared, finished, tmp_path, monkeypatch
):
    def break_off():
        raise RuntimeError("power cut")

    at_steps(monkeypatch, {6: break_off})
    with pytest.raises(RuntimeError, match="power cut"):
        train(prepared, tmp_path / "run")
    assert checkpoint(tmp_path / "run")["global_step"] == 4
    assert train(prepared, tmp_path / "run") == 0
    assert_same_state(tmp_path / "run", finished)


DRAWING = {
    "v2+noise": ["RATIOS=[4, 4, 4, 2]", "DILATIONS=[[1], [1], [1], [1]]"],
    "discrete": ["NUM_CODES=8", "NUM_STAGES=2"],
    "wasserstein": [],
}


@pytest.mark.parametrize("recipe", DRAWING)
def test_what_a_recipe_draws_is_drawn_again_by_a_resumed_run(recipe, prepared, tmp_path):
    for name, lengths in {"whole": [8], "pieces": [3, 5, 8]}.items():
        for num_steps in lengths:
            sets = *DRAWING[recipe], f"MAX_STEPS={num_steps}"
            assert train(prepared, tmp_path / name, *sets, recipe=recipe) == 0
            torch.rand(num_steps)  # nobody's draws but the training's own count
    assert_same_state(tmp_path / "pieces", tmp_path / "whole")


def test_a_finished_run_is_not_trained_further(prepared, finished, capsys):
    before = (finished / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert train(prepared, finished) == 0
    assert f"All 8 steps of '{finished}' were already done." in capsys.readouterr().out
    assert (finished / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


# Latent axes


def test_axes_are_orthonormal_and_fidelity_is_cumulative_after_validation(finished):
    model = load_run(finished)[0]
    assert torch.allclose(model.latent_pca @ model.latent_pca.T, torch.eye(4), atol=1e-5)
    assert (model.fidelity.diff() >= 0).all()
    assert model.fidelity[-1] == pytest.approx(1)
    assert model.latent_mean.abs().max() > 0


def test_three_planted_dimensions_are_found_with_their_mean_and_order():
    model = build_model("v2", "CAPACITY=2", "LATENT_SIZE=8")
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q[:3]
    sizes = torch.tensor([3.0, 2.0, 1.0])
    rows = torch.randn(5000, 3, generator=generator) * sizes @ axes + torch.arange(8.0)
    rows += 1e-3 * torch.randn(rows.shape, generator=generator)
    update_latent_axes(model, rows)
    assert [num_dimensions(model.fidelity, share) for share in (0.5, 0.8, 0.99)] == [1, 2, 3]
    assert torch.allclose(model.latent_mean, torch.arange(8.0), atol=0.2)
    assert torch.allclose(model.fidelity[:3], torch.tensor([9, 13, 14]) / 14, atol=0.02)
    assert ((model.latent_pca[:3] @ axes.T).abs() - torch.eye(3)).abs().max() < 0.1


def test_latents_that_never_change_have_axes_all_the_same():
    model = build_model("v2", "CAPACITY=2", "LATENT_SIZE=4")
    update_latent_axes(model, torch.ones(10, 4))
    assert torch.isfinite(model.latent_pca).all()
    assert torch.equal(model.fidelity, torch.zeros(4))
    assert num_dimensions(model.fidelity, 0.99) == 4


# The run folder


def test_the_saved_config_rebuilds_the_model_that_was_trained(finished):
    rebuilt = load_run(finished)[0]
    model, _ = tiny_parts(seed=1)
    assert rebuilt.state_dict().keys() == model.state_dict().keys()
    prefix = "model."
    state = checkpoint(finished)["state_dict"]
    model.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    audio = torch.randn(1, 1, 4096)
    with torch.inference_mode():
        for found, needed in zip(
            rebuilt.posterior_parameters(audio), model.posterior_parameters(audio), strict=True
        ):
            assert torch.equal(found, needed)
    assert rebuilt.sample_rate_hz == model.sample_rate_hz == 22050


def test_the_saved_config_holds_every_setting(finished):
    text = (finished / "config.gin").read_text()
    for setting in TINY:
        name, value = setting.split("=")
        assert f"{name} = {value}" in text
    assert "SEED = 0" in text
