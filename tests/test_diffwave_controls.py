"""Controls: aligned to latent frames, the same in blocks and at once, right on known sounds."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from diffwave_data import HOP, RATE_HZ, autoregression, write_latent_folder

from diffwave import preprocess
from diffwave.conditions.controls import (
    CONTROLS,
    NUM_CHANNELS,
    ControlHeader,
    build_transform,
    open_control,
)
from rave.latents.folder import LatentHeader

NUM_FRAMES = 40


def control(name: str, audio: np.ndarray, num_frames: int = NUM_FRAMES) -> np.ndarray:
    blocks = build_transform(name, RATE_HZ, HOP).blocks([audio.astype(np.float32)], num_frames)
    return np.concatenate(list(blocks), axis=1)


def sine(frequency_hz: float, amplitude: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(NUM_FRAMES * HOP) / RATE_HZ)


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("num_frames", [1, 2, 700])
def test_a_control_in_blocks_equals_the_whole(name: str, num_frames: int) -> None:
    audio = np.random.default_rng(0).standard_normal(600 * HOP).astype(np.float32)
    whole = control(name, audio, num_frames)
    assert whole.shape == (NUM_CHANNELS[name], num_frames)
    assert whole.dtype == np.float32
    transform = build_transform(name, RATE_HZ, HOP)
    parts = list(transform.blocks(np.split(audio, 100), num_frames))
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


@pytest.mark.parametrize("name", ["loudness", "onsets"])
@pytest.mark.parametrize("frame", [0, 7, 39])
def test_a_click_lands_in_its_latent_frame(name: str, frame: int) -> None:
    audio = np.zeros(NUM_FRAMES * HOP)
    audio[frame * HOP + HOP // 2 :][:20] = 0.5
    assert control(name, audio)[0].argmax() == frame


def test_chroma_changes_in_the_frame_where_the_pitch_does() -> None:
    audio = np.concatenate([sine(440.0)[: 20 * HOP], sine(523.25)[: 20 * HOP]])
    strongest = control("chroma", audio).argmax(axis=0)
    assert strongest[:19].tolist() == [9] * 19  # A
    assert strongest[21:].tolist() == [0] * 19  # C


def test_loudness_is_level_weighted_as_the_ear_does() -> None:
    middle = slice(2, -2)
    full = control("loudness", sine(1000.0))[0, middle]
    np.testing.assert_allclose(full, -3.01, atol=0.05)
    half = control("loudness", sine(1000.0, 0.5))[0, middle]
    np.testing.assert_allclose(full - half, 6.02, atol=0.01)
    low = control("loudness", sine(100.0))[0, middle]
    np.testing.assert_allclose(full - low, 19.1, atol=0.3)  # IEC 61672: A(100 Hz) = -19.1 dB


def test_silence_is_quiet_without_pitch_or_onset() -> None:
    silence = np.zeros(NUM_FRAMES * HOP)
    assert (control("loudness", silence) == -80.0).all()
    assert (control("chroma", silence) == 0.0).all()
    assert (control("onsets", silence) == 0.0).all()


def test_chroma_of_a_quiet_tone_is_that_of_a_loud_one() -> None:
    loud, quiet = (control("chroma", sine(440.0, gain))[:, 5] for gain in (1.0, 0.01))
    np.testing.assert_allclose(loud, quiet, atol=0.02)
    assert loud.argmax() == 9
    assert loud.max() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("name", CONTROLS)
def test_memory_does_not_grow_with_the_length(name: str) -> None:
    def peak(num_frames: int) -> int:
        audio = (np.zeros(HOP, np.float32) for _ in range(num_frames))
        tracemalloc.start()
        for _ in build_transform(name, RATE_HZ, HOP).blocks(audio, num_frames):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what libraries keep
    assert peak(6000) < 1.2 * peak(1200)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    arrays = {f"{n}.npy": autoregression(4, NUM_FRAMES, 0.9, seed) for seed, n in enumerate("abc")}
    write_latent_folder(tmp_path / "latents", arrays)
    (tmp_path / "audio").mkdir()
    for seed, name in enumerate("abc"):
        noise = np.random.default_rng(seed).standard_normal(NUM_FRAMES * HOP - 100) * 0.1
        soundfile.write(tmp_path / "audio" / f"{name}.wav", noise, RATE_HZ)
    return tmp_path / "latents", tmp_path / "audio"


def test_folder_of_controls_takes_in_another_control(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [*map(str, folders), str(tmp_path / "controls")]
    assert preprocess.main([*paths, "--controls", "loudness", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_done"] == 3
    assert preprocess.main([*paths, "--controls", "chroma", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_done"], figures["num_unchanged"]) == (3, 3)
    header = ControlHeader.read(tmp_path / "controls")
    assert header.controls == {"loudness": 1, "chroma": 12}
    assert header.files == {"a.npy": 40, "b.npy": 40, "c.npy": 40}
    for name, channels in header.controls.items():
        array = np.load(tmp_path / "controls" / name / "a.npy")
        assert (array.shape, array.dtype) == ((channels, NUM_FRAMES), np.float32)
    assert preprocess.main([*paths, "--controls", "--json"]) == 0
    capsys.readouterr()
    assert list(ControlHeader.read(tmp_path / "controls").controls) == list(CONTROLS)


def test_folder_of_controls_is_checked(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents, audio = folders
    out = tmp_path / "controls"
    assert preprocess.main([str(latents), str(audio), str(out), "--controls", "pitch"]) == 2
    assert "no control 'pitch'. Choose from: loudness, chroma, onsets" in capsys.readouterr().err
    assert not out.exists()
    (audio / "a.wav").write_text("not audio")
    assert preprocess.main([str(latents), str(audio), str(out), "--controls", "loudness"]) == 1
    header, made_for = ControlHeader.read(out), LatentHeader.read(latents)
    assert list(header.files) == ["b.npy", "c.npy"]
    with pytest.raises(ValueError, match="1 of 3 clips of these latents have no control"):
        header.check_matches(made_for, "these", "these latents")
    with pytest.raises(ValueError, match=r"another codec \(fingerprint 0ther,.* Make the controls"):
        replace(header, codec="0ther").check_matches(made_for, "these", "those")
    with pytest.raises(ValueError, match=r"holds no control 'chroma', only loudness"):
        header.check_has(["chroma"], out)
    capsys.readouterr()
    assert preprocess.main([str(latents), str(audio), str(out)]) == 2
    assert "holds controls. Add --controls, or choose another folder" in capsys.readouterr().err


def test_a_drawn_control_must_have_its_channels(tmp_path: Path) -> None:
    np.save(tmp_path / "curve.npy", np.zeros(40, np.float32))
    assert open_control(tmp_path / "curve.npy", "loudness").shape == (1, 40)
    with pytest.raises(ValueError, match=r"chroma needs float32 \(12, 40\)"):
        open_control(tmp_path / "curve.npy", "chroma")
    with pytest.raises(ValueError, match="Cannot read the control"):
        open_control(tmp_path / "none.npy", "chroma")
