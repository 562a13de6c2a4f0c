import pickle
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from rave_models import SHORT, codec_of, known_audio, small_model, write_run
from torch import nn

from rave.codec import Codec, load_codec, load_run
from rave.codec_format import CodecFormat
from rave.codec_source import CodecSource
from rave.export.torchscript import export_torchscript
from rave.jobs.windows import WINDOW_FRAMES, audio_windows
from rave.noise import DecoderNoise, PositionalNoise

CPU = torch.device("cpu")
NOISY = ("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[1, 3], [1], [1]]")  # a hop of 128


def noise(num_samples, num_channels=1, seed=0):
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal((num_channels, num_samples))).astype(np.float32)


def decoder_noise(codec, informative=(True,) * 4, seed=0, **options):
    known = known_audio(informative, noise_std=0.5)
    return DecoderNoise(replace(codec.format, training_audio=known), seed, **options)


def in_blocks(audio, block_samples):
    return (
        audio[:, start : start + block_samples] for start in range(0, audio.shape[1], block_samples)
    )


@pytest.fixture(scope="module", params=[("v2", *SHORT), ("v2", *SHORT, "NUM_CHANNELS=2"), NOISY])
def codec(request):
    return codec_of(small_model(*request.param))


# In pieces


@pytest.mark.parametrize(
    ("num_samples", "window_frames", "block_samples"),
    [
        (1, 1, 1),
        (63, 4, 7),
        (64, 4, 64),
        (65, 1, 1000),
        (640, 1, 64),
        (6400, 3, 100),
        (6401, 16, 997),
        (6399, 100, 64),
        (9000, 17, 9000),
        (20_000, 64, 4096),
    ],
)
def test_encoding_in_windows_equals_one_pass(codec, num_samples, window_frames, block_samples):
    audio = noise(num_samples, codec.format.num_channels)
    with torch.inference_mode():
        whole = codec.network.encode(torch.from_numpy(audio)[None])
    pieces = list(codec.encode_blocks(in_blocks(audio, block_samples), window_frames))
    num_frames = -(-num_samples // codec.format.hop_samples)
    assert len(pieces) == -(-num_frames // window_frames)
    for i, needed in enumerate((whole.mean, whole.std)):
        found = np.concatenate([piece[i] for piece in pieces], axis=1)
        assert found.shape == (4, num_frames)
        assert np.abs(found - needed[0].numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("num_frames", "window_frames"), [(1, 1), (2, 1), (37, 1), (37, 5), (100, 64), (100, 100)]
)
def test_decoding_in_windows_equals_one_pass(codec, num_frames, window_frames):
    latents = noise(num_frames, 4) * 10
    drawn = decoder_noise(codec, (True, False, True, False))
    with torch.inference_mode():
        filled = torch.from_numpy(drawn.decoder_input(latents, 0))[None]
        whole = codec.network.decode(filled, drawn.bands(0, num_frames))[0].numpy()
    pieces = list(codec.decode_blocks(latents, drawn, window_frames))
    found = np.concatenate(pieces, axis=1)
    assert found.shape == (codec.format.num_channels, num_frames * codec.format.hop_samples)
    assert np.abs(found - whole).max() < 1e-5


def test_encode_and_decode_of_the_v2_recipe_itself_equal_one_pass():
    codec = codec_of(small_model("v2"))
    audio = noise(40 * 2048 + 1)
    (mean, _), windows = codec.encode(audio), list(codec.encode_blocks(in_blocks(audio, 5000), 9))
    assert np.abs(np.concatenate([m for m, _ in windows], axis=1) - mean).max() < 1e-5
    drawn = decoder_noise(codec)
    decoded = np.concatenate(list(codec.decode_blocks(mean, drawn, 9)), axis=1)
    assert np.abs(decoded - codec.decode(mean, drawn)).max() < 1e-5


@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("right", [0, 2])
def test_windows_keep_every_frame_once_with_their_context(left, right):
    """Frame n of the audio is n, so that a window tells which frames it holds."""
    frames = np.repeat(np.arange(50, dtype=np.float32), 4)[None, :-3]  # the last has 1 sample
    kept = []
    for audio, start, count in audio_windows(in_blocks(frames, 7), 4, 6, left, right):
        held = audio[0, ::4].astype(int).tolist()
        now = held[start : start + count]
        assert held[:start] == list(range(max(now[0] - left, 0), now[0]))
        assert held[start + count :] == list(range(now[-1] + 1, min(now[-1] + right, 49) + 1))
        kept += now
    assert kept == list(range(50))


def test_no_audio_gives_no_windows():
    assert list(audio_windows([], 4, 6, 1, 1)) == []
    assert list(audio_windows([np.zeros((1, 0), np.float32)], 4, 6, 1, 1)) == []


class Idle(nn.Module):
    """In the place of the network: as many frames, no work."""

    def posterior_parameters(self, audio):
        num_frames = audio.shape[-1] // 2048
        return torch.zeros(1, 4, num_frames), torch.ones(1, 4, num_frames)


def test_encoding_10_minutes_holds_no_more_than_a_few_windows():
    codec_format = CodecFormat("", 44100, 1, 2048, 4, (7, 7), (9, 7), 0, 128)
    codec = Codec(Idle(), codec_format, "none", CPU)
    num_samples, block = 600 * 44100, np.zeros((1, 65536), np.float32)
    window_bytes = 4 * 2048 * (WINDOW_FRAMES + 7 + 7)
    tracemalloc.start()
    try:
        blocks = (block for _ in range(num_samples // 65536))
        num_frames = sum(mean.shape[1] for mean, _ in codec.encode_blocks(blocks))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_frames == num_samples // 65536 * 32
    assert peak_bytes < 4 * window_bytes < 4 * num_samples / 10


# Noise in the place of what latents do not say


def test_noise_fills_uninformative_dimensions_only_with_the_posteriors_moments():
    codec = codec_of(small_model("v2", *SHORT))
    latents = noise(20_000, 4)
    filled = decoder_noise(codec, (True, False, True, False)).decoder_input(latents, 0)
    assert np.array_equal(filled[::2], latents[::2])
    assert np.abs(filled[1::2].mean(axis=1) - 0.25).max() < 0.02
    assert np.abs(filled[1::2].std(axis=1) - 0.5).max() < 0.02
    assert abs(np.corrcoef(filled[1], filled[3])[0, 1]) < 0.05


def test_latents_that_all_say_something_are_decoded_as_they_are():
    codec = codec_of(small_model("v2", *SHORT))
    latents = noise(10, 4)
    assert decoder_noise(codec).decoder_input(latents, 0) is latents
    assert (
        DecoderNoise(codec.format, 0).decoder_input(latents, 0) is latents
    )  # nothing is known of it
    some = (True, False, False, True)
    assert decoder_noise(codec, some, as_encoded=True).decoder_input(latents, 0) is latents


def test_a_codec_of_which_nothing_is_informative_replaces_nothing():
    """All inputs would decode to the same noise."""
    codec = codec_of(small_model("v2", *SHORT))
    latents = noise(10, 4)
    assert decoder_noise(codec, (False,) * 4).decoder_input(latents, 0) is latents


def test_noise_depends_on_the_seed_and_nothing_else(codec):
    latents, informative = noise(20, 4), (True, False, False, True)

    def decoded(**options):
        return codec.decode(latents, decoder_noise(codec, informative, **options))

    assert np.array_equal(decoded(), decoded())
    assert not np.allclose(decoded(), decoded(seed=1), atol=1e-7)


@pytest.mark.parametrize("cuts", [(0, 100), (0, 1, 2, 100), (0, 37, 90, 100)])
def test_positional_noise_is_the_same_however_it_is_cut(cuts):
    table = PositionalNoise(3, "a", 5)
    pieces = [table.normal(start, stop) for start, stop in pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), table.normal(0, 100))


def test_positional_noise_has_the_moments_of_its_law():
    table = PositionalNoise(0, "a", 4)
    uniform, normal = table.uniform(0, 100_000), table.normal(0, 100_000)
    assert uniform.min() > 0
    assert uniform.max() < 1
    assert uniform.var() == pytest.approx(1 / 12, rel=0.01)
    assert np.abs(normal.mean(axis=0)).max() < 0.02
    assert np.abs(normal.var(axis=0) - 1).max() < 0.02
    assert (normal**4).mean() == pytest.approx(3, rel=0.03)
    assert np.abs(np.corrcoef(normal.T) - np.eye(4)).max() < 0.02
    assert abs(np.corrcoef(normal[1:, 0], normal[:-1, 0])[0, 1]) < 0.02


def test_another_seed_or_name_is_another_table():
    first = PositionalNoise(0, "a", 3).normal(0, 50)
    assert np.array_equal(first, PositionalNoise(0, "a", 3).normal(0, 50))
    assert not np.array_equal(first, PositionalNoise(1, "a", 3).normal(0, 50))
    assert not np.array_equal(first, PositionalNoise(0, "b", 3).normal(0, 50))


# Loading and export


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "noisy", *NOISY)


@pytest.fixture(scope="module")
def exported(run):
    path = run.parent / "noisy.ts"
    export_torchscript(*load_run(run), path)
    return path


def test_an_exported_codec_equals_its_run_and_keeps_its_fingerprint(run, exported):
    codecs = [load_codec(path, CPU) for path in (run, exported)]
    assert codecs[0].format == codecs[1].format
    audio = noise(5000)
    (mean, std), (mean_again, std_again) = (codec.encode(audio) for codec in codecs)
    assert np.abs(mean - mean_again).max() < 1e-5
    assert np.abs(std - std_again).max() < 1e-5
    drawn = decoder_noise(codecs[0])
    first, again = (codec.decode(mean, drawn) for codec in codecs)
    assert np.abs(first - again).max() < 1e-5


def test_an_exported_file_needs_only_torch(exported):
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.load"):
        network = torch.jit.load(str(exported))
    audio = torch.from_numpy(noise(1000))[None]
    latents = network.encode(audio)
    assert latents.shape == (1, 4, 8)
    assert network.decode(latents).shape == (1, 1, 1024)
    assert network(audio).shape == audio.shape
    assert (network.sample_rate_hz, network.hop_samples, network.latent_size) == (44100, 128, 4)


def test_fingerprint_is_that_of_the_weights(run, tmp_path):
    first = load_codec(run, CPU).format.fingerprint
    assert load_codec(write_run(tmp_path / "a", *NOISY), CPU).format.fingerprint == first
    other = load_codec(write_run(tmp_path / "b", *NOISY, seed=1), CPU)
    assert other.format.fingerprint != first


def test_what_is_no_codec_is_named_with_what_is_needed(tmp_path, run):
    (tmp_path / "a.wav").touch()
    (tmp_path / "a.ts").write_text("no program")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "none": r"does not exist\. Give a run folder of `rave train` or of acids-rave, or a \.ts",
        "none.ts": r"'.*none\.ts' does not exist",
        "a.wav": r"is a file\. Give a run folder",
        "a.ts": r"a\.ts'",
        "folder": r"run\.json' does not exist, so '.*folder' is not a run folder",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_codec(tmp_path / name, CPU)


def test_torchscript_of_another_program_is_refused(tmp_path):
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.script(nn.Identity()), str(tmp_path / "other.ts"))
    with pytest.raises(ValueError, match="is TorchScript, but not a codec"):
        load_codec(tmp_path / "other.ts", CPU)


def test_a_run_without_or_with_a_damaged_checkpoint_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", "v2", *SHORT)
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="Cannot read checkpoint"):
        load_codec(folder, CPU)
    path.unlink()
    with pytest.raises(ValueError, match=r"last\.ckpt' does not exist\. Train the run first"):
        load_codec(folder, CPU)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", "v2", *SHORT)
    other = write_run(tmp_path / "other", "v2", *SHORT, "KERNEL_SIZE=5")
    (other / "checkpoints" / "last.ckpt").replace(folder / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"does not fit its model\.gin \(.*net\.0"):
        load_codec(folder, CPU)


def test_an_exported_file_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"'.*a\.ts' is an exported file; a run is needed here"):
        load_run(tmp_path / "a.ts")


def test_a_codec_that_is_another_in_another_process_is_refused(tmp_path):
    runs = [write_run(tmp_path / str(seed), "v2", *SHORT, seed=seed) for seed in (0, 1)]
    source = CodecSource(runs[0], CPU)
    fingerprint = source.codec.format.fingerprint
    sent = pickle.loads(pickle.dumps(source))
    assert "codec" not in vars(sent)
    assert sent.codec.format.fingerprint == fingerprint
    sent = pickle.loads(pickle.dumps(source))
    sent.path = runs[1]
    with pytest.raises(ValueError, match="is not the same on all machines"):
        _ = sent.codec
