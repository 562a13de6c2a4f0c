"""The autoregressive prior: laws of its parts, and the commands."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffwave_data import autoregression, write_latent_folder

from rave.latent_dataset import Clip, LatentDataset
from rave.latents.folder import GENERATED, LatentHeader
from rave.main_cli import main
from rave.prior import LatentPrior, dequantize, principal_axes, quantize, shift, unshift
from rave.prior_training import PriorSegments
from rave.upstream.prior import prior_from_weights, their_name

GOLDEN = Path(__file__).parent / "golden" / "acids_rave_prior.npz"

SETTINGS = [
    "MAX_STEPS=8",
    "BATCH_SIZE=4",
    "SEGMENT_FRAMES=16",
    "NUM_CLASSES=8",
    "NUM_BLOCKS=3",
    "HIDDEN_CHANNELS=16",
    "SKIP_CHANNELS=8",
    "LEARNING_RATE=0.01",
    "VALIDATE_EVERY=4",
    "LOG_EVERY=1",
]


def small_prior(num_groups: int = 1) -> LatentPrior:
    torch.manual_seed(0)
    return LatentPrior(5, 3, 4, 6, 9, 5, 2, num_groups).eval().requires_grad_(False)


def test_shift_and_back_keeps_the_whole_frames() -> None:
    frames = torch.arange(2 * 3 * 10).reshape(2, 3, 10)
    columns = shift(frames)
    assert columns.shape == (2, 3, 8)
    assert torch.equal(columns[:, :, 0], torch.stack([frames[:, d, 2 - d] for d in range(3)], 1))
    assert torch.equal(unshift(columns), frames[:, :, 2:8])
    assert torch.equal(shift(frames[:, :1]), frames[:, :1])
    with pytest.raises(ValueError, match="2 latent frames were given; 3 dimensions"):
        shift(frames[:, :, :2])


def test_classes_are_equally_likely_and_come_back() -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    classes = quantize(values, 32)
    counts = torch.bincount(classes, minlength=32) / len(values)
    torch.testing.assert_close(counts, torch.full((32,), 1 / 32), atol=3e-3, rtol=0)
    position = torch.rand(len(values), generator=torch.Generator().manual_seed(1))
    back = dequantize(classes, 0.01 + 0.98 * position, 32)
    assert torch.equal(quantize(back, 32), classes)
    assert abs(float(back.var()) - 1) < 0.02
    ends = dequantize(torch.tensor([0, 31]), torch.tensor([0.0, 1.0]), 32)
    assert ends.tolist() == [-4.0, 4.0]


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 16])
def test_pieces_equal_the_whole(piece: int) -> None:
    prior = small_prior()
    columns = torch.randint(-1, 4, (2, 3, 16), generator=torch.Generator().manual_seed(0))
    whole, _ = prior(columns)
    states, parts = None, []
    for start in range(0, 16, piece):
        logits, states = prior(columns[:, :, start : start + piece], states)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=3), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_groups", [1, 3])
def test_the_network_never_looks_ahead(num_groups: int) -> None:
    prior = small_prior(num_groups)
    columns = torch.randint(0, 4, (1, 3, 16), generator=torch.Generator().manual_seed(0))
    other = columns.clone()
    other[:, :, 9:] = (other[:, :, 9:] + 1) % 4
    one, two = prior(columns)[0], prior(other)[0]
    assert torch.equal(one[..., :9], two[..., :9])
    assert not torch.equal(one[..., 9:], two[..., 9:])


def test_principal_axes_whiten() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((4, 4))
    clips = [(mixing @ rng.standard_normal((4, n)) + 3).astype(np.float32) for n in (900, 400)]
    mean, axes, std = principal_axes(clips)
    values = np.concatenate(clips, axis=1)
    rotated = axes @ (values - mean[:, None]) / std[:, None]
    np.testing.assert_allclose(np.cov(rotated, bias=True), np.eye(4), atol=1e-4)
    assert (np.diff(std) < 0).all()


def test_an_item_does_not_depend_on_its_batch_and_temperature_0_is_certain() -> None:
    prior = small_prior()
    both = prior.sample(6, [(7, 0), (7, 1)])
    assert both.shape == (2, 5, 6)
    torch.testing.assert_close(prior.sample(6, [(7, 1)])[0], both[1])
    assert (both[0] - both[1]).abs().max() > 0.1
    certain = [prior.classes(prior.sample(6, [(seed, 0)], temperature=0)) for seed in (1, 2)]
    assert torch.equal(*certain)
    with pytest.raises(ValueError, match="temperature -1"):
        prior.sample(6, [(0, 0)], temperature=-1)


def test_an_untrained_uniform_network_samples_the_fitted_gaussian() -> None:
    prior = small_prior()
    for parameter in prior.parameters():
        parameter.zero_()  # all classes alike
    std = np.array([3.0, 2.0, 0.5, 0.1, 0.1])
    prior.fit(np.full(5, 4.0), np.eye(5), std)
    assert math.isclose(float(prior.loss(torch.randn(1, 5, 9))), math.log(4), rel_tol=1e-5)
    latents = prior.sample(1500, [(0, 0)])[0]
    np.testing.assert_allclose(latents.mean(dim=1), np.full(5, 4.0), atol=0.3)
    np.testing.assert_allclose(latents[:3].std(dim=1), std[:3], rtol=0.1)
    assert (latents[3:] == 4).all()  # what is not modelled stays at the mean


def test_segments_follow_from_seed_and_index(tmp_path: Path) -> None:
    arrays = {f"{n}.npy": np.arange(n, dtype=np.float32)[None] + 100 * n for n in (4, 9)}
    write_latent_folder(tmp_path, arrays)
    latents = LatentDataset(tmp_path)
    clips = [Clip(file, 0, file.num_frames) for file in latents.files]
    segments = PriorSegments(latents, clips, 4, 50, seed=3)
    assert torch.equal(segments[7], PriorSegments(latents, clips, 4, 9, seed=3)[7])
    starts = {float(segments[i][0, 0]) for i in range(50)}
    assert starts == {400.0, *(900.0 + k for k in range(6))}
    even = PriorSegments(latents, clips, 4, 7, seed=None)
    assert [float(even[i][0, 0]) for i in range(7)] == [400.0, *(900.0 + k for k in range(6))]


def latent_folder(tmp_path: Path, num_frames: int = 60) -> LatentHeader:
    arrays = {
        f"{n}.npy": autoregression(4, num_frames, 0.95, seed) for seed, n in enumerate("abcd")
    }
    for array in arrays.values():
        array[3] = 0.001 * array[3]  # carries nothing
    return write_latent_folder(tmp_path / "latents", arrays)


def train(tmp_path: Path, out: str, *more: str) -> int:
    sets = [text for each in (*SETTINGS, *more) for text in ("--set", each)]
    return main(["train_prior", str(tmp_path / "latents"), "--out", str(tmp_path / out), *sets])


def test_commands_train_resume_and_generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = latent_folder(tmp_path)
    assert train(tmp_path, "run", "MAX_STEPS=4") == 0
    assert "3 dimensions. Held-out loss" in capsys.readouterr().out
    assert train(tmp_path, "run") == 0  # goes on
    assert train(tmp_path, "whole") == 0
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "whole")
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    capsys.readouterr()
    run, out = str(tmp_path / "run"), tmp_path / "out"
    options = ["--seconds", "0.5", "--count", "2", "--seed", "5"]
    assert main(["sample_prior", run, str(out), *options, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_frames"], figures["files"]) == (
        8,
        ["generated_000.npy", "generated_001.npy"],
    )
    found = LatentHeader.read(out)
    assert (found.contents, found.codec, found.seed) == (GENERATED, header.codec, 5)
    assert np.load(out / "generated_001.npy").shape == (4, 8)
    before = np.load(out / "generated_001.npy")
    assert main(["sample_prior", run, str(out), *options]) == 2
    assert "add --force" in capsys.readouterr().err
    assert main(["sample_prior", run, str(out), *options, "--force"]) == 0
    np.testing.assert_array_equal(np.load(out / "generated_001.npy"), before)


@pytest.mark.parametrize("recipe", ["prior/default", "prior/tiny"])
def test_shipped_recipes_build(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latent_folder(tmp_path, num_frames=140)
    arguments = ["train_prior", str(tmp_path / "latents"), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--config", recipe, "--dry-run"]) == 0
    assert "prior.LatentPrior.raw_size = %RAW_SIZE" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_trained_prior_knows_more_than_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latent_folder(tmp_path, num_frames=1500)
    sizes = ("MAX_STEPS=200", "VALIDATE_EVERY=200", "SEGMENT_FRAMES=32", "LEARNING_RATE=0.005")
    assert train(tmp_path, "run", *sizes) == 0
    text = capsys.readouterr().out
    loss = float(text.split("Held-out loss ")[1].split()[0])
    assert loss < 0.8 * math.log(8)


def test_what_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latent_folder(tmp_path)
    for setting, words in (
        ("SEGMENT_FRAMES=61", "No clip holds a segment of 61 frames (the longest has 60)"),
        ("SEGMENT_FRAMES=3", "3 modelled dimensions need more frames"),
        ("FIDELITY=0", "FIDELITY is 0"),
    ):
        assert train(tmp_path, "run", setting) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train(tmp_path, "run") == 0
    capsys.readouterr()
    run = str(tmp_path / "run")
    for more, words in (
        ([str(tmp_path / "latents")], "latents of real audio, which are never overwritten"),
        ([str(tmp_path / "x"), "--temperature", "-1"], "--temperature is -1.0"),
        ([str(tmp_path / "x"), "--seconds", "0"], "a number above 0"),
        ([str(tmp_path / "x"), "--count", "0"], "at least 1"),
    ):
        assert main(["sample_prior", run, *more]) == 2
        assert words in capsys.readouterr().err
    assert main(["sample_prior", str(tmp_path / "latents"), str(tmp_path / "x")]) == 2
    assert "run.json' does not exist, so" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def golden() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return what acids-rave's prior computes, and its weights with a codec's axes."""
    with np.load(GOLDEN) as found:
        arrays = {name: torch.from_numpy(found[name]) for name in found.files}
    weights = {k.removeprefix("weights/"): v for k, v in arrays.items() if "weights/" in k}
    axes = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    return arrays, {**weights, "synth.latent_pca": axes, "synth.latent_mean": torch.arange(6.0)}


def test_their_prior_is_the_same_function_here() -> None:
    arrays, weights = golden()
    prior = prior_from_weights(weights, 2, "it").eval().requires_grad_(False)
    assert (prior.latent_size, prior.num_classes, len(prior.blocks)) == (4, 4, 3)
    columns = shift(quantize(arrays["latents"], 4))
    onehot = torch.nn.functional.one_hot(columns, 4).movedim(3, 2).flatten(1, 2)
    assert torch.equal(onehot, arrays["onehot"].long())
    assert torch.equal(unshift(shift(arrays["latents"])), arrays["unshifted"])
    logits = prior(columns)[0].flatten(1, 2)
    torch.testing.assert_close(logits, arrays["logits"], atol=1e-5, rtol=1e-5)
    column, states, generated = columns[:1, :, :1], None, [columns[:1, :, :1]]
    for _ in range(9):
        logits, states = prior(column, states)
        column = logits.argmax(dim=2)
        generated.append(column)
    theirs = arrays["generated"].unflatten(1, (4, 4)).argmax(dim=2)
    assert torch.equal(torch.cat(generated, dim=2), theirs)


def test_their_axes_are_filled_with_noise_beyond_the_modelled() -> None:
    _, weights = golden()
    prior = prior_from_weights(weights, 2, "it")
    latents = prior.sample(1500, [(0, 0)])[0] - torch.arange(6.0)[:, None]
    along = weights["synth.latent_pca"] @ latents
    np.testing.assert_allclose(along[4:].std(dim=1), [1, 1], atol=0.05)
    assert along[:4].abs().max() <= 4.01


def test_their_weights_are_refused_by_name() -> None:
    _, weights = golden()
    names = {their_name(name) for name, _ in small_prior().named_parameters()}
    assert {name.partition(".")[0] for name in names} == {"pre_net", "residuals", "post_net"}
    for name in ("pre_net.0.weight", "residuals.1.sconv.bias", "synth.latent_mean"):
        with pytest.raises(ValueError, match=name):
            prior_from_weights({k: v for k, v in weights.items() if k != name}, 2, "it")
    wrong = {**weights, "residuals.1.rconv.weight": torch.zeros(7, 8, 1)}
    with pytest.raises(ValueError, match=r"'residuals.1.rconv.weight' is \(7, 8, 1\); \(8, 8, 1\)"):
        prior_from_weights(wrong, 2, "it")


def test_a_run_of_theirs_generates_for_its_codec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from upstream_runs import checkpoint_of, golden_weights, write_upstream_run

    codec = write_upstream_run(tmp_path / "codec")
    other = golden_weights()
    other = {k: v + 1 if k.startswith("decoder.") else v for k, v in other.items()}
    prior = {k: v for k, v in golden()[1].items() if not k.startswith("synth.")}
    synth = {f"synth.{k}": v for k, v in golden_weights().items()}
    run = tmp_path / "prior"
    (run / "version_0" / "checkpoints").mkdir(parents=True)
    (run / "config.gin").write_text("prior.VariationalPrior.cycle_size = 2\n")
    path = run / "version_0" / "checkpoints" / "best.ckpt"
    torch.save(checkpoint_of({**prior, **synth}), path)
    out = tmp_path / "out"
    command = ["sample_prior", str(run), str(out), "--seconds", "1", "--count", "1"]
    assert main(command) == 2
    assert "Add --codec RUN" in capsys.readouterr().err
    assert main([*command, "--codec", str(codec)]) == 0
    assert LatentHeader.read(out).contents == GENERATED
    assert np.load(out / "generated_000.npy").shape == (16, 22)
    assert main(["decode", str(codec), str(out), str(tmp_path / "audio")]) == 0
    torch.save(checkpoint_of({**prior, **{f"synth.{k}": v for k, v in other.items()}}), path)
    assert main([*command, "--force", "--codec", str(codec)]) == 2
    assert "Give the run that it was trained for" in capsys.readouterr().err
