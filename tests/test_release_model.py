"""Models given away: half the size, the same music, opened by every command but training."""

import json
import shutil

import numpy as np
import pytest
import release_model
import soundfile
import torch
from curves_picture import PICTURE
from rave_runs import TINY
from released_models import release, train_diffusion
from training_curves import CODEC_DECIBELS, CURVES, DIFFUSION_HELD_OUT, SKILL

from diffwave import inference
from diffwave import train as diffwave_train
from diffwave.run import open_run
from rave.codec import load_codec
from rave.latents.folder import LatentHeader
from rave.main_cli import main
from rave.noise import DecoderNoise
from rave.runs.checkpoint import read_checkpoint, released_checkpoint, trained_checkpoint

# Of a weight: half precision has 11 bits. A sum of many layers is allowed some more.
HALF, THROUGH_LAYERS = 2.0**-11, 20 * 2.0**-11
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """Latents of the codec run's recordings, a diffusion run on them, and the model of both."""
    folder = tmp_path_factory.mktemp("release")
    release(run, train_diffusion(run, folder), folder / "model")
    return folder


def states(run, released):
    """The weights of a run that commands use, and those of its release."""
    return (read_checkpoint(path)["state_dict"] for path in (run, released_checkpoint(released)))


def test_a_release_holds_the_weights_in_half_precision_and_nothing_of_the_training(folder, run):
    for name, path in (
        ("codec", run / "checkpoints" / "last.ckpt"),
        ("diffusion", trained_checkpoint(folder / "diffusion")),
    ):
        content = read_checkpoint(released_checkpoint(folder / "model" / name))
        assert set(content) == {"state_dict", "global_step"}
        of_run, of_release = states(path, folder / "model" / name)
        assert {key for key in of_run if key.startswith("model.")} == set(of_release)
        assert any(value.dtype == torch.float16 for value in of_release.values())
        for key, value in of_release.items():
            error = (value.float() - of_run[key].float()).abs()
            allowed = HALF * of_run[key].float().abs() + 2.0**-25
            assert bool((error <= allowed).all()), key
            if value.dtype != torch.float16:
                assert torch.equal(value, of_run[key]), key


def test_parameters_take_half_the_room(folder, run):
    model = open_run(folder / "diffusion").model
    state = release_model.half_precision(model, run)
    sizes = [(state[f"model.{name}"].nbytes, v.nbytes) for name, v in model.named_parameters()]
    assert all(2 * half == full for half, full in sizes)


def test_a_released_codec_gives_the_latents_and_the_audio_of_its_run(folder, run):
    tone, _ = soundfile.read(run.parent / "tones" / "0.wav", dtype="float32")
    results = []
    for path in (run, folder / "model" / "codec"):
        codec = load_codec(path, CPU)
        mean, _ = codec.encode(tone[None])
        results.append((mean, codec.decode(mean, DecoderNoise(codec.format, 0))))
    for ours, released in zip(*results, strict=True):
        difference = np.sqrt(np.mean(np.square(ours - released)))
        assert 0 < difference < THROUGH_LAYERS * np.sqrt(np.mean(np.square(ours)))


def test_a_release_tells_and_draws_the_curves_of_both_trainings(folder):
    curves = json.loads((folder / "model" / CURVES).read_text())
    assert [step for step, _ in curves[SKILL]] == [step for step, _ in curves[DIFFUSION_HELD_OUT]]
    assert curves[CODEC_DECIBELS][-1][1] > 0
    picture = (folder / "model" / PICTURE).read_text()
    assert picture.count('<g id="axes_') == 4


def test_released_models_generate_for_each_other(folder, tmp_path):
    model = folder / "model"
    options = ["--count", "1", "--seconds", "0.2", "--steps", "3"]
    generated = tmp_path / "generated"
    assert inference.main([str(model / "diffusion"), str(generated), *options]) == 0
    assert main(["decode", str(model / "codec"), str(generated), str(tmp_path / "audio")]) == 0
    audio, _ = soundfile.read(tmp_path / "audio" / "generated_000.wav")
    assert np.abs(audio).max() > 0
    assert str(folder) not in (model / "diffusion" / "latents.json").read_text()


def test_a_release_is_not_trained_but_a_training_starts_from_it(folder, run, tmp_path, capsys):
    sets = [part for setting in TINY for part in ("--set", setting)]
    data = ["--data", str(run.parent / "prepared"), "--device", "cpu", *sets]
    model = folder / "model"
    before = {path: path.read_bytes() for path in sorted(model.rglob("*.*"))}
    refused = [
        main(["train", "v2", *data, "--out", str(model / "codec")]),
        diffwave_train.main(
            [str(folder / "latents"), "--out", str(model / "diffusion"), "--config", "tiny"]
        ),
    ]
    assert refused == [2, 2]
    assert capsys.readouterr().err.count("is a released model: it has no training state") == 2
    assert {path: path.read_bytes() for path in sorted(model.rglob("*.*"))} == before
    out = ["--out", str(tmp_path / "new"), "--initialise-from", str(model / "codec")]
    assert main(["train", "v2", *data, *out]) == 0
    assert (
        "encoder and decoder; discriminators start from random weights" in capsys.readouterr().err
    )


def test_every_export_opens_a_released_codec(folder, tmp_path):
    codec = str(folder / "model" / "codec")
    assert main(["export", codec, str(tmp_path / "codec.ts")]) == 0
    assert main(["export", codec, str(tmp_path / "acids"), "--format", "acids-rave"]) == 0
    tone = np.random.default_rng(0).standard_normal((1, 4096)).astype(np.float32)
    means = [
        load_codec(p, CPU).encode(tone)[0] for p in (folder / "model/codec", tmp_path / "acids")
    ]
    assert np.array_equal(*means)


def test_a_model_is_not_overwritten_unless_forced(folder, run, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    command = [str(model), "--codec", str(run)]
    assert release_model.main(command) == 2
    assert "add --force" in capsys.readouterr().err
    assert release_model.main([*command, "--force"]) == 0
    assert not (model / "diffusion").exists()


def test_a_diffusion_model_of_another_codec_is_refused(folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(folder / "diffusion", other)
    header = (other / "latents.json").read_text()
    codec = LatentHeader.read(other).codec
    (other / "latents.json").write_text(header.replace(codec, "another"))
    codec_run = shutil.copytree(folder / "model" / "codec", tmp_path / "codec")
    shutil.copytree(folder / "diffusion" / "tensorboard", codec_run / "tensorboard")
    options = ["--codec", str(codec_run), "--diffusion", str(other)]
    assert release_model.main([str(tmp_path / "model"), *options]) == 2
    assert "was trained on latents of codec another" in capsys.readouterr().err
