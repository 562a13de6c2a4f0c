"""The patched DiffWave at work on the CPU: its source archive, patched, in a process of its own."""

import sys
from functools import partial
from pathlib import Path

import apply_patches
import numpy as np
import pytest
import soundfile
import torch
from diffwave_data import HOP, RATE_HZ, autoregression, write_latent_folder
from forks import Fork
from source_archives import download, unpack

from diffwave import inference
from diffwave.conditions.spectrogram import SpectrogramHeader
from rave.latents.folder import GENERATED, LatentHeader, read_latents, write_latents

LATENT_SIZE, NUM_FRAMES, NUM_MELS, MEL_HOP = 6, 40, 8, HOP // 2
SMALL = ("batch_size=2", "crop_frames=16", "residual_layers=2", "residual_channels=8", "n_mels=4")
# What the archive needs to run before it is patched.
TORCHAUDIO = """
import soundfile, torch
def load_wav(path):
    audio, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    return torch.from_numpy(audio.T.astype("float32")), rate_hz
"""
TRAIN_ON_AUDIO = """
import argparse, importlib, sys
import numpy, torch
torch.nn.Module.cuda = lambda module: module
from diffwave.params import params
params.override(dict(batch_size=2, residual_layers=2, residual_channels=8, crop_mel_frames=8))
program, folder, out = sys.argv[1:]
if program == "diffwave.train":
    from diffwave.preprocess import transform
    transform(folder + "/a.wav")
    transform(folder + "/b.wav")
options = dict(max_steps=2, fp16=False, spectrograms=None, set=[])
torch.manual_seed(0)
importlib.import_module(program).main(
    argparse.Namespace(model_dir=out, data_dirs=[folder], **options)
)
from diffwave.inference import predict
spectrogram = torch.from_numpy(numpy.load(folder + "/a.wav.spec.npy"))
audio, rate_hz = predict(spectrogram, out, params, torch.device("cpu"), fast_sampling=True)
torch.save((audio, rate_hz), out + "/audio.pt")
"""


@pytest.fixture(scope="module")
def archive(request):
    return download("diffwave", Path(request.config.cache.mkdir("upstream")))


@pytest.fixture(scope="module")
def patched(archive, tmp_path_factory):
    tree = unpack(archive, tmp_path_factory.mktemp("patched"))
    assert apply_patches.main([str(tree)]) == 0
    return tree


def be_upstream(*folders):
    """Let a process import from folders first, and take `diffwave` from there, not ours."""
    sys.path[:0] = folders
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffwave"]:
        del sys.modules[name]


def python(tree, module, *words, others=()):
    """Run a module where `diffwave` is that of a tree; the module may be in other folders."""
    before = partial(be_upstream, str(tree / "src"), *map(str, others))
    none = {"CUDA_VISIBLE_DEVICES": ""}
    code, _, err = Fork(
        module, *words, folder=tree.parent, environment=none, before=before
    ).finish()
    assert code == 0, err


@pytest.fixture
def latents(tmp_path):
    """Two clips, with spectrograms of two frames to each of theirs."""
    arrays = {
        f"{n}.npy": autoregression(LATENT_SIZE, NUM_FRAMES, 0.5, i) for i, n in enumerate("ab")
    }
    header = write_latent_folder(tmp_path / "latents", arrays)
    files = dict.fromkeys(arrays, NUM_FRAMES)
    for index, name in enumerate(files):
        mel = np.abs(autoregression(NUM_MELS, 2 * NUM_FRAMES, 0.5, 9 + index)).clip(0, 1)
        write_latents(tmp_path / "spectrograms" / name, [mel], NUM_MELS)
    spectrograms = SpectrogramHeader(header.codec, RATE_HZ, HOP, MEL_HOP, NUM_MELS, files)
    spectrograms.write(tmp_path / "spectrograms")
    return tmp_path / "latents"


@pytest.mark.parametrize("has_spectrograms", [False, True])
def test_patched_diffwave_trains_on_our_latents_and_writes_ours(patched, latents, has_spectrograms):
    folder = latents.parent
    settings = [text for setting in SMALL for text in ("--set", setting)]
    spectrograms = ["--spectrograms", folder / "spectrograms"] if has_spectrograms else []
    train = ["diffwave.train", folder / "run", latents, *spectrograms, *settings]
    python(patched, *train, "--max_steps", "2")
    checkpoint = torch.load(folder / "run" / "weights.pt", weights_only=True)
    params, model = checkpoint["params"], checkpoint["model"]
    assert checkpoint["step"] == 2
    assert params["raw_size"] == LATENT_SIZE
    assert params["spectrogram_mels"] == (NUM_MELS if has_spectrograms else 0)
    assert model["input_projection.weight"].shape[1] == params["latent_size"]
    assert model["output_projection.weight"].shape[0] == params["latent_size"]
    assert all(value.isfinite().all() for value in model.values())
    assert LatentHeader.read(folder / "run").codec == LatentHeader.read(latents).codec

    follow = ["-s", folder / "spectrograms" / "a.npy"] if has_spectrograms else []
    generate = ["diffwave.inference", folder / "run", *follow, "--steps", "4", "--count", "2"]
    python(patched, *generate, "--seconds", "2", "-o", folder / "generated")
    header = LatentHeader.read(folder / "generated")
    assert (header.contents, len(header.files)) == (GENERATED, 2)
    clips = [read_latents(folder / "generated" / f.path, LATENT_SIZE) for f in header.files]
    for clip in clips:
        assert clip.shape == (LATENT_SIZE, round(2 * RATE_HZ / HOP))
        assert np.isfinite(clip).all() and 0.1 < clip.std() < 10
    assert not np.array_equal(*clips)

    follow = ["--spectrogram", folder / "spectrograms" / "a.npy"] if has_spectrograms else []
    command = [folder / "run", folder / "ours", *follow, "--sampler", "ddim", "--steps", "4"]
    assert inference.main([str(word) for word in [*command, "--count", "2", "--seconds", "2"]]) == 0
    for clip, file in zip(clips, header.files, strict=True):
        ours = read_latents(folder / "ours" / file.path, LATENT_SIZE)
        np.testing.assert_allclose(ours, clip, atol=1e-4)


def test_waveforms_train_and_sample_as_before_bit_for_bit(archive, patched, tmp_path):
    fresh = unpack(archive, tmp_path)
    names = ("stub", "program", "recordings")
    stub, program, recordings = folders = [tmp_path / name for name in names]
    for folder in folders:
        folder.mkdir()
    (stub / "torchaudio.py").write_text(TORCHAUDIO)
    (program / "train_on_audio.py").write_text(TRAIN_ON_AUDIO)
    for index, name in enumerate(("a.wav", "b.wav")):
        noise = np.random.default_rng(index).uniform(-0.5, 0.5, 22050 // 4)
        soundfile.write(recordings / name, noise, 22050)
    words = ["train_on_audio", "diffwave.train", recordings, tmp_path / "after"]
    python(patched, *words, others=[program])
    words = ["train_on_audio", "diffwave.__main__", recordings, tmp_path / "before"]
    python(fresh, *words, others=[program, stub])
    # 'weights.pt' names the checkpoint of the last epoch; an epoch is one step here.
    before, after = (
        torch.load(tmp_path / name / "weights.pt", weights_only=True)
        for name in ("before", "after")
    )
    assert before["step"] == after["step"] == 1
    assert before["model"].keys() == after["model"].keys()
    assert all(torch.equal(value, after["model"][name]) for name, value in before["model"].items())
    (audio, rate_hz), (other, other_rate_hz) = (
        torch.load(tmp_path / name / "audio.pt") for name in ("before", "after")
    )
    assert audio.std() > 0 and rate_hz == other_rate_hz
    assert torch.equal(audio, other)
