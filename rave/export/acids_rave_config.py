"""The config.gin of acids-rave for one of our models."""

from __future__ import annotations

from typing import Any

from rave.blocks.bottleneck import Gaussian
from rave.export.acids_rave_networks import network
from rave.model import RAVE
from rave.upstream.config import CAUSAL, CENTRED, Config
from rave.upstream.discriminators import Discriminators

# Defaults of a run that states none: the values of the paper's second version.
SCALES = [2048, 1024, 512, 256, 128]
# Modules that only some configs name; versions of acids-rave that lack one never see it.
IMPORTS = {
    "descript_discriminator.": "from rave import descript_discriminator",
    "quantization.": "from rave import quantization",
    "transforms.": "from torchaudio import transforms",
}
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
{imports}
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

{network}

{discriminators}

core.MultiScaleSTFT.scales = {scales!r}
core.MultiScaleSTFT.sample_rate = %SAMPLING_RATE
core.MultiScaleSTFT.magnitude = True
core.AudioDistanceV1.multiscale_stft = @core.MultiScaleSTFT
core.AudioDistanceV1.log_epsilon = {log_epsilon!r}
feature_matching/core.mean_difference.norm = 'L1'
feature_matching/core.mean_difference.relative = {is_relative!r}
dataset.split_dataset.max_residual = 1000

rave.RAVE.sampling_rate = %SAMPLING_RATE
rave.RAVE.latent_size = %LATENT_SIZE
{stereo}rave.RAVE.pqmf = @pqmf.CachedPQMF
rave.RAVE.encoder = @{posterior}
rave.RAVE.decoder = @{decoder}
rave.RAVE.discriminator = @{discriminator}
rave.RAVE.phase_1_duration = %PHASE_1_DURATION
rave.RAVE.gan_loss = @core.hinge_gan
rave.RAVE.valid_signal_crop = {is_cropped!r}
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
    """Return the attenuation of the filter bank, as an int if it is whole."""
    value = ours.part("PQMF").number("attenuation_db")
    return int(value) if value == int(value) else value


def training(ours: Config, argument: str, default: Any) -> Any:
    """Return an argument of the training settings."""
    return ours.part("RaveTraining").arguments.get(argument, default)


def scales(ours: Config) -> list[int]:
    """Return the sizes of the spectral distance."""
    sizes: list[int] = ours.part("SpectralDistance", "audio").arguments.get("scales", SCALES)
    return sizes


def capacity(model: RAVE, ours: Config) -> int:
    """Return the capacity of the encoder of our run."""
    found: int = ours.part(type(model.encoder).__name__).arguments["capacity"]
    return found


def config_text(model: RAVE, ours: Config, described_discriminators: Discriminators) -> str:
    """Return the config.gin of acids-rave for a model, from the settings of our run."""
    described = network(model, ours)
    lines = [
        "\n".join(f"{name} = {value}" for name, value in bindings.items())
        for bindings in (described.bindings, described_discriminators.bindings)
    ]
    imports = [line for name, line in IMPORTS.items() if name in "\n".join(lines)]
    distance = ours.part("SpectralDistance", "audio").arguments
    # acids-rave's KL divergence lacks the factor 1/2.
    share = 0.5 if isinstance(model.bottleneck, Gaussian) else 1.0
    channels = model.num_channels  # versions before 2.3 do not have the argument
    return CONFIG_TEXT.format(
        imports="".join(f"{line}\n" for line in imports),
        sampling_rate=model.sample_rate_hz,
        n_band=model.pqmf.num_bands,
        capacity=capacity(model, ours),
        ratios=ours.part(type(model.encoder).__name__).arguments["ratios"],
        posterior=described.posterior,
        decoder=described.decoder,
        network=lines[0],
        discriminator=described_discriminators.name,
        discriminators=lines[1],
        latent_size=model.latent_size,
        phase_1_duration=training(ours, "phase_1_steps", 1000000),
        mode=CAUSAL if is_causal(ours, "PQMF") else CENTRED,
        attenuation=attenuation_db(ours),
        scales=scales(ours),
        log_epsilon=distance.get("log_epsilon", 1e-7),
        is_relative=training(ours, "is_feature_matching_relative", True),
        is_cropped=described.decoder != "blocks.Generator",  # as in its own configs
        stereo=f"rave.RAVE.n_channels = {channels}\n" if channels > 1 else "",
        num_skipped_features=training(ours, "num_skipped_features", 1),
        update_discriminator_every=training(ours, "discriminator_every_steps", 4),
        feature_matching=training(ours, "feature_matching_weight", 20.0),
        beta_initial=training(ours, "beta_initial", 1e-6) * share,
        beta=training(ours, "beta", 0.1) * share,
        beta_warmup=training(ours, "beta_warmup_steps", 20000),
    )
