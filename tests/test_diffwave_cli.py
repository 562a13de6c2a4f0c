"""The commands: what they refuse, in which words, and what they leave behind."""

from __future__ import annotations

import json
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from diffwave_data import HOP, RATE_HZ, autoregression, settings, write_latent_folder

from diffwave import inference, preprocess, train
from diffwave.__main__ import PROGRAMS
from diffwave.conditions.spectrogram import LogMel, SpectrogramHeader
from rave.latent_dataset import LatentDataset
from rave.latents.folder import GENERATED, POSTERIOR_SAMPLE, LatentHeader
from rave.runs.recipes import list_recipes


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {f"{n}.npy": autoregression(4, 40, 0.9, seed) + 1 for seed, n in enumerate("abc")}


@pytest.fixture
def latents(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    write_latent_folder(tmp_path / "latents", arrays)
    return tmp_path / "latents"


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        noise = np.random.default_rng(seed).standard_normal(40 * HOP - 100) * 0.1
        soundfile.write(folder / f"{name}.wav", noise, RATE_HZ)
    return folder


def train_tiny(latents: Path, out: Path, *more: str) -> int:
    return train.main([str(latents), "--out", str(out), "--config", "tiny", *settings(), *more])


def refusal(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_ends_with_the_exit_code_of_its_command(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"diffwave.{program}"
    monkeypatch.setattr(sys, "argv", [name, "--no-such-option"])
    # What runs again, whose name a package has not.
    module = name + ".__main__" * (program == "experiments")
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(name, run_name="__main__")
    assert stop.value.code == 2
    assert ": error: " in capsys.readouterr().err


@pytest.mark.parametrize("recipe", list_recipes("diffwave"))
def test_every_recipe_resolves(
    recipe: str, latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train.main([str(latents), "--out", str(out), "--config", recipe, "--dry-run"]) == 0
    assert "RAW_SIZE = 4" in capsys.readouterr().out
    assert not out.exists()


def test_conditional_path_from_audio_to_latents(
    latents: Path, audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mels, run, out = tmp_path / "mels", tmp_path / "run", tmp_path / "out"
    options = [str(latents), str(audio), str(mels), "--mels", "8", "--mel-hop", "256", "--json"]
    assert preprocess.main(options) == 0
    assert json.loads(capsys.readouterr().out)["num_done"] == 3
    assert preprocess.main(options) == 0
    assert json.loads(capsys.readouterr().out)["num_unchanged"] == 3
    assert np.load(mels / "a.npy").shape == (8, 40 * 4)

    assert train_tiny(latents, run, "--spectrograms", str(mels), "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"zero", "white", "gaussian", "held_out_loss", "skill"} <= set(figures)
    assert sorted(p.name for p in run.iterdir()) == [
        "checkpoints", "config.gin", "data.json", "latents.json", "model.gin", "run.json",
        "skill.json", "split.json", "tensorboard",
    ]  # fmt: skip

    few = ["--steps", "3", "--count", "2", "--json"]
    follow = ["--spectrogram", str(mels / "a.npy"), "--guidance", "2"]
    assert inference.main([str(run), str(out), *follow, *few]) == 0
    assert json.loads(capsys.readouterr().out)["num_frames"] == 40
    header, trained_on = LatentHeader.read(out), LatentHeader.read(latents)
    assert (header.contents, header.codec) == (GENERATED, trained_on.codec)
    assert header.statistics == trained_on.statistics
    assert [(f.path, f.num_frames, f.source_num_samples) for f in header.files] == [
        ("generated_000.npy", 40, 40 * HOP), ("generated_001.npy", 40, 40 * HOP),
    ]  # fmt: skip
    assert LatentDataset(out)[1].shape == (4, 40)

    from_audio = ["--from-audio", str(audio / "a.wav"), "--guidance", "2"]
    assert inference.main([str(run), str(tmp_path / "out2"), *from_audio, *few]) == 0
    np.testing.assert_allclose(
        np.load(tmp_path / "out2" / "generated_001.npy"),
        np.load(out / "generated_001.npy"),
        atol=1e-4,
    )
    capsys.readouterr()

    code = inference.main([str(run), str(tmp_path / "x"), *follow, "--seconds", "9"])
    assert "--seconds 9.0 is longer than the condition, which lasts 2.56 s" in refusal(capsys, code)
    np.save(tmp_path / "wide.npy", np.zeros((9, 160), dtype=np.float32))
    code = inference.main(
        [str(run), str(tmp_path / "x"), "--spectrogram", str(tmp_path / "wide.npy")]
    )
    assert "(9, 160); float32 (8, 160) is needed" in refusal(capsys, code)
    assert not (tmp_path / "x").exists()

    header = replace(SpectrogramHeader.read(mels), codec="0ther")
    header.write(mels)
    code = train_tiny(latents, tmp_path / "run2", "--spectrograms", str(mels))
    message = refusal(capsys, code)
    assert "is of another codec (fingerprint 0ther, 4 dimensions, hop 1024 at 16000 Hz)" in message
    assert "('runs/codec', fingerprint c0dec, " in message
    assert not (tmp_path / "run2").exists()


def test_unconditional_run_generates_and_refuses_a_condition(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert train_tiny(latents, run) == 0
    assert "Held-out loss" in capsys.readouterr().out
    few = ["--steps", "2", "--count", "1", "--seconds", "1"]
    assert inference.main([str(run), str(out), *few]) == 0
    assert np.load(out / "generated_000.npy").shape == (4, round(RATE_HZ / HOP))
    capsys.readouterr()
    for more, words in {
        (): "already holds latents. Choose another folder, or add --force",
        ("--force", "--sampler", "heun"): "There is no sampler 'heun'",
        ("--force", "--steps", "0"): "allows 1 to 1000",
        ("--force", "--count", "0"): "--count is 0",
        ("--force", "--seconds", "-1"): "--seconds is -1.0",
        ("--force", "--guidance", "2"): "--guidance needs a condition",
        (
            "--force",
            "--spectrogram",
            str(out / "generated_000.npy"),
        ): "trained with no conditions, so it cannot follow spectrogram",
        ("--force", "--device", "tpu"): "There is no device 'tpu' here",
    }.items():
        code = inference.main([str(run), str(out), *few, *more])
        assert words in refusal(capsys, code)
    assert inference.main([str(run), str(out), *few, "--force"]) == 0
    (out / "latents.json").unlink()  # as an interrupted command leaves it
    assert inference.main([str(run), str(out), *few]) == 0
    code = inference.main([str(run), str(latents), *few, "--force"])
    assert "holds latents of real audio, which are never overwritten" in refusal(capsys, code)
    assert train_tiny(latents, latents) == 2

    capsys.readouterr()
    code = train_tiny(latents, run, "--set", "LEARNING_RATE=0.1")
    assert "holds a run with other settings" in refusal(capsys, code)
    write_latent_folder(
        tmp_path / "other", {f"{n}.npy": autoregression(4, 40, 0.9, 9) for n in "abc"}
    )
    (run / "split.json").unlink()  # of a run that does not say
    code = train_tiny(tmp_path / "other", run)
    assert "was started on other latents (120 frames; these have 120)" in refusal(capsys, code)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("SCHEDULE='sine'", "There is no schedule 'sine'. Choose one of: cosine"),
        ("PREDICTION='epsilon'", "Choose PREDICTION='v'"),
        ("LOSS='l2'", "There is no loss 'l2'"),
        ("WEIGHTING='snr'", "There is no weighting 'snr'. Choose one of: none, min-snr"),
        ("LERNING_RATE=1", "uses LERNING_RATE"),
        ("LATENT_SIZE=3", "LATENT_SIZE cannot be set"),
        ("FIDELITY=2", "FIDELITY is 2; it must be above 0 and at most 1"),
        ("BATCH_SIZE=0", "batch_size is 0; a whole number from 1 is needed"),
        ("LEARNING_RATE='fast'", "learning_rate is 'fast'; a value of type float is needed"),
        ("NUM_BLOCKS=0", "num_blocks is 0; a whole number from 1 is needed"),
        ("DILATION_CYCLE=0", "dilation_cycle is 0"),
        ("network.DiffWave.out_channels=1", "both must be the latent size"),
    ],
)
def test_training_refuses_a_bad_setting(
    setting: str, words: str, latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = train_tiny(latents, tmp_path / "run", "--set", setting)
    assert words in refusal(capsys, code)
    assert not (tmp_path / "run").exists()


def test_training_refuses_what_is_no_latent_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    code = train_tiny(tmp_path / "empty", tmp_path / "run")
    assert "is not a latent folder" in refusal(capsys, code)


def test_training_refuses_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_latent_folder(tmp_path / "z", {f"{n}.npy": np.zeros((4, 40), np.float32) for n in "ab"})
    code = train_tiny(tmp_path / "z", tmp_path / "run")
    assert "do not vary at all" in refusal(capsys, code)


def test_training_warns_of_sampled_posteriors(
    tmp_path: Path, arrays: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    write_latent_folder(tmp_path / "z", arrays, contents=POSTERIOR_SAMPLE)
    assert train_tiny(tmp_path / "z", tmp_path / "run", "--dry-run") == 0
    assert "Its uninformative dimensions are white noise" in capsys.readouterr().err


def test_training_warns_of_white_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = {f"{n}.npy": autoregression(2, 400, 0.0, seed) for seed, n in enumerate("abc")}
    write_latent_folder(tmp_path / "z", noise)
    assert train_tiny(tmp_path / "z", tmp_path / "run") == 0
    assert "warning: white-latents: " in capsys.readouterr().err


def test_training_stops_at_a_loss_that_is_not_finite(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge = ["--set", "LEARNING_RATE=1e30", "--set", "GRADIENT_CLIP_NORM=1e30"]
    code = train_tiny(latents, tmp_path / "run", *diverge)
    told = refusal(capsys, code)
    assert re.search(r"The loss became .* at step \d+, on '.*\.npy' at frame \d+, ", told)


def test_inference_refuses_a_folder_that_is_no_run(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = inference.main([str(latents), str(tmp_path / "out")])
    assert "is not a run folder" in refusal(capsys, code)


def test_preprocess_names_hops_and_skips_what_is_missing(
    latents: Path, audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mels = tmp_path / "mels"
    code = preprocess.main([str(latents), str(audio), str(mels), "--mel-hop", "300"])
    assert "hop of 1024 samples is not a whole multiple" in refusal(capsys, code)
    assert not mels.exists()
    (audio / "a.wav").unlink()
    (audio / "b.wav").write_text("not audio")
    assert preprocess.main([str(latents), str(audio), str(mels), "--mels", "8"]) == 1
    text = capsys.readouterr().out
    assert "2 skipped" in text
    assert "skipped a.npy" in text
    assert list(SpectrogramHeader.read(mels).files) == ["c.npy"]
    code = train_tiny(latents, tmp_path / "run", "--spectrograms", str(mels))
    assert "2 of 3 clips" in refusal(capsys, code)


@pytest.mark.parametrize("mel_hop", [100, 256, 2048])
def test_spectrogram_in_blocks_equals_the_whole(mel_hop: int) -> None:
    audio = np.random.default_rng(0).standard_normal(70_000).astype(np.float32)
    transform = LogMel(RATE_HZ, mel_hop, 8)
    num_mel_frames = 80_000 // mel_hop
    whole = np.concatenate(list(transform.blocks([audio], num_mel_frames)), axis=1)
    parts = np.concatenate(list(transform.blocks(np.split(audio, 1000), num_mel_frames)), axis=1)
    assert whole.shape == (8, num_mel_frames)
    np.testing.assert_array_equal(whole, parts)
    magnitude = audio_frame_magnitude(audio, 5, mel_hop)
    level = 20 * np.log10(np.maximum(transform._filters @ magnitude, 1e-5)) - 20
    np.testing.assert_allclose(whole[:, 5], np.clip((level + 100) / 100, 0, 1), atol=1e-5)


def audio_frame_magnitude(audio: np.ndarray, index: int, mel_hop: int) -> np.ndarray:
    """Return the spectrum around sample (index + 1/2) · hop, independently."""
    from scipy.signal import get_window

    window = get_window("hann", 1024)
    start = index * mel_hop + mel_hop // 2 - 512
    padded = np.concatenate([np.zeros(2048, np.float32), audio])[2048 + start :][:1024]
    return np.abs(np.fft.rfft(padded * window / np.linalg.norm(window)))


def test_silence_is_zero_and_a_click_lands_in_its_latent_frame() -> None:
    transform = LogMel(RATE_HZ, 256, 8)
    audio = np.zeros(10 * HOP, np.float32)
    assert next(transform.blocks([audio], 40)).max() == 0.0
    audio[5 * HOP + HOP // 2] = 1.0  # the middle of latent frame 5: mel frames 20 to 23
    energy = next(transform.blocks([audio], 40)).sum(axis=0)
    centre = (np.arange(40) * energy).sum() / energy.sum()
    assert centre == pytest.approx(21.5, abs=0.1)
