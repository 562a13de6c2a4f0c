"""Runs of acids-rave open as they are."""

import os
from hashlib import sha256

import numpy as np
import pytest
import soundfile
import torch
from audio_files import sine, write
from rave_models import write_run
from upstream_runs import (
    CHECKPOINT,
    CONFIG,
    assert_every_length_equals,
    checkpoint_of,
    golden_arrays,
    golden_weights,
    write_upstream_run,
)

from rave.codec import load_codec, load_run
from rave.export.torchscript import export_torchscript
from rave.latents.folder import LatentHeader
from rave.main_cli import main
from rave.noise import DecoderNoise

CPU = torch.device("cpu")
DELAY_SAMPLES = 16  # that acids-rave leaves in its output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_upstream_run(tmp_path_factory.mktemp("runs") / "tiny_07e38b1921")


@pytest.fixture(scope="module")
def codec(run):
    return load_codec(run, CPU)


@pytest.fixture(scope="module")
def arrays():
    return {name: array.numpy() for name, array in golden_arrays().items()}


def assert_equals(found, needed, relative=1e-4):
    assert found.shape == needed.shape
    assert np.abs(found - needed).max() <= relative * np.abs(needed).max()


# Equal to acids-rave


def test_format_is_that_of_the_config(codec):
    format = codec.format
    assert (format.sample_rate_hz, format.num_channels, format.hop_samples) == (44100, 1, 2048)
    assert (format.latent_size, format.noise_rows) == (16, 0)


def test_posterior_equals_that_of_acids_rave(codec, arrays):
    mean, std = codec.encode(arrays["audio"][:, :65536])
    assert_equals(mean, arrays["mean"])
    assert_equals(std, arrays["std"])


def test_posterior_of_a_file_that_ends_inside_a_hop_equals_it_on_every_frame(codec, arrays):
    mean, _ = codec.encode(arrays["audio"])
    assert_equals(mean, arrays["mean_of_all_samples"], 1e-6)


def test_every_length_is_encoded_as_acids_rave_does(codec):
    assert_every_length_equals(codec.network, "runs/v2")


def test_our_export_of_a_run_encodes_the_end_as_the_run_does(run, codec, arrays, tmp_path):
    export_torchscript(*load_run(run), tmp_path / "ours.ts")
    exported = load_codec(tmp_path / "ours.ts", CPU)
    audio = arrays["audio"]
    assert audio.shape[1] % codec.format.hop_samples
    assert np.array_equal(exported.encode(audio), codec.encode(audio))


def test_bands_equal_those_of_acids_rave(run, arrays):
    model, _ = load_run(run)
    with torch.inference_mode():
        bands = model.decode_bands(torch.from_numpy(arrays["mean"])[None])[0].numpy()
    assert_equals(bands[:, :1024], arrays["bands_first_1024_steps"])


def test_decoded_audio_equals_that_of_acids_rave_without_its_delay(codec, arrays):
    noise = DecoderNoise(codec.format, 0)
    decoded = codec.decode(arrays["mean"], noise)
    assert_equals(decoded[:, :-DELAY_SAMPLES], arrays["decoded"][:, DELAY_SAMPLES:])


@pytest.mark.parametrize("command", ["decode", "generate"])
def test_commands_decode_as_acids_rave_does_though_latents_say_nothing(
    run, arrays, tmp_path, command
):
    """Not one dimension of this barely trained model is informative; no run of theirs says so."""
    write(tmp_path / "in" / "a.wav", arrays["audio"][0, :65536], 44100, subtype="FLOAT")
    given = tmp_path / "in"
    if command == "decode":
        assert main(["encode", str(run), str(given), str(tmp_path / "latents")]) == 0
        given = tmp_path / "latents"
        assert not LatentHeader.read(given).statistics.is_informative.any()
    needed = arrays["decoded"][0, DELAY_SAMPLES:]
    for options in ([], ["--as-encoded"]):
        out = tmp_path / f"out{len(options)}"
        assert main([command, str(run), str(given), str(out), *options]) == 0
        audio = soundfile.read(out / "a.wav", dtype="float32")[0]
        assert np.abs(audio[:-DELAY_SAMPLES] - needed).max() <= 2**-15


def test_axes_of_the_latents_are_taken_over(run):
    model, _ = load_run(run)
    for name in ("latent_pca", "latent_mean", "fidelity"):
        assert torch.equal(getattr(model, name), golden_weights()[name])


def test_number_of_channels_is_that_of_the_weights(tmp_path):
    """acids-rave does not write it into config.gin."""
    weights = golden_weights()
    for name in ("encoder.encoder.net.0.weight_v", "decoder.net.21.weight_g"):
        weights[name] = torch.cat([weights[name]] * 2, dim=1 if "encoder" in name else 0)
    weights["decoder.net.21.weight_v"] = torch.cat([weights["decoder.net.21.weight_v"]] * 2)
    codec = load_codec(write_upstream_run(tmp_path / "stereo", weights=weights), CPU)
    assert codec.format.num_channels == 2
    assert codec.encode(np.zeros((2, 4096), np.float32))[0].shape == (16, 2)


# Fingerprint


def test_fingerprint_is_the_hash_of_encoder_decoder_and_filter_banks(codec):
    digest = sha256()
    for name, value in sorted(golden_weights().items()):
        if name.startswith(("encoder.encoder.", "decoder.")) or "_conv.weight" in name:
            digest.update(name.encode() + value.numpy().astype("<f4").tobytes())
    assert codec.format.fingerprint == digest.hexdigest()[:16]


@pytest.mark.parametrize("name", ["discriminator.discriminators.0.layers.0.net.8.bias", "fidelity"])
def test_what_does_not_change_latents_or_audio_does_not_change_the_fingerprint(
    tmp_path, codec, name
):
    weights = golden_weights()
    weights[name] = weights[name] + 1
    other = load_codec(write_upstream_run(tmp_path / "run", weights=weights), CPU)
    assert other.format.fingerprint == codec.format.fingerprint


@pytest.mark.parametrize("name", ["decoder.net.0.weight_g", "encoder.encoder.net.0.weight_v"])
def test_another_weight_is_another_fingerprint(tmp_path, codec, name):
    weights = golden_weights()
    weights[name] = weights[name] * 1.001
    other = load_codec(write_upstream_run(tmp_path / "run", weights=weights), CPU)
    assert other.format.fingerprint != codec.format.fingerprint


# Files


def test_run_version_and_checkpoint_are_one_codec(run, codec):
    for path in (run / "version_0", run / CHECKPOINT, run / CHECKPOINT.parent):
        assert load_codec(path, CPU).format == codec.format


def test_the_newest_checkpoint_of_all_versions_is_taken(tmp_path):
    run = write_upstream_run(tmp_path / "run")
    weights = golden_weights()
    weights["latent_mean"] = weights["latent_mean"] + 1
    newer = run / "version_1" / "checkpoints" / "epoch_90.ckpt"
    newer.parent.mkdir(parents=True)
    torch.save(checkpoint_of(weights), newer)
    os.utime(run / CHECKPOINT, ns=(0, 10**18))
    os.utime(newer, ns=(0, 10**18 + 1))
    assert torch.equal(load_run(run)[0].latent_mean, weights["latent_mean"])
    os.utime(newer, ns=(0, 10**18 - 1))
    assert not torch.equal(load_run(run)[0].latent_mean, weights["latent_mean"])


def test_of_checkpoints_of_one_time_the_last_goes_before_the_best(tmp_path):
    run = write_upstream_run(tmp_path / "run")
    weights = golden_weights()
    folder = (run / CHECKPOINT).parent
    for index, name in enumerate(["best.ckpt", "epoch_90.ckpt", "last.ckpt"]):
        weights["latent_mean"] = torch.full((16,), float(index))
        torch.save(checkpoint_of(weights), folder / name)
    for path in folder.iterdir():
        os.utime(path, ns=(0, 10**18))
    assert float(load_run(run)[0].latent_mean[0]) == 2
    (folder / "last.ckpt").unlink()
    assert float(load_run(run)[0].latent_mean[0]) == 0


def test_a_run_without_config_or_checkpoint_is_refused(tmp_path):
    run = write_upstream_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"'.*none\.ckpt' does not exist"):
        load_codec(run / "none.ckpt", CPU)
    (run / "config.gin").unlink()
    with pytest.raises(ValueError, match=r"no config\.gin beside '.*last\.ckpt' or up to two"):
        load_codec(run, CPU)
    (run / "config.gin").write_text(CONFIG)
    (run / CHECKPOINT).unlink()
    with pytest.raises(ValueError, match=r"'.*run' holds no checkpoint \(\*\.ckpt\)"):
        load_codec(run, CPU)


def test_a_checkpoint_of_our_own_run_is_told_to_be_given_as_its_folder(tmp_path):
    run = write_run(tmp_path / "ours")
    with pytest.raises(ValueError, match=r"belongs to the run folder '.*ours' of `rave train`"):
        load_codec(run / "checkpoints" / "last.ckpt", CPU)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run = write_upstream_run(tmp_path / "run")
    path = run / CHECKPOINT
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"Cannot read checkpoint .* Take another checkpoint"):
        load_codec(run, CPU)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds a list, not a checkpoint"):
        load_codec(run, CPU)
    torch.save({"state_dict": {"a": 1}}, path)
    with pytest.raises(ValueError, match="holds no model weights"):
        load_codec(run, CPU)


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("default")  # torch's of its older file form
@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path, is_zip):
    run = write_upstream_run(tmp_path / "run")
    content = {**checkpoint_of(golden_weights()), "callbacks": Code(tmp_path / "harm")}
    torch.save(content, run / CHECKPOINT, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match="holds more than tensors and plain data") as error:
        load_codec(run, CPU)
    assert "weights_only" not in str(error.value)  # torch tells there how to run the code
    assert not (tmp_path / "harm").exists()


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path):
    weights = golden_weights()
    cases = {
        r"decoder\.net\.0\.weight_g is missing": {"decoder.net.0.weight_g": None},
        r"latent_mean is \(4,\); \(16,\) is needed": {"latent_mean": torch.zeros(4)},
        r"unknown weights such as encoder\.rvq \(1 in total\)": {"encoder.rvq": torch.zeros(1)},
        r"net\.0\.weight_v is \(\); ": {"encoder.encoder.net.0.weight_v": torch.zeros(())},
    }
    for index, (message, change) in enumerate(cases.items()):
        changed = {k: v for k, v in {**weights, **change}.items() if v is not None}
        run = write_upstream_run(tmp_path / str(index), weights=changed)
        with pytest.raises(ValueError, match=f"does not fit its config.gin.*{message}"):
            load_codec(run, CPU)


# Commands


def test_commands_take_a_run_of_acids_rave(tmp_path, run):
    for index in range(2):
        write(tmp_path / "audio" / f"{index}.wav", sine(220 * (index + 1), 44100, 0.5), 44100)
    latents, decoded = tmp_path / "latents", tmp_path / "decoded"
    where = ["--device", "cpu"]
    assert main(["encode", str(run), str(tmp_path / "audio"), str(latents), *where]) == 0
    header = LatentHeader.read(latents)
    assert header.codec == load_codec(run, CPU).format.fingerprint
    assert [entry.num_frames for entry in header.files] == [11, 11]
    assert main(["decode", str(run / CHECKPOINT), str(latents), str(decoded), *where]) == 0
    assert len(list(decoded.glob("*.wav"))) == 2
    files = [str(path) for path in (tmp_path / "audio").iterdir()]
    assert main(["interpolate", str(run), *files, str(tmp_path / "blends"), *where]) == 0
    assert main(["export", str(run), str(tmp_path / "a.ts")]) == 0
    exported = load_codec(tmp_path / "a.ts", CPU)
    assert exported.format == load_codec(run, CPU).format
    again = tmp_path / "again"
    assert main(["decode", str(tmp_path / "a.ts"), str(latents), str(again), *where]) == 0
    for path in decoded.glob("*.wav"):
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_commands_refuse_latents_of_another_checkpoint(tmp_path, run, capsys):
    write(tmp_path / "audio" / "a.wav", sine(220, 44100, 0.5), 44100)
    weights = golden_weights()
    weights["decoder.net.0.weight_g"] = 2 * weights["decoder.net.0.weight_g"]
    other = write_upstream_run(tmp_path / "other", weights=weights)
    latents = str(tmp_path / "latents")
    assert main(["encode", str(run), str(tmp_path / "audio"), latents]) == 0
    assert main(["decode", str(other), latents, str(tmp_path / "decoded")]) == 2
    assert "is of another codec" in capsys.readouterr().err
