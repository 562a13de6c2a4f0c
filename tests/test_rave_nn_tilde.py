from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from nn_host import Host, check_methods_in_turn, check_switches, unknown_operators
from rave_models import FEW_OSCILLATORS, SHORT, small_model, write_run
from rave_runs import make_informative

from rave.blocks.adain import AdaIN
from rave.blocks.bottleneck import Discrete
from rave.codec import load_codec
from rave.codec_format import CodecFormat
from rave.export.torchscript import export_nn_tilde, export_torchscript
from rave.main_cli import main
from rave.noise import DecoderNoise
from rave.streaming.nn_tilde import NNTilde, latent_count
from rave.streaming.noise import ADDED_ROWS, BANDS, FRESH_NOISE, PositionalUniform
from rave.streaming.resampling import StreamingResampler

NOISY = ("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[1, 3], [1], [1]]")
STEREO = ("v2", *SHORT, "NUM_CHANNELS=2")
MEL = ("ENCODER_RATIOS=[2]", "ENCODER_DILATIONS=[[1]]")
MEL += ("RATIOS=[4, 4, 2]", "DILATIONS=[[1], [1], [1]]")
KINDS = {
    "mono": ("v2", *SHORT),
    "stereo": STEREO,
    "v1": ("v1", "RATIOS=[4, 4, 4]"),
    "causal": ("v3+causal", *SHORT),
    "noisy": NOISY,
    "raw": ("v2_nopqmf", *SHORT, "DECODER_RATIOS=[8, 8]", "NUM_CHANNELS=2"),
    "hybrid": ("hybrid", *MEL),
    "discrete": ("discrete", *SHORT),
    "wasserstein": ("wasserstein", *SHORT),
    "spherical": ("spherical", *SHORT),
    "oscillators": ("small", *FEW_OSCILLATORS, "SAMPLE_RATE_HZ=44100"),
}
FIDELITY = torch.tensor([0.6, 0.9, 0.99, 1.0])
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def model_of(*recipe):
    """Return a small model whose latents are rotated and not centred."""
    model = small_model(*recipe)
    model.latent_pca.copy_(torch.linalg.qr(torch.arange(16.0).reshape(4, 4).cos())[0])
    model.latent_mean.copy_(torch.tensor([0.005, -0.005, 0.01, 0.0]))
    model.fidelity.copy_(FIDELITY)
    if isinstance(model.bottleneck, Discrete):
        model.bottleneck.is_enabled.fill_(1)
        for stage in model.bottleneck.quantizer.stages:
            stage.codes.normal_(std=0.01, generator=torch.Generator().manual_seed(0))
    return model


def decoded_offline(model, mean, seed):
    """Return the audio of raw latents with the noise that a seed is in a module."""
    num_frames = mean.shape[2]
    rows = PositionalUniform(model.num_noise_rows, ADDED_ROWS).normal(seed, 0, num_frames, mean)
    steps = num_frames * model.noise_steps_per_frame
    num_rows = model.decoder_noise_rows or model.pqmf.num_bands * model.num_channels
    noise = 2.0 * PositionalUniform(num_rows, BANDS)(seed, 0, steps, mean) - 1.0
    if model.has_clock:
        noise = torch.arange(steps).float().expand(len(mean), 1, -1)
    return model.decode(torch.cat([mean, rows], 1), noise)


def exported(path, *recipe, num_latents=4, seed=0, host_rate_hz=None):
    model = model_of(*recipe)
    codec_format = CodecFormat.of(model)
    module = export_nn_tilde(model, codec_format, path, num_latents, seed, host_rate_hz)
    return model, (module.encode_latency_samples, module.decode_latency_samples)


@pytest.fixture(scope="module")
def export_of(tmp_path_factory):
    """Return a function that exports a recipe once, and returns model, path and latencies."""
    folder = tmp_path_factory.mktemp("nn")

    @cache
    def call(*recipe):
        path = folder / f"{len(list(folder.iterdir()))}.ts"
        model, latencies = exported(path, *recipe)
        return model, path, latencies

    return call


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def at_host(request, export_of):
    return export_of(*request.param)


def audio_of(model, num_frames, ratio=1, batch=1):
    shape = (batch, model.num_channels, num_frames * model.hop_samples * ratio)
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def relative(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


def late_by(steps, found, wanted):
    """Return how far something is from what it is so many steps after."""
    return relative(found[..., steps:], wanted[..., : wanted.shape[2] - steps])


@torch.inference_mode()
def test_the_host_finds_what_it_asks_for(at_host):
    model, path, latencies = at_host
    host = Host(path)
    channels, hop = model.num_channels, model.hop_samples
    assert host.params == {
        "encode": [channels, 1, 4, hop],
        "decode": [4, hop, channels, 1],
        "forward": [channels, 1, channels, 1],
    }
    for name in host.methods:
        host.self_test(name, 8192)
    assert host.sample_rate_hz == 44100
    assert host.module.get_latency() == [sum(latencies)]
    assert not host.set("latency", 0)
    assert not host.set("rate_hz", 48000)
    assert host.get("rate_hz") == 44100
    assert set(host.module.forward_input_labels) == {"audio at 44100 Hz"}
    assert host.module.set_buffer_attribute("none", torch.zeros(1), 44100) != 0
    assert len(host.module.encode_output_labels) == 4


def test_every_operator_of_a_file_is_known_to_the_hosts_own_torch(at_host):
    assert unknown_operators(at_host[1]) == set()


@pytest.mark.parametrize("kind", ["noisy", "hybrid", "oscillators"])
def test_so_is_every_operator_of_a_codec_that_is_no_stream(tmp_path, kind):
    model = model_of(*KINDS[kind])
    export_torchscript(model, CodecFormat.of(model), tmp_path / "a.ts")
    assert unknown_operators(tmp_path / "a.ts") == set()


@torch.inference_mode()
def test_networks_have_run_when_a_file_is_loaded_and_are_compiled_once(export_of):
    """Torch compiles what is first run; of a method that is all but what interfaces hide."""
    model, path, _ = export_of(*NOISY)
    warm, cold = Host(path), torch.jit.load(path).eval()
    for name in warm.methods:
        graph = warm.module._c._get_method(name).inlined_graph
        assert "aten::linear" not in str(graph)
    for part in (warm.module.streaming.encoder, warm.module.streaming.decoder):
        assert any(memory.numel() for name, memory in part.named_buffers() if "memory" in name)
    audio = audio_of(model, 12)
    assert torch.equal(warm.module(audio), cold(audio))


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["noisy", "hybrid"])
def test_a_method_plays_after_another_as_in_a_new_file(export_of, kind):
    check_methods_in_turn(export_of(*KINDS[kind])[1])


@torch.inference_mode()
@pytest.mark.parametrize("blocks", [1, 8])
def test_the_host_hears_the_offline_model_after_the_stated_latency(at_host, blocks):
    model, path, (encode_late, decode_late) = at_host
    host, audio = Host(path), audio_of(model, 32)
    size, hop = blocks * model.hop_samples, model.hop_samples
    mean, _ = model.posterior_parameters(audio)
    latents = torch.matmul(model.latent_pca, mean - model.latent_mean[:, None])
    found = host.play("encode", audio, size)[..., ::hop]
    assert late_by(encode_late // hop, found, latents) < 1e-4
    decoded = decoded_offline(model, mean, 0)
    found = host.play("decode", latents.repeat_interleave(hop, 2), size)
    assert late_by(decode_late, found, decoded) < 1e-4
    found = Host(path).play("forward", audio, size)
    assert late_by(encode_late + decode_late, found, decoded) < 1e-4


@torch.inference_mode()
def test_block_size_and_batch_may_change_while_playing(at_host):
    model, path, _ = at_host
    audio, hop = audio_of(model, 24, batch=3), model.hop_samples
    host = Host(path)
    whole = host.play("forward", audio, audio.shape[2])
    assert host.get("reset") == 0
    host.set("reset", 1)
    assert host.get("reset") == 1
    cuts = [n * hop for n in (0, 1, 4, 5, 16, 24)]
    pieces = [host.module(audio[..., a:b]) for a, b in pairwise(cuts)]
    assert relative(torch.cat(pieces, 2), whole) < 1e-4
    alone = host.play("forward", audio[1:2], hop)
    assert relative(alone, whole[1:2]) < 1e-4


@torch.inference_mode()
def test_a_block_that_is_no_multiple_of_the_hop_is_refused(at_host):
    model, path, _ = at_host
    with pytest.raises(torch.jit.Error, match=r"A block of \d+ samples is not a multiple"):
        Host(path).module(torch.zeros(1, model.num_channels, model.hop_samples + 1))


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["noisy", "oscillators"])
def test_one_seed_is_one_noise_however_the_stream_is_cut(tmp_path, kind):
    exported(tmp_path / "a.ts", *KINDS[kind], num_latents=2, seed=7)
    host = Host(tmp_path / "a.ts")
    latents = torch.randn(1, 2, 16)
    whole = host.module.decode(latents)

    def again(seed, size):
        host.set("reset", 1)
        assert host.set("seed", seed)
        assert host.get("seed") == seed
        pieces = [host.module.decode(latents[..., n : n + size]) for n in range(0, 16, size)]
        return torch.cat(pieces, 2)

    assert relative(again(7, 1), whole) < 1e-4
    assert relative(again(7, 4), whole) < 1e-4
    assert relative(again(8, 4), whole) > 1e-2
    assert relative(again(FRESH_NOISE, 16), again(FRESH_NOISE, 16)) > 1e-2


@torch.inference_mode()
def test_missing_latents_are_filled_with_normal_noise():
    model = model_of("v2", *SHORT)
    module = NNTilde(model, 1, noise_seed=3)
    uniform = module.missing(3, -5, 100_000, torch.zeros(2, 1, 1))
    assert torch.equal(uniform[0], uniform[1])
    assert torch.equal(uniform[..., 10:20], module.missing(3, 5, 10, torch.zeros(2, 1, 1)))
    normal = np.sqrt(2) * torch.erfinv(2 * uniform[0] - 1).numpy()
    assert np.abs(normal.mean(1)).max() < 0.02
    assert np.abs(normal.var(1) - 1).max() < 0.02
    assert np.abs(np.corrcoef(normal) - np.eye(3)).max() < 0.02
    assert abs(np.corrcoef(normal[0, 1:], normal[0, :-1])[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("wanted", "exact", "rounded"), [(0.5, 1, 1), (0.6, 1, 1), (0.95, 3, 4), (1.0, 4, 4)]
)
def test_latents_are_the_fewest_of_the_fidelity(wanted, exact, rounded):
    assert latent_count(FIDELITY, wanted, False) == exact
    assert latent_count(FIDELITY, wanted, True) == rounded


def test_a_fidelity_that_is_none_or_was_never_measured_is_refused():
    for wanted in (0.0, 1.5):
        with pytest.raises(ValueError, match="is not a share of the variance"):
            latent_count(FIDELITY, wanted, False)
    with pytest.raises(ValueError, match=r"were not measured .* --fidelity 1"):
        latent_count(torch.zeros(4), 0.95, False)


@torch.inference_mode()
def test_a_source_takes_the_statistics_of_a_target_until_they_are_reset(export_of):
    model, path, _ = export_of("v3", *SHORT)
    host = Host(path)
    module, audio = host.module, 100 * audio_of(model, 32)
    assert set(host.codes) >= {"learn_source", "learn_target", "reset_source", "reset_target"}
    check_switches(host)
    for side in ("source", "target"):
        host.set(f"learn_{side}", 0)
    plain = module(audio)

    def play(block):
        host.set("reset", 1)
        return module(block)

    for side, block in (("target", 3 * audio.flip(2)), ("source", audio)):
        assert host.set(f"learn_{side}", 1)
        assert host.get(f"learn_{side}") == 1
        play(block)
        host.set(f"learn_{side}", 0)
        assert host.get(f"reset_{side}") == 0
    assert relative(play(audio), plain) > 1e-2
    first = next(layer for layer in model.encoder.modules() if isinstance(layer, AdaIN))
    assert float(first.num_update_x) == 0  # the model inside, for load_codec, is left alone
    host.set("reset_source", 1)
    assert host.get("reset_source") == 1
    assert relative(play(audio), plain) < 1e-4


@torch.inference_mode()
def test_a_source_with_the_targets_statistics_is_left_alone(export_of):
    model, path, _ = export_of("v3", *SHORT)
    host = Host(path)
    module, audio = host.module, 100 * audio_of(model, 32)
    plain = module(audio)
    for side in ("target", "source"):
        host.set("reset", 1)
        host.set(f"learn_{side}", 1)
        module(audio)
        host.set(f"learn_{side}", 0)
    host.set("reset", 1)
    assert relative(module(audio), plain) < 1e-2


# The host's rate


@torch.inference_mode()
@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("block", [16, 64, 1024])
def test_resampling_keeps_level_and_phase(ratio, block):
    low, high = StreamingResampler(ratio), StreamingResampler(ratio)
    time = torch.arange(8192) / 44100 / ratio
    audio = (2 * torch.pi * 997 * time).sin().expand(1, 2, -1)
    pieces = [
        high.up(low.down(audio[..., n : n + block], n == 0), n == 0) for n in range(0, 8192, block)
    ]
    late = low.delay_samples + high.delay_samples
    found, settled = torch.cat(pieces, 2)[..., late:], slice(late, None)
    assert (found[..., settled] - audio[..., :-late][..., settled]).abs().max() < 1e-4


@torch.inference_mode()
def test_a_host_at_twice_the_rate_hears_the_model_resampled(tmp_path):
    model, (encode_late, decode_late) = exported(
        tmp_path / "a.ts", "v2", *SHORT, host_rate_hz=88200
    )
    host = Host(tmp_path / "a.ts")
    assert host.params["encode"] == [1, 1, 4, 128]
    assert host.sample_rate_hz == 88200
    resampler = StreamingResampler(2)
    audio = audio_of(model, 32, ratio=2)
    low = resampler.down(audio, True)
    mean, _ = model.posterior_parameters(low)
    wanted = resampler.up(model.decode(mean), True)
    late = encode_late + decode_late - 2 * resampler.delay_samples
    found = host.play("forward", audio, 256)
    assert relative(found[..., late:], wanted[..., :-late]) < 1e-4


@pytest.mark.parametrize("rate_hz", [48000, 22050, 132300])
def test_a_host_rate_of_no_whole_blocks_is_refused(rate_hz):
    with pytest.raises(ValueError, match=f"A host at {rate_hz} Hz cannot run .* 44100, 88200"):
        NNTilde(model_of("v2", *SHORT), 4, host_rate_hz=rate_hz)


def test_a_hop_that_fills_no_block_is_refused():
    model = small_model("v2", "RATIOS=[2, 6]", "DILATIONS=[[1], [1]]")
    with pytest.raises(ValueError, match="A hop of 192 samples does not fit"):
        NNTilde(model, 4)


# The command


def test_a_streaming_export_stands_for_its_run(tmp_path, capsys):
    run = write_run(tmp_path / "run", *STEREO)
    make_informative(run)
    options = ["--streaming", "--fidelity", "1", "--noise-seed", "5"]
    assert main(["export", str(run), str(tmp_path / "a.ts"), *options]) == 0
    out = capsys.readouterr().out
    assert "Latency: encode 576 samples, decode 528, both 25.0 ms" in out
    assert "must run at 44100 Hz" in out
    assert "A name such as 'a_44100.ts' would show the rate." in out
    codecs = [load_codec(path, torch.device("cpu")) for path in (run, tmp_path / "a.ts")]
    assert codecs[0].format == codecs[1].format
    audio = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    (mean, std), (mean_again, std_again) = (codec.encode(audio) for codec in codecs)
    assert np.abs(mean - mean_again).max() < 1e-5
    assert np.abs(std - std_again).max() < 1e-5
    noise = DecoderNoise(codecs[0].format, 0)
    first, again = (codec.decode(mean, noise) for codec in codecs)
    assert np.abs(first - again).max() < 1e-5
    assert (tmp_path / "a.ts").stat().st_size < 2**18


def test_streaming_options_without_streaming_are_refused(tmp_path, capsys):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    for options in (["--fidelity", "0.9"], ["--host-rate", "88200"], ["--noise-seed", "1"]):
        assert main(["export", str(run), str(tmp_path / "a.ts"), *options]) == 2
        assert f"{options[0]} is for --streaming" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "a.ts"), "--streaming"]) == 2
    assert "were not measured" in capsys.readouterr().err
