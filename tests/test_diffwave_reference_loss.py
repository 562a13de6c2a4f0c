"""Reference losses against closed forms and against draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffwave_data import autoregression

from diffwave.denoiser import Prediction, add_noise, denoised_from, target
from diffwave.reference_loss import (
    ReferenceLosses,
    SpectralDensity,
    fit_gaussian,
    mode_error,
    reference_losses,
)
from diffwave.schedule import linear_schedule, named_schedule

PREDICTIONS: list[Prediction] = ["epsilon", "v", "x0", "flow"]


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


def references(memory: float, name: str, prediction: Prediction, loss: str) -> ReferenceLosses:
    training = segments_of(autoregression(4, 64 * 200, memory, seed=1), 64)
    held_out = segments_of(autoregression(4, 64 * 60, memory, seed=2), 64)
    return reference_losses(
        fit_gaussian(training), density_of(held_out), named_schedule(name), prediction, loss
    )


@pytest.mark.parametrize(
    ("num_timesteps", "white"), [(50, 0.654), (500, 0.280), (1000, 0.198), (2000, 0.140)]
)
def test_white_loss_explains_the_diary(num_timesteps: int, white: float) -> None:
    data = density_of(segments_of(autoregression(4, 6400, 0.0, seed=1), 64))
    schedule = linear_schedule(1e-4, 0.05, num_timesteps)
    gaussian = fit_gaussian(segments_of(autoregression(4, 640, 0.0, seed=2), 64))
    found = reference_losses(gaussian, data, schedule, "epsilon", "l1")
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


def test_skill_of_the_gaussian_is_zero() -> None:
    found = ReferenceLosses(zero=1.0, white=0.9, gaussian=0.8)
    assert found.skill(0.8) == 0.0
    assert found.skill(0.6) == pytest.approx(0.25)


def test_too_few_segments_fall_back_to_white() -> None:
    few = segments_of(autoregression(4, 64, 0.9, seed=1), 64)
    np.testing.assert_allclose(fit_gaussian(few).variance, 1.0)
