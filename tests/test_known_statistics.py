"""Figures of latents, embeddings and samples, on data of which they are known by closed form."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffwave_data import RATE_HZ, write_latent_folder
from test_verdicts import clips
from tqdm import tqdm

from diffwave.app import commands
from diffwave.diagnosis import samples as sample_diagnosis
from diffwave.diagnosis.conditioner import ConditionerGain
from diffwave.diagnosis.expected_losses import schedule_end
from diffwave.diagnosis.generated import diagnose_generated
from diffwave.diagnosis.generated_latents import compare
from diffwave.diagnosis.latent_report import words_of_generated
from diffwave.diagnosis.network import broadcast_share
from diffwave.diagnosis.sample_statistics import autocorrelation, sliced_wasserstein
from diffwave.diagnosis.sample_statistics import compare as compare_samples
from diffwave.evaluation.figures import (
    _copying,
    _diversity,
    _mean_pairwise,
)
from diffwave.evaluation.ladder import GAUSSIAN, Ladder
from diffwave.reference_loss import LossCurve, ReferenceLosses
from diffwave.schedule import SCHEDULES, named_schedule
from diffwave.skill import judge
from rave.evaluation.audio_statistics import AudioStatistics, distances, pool
from rave.evaluation.folders import Piece
from rave.evaluation.frechet import estimate, frechet_distance
from rave.latents.folder import GENERATED as GENERATED_LATENTS
from rave.latents.shard_writer import merged_statistics
from rave.latents.statistics import StatisticsAccumulator
from rave.trainer import _Progress

# Latents (D, N)


def spread(mean, std, num_frames):
    """Return latents (D, N) of exactly these means and standard deviations, uncorrelated."""
    signs = [(-1.0) ** (np.arange(num_frames) // 2**row) for row in range(len(mean))]
    rows = zip(mean, std, signs, strict=True)
    return np.stack([m + s * sign for m, s, sign in rows]).astype(np.float32)


def accumulated(*posteriors):
    sums = StatisticsAccumulator(2)
    for mean, std in posteriors:
        sums.add(mean, std)
    return sums.statistics()


def test_statistics_of_latents_count_every_frame_of_long_and_short_files_once():
    long = spread([1.0, 0.0], [3.0, 0.5], 48), np.full((2, 48), 0.5, np.float32)
    short = spread([5.0, 0.0], [1.0, 0.5], 16), np.full((2, 16), 0.1, np.float32)
    found = accumulated(long, short)
    mean, std = (
        torch.from_numpy(np.concatenate(each, axis=1)) for each in zip(long, short, strict=True)
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), normal)
    assert found.num_frames == 64
    assert found.mean == pytest.approx([(3 * 1 + 5) / 4, 0], abs=1e-6)
    power = (3 * (9 + 1) + (1 + 25)) / 4
    assert found.std == pytest.approx([np.sqrt(power - 4), 0.5])
    assert found.posterior_std == pytest.approx([np.sqrt((3 * 0.25 + 0.01) / 4)] * 2)
    assert found.kl == pytest.approx(kl.mean(dim=1).tolist(), rel=1e-5)
    alone = accumulated(long)
    assert alone.noise_std == pytest.approx([0.5, 0.5], rel=1e-5)
    assert alone.information == pytest.approx([0.5 * np.log(1 + 36), 0.5 * np.log(2)], rel=1e-4)
    headers = [SimpleNamespace(statistics=accumulated(each), contents="") for each in (long, short)]
    joined = merged_statistics(headers)
    for name in ("mean", "std", "posterior_std", "kl"):
        assert getattr(joined, name) == pytest.approx(getattr(found, name), abs=1e-6), name
    assert joined.num_frames == 64


TRAINING = SimpleNamespace(mean=[1.0, -1.0], std=[2.0, 0.5])


def test_generated_latents_are_compared_in_units_of_the_training():
    header = SimpleNamespace(statistics=TRAINING)
    same = compare(spread(TRAINING.mean, TRAINING.std, 64), header)
    assert (same["level"], same["largest_shift"]) == (pytest.approx(1), pytest.approx(0, abs=1e-6))
    assert (same["mean"], same["std"]) == (TRAINING.mean, TRAINING.std)
    found = compare(spread([0.0, -1.25], [1.0, 0.25], 64), header)
    assert found["largest_shift"] == pytest.approx(0.5)
    power = (1 + 1) + (0.25**2 + 0.25**2)  # of both dimensions, spread and shift
    assert found["level"] == pytest.approx(np.sqrt(power / (2.0**2 + 0.5**2)))
    assert (found["mean"], found["std"]) == ([0.0, -1.25], [1.0, 0.25])


def test_the_level_of_generated_latents_weighs_long_and_short_files_by_length(tmp_path):
    arrays = {"long.npy": spread([0, 0], [1, 1], 96), "short.npy": spread([0, 0], [3, 1], 32)}
    header = write_latent_folder(tmp_path, arrays, contents=GENERATED_LATENTS)
    found = diagnose_generated(tmp_path)
    power = np.array([(3 * 1 + 9) / 4, 1.0])
    assert found.rms == pytest.approx(np.sqrt(power))
    assert header.statistics.std == pytest.approx(np.sqrt(power).tolist())
    assert found.relative == pytest.approx([1.0, 1.0])
    record = found.record()
    assert (record["num_frames"], record["num_files"]) == (128, 2)
    assert record["frame_rate_hz"] == pytest.approx(RATE_HZ / 1024)
    assert f"128 frames ({128 * 1024 / RATE_HZ:.1f} s)" in words_of_generated(found)


def test_samples_shifted_or_scaled_lie_as_far_as_they_were():
    real = np.tile(spread([0.0], [1.0], 64), (4, 1, 1))
    assert sliced_wasserstein(real + 3, real, 1) == pytest.approx(3)
    assert sliced_wasserstein(2 * real, real, 1) == pytest.approx(1)
    found = compare_samples(2 * real + 3, real)
    assert (found.mean, found.std) == (pytest.approx(3), pytest.approx(1))
    assert found.autocorrelation == pytest.approx(0)
    assert autocorrelation(real)[0] == pytest.approx([-1, 1, 1, 1, 1])  # of 1, 2, 4, 8, 16 frames
    one, other = (np.tile(spread([0, 0], std, 64), (4, 1, 1)) for std in ((1.0, 3.0), (1.0, 1.0)))
    described = sample_diagnosis.describe(one, other, other)
    assert described["generated"]["std"] == pytest.approx([1, 3])
    assert described["generated"]["lowest"] == -3
    # Covariances diag(1, 9) and diag(1, 1).
    apart = described["generated"]["distance"]["covariance"]
    assert apart == pytest.approx(8 / np.sqrt(2), rel=0.02)
    assert described["training"]["distance"]["covariance"] == 0


def test_detectors_measure_ratios_to_the_training_and_not_the_reverse():
    assert sample_diagnosis.relative_level(np.array([2.0, 2.0]), np.array([1.0, 1.0])) == 2
    assert sample_diagnosis.relative_level(np.array([3.0, 0]), np.array([1.0, 1])) == 3 / np.sqrt(2)
    half = np.repeat([-1.0, 0.0, 0.5, 1.0], 25)[None]
    assert sample_diagnosis.clamped_share(half) == 0.5
    assert ConditionerGain(loss=0.4, shuffled_loss=0.6).gain == pytest.approx(1.5)
    copies = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    far = sample_diagnosis.nearest_distances(copies, [np.array([[0.0, 5.0, 0.0], [0, 0, 0]])])
    assert far == pytest.approx([0.0, 0.0], abs=1e-6)
    far = sample_diagnosis.nearest_distances(-copies, [np.array([[5.0, 0.0], [0, 0]])])
    assert far == pytest.approx([2.0, 1.0], abs=1e-6)
    equal, apart = torch.ones(4, 3, 8), torch.zeros(4, 3, 8)
    for frame in range(8):
        equal[:, :, frame] = (-1.0) ** frame
        apart[:, frame % 3, frame] = 1.0 if frame < 3 else -1.0 if frame < 6 else 0.0
    for prediction, share in ((equal, 1.0), (apart, 1 / 3)):
        probe = SimpleNamespace(timestep=lambda _: 0, predict=lambda *_, p=prediction: (p, p))
        assert broadcast_share(probe) == pytest.approx(share)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_end_of_a_schedule_is_told_in_decibels_of_power(name):
    found, alpha_bar = schedule_end(name), named_schedule(name).alpha_bar
    assert (found.num_timesteps, found.signal) == (len(alpha_bar), float(alpha_bar[-1]))
    if found.signal == 0:
        assert found.snr_db is None
        return
    assert found.snr_db == pytest.approx(10 * float(named_schedule(name).log_snr[-1]) / np.log(10))


def test_a_skill_is_that_over_the_linear_denoiser_and_its_words_say_the_same():
    ones = np.ones(40)
    levels = LossCurve(0.5 * ones, 3 * ones, 2 * ones, 0.8 * ones)
    references = ReferenceLosses(3.0, 2.0, 0.8)
    found = judge(0.6 * ones, levels, references, clips(20, 40))
    assert (found.skill, found.skill_uncertainty) == (pytest.approx(0.25), pytest.approx(0))
    assert "loss 0.600 against white 2.000 and gaussian 0.800, skill 0.250" in found.verdict
    # Half of the recordings err twice as much: the standard error of their mean, times two.
    losses = np.tile([0.4, 0.8], 20)
    uncertain = judge(losses, levels, references, clips(40, 40)).skill_uncertainty
    assert uncertain == pytest.approx(2 * (losses.std(ddof=1) / np.sqrt(40)) / 0.8, rel=1e-6)


# Embeddings, and statistics of audio


def audio_statistics(**changes):
    values = {"duration_s": 10.0, "power": 0.25, "peak": 0.5, "centroid_hz": 100.0, "flatness": 0.5}
    values |= {"mel": np.zeros((3, 4)), "mel_square": np.ones((3, 4)), "onsets": 20.0}
    values |= {"intervals": np.zeros(3), "chroma": np.full((2, 12), 1 / 12)}
    return AudioStatistics(**{**values, "levels": np.full(11, -20.0), **changes})


def test_figures_of_audio_are_rates_per_second_and_decibels_of_full_scale():
    levels = np.linspace(-40.0, -20.0, 11)
    chroma = np.zeros((2, 12))
    chroma[:, 0] = 0.8, 0.2
    found = audio_statistics(levels=levels, chroma=chroma).figures()
    assert found == {
        "duration_s": 10.0,
        "level_dbfs": pytest.approx(20 * np.log10(0.5)),
        "peak": 0.5,
        "loudness_range_db": pytest.approx(16.0),  # between a tenth and nine tenths
        "centroid_hz": 100.0,
        "flatness": 0.5,
        "onsets_per_s": 2.0,
        "harmonic_change": pytest.approx(0.75),
    }


def test_pieces_of_audio_are_pooled_by_their_length():
    long, short = (
        audio_statistics(duration_s=30.0),
        audio_statistics(
            power=0.01,
            peak=0.9,
            centroid_hz=500.0,
            flatness=0.1,
            mel=np.full((3, 4), 8.0),
            onsets=4.0,
        ),
    )
    found = pool([long, short])
    weighted = {"power": 0.25, "centroid_hz": 100.0, "flatness": 0.5}
    for name, value in weighted.items():
        expected = (3 * value + getattr(short, name)) / 4
        assert getattr(found, name) == pytest.approx(expected), name
    assert found.mel == pytest.approx(np.full((3, 4), 2.0))
    assert (found.duration_s, found.onsets, found.peak) == (40.0, 24.0, 0.9)
    assert len(found.levels) == 22


def test_distances_of_audio_have_the_units_that_are_told():
    one = audio_statistics(mel=np.zeros((3, 4)), mel_square=np.ones((3, 4)))
    chroma = np.zeros((2, 12))
    chroma[:, 0] = 1.0
    other = audio_statistics(
        mel=np.full((3, 4), 6.0),  # dB
        mel_square=np.full((3, 4), 36.0 + 9.0),  # a spread of 3 instead of 1
        intervals=np.ones(3),  # twice as long
        levels=np.full(11, -26.0),
        chroma=chroma,
    )
    assert distances(one, other) == {
        "spectral": pytest.approx((6 + 2) / 2),
        "onset": pytest.approx(1.0),
        "loudness": pytest.approx(6.0),
        "chroma": pytest.approx(100 * 11 / 12),
    }


def test_the_frechet_distance_is_that_of_two_gaussians():
    # In each dimension (m1 - m2)² + (s1 - s2)², of the unbiased standard deviations.
    one, other = (spread(m, s, 64).T for m, s in (([0, 1], [1.0, 2.0]), ([3, 1], [2.0, 5.0])))
    unbiased = 64 / 63
    needed = 9 + unbiased * (1 + 9)
    assert frechet_distance(one, other) == pytest.approx(needed, rel=0.01)
    groups = [one[:32], one[32:]], [other[:32], other[32:]]
    found = estimate(*groups, 64, 0)
    assert found.distance == pytest.approx(needed, rel=0.01)
    assert found.interval == pytest.approx([needed] * 2, rel=0.01)
    assert (found.size, found.unbiased) == (64, None)


def piece(*embeddings):
    return Piece("", np.array(embeddings, np.float32), audio_statistics())


def test_diversity_is_the_mean_distance_of_two_clips():
    apart = [[piece([0.0, 0.0])], [piece([3.0, 4.0])]]
    assert _mean_pairwise(apart) == pytest.approx(5)
    three = [[piece([x, 0.0], [x, 0.0])] for x in (0.0, 1.0, 3.0)]
    assert _mean_pairwise(three) == pytest.approx((1 + 3 + 2) / 3)
    found = _diversity(three, apart)
    assert found == {"generated": pytest.approx(2), "held_out": pytest.approx(5), "ratio": 0.4}


def test_gaussian_latents_have_the_covariance_of_the_training_and_normal_ones_none():
    """Standard deviations, not variances; means; both weighted by length."""
    arrays = [spread([5.0, -1.0], [4.0, 0.25], 96), spread([1.0, -1.0], [4.0, 0.25], 32)]
    kept = {}
    ladder = SimpleNamespace(
        data=SimpleNamespace(
            training=[0, 1], num_frames=20000, reader=SimpleNamespace(raw=lambda n: arrays[n])
        ),
        codec=SimpleNamespace(format=SimpleNamespace(latent_size=2)),
        count=1,
        seed=0,
        _decoded=lambda name, latents: kept.update({name: np.concatenate([*latents], axis=1)}),
    )
    ladder._drawn = lambda *given: Ladder._drawn(ladder, *given)
    Ladder.gaussian(ladder)
    Ladder.normal(ladder)
    whole = np.concatenate(arrays, axis=1)
    drawn = kept[GAUSSIAN]
    assert drawn.mean(axis=1) == pytest.approx(whole.mean(axis=1), abs=0.1)
    assert np.cov(drawn) == pytest.approx(np.cov(whole, ddof=0), abs=0.5)
    assert drawn.std(axis=1) == pytest.approx(whole.std(axis=1), rel=0.03)
    assert np.cov(kept["normal"]) == pytest.approx(np.eye(2), abs=0.05)
    assert np.corrcoef(drawn[0, 1:], drawn[0, :-1])[0, 1] == pytest.approx(0, abs=0.03)


def test_copies_of_the_training_lie_at_no_distance():
    standardizer = SimpleNamespace(mean=torch.zeros(2), standardize=lambda raw: raw)
    rng = np.random.default_rng(0)
    training, held_out = (torch.from_numpy(rng.standard_normal((2, n))).float() for n in (64, 32))
    ladder = SimpleNamespace(
        segments=[{"raw": held_out}],
        run=SimpleNamespace(model=SimpleNamespace(standardizer=standardizer)),
        data=SimpleNamespace(stretches=lambda *_: [training]),
    )
    found = _copying(ladder, training[None, :, :32])
    assert [found["generated"], found["ratio"]] == pytest.approx([0, 0], abs=1e-6)
    assert 0.3 < found["held_out"] < 1.1
    assert _copying(ladder, held_out[None])["ratio"] == pytest.approx(1)


# Progress


def test_rate_and_remaining_time_are_of_this_process_and_not_of_the_steps_before(monkeypatch):
    bar = _Progress(200, 10)
    trainer = SimpleNamespace(global_step=100, progress_bar_metrics={"loss": torch.tensor(0.25)})
    monkeypatch.setattr("rave.trainer.tqdm", lambda **given: tqdm(**{**given, "disable": False}))
    bar.on_train_start(trainer, None)
    trainer.global_step = 120
    bar.on_train_batch_end(trainer, None, None, None, 0)
    shown = {**bar._bar.format_dict, "elapsed": 10.0, "rate": None, "ncols": None}
    bar.on_train_end(trainer, None)
    # 20 steps in 10 s, 80 to go.
    text = tqdm.format_meter(**shown)
    assert "120/200" in text and "00:10<00:40" in text and "2.00step/s" in text
    assert "60%" in text and "loss=0.25" in text


def test_the_app_tells_the_share_done_and_the_seconds_left(monkeypatch):
    told = []
    monkeypatch.setattr(commands.time, "monotonic", lambda: 100.0)
    job = commands.Job(lambda share, left_s: told.append((share, left_s)))
    monkeypatch.setattr(commands.time, "monotonic", lambda: 104.0)
    job.watch(2, 10)  # 2 steps in 4 s, 8 to go
    assert told == [(0.2, pytest.approx(16.0))]
