"""Models of audio of lmnt diffwave give here what they give there; golden/README.md."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from diffwave import diagnose, export, inference, vocode
from diffwave.conditions.spectrogram import LogMel
from diffwave.upstream.vocoder import read_vocoder, vocoder_from_checkpoint

GOLDEN = Path(__file__).parent / "golden" / "lmnt_diffwave.npz"
KINDS = ["conditional", "unconditional"]
RATE_HZ = 22050


@pytest.fixture(scope="module")
def arrays() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}


def make_checkpoint(arrays: dict[str, torch.Tensor], kind: str, **params: Any) -> dict[str, Any]:
    weights = {k.removeprefix("weights/"): v for k, v in arrays.items() if "weights/" in k}
    known = {
        "sample_rate": RATE_HZ,
        "n_mels": 8,
        "n_fft": 1024,
        "hop_samples": 256,
        "residual_layers": 4,
        "residual_channels": 4,
        "dilation_cycle_length": 3,
        "noise_schedule": np.linspace(1e-4, 0.05, 8).tolist(),
        "inference_noise_schedule": [1e-4, 0.01, 0.08],
    }
    if kind == "unconditional":
        known |= {"unconditional": True, "audio_len": 1100}
        parts = ("spectrogram_upsampler", "conditioner_projection")
        weights = {k: v for k, v in weights.items() if not any(part in k for part in parts)}
    params = {name: value for name, value in (known | params).items() if value is not None}
    return {"step": 7, "model": weights, "optimizer": {}, "params": params, "scaler": {}}


def write_run(folder: Path, checkpoint: dict[str, Any], is_link: bool = True) -> Path:
    folder.mkdir(parents=True)
    torch.save(checkpoint, folder / "weights-7.pt")
    if is_link:
        (folder / "weights.pt").symlink_to("weights-7.pt")
    else:
        (folder / "weights.pt").write_text("weights-7.pt")
    return folder


@pytest.mark.parametrize("is_dangling", [True, False])
def test_newest_checkpoint_stands_for_a_lost_link(
    is_dangling: bool, arrays: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", make_checkpoint(arrays, "unconditional"))
    (run / "weights.pt").unlink()
    if is_dangling:
        (run / "weights.pt").symlink_to("/nowhere/weights-9.pt")
    torch.save(make_checkpoint(arrays, "unconditional") | {"step": 10}, run / "weights-10.pt")
    found = read_vocoder(run)
    assert found is not None and found.num_steps == 10


def write_spectrogram(path: Path, arrays: dict[str, torch.Tensor]) -> Path:
    np.save(path, arrays["spectrogram"][0].numpy())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_network_and_samples_are_theirs(kind: str, arrays: dict[str, torch.Tensor]) -> None:
    model = vocoder_from_checkpoint(make_checkpoint(arrays, kind), "it").model
    spectrogram = arrays["spectrogram"] if kind == "conditional" else None
    audio = arrays[f"{kind}/audio"]
    for name, step in (("int", torch.tensor([0, 5])), ("float", torch.tensor([2.37]))):
        expected = arrays[f"{kind}/out_{name}"][:, 0]
        assert expected.std() > 0.1
        torch.testing.assert_close(model(audio, step, spectrogram), expected, atol=1e-5, rtol=1e-5)
    one = None if spectrogram is None else spectrogram[:1]
    for name in ("fast", "full"):
        generator = torch.Generator().manual_seed(77)
        noise = torch.randn(1, audio.shape[1], generator=generator)
        found = model.sample(noise, one, generator, name == "fast")
        limited = found.clamp(-1, 1)  # they do it themselves, here the writer does and counts
        torch.testing.assert_close(limited, arrays[f"{kind}/{name}"], atol=1e-5, rtol=1e-5)


def test_step_embedding_is_theirs(arrays: dict[str, torch.Tensor]) -> None:
    model = vocoder_from_checkpoint(make_checkpoint(arrays, "conditional"), "it").model
    found = model.network.step(model.step_table)
    torch.testing.assert_close(found, arrays["conditional/embed"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece_frames", [1, 5])
def test_pieces_equal_the_whole(
    kind: str, piece_frames: int, arrays: dict[str, torch.Tensor]
) -> None:
    model = vocoder_from_checkpoint(make_checkpoint(arrays, kind), "it").model
    spectrogram = torch.rand(1, 8, 12) if kind == "conditional" else None
    noise = torch.randn(1, 12 * 256 - (0 if kind == "conditional" else 100))
    whole, pieces = (
        model.sample(
            noise, spectrogram, torch.Generator().manual_seed(0), is_fast=True, piece_frames=size
        )
        for size in (12, piece_frames)
    )
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


def test_steps_of_the_default_schedules_are_those_of_the_paper() -> None:
    from diffwave.upstream.vocoder import FAST_BETAS
    from diffwave.upstream.waveform import WaveformDiffusion

    model = WaveformDiffusion(0, 1, 1, 1, np.linspace(1e-4, 0.05, 50).tolist(), FAST_BETAS)
    steps = [0.0, 0.894134, 4.086654, 10.451817, 22.992493, 42.918643]
    np.testing.assert_allclose(model.steps_of(FAST_BETAS), steps, atol=1e-6)
    np.testing.assert_allclose(model.steps_of(model.betas), np.arange(50), atol=1e-9)
    with pytest.raises(ValueError, match="Noise level 1 of 1"):
        model.steps_of([1e-5])


def test_spectrogram_is_theirs(arrays: dict[str, torch.Tensor]) -> None:
    audio = (arrays["pcm"].numpy() / 32767.5).astype(np.float32)
    found = LogMel(RATE_HZ, 256, 80).of_lmnt_diffwave(audio)
    np.testing.assert_allclose(found, arrays["mel"].numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="512 samples; a spectrogram needs more than 512"):
        LogMel(RATE_HZ, 256, 80).of_lmnt_diffwave(audio[:512])


@pytest.mark.parametrize("is_link", [True, False])
def test_command_writes_their_audio(
    is_link: bool,
    arrays: dict[str, torch.Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = write_run(tmp_path / "run", make_checkpoint(arrays, "conditional"), is_link)
    mel = write_spectrogram(tmp_path / "a.wav.spec.npy", arrays)
    for name, flags in (("full", []), ("fast", ["--fast"])):
        out = tmp_path / f"{name}.wav"
        options = ["--spectrogram", str(mel), "--seed", "77", "--json", *flags]
        assert vocode.main([str(run), str(out), *options]) == 0
        printed, err = capsys.readouterr()
        figures = json.loads(printed)
        assert (figures["train_steps"], figures["num_steps"]) == (7, 3 if flags else 8)
        audio, rate_hz = soundfile.read(out)
        num_limited = figures["num_limited_samples"].get(str(out), 0)
        assert abs(num_limited - (abs(audio) > 0.99996).sum()) <= 2
        assert (num_limited > 0) == (f"{num_limited} samples beyond full scale were" in err)
        assert rate_hz == RATE_HZ
        np.testing.assert_allclose(audio, arrays[f"conditional/{name}"][0].numpy(), atol=1e-4)


def test_folder_of_items_by_seed(arrays: dict[str, torch.Tensor], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_checkpoint(arrays, "unconditional"))
    out, options = tmp_path / "out", ["--seconds", "0.02", "--fast"]
    assert vocode.main([str(run / "weights.pt"), str(out), "--count", "2", *options]) == 0
    one = tmp_path / "one.flac"
    assert vocode.main([str(run), str(one), "--seed", "1", *options]) == 0
    items = [soundfile.read(path)[0] for path in sorted(out.iterdir())]
    assert [len(item) for item in items] == [441, 441]
    np.testing.assert_array_equal(items[1], soundfile.read(one)[0])
    assert np.abs(items[0] - items[1]).max() > 0.1


def test_preprocessed_audio_is_what_from_audio_follows(
    arrays: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", make_checkpoint(arrays, "conditional"))
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    soundfile.write(recordings / "a.wav", arrays["pcm"].numpy(), RATE_HZ)
    soundfile.write(recordings / "short.wav", arrays["pcm"].numpy()[:99], RATE_HZ)
    arguments = [str(recordings), str(recordings), "--make-spectrograms", "--mels", "8"]
    assert vocode.main(arguments) == 1  # the short one is named and skipped
    assert "skipped short.wav: " in capsys.readouterr().out
    mel = recordings / "a.wav.spec.npy"
    assert np.load(mel).shape == (8, 24)
    for name, option in (
        ("one", ["--spectrogram", str(mel)]),
        ("two", ["--from-audio", str(recordings / "a.wav")]),
    ):
        out = str(tmp_path / f"{name}.wav")
        assert vocode.main([str(run), out, "--fast", *option]) == 0
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()


@pytest.mark.parametrize("option", ["--spectrogram", "--from-audio"])
def test_each_of_a_folder_is_what_it_is_alone(
    option: str,
    arrays: dict[str, torch.Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = write_run(tmp_path / "run", make_checkpoint(arrays, "conditional"))
    folder, out = tmp_path / "recordings", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    pcm = arrays["pcm"].numpy()
    for name, audio in (("a.wav", pcm), ("sub/b.wav", pcm[::-1]), ("sub/b.flac", pcm[:4000])):
        soundfile.write(folder / name, audio, RATE_HZ)
    assert vocode.main([str(folder), str(folder), "--make-spectrograms", "--mels", "8"]) == 0
    np.save(folder / "bad.wav.spec.npy", np.zeros((3, 2), np.float32))
    (folder / "bad.wav").write_bytes(b"no audio")
    capsys.readouterr()
    arguments = [str(run), str(out), option, str(folder), "--fast", "--seed", "5"]
    assert vocode.main([*arguments, "--json"]) == 1  # the bad one is named and skipped
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_done"], list(figures["skipped"])) == (3, ["bad.wav"])
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.wav"))
    assert made == ["a.wav", "sub/b.flac.wav", "sub/b.wav.wav"]
    source = folder / ("sub/b.wav" + (".spec.npy" if option == "--spectrogram" else ""))
    alone = tmp_path / "alone.wav"
    assert vocode.main([str(run), str(alone), option, str(source), *arguments[4:]]) == 0
    assert alone.read_bytes() == (out / "sub/b.wav.wav").read_bytes()
    assert vocode.main([*arguments, "--json"]) == 1
    assert '"num_unchanged": 3' in capsys.readouterr().out


def test_folder_is_checked_before_any_work(
    arrays: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", make_checkpoint(arrays, "conditional"))
    free = write_run(tmp_path / "free", make_checkpoint(arrays, "unconditional"))
    folder, out, empty = tmp_path / "recordings", tmp_path / "out", tmp_path / "empty"
    folder.mkdir()
    empty.mkdir()
    out.mkdir()
    write_spectrogram(folder / "a.wav.spec.npy", arrays)
    soundfile.write(folder / "a.wav", arrays["pcm"].numpy(), RATE_HZ)
    before = (folder / "a.wav").read_bytes()
    (out / "a.wav").write_text("mine")
    following = ["--spectrogram", str(folder)]
    for options, words in (
        ([run, tmp_path / "new", *following, "--count", "2"], "--count does not work with a "),
        ([run, folder, *following, "--force"], "is inside the input folder"),
        ([run, out, *following], "exists. Add --force"),
        ([run, tmp_path / "new.wav", "--spectrogram", empty], "no files that end in .spec.npy"),
        ([free, tmp_path / "new", *following], "trained without spectrograms"),
        ([tmp_path / "none", out, "--fast"], "does not exist. Give a waveform run"),
    ):
        assert vocode.main([str(option) for option in options]) == 2
        assert words in capsys.readouterr().err
    assert (folder / "a.wav").read_bytes() == before
    assert (out / "a.wav").read_text() == "mine"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"residual_channels": 5}, "weight 'input_projection.weight' is (4, 1, 1); (5, 1, 1)"),
        ({"residual_layers": 3}, "weights that do not belong to"),
        ({"residual_layers": None}, "has no 'residual_layers'"),
        ({"hop_samples": 300}, "hop_samples = 300 in its params; 256 (the factor"),
        ({"noise_schedule": [0.1, 1.0]}, "a list of betas from 0 to 0.999"),
        ({"noise_schedule": [0.1]}, "at least two"),
        ({"inference_noise_schedule": "fast"}, "inference_noise_schedule = 'fast'"),
        ({"unconditional": True, "audio_len": 9}, "weights that do not belong to"),
    ],
)
def test_odd_params_are_refused_by_name(
    params: dict[str, Any], words: str, arrays: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(ValueError) as refused:
        vocoder_from_checkpoint(make_checkpoint(arrays, "conditional", **params), "'weights.pt'")
    assert words in str(refused.value)


def test_what_does_not_fit_is_refused(
    arrays: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vocoder = write_run(tmp_path / "vocoder", make_checkpoint(arrays, "conditional"))
    free = write_run(tmp_path / "free", make_checkpoint(arrays, "unconditional"))
    low = make_checkpoint(arrays, "conditional", inference_noise_schedule=[1e-6])
    outside = write_run(tmp_path / "outside", low)
    mel = write_spectrogram(tmp_path / "a.npy", arrays)
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.full((8, 2), np.nan, np.float32))
    out, follow = tmp_path / "out", ["--spectrogram", str(mel)]
    for run, options, words in (
        (vocoder, [], "add --spectrogram F.spec.npy"),
        (vocoder, [*follow, "--seconds", "1"], "which sets the length"),
        (vocoder, ["--spectrogram", str(tmp_path / "pickle.npy")], "Cannot read spectrogram"),
        (vocoder, ["--spectrogram", str(tmp_path / "nan.npy")], "NaN or infinite"),
        (free, follow, "trained without spectrograms. Leave out --spectrogram"),
        (free, ["--seconds", "-1"], "it must be above 0"),
        (free, ["--count", "0"], "at least 1 is needed"),
        (outside, [*follow, "--fast"], "outside the training schedule"),
    ):
        assert vocode.main([str(run), str(out), *options]) == 2
        assert words in capsys.readouterr().err
    assert not out.exists()
    assert vocode.main([str(free), str(mel)]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    mels = ["--make-spectrograms", "--mels"]
    for options, words in (
        ([*mels, "8", "--count", "2"], "--count does not work with --make-spectrograms"),
        ([*mels, "8", "--fast"], "--fast does not work with --make-spectrograms"),
        ([*mels, "0"], "--mels is 0; at least 1 is needed"),
        (["--mels", "8"], "--mels works only with --make-spectrograms"),
        ([], "is not a waveform run of lmnt diffwave. python -m diffwave.inference generates"),
    ):
        assert vocode.main([str(tmp_path), str(out), *options]) == 2
        assert words in capsys.readouterr().err
    for command, more in ((diagnose, []), (export, [str(out)]), (inference, [str(out)])):
        assert command.main([str(vocoder), *more]) == 2
        error = capsys.readouterr().err
        assert "is a model of audio, not of latents" in error
        assert "Use it with python -m diffwave.vocode" in error


class Malice:
    """Pickles into a call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_never_runs(
    arrays: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    malicious = make_checkpoint(arrays, "unconditional") | {"more": Malice(tmp_path / "touched")}
    run = write_run(tmp_path / "run", malicious)
    assert vocode.main([str(run), str(tmp_path / "out.wav")]) == 2
    (run / "weights-7.pt").write_bytes(pickle.dumps(malicious))
    assert vocode.main([str(run), str(tmp_path / "out.wav")]) == 2
    assert "Cannot read checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()
