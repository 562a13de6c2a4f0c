"""Laws of schedule, standardizer, network, denoiser and conditioner."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from diffwave.conditioner import SpectrogramConditioner
from diffwave.denoiser import (
    Prediction,
    add_noise,
    check_prediction,
    denoised_from,
    noise_from,
    stratified_timesteps,
    target,
)
from diffwave.network import DiffWave, fit_dilation_cycle, receptive_field
from diffwave.objective import Objective, Weighting
from diffwave.schedule import (
    SCHEDULES,
    NoiseSchedule,
    alpha_bar_from_betas,
    alpha_bar_from_log_snr,
    named_schedule,
)
from diffwave.standardizer import Standardizer


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SCHEDULES)
def test_conversions_of_a_schedule_invert(name: str) -> None:
    schedule = named_schedule(name)
    for back in (
        alpha_bar_from_betas(schedule.betas),
        1 / (1 + schedule.sigma.square()),
        alpha_bar_from_log_snr(schedule.log_snr),
    ):
        torch.testing.assert_close(back, schedule.alpha_bar, rtol=1e-9, atol=1e-15)


def test_only_cosine_and_flow_end_in_pure_noise() -> None:
    ends = [name for name in SCHEDULES if named_schedule(name).is_zero_terminal]
    assert ends == ["cosine", "flow"]


def test_flow_schedule_takes_even_steps_of_the_straight_path() -> None:
    alpha_bar = named_schedule("flow").alpha_bar
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    torch.testing.assert_close(s / (a + s), torch.arange(1, 1001).double() / 1000)


def test_flow_is_the_slope_of_the_straight_path() -> None:
    latents, noise = random(1, 3, 7, seed=1), random(1, 3, 7, seed=2)

    def path(alpha_bar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return s / (a + s), add_noise(latents, noise, alpha_bar) / (a + s)[:, None, None]

    (tau, here), (later, there) = (path(torch.tensor([p]).double()) for p in (0.6, 0.3))
    slope = (there - here) / (later - tau)
    torch.testing.assert_close(
        slope.float(), target("flow", latents, noise, tau), rtol=1e-4, atol=1e-5
    )


def weight_of(
    weighting: Weighting, prediction: Prediction, alpha_bar: torch.Tensor
) -> torch.Tensor:
    return Objective(prediction, "mse", weighting).weight(alpha_bar)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_min_snr_weighs_an_error_of_the_latents_alike_whatever_is_predicted(
    prediction: Prediction,
) -> None:
    alpha_bar = torch.tensor([0.999, 0.9, 0.5, 0.1, 0.01], dtype=torch.float64)
    snr = alpha_bar / (1 - alpha_bar)
    latents, noise = random(5, 3, 7, seed=1).double(), random(5, 3, 7, seed=2).double()
    noisy = add_noise(latents, noise, alpha_bar)
    wanted = target(prediction, latents, noise, alpha_bar)
    output = wanted + random(5, 3, 7, seed=3)
    wrong = denoised_from(prediction, output, noisy, alpha_bar) - latents
    counted = weight_of("min-snr", prediction, alpha_bar) * (output - wanted).square().mean((1, 2))
    torch.testing.assert_close(counted, snr.clamp(max=5) * wrong.square().mean((1, 2)))


def test_min_snr_is_that_of_the_paper() -> None:
    alpha_bar = torch.tensor([0.99, 0.5, 0.1], dtype=torch.float64)
    snr = alpha_bar / (1 - alpha_bar)
    least = snr.clamp(max=5)
    torch.testing.assert_close(weight_of("min-snr", "epsilon", alpha_bar), least / snr)
    torch.testing.assert_close(weight_of("min-snr", "v", alpha_bar), least / (snr + 1))
    torch.testing.assert_close(weight_of("min-snr", "x0", alpha_bar), least)
    assert weight_of("none", "v", alpha_bar).tolist() == [1, 1, 1]
    assert weight_of("min-snr", "flow", torch.zeros(1).double()).tolist() == [0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("v", "mse", "snr"), r"no weighting 'snr'. Choose one of: none, min-snr\.$"),
        (("v", "l2"), r"no loss 'l2'. Choose one of: mse, l1\.$"),
        (("eps",), r"no prediction 'eps'. Choose one of: epsilon, v, x0, flow\.$"),
    ],
)
def test_unknown_part_of_an_objective_lists_those_there_are(words: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(*words)


def test_terminal_signal_of_the_diary_is_what_it_says() -> None:
    assert named_schedule("diffwave").alpha_bar[-1].item() == pytest.approx(0.28, abs=0.005)


def test_unknown_schedule_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no schedule 'sine'. Choose one of: cosine, flow"):
        named_schedule("sine")


def test_schedule_that_gains_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="must not rise"):
        NoiseSchedule(torch.tensor([0.5, 0.6]))


def mixed_latents(num_frames: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((6, num_frames)) * np.array([3, 2, 1, 0.5, 0.02, 0.01])[:, None]
    rotation, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    return (rotation @ sources + 100.0).astype(np.float32)


def test_standardized_latents_are_white_and_come_back() -> None:
    raw = mixed_latents()
    standardizer = Standardizer.fit([raw[:, :1000], raw[:, 1000:]], fidelity=0.99)
    latents = standardizer.standardize(torch.from_numpy(raw)[None])
    assert latents.shape[1] == standardizer.latent_size < 6
    covariance = np.cov(latents[0].double().numpy(), bias=True)
    np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=1e-3)
    back = standardizer.standardize(standardizer.unstandardize(latents))
    torch.testing.assert_close(back, latents, atol=2e-3, rtol=0)  # the mean is 100


def test_all_dimensions_kept_is_exact_both_ways() -> None:
    raw = torch.from_numpy(mixed_latents())[None] - 100.0
    standardizer = Standardizer.fit([raw[0].numpy()], fidelity=1.0)
    assert standardizer.latent_size == 6
    back = standardizer.unstandardize(standardizer.standardize(raw))
    torch.testing.assert_close(back, raw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("fidelity", "latent_size"), [(0.5, 1), (0.64, 2), (0.98, 3), (1.0, 4)])
def test_kept_dimensions_are_the_fewest_that_reach_the_fidelity(
    fidelity: float, latent_size: int
) -> None:
    spread = np.array([3.0, 2.0, 1.0, 0.3])  # variances 9, 4, 1, 0.09: shares .64, .92, .994
    signs = np.array([[s1, s2, s3, s4] for s1 in (-1, 1) for s2 in (-1, 1) for s3 in (-1, 1)
                      for s4 in (-1, 1)]).T  # fmt: skip
    fitted = Standardizer.fit([(spread[:, None] * signs).astype(np.float32)], fidelity)
    assert fitted.latent_size == latent_size
    assert fitted.fidelity.item() >= fidelity - 1e-6


def test_a_dimension_that_never_varies_is_left_out() -> None:
    raw = mixed_latents()
    raw[2] = 5.0
    standardizer = Standardizer.fit([raw], fidelity=1.0)
    assert standardizer.latent_size == 5
    assert torch.isfinite(standardizer.standardize(torch.from_numpy(raw)[None])).all()


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_latents_that_never_vary_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="do not vary at all"):
        Standardizer.fit([np.full((4, 100), value, dtype=np.float32)], fidelity=0.99)


def test_latents_with_nan_are_refused() -> None:
    raw = mixed_latents()
    raw[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        Standardizer.fit([raw], fidelity=0.99)


def test_standardizer_refuses_more_dimensions_than_there_are() -> None:
    with pytest.raises(ValueError, match="latent size is 9; it must be from 1 to the 8"):
        Standardizer(8, 9)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_every_prediction_gives_the_same_denoised_and_noise(prediction: Prediction) -> None:
    latents, noise = random(5, 3, 7, seed=1), random(5, 3, 7, seed=2)
    alpha_bar = torch.tensor([0.999, 0.9, 0.5, 0.1, 0.01], dtype=torch.float64)
    noisy = add_noise(latents, noise, alpha_bar)
    output = target(prediction, latents, noise, alpha_bar)
    denoised = denoised_from(prediction, output, noisy, alpha_bar)
    torch.testing.assert_close(denoised, latents, atol=1e-4, rtol=1e-4)
    found = noise_from(prediction, output, noisy, alpha_bar)
    torch.testing.assert_close(found, noise, atol=1e-4, rtol=1e-3)


def test_epsilon_is_refused_where_the_schedule_ends_in_noise() -> None:
    with pytest.raises(ValueError, match="Choose PREDICTION='v'"):
        check_prediction("epsilon", named_schedule("cosine"))
    assert check_prediction("epsilon", named_schedule("audioldm")) == "epsilon"
    with pytest.raises(ValueError, match=r"no prediction 'eps'. Choose one of: epsilon, v, x0"):
        check_prediction("eps", named_schedule("audioldm"))


def test_error_counts_only_frames_that_exist() -> None:
    output, wanted = torch.zeros(2, 3, 4), torch.full((2, 3, 4), 2.0)
    wanted[1, :, 2:] = 1e6
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    assert Objective("v", "mse").errors(output, wanted, mask).tolist() == [4.0, 4.0]
    assert Objective("v", "l1").errors(output, wanted, mask).tolist() == [2.0, 2.0]


def test_error_refuses_to_broadcast() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        Objective("v").errors(torch.zeros(2, 1, 4), torch.zeros(2, 3, 4), torch.ones(2, 4))


def test_timesteps_are_one_per_stratum_and_reach_all() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([stratified_timesteps(8, 50, generator) for _ in range(400)])
    strata = (draws.double() + 0.5).div(50 / 8).floor().sort(dim=1).values
    assert (strata - torch.arange(8)).abs().max() <= 1  # a timestep may lie across two strata
    assert draws.unique().tolist() == list(range(50))
    counts = torch.bincount(draws.flatten()).double() / draws.numel() * 50
    assert 0.6 < counts.min() < counts.max() < 1.5


def test_dilation_cycle_is_the_longest_that_fits_a_segment() -> None:
    for num_blocks in range(1, 16):
        for segment_frames in (4, 16, 64, 128, 500):
            cycle = fit_dilation_cycle(num_blocks, segment_frames)
            fits = receptive_field(num_blocks, cycle) <= segment_frames
            assert fits or cycle == 1
            longer = receptive_field(num_blocks, cycle + 1)
            assert longer > segment_frames or cycle == num_blocks
    assert fit_dilation_cycle(12, 128) == 4
    assert receptive_field(30, 10) == 6139  # the diary's


def make_network(**changes: int) -> DiffWave:
    torch.manual_seed(0)
    sizes = {"latent_size": 3, "num_blocks": 4, "hidden_channels": 8, "segment_frames": 16}
    network = DiffWave(**(sizes | changes))
    torch.nn.init.normal_(network.output.weight)
    return network


def test_network_sees_its_receptive_field_and_nothing_beyond() -> None:
    network = make_network(dilation_cycle=2)
    reach = network.receptive_field_frames // 2
    noisy = random(1, 3, 65).requires_grad_()
    network(noisy, torch.tensor([10.0]))[0, :, 32].sum().backward()
    assert noisy.grad is not None
    touched = noisy.grad[0].abs().sum(dim=0).nonzero().flatten()
    assert (touched.min().item(), touched.max().item()) == (32 - reach, 32 + reach)


def test_network_output_is_read_from_every_block() -> None:
    network = make_network()
    network(random(2, 3, 16), torch.tensor([1.0, 900.0])).square().sum().backward()
    gains = [block.output.weight.grad for block in network.blocks]
    assert all(gain is not None and gain.abs().max() > 0 for gain in gains)


def test_network_depends_on_the_step() -> None:
    network, noisy = make_network(), random(1, 3, 16)
    assert not torch.allclose(
        network(noisy, torch.tensor([1.0])), network(noisy, torch.tensor([9.0]))
    )


def test_new_network_predicts_zero() -> None:
    network = DiffWave(latent_size=3, num_blocks=2, hidden_channels=8, segment_frames=16)
    assert network(random(1, 3, 16), torch.tensor([1.0])).abs().max() == 0


def test_one_output_channel_is_refused_and_the_plateau_explained() -> None:
    with pytest.raises(ValueError, match=r"128 input channels but 1 output .* 0.8 \(L1\)"):
        DiffWave(128, num_blocks=1, hidden_channels=8, segment_frames=16, out_channels=1)


def test_wrong_shapes_are_named() -> None:
    network = make_network(condition_channels=5)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 16\); \(batch, 3, frames\)"):
        network(random(1, 2, 16), torch.tensor([1.0]), random(1, 5, 16))
    with pytest.raises(ValueError, match=r"\(1, 0, 16\); \(1, 5, 16\) is needed"):
        network(random(1, 3, 16), torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"\(1, 5, 15\); \(1, 5, 16\) is needed"):
        network(random(1, 3, 16), torch.tensor([1.0]), random(1, 5, 15))


@pytest.mark.parametrize("ratio", range(1, 17))
def test_conditioner_gives_one_frame_per_latent_frame(ratio: int) -> None:
    torch.manual_seed(0)
    conditioner = SpectrogramConditioner(4, 6, 64 * ratio, 64)
    for num_frames in (1, 2, 9):
        assert conditioner(random(2, 4, num_frames * ratio)).shape == (2, 6, num_frames)


@pytest.mark.parametrize("ratio", [1, 2, 3, 6, 8, 15])
def test_conditioner_is_centred_on_its_own_mel_frames(ratio: int) -> None:
    torch.manual_seed(0)
    conditioner = SpectrogramConditioner(1, 1, ratio, 1)
    spectrogram = random(1, 1, 9 * ratio).requires_grad_()
    conditioner(spectrogram)[0, 0, 4].backward()
    assert spectrogram.grad is not None
    touched = spectrogram.grad[0, 0].nonzero().flatten()
    before, after = 4 * ratio - touched.min(), touched.max() - (5 * ratio - 1)
    assert before == after > 0


def test_conditioner_normalises_its_input() -> None:
    conditioner = SpectrogramConditioner(2, 4, 8, 8)
    mels = np.random.default_rng(0).random((2, 500)).astype(np.float32) * 0.2 + 0.7
    conditioner.fit([mels[:, :100], mels[:, 100:]])
    np.testing.assert_allclose(conditioner.mean, mels.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(conditioner.std, mels.std(axis=1), rtol=1e-4)


def test_absent_items_get_the_null_condition_and_train_it() -> None:
    torch.manual_seed(0)
    conditioner = SpectrogramConditioner(2, 4, 8, 4)
    torch.nn.init.normal_(conditioner.null_condition)
    spectrogram = random(3, 2, 10)
    condition = conditioner(spectrogram, torch.tensor([False, True, False]))
    torch.testing.assert_close(condition[1:2], conditioner.absent(1, 5))
    torch.testing.assert_close(condition[[0, 2]], conditioner(spectrogram[[0, 2]]))
    condition[1].sum().backward()
    assert conditioner.null_condition.grad is not None
    assert conditioner.null_condition.grad.abs().min() > 0


def test_hops_without_a_whole_ratio_are_named() -> None:
    with pytest.raises(ValueError, match=r"hop of 1024 samples .* spectrograms' hop of 300"):
        SpectrogramConditioner(4, 4, 1024, 300)
