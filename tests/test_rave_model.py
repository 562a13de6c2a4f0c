import math

import pytest
import torch
from rave_models import FEW_OSCILLATORS, SHORT, band_noise, build_model, small_model
from torch import nn
from torch.distributions import Normal, kl_divergence

from rave import experiment
from rave.blocks.convolution import ConvTranspose1d, fold_weight_norm
from rave.blocks.noise import NoiseGenerator
from rave.blocks.posterior import DiagonalGaussian
from rave.runs.recipes import list_recipes


def audio_of(num_samples, num_channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, num_channels, num_samples, generator=generator)


# Shapes


@pytest.mark.parametrize("ratios", [[2, 2], [4, 2], [2, 4]])
def test_frames_are_samples_over_hop_rounded_up_for_every_length_to_3_hops(ratios):
    model = small_model("v2", f"RATIOS={ratios}", "DILATIONS=[[1], [1]]", "NUM_BANDS=4")
    hop = model.hop_samples
    assert hop == 4 * math.prod(ratios)
    for num_samples in range(1, 3 * hop + 1):
        num_frames = math.ceil(num_samples / hop)
        posterior = model.encode(audio_of(num_samples))
        assert posterior.mean.shape == posterior.std.shape == (1, 4, num_frames)
        assert model.decode(posterior.mean).shape == (1, 1, num_frames * hop)


@pytest.mark.parametrize(
    ("recipe", "hop"), [("v2", 2048), ("v2_small", 512), ("tiny", 1024), ("small", 1024)]
)
@pytest.mark.parametrize("num_channels", [1, 2])
def test_lengths_and_channels_of_the_recipes(recipe, hop, num_channels):
    model = small_model(recipe, f"NUM_CHANNELS={num_channels}")
    assert model.hop_samples == hop
    for num_samples in (1, hop, hop + 1, 3 * hop - 1):
        num_frames = math.ceil(num_samples / hop)
        mean = model.encode(audio_of(num_samples, num_channels)).mean
        assert mean.shape == (1, 4, num_frames)
        assert model.decode(mean).shape == (1, num_channels, num_frames * hop)


def test_items_of_a_batch_do_not_touch_each_other():
    model = small_model("v2", *SHORT)
    items = [audio_of(640, seed=seed) for seed in range(3)]
    batch = model.encode(torch.cat(items)).mean
    alone = torch.cat([model.encode(item).mean for item in items])
    assert torch.allclose(batch, alone, rtol=0, atol=1e-5)


def test_audio_of_another_shape_is_refused_with_both_shapes():
    model = small_model("v2", *SHORT)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 64\); \(batch, 1, samples\)"):
        model.encode(audio_of(64, 2))
    with pytest.raises(ValueError, match=r"shape \(1, 64\)"):
        model.encode(audio_of(64)[0])


def test_an_odd_ratio_is_refused():
    with pytest.raises(ValueError, match=r"ratio 3 is odd; use even ratios"):
        ConvTranspose1d(2, 2, 3)
    with pytest.raises(ValueError, match=r"ratio 3 is odd"):
        small_model("v2", "RATIOS=[3, 2]", "DILATIONS=[[1], [1]]")


def test_frames_that_cut_the_noise_generators_blocks_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 2\] give 4 band steps .* multiple of 8"):
        small_model("v2_small", *SHORT)


@pytest.mark.parametrize(
    ("recipe", "num_encoder", "num_decoder"),
    [
        ("v2", 16_056_928, 15_479_072),
        ("v2_small", 3_945_904, 3_816_608),
        ("v1", 4.83e6, 12.78e6),
        ("onnx", 1.37e6, 3.42e6),
        ("raspberry", 0.43e6, 0.97e6),
        ("v3", 16.06e6, 15.48e6),
        ("v2+noise", 16.06e6, 15.63e6),
    ],
)
def test_recipes_have_as_many_parameters_as_those_of_acids_rave(recipe, num_encoder, num_decoder):
    model = build_model(recipe).requires_grad_(True)
    parts = (model.encoder, model.decoder)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    tolerance = 0 if isinstance(num_encoder, int) else 5e3
    assert counts == pytest.approx([num_encoder, num_decoder], abs=tolerance)


# The posterior


def test_kl_equals_that_of_torch_distributions():
    mean, raw = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    posterior = DiagonalGaussian(mean, raw.exp())
    needed = kl_divergence(Normal(mean, raw.exp()), Normal(0.0, 1.0))
    assert torch.allclose(posterior.kl(), needed, rtol=1e-5, atol=1e-6)
    assert posterior.kl().min() >= 0
    prior = DiagonalGaussian(torch.zeros(1, 2, 3), torch.ones(1, 2, 3))
    assert torch.equal(prior.kl(), torch.zeros(1, 2, 3))


def test_samples_have_the_moments_of_the_posterior_and_repeat_with_the_seed():
    posterior = DiagonalGaussian(torch.full((1, 1, 40_000), 2.0), torch.full((1, 1, 40_000), 0.5))
    first, again = (posterior.sample(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert float(first.mean()) == pytest.approx(2, abs=0.02)
    assert float(first.std()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("gain", [0, 1e-6, 1, 1e6])
def test_std_is_above_0_and_all_is_finite_for_silence_and_for_impossible_levels(gain):
    posterior = small_model("v2", *SHORT).encode(gain * audio_of(640))
    assert posterior.std.min() > 0
    assert torch.isfinite(posterior.kl()).all()


# What a frame sees


def seen(output, source):
    """Return the first and the last index of `source` (…, T) that `output` depends on."""
    (gradient,) = torch.autograd.grad(output, source)
    indices = gradient.abs().sum(dim=(0, 1)).nonzero()
    return int(indices.min()), int(indices.max())


@pytest.mark.parametrize("recipe", ["v2", "v2_small", "tiny", "v1", "v3", "v2+causal+noise"])
def test_a_latent_frame_sees_audio_within_the_stated_reach_and_little_less(recipe):
    model = small_model(recipe)
    left, right = model.encoder_reach_frames()
    frame, hop = left + 2, model.hop_samples
    audio = audio_of((frame + right + 3) * hop).double().requires_grad_()
    mean, std = model.double().posterior_parameters(audio)
    first, last = seen((mean[..., frame] + std[..., frame]).sum(), audio)
    assert (frame - left) * hop <= first < (frame - left + 1) * hop
    assert (frame + right - 1) * hop <= last < (frame + right + 1) * hop


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("v2", ()),
        ("v2_small", ()),
        ("tiny", ()),
        ("v1", ()),
        ("v1+causal", ()),
        ("v2+noise", ()),
        ("v2_small+causal", ()),
        ("v2_small", ("RATIOS=[2, 2, 2]", "DILATIONS=[[1], [1], [1]]")),
        ("v2_small", ("RATIOS=[4, 2]", "DILATIONS=[[1], [1]]", "KERNEL_SIZE=1")),
        ("small", FEW_OSCILLATORS),
    ],
)
def test_a_frame_of_audio_sees_latents_within_the_stated_reach(recipe, settings):
    model = small_model(recipe, *settings)
    left, right = model.decoder_reach_frames()
    frame, hop, num_frames = left + 2, model.hop_samples, left + right + 6
    noise = band_noise(model, num_frames).double() if model.decoder_noise_rows else None
    latents = torch.randn(1, 4, num_frames, generator=torch.Generator().manual_seed(0))
    latents = latents.double().requires_grad_()
    audio = model.double().decode(latents, noise)
    weights = torch.randn(hop, generator=torch.Generator().manual_seed(1)).double()
    first, last = seen((audio[0, 0, frame * hop : (frame + 1) * hop] * weights).sum(), latents)
    assert frame - left <= first <= frame - left + 4
    assert frame + right - 4 <= last <= frame + right


def test_a_frame_of_audio_hears_noise_within_the_decoders_reach():
    model = small_model("v2_small")
    left, right = model.decoder_reach_frames()
    frame, hop, num_frames = left + 2, model.hop_samples, left + right + 6
    noise = band_noise(model, num_frames).requires_grad_()
    audio = model.decode(torch.zeros(1, 4, num_frames), noise)
    first, last = seen(audio[..., frame * hop : (frame + 1) * hop].abs().sum(), noise)
    steps = hop // model.pqmf.num_bands
    assert frame - left <= first // steps
    assert last // steps <= frame + right


def test_appended_audio_never_changes_earlier_frames_of_a_causal_encoder():
    causal = ("v2.EncoderV2.is_causal=True", "pqmf.PQMF.is_causal=True")
    model = small_model("v2", *SHORT, *causal)
    assert model.encoder_reach_frames()[1] == 0
    hop, audio = model.hop_samples, audio_of(40 * 64)
    whole = model.encode(audio).mean
    for num_frames in (1, 7, 23):
        part = model.encode(audio[..., : num_frames * hop]).mean
        # A frame's last layer sees up to the frame itself, so the frames before are final.
        assert torch.allclose(part, whole[..., :num_frames], rtol=0, atol=1e-5)


def test_folding_weight_norm_changes_nothing():
    model = small_model("v2_small")
    audio, noise = audio_of(4096), band_noise(model, 8)
    before = model.decode(model.encode(audio).mean, noise)
    fold_weight_norm(model)
    assert not [name for name in model.state_dict() if "parametrizations" in name]
    assert torch.allclose(model.decode(model.encode(audio).mean, noise), before, rtol=0, atol=1e-6)


# Shaped noise


class Fixed(nn.Module):
    """Gives the same amplitudes for every block."""

    def __init__(self, amplitudes, num_blocks):
        super().__init__()
        raw = (amplitudes / 2) ** (1 / 2.3)
        self.raw = torch.logit(raw)[None, :, None].expand(1, -1, num_blocks) + 5

    def forward(self, hidden):
        return self.raw


def shaped(amplitudes, num_blocks=2000, seed=0):
    """Return noise of one row shaped by amplitudes (bins), and the noise."""
    generator = NoiseGenerator(1, 4, 1, 1, [2, 2, 2], len(amplitudes))
    generator.net = Fixed(amplitudes, num_blocks)
    steps = num_blocks * generator.block_steps
    noise = 2 * torch.rand(1, 1, steps, generator=torch.Generator().manual_seed(seed)) - 1
    return generator(torch.zeros(1, 1, steps), noise), noise


def test_equal_amplitudes_scale_the_noise_and_do_not_delay_it():
    output, noise = shaped(torch.full((32,), 0.25))
    assert torch.allclose(output, 0.25 * noise, rtol=0, atol=1e-4)


def test_shaped_noise_has_the_spectrum_of_its_amplitudes():
    """The responses are longer than a block, and are not cut to it."""
    bins = torch.arange(32)
    amplitudes = 0.02 + torch.exp(-0.5 * ((bins - 9) / 3.0).square())
    output, _ = shaped(amplitudes)
    pieces = output[0, 0].unfold(0, 62, 31) * torch.hann_window(62)
    power = torch.fft.rfft(pieces).abs().square().mean(dim=0)
    needed = amplitudes.square() / 3 * torch.hann_window(62).square().sum()  # 1/3: of the noise
    decibels = 10 * torch.log10(power / needed)
    loud = amplitudes > 0.3
    assert decibels[loud].abs().max() < 1.5
    assert decibels[loud].mean().abs() < 0.5
    assert 10 * torch.log10(power[9] / power[25]) > 25


def test_noise_starts_quiet_is_repeatable_and_is_drawn_where_it_is_not_given():
    model = small_model("v2_small")
    latents, noise = torch.zeros(1, 4, 4), band_noise(model, 4)
    assert torch.equal(model.decode(latents, noise), model.decode(latents, noise))
    assert not torch.equal(model.decode(latents), model.decode(latents))
    hidden = torch.zeros(1, 2, 64)
    assert model.decoder.noise(hidden).abs().max() < 0.01


def test_a_recipe_without_noise_decodes_alike_every_time():
    model = small_model("v2")
    assert model.decoder.noise is None
    latents = torch.randn(1, 4, 2)
    assert torch.equal(model.decode(latents), model.decode(latents))


@pytest.mark.parametrize("recipe", list_recipes("rave"))
def test_every_shipped_recipe_builds(recipe):
    experiment.parse_recipe("rave", recipe, ["CAPACITY=2"])
    assert experiment.build_model().latent_size > 0
    training = experiment.build_training()
    assert 0 < training.phase_1_steps <= training.max_steps
