"""Build the models of acids-rave from their settings.

Settings that do not change what a model computes (losses, discriminators, data) are ignored; of the
others, those that our layers do not compute exactly are refused by name. A family of models adds
its builders to the tables here and in `rave.upstream.networks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from rave.blocks.bottleneck import Discrete
from rave.model import RAVE
from rave.pqmf import PQMF
from rave.upstream.config import Config, Part
from rave.upstream.networks import DECODERS, ENCODERS, decoder_latents
from rave.upstream.posteriors import POSTERIORS
from rave.upstream.signals import mel_spectrogram, signals

# Arguments for training only, and those that old versions wrote and newer ones do not read.
TRAINING_ARGUMENTS = (
    *("audio_distance", "multiband_audio_distance", "weights", "loss_weights", "balancer"),
    *("discriminator", "gan_loss", "feature_matching_fun", "num_skipped_features"),
    *("phase_1_duration", "warmup_quantize", "update_discriminator_every", "valid_signal_crop"),
    *("audio_monitor_epochs", "n_bands"),
)


def _filter_bank(config: Config, rave: Part) -> PQMF:
    bank = config.chosen(rave, "pqmf", ["CachedPQMF"])
    bank.knows("attenuation", "n_band", "polyphase", "n_channels")
    num_bands = bank.count("n_band")
    if num_bands < 2 or num_bands & (num_bands - 1):
        raise bank.refused("n_band", num_bands)
    return PQMF(bank.number("attenuation"), num_bands, config.is_causal(bank.scope))


def _num_channels(weights: Mapping[str, Tensor], rows_per_channel: int) -> int:
    """Return the number of audio channels by the encoder's first layer; 1 if it has none."""
    for name in ("weight_v", "weight"):
        first = weights.get(f"encoder.encoder.net.0.{name}")
        if first is not None and first.dim() == 3:
            return max(first.shape[1] // rows_per_channel, 1)
    return 1


def build_model(config: Config, weights: Mapping[str, Tensor]) -> RAVE:
    """Return the model of a config.gin with fresh weights.

    Args:
        config: Configuration of the run.
        weights: Weights of the checkpoint; only they show the number of channels.

    Raises:
        ValueError: If it uses a setting that this version cannot open; the message names it.
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
    num_channels = _num_channels(weights, num_rows)
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
    num_decoder_latents, num_noise_rows = decoder_latents(config, generator)
    if num_decoder_latents + num_noise_rows != latent_size + bottleneck.num_noise_rows:
        if num_decoder_latents == latent_size:
            augmented = config.part("get_augmented_latent_size", generator.scope)
            raise augmented.refused("noise_augmentation", num_noise_rows)
        raise generator.refused("latent_size", num_decoder_latents)
    if isinstance(bottleneck, Discrete) and bottleneck.quantizer.latent_size != latent_size:
        raise posterior.refused("dim", bottleneck.quantizer.latent_size)
    rate_hz = rave.count("sampling_rate")
    model = RAVE(
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
    model.pads_layers = True
    return model
