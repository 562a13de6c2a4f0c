"""Build the encoders and decoders of acids-rave from their settings.

Settings that our layers do not compute exactly are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rave.blocks.adain import AdaIN
from rave.blocks.noise import NoiseGenerator
from rave.blocks.snake import Snake
from rave.blocks.v1 import DILATIONS, UNIT_KERNEL, DecoderV1, EncoderV1
from rave.blocks.v2 import DecoderV2, EncoderV2
from rave.runs.gin_text import Reference
from rave.upstream.config import Config, Part
from rave.upstream.signals import recurrent_layer

# Their name → our class, for settings that name classes.
ACTIVATIONS: dict[str, type[nn.Module]] = {"Snake": Snake}
ADAPTATIONS: dict[str, type[nn.Module]] = {"AdaptiveInstanceNormalization": AdaIN}


def check_convolutions(config: Config, scope: str) -> None:
    """Refuse convolutions with biases, and decoders without weight normalisation."""
    config.part("normalization", scope).needs("mode", "weight_norm", "identity")
    config.part("Conv1d", scope).needs("bias", False, True)
    config.part("ConvTranspose1d", scope).needs("bias", False, True)


def optional_class(
    part: Part, argument: str, known: dict[str, type[nn.Module]]
) -> type[nn.Module] | None:
    """Return our class for the one that an argument names, or None for None."""
    value = part.arguments.get(argument)
    if value is None:
        return None
    name = value.name.rpartition(".")[2] if isinstance(value, Reference) else ""
    if name not in known or value.is_called:
        raise part.refused(argument, value)
    return known[name]


def dilations_of(part: Part) -> list[list[int]]:
    """Return a list of dilations for each ratio, or more; a single list applies to all ratios."""
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


def decoder_latents(config: Config, part: Part) -> tuple[int, int]:
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


def _even_ratios(part: Part) -> list[int]:
    ratios = part.counts("ratios")
    if any(ratio % 2 for ratio in ratios):  # acids-rave gives a sample too many there
        raise part.refused("ratios", ratios)
    return ratios


def encoder_v1(config: Config, part: Part, num_bands: int, num_channels: int) -> EncoderV1:
    """Return the encoder of v1, onnx and raspberry."""
    part.knows(
        *("data_size", "capacity", "ratios", "latent_size", "n_out", "sample_norm"),
        *("repeat_layers", "recurrent_layer", "n_channels", "spectrogram"),
    )
    part.needs("n_out", 2, None)
    part.needs("sample_norm", False, None)
    part.needs("repeat_layers", 1, None)
    part.needs("recurrent_layer", None, None)
    part.needs("data_size", num_bands, None)
    config.part("Conv1d", part.scope).needs("bias", False, True)
    return EncoderV1(
        num_bands,
        num_channels,
        part.count("capacity"),
        part.counts("ratios"),
        part.count("latent_size"),
        config.is_causal(part.scope),
    )


def encoder_v2(config: Config, part: Part, num_bands: int, num_channels: int) -> EncoderV2:
    """Return the encoder of v2 and its variants."""
    part.knows(
        *("data_size", "capacity", "ratios", "latent_size", "n_out", "kernel_size", "dilations"),
        *("keep_dim", "recurrent_layer", "n_channels", "activation", "adain", "spectrogram"),
    )
    part.needs("keep_dim", False, False)
    part.needs("recurrent_layer", None, None)
    part.needs("data_size", num_bands, None)
    check_convolutions(config, part.scope)
    ratios = part.counts("ratios")
    return EncoderV2(
        num_bands,
        num_channels,
        part.count("capacity"),
        ratios,
        part.count("latent_size"),
        part.count("kernel_size"),
        dilations_of(part)[: len(ratios)],
        config.is_causal(part.scope),
        optional_class(part, "activation", ACTIVATIONS),
        optional_class(part, "adain", ADAPTATIONS),
        part.count("n_out"),
    )


def decoder_v1(config: Config, part: Part, num_bands: int, num_channels: int) -> DecoderV1:
    """Return the decoder of v1, onnx and raspberry."""
    part.knows(
        *("data_size", "capacity", "ratios", "latent_size", "loud_stride", "use_noise"),
        *("recurrent_layer", "n_channels"),
    )
    part.needs("loud_stride", 1, 1)
    part.needs("recurrent_layer", None, None)
    part.needs("data_size", num_bands, None)
    stack = config.part("ResidualStack", part.scope)
    stack.knows("kernel_sizes", "dilations_list")
    stack.needs("kernel_sizes", [UNIT_KERNEL], None)
    stack.needs("dilations_list", [[d, 1] for d in DILATIONS], None)
    check_convolutions(config, part.scope)
    is_causal, noise = config.is_causal(part.scope), None
    capacity = part.count("capacity")
    if part.arguments.get("use_noise", True):
        shaped = config.part("NoiseGenerator", part.scope)
        shaped.knows("data_size", "ratios", "noise_bands", "n_channels")
        shaped.needs("data_size", num_bands, num_bands)
        noise = NoiseGenerator(
            capacity,
            capacity,
            num_bands,
            num_channels,
            shaped.counts("ratios"),
            shaped.count("noise_bands"),
            kernel_size=UNIT_KERNEL,
            is_causal=is_causal,
            overlaps=False,
        )
    ratios, latent_size = _even_ratios(part), part.count("latent_size")
    return DecoderV1(num_bands, num_channels, capacity, ratios, latent_size, noise, is_causal)


def _noise_v2(
    config: Config, decoder: Part, num_bands: int, num_channels: int
) -> NoiseGenerator | None:
    if decoder.arguments.get("noise_module") is None:
        return None
    part = config.chosen(decoder, "noise_module", ["NoiseGeneratorV2"])
    part.knows(
        *("in_size", "hidden_size", "data_size", "ratios", "noise_bands"),
        *("n_channels", "activation"),
    )
    part.needs("data_size", num_bands, None)
    return NoiseGenerator(
        decoder.count("capacity"),
        part.count("hidden_size"),
        num_bands,
        num_channels,
        part.counts("ratios"),
        part.count("noise_bands"),
        is_causal=True,  # also in centred models
        overlaps=False,
        activation=optional_class(part, "activation", ACTIVATIONS),
    )


def decoder_v2(config: Config, part: Part, num_bands: int, num_channels: int) -> DecoderV2:
    """Return the decoder of v2 and its variants."""
    part.knows(
        *("data_size", "capacity", "ratios", "latent_size", "kernel_size", "dilations"),
        *("keep_dim", "recurrent_layer", "n_channels", "activation", "adain"),
        *("amplitude_modulation", "noise_module"),
    )
    part.needs("keep_dim", False, False)
    part.needs("amplitude_modulation", True, False)
    # Without a size, its output is audio: one row per channel.
    part.needs("data_size", None if num_bands == 1 else num_bands, None)
    check_convolutions(config, part.scope)
    ratios, num_rows = _even_ratios(part), sum(decoder_latents(config, part))
    return DecoderV2(
        num_bands,
        num_channels,
        part.count("capacity"),
        ratios,
        num_rows,
        part.count("kernel_size"),
        dilations_of(part)[-len(ratios) :],  # acids-rave pairs them from the end
        _noise_v2(config, part, num_bands, num_channels),
        config.is_causal(part.scope),
        optional_class(part, "activation", ACTIVATIONS),
        optional_class(part, "adain", ADAPTATIONS),
        recurrent=recurrent_layer(config, part, num_rows),
    )


Builder = Callable[[Config, Part, int, int], nn.Module]
ENCODERS: dict[str, Builder] = {"Encoder": encoder_v1, "EncoderV2": encoder_v2}
DECODERS: dict[str, Builder] = {"Generator": decoder_v1, "GeneratorV2": decoder_v2}
