"""A diagnosis of latents against laws, and what it says of latents whose law is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffwave_data import autoregression, settings, write_latent_folder

from diffwave import train
from diffwave.api.diagnose import read_recipe
from diffwave.diagnosis import latent_picture, latent_report
from diffwave.diagnosis import latents as latent_diagnosis
from diffwave.diagnosis.expected_losses import Recipe
from diffwave.diagnosis.failures import CLAMPED_SAMPLER, LEVEL_LOST, REMEDIES, WHITE_LATENTS
from diffwave.diagnosis.generated import diagnose_generated
from diffwave.diagnosis.latent_statistics import distance_from_normal, memory
from diffwave.diagnosis.latents import LatentDiagnosis, diagnose_latents
from diffwave.schedule import named_schedule
from rave.latents.folder import GENERATED, POSTERIOR_SAMPLE, write_latents
from rave.latents.statistics import LatentStatistics

SHORT = Recipe(held_out_fraction=0.3, segment_frames=32)


def write(folder: Path, *arrays: np.ndarray, **options: str) -> Path:
    write_latent_folder(folder, {f"{n}.npy": each for n, each in enumerate(arrays)}, **options)
    return folder


def music(folder: Path, frame_memory: float, latent_size: int = 3, count: int = 4) -> Path:
    """Write files of 1000 frames whose neighbouring frames correlate by `frame_memory`."""
    arrays = (autoregression(latent_size, 1000, frame_memory, seed) for seed in range(count))
    return write(folder, *arrays)


@pytest.mark.parametrize("coefficient", [0.0, 0.5, -0.5, 0.9, -0.9])
def test_memory_of_an_autoregression_is_its_closed_form(coefficient: float) -> None:
    found = memory([autoregression(4, 50_000, coefficient, seed) for seed in range(2)], 512)
    expected = (1 + coefficient**2) / (1 - coefficient**2)
    assert found.is_whole.all()
    assert found.frames.mean() == pytest.approx(expected, rel=0.05)
    lags = np.arange(8)
    np.testing.assert_allclose(found.correlation[:, :8].mean(axis=0), coefficient**lags, atol=0.03)


def test_memory_longer_than_the_lags_is_reported_as_longer() -> None:
    found = memory([autoregression(1, 20_000, 0.99, 0)], 64)
    assert not found.is_whole.any()
    assert 30 < found.frames[0] < 99.5


def test_memory_pairs_no_frames_across_blocks() -> None:
    block = autoregression(2, 700, 0.9, 0)
    once, twice = memory([block], 100), memory([block, block], 100)
    np.testing.assert_allclose(once.correlation, twice.correlation, atol=1e-9)


def test_distance_from_normal_is_that_of_the_distribution_functions() -> None:
    count = 20_001
    quantiles = (np.arange(count) + 0.5) / count
    uniform = (2 * quantiles - 1) * np.sqrt(3.0)  # of variance 1
    normal = torch.distributions.Normal(0.0, 1.0)
    exact = (torch.from_numpy(quantiles) - normal.cdf(torch.from_numpy(uniform))).abs().max()
    found = distance_from_normal(np.stack([uniform, normal.icdf(torch.from_numpy(quantiles))]))
    assert found == pytest.approx([float(exact), 0.0], abs=1e-4)


def test_the_recipe_considered_is_the_default_one() -> None:
    found, ours = read_recipe("default"), Recipe()
    assert torch.equal(found.schedule.alpha_bar, ours.schedule.alpha_bar)
    assert replace(found, schedule=ours.schedule) == ours
    assert found.schedule_name == "cosine"


def test_white_noise_is_named_and_latents_with_memory_are_not(tmp_path: Path) -> None:
    noise = diagnose_latents(music(tmp_path / "noise", 0.0), SHORT)
    assert [finding.name for finding in noise.findings] == [WHITE_LATENTS]
    assert "cannot be learned" in latent_report.words(noise)
    assert "What to do" not in latent_report.words(noise)  # but what the finding says
    known = diagnose_latents(music(tmp_path / "music", 0.7), SHORT)
    assert known.findings == []
    assert "none of the twelve known failures" in latent_report.words(known)
    assert f"held-out loss is below {known.expected[0].gaussian:.3f}" in latent_report.words(known)
    assert noise.num_white == 3
    assert known.num_white == 0


def test_expected_losses_are_those_that_a_training_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = music(tmp_path / "latents", 0.9)
    chosen = ["SCHEDULE='audioldm'", "PREDICTION='epsilon'", "LOSS='l1'", "WEIGHTING='min-snr'"]
    options = settings("FIDELITY=0.6", *chosen)
    out = str(tmp_path / "run")
    assert train.main([str(latents), "--out", out, "--config", "tiny", "--json", *options]) == 0
    trained = json.loads(capsys.readouterr().out)
    recipe = read_recipe("tiny", options[1::2])
    found = diagnose_latents(latents, recipe)
    assert found.latent_size == trained["latent_size"] == 2
    expected = found.record()["expected_losses"][0]
    names = ("prediction", "loss", "weighting")
    assert {name: expected[name] for name in names} == {name: trained[name] for name in names}
    for name in ("zero", "white", "gaussian"):
        assert expected[name] == pytest.approx(trained[name], rel=1e-6)


def test_every_schedule_has_its_losses_and_its_end(tmp_path: Path) -> None:
    found = diagnose_latents(music(tmp_path / "latents", 0.5), SHORT)
    for end in found.ends:
        alpha_bar = float(named_schedule(end.schedule).alpha_bar[-1])
        rows = [row for row in found.expected[1:] if row.schedule == end.schedule]
        assert len(rows) == (8 if alpha_bar > 0 else 6)  # no epsilon of pure noise
        if end.snr_db is None:
            assert end.signal == alpha_bar == 0
        else:
            assert 10 ** (end.snr_db / 10) == pytest.approx(alpha_bar / (1 - alpha_bar))
        assert all(row.gaussian < row.white <= row.zero * 1.001 for row in rows)


def sampled(folder: Path, contents: str) -> LatentDiagnosis:
    """Diagnose 8 dimensions of which 6 have collapsed: N(0, 1) noise that carries nothing."""
    random = np.random.default_rng(0)
    arrays = [
        np.concatenate([3 * autoregression(2, 1000, 0.9, n), random.standard_normal((6, 1000))])
        for n in range(4)
    ]
    header = write_latent_folder(
        folder, {f"{n}.npy": each.astype(np.float32) for n, each in enumerate(arrays)}
    )
    carried = np.array([3.0, 3.0] + [0.01] * 6)
    statistics = LatentStatistics([0.0] * 8, carried.tolist(), [0.1] * 2 + [1.0] * 6, [0.0] * 8, 1)
    replace(header, statistics=statistics, contents=contents).write(folder)
    return diagnose_latents(folder, SHORT)


def test_samples_of_the_posterior_are_reported_with_their_noise(tmp_path: Path) -> None:
    found = sampled(tmp_path / "sampled", POSTERIOR_SAMPLE)
    assert (found.latent_size, found.num_white) == (8, 6)
    assert found.white_shares[:2].max() < 0.8 < 0.97 < found.white_shares[2:].min()
    text = latent_report.words(found)
    assert "6 of the 8 dimensions modelled are noise" in text
    assert "Encode again without --sample" in text
    assert "6 of 8 dimensions are uninformative, so they are noise" in text
    assert "informative dimensions                2 of 8" in text
    assert "Train." not in text


def test_noise_in_posterior_means_is_left_to_fidelity(tmp_path: Path) -> None:
    text = latent_report.words(sampled(tmp_path / "mean", "posterior mean"))
    assert "Lower FIDELITY: 6 of 8 dimensions modelled are noise" in text
    assert "--sample" not in text


def test_principal_dimensions_are_counted_by_their_variance(tmp_path: Path) -> None:
    spread = np.sqrt([89.0, 5.0, 3.0, 2.5, 0.5])[:, None]  # 89, 94, 97, 99.5, 100 %
    arrays = [(spread * autoregression(5, 20_000, 0.5, n)).astype(np.float32) for n in range(3)]
    found = diagnose_latents(write(tmp_path / "latents", *arrays), replace(SHORT, fidelity=0.96))
    assert found.num_for == {0.9: 2, 0.95: 3, 0.99: 4}
    assert found.latent_size == 3


def test_advice_follows_from_the_recipe(tmp_path: Path) -> None:
    latents = music(tmp_path / "latents", 0.97, count=8)
    assert (
        "SEGMENT_FRAMES"
        in latent_report.words(diagnose_latents(latents, SHORT)).partition("Dimensions")[0]
    )
    longer = replace(SHORT, segment_frames=128)
    assert "Raise SEGMENT_FRAMES" not in latent_report.words(diagnose_latents(latents, longer))
    assert "SCHEDULE='cosine'" not in latent_report.words(diagnose_latents(latents, longer))
    short_schedule = replace(longer, schedule=named_schedule("diffwave"))
    text = latent_report.words(diagnose_latents(latents, short_schedule))
    assert "Choose SCHEDULE='cosine': 'diffwave' leaves 28 % of the signal" in text


def test_a_file_may_be_read_in_any_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = write(tmp_path / "latents", *(autoregression(3, 3000, 0.5, n) for n in range(3)))
    whole = diagnose_latents(latents, SHORT)
    monkeypatch.setattr(latent_diagnosis, "BLOCK_FRAMES", 700)
    parts = diagnose_latents(latents, SHORT)
    np.testing.assert_allclose(parts.variance, whole.variance, rtol=1e-6)
    np.testing.assert_allclose(parts.white_shares, whole.white_shares, rtol=1e-4)
    np.testing.assert_allclose(parts.normal_distances, whole.normal_distances, atol=1e-6)
    np.testing.assert_allclose(parts.memory.frames, whole.memory.frames, rtol=0.05)
    monkeypatch.setattr(latent_diagnosis, "NUM_BLOCKS", 4)  # of ten
    few = diagnose_latents(latents, SHORT)
    np.testing.assert_allclose(few.memory.frames, whole.memory.frames, rtol=0.2)


def test_record_is_json_and_pictures_are_of_their_format(tmp_path: Path) -> None:
    found = diagnose_latents(music(tmp_path / "latents", 0.5), SHORT)
    assert json.loads(json.dumps(found.record(), allow_nan=False))["latent_size"] == 3
    latent_picture.draw(found, tmp_path / "a.png")
    latent_picture.draw(found, tmp_path / "a.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "best linear denoiser" in latent_report.words(found)
    assert "<svg" in (tmp_path / "a.svg").read_text()[:1000]


def test_latents_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    healthy = autoregression(2, 100, 0.5, 0)
    latents = write(tmp_path / "latents", healthy, healthy, healthy)
    with pytest.raises(ValueError, match=r"FIDELITY is 1\.5"):
        diagnose_latents(latents, replace(SHORT, fidelity=1.5))
    broken = healthy.copy()
    broken[0, 7] = np.nan
    for name in ("0.npy", "1.npy", "2.npy"):  # two for the training, one held out
        write_latents(latents / name, [broken], 2)
        with pytest.raises(ValueError, match=f"{name}' holds values that are not finite"):
            diagnose_latents(latents, SHORT)
        write_latents(latents / name, [healthy], 2)
    generated = write(tmp_path / "generated", healthy, contents=GENERATED)
    with pytest.raises(ValueError, match="holds generated latents"):
        diagnose_latents(generated, SHORT)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda z: z, []),
        (lambda z: 0.3 * z, [LEVEL_LOST]),
        (lambda z: 3.0 * z, [LEVEL_LOST]),
        (lambda z: np.clip(z, -1.0, 1.0), [CLAMPED_SAMPLER]),
    ],
)
def test_generated_latents_are_judged_by_those_of_the_training(
    tmp_path: Path, change, found: list[str]
) -> None:
    real = [autoregression(3, 1000, 0.9, n) for n in range(3)]
    header = write_latent_folder(tmp_path / "real", {f"{n}.npy": z for n, z in enumerate(real)})
    generated = {f"{n}.npy": change(autoregression(3, 500 * n, 0.9, 9 + n)) for n in range(3)}
    made = write_latent_folder(tmp_path / "made", generated, contents=GENERATED)
    replace(made, statistics=header.statistics).write(tmp_path / "made")
    diagnosis = diagnose_generated(tmp_path / "made")
    assert [finding.name for finding in diagnosis.findings] == found
    everything = np.concatenate(list(generated.values()), axis=1)
    mean = np.asarray(header.statistics.mean)[:, None]
    rms = np.sqrt(np.square(everything - mean).mean(axis=1))
    np.testing.assert_allclose(diagnosis.rms, rms, rtol=1e-3)
    record = json.loads(json.dumps(diagnosis.record(), allow_nan=False))
    assert [each["path"] for each in record["files"]] == ["1.npy", "2.npy"]  # 0.npy is empty
    assert all(name in latent_report.words_of_generated(diagnosis) for name in (*found, "1.npy"))
    latent_picture.draw_generated(diagnosis, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_each_failure_has_a_page_of_its_name() -> None:
    pages = (Path(__file__).parents[1] / "docs" / "diagnosis.md").read_text().splitlines()
    headings = [line.removeprefix("### ") for line in pages if line.startswith("### ")]
    assert headings == list(REMEDIES)
