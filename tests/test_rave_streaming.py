from itertools import pairwise

import pytest
import torch
from rave_models import SHORT, band_noise, small_model
from torch import nn

from rave.blocks.v2 import EncoderV2
from rave.convolution import fold_weight_norm
from rave.streaming import Clock, streamed
from rave.streaming_model import StreamingRAVE

NOISY = ("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[1, 3], [1], [1]]")  # a hop of 128
STEREO = ("v2", *SHORT, "NUM_CHANNELS=2")
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
        self.latents = 300 * self.mean
        self.decoded = self.model.decode(self.latents, self.noise)

    def blocks(self, cuts):
        """Yield frame, audio, latents and band noise of each block."""
        steps = self.streaming.noise_steps_per_frame
        for first, last in pairwise(cuts):
            yield (
                first,
                self.audio[..., first * self.hop : last * self.hop],
                self.latents[..., first:last],
                self.noise[..., first * steps : last * steps],
            )


FAMILY = {
    "v2": ("v2", *SHORT),
    "stereo": STEREO,
    "noisy": NOISY,
    "v1": ("v1", "RATIOS=[4, 4, 4]"),
    "v1+causal": ("v1+causal", "RATIOS=[4, 4, 4]"),
    "v3": ("v3", *SHORT),
    "v2+causal+noise": ("v2+causal+noise", "RATIOS=[4, 2]", "DILATIONS=[[1, 3], [1]]"),
}


@pytest.fixture(scope="module", params=FAMILY.values(), ids=FAMILY)
def whole(request):
    with torch.inference_mode():
        return Whole(*request.param)


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
    for block in range(40):
        frame = block % (NUM_FRAMES // 2)
        _, audio, latents, noise = next(whole.blocks([2 * frame, 2 * frame + 2]))
        whole.streaming.encode(audio, 2 * block)
        whole.streaming.decode(latents, noise, 2 * block, block == 0)
        sizes.add(held())
    assert len(sizes) == 1


@torch.inference_mode()
def test_a_causal_encoder_is_not_late():
    model = small_model("v2", *SHORT)
    encoder = EncoderV2(16, 1, 2, [2, 2], 4, 3, [[1, 3], [1]], is_causal=True).eval()
    fold_weight_norm(encoder)
    _, clock = streamed(encoder, Clock(0, model.hop_samples // 16))
    assert clock == Clock(0, 1)


def test_a_layer_without_streaming_form_is_refused_by_name():
    with pytest.raises(ValueError, match="Layer GRU has no streaming form"):
        streamed(nn.Sequential(nn.GRU(1, 1)), Clock(0, 1))
