"""The config.gin that acids-rave needs for a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rave.blocks.v1 import DILATIONS, UNIT_KERNEL, DecoderV1
from rave.discriminator import NUM_LAYERS, PERIOD_KERNEL, SCALE_KERNEL, STRIDE
from rave.model import RAVE
from rave.upstream.config import CAUSAL, CENTRED, Config

DISCRIMINATORS = ["MultiPeriodDiscriminator", "MultiScaleDiscriminator"]
CLASSES = {"Snake": "@blocks.Snake", "AdaIN": "@blocks.AdaptiveInstanceNormalization"}
SIZES = {
    "data_size": "%N_BAND",
    "capacity": "%CAPACITY",
    "ratios": "%RATIOS",
    "latent_size": "%LATENT_SIZE",
}
# What a run that does not say takes: the values of the paper's second version.
PERIODS, NUM_SCALES, SCALES = [2, 3, 5, 7, 11], 3, [2048, 1024, 512, 256, 128]
CONFIG_TEXT = """\
# A run of rave-diffwave, written by `rave export --format acids-rave`.
from __gin__ import dynamic_registration

import cached_conv as cc
import rave
import torch.nn as nn
from rave import blocks
from rave import core
from rave import dataset
from rave import discriminator
from rave import pqmf

SAMPLING_RATE = {sampling_rate!r}
N_BAND = {n_band!r}
CAPACITY = {capacity!r}
RATIOS = {ratios!r}
LATENT_SIZE = {latent_size!r}
PHASE_1_DURATION = {phase_1_duration!r}

cc.get_padding.mode = {mode!r}
cc.Conv1d.bias = False
cc.ConvTranspose1d.bias = False
blocks.normalization.mode = 'weight_norm'
pqmf.CachedPQMF.attenuation = {attenuation!r}
pqmf.CachedPQMF.n_band = %N_BAND

blocks.VariationalEncoder.encoder = @{encoder}
{network}

discriminator.ConvNet.out_size = 1
discriminator.ConvNet.n_layers = {num_layers!r}
discriminator.ConvNet.stride = {stride!r}
periods/discriminator.ConvNet.conv = @nn.Conv2d
periods/discriminator.ConvNet.kernel_size = ({period_kernel!r}, 1)
periods/discriminator.ConvNet.capacity = {period_capacity!r}
scales/discriminator.ConvNet.conv = @nn.Conv1d
scales/discriminator.ConvNet.kernel_size = {scale_kernel!r}
scales/discriminator.ConvNet.capacity = {scale_capacity!r}
discriminator.MultiPeriodDiscriminator.periods = {periods!r}
discriminator.MultiPeriodDiscriminator.convnet = @periods/discriminator.ConvNet
discriminator.MultiScaleDiscriminator.n_discriminators = {num_scales!r}
discriminator.MultiScaleDiscriminator.convnet = @scales/discriminator.ConvNet
discriminator.CombineDiscriminators.discriminators = \\
    [@discriminator.MultiPeriodDiscriminator, @discriminator.MultiScaleDiscriminator]

core.MultiScaleSTFT.scales = {scales!r}
core.MultiScaleSTFT.sample_rate = %SAMPLING_RATE
core.MultiScaleSTFT.magnitude = True
core.AudioDistanceV1.multiscale_stft = @core.MultiScaleSTFT
core.AudioDistanceV1.log_epsilon = {log_epsilon!r}
feature_matching/core.mean_difference.norm = 'L1'
feature_matching/core.mean_difference.relative = True
dataset.split_dataset.max_residual = 1000

rave.RAVE.sampling_rate = %SAMPLING_RATE
rave.RAVE.latent_size = %LATENT_SIZE
{stereo}rave.RAVE.pqmf = @pqmf.CachedPQMF
rave.RAVE.encoder = @blocks.VariationalEncoder
rave.RAVE.decoder = @{decoder}
rave.RAVE.discriminator = @discriminator.CombineDiscriminators
rave.RAVE.phase_1_duration = %PHASE_1_DURATION
rave.RAVE.gan_loss = @core.hinge_gan
rave.RAVE.valid_signal_crop = True
rave.RAVE.feature_matching_fun = @feature_matching/core.mean_difference
rave.RAVE.num_skipped_features = {num_skipped_features!r}
rave.RAVE.update_discriminator_every = {update_discriminator_every!r}
rave.RAVE.audio_distance = @core.AudioDistanceV1
rave.RAVE.multiband_audio_distance = @core.AudioDistanceV1
rave.RAVE.weights = {{'feature_matching': {feature_matching!r}}}
rave.BetaWarmupCallback.initial_value = {beta_initial!r}
rave.BetaWarmupCallback.target_value = {beta!r}
rave.BetaWarmupCallback.warmup_len = {beta_warmup!r}
"""


def is_causal(ours: Config, name: str) -> bool:
    """Return whether a part of our run is causal."""
    return bool(ours.part(name).arguments.get("is_causal", False))


def attenuation_db(ours: Config) -> float:
    """Return the attenuation of the filter bank, whole if it is."""
    value = ours.part("PQMF").number("attenuation_db")
    return int(value) if value == int(value) else value


def training(ours: Config, argument: str, default: Any) -> Any:
    """Return an argument of the training settings."""
    return ours.part("RaveTraining").arguments.get(argument, default)


def scales(ours: Config) -> list[int]:
    """Return the sizes of the spectral distance."""
    sizes: list[int] = ours.part("SpectralDistance", "audio").arguments.get("scales", SCALES)
    return sizes


def theirs(reference: Any) -> str | None:
    """Return how acids-rave's config names a class of ours; None for None.

    Raises:
        ValueError: If it has no such class.
    """
    if reference is None:
        return None
    name = str(reference).rpartition(".")[2]
    if name not in CLASSES:
        raise ValueError(f"acids-rave has nothing like {name}. Export the run as TorchScript.")
    return CLASSES[name]


def _optional(prefix: str, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the bindings of what only some models have."""
    values = {
        "activation": theirs(arguments.get("activation")),
        "adain": theirs(arguments.get("adaptation")),
    }
    return {f"{prefix}.{name}": value for name, value in values.items() if value is not None}


Network = tuple[str, str, dict[str, str]]  # encoder, decoder, what is bound to both


def _network_v2(model: RAVE, ours: Config) -> Network:
    encoder, decoder = "variational/blocks.EncoderV2", "blocks.GeneratorV2"
    sizes, generator = (ours.part(name).arguments for name in ("EncoderV2", "DecoderV2"))
    augmented = "core.get_augmented_latent_size"
    bound = {
        "DILATIONS": repr(sizes["dilations"]),
        "KERNEL_SIZE": repr(sizes["kernel_size"]),
        "NOISE_AUGMENTATION": "0",
        **{f"{encoder}.{name}": macro for name, macro in SIZES.items()},
        f"{encoder}.dilations": "%DILATIONS",
        f"{encoder}.kernel_size": "%KERNEL_SIZE",
        f"{encoder}.n_out": "2",
        **_optional(encoder, sizes),
        f"{decoder}.data_size": "%N_BAND",
        f"{decoder}.latent_size": f"@{augmented}()",
        f"{decoder}.amplitude_modulation": "True",
        **_optional(decoder, generator),
        f"{augmented}.latent_size": "%LATENT_SIZE",
        f"{augmented}.noise_augmentation": "%NOISE_AUGMENTATION",
    }
    for name in ("capacity", "ratios", "dilations", "kernel_size"):
        bound[f"{decoder}.{name}"] = repr(generator[name])
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


def _network_v1(model: RAVE, ours: Config) -> Network:
    encoder, decoder = "variational/blocks.Encoder", "blocks.Generator"
    generator = ours.part("DecoderV1").arguments
    has_noise = getattr(model.decoder, "noise", None) is not None
    bound = {
        **{f"{encoder}.{name}": macro for name, macro in SIZES.items()},
        f"{encoder}.n_out": "2",
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


def config_text(model: RAVE, ours: Config) -> str:
    """Return the config.gin of acids-rave for a model, from the settings of our run."""
    capacity = ours.part(type(model.encoder).__name__).arguments["capacity"]
    describe = _network_v1 if isinstance(model.decoder, DecoderV1) else _network_v2
    encoder, decoder, network = describe(model, ours)
    periods, multi_scale = (ours.part(name).arguments for name in DISCRIMINATORS)
    distance = ours.part("SpectralDistance", "audio").arguments
    channels = model.num_channels  # versions before 2.3 do not know the argument
    return CONFIG_TEXT.format(
        sampling_rate=model.sample_rate_hz,
        n_band=model.pqmf.num_bands,
        capacity=capacity,
        ratios=ours.part(type(model.encoder).__name__).arguments["ratios"],
        encoder=encoder,
        decoder=decoder,
        network="\n".join(f"{name} = {value}" for name, value in network.items()),
        latent_size=model.latent_size,
        phase_1_duration=training(ours, "phase_1_steps", 1000000),
        mode=CAUSAL if is_causal(ours, "PQMF") else CENTRED,
        attenuation=attenuation_db(ours),
        num_layers=NUM_LAYERS,
        stride=STRIDE,
        period_kernel=PERIOD_KERNEL,
        period_capacity=periods.get("capacity", capacity),
        scale_kernel=SCALE_KERNEL,
        scale_capacity=multi_scale.get("capacity", capacity),
        periods=periods.get("periods", PERIODS),
        num_scales=multi_scale.get("num_scales", NUM_SCALES),
        scales=scales(ours),
        log_epsilon=distance.get("log_epsilon", 1e-7),
        stereo=f"rave.RAVE.n_channels = {channels}\n" if channels > 1 else "",
        num_skipped_features=training(ours, "num_skipped_features", 1),
        update_discriminator_every=training(ours, "discriminator_every_steps", 4),
        feature_matching=training(ours, "feature_matching_weight", 20.0),
        beta_initial=training(ours, "beta_initial", 1e-6) / 2,  # its KL lacks the factor 1/2
        beta=training(ours, "beta", 0.1) / 2,
        beta_warmup=training(ours, "beta_warmup_steps", 20000),
    )
