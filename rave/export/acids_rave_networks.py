"""The bindings of acids-rave's config.gin for networks, latents and signals of our models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rave.blocks.bottleneck import Discrete, Gaussian, Spherical, Wasserstein
from rave.blocks.v1 import DILATIONS, UNIT_KERNEL, DecoderV1
from rave.model import RAVE
from rave.upstream.config import Config

CLASSES = {"Snake": "@blocks.Snake", "AdaIN": "@blocks.AdaptiveInstanceNormalization"}
# For each kind of latents: acids-rave's class, and its argument that names the network.
LATENTS = {
    Gaussian: ("blocks.VariationalEncoder", "encoder"),
    Wasserstein: ("blocks.WasserteinEncoder", "encoder_cls"),
    Discrete: ("blocks.DiscreteEncoder", "encoder_cls"),
    Spherical: ("blocks.SphericalEncoder", "encoder_cls"),
}
QUANTIZER, SPECTROGRAM = "quantization.ResidualVectorQuantization", "transforms.MelSpectrogram"
AUGMENTED = "core.get_augmented_latent_size"
Bindings = dict[str, str]


@dataclass
class Network:
    """A model in acids-rave's config.

    Attributes:
        posterior: Class that encodes.
        decoder: Class that decodes.
        bindings: Bindings of these classes and of their parts.
    """

    posterior: str
    decoder: str
    bindings: Bindings


def theirs(reference: Any) -> str | None:
    """Return acids-rave's name for one of our classes; None for None.

    Raises:
        ValueError: If acids-rave has no such class.
    """
    if reference is None:
        return None
    name = str(reference).rpartition(".")[2]
    if name not in CLASSES:
        raise ValueError(f"acids-rave does not have {name}. Export the run as TorchScript.")
    return CLASSES[name]


def network(model: RAVE, ours: Config) -> Network:
    """Return a model as acids-rave's config describes it, from the settings of our run."""
    posterior, argument = LATENTS[type(model.bottleneck)]
    scope = "variational/" if isinstance(model.bottleneck, Gaussian) else ""
    describe = _v1 if isinstance(model.decoder, DecoderV1) else _v2
    encoder, decoder, bindings = describe(model, ours, scope)
    bound = {f"{posterior}.{argument}": f"@{encoder}", **bindings}
    return Network(posterior, decoder, bound | _latents(model, posterior) | _signals(model))


def _optional(prefix: str, arguments: Mapping[str, Any]) -> Bindings:
    """Return the bindings of optional parts."""
    values = {
        "activation": theirs(arguments.get("activation")),
        "adain": theirs(arguments.get("adaptation")),
    }
    return {f"{prefix}.{name}": value for name, value in values.items() if value is not None}


def _encoder(model: RAVE, encoder: str) -> Bindings:
    size = "%N_BAND" if model.spectrogram is None else repr(model.spectrogram.num_bands)
    return {
        f"{encoder}.data_size": size,
        f"{encoder}.capacity": "%CAPACITY",
        f"{encoder}.ratios": "%RATIOS",
        f"{encoder}.latent_size": "%LATENT_SIZE",
        f"{encoder}.n_out": repr(model.bottleneck.rows_per_latent),
    }


def _v2(model: RAVE, ours: Config, scope: str) -> tuple[str, str, Bindings]:
    encoder, decoder = f"{scope}blocks.EncoderV2", "blocks.GeneratorV2"
    sizes, generator = (ours.part(name).arguments for name in ("EncoderV2", "DecoderV2"))
    bound = {
        "DILATIONS": repr(sizes["dilations"]),
        "KERNEL_SIZE": repr(sizes["kernel_size"]),
        "NOISE_AUGMENTATION": repr(model.num_noise_rows),
        **_encoder(model, encoder),
        f"{encoder}.dilations": "%DILATIONS",
        f"{encoder}.kernel_size": "%KERNEL_SIZE",
        **_optional(encoder, sizes),
        f"{decoder}.data_size": "None" if model.is_raw_output else "%N_BAND",
        f"{decoder}.latent_size": f"@{AUGMENTED}()",
        f"{decoder}.amplitude_modulation": "True",
        **_optional(decoder, generator),
        f"{AUGMENTED}.latent_size": "%LATENT_SIZE",
        f"{AUGMENTED}.noise_augmentation": "%NOISE_AUGMENTATION",
    }
    for name in ("capacity", "ratios", "dilations", "kernel_size"):
        bound[f"{decoder}.{name}"] = repr(generator[name])
    if generator.get("recurrent") is not None:
        layers = ours.part("Recurrent").arguments["num_layers"]
        bound |= {
            f"{decoder}.recurrent_layer": "@blocks.GRU",
            "blocks.GRU.num_layers": repr(layers),
        }
    if getattr(model.decoder, "noise", None) is not None:
        shaped, noise = ours.part("NoiseGenerator").arguments, "blocks.NoiseGeneratorV2"
        bound |= {
            f"{decoder}.noise_module": f"@{noise}",
            f"{noise}.data_size": "%N_BAND",
            f"{noise}.hidden_size": repr(shaped["hidden_channels"]),
            f"{noise}.ratios": repr(shaped["ratios"]),
            f"{noise}.noise_bands": repr(shaped["num_bins"]),
            **_optional(noise, shaped),
        }
    return encoder, decoder, bound


def _v1(model: RAVE, ours: Config, scope: str) -> tuple[str, str, Bindings]:
    encoder, decoder = f"{scope}blocks.Encoder", "blocks.Generator"
    generator = ours.part("DecoderV1").arguments
    has_noise = getattr(model.decoder, "noise", None) is not None
    bound = {
        **_encoder(model, encoder),
        f"{encoder}.sample_norm": "False",
        f"{encoder}.repeat_layers": "1",
        f"{decoder}.data_size": "%N_BAND",
        f"{decoder}.latent_size": "%LATENT_SIZE",
        f"{decoder}.capacity": repr(generator["capacity"]),
        f"{decoder}.ratios": repr(generator["ratios"]),
        f"{decoder}.loud_stride": "1",
        f"{decoder}.use_noise": repr(has_noise),
        "blocks.ResidualStack.kernel_sizes": repr([UNIT_KERNEL]),
        "blocks.ResidualStack.dilations_list": repr([[d, 1] for d in DILATIONS]),
    }
    if has_noise:
        shaped = ours.part("NoiseGenerator").arguments
        bound["blocks.NoiseGenerator.ratios"] = repr(shaped["ratios"])
        bound["blocks.NoiseGenerator.noise_bands"] = repr(shaped["num_bins"])
    return encoder, decoder, bound


def _latents(model: RAVE, posterior: str) -> Bindings:
    bottleneck, bound = model.bottleneck, dict[str, str]()
    if isinstance(bottleneck, (Discrete, Wasserstein)):
        bound[f"{posterior}.noise_augmentation"] = "%NOISE_AUGMENTATION"
    if isinstance(bottleneck, Discrete):
        num_stages = repr(len(bottleneck.quantizer.stages))
        bound |= {
            f"{posterior}.vq_cls": f"@{QUANTIZER}",
            f"{posterior}.num_quantizers": num_stages,
            f"{QUANTIZER}.num_quantizers": num_stages,
            f"{QUANTIZER}.codebook_size": repr(bottleneck.quantizer.num_codes),
            f"{QUANTIZER}.dim": "%LATENT_SIZE",
            "rave.RAVE.warmup_quantize": "-1",
        }
    return bound


def _signals(model: RAVE) -> Bindings:
    bound = {"rave.RAVE.output_mode": "'raw'"} if model.is_raw_output else {}
    mel = model.spectrogram
    if mel is not None:
        bound |= {
            "rave.RAVE.input_mode": "'mel'",
            "rave.RAVE.spectrogram": f"@{SPECTROGRAM}()",
            f"{SPECTROGRAM}.sample_rate": "%SAMPLING_RATE",
            f"{SPECTROGRAM}.n_fft": repr(mel.window_samples),
            f"{SPECTROGRAM}.win_length": repr(mel.window_samples),
            f"{SPECTROGRAM}.hop_length": repr(mel.hop_samples),
            f"{SPECTROGRAM}.n_mels": repr(mel.num_bands),
            f"{SPECTROGRAM}.normalized": "True",
        }
    return bound
