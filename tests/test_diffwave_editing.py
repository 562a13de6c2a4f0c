"""Laws of editing: what strength means, what is kept, that no seam shows, that memory is flat."""

from __future__ import annotations

import functools
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffwave_data import HOP, RATE_HZ, autoregression, settings, write_latent_folder

from diffwave import inference, train
from diffwave.conditioner import ControlConditioner
from diffwave.conditions.inputs import Conditions
from diffwave.model import LatentDiffusion
from diffwave.network import DiffWave
from diffwave.sampling.editing import continue_clip, inpaint, inpaint_latents, vary
from diffwave.sampling.generation import Sampling
from diffwave.sampling.overlap import Windows, in_windows
from diffwave.sampling.request import Task
from diffwave.sampling.samplers import NoiseStream, build_sampler, item_generator, sample
from diffwave.schedule import named_schedule
from diffwave.standardizer import Standardizer

MEMORY = 0.9
SCHEDULE = named_schedule("cosine")
NUM_STEPS = 50


def covariance(num_frames: int) -> np.ndarray:
    frames = np.arange(num_frames)
    return np.power(MEMORY, np.abs(frames[:, None] - frames[None]))


@functools.cache
def exact_gain(num_frames: int, timestep: int) -> torch.Tensor:
    law, power = covariance(num_frames), float(SCHEDULE.alpha_bar[timestep])
    spread = power * law + (1 - power) * np.eye(num_frames)
    return torch.from_numpy(math.sqrt(power) * law @ np.linalg.inv(spread)).float()


def exact_denoiser(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Return what the best denoiser of AR(1) clips of any length returns."""
    return noisy @ exact_gain(noisy.shape[2], int(timestep[0]))


def make_model(latent_size: int = 3, is_conditional: bool = False) -> LatentDiffusion:
    """Return a model with random weights over 4 raw dimensions."""
    torch.manual_seed(0)
    network = DiffWave(
        latent_size, 2, 8, 8, condition_channels=4 if is_conditional else 0, dilation_cycle=2
    )
    torch.nn.init.normal_(network.output.weight, std=0.3)
    conditioners = {"loudness": ControlConditioner(1, 4)} if is_conditional else None
    standardizer = Standardizer.fit([autoregression(4, 500, 0.5, 0) + 2], 1.0)
    standardizer = Standardizer(4, latent_size) if latent_size < 4 else standardizer
    return LatentDiffusion(standardizer, network, SCHEDULE, "v", conditioners=conditioners).eval()


def make_sampling(model: LatentDiffusion, **changes: object) -> Sampling:
    """Return a sampling with windows of `window_frames` frames."""
    values = {"indices": [0, 1], "seed": 3, "num_steps": 10, "window_frames": 40} | changes
    windows = Windows.of(model, values.pop("window_frames"))
    return Sampling(model, windows=windows, **values)


def joined(blocks: object) -> torch.Tensor:
    return torch.cat(list(blocks), dim=2)


CLIP = autoregression(4, 100, 0.9, 1) + 2


def test_variation_of_strength_zero_is_the_clip_itself() -> None:
    varied = joined(vary(make_sampling(make_model()), CLIP, 0.0))
    assert torch.equal(varied, torch.from_numpy(CLIP).expand(2, -1, -1))


@pytest.mark.parametrize("sampler", ["dpm-solver++", "ddpm"])
def test_variation_of_strength_one_knows_nothing_of_the_clip(sampler: str) -> None:
    sampling = make_sampling(make_model(), sampler=sampler, window_frames=100)
    one, other = (joined(vary(sampling, clip, 1.0)) for clip in (CLIP, -3 * CLIP))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, sampling.generate(100))


def test_variation_moves_further_from_the_clip_the_stronger_it_is() -> None:
    """With the exact denoiser every strength keeps the law; the correlation falls from 1 to 0."""
    clip = torch.from_numpy(autoregression(400, 60, MEMORY, 0))[None]
    correlations = []
    for first_step in (45, 30, 15, 0):
        sampler = build_sampler("dpm-solver++", SCHEDULE, NUM_STEPS)
        power = float(SCHEDULE.alpha_bar[sampler.timesteps[first_step]])
        noise = NoiseStream(1, [0], 400, 60).window(0, 60)
        noisy = math.sqrt(power) * clip + math.sqrt(1 - power) * noise
        varied = sample(exact_denoiser, sampler, noisy, first_step=first_step)
        assert varied.var().item() == pytest.approx(1.0, abs=0.08)
        pair = torch.stack([varied.flatten(), clip.flatten()])
        correlations.append(torch.corrcoef(pair)[0, 1].item())
    assert correlations == sorted(correlations, reverse=True)
    assert correlations[0] > 0.98
    assert abs(correlations[-1]) < 0.03


def test_strength_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--strength is 1.5; 0 \(nothing changes\)"):
        joined(vary(make_sampling(make_model()), CLIP, 1.5))


def conditional_law(clip: np.ndarray, is_known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the unknown frames of an AR(1) clip, in closed form."""
    law = covariance(len(clip))
    weights = law[~is_known][:, is_known] @ np.linalg.inv(law[is_known][:, is_known])
    spread = law[~is_known][:, ~is_known] - weights @ law[is_known][:, ~is_known]
    return weights @ clip[is_known], spread


@pytest.mark.parametrize("span", [(24, 44), (40, 64)], ids=["inpainting", "continuation"])
def test_inpainted_span_has_the_law_of_a_gaussian_given_its_surroundings(
    span: tuple[int, int],
) -> None:
    num_frames, size = 64, 3000
    clip = autoregression(1, num_frames, MEMORY, 4)[0]
    is_known = np.ones(num_frames, dtype=bool)
    is_known[slice(*span)] = False
    known = torch.from_numpy(clip).expand(size, 1, num_frames)
    generators = [item_generator(0, index) for index in range(size)]
    made = inpaint_latents(
        exact_denoiser, SCHEDULE, known, torch.from_numpy(is_known), NUM_STEPS, generators
    )[:, 0].double().numpy()  # fmt: skip
    np.testing.assert_array_equal(made[:, is_known], known[:, 0, is_known])
    mean, spread = conditional_law(clip, is_known)
    found = made[:, ~is_known]
    assert np.sqrt(np.square(found.mean(axis=0) - mean).mean()) < 0.08  # of variance 1
    difference = np.cov(found.T) - spread
    assert np.linalg.norm(difference) < 0.15 * np.linalg.norm(spread)
    # The step into the span: as large as any other of the process, 1 - MEMORY² given the frame
    # before it (and less if the frames after it are known).
    steps = found[:, 0] - clip[span[0] - 1]
    assert steps.mean() == pytest.approx(mean[0] - clip[span[0] - 1], abs=0.07)
    assert steps.var() == pytest.approx(spread[0, 0], rel=0.25)


def test_inpainting_keeps_the_energy_that_a_worse_denoiser_generates_with() -> None:
    """A denoiser that trusts its input less makes quieter music; inpainting makes it no quieter."""

    def timid(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return 0.9 * exact_denoiser(noisy, timestep)

    size, num_frames = 200, 64
    known = torch.from_numpy(autoregression(size, num_frames, MEMORY, 4))[:, None]
    is_known = (torch.arange(num_frames) < 16) | (torch.arange(num_frames) >= 48)
    generators = [item_generator(0, index) for index in range(size)]
    made = inpaint_latents(timid, SCHEDULE, known, is_known, NUM_STEPS, generators)
    noise = NoiseStream(1, range(size), 1, num_frames).window(0, num_frames)
    generated = sample(timid, build_sampler("dpm-solver++", SCHEDULE, NUM_STEPS), noise)
    middle = slice(24, 40)
    assert made[..., middle].std() > 0.9 * generated[..., middle].std()


def test_inpainting_depends_on_the_surroundings_within_reach_alone() -> None:
    sampling = make_sampling(make_model())
    reach = sampling.model.network.receptive_field_frames
    made = inpaint(sampling, CLIP, 40, 50)
    assert made.shape == (2, 4, 10)
    assert not torch.allclose(made[0], made[1])
    far, near = CLIP.copy(), CLIP.copy()
    far[:, : 40 - reach] += 9
    near[:, 39] += 9
    torch.testing.assert_close(inpaint(sampling, far, 40, 50), made)
    assert not torch.allclose(inpaint(sampling, near, 40, 50), made)
    with pytest.raises(ValueError, match="Frames 90 to 101 are not within the 100 frames"):
        inpaint(sampling, CLIP, 90, 101)


def test_longer_continuation_begins_as_a_shorter_one() -> None:
    sampling = make_sampling(make_model())
    reach = sampling.model.network.receptive_field_frames
    few, many = (joined(continue_clip(sampling, CLIP, n)) for n in (40 - reach, 90))
    assert (few.shape[2], many.shape[2]) == (40 - reach, 90)
    torch.testing.assert_close(few, many[:, :, : 40 - reach])


def test_windows_of_one_pass_are_one_pass() -> None:
    model = make_model()
    whole = Sampling(model, [0, 1], seed=3, num_steps=10).generate(40)
    torch.testing.assert_close(make_sampling(model).generate(40), whole)
    assert Windows(40, 3, 3).count(40) == 1
    assert Windows(40, 3, 3).count(41) == 2
    assert Windows(40, 3, 3).count(40 + 34 + 1) == 3
    with pytest.raises(ValueError, match="A window of 6 frames is too short: it shares 3"):
        Windows(6, 3, 3)


def test_sampler_that_draws_noise_at_its_steps_makes_one_window() -> None:
    sampling = make_sampling(make_model(), sampler="ddpm")
    assert sampling.generate(40).shape == (2, 4, 40)
    with pytest.raises(ValueError, match="'ddpm' can sample one --window of 40 frames; 41 are"):
        sampling.generate(41)


def sampled(sampler: str, num_steps: int, noise: NoiseStream) -> Any:
    """Return what samples frames of the exact denoiser from their noise."""

    def sample_frames(start: int, stop: int, before_step: Any = None) -> torch.Tensor:
        steps = build_sampler(sampler, SCHEDULE, num_steps)
        return sample(exact_denoiser, steps, noise.window(start, stop), before_step=before_step)

    return sample_frames


@pytest.mark.parametrize("sampler", ["dpm-solver++", "ddim"])
def test_long_clip_in_windows_tends_to_one_pass_as_the_overlap_grows(sampler: str) -> None:
    def stream() -> NoiseStream:
        return NoiseStream(0, range(2), 200, 100)

    num_frames = 250
    whole = sampled(sampler, 20, stream())(0, num_frames)
    misses = []
    for overlap in (4, 12, 36):
        noise, windows = stream(), Windows(100, overlap, overlap)
        assert windows.count(num_frames) >= 3
        parts = joined(in_windows(windows, num_frames, sampled(sampler, 20, noise)))
        misses.append((parts - whole).square().mean().sqrt().item())
    assert misses[1] < misses[0] / 2
    assert misses[2] < misses[1] / 4
    assert misses[2] < 2e-3  # of latents of variance 1


@pytest.mark.parametrize("sampler", ["dpm-solver++", "ddim"])
def test_statistics_at_seams_are_those_inside(sampler: str) -> None:
    windows, size = Windows(60, 16, 16), 3000
    noise = NoiseStream(0, [0], size, 60)
    clip = joined(in_windows(windows, 200, sampled(sampler, NUM_STEPS, noise)))[0].double()
    seams = [44 + 28 * index for index in range(5)]  # 60 - 16 kept of the first, then 28 each
    variances = clip.var(dim=0)
    jumps = (clip[:, 1:] - clip[:, :-1]).var(dim=0)
    lagged = (clip[:, 5:] * clip[:, :-5]).mean(dim=0)
    for curve, shift in ((variances, 0), (jumps, 1), (lagged, 3)):
        at_seams = torch.stack([curve[seam - shift] for seam in seams])
        inside = torch.stack([curve[seam + 14] for seam in seams])
        difference = (at_seams.mean() - inside.mean()).abs() / inside.mean()
        assert difference < 0.06  # 3000 numbers: 2.6 % of a variance by chance, five seams each


def test_a_frame_does_not_depend_on_how_many_windows_follow() -> None:
    sampling = make_sampling(make_model(), num_steps=6)
    few, many = (sampling.generate(num_frames) for num_frames in (120, 400))
    kept = 40 + 1 * 34  # what windows before the last one of the shorter clip have yielded
    torch.testing.assert_close(many[:, :, :kept], few[:, :, :kept])
    assert torch.isfinite(many).all()
    assert many.shape == (2, 4, 400)


def test_long_clip_follows_its_condition_through_the_windows() -> None:
    model = make_model(is_conditional=True)
    curve = autoregression(1, 200, 0.9, 5)
    inputs = {"loudness": torch.from_numpy(curve)[None]}
    noise = NoiseStream(3, [0, 1], 3, 90).window(0, 200)  # the windows' own
    with torch.no_grad():
        latents = sample(
            lambda noisy, timestep: model.denoise(noisy, timestep, inputs, {"loudness": 2.0}),
            build_sampler("dpm-solver++", SCHEDULE, 10), noise,
        )  # fmt: skip
    whole = model.standardizer.unstandardize(latents)

    def following(curve: np.ndarray, **changes: object) -> torch.Tensor:
        inputs_of = functools.partial(Conditions({"loudness": curve}).window, model)
        return make_sampling(model, inputs_of=inputs_of, **changes).generate(200)

    windowed = following(curve, window_frames=90, guidance={"loudness": 2.0})
    foreign = following(-curve)
    miss, other = ((clip - whole).square().mean().sqrt().item() for clip in (windowed, foreign))
    assert miss < other / 5


def test_memory_does_not_grow_with_the_length() -> None:
    model = make_model()

    def peak(num_frames: int) -> int:
        sampling = make_sampling(model, indices=[0], num_steps=2, window_frames=64)
        tracemalloc.start()
        for _ in sampling.stream(num_frames):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    def held_frames(num_frames: int) -> int:
        sampling = make_sampling(model, indices=[0], num_steps=2, window_frames=64)
        with patch("diffwave.sampling.generation.NoiseStream") as streams:
            held: list[NoiseStream] = []
            streams.side_effect = lambda *given: held.append(NoiseStream(*given)) or held[-1]
            return max(held[0]._held.shape[2] for _ in sampling.stream(num_frames))

    peak(64)  # what libraries keep
    assert peak(4000) < 1.3 * peak(1000)
    assert max(held_frames(4000), held_frames(1000)) < 64 + 64  # a window and a block of noise


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("editing")
    arrays = {f"{n}.npy": autoregression(4, 100, 0.9, seed) + 2 for seed, n in enumerate("abc")}
    write_latent_folder(folder / "latents", arrays)
    options = ["--out", str(folder / "run"), "--config", "tiny", *settings("MAX_STEPS=2")]
    assert train.main([str(folder / "latents"), *options]) == 0
    return folder


def edit(run: Path, out: Path, *more: str) -> int:
    few = ["--steps", "2", "--count", "2", "--json"]
    return inference.main([str(run / "run"), str(out), *few, *more])


def test_edits_keep_what_they_were_given(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, path = np.load(run / "latents" / "a.npy"), str(run / "latents" / "a.npy")
    rate_hz = RATE_HZ / HOP
    capsys.readouterr()
    assert edit(run, tmp_path / "1", "--inpaint", path, "--from", "1", "--to", "2") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["kind"], figures["num_frames"]) == ("inpaint", 100)
    first, last = round(rate_hz), round(2 * rate_hz)
    for index in range(2):
        made = np.load(tmp_path / "1" / f"generated_00{index}.npy")
        np.testing.assert_array_equal(made[:, :first], clip[:, :first])
        np.testing.assert_array_equal(made[:, last:], clip[:, last:])
        assert (made[:, first:last] != clip[:, first:last]).any(axis=0).all()
    window = ["--window", "5"]
    assert edit(run, tmp_path / "2", "--continue", path, "--seconds", "9", *window) == 0
    made = np.load(tmp_path / "2" / "generated_001.npy")
    assert made.shape == (4, 100 + round(9 * rate_hz))
    np.testing.assert_array_equal(made[:, :100], clip)
    assert edit(run, tmp_path / "3", "--vary", path, "--strength", "0") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "3" / "generated_000.npy"), clip)
    assert edit(run, tmp_path / "4", "--vary", path, "--strength", "1", *window) == 0
    assert edit(run, tmp_path / "5", "--seconds", "6.4", *window) == 0
    np.testing.assert_array_equal(
        *(np.load(tmp_path / name / "generated_001.npy") for name in "45")
    )


@pytest.mark.parametrize(
    "task",
    [
        Task("generate", 150),
        Task("vary", 100, CLIP, strength=0.3),
        Task("inpaint", 100, CLIP, (30, 50)),
        Task("continue", 190, CLIP),
    ],
    ids=lambda task: task.kind,
)
def test_remaining_time_counts_every_call_of_the_model(task: Task) -> None:
    calls: list[tuple[object, ...]] = []
    sampling = make_sampling(make_model(), num_steps=5, observe=lambda *step: calls.append(step))
    for _ in task.blocks(sampling):
        pass
    assert len(calls) == task.num_calls(sampling)


def test_bad_edits_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(run / "latents" / "a.npy")
    write_latent_folder(tmp_path / "other", {"x.npy": autoregression(4, 40, 0.9, 0)}, codec="0ther")
    foreign = str(tmp_path / "other" / "x.npy")
    span = ("--inpaint", path, "--from", "1", "--to", "2")
    more_of_it = ("--continue", path, "--seconds", "1")
    np.save(tmp_path / "wide.npy", np.zeros((5, 40), np.float32))
    for more, words in {
        ("--vary", path, "--strength", "2"): "--strength is 2.0; 0 (nothing changes)",
        ("--strength", "0.5"): "--strength works only with --vary",
        ("--vary", path, "--from", "1"): "--from works only with --inpaint",
        ("--vary", path, "--seconds", "3"): "--seconds does not go with --vary",
        ("--inpaint", path): "--inpaint needs --from and --to",
        ("--inpaint", path, "--from", "5", "--to", "7"): "is not a span of",
        ("--inpaint", path, "--from", "2", "--to", "1"): "is not a span of",
        ("--continue", path): "--continue needs --seconds",
        (*span, "--sampler", "ddim"): "--sampler does not go with --inpaint",
        (*span, "--window", "5"): "--window does not go with --inpaint",
        (*more_of_it, "--sampler", "ddim"): "--sampler does not go with --continue",
        ("--vary", str(tmp_path / "none.npy")): "does not exist. Give a .npy file of latents",
        ("--vary", str(tmp_path / "wide.npy")): "float32 (4, 40) is needed",
        ("--vary", foreign): "is of another codec",
        ("--seconds", "9", "--window", "0.1"): "is too short: it shares",
    }.items():
        assert edit(run, tmp_path / "no", *more) == 2, more
        assert words in capsys.readouterr().err, more
    assert not (tmp_path / "no").exists()
