"""`forward` in hosts of any rate."""

import pytest
import torch
from nn_host import Host, unknown_operators
from rave_models import SHORT, small_model, write_run

from rave.codec import load_codec
from rave.codec_format import CodecFormat
from rave.export.torchscript import export_nn_tilde
from rave.main_cli import main
from rave.streaming.any_rate import NNTildeAtAnyRate, StreamingRational

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
RATES = (48000, 96000, 22050)


def blocks_of(audio, sizes):
    """Yield blocks of sizes in turn, and whether one is the first."""
    start, turn = 0, 0
    while start < audio.shape[2]:
        size = sizes[turn % len(sizes)]
        yield audio[..., start : start + size], turn == 0
        start, turn = start + size, turn + 1


@pytest.mark.parametrize(
    ("rate_hz", "wanted_hz"), [(44100, 48000), (48000, 44100), (96000, 44100), (22050, 44100)]
)
def test_resampling_keeps_level_and_phase(rate_hz, wanted_hz):
    resampler = StreamingRational(rate_hz, wanted_hz)

    def sine(rate, count):
        return (2 * torch.pi * 997 / rate * torch.arange(count).double()).sin().float()

    audio = sine(rate_hz, 20000).expand(1, 2, -1)
    found = torch.cat([resampler(*block) for block in blocks_of(audio, (1, 7, 64, 1000))], 2)
    count = found.shape[2]
    assert abs((20000 - resampler.ahead) * wanted_hz / rate_hz - count) <= 1
    assert (found - sine(wanted_hz, count))[..., 1000:].abs().max() < 1e-5
    again = resampler(audio, True)
    assert torch.allclose(again[..., :count], found, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "host_rate_hz"), [*(("v2", r) for r in RATES), ("v2+causal", 48000)]
)
@torch.inference_mode()
def test_a_host_of_any_rate_hears_the_model_resampled(tmp_path, recipe, host_rate_hz):
    model = small_model(recipe, *SHORT, "NUM_CHANNELS=2")
    module = export_nn_tilde(model, CodecFormat.of(model), tmp_path / "a.ts", 4, 0, host_rate_hz)
    host, late = Host(tmp_path / "a.ts"), module.latency_samples
    assert host.params == {"forward": [2, 1, 2, 1]}
    assert (host.sample_rate_hz, host.module.get_latency()) == (host_rate_hz, [late])
    host.self_test("forward", 8192)
    assert unknown_operators(tmp_path / "a.ts") == set()
    assert host.get("rate_hz") == host_rate_hz
    assert host.module.forward_input_labels == 2 * [f"audio at {host_rate_hz} Hz"]
    audio = torch.randn(1, 2, 12000, generator=torch.Generator().manual_seed(0))
    low = StreamingRational(host_rate_hz, 44100)(audio, True)
    low = low[..., : low.shape[2] // 64 * 64]
    made = model.decode(model.posterior_parameters(low)[0])
    wanted = StreamingRational(44100, host_rate_hz)(made, True)
    count = wanted.shape[2] - late - 100  # the file's end is another than the stream's
    for sizes in ((64,), (256, 1, 512, 63), (12000,)):
        host.set("reset", 1)
        found = torch.cat([host.module(block) for block, _ in blocks_of(audio, sizes)], 2)
        assert found.shape == audio.shape
        assert float(found[..., : late - 200].abs().max()) < 1e-3 * float(wanted.abs().max())
        difference = found[..., late : late + count] - wanted[..., :count]
        assert difference.abs().max() < 1e-4 * wanted.abs().max()


@torch.inference_mode()
def test_memory_does_not_grow():
    module = NNTildeAtAnyRate(small_model("v2", *SHORT), 4, 48000)
    sizes = []
    for _ in range(600):
        module(torch.zeros(1, 1, 64))
        sizes.append(sum(buffer.untyped_storage().nbytes() for buffer in module.buffers()))
    assert max(sizes[300:]) <= max(sizes[:300])


def test_rave_export_tells_what_there_is(tmp_path, capsys):
    run = write_run(tmp_path / "run", "v2", *SHORT)
    out = tmp_path / "a.ts"
    command = ["export", str(run), str(out), "--streaming", "--fidelity", "1", "--host-rate"]
    assert main([*command, "48000"]) == 0
    assert "In nn~ at 48000 Hz: forward only. Latency: " in capsys.readouterr().out
    cpu = torch.device("cpu")
    assert load_codec(out, cpu).format == load_codec(run, cpu).format
    assert main([*command, "44101"]) == 2
    assert "is too complex" in capsys.readouterr().err
