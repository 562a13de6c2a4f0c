from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rave_models import FEW_OSCILLATORS, SHORT, band_noise, small_model
from torch import nn

import rave
from rave.blocks.convolution import ConvTranspose1d, fold_weight_norm
from rave.streaming.layers import Clock, streamed
from rave.streaming.model import StreamingRAVE

LONG = ("RATIOS=[2, 2, 2]", "DILATIONS=[[1, 3], [1], [1]]")  # a hop of 128, for blocks of noise
NUM_FRAMES = 60


class Whole:
    """A model, its stream, and what it makes of the whole of some noise."""

    def __init__(self, *recipe):
        self.model = small_model(*recipe)
        fold_weight_norm(self.model)
        self.streaming = StreamingRAVE(self.model).eval()
        self.hop = self.model.hop_samples
        shape = (1, self.model.num_channels, NUM_FRAMES * self.hop)
        self.audio = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.noise = band_noise(self.model, NUM_FRAMES)
        self.mean, self.std = self.model.posterior_parameters(self.audio)
        # Random weights say little: large latents make loud audio.
        generator = torch.Generator().manual_seed(1)
        self.latents = self.model.with_noise_rows(300 * self.mean, generator)
        self.decoded = self.model.decode(self.latents, self.noise)

    def blocks(self, cuts):
        """Yield frame, audio, latents and band noise of each block."""
        steps = self.streaming.noise_steps_per_frame
        for first, last in pairwise(cuts):
            yield (
                first,
                self.audio[..., first * self.hop : last * self.hop],
                self.latents[..., first:last],
                self.noise[:, : self.streaming.noise_rows, first * steps : last * steps],
            )


V1 = ("RATIOS=[4, 4, 4]",)  # a hop of 1024
MEL = ("ENCODER_RATIOS=[2]", "ENCODER_DILATIONS=[[1, 3]]")  # a hop of 512, of 256 a step
MEL += ("RATIOS=[4, 4, 2]", "DILATIONS=[[1], [1, 3], [1]]")
RAW = (*SHORT, "DECODER_RATIOS=[8, 8]")
# Every recipe, and every option that changes a layer; the fewest layers that have them all.
FAMILY = {
    "v1": V1,
    "v1+causal": V1,
    "v2": SHORT,
    "v2+causal+noise": LONG,
    "v2_small": LONG,
    "v2_small+causal+snake+adain": LONG,
    "v2_nopqmf": RAW,
    "v2_nopqmf+causal": RAW,
    "v2_with_augs": MEL,
    "v3": SHORT,
    "v3+causal": SHORT,
    "discrete": SHORT,
    "discrete_v3": SHORT,
    "discrete+noise+causal": LONG,
    "wasserstein": SHORT,
    "wasserstein+causal": SHORT,
    "spherical": SHORT,
    "spherical+snake": SHORT,
    "hybrid": MEL,
    "hybrid+causal+snake": MEL,
    "onnx": V1,
    "raspberry": V1,
    "raspberry+causal": V1,
    "tiny": SHORT,
    "waveform": SHORT,
    "small": FEW_OSCILLATORS,
    "small+causal": FEW_OSCILLATORS,
}
OF_STEREO = ("v1", "v2", "v2_small", "v2_nopqmf", "hybrid", "small", "small+causal")
FAMILY = {name: (name, *settings) for name, settings in FAMILY.items()}
FAMILY |= {f"{name}, stereo": (*FAMILY[name], "NUM_CHANNELS=2") for name in OF_STEREO}


@cache
def whole_of(name):
    with torch.inference_mode():
        return Whole(*FAMILY[name])


@pytest.fixture(scope="module", params=FAMILY)
def whole(request):
    return whole_of(request.param)


SIZES = (1, 3, 15)
CUTS = [list(range(0, NUM_FRAMES + 1, size)) for size in SIZES]
CUTS.append([0, 1, 3, 6, 10, 11, 26, 28, 45, 46, 60])  # sizes that change
NAMES = [*map(str, SIZES), "changing"]


def relative(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("cuts", CUTS, ids=NAMES)
@torch.inference_mode()
def test_a_streamed_encoder_is_the_offline_encoder_whole_frames_late(whole, cuts):
    pieces = [whole.streaming.encode(audio, frame) for frame, audio, _, _ in whole.blocks(cuts)]
    late = whole.streaming.encoder_delay_frames
    for found, wanted in zip(zip(*pieces, strict=True), (whole.mean, whole.std), strict=True):
        assert relative(torch.cat(found, 2)[..., late:], wanted[..., : NUM_FRAMES - late]) < 1e-5


@pytest.mark.parametrize("cuts", CUTS, ids=NAMES)
@torch.inference_mode()
def test_a_streamed_decoder_is_the_offline_decoder_late(whole, cuts):
    pieces = [
        whole.streaming.decode(latents, noise, frame, frame == 0)
        for frame, _, latents, noise in whole.blocks(cuts)
    ]
    late = whole.streaming.decoder_delay_samples
    assert relative(torch.cat(pieces, 2)[..., late:], whole.decoded[..., :-late]) < 1e-4


@torch.inference_mode()
def test_a_stream_begins_anew_at_its_first_frame(whole):
    audio = whole.audio[..., : 4 * whole.hop]
    first = [part.clone() for part in whole.streaming.encode(audio, 0)]
    whole.streaming.encode(audio, 4)
    assert all(map(torch.equal, first, whole.streaming.encode(audio, 0)))


@torch.inference_mode()
def test_memory_of_a_stream_does_not_grow(whole):
    def held():
        parts = [buffer for name, buffer in whole.streaming.named_buffers() if "weight" not in name]
        return sum(part.untyped_storage().nbytes() for part in parts)

    sizes = set()
    for block in range(20):
        _, audio, latents, noise = next(whole.blocks([2 * block, 2 * block + 2]))
        whole.streaming.encode(audio, 2 * block)
        whole.streaming.decode(latents, noise, 2 * block, block == 0)
        sizes.add(held())
    assert len(sizes) == 1


def test_every_recipe_is_streamed():
    recipes = {path.stem for path in Path(rave.__file__).parent.glob("configs/recipes/*.gin")}
    assert recipes == {name.partition("+")[0] for name in FAMILY if "," not in name}


@pytest.mark.parametrize("name", [name for name in FAMILY if "+causal" in name])
@torch.inference_mode()
def test_a_causal_stream_is_late_by_what_cannot_be_causal_alone(name):
    streaming = (whole := whole_of(name)).streaming
    spectrogram = whole.model.spectrogram
    # Half of a spectrogram's window lies behind its frame.
    behind = 0 if spectrogram is None else spectrogram.reach_samples // whole.hop
    assert streaming.encoder_delay_frames == behind
    # A transposed convolution gives half of its stride's steps with the next input. A generator of
    # noise waits for a whole block.
    late, step = 0, whole.hop
    decoder = whole.model.decoder
    parts = [decoder.linear, decoder.oscillators] if whole.model.has_clock else [decoder.net]
    for layer in nn.ModuleList(parts).modules():
        if isinstance(layer, ConvTranspose1d):
            step //= layer.stride
            late += layer.stride // 2 * step
    noise = getattr(decoder, "noise", None)
    block = 0 if noise is None else noise.block_steps * whole.model.pqmf.num_bands
    assert late <= streaming.decoder_delay_samples <= late + max(block - 1, 0)


@pytest.mark.parametrize("name", [name for name in FAMILY if "+causal" in name])
@torch.inference_mode()
def test_a_causal_model_never_looks_ahead(name):
    whole = whole_of(name)
    model, late = whole.model, whole.streaming.decoder_delay_samples
    ahead = whole.streaming.encoder_delay_frames
    for known in (5, 20, 47):
        mean, _ = model.posterior_parameters(whole.audio[..., : known * whole.hop])
        kept = known - ahead
        assert relative(mean[..., :kept], whole.mean[..., :kept]) < 1e-5
        steps = known * whole.streaming.noise_steps_per_frame
        audio = model.decode(whole.latents[..., :known], whole.noise[..., :steps])
        kept = known * whole.hop - late
        assert relative(audio[..., :kept], whole.decoded[..., :kept]) < 1e-5


def test_a_layer_without_streaming_form_is_refused_by_name():
    with pytest.raises(ValueError, match="Layer GRU has no streaming form"):
        streamed(nn.Sequential(nn.GRU(1, 1)), Clock(0, 1))
