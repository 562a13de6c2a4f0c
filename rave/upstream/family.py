"""The models of acids-rave, built from their settings.

Settings that do not touch what a model computes (losses, discriminators, data) are not looked at;
of the others, what our layers do not compute exactly is refused by name. A family of models adds
its builders to the tables here and in `rave.upstream.networks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from rave.model import RAVE
from rave.pqmf import PQMF
from rave.upstream.config import Config, Part
from rave.upstream.networks import DECODERS, ENCODERS, decoder_latents

# What a model is trained with, and what old versions wrote and newer ones do not read.
TRAINING_ARGUMENTS = (
    *("audio_distance", "multiband_audio_distance", "weights", "loss_weights", "balancer"),
    *("discriminator", "gan_loss", "feature_matching_fun", "num_skipped_features"),
    *("phase_1_duration", "warmup_quantize", "update_discriminator_every", "valid_signal_crop"),
    *("audio_monitor_epochs", "n_bands"),
)


POSTERIORS = {"VariationalEncoder": "encoder"}  # the argument that names the network


def _filter_bank(config: Config, rave: Part) -> PQMF:
    bank = config.chosen(rave, "pqmf", ["CachedPQMF"])
    bank.knows("attenuation", "n_band", "polyphase", "n_channels")
    num_bands = bank.count("n_band")
    if num_bands < 2 or num_bands & (num_bands - 1):
        raise bank.refused("n_band", num_bands)
    return PQMF(bank.number("attenuation"), num_bands, config.is_causal(bank.scope))


def _check_signals(rave: Part) -> None:
    """Refuse models that do not go from bands to bands; old versions said it in other words."""
    old = [rave.arguments.get(f"enable_pqmf_{way}") for way in ("encode", "decode")]
    for mode, bands in zip(("input_mode", "output_mode"), old, strict=True):
        rave.needs(mode, "pqmf", "pqmf")
        if old != [None, None] and not bands:
            raise rave.refused(mode, "raw")
    for name in ("is_mel_input", "spectrogram"):
        rave.needs(name, None, None)


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
    network = config.chosen(posterior, POSTERIORS[posterior.name.rpartition(".")[2]], ENCODERS)
    generator = config.chosen(rave, "decoder", DECODERS)
    _check_signals(rave)
    pqmf = _filter_bank(config, rave)
    num_channels = _num_channels(weights, pqmf.num_bands)
    encoder, decoder = (
        table[part.name.rpartition(".")[2]](config, part, pqmf.num_bands, num_channels)
        for table, part in ((ENCODERS, network), (DECODERS, generator))
    )
    ratios, latent_size = network.counts("ratios"), rave.count("latent_size")
    if math.prod(generator.counts("ratios")) != math.prod(ratios):
        raise generator.refused("ratios", generator.counts("ratios"))
    sizes = network.count("latent_size"), decoder_latents(config, generator)
    for part, size in zip((network, generator), sizes, strict=True):
        if size != latent_size:
            raise part.refused("latent_size", size)
    rate_hz = rave.count("sampling_rate")
    return RAVE(pqmf, encoder, decoder, latent_size, ratios, rate_hz, num_channels).eval()
