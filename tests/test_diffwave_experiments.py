"""The diary's faulty model is as the diary had it, and each line of the diary is an experiment."""

import math

import numpy as np
import pytest
import torch

from diffwave.experiments import closed_forms
from diffwave.experiments.catalogue import QUICK_NAMES, catalogue
from diffwave.experiments.diary_model import (
    DiaryCNN,
    DiaryConditioner,
    DiaryDiffWave,
    DiaryNetwork,
)
from diffwave.experiments.diary_training import DiaryRun, ancestral, diary_loss, mix
from diffwave.experiments.measures import made_normal, no_gain, white_gain
from diffwave.experiments.recipe import FULL, QUICK, TINY
from diffwave.network import DiffWave
from diffwave.schedule import linear_schedule

# What the diary varied or asked, and the experiment that answers it.
LINES = {
    "low, standard and high learning rate": "learning-rate",
    "batches of 48, 24, 6": "batch-size",
    "60, 30, 10 blocks": "depth",
    "256 and 64 residual channels": "width",
    "50, 500, 1000, 2000 timesteps": "timesteps",
    "conditioner true and false": "conditioner",
    "simple CNN": "cnn",
    "no sqrt": "no-sqrt",
    "MSE": "mse",
    "16 bit": "precision",
    "flattened": "timesteps-50",
    "flattened, 500, 1000, 2000 timesteps": "flattened",
    "five schedules": "schedules",
    "learning rate doubled, and 6e-5": "flattened-learning-rate",
    "batch 18, 128 and 256 channels, 50 blocks": "flattened-size",
    "conditioner channels 1, 64, 128, two more layers": "conditioner-channels",
    "condition × 5; same audio whatever the condition": "conditioner-gain",
    "batch norm everywhere, on y, on skips": "batch-norm",
    "tensors scaled in the first and in every block": "scaled",
    "samples exactly ±1, × 4, silent": "sampling-range",
    "extremes of samples by schedule, x_t from 220 to 200": "sampling-schedules",
    "schedule changed after training": "foreign-schedule",
    "power transform": "power-transform",
    "x, y, t, condition, skips, output by block": "magnitudes",
    "one timestep a batch: should be tested": "timestep-per-item",
    "normal encodings, their mean, interpolation": "encodings",
}
FIVE_SCHEDULES = {(1e-4, 0.05), (0.0015, 0.0195), (1e-5, 0.0085), (1e-5, 0.005), (1e-5, 0.0195)}


def test_every_line_of_the_diary_has_an_experiment():
    assert sorted(LINES.values()) == sorted(each.name for each in catalogue(FULL))
    assert set(QUICK_NAMES) <= set(LINES.values())


@pytest.mark.parametrize("scale", [FULL, QUICK, TINY])
def test_an_experiment_says_what_the_diary_saw_and_why(scale):
    for each in catalogue(scale):
        assert each.lines and each.why and (each.rows or each.measure)
        assert each.needs_spectrograms == any(run.is_conditional for run in each.runs)


def test_the_variants_are_the_diary_s():
    by_name = {each.name: each for each in catalogue(FULL)}

    def values(name, of):
        return {of(row.diary) for row in by_name[name].rows if row.diary is not None}

    assert values("learning-rate", lambda run: run.learning_rate) == {2e-6, 2e-4, 2e-2}
    assert values("batch-size", lambda run: run.batch_size) == {48, 24, 6}
    assert values("depth", lambda run: run.network.num_blocks) == {60, 30, 10}
    assert values("width", lambda run: 4 * run.network.hidden_channels) == {256, 64}
    assert values("flattened", lambda run: run.schedule[2]) == {50, 500, 1000, 2000}
    assert values("schedules", lambda run: run.schedule[:2]) == FIVE_SCHEDULES
    assert values("precision", lambda run: run.precision) == {"float32", "bfloat16"}
    norms = {"", "everywhere", "output", "y", "output and skips"}
    assert values("batch-norm", lambda run: run.network.batch_norm) == norms


def test_variant_a_writes_one_channel_that_broadcasts():
    network = DiaryDiffWave(128, DiaryNetwork())
    noisy = torch.randn(2, 128, 109)
    predicted = network(noisy, torch.tensor([3, 3]))
    assert predicted.shape == (2, 1, 109)
    assert diary_loss("l1", predicted, noisy).shape == noisy.shape
    with pytest.raises(ValueError, match="1 channel would be broadcast"):
        DiffWave(128, 30, 64, 109, out_channels=1)


@pytest.mark.parametrize("design", [DiaryNetwork(is_flattened=True, hidden_channels=4)])
def test_variant_b_writes_what_it_reads(design):
    noisy = torch.randn(1, 128, 109)
    assert DiaryDiffWave(128, design)(noisy, torch.tensor([0])).shape == noisy.shape


def test_layers_are_the_diary_s():
    network = DiaryDiffWave(128, DiaryNetwork(conditioner_channels=1))
    assert len(network.blocks) == 30
    dilations = [block.dilated.dilation[0] for block in network.blocks]
    assert dilations == [2 ** (index % 10) for index in range(30)]
    block = network.blocks[0]
    assert network.input.weight.shape == (64, 128, 1)
    assert block.dilated.weight.shape == (128, 64, 3)
    assert block.condition.weight.shape == (128, 80, 1)
    assert block.project.weight.shape == (128, 64, 1)
    assert block.step.weight.shape == (64, 512)
    assert network.last.weight.shape == (64, 64, 1)
    assert network.output.weight.shape == (1, 64, 1)


@pytest.mark.parametrize(
    ("is_flattened", "length", "kernels"),
    [(False, 109, [(3, 3), (3, 3)]), (True, 13952, [(4, 15), (4, 10)])],
)
def test_the_conditioner_reaches_the_stream_from_the_diary_s_872_mel_frames(
    is_flattened, length, kernels
):
    conditioner = DiaryConditioner(DiaryNetwork(is_flattened=is_flattened, conditioner_channels=1))
    assert [layer.kernel_size for layer in conditioner.layers] == kernels
    assert conditioner(torch.rand(1, 80, 872), 109, length).shape == (1, 80, length)
    assert conditioner(torch.rand(1, 80, 436), 109, length).shape == (1, 80, length)


def test_the_skips_are_not_used():
    torch.manual_seed(0)
    network = DiaryDiffWave(8, DiaryNetwork(hidden_channels=4, num_blocks=3))
    network(torch.randn(2, 8, 16), torch.tensor([1, 1])).sum().backward()
    for block in network.blocks:
        residual, skip = block.project.weight.grad.chunk(2)
        assert residual.abs().sum() > 0
        assert skip.abs().sum() == 0


def test_the_cnn_cannot_say_what_is_below_0():
    predicted = DiaryCNN()(torch.randn(2, 8, 16), torch.tensor([1, 1]))
    assert predicted.shape == (2, 8, 16)
    assert predicted.min() > 0 and predicted.max() < 1


@pytest.mark.parametrize(("kind", "wanted"), [("l1", 0.798), ("mse", 1.0)])
def test_an_answer_of_0_scores_0_8_and_1_0(kind, wanted):
    noise = torch.randn(64, 128, 109, generator=torch.Generator().manual_seed(0))
    loss = diary_loss(kind, torch.zeros(64, 1, 109), noise).mean().item()
    assert loss == pytest.approx(wanted, abs=0.005)
    assert closed_forms.zero_loss(kind) == pytest.approx(wanted, abs=0.0005)


def test_one_channel_of_128_can_say_next_to_nothing():
    schedule = linear_schedule(1e-4, 0.05, 500)
    assert closed_forms.broadcast_loss(schedule, "l1", 128) == pytest.approx(0.795, abs=0.001)
    assert closed_forms.broadcast_loss(schedule, "mse", 1) == pytest.approx(
        closed_forms.white_loss(schedule, "mse")
    )


@pytest.mark.parametrize(
    ("betas", "wanted"),
    [
        ((1e-4, 0.05, 50), 0.654),
        ((1e-4, 0.05, 500), 0.280),
        ((1e-4, 0.05, 1000), 0.198),
        ((1e-4, 0.05, 2000), 0.140),
        ((1e-5, 0.005, 1000), 0.559),
        ((0.0015, 0.0195, 1000), 0.275),
    ],
)
def test_the_white_loss_follows_from_the_schedule(betas, wanted):
    assert closed_forms.white_loss(linear_schedule(*betas), "l1") == pytest.approx(wanted, abs=6e-4)


@pytest.mark.parametrize("kind", ["l1", "mse"])
def test_no_answer_in_0_to_1_beats_the_bounded_loss(kind):
    schedule = linear_schedule(1e-4, 0.05, 50)
    bounded = closed_forms.bounded_loss(schedule, kind)
    assert closed_forms.white_loss(schedule, kind) < bounded < closed_forms.zero_loss(kind)
    random = np.random.default_rng(0)
    alpha_bar = random.choice(schedule.alpha_bar.numpy(), 200_000)
    latents, noise = random.standard_normal((2, 200_000))
    noisy = np.sqrt(alpha_bar) * latents + np.sqrt(1 - alpha_bar) * noise
    for slope in (0.2, 0.4, 0.6):
        off = np.clip(slope * noisy, 0, 1) - noise
        assert (np.square(off) if kind == "mse" else np.abs(off)).mean() > bounded - 0.003


def test_sampling_white_noise_is_predicted_at_each_step():
    schedule = linear_schedule(1e-4, 0.05, 60)
    noise = torch.randn(4, 8, 400, generator=torch.Generator().manual_seed(1))
    gain = white_gain(schedule)

    def perfect(noisy, timestep):
        return noisy * gain(int(timestep[0]), 1.0)

    def nothing(noisy, timestep):
        return torch.zeros_like(noisy)

    for predict, wanted, clamp in (
        (perfect, closed_forms.sampled_std(schedule, gain), None),
        (nothing, closed_forms.sampled_std(schedule, no_gain), None),
        (nothing, closed_forms.clamped_std(schedule, 1.0), 1.0),
    ):
        _, trace = ancestral(predict, schedule, noise, 0, clamp=clamp)
        measured = [size for size, _ in trace]
        np.testing.assert_allclose(measured, wanted, rtol=0.03)


def test_an_error_is_amplified_by_the_root_of_what_is_left():
    schedule = linear_schedule(1e-4, 0.05, 1000)
    assert closed_forms.amplification(schedule) == pytest.approx(3.4e5, rel=0.05)


def test_the_spread_of_a_loss_by_the_draw_of_timesteps():
    errors = closed_forms.white_errors(linear_schedule(1e-4, 0.05, 1000), "l1")
    spread = closed_forms.spread_of_loss(errors, 24)
    random = np.random.default_rng(0)
    each = errors[random.integers(1000, size=(20_000, 24))].mean(axis=1).std()
    assert spread["one for the batch"] == pytest.approx(errors.std())
    assert spread["one for each item"] == pytest.approx(each, rel=0.03)
    assert spread["stratified"] < spread["one for each item"] / 5
    assert closed_forms.share_of_timesteps_seen(141, 1000) == pytest.approx(0.1316, abs=1e-3)


def test_mixing_without_roots_is_another_schedule():
    schedule = linear_schedule(1e-4, 0.05, 50)
    other = closed_forms.without_roots(schedule).alpha_bar
    latents, noise = torch.ones(50, 1, 1), torch.zeros(50, 1, 1)
    signal = mix(latents, noise, schedule.alpha_bar, has_roots=False).squeeze()
    rest = mix(noise, latents, schedule.alpha_bar, has_roots=False).squeeze()
    ratio = signal.double().square() / (signal.square() + rest.square()).double()
    assert torch.allclose(ratio, other, atol=1e-5)


def test_lengths_of_means_and_blends():
    vectors = np.random.default_rng(0).standard_normal((3, 4000))
    length = np.linalg.norm(vectors, axis=1).mean()
    mean = np.linalg.norm(vectors.mean(axis=0)) / length
    assert closed_forms.length_of_mean(3) == pytest.approx(mean, rel=0.03)
    assert closed_forms.blend_length(0.5) == pytest.approx(math.sqrt(0.5))


def test_a_power_transform_leaves_a_normal_prediction():
    skewed = torch.randn(2, 4, 500, generator=torch.Generator().manual_seed(0)).exp()
    changed = made_normal(skewed)
    assert changed.mean().item() == pytest.approx(0, abs=1e-5)
    assert changed.std().item() == pytest.approx(1, abs=1e-2)
    assert abs((changed**3).mean().item()) < 0.5  # of 6 before


def test_a_run_s_weights_follow_from_its_seed():
    one, same, other = (DiaryRun(seed=seed).build(4).output.weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
