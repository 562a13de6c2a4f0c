"""The file for nn~ that plays a diffusion model, and the command that writes it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffwave_data import autoregression, settings, write_latent_folder
from nn_host import Host, check_methods_in_turn, check_switches, unknown_operators
from rave_models import SHORT, codec_of, remember, small_model, write_run

import rave.codec
import rave.codec_source
from diffwave import export, train
from diffwave.conditions.controls import ControlHeader
from diffwave.run import open_run
from diffwave.sampling.generation import Sampling
from diffwave.sampling.overlap import Windows
from rave.codec import Codec, load_run
from rave.codec_format import CodecFormat
from rave.latents.folder import write_latents
from rave.main_cli import main as rave_main
from rave.upstream.torchscript import CroppedRAVE

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
NUM_FRAMES, HOP = 60, 64
Runs = dict[str, Path]


def write_latents_of(form: CodecFormat, folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a latent folder as if a codec had made it."""
    header, rate_hz = write_latent_folder(folder, arrays, form.fingerprint), form.sample_rate_hz
    sizes = {"source_sample_rate_hz": rate_hz, "source_num_samples": NUM_FRAMES * HOP}
    files = [replace(file, **sizes) for file in header.files]
    replace(header, sample_rate_hz=rate_hz, hop_samples=HOP, files=files).write(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return a codec, a model of its latents, and one that follows loudness and labels."""
    folder = tmp_path_factory.mktemp("runs")
    codec = write_run(folder / "codec", "v2", *SHORT)
    form = load_run(codec)[1]
    arrays = {
        f"{label}/{name}.npy": 30 * autoregression(4, NUM_FRAMES, 0.9, seed) + 5
        for seed, (label, name) in enumerate(("xa", "xb", "yc", "yd"))
    }
    write_latents_of(form, folder / "latents", arrays)
    for path in arrays:
        write_latents(folder / "controls" / "loudness" / path, [arrays[path][:1]], 1)
    ControlHeader(
        form.fingerprint,
        form.sample_rate_hz,
        HOP,
        {"loudness": 1},
        dict.fromkeys(arrays, NUM_FRAMES),
    ).write(folder / "controls")
    follow = ["--controls", str(folder / "controls"), "loudness", "--labels"]
    for name, options in (("plain", []), ("follows", follow)):
        arguments = [str(folder / "latents"), "--out", str(folder / name), "--config", "tiny"]
        assert train.main([*arguments, *settings(), *options]) == 0
    return {name: folder / name for name in ("codec", "plain", "follows", "latents")}


def write(runs: Runs, out: Path, *options: str, name: str = "plain") -> Host:
    given = [str(runs[name]), str(out), "--codec", str(runs["codec"])]
    assert export.main([*given, "--window", "0.08", "--noise-seed", "7", *options]) == 0
    return Host(out)


@pytest.fixture(scope="module")
def host(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Host:
    return write(runs, tmp_path_factory.mktemp("nn") / "live.ts", "--steps", "5")


def play(host: Host, num_frames: int, blocks: int = 1, batch: int = 1) -> torch.Tensor:
    host.set("reset", 1)
    return host.play("sample", torch.zeros(batch, 1, num_frames * HOP), blocks * HOP)


@torch.inference_mode()
def test_the_host_finds_what_it_asks_for(host: Host) -> None:
    assert host.methods == ["encode", "decode", "forward", "sample"]
    assert host.params["sample"] == [1, HOP, 1, 1]
    for name in host.methods:
        host.self_test(name, 8192)
    assert host.module.get_steps() == [5]
    assert host.module.sample_input_labels == ["unused"]
    names = {"seed", "reset", "rate_hz", "latency", "steps", "temperature", "sample_latency"}
    assert set(host.codes) == names


@torch.inference_mode()
def test_a_method_plays_after_another_as_in_a_new_file(host: Host) -> None:
    assert unknown_operators(host.path) == set()
    check_methods_in_turn(host.path)


def generated(runs: Runs, num_frames: int) -> tuple[torch.Tensor, int]:
    """Return raw latents of the files' sampling, and how many come before the last window."""
    run = open_run(runs["plain"])
    frames = round(0.08 * run.header.frame_rate_hz)
    windows = Windows.of(run.model, frames)
    sampling = Sampling(run.model, [0], 7, num_steps=5, windows=windows)
    return sampling.generate(num_frames), num_frames - frames


@torch.inference_mode()
@pytest.mark.parametrize("blocks", [1, 4, 64])
def test_the_host_hears_the_seed_of_a_file_decoded(runs: Runs, host: Host, blocks: int) -> None:
    raw, num_kept = generated(runs, 192)
    wanted = load_run(runs["codec"])[0].decode(raw)
    late = host.module.get_sample_latency()[0]
    found = play(host, 192, blocks)[..., late:]
    kept = num_kept * HOP - late
    assert (found - wanted[..., :-late])[..., :kept].abs().max() < 1e-4 * wanted.abs().max()
    assert wanted.abs().max() > 0


@torch.inference_mode()
def test_a_reset_begins_the_music_again_and_a_seed_is_heard_from_then_on(host: Host) -> None:
    first = play(host, 40)
    assert torch.equal(play(host, 40), first)
    host.set("seed", 8)
    other = play(host, 40)
    assert not torch.allclose(other, first, rtol=1e-2)
    assert torch.allclose(play(host, 40, batch=2)[:1], other, atol=1e-5 * float(other.abs().max()))
    host.set("temperature", 0.0)
    assert not torch.allclose(play(host, 40), other, rtol=1e-2)
    host.set("temperature", 1.0)
    host.set("seed", 7)
    assert torch.equal(play(host, 40), first)


@torch.inference_mode()
def test_attributes_that_make_no_sense_are_refused(host: Host) -> None:
    for steps in (0, -1, 51):
        assert not host.set("steps", steps)
    for temperature in (-1.0, float("nan"), float("inf")):
        assert not host.set("temperature", temperature)
    assert not host.set("sample_latency", 0)
    assert host.get("steps") == 5
    assert host.get("temperature") == 1.0


@torch.inference_mode()
def test_a_model_follows_its_controls_a_window_late(runs: Runs, tmp_path: Path) -> None:
    host = write(runs, tmp_path / "live.ts", name="follows")
    module: Any = host.module
    assert host.params["sample"] == [2, HOP, 1, 1]
    assert module.sample_input_labels == ["label", "loudness"]
    frames = round(0.08 * 44100 / HOP)
    context = open_run(runs["follows"]).model.network.receptive_field_frames // 2
    late = (frames + context) * HOP + module.decode_latency_samples
    assert host.get("sample_latency") == late
    host.self_test("sample", 8192)
    assert unknown_operators(tmp_path / "live.ts") == set()
    check_methods_in_turn(tmp_path / "live.ts")
    check_switches(host)

    def played(label: float, loudness: float) -> torch.Tensor:
        host.set("reset", 1)
        rows = torch.tensor([label, loudness])[None, :, None].expand(1, 2, 160)
        return torch.cat([module.sample(part) for part in rows.split(8, 2)], 2)

    first = played(0.0, 10.0)
    assert float(first[..., :late].abs().max()) == 0.0
    assert not torch.allclose(first, played(1.0, 10.0), rtol=1e-2)
    assert not torch.allclose(first, played(0.0, 50.0), rtol=1e-2)
    assert module.set_follow_chroma(1) != 0
    assert host.set("follow_loudness", 0)
    assert host.get("follow_loudness") == 0
    assert torch.equal(played(0.0, 10.0), played(0.0, 50.0))
    assert torch.equal(played(-1.0, 0.0), played(-2.0, 0.0))  # no label
    plain = played(1.0, 0.0)
    host.set("guidance", 3.0)
    assert host.get("guidance") == 3.0
    assert not torch.allclose(plain, played(1.0, 0.0), rtol=1e-2)


@torch.inference_mode()
def test_what_latents_do_not_say_is_filled_with_noise(runs: Runs, tmp_path: Path) -> None:
    codec = Path(shutil.copytree(runs["codec"], tmp_path / "codec"))
    remember(codec, True, True, True, False)
    host = write({**runs, "codec": codec}, tmp_path / "live.ts", "--steps", "5")
    module: Any = host.module
    raw, num_kept = generated(runs, 128)
    noise = module.filling.normal(7, 0, 128, raw)
    raw[:, 3:] = (module.noise_mean + module.noise_std * noise)[:, 3:]
    wanted, late = load_run(runs["codec"])[0].decode(raw), module.get_sample_latency()[0]
    kept = num_kept * HOP - late
    found = play(host, 128)[..., late:]
    assert (found - wanted[..., :-late])[..., :kept].abs().max() < 1e-4 * wanted.abs().max()


def test_a_file_of_acids_rave_is_a_codec_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its latents are the first principal ones; noise fills the others."""
    theirs, opened = tmp_path / "theirs.ts", codec_of(small_model("v2", *SHORT))
    theirs.touch()
    form = replace(opened.format, latent_size=3, fingerprint="theirs")
    seen = Codec(CroppedRAVE(opened.network, 3), form, theirs, opened.device)
    load = rave.codec.load_codec
    monkeypatch.setattr(
        rave.codec, "load_codec", lambda p, *a, **k: seen if p == theirs else load(p, *a, **k)
    )
    arrays = {f"{n}.npy": autoregression(3, NUM_FRAMES, 0.9, seed) for seed, n in enumerate("ab")}
    write_latents_of(form, tmp_path / "latents", arrays)
    arguments = [str(tmp_path / "latents"), "--out", str(tmp_path / "run"), "--config", "tiny"]
    assert train.main([*arguments, *settings()]) == 0
    host = write({"plain": tmp_path / "run", "codec": theirs}, tmp_path / "live.ts")
    assert host.params["decode"] == [3, HOP, 1, 1]
    first = play(host, 40)
    assert float(first.abs().max()) > 0
    assert (play(host, 40, 8) - first).abs().max() < 1e-4 * first.abs().max()


def test_no_export_of_a_diffusion_model_appears_that_is_beyond_the_bound(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rave.codec_source, "LARGEST_DIFFERENCE", -1.0)
    codec = ["--codec", str(runs["codec"])]
    for name, out, *options in (["follows", "a.ts", *codec], ["plain", "lmnt"]):
        assert export.main([str(runs[name]), str(tmp_path / out), *options]) == 2
        assert "was not written: it would differ" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_refused(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, codec, out = str(runs["plain"]), str(runs["codec"]), str(tmp_path / "a.ts")
    other = str(write_run(tmp_path / "other", "v2", *SHORT, seed=1))
    (tmp_path / "there.ts").touch()
    ours = str(tmp_path / "ours.ts")
    assert rave_main(["export", codec, ours]) == 0
    for arguments, words in (
        ([run, out], "add --codec RUN"),
        ([run, str(tmp_path / "folder"), "--noise-seed", "0"], "--noise-seed is only for nn~;"),
        (
            [run, out, "--codec", ours],
            "cannot be exported again. Give the run that it was exported from",
        ),
        ([run, out, "--codec", other], "is of another codec"),
        ([run, str(tmp_path / "there.ts"), "--codec", codec], "exists. Choose another name"),
        ([run, out, "--codec", codec, "--steps", "0"], "--steps is 0; it must be from 1 to 50"),
        ([run, out, "--codec", codec, "--sampler", "ddpm"], "There is no sampler for nn~ 'ddpm'"),
        ([run, out, "--codec", codec, "--window", "0.001"], "is too short: it shares"),
        ([run, out, "--codec", codec, "--host-rate", "48000"], "A host at 48000 Hz cannot run"),
        ([run, str(tmp_path / "folder"), "--codec", codec], "--codec is only for nn~"),
        ([codec, out, "--codec", codec], "is a rave run; a diffwave run is needed"),
    ):
        assert export.main(arguments) == 2
        assert words in capsys.readouterr().err
    assert not Path(out).exists()
