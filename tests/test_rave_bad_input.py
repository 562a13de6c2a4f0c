"""What `rave encode` and `rave decode` do with input that cannot be used."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from audio_files import cut, noise, sine, write
from rave_models import remember, write_run
from rave_runs import checkpoint

from rave.latents.folder import LatentHeader
from rave.runs.checkpoint import last_checkpoint


@pytest.fixture(scope="module")
def encoded(run, tmp_path_factory):
    """Two files and their latents."""
    from rave.main_cli import main

    folder = tmp_path_factory.mktemp("encoded")
    for name, frequency_hz in (("a", 300), ("b", 900)):
        write(
            folder / "audio" / f"{name}.wav", sine(frequency_hz, 22050, 0.5) + noise(11025), 22050
        )
    assert main(["encode", str(run), str(folder / "audio"), str(folder / "latents")]) == 0
    return folder / "latents"


@pytest.fixture
def latents(encoded, tmp_path):
    """The same latents, to be spoilt."""
    return shutil.copytree(encoded, tmp_path / "latents")


def edit_header(folder, **changes):
    path = folder / "latents.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# Audio


def test_bad_files_among_good_ones_are_named_and_the_rest_is_done(run, tmp_path, rave):
    folder = tmp_path / "audio"
    write(folder / "good.wav", noise(3000), 22050)
    write(folder / "silent.wav", np.zeros((1, 3000), np.float32), 22050)
    write(folder / "nan.wav", np.full((1, 300), np.nan, np.float32), 22050, subtype="FLOAT")
    cut(write(folder / "cut.flac", noise(30_000), 22050))
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("no audio")
    code, out, err = rave("encode", run, folder, tmp_path / "latents")
    assert code == 1
    assert "Encoded 2 files, 0 unchanged, 4 skipped:" in out
    bad = {"nan.wav", "cut.flac", "empty.wav", "text.mp3"}
    assert all(f"skipped {name}: " in text for name in bad for text in (out, err))
    header = LatentHeader.read(tmp_path / "latents")
    assert [entry.path for entry in header.files] == ["good.npy", "silent.npy"]
    assert set(header.skipped) == bad
    assert rave("decode", run, tmp_path / "latents", tmp_path / "out")[0] == 0


def test_only_bad_files_are_an_error_and_leave_no_header(run, tmp_path, rave):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "empty.wav").touch()
    code, out, err = rave("encode", run, tmp_path / "audio", tmp_path / "latents")
    assert (code, out) == (2, "")
    assert "rave encode: error: No file of" in err
    assert "skipped empty.wav: " in err
    assert not (tmp_path / "latents" / "latents.json").exists()


@pytest.mark.parametrize(
    ("codec", "source", "target", "message"),
    [
        ("{run}", "none", "out", r"'.*none' does not exist"),
        ("{run}", ".", "out", r"holds no audio files"),
        ("none", "audio", "out", r"'.*none' does not exist"),
        ("audio", "audio", "out", r"is not a run folder"),
        ("{run}", "audio", "audio/out", r"is inside the input folder"),
        ("{run}", "audio", "file", r"'.*file' is a file"),
    ],
)
def test_encode_says_what_is_wrong_with_a_path(run, tmp_path, rave, codec, source, target, message):
    write(tmp_path / "audio" / "a.wav", noise(300), 22050)
    (tmp_path / "file").touch()
    source = "empty" if source == "." else source
    (tmp_path / "empty").mkdir()
    where = run if codec == "{run}" else tmp_path / codec
    code, out, err = rave("encode", where, tmp_path / source, tmp_path / target)
    assert (code, out) == (2, "")
    assert re.search(f"^rave encode: error: .*{message}", err, re.MULTILINE)
    assert not (tmp_path / "out").exists()


# Latents


def test_latents_of_another_codec_are_refused_with_both_fingerprints(run, latents, tmp_path, rave):
    settings = ("RATIOS=[2, 2]", "DILATIONS=[[1], [1]]", "SAMPLE_RATE_HZ=22050")
    other = write_run(tmp_path / "other", "v2", *settings)
    code, _, err = rave("decode", other, latents, tmp_path / "out")
    assert code == 2
    fingerprints = re.findall(r"fingerprint ([0-9a-f]{16})", err)
    assert len(set(fingerprints)) == 2
    assert str(run) in err
    assert str(other) in err
    assert not (tmp_path / "out").exists()


def test_latents_of_other_sizes_are_refused_with_both_sizes(latents, tmp_path, rave):
    other = write_run(tmp_path / "other", "v2")
    code, _, err = rave("decode", other, latents, tmp_path / "out")
    assert code == 2
    assert "4 dimensions, hop 64 at 22050 Hz" in err
    assert "4 dimensions, hop 2048 at 44100 Hz" in err


def test_a_header_that_cannot_be_read_is_refused(run, latents, tmp_path, rave):
    def error():
        code, _, err = rave("decode", run, latents, tmp_path / "out")
        assert code == 2
        return err

    edit_header(latents, version=99)
    assert "a latent folder of format 99; this program reads 1" in error()
    edit_header(latents, version=1, files=[{"path": "a.npy"}])
    assert "is not a complete header of a latent folder" in error()
    edit_header(latents, format="else")
    assert "is not the header of a latent folder" in error()
    (latents / "latents.json").write_text("{")
    assert "is not valid JSON" in error()
    (latents / "latents.json").unlink()
    assert f"'{latents}' is not a latent folder" in error()
    assert not (tmp_path / "out").exists()


def spoil_nan(path):
    array = np.load(path)
    array[1, 3] = np.nan
    np.save(path, array)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "Cannot read latents"),
        (lambda path: path.write_text("no array"), "Cannot read latents"),
        (lambda path: path.unlink(), "No such file"),
        (spoil_nan, "NaN or infinite latents"),
        (lambda path: np.save(path, np.load(path)[:3]), r"float32 \(4, 173\) is needed"),
        (lambda path: np.save(path, np.load(path)[:, :9]), r"float32 \(4, 173\) is needed"),
        (lambda path: np.save(path, np.load(path).astype(np.float64)), "holds float64"),
    ],
)
def test_an_array_that_cannot_be_used_is_named_and_the_rest_is_done(
    run, latents, tmp_path, rave, spoil, message
):
    spoil(latents / "a.npy")
    code, out, _ = rave("decode", run, latents, tmp_path / "out")
    assert code == 1
    assert "Decoded 1 files, 0 unchanged, 1 skipped:" in out
    assert re.search(rf"skipped a\.npy: .*{message}", out)
    assert [path.name for path in (tmp_path / "out").glob("*.wav")] == ["b.wav"]


def test_only_bad_arrays_are_an_error(run, latents, tmp_path, rave):
    for name in ("a.npy", "b.npy"):
        spoil_nan(latents / name)
    code, _, err = rave("decode", run, latents, tmp_path / "out")
    assert code == 2
    assert "rave decode: error: No file of" in err


def test_latents_far_from_the_music_are_decoded_with_a_warning(run, latents, tmp_path, rave):
    np.save(latents / "a.npy", 100 * np.load(latents / "a.npy"))
    code, out, err = rave("decode", run, latents, tmp_path / "out", "--json")
    assert code == 0
    assert re.search(
        r"warning: a\.npy: its latents have \S+ times the power of the training music", err
    )
    warnings = json.loads(out)["warnings"]
    assert "times the power" in warnings["a.npy"][0]
    assert not any("times the power" in text for text in warnings.get("b.npy", []))


def test_a_silent_output_is_told(run, tmp_path, rave):
    mute = shutil.copytree(run, tmp_path / "mute")
    state = checkpoint(mute)
    state["state_dict"]["model.decoder.wave.parametrizations.weight.original0"] *= 0
    torch.save(state, last_checkpoint(mute))
    write(tmp_path / "audio" / "a.wav", noise(5000), 22050)
    assert rave("encode", mute, tmp_path / "audio", tmp_path / "latents")[0] == 0
    code, _, err = rave("decode", mute, tmp_path / "latents", tmp_path / "out")
    assert code == 0
    assert "warning: a.npy: the output is silent (" in err


def test_a_codec_that_says_nothing_is_told(tmp_path, rave):
    untrained = write_run(tmp_path / "run", "v2")
    remember(untrained, False, False, False, False)
    write(tmp_path / "audio" / "a.wav", np.zeros((1, 50_000), np.float32), 44100)
    assert rave("encode", untrained, tmp_path / "audio", tmp_path / "latents")[0] == 0
    _, _, err = rave("decode", untrained, tmp_path / "latents", tmp_path / "out")
    assert "no dimension of this codec is informative" in err
