"""The models of acids-rave, built from their settings.

Settings that do not touch what a model computes (losses, discriminators, data) are not looked at;
of the others, what our layers do not compute exactly is refused by name. A family of models adds
its builders to the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rave.blocks.bottleneck import Discrete
from rave.blocks.v2 import DecoderV2, EncoderV2
from rave.experiment import Reference
from rave.model import RAVE
from rave.pqmf import PQMF
from rave.upstream.config import Config, Part
from rave.upstream.posteriors import POSTERIORS
from rave.upstream.signals import mel_spectrogram, recurrent_layer, signals

# What a model is trained with, and what old versions wrote and newer ones do not read.
TRAINING_ARGUMENTS = (
    *("audio_distance", "multiband_audio_distance", "weights", "loss_weights", "balancer"),
    *("discriminator", "gan_loss", "feature_matching_fun", "num_skipped_features"),
    *("phase_1_duration", "warmup_quantize", "update_discriminator_every", "valid_signal_crop"),
    *("audio_monitor_epochs", "n_bands"),
)


def _check_convolutions(config: Config, scope: str) -> None:
    config.part("normalization", scope).needs("mode", "weight_norm", "identity")
    config.part("Conv1d", scope).needs("bias", False, True)
    config.part("ConvTranspose1d", scope).needs("bias", False, True)


def _dilations(part: Part) -> list[list[int]]:
    """Return a list of dilations for each ratio, or more; one list stands for all ratios."""
    ratios, value = part.counts("ratios"), part.bound("dilations")
    if not isinstance(value, (list, tuple)) or not value:
        raise part.refused("dilations", value)
    if not isinstance(value[0], (list, tuple)):
        return [part.counts("dilations")] * len(ratios)
    rows = [
        Part(part.path, part.name, part.scope, {"dilations": row}).counts("dilations")
        for row in value
    ]
    if len(rows) < len(ratios):
        raise part.refused("dilations", value)
    return rows


def _encoder_v2(config: Config, part: Part, num_bands: int, num_channels: int) -> EncoderV2:
    part.knows(
        *("data_size", "capacity", "ratios", "latent_size", "n_out", "kernel_size", "dilations"),
        *("keep_dim", "recurrent_layer", "n_channels", "activation", "adain", "spectrogram"),
    )
    part.needs("keep_dim", False, False)
    for name in ("recurrent_layer", "adain", "activation"):
        part.needs(name, None, None)
    part.needs("data_size", num_bands, None)
    _check_convolutions(config, part.scope)
    ratios = part.counts("ratios")
    return EncoderV2(
        num_bands,
        num_channels,
        part.count("capacity"),
        ratios,
        part.count("latent_size"),
        part.count("kernel_size"),
        _dilations(part)[: len(ratios)],
        config.is_causal(part.scope),
        part.count("n_out"),
    )


def _decoder_v2(config: Config, part: Part, num_bands: int, num_channels: int) -> DecoderV2:
    part.knows(
        *("data_size", "capacity", "ratios", "latent_size", "kernel_size", "dilations"),
        *("keep_dim", "recurrent_layer", "n_channels", "activation", "adain"),
        *("amplitude_modulation", "noise_module"),
    )
    part.needs("keep_dim", False, False)
    part.needs("amplitude_modulation", True, False)
    for name in ("adain", "activation", "noise_module"):
        part.needs(name, None, None)
    # Without a size it gives audio: one row a channel.
    part.needs("data_size", None if num_bands == 1 else num_bands, None)
    _check_convolutions(config, part.scope)
    ratios = part.counts("ratios")
    for ratio in ratios:
        if ratio % 2:  # acids-rave gives a sample too many there
            raise part.refused("ratios", ratios)
    return DecoderV2(
        num_bands,
        num_channels,
        part.count("capacity"),
        ratios,
        sum(_decoder_latents(config, part)),
        part.count("kernel_size"),
        _dilations(part)[-len(ratios) :],  # acids-rave pairs them from the end
        is_causal=config.is_causal(part.scope),
        recurrent=recurrent_layer(config, part, sum(_decoder_latents(config, part))),
    )


def _decoder_latents(config: Config, part: Part) -> tuple[int, int]:
    """Return how many latents and how many rows of noise a decoder takes."""
    value = part.bound("latent_size")
    if not isinstance(value, Reference):
        return part.count("latent_size"), 0
    if value.name.rpartition(".")[2] != "get_augmented_latent_size" or not value.is_called:
        raise part.refused("latent_size", value)
    augmented = config.part("get_augmented_latent_size", part.scope)
    num_noise_rows = augmented.arguments.get("noise_augmentation", 0)
    if type(num_noise_rows) is not int or num_noise_rows < 0:
        raise augmented.refused("noise_augmentation", num_noise_rows)
    return augmented.count("latent_size"), num_noise_rows


Builder = Callable[[Config, Part, int, int], nn.Module]
ENCODERS: dict[str, Builder] = {"EncoderV2": _encoder_v2}
DECODERS: dict[str, Builder] = {"GeneratorV2": _decoder_v2}


def _filter_bank(config: Config, rave: Part) -> PQMF:
    bank = config.chosen(rave, "pqmf", ["CachedPQMF"])
    bank.knows("attenuation", "n_band", "polyphase", "n_channels")
    num_bands = bank.count("n_band")
    if num_bands < 2 or num_bands & (num_bands - 1):
        raise bank.refused("n_band", num_bands)
    return PQMF(bank.number("attenuation"), num_bands, config.is_causal(bank.scope))


def build_model(config: Config, weights: Mapping[str, Tensor]) -> RAVE:
    """Return the model of a config.gin with fresh weights.

    Args:
        config: Of the run.
        weights: Of the checkpoint; only they tell the number of channels.

    Raises:
        ValueError: If it uses what this version cannot open; the message names it.
    """
    rave = config.part("RAVE")
    rave.knows(
        *("latent_size", "sampling_rate", "pqmf", "encoder", "decoder", "n_channels"),
        *("input_mode", "output_mode", "enable_pqmf_encode", "enable_pqmf_decode"),
        *("is_mel_input", "spectrogram", *TRAINING_ARGUMENTS),
    )
    posterior = config.chosen(rave, "encoder", POSTERIORS)
    argument, build_bottleneck = POSTERIORS[posterior.name.rpartition(".")[2]]
    network = config.chosen(posterior, argument, ENCODERS)
    bottleneck = build_bottleneck(config, posterior)
    network.needs("n_out", bottleneck.rows_per_latent, None)
    generator = config.chosen(rave, "decoder", DECODERS)
    pqmf = _filter_bank(config, rave)
    has_bands, is_raw_output = signals(rave)
    spectrogram = None if has_bands else mel_spectrogram(config, rave)
    num_rows = pqmf.num_bands if spectrogram is None else spectrogram.num_bands
    first = weights.get("encoder.encoder.net.0.weight_v", torch.zeros(0))
    num_channels = max(first.shape[1] // num_rows, 1) if first.dim() == 3 else 1
    encoder, decoder = (
        table[part.name.rpartition(".")[2]](config, part, size, num_channels)
        for table, part, size in (
            (ENCODERS, network, num_rows),
            (DECODERS, generator, 1 if is_raw_output else pqmf.num_bands),
        )
    )
    ratios, latent_size = network.counts("ratios"), rave.count("latent_size")
    step_samples = pqmf.num_bands if spectrogram is None else spectrogram.hop_samples
    out_samples = 1 if is_raw_output else pqmf.num_bands
    if out_samples * math.prod(generator.counts("ratios")) != step_samples * math.prod(ratios):
        raise generator.refused("ratios", generator.counts("ratios"))
    if network.count("latent_size") != latent_size:
        raise network.refused("latent_size", network.count("latent_size"))
    num_decoder_latents, num_noise_rows = _decoder_latents(config, generator)
    if num_decoder_latents + num_noise_rows != latent_size + bottleneck.num_noise_rows:
        if num_decoder_latents == latent_size:
            augmented = config.part("get_augmented_latent_size", generator.scope)
            raise augmented.refused("noise_augmentation", num_noise_rows)
        raise generator.refused("latent_size", num_decoder_latents)
    if isinstance(bottleneck, Discrete) and bottleneck.quantizer.latent_size != latent_size:
        raise posterior.refused("dim", bottleneck.quantizer.latent_size)
    rate_hz = rave.count("sampling_rate")
    return RAVE(
        pqmf,
        encoder,
        decoder,
        latent_size,
        ratios,
        rate_hz,
        num_channels,
        bottleneck,
        spectrogram,
        is_raw_output,
    ).eval()
