"""Models of audio's derivative."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from audio_files import sine, write
from rave_models import SHORT, write_run
from rave_runs import prepare, tiny_parts, train

from rave.audio.derivative import derivative, differentiated, integrated
from rave.codec import load_codec
from rave.main_cli import main
from rave.noise import DecoderNoise
from rave.training import RaveSystem

RATE_HZ = 44100
CPU = torch.device("cpu")


def noise(num_samples, num_channels=1):
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal((num_channels, num_samples))).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 4096])
def test_blocks_of_every_size_give_what_one_block_gives(size):
    audio = noise(4096, 2)
    blocks = [audio[:, i : i + size] for i in range(0, 4096, size)]
    for work in (differentiated, lambda b: integrated(b, RATE_HZ)):
        (whole,) = work([audio])
        assert np.allclose(np.concatenate(list(work(blocks)), axis=1), whole, rtol=0, atol=1e-6)


def test_a_derivative_is_half_the_difference_of_neighbours():
    audio = noise(100)
    (found,) = differentiated([audio])
    assert np.allclose(found[:, 1:], np.diff(audio) / 2, rtol=0, atol=1e-7)
    assert np.allclose(found[:, 0], audio[:, 0] / 2)


@pytest.mark.parametrize("frequency_hz", [100, 1000, 10000])
def test_the_integral_of_the_derivative_is_the_sound_at_its_level(frequency_hz):
    audio = sine(frequency_hz, RATE_HZ, 1.0)
    (found,) = integrated(differentiated([audio]), RATE_HZ)
    late = slice(RATE_HZ // 2, None)
    level_db = 20 * np.log10(found[:, late].std() / audio[:, late].std())
    assert abs(level_db) < 0.1


def test_a_constant_does_not_come_through():
    (found,) = integrated(differentiated([np.ones((1, RATE_HZ), np.float32)]), RATE_HZ)
    assert np.abs(found[:, RATE_HZ // 2 :]).max() < 1e-3


def test_a_codec_of_the_derivative_differentiates_and_integrates(tmp_path):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    plain, codec = (load_codec(run, CPU, derivative=d) for d in (False, True))
    audio = noise(20 * codec.format.hop_samples)
    (derivative,) = differentiated([audio])
    mean, _ = codec.encode(audio)
    assert np.array_equal(mean, plain.encode(derivative)[0])
    decoded = [c.decode(mean, DecoderNoise(c.format, 0)) for c in (plain, codec)]
    (needed,) = integrated([decoded[0]], codec.format.sample_rate_hz)
    assert np.allclose(decoded[1], needed, rtol=0, atol=1e-6)


def test_latents_of_the_derivative_are_not_mistaken_for_those_of_audio(tmp_path, capsys):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    write(tmp_path / "audio" / "a.wav", sine(220, RATE_HZ, 0.2), RATE_HZ)
    latents, out = str(tmp_path / "latents"), str(tmp_path / "out")
    assert main(["encode", str(run), str(tmp_path / "audio"), latents, "--derivative"]) == 0
    assert main(["decode", str(run), latents, out]) == 2
    assert "is of another codec" in capsys.readouterr().err
    assert main(["decode", str(run), latents, out, "--derivative"]) == 0


def test_an_export_of_the_derivative_says_so_itself(tmp_path):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    path = tmp_path / "a.ts"
    assert main(["export", str(run), str(path), "--derivative"]) == 0
    assert load_codec(path, CPU).format == load_codec(run, CPU, derivative=True).format
    assert load_codec(path, CPU, derivative=True).format == load_codec(path, CPU).format


def test_what_has_no_averaged_weights_is_told_so(tmp_path, capsys):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    assert main(["export", str(run), str(tmp_path / "a.ts"), "--ema"]) == 2
    assert "a run of `rave train`, which keeps no averaged weights" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "a.ts")]) == 0
    with pytest.raises(ValueError, match="Give --ema when you export it"):
        load_codec(tmp_path / "a.ts", CPU, ema=True)
    folder = [str(run), str(tmp_path / "b"), "--format", "acids-rave", "--derivative"]
    assert main(["export", *folder]) == 2
    assert "cannot store --ema or --derivative" in capsys.readouterr().err


# Runs of ours, which say it themselves


def test_the_derivative_in_training_is_that_of_the_codec():
    audio = noise(1000)
    (needed,) = differentiated([audio])
    assert np.allclose(derivative(torch.from_numpy(audio)[None])[0], needed, rtol=0, atol=1e-7)


def test_training_hears_the_derivative(monkeypatch):
    for name in ("log", "log_dict"):
        monkeypatch.setattr(RaveSystem, name, lambda *_, **__: None)
    audio = torch.randn(2, 1, 4096, generator=torch.Generator().manual_seed(0))
    losses = []
    for settings, heard in ((("model.RAVE.is_derivative=True",), audio), ((), derivative(audio))):
        system = RaveSystem(*tiny_parts(*settings))
        losses.append(system._generator_loss(system._known(heard), torch.Generator()).item())
    assert losses[0] == losses[1]


def test_a_run_remembers_that_it_knows_the_derivative(tmp_path, capsys):
    out = tmp_path / "run"
    steps = ("MAX_STEPS=2", "PHASE_1_STEPS=2", "VALIDATE_EVERY_STEPS=2")
    assert train(prepare(tmp_path), out, *steps, recipe="v2+derivative") == 0
    codec = load_codec(out, CPU)
    assert codec.format.is_derivative
    assert codec.format == load_codec(out, CPU, derivative=True).format
    audio = noise(20 * codec.format.hop_samples)
    mean = codec.encode(audio)[0]
    (known,) = differentiated([audio])
    codec.format = replace(codec.format, is_derivative=False)
    assert np.array_equal(mean, codec.encode(known)[0])
    assert main(["export", str(out), str(tmp_path / "a.ts")]) == 0
    assert load_codec(tmp_path / "a.ts", CPU).format.is_derivative
    capsys.readouterr()
    for options in (["a.ts", "--streaming"], ["onnx", "--format", "onnx"]):
        assert main(["export", str(out), *options]) == 2
        assert "a stream or ONNX cannot integrate" in capsys.readouterr().err
    folder = [str(tmp_path / "theirs"), "--format", "acids-rave"]
    assert main(["export", str(out), *folder]) == 0
    assert "Open it with --derivative" in capsys.readouterr().out
