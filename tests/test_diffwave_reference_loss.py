"""Reference losses against closed forms and against draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffwave_data import autoregression

from diffwave.denoiser import Prediction, add_noise, denoised_from, target
from diffwave.objective import LossKind, Objective, Weighting
from diffwave.reference_loss import (
    LossCurve,
    ReferenceLosses,
    SpectralDensity,
    channel_errors,
    fit_gaussian,
    loss_curve,
    mode_error,
    reference_losses,
)
from diffwave.schedule import linear_schedule, named_schedule
from diffwave.skill import skill_bins

PREDICTIONS: list[Prediction] = ["epsilon", "v", "x0", "flow"]
WEIGHTINGS: list[Weighting] = ["none", "min-snr"]


def segments_of(values: np.ndarray, num_frames: int) -> list[tuple[np.ndarray, float]]:
    """Return runs of one segment, (1, K, N), with their number of frames."""
    count = values.shape[1] // num_frames
    return [
        (part[None], float(num_frames))
        for part in np.split(values[:, : count * num_frames], count, 1)
    ]


def density_of(segments: list[tuple[np.ndarray, float]]) -> SpectralDensity:
    data = SpectralDensity(*segments[0][0].shape[1:])
    for segment, num_valid_frames in segments:
        data.add(segment, num_valid_frames)
    return data


def references(
    memory: float, name: str, prediction: Prediction, loss: LossKind, weighting: Weighting = "none"
) -> ReferenceLosses:
    training = segments_of(autoregression(4, 64 * 200, memory, seed=1), 64)
    held_out = segments_of(autoregression(4, 64 * 60, memory, seed=2), 64)
    objective = Objective(prediction, loss, weighting)
    return reference_losses(
        fit_gaussian(training), density_of(held_out), named_schedule(name), objective
    )


@pytest.mark.parametrize(
    ("num_timesteps", "white"), [(50, 0.654), (500, 0.280), (1000, 0.198), (2000, 0.140)]
)
def test_white_loss_explains_the_diary(num_timesteps: int, white: float) -> None:
    data = density_of(segments_of(autoregression(4, 6400, 0.0, seed=1), 64))
    schedule = linear_schedule(1e-4, 0.05, num_timesteps)
    gaussian = fit_gaussian(segments_of(autoregression(4, 640, 0.0, seed=2), 64))
    found = reference_losses(gaussian, data, schedule, Objective("epsilon", "l1"))
    assert found.white == pytest.approx(white, abs=0.004)
    assert found.zero == pytest.approx(np.sqrt(2 / np.pi))


@pytest.mark.parametrize(("name", "white"), [("linear-low-0.005", 0.559), ("audioldm", 0.275)])
def test_losses_of_two_schedules_differ_on_the_same_data(name: str, white: float) -> None:
    assert references(0.0, name, "epsilon", "l1").white == pytest.approx(white, abs=0.006)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_mode_error_is_the_table_where_the_model_is_right(prediction: Prediction) -> None:
    alpha_bar = np.linspace(0.0, 0.999, 50)
    a, s = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    tau = s / (a + s)
    for variance in (0.01, 1.0, 30.0):
        below = alpha_bar * variance + 1 - alpha_bar
        table = {
            "epsilon": alpha_bar * variance / below,
            "v": variance / below,
            "x0": variance * (1 - alpha_bar) / below,
            "flow": variance / ((1 - tau) ** 2 * variance + tau**2),
        }[prediction]
        found = mode_error(prediction, alpha_bar, variance, variance)
        np.testing.assert_allclose(found, table, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_mode_error_is_what_a_wrong_denoiser_scores_on_draws(prediction: Prediction) -> None:
    assumed, actual, alpha_bar = 2.5, 0.6, torch.tensor([0.3], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 400_000, generator=generator)
    latents = actual**0.5 * torch.randn(1, 1, 400_000, generator=generator)
    noisy = add_noise(latents, noise, alpha_bar)
    gain = 0.3**0.5 * assumed / (0.3 * assumed + 0.7)
    denoised = gain * noisy
    guess = target(prediction, denoised, (noisy - 0.3**0.5 * denoised) / 0.7**0.5, alpha_bar)
    wanted = target(prediction, latents, noise, alpha_bar)
    score = (guess - wanted).square().mean().item()
    expected = mode_error(prediction, alpha_bar.numpy(), assumed, actual)[0]
    assert score == pytest.approx(expected, rel=0.01)
    torch.testing.assert_close(
        denoised_from(prediction, guess, noisy, alpha_bar), denoised, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_references_are_in_order_on_music_and_equal_on_white_noise(prediction: Prediction) -> None:
    music = references(0.9, "audioldm", prediction, "mse")
    assert music.zero >= music.white > music.gaussian * 1.05  # equal for v
    noise = references(0.0, "audioldm", prediction, "mse")
    assert noise.gaussian == pytest.approx(noise.white, rel=0.01)


def test_gaussian_reference_of_an_autoregression_is_its_closed_form() -> None:
    memory, num_frames = 0.9, 64
    schedule = named_schedule("cosine")
    found = references(memory, "cosine", "v", "mse")
    # Exact: the best linear denoiser of a segment knows its covariance matrix memory^|n - m|.
    lag = np.abs(np.subtract.outer(np.arange(num_frames), np.arange(num_frames)))
    variances = np.linalg.eigvalsh(memory**lag)
    exact = np.mean(
        [mode_error("v", a, variances, variances).mean() for a in schedule.alpha_bar.numpy()]
    )
    # The reference treats a segment as a circle, so it loses a little at the ends.
    assert exact < found.gaussian < exact * 1.03


def test_errors_of_independent_channels_are_those_of_each_alone() -> None:
    def draws(seed: int, count: int) -> list[np.ndarray]:
        memories = enumerate((0.0, 0.5, 0.95))
        return [autoregression(1, 64 * count, each, seed + n) for n, each in memories]

    training, held_out, alpha_bar = draws(1, 2000), draws(11, 200), np.array([0.1, 0.5, 0.9])
    gaussian = fit_gaussian(segments_of(np.concatenate(training), 64))
    data = density_of(segments_of(np.concatenate(held_out), 64))
    together = channel_errors(gaussian, data, alpha_bar, "v")
    for channel, (known, new) in enumerate(zip(training, held_out, strict=True)):
        alone = fit_gaussian(segments_of(known, 64)), density_of(segments_of(new, 64))
        for each, expected in zip(together, channel_errors(*alone, alpha_bar, "v"), strict=True):
            np.testing.assert_allclose(each[:, channel], expected[:, 0], rtol=0.02)


def test_skill_of_the_gaussian_is_zero() -> None:
    found = ReferenceLosses(zero=1.0, white=0.9, gaussian=0.8)
    assert found.skill(0.8) == 0.0
    assert found.skill(0.6) == pytest.approx(0.25)


def test_too_few_segments_fall_back_to_white() -> None:
    few = segments_of(autoregression(4, 64, 0.9, seed=1), 64)
    np.testing.assert_allclose(fit_gaussian(few).variance, 1.0)


@pytest.mark.parametrize("loss", ["mse", "l1"])
@pytest.mark.parametrize("weighting", ["none", "min-snr"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_zero_and_white_are_what_draws_score(
    prediction: Prediction, weighting: Weighting, loss: LossKind
) -> None:
    alpha_bar = torch.tensor([0.02, 0.4, 0.97], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([1.0, 2.0])[:, None]
    latents = sizes * torch.randn(3, 2, 200_000, generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    noisy = add_noise(latents, noise, alpha_bar)
    a, s = (part[:, None, None].float() for part in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
    denoised = a * noisy  # Wiener's filter for variance 1
    guess = target(prediction, denoised, (noisy - a * denoised) / s, alpha_bar)
    wanted = target(prediction, latents, noise, alpha_bar)
    objective = Objective(prediction, loss, weighting)
    scores = [
        objective.weight(alpha_bar) * objective.errors(output, wanted, torch.ones(3, 200_000))
        for output in (torch.zeros_like(wanted), guess)
    ]
    data = density_of(segments_of(latents.numpy()[0], 64))
    gaussian = fit_gaussian(segments_of(latents.numpy()[1], 64))
    curve = loss_curve(gaussian, data, alpha_bar.numpy(), objective)
    np.testing.assert_allclose(curve.zero, scores[0], rtol=0.02)
    np.testing.assert_allclose(curve.white, scores[1], rtol=0.02)
    assert (curve.gaussian < curve.white).all()


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_min_snr_makes_one_loss_of_all_predictions(loss: LossKind) -> None:
    found = [references(0.9, "audioldm", each, loss, "min-snr") for each in PREDICTIONS]
    for each in found[1:]:
        assert each.white == pytest.approx(found[0].white)
        assert each.gaussian == pytest.approx(found[0].gaussian)


def test_skill_at_one_noise_level_is_the_same_for_every_objective() -> None:
    training = segments_of(autoregression(3, 64 * 100, 0.9, seed=1), 64)
    data = density_of(segments_of(autoregression(3, 64 * 30, 0.9, seed=2), 64))
    gaussian, alpha_bar = fit_gaussian(training), np.linspace(0.01, 0.99, 9)
    losses = [
        loss_curve(gaussian, data, alpha_bar, Objective(prediction, "mse", weighting))
        for prediction in PREDICTIONS
        for weighting in WEIGHTINGS
    ]
    for each in losses[1:]:
        np.testing.assert_allclose(each.skill(each.white), losses[0].skill(losses[0].white))


def test_references_are_the_mean_of_their_curve_over_the_schedule() -> None:
    schedule = named_schedule("cosine")
    data = density_of(segments_of(autoregression(3, 640, 0.9, seed=2), 64))
    gaussian = fit_gaussian(segments_of(autoregression(3, 6400, 0.9, seed=1), 64))
    curve = loss_curve(gaussian, data, schedule.alpha_bar.numpy(), Objective("v", "mse"))
    assert reference_losses(gaussian, data, schedule, Objective("v", "mse")) == curve.mean()
    assert curve.log_snr[-1] == -np.inf
    parts = [LossCurve(*(np.array([v]) for v in level)) for level in levels_of(curve)]
    assert LossCurve.concatenate(parts).mean() == curve.mean()


def levels_of(curve: LossCurve) -> list[tuple[float, ...]]:
    return list(zip(curve.alpha_bar, curve.zero, curve.white, curve.gaussian, strict=True))


def test_bins_of_log_snr_hold_each_segment_once_and_its_own_references() -> None:
    log_snr = np.array([-np.inf, -7.5, -1.5, 0.0, 0.9, 40.0])
    alpha_bar = 1 / (1 + np.exp(-log_snr))
    gaussian = np.array([0.0, 1.0, 1.0, 0.5, 1.5, 1.0])
    levels = LossCurve(alpha_bar, np.full(6, 3.0), np.full(6, 2.0), gaussian)
    bins = skill_bins(np.array([0.0, 0.5, 1.0, 0.6, 1.0, 0.9]), levels)
    assert [each.log_snr for each in bins] == [-8, -2, 0, 8]
    assert [each.num_segments for each in bins] == [2, 1, 2, 1]
    assert [each.skill for each in bins] == pytest.approx([0.5, 0.0, 0.2, 0.1])
    assert {(each.zero, each.white) for each in bins} == {(3.0, 2.0)}
