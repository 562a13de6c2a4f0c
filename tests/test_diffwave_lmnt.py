"""Latent runs of the patched lmnt diffwave open here, and ours become theirs."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffwave_data import autoregression, settings, write_latent_folder
from lmnt_runs import (
    HOP,
    LATENT_SIZE,
    MELS,
    RAW_SIZE,
    STRIDES,
    make_checkpoint,
    network_output,
    write_run,
)

from diffwave import export, inference, preprocess, train
from diffwave.conditioner import SpectrogramConditioner
from diffwave.model import LatentDiffusion
from diffwave.network import DiffWave
from diffwave.run import open_run
from diffwave.sampling.generation import Sampling
from diffwave.schedule import SCHEDULES, named_schedule
from diffwave.standardizer import Standardizer
from diffwave.upstream.run import checkpoint_from_model, lmnt_name, model_from_checkpoint
from rave.latents.folder import GENERATED, LatentHeader

FRAMES = 11


@pytest.fixture
def header(tmp_path: Path) -> LatentHeader:
    return write_latent_folder(tmp_path / "z", {"a.npy": autoregression(RAW_SIZE, 40, 0.9, 0)})


def spectrogram(num_frames: int = FRAMES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(MELS, num_frames * int(np.prod(STRIDES)), generator=generator)


def random_model(is_conditional: bool, schedule: str = "cosine") -> LatentDiffusion:
    """Return a model of ours in which no weight is zero."""
    torch.manual_seed(1)
    channels = 5 if is_conditional else 0
    network = DiffWave(LATENT_SIZE, 5, 6, 40, condition_channels=channels)
    conditioner = SpectrogramConditioner(MELS, 5, HOP, 256) if is_conditional else None
    standardizer = Standardizer(RAW_SIZE, LATENT_SIZE)
    model = LatentDiffusion(standardizer, network, named_schedule(schedule), "v", conditioner)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(0.1 * torch.rand_like(tensor))
    return model.eval().requires_grad_(False)


def answers(model: LatentDiffusion, timestep: int, noisy: torch.Tensor) -> list[torch.Tensor]:
    """Return the network's outputs without, and if it takes one with, a condition."""
    time = torch.full((len(noisy),), timestep)
    if model.conditioner is None:
        return [model(noisy, time)]
    absent = model.conditioner.absent(len(noisy), noisy.shape[2])
    present = model.conditioner(spectrogram()[None]).expand(len(noisy), -1, -1)
    return [model(noisy, time, absent), model(noisy, time, present)]


@pytest.mark.parametrize("timestep", [0, 137, 999])
@pytest.mark.parametrize("is_conditional", [False, True])
def test_their_network_is_the_same_function_here(is_conditional: bool, timestep: int) -> None:
    checkpoint = make_checkpoint(is_conditional)
    model = model_from_checkpoint(checkpoint, "it")
    noisy = torch.randn(2, LATENT_SIZE, FRAMES, generator=torch.Generator().manual_seed(2))
    found = answers(model, timestep, noisy)
    conditions = [None, spectrogram()[None]] if is_conditional else [None]
    for output, condition in zip(found, conditions, strict=True):
        expected = network_output(checkpoint, noisy, timestep, condition)
        assert expected.std() > 0.1
        torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
    if is_conditional:
        assert (found[0] - found[1]).abs().max() > 0.01


def test_a_short_schedule_is_the_same_function_here() -> None:
    betas = np.linspace(1e-4, 0.05, 50).tolist()
    checkpoint = make_checkpoint(False, noise_schedule=betas, prediction="epsilon")
    model = model_from_checkpoint(checkpoint, "it")
    assert (len(model.schedule), model.prediction) == (50, "epsilon")
    noisy = torch.randn(1, LATENT_SIZE, FRAMES, generator=torch.Generator().manual_seed(2))
    expected = network_output(checkpoint, noisy, 49, None)
    output = answers(model, 49, noisy)[0].double()
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_a_run_without_spectrograms_needs_no_condition_here() -> None:
    checkpoint = make_checkpoint(is_conditional=False)
    model = model_from_checkpoint(checkpoint, "it")
    assert model.conditioner is None
    assert model.network.condition_channels == 0
    checkpoint["model"]["spectrogram_upsampler.null_condition"] += 1  # and yet it is heard
    other = model_from_checkpoint(checkpoint, "it")
    noisy = torch.ones(1, LATENT_SIZE, FRAMES)
    assert (answers(model, 9, noisy)[0] - answers(other, 9, noisy)[0]).abs().max() > 0.01


def test_standardizer_and_schedule_are_theirs() -> None:
    checkpoint = make_checkpoint(is_conditional=True, prediction="x0")
    model = model_from_checkpoint(checkpoint, "it")
    assert model.prediction == "x0"
    w = checkpoint["model"]
    latents = torch.randn(1, LATENT_SIZE, FRAMES, generator=torch.Generator().manual_seed(3))
    expected = w["standardizer.basis"].T @ (latents * w["standardizer.scale"][:, None])
    expected = expected + w["standardizer.mean"][:, None]
    torch.testing.assert_close(model.standardizer.unstandardize(latents), expected)
    betas = np.array(checkpoint["params"]["noise_schedule"])
    np.testing.assert_allclose(model.schedule.alpha_bar, np.cumprod(1 - betas), atol=1e-12)
    cosine = named_schedule("cosine")
    torch.testing.assert_close(model.schedule.alpha_bar, cosine.alpha_bar, rtol=1e-9, atol=0)


def test_averaged_weights_are_taken_where_there_are_some() -> None:
    checkpoint = make_checkpoint(is_conditional=True)
    name = "skip_projection.bias"
    checkpoint["ema"] = checkpoint["model"] | {name: checkpoint["model"][name] + 1}
    model = model_from_checkpoint(checkpoint, "it")
    assert torch.equal(model.network.skip.bias, checkpoint["ema"][name])


@pytest.mark.parametrize("is_conditional", [False, True])
def test_our_model_is_the_same_function_there(is_conditional: bool, header: LatentHeader) -> None:
    model = random_model(is_conditional)
    checkpoint = checkpoint_from_model(model, header, 5)
    params = checkpoint["params"]
    assert (params["residual_layers"], params["dilation_cycle_length"]) == (5, 4)
    noisy = torch.randn(2, LATENT_SIZE, FRAMES, generator=torch.Generator().manual_seed(2))
    conditions = [None, spectrogram()[None]] if is_conditional else [None]
    for output, condition in zip(answers(model, 400, noisy), conditions, strict=True):
        expected = network_output(checkpoint, noisy, 400, condition)
        torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("is_conditional", [False, True])
def test_there_and_back_changes_no_bit(
    is_conditional: bool, schedule: str, header: LatentHeader
) -> None:
    model = random_model(is_conditional, schedule)
    back = model_from_checkpoint(checkpoint_from_model(model, header, 5), "it")
    before, after = (
        dict(each.named_parameters()) | dict(each.named_buffers()) for each in (model, back)
    )
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    inputs = {"spectrogram": spectrogram()[None]} if is_conditional else {}
    for sampler in ("ddim", "ddpm", "dpm-solver++"):
        one, other = (
            Sampling(each, [0], 3, sampler, 4, lambda *_: inputs).generate(FRAMES)
            for each in (model, back)
        )
        assert torch.equal(one, other)


def test_every_weight_has_a_name_of_its_own_there() -> None:
    model = random_model(is_conditional=True)
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    assert {lmnt_name(name) for name in names} == set(make_checkpoint(True)["model"])


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"raw_size": None}, "has no 'raw_size' in its params"),
        ({"prediction": None}, "has no 'prediction'"),
        ({"prediction": "score"}, "There is no prediction 'score'"),
        ({"prediction": "epsilon"}, "ends in pure noise"),
        ({"residual_layers": 2.5}, "residual_layers = 2.5 in its params; a whole number"),
        ({"dilation_cycle_length": 0}, "dilation_cycle_length = 0"),
        ({"noise_schedule": [0.1, 2.0]}, "noise_schedule = [0.1, 2.0] in its params; a list of"),
        ({"noise_schedule": "cosine"}, "noise_schedule = 'cosine'"),
        ({"noise_schedule": [0, 0.1]}, "noise_schedule = [0, 0.1] in its params"),
        ({"noise_schedule": []}, "noise_schedule = [] in its params"),
        ({"mel_hop_samples": 300}, "hop of 300"),
        ({"latent_size": 9}, "latent size is 9; it must be from 1 to the 4"),
        ({"residual_channels": 10**6}, "GiB of weights"),
        ({"residual_layers": 6}, "weight 'residual_layers.5"),
        ({"residual_layers": 4}, "weights that do not belong to"),
    ],
)
def test_odd_params_are_refused_by_name(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as refused:
        model_from_checkpoint(make_checkpoint(True, **params), "'weights.pt'")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "skip_projection.weight",
        "standardizer.scale",
        "spectrogram_upsampler.null_condition",
        "residual_layers.1.conditioner_projection.bias",
    ],
)
@pytest.mark.parametrize("is_conditional", [False, True])
def test_a_missing_weight_is_refused_by_name(name: str, is_conditional: bool) -> None:
    checkpoint = make_checkpoint(is_conditional)
    del checkpoint["model"][name]
    with pytest.raises(ValueError, match=f"weight '{name}' is missing"):
        model_from_checkpoint(checkpoint, "it")


def refusal(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error
    return error.splitlines()[-1]


def test_inference_generates_with_a_run_of_theirs(
    tmp_path: Path, header: LatentHeader, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "theirs", make_checkpoint(True), replace(header, files=[]))
    np.save(tmp_path / "mel.npy", spectrogram().numpy())
    follow = ["--spectrogram", str(tmp_path / "mel.npy"), "--steps", "3", "--count", "2", "--json"]
    assert inference.main([str(run), str(tmp_path / "out"), *follow]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_frames"], figures["train_steps"]) == (FRAMES, 7)
    found = LatentHeader.read(tmp_path / "out")
    assert (found.contents, found.codec, len(found.files)) == (GENERATED, header.codec, 2)
    assert inference.main([str(run / "weights.pt"), str(tmp_path / "out2"), *follow]) == 0
    for index in range(2):
        one, other = (
            np.load(tmp_path / out / f"generated_00{index}.npy") for out in ("out", "out2")
        )
        assert one.shape == (RAW_SIZE, FRAMES)
        np.testing.assert_array_equal(one, other)


def test_inference_refuses_what_is_no_latent_run_of_theirs(
    tmp_path: Path, header: LatentHeader, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(run: Path) -> str:
        code = inference.main([str(run), str(tmp_path / "out")])
        assert not (tmp_path / "out").exists()
        return refusal(capsys, code)

    run = write_run(tmp_path / "foreign", {"state_dict": {}}, header)
    assert "is not a checkpoint of lmnt diffwave" in refused(run)
    run = write_run(tmp_path / "list", [1], header)
    assert "holds a list, not a checkpoint" in refused(run)
    old = make_checkpoint(False, hop_samples_latent=None)
    run = write_run(tmp_path / "old", old, header)
    assert "has no 'hop_samples_latent' in its params" in refused(run)
    run = write_run(tmp_path / "hop", make_checkpoint(True), replace(header, hop_samples=2048))
    error = refused(run)
    assert "4 dimensions, hop 1024, but the latents.json beside it states 4 dimensions" in error
    assert "hop 2048. Copy the latents.json of its training latents there." in error
    (run / "latents.json").unlink()
    assert "has no latents.json beside it" in refused(run)
    (run / "weights-7.pt").write_bytes(b"no weights")
    assert "Cannot read checkpoint" in refused(run)


class Malice:
    """Pickles into a call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_never_runs(
    tmp_path: Path, header: LatentHeader, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("zip", "plain"):
        run = write_run(tmp_path / name, make_checkpoint(True), header)
        malicious = make_checkpoint(True) | {"more": Malice(tmp_path / "touched")}
        if name == "zip":
            torch.save(malicious, run / "weights.pt")
        else:
            (run / "weights.pt").write_bytes(pickle.dumps(malicious))
        code = inference.main([str(run), str(tmp_path / "out")])
        assert "Cannot read checkpoint" in refusal(capsys, code)
        assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("is_conditional", [False, True])
def test_an_exported_run_generates_what_the_run_generates(
    is_conditional: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import soundfile

    latents, run, out = tmp_path / "latents", tmp_path / "run", tmp_path / "lmnt"
    arrays = {f"{n}.npy": autoregression(4, 40, 0.9, seed) for seed, n in enumerate("ab")}
    header = write_latent_folder(latents, arrays)
    more = []
    if is_conditional:
        for name in ("audio/a.wav", "audio/b.wav"):
            (tmp_path / "audio").mkdir(exist_ok=True)
            noise = np.random.default_rng(0).standard_normal(40 * HOP) * 0.1
            soundfile.write(tmp_path / name, noise, header.sample_rate_hz)
        mels = [str(latents), str(tmp_path / "audio"), str(tmp_path / "mels")]
        assert preprocess.main([*mels, "--mels", str(MELS), "--mel-hop", "256"]) == 0
        more = ["--spectrograms", str(tmp_path / "mels")]
    sets = settings("LEARNING_RATE=0.01")
    assert train.main([str(latents), "--out", str(run), "--config", "tiny", *sets, *more]) == 0
    capsys.readouterr()
    assert export.main([str(run), str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["is_conditional"] is is_conditional
    assert figures["num_steps"] == open_run(run).num_steps
    assert sorted(path.name for path in out.iterdir()) == ["latents.json", "weights.pt"]
    assert LatentHeader.read(out) == LatentHeader.read(run)
    options = ["--steps", "4", "--count", "2", "--seconds", "1", "--seed", "3"]
    if is_conditional:
        options += ["--spectrogram", str(tmp_path / "mels" / "a.npy"), "--guidance", "2"]
    for source in (run, out):
        assert inference.main([str(source), str(tmp_path / f"from-{source.name}"), *options]) == 0
    for index in range(2):
        one, other = (
            np.load(tmp_path / f"from-{source}" / f"generated_00{index}.npy")
            for source in ("run", "lmnt")
        )
        np.testing.assert_array_equal(one, other)


def test_export_replaces_nothing_but_an_earlier_export(
    tmp_path: Path, header: LatentHeader, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "theirs", make_checkpoint(True), replace(header, files=[]))
    out = tmp_path / "out"
    assert export.main([str(run), str(out)]) == 0
    assert "of step 7: 4 dimensions, 15.62 frames/s, with spectrograms" in capsys.readouterr().out
    before = (out / "weights.pt").read_bytes()
    assert "add --force to replace" in refusal(capsys, export.main([str(run), str(out)]))
    assert export.main([str(run), str(out), "--force"]) == 0
    assert (out / "weights.pt").read_bytes() == before
    for other in (tmp_path / "z", write_run(tmp_path / "trained", make_checkpoint(True), header)):
        code = export.main([str(run), str(other), "--force"])
        assert "holds other files" in refusal(capsys, code)
    code = export.main([str(run), str(run / "inside")])
    assert "inside the input folder" in refusal(capsys, code)
    assert "is a file" in refusal(capsys, export.main([str(run), str(run / "weights.pt")]))
    assert "is not a run folder" in refusal(
        capsys, export.main([str(tmp_path), str(tmp_path / "x")])
    )
    assert not (tmp_path / "x").exists()
