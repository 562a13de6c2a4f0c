"""What goes on for hours stays as it began: no drift, no growth of memory.

`pytest --soak tests/test_soak.py` plays two hours and makes a thousand sounds.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from nn_host import Host
from rave_models import SHORT, small_model

from benchmarks.stream_memory import resident_mib
from diffwave.app.session import Session
from rave.codec_format import CodecFormat
from rave.export.torchscript import export_nn_tilde

RATE_HZ, BLOCK = 44100, 2048
SECONDS, SOAK_SECONDS = 40, 2 * 3600
SOUNDS, SOAK_SOUNDS = 12, 1000
HEARD_BLOCKS, EARLIER_BLOCKS = 64, 32  # compared, and those before that the network still hears
MAY_GROW_MIB = 16


def block_of(index):
    """Return audio (1, 1, BLOCK) of a place in an endless recording."""
    generator = torch.Generator().manual_seed(index)
    return 0.3 * torch.randn(1, 1, BLOCK, generator=generator)


needs_statm = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="this system has no /proc/self/statm"
)


@needs_statm
@torch.inference_mode()
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_stream_neither_drifts_nor_grows(tmp_path, is_soak):
    model = small_model("v2", *SHORT)
    module = export_nn_tilde(model, CodecFormat.of(model), tmp_path / "codec.ts", 4, 0)
    late = module.encode_latency_samples + module.decode_latency_samples
    stream = Host(tmp_path / "codec.ts").module
    num_blocks = (SOAK_SECONDS if is_soak else SECONDS) * RATE_HZ // BLOCK
    warm, heard = num_blocks // 4, []
    before_mib = 0.0
    for index in range(num_blocks):
        out = stream.forward(block_of(index))
        if index >= num_blocks - HEARD_BLOCKS:
            heard.append(out)
        if index == warm:
            before_mib = resident_mib()
    grown_mib = resident_mib() - before_mib
    first = num_blocks - HEARD_BLOCKS - EARLIER_BLOCKS
    audio = torch.cat([block_of(index) for index in range(first, num_blocks)], 2)
    mean, _ = model.posterior_parameters(audio)
    wanted = model.decode(mean)[..., EARLIER_BLOCKS * BLOCK - late : -late or None]
    found = torch.cat(heard, 2)
    difference = float((found - wanted).abs().max() / wanted.abs().max())
    print(f"{num_blocks} blocks: {difference:.1e} from offline, {grown_mib:+.1f} MiB")
    assert difference < 1e-4
    assert grown_mib < MAY_GROW_MIB


@needs_statm
def test_the_app_does_not_grow(instrument, tmp_path, monkeypatch, is_soak):
    monkeypatch.chdir(tmp_path)
    codec, diffusion, tone = instrument
    session = Session(tmp_path / "rave-app", codec, diffusion, "cpu")
    sound = session.add_sound(tone)
    ways = (
        lambda seed: session.generate(0.3, seed, 3),
        lambda seed: session.generate(0.3, seed, 3, sound, ["loudness"]),
        lambda seed: session.bend(sound, [1.0], [0.5], seed),
        lambda seed: session.vary(sound, 0.5, seed, 3),
    )
    num_sounds = SOAK_SOUNDS if is_soak else SOUNDS
    before_mib, made = 0.0, []
    for seed in range(num_sounds):
        made.append(ways[seed % len(ways)](seed).audio)
        if seed == num_sounds // 3:
            before_mib = resident_mib()
    grown_mib = resident_mib() - before_mib
    print(f"{num_sounds} sounds: {grown_mib:+.1f} MiB")
    assert all(path.stat().st_size > 44 for path in made)
    assert len(np.unique([str(path) for path in made])) == num_sounds
    assert grown_mib < 4 * MAY_GROW_MIB  # torch and glibc keep what they will use again
