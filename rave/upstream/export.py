"""A run of ours as a run folder that acids-rave opens. M bands, P taps of a band filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rave.blocks.bottleneck import Gaussian
from rave.blocks.signals import Recurrent
from rave.blocks.v2 import DecoderV2, EncoderV2
from rave.checkpoint import last_checkpoint, model_weights, packed, read_checkpoint
from rave.codec import load_model
from rave.discriminator import NUM_LAYERS, PERIOD_KERNEL, SCALE_KERNEL, STRIDE
from rave.experiment import Reference
from rave.files import atomic_folder
from rave.model import RAVE
from rave.pqmf import prototype_filter
from rave.upstream.config import CAUSAL, CENTRED, Config
from rave.upstream.run import CONFIG, is_run, num_decoder_layers, their_name

CHECKPOINT = Path("version_0") / "checkpoints" / "last.ckpt"
DISCRIMINATORS = ["MultiPeriodDiscriminator", "MultiScaleDiscriminator"]
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
DILATIONS = {dilations!r}
KERNEL_SIZE = {kernel_size!r}
LATENT_SIZE = {latent_size!r}
NOISE_AUGMENTATION = 0
PHASE_1_DURATION = {phase_1_duration!r}

cc.get_padding.mode = {mode!r}
cc.Conv1d.bias = False
cc.ConvTranspose1d.bias = False
blocks.normalization.mode = 'weight_norm'
pqmf.CachedPQMF.attenuation = {attenuation!r}
pqmf.CachedPQMF.n_band = %N_BAND

blocks.VariationalEncoder.encoder = @variational/blocks.EncoderV2
variational/blocks.EncoderV2.data_size = %N_BAND
variational/blocks.EncoderV2.capacity = %CAPACITY
variational/blocks.EncoderV2.ratios = %RATIOS
variational/blocks.EncoderV2.dilations = %DILATIONS
variational/blocks.EncoderV2.kernel_size = %KERNEL_SIZE
variational/blocks.EncoderV2.latent_size = %LATENT_SIZE
variational/blocks.EncoderV2.n_out = 2

blocks.GeneratorV2.data_size = %N_BAND
blocks.GeneratorV2.capacity = {decoder_capacity!r}
blocks.GeneratorV2.ratios = {decoder_ratios!r}
blocks.GeneratorV2.dilations = {decoder_dilations!r}
blocks.GeneratorV2.kernel_size = {decoder_kernel_size!r}
blocks.GeneratorV2.latent_size = @core.get_augmented_latent_size()
blocks.GeneratorV2.amplitude_modulation = True
core.get_augmented_latent_size.latent_size = %LATENT_SIZE
core.get_augmented_latent_size.noise_augmentation = %NOISE_AUGMENTATION

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
rave.RAVE.decoder = @blocks.GeneratorV2
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


def export_run(run: Path, out: Path) -> bool:
    """Write a run of `rave train` as a run folder of acids-rave, whole or not at all.

    Discriminators go along if the checkpoint has them and they are of the kinds that acids-rave
    has. States of the optimizers do not: acids-rave encodes, decodes and exports such a run, but
    cannot continue it.

    Args:
        run: Folder of `rave train`.
        out: Folder to make; may exist if it is empty.

    Returns:
        Whether the discriminators went along.

    Raises:
        ValueError: If the run cannot be read, acids-rave has no such model, or `out` is not empty.
        OSError: If `out` cannot be written.
    """
    if is_run(run):
        raise ValueError(f"'{run}' is a run of acids-rave already. Copy it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"'{out}' exists and is not an empty folder. Choose another name.")
    model, ours = load_model(run), Config(run / "config.gin")
    _check_expressible(model, ours, run)
    checkpoint = read_checkpoint(last_checkpoint(run))
    discriminators = _discriminator_weights(checkpoint, ours)
    weights = {**_model_weights(checkpoint, model, ours), **discriminators}
    content = {
        "epoch": int(checkpoint.get("epoch", 0)),
        "global_step": int(checkpoint["global_step"]),
        "pytorch-lightning_version": str(checkpoint.get("pytorch-lightning_version", "2.6.2")),
        "state_dict": weights,
        "callbacks": {},
    }
    with atomic_folder(out) as folder:
        (folder / CONFIG).write_text(_config_text(model, ours))
        (folder / CHECKPOINT).parent.mkdir(parents=True)
        (folder / CHECKPOINT).write_bytes(packed(content))
    return bool(discriminators)


def _check_expressible(model: RAVE, ours: Config, run: Path) -> None:
    """Refuse a model that acids-rave has no parts for."""
    for part, known in ((model.encoder, EncoderV2), (model.decoder, DecoderV2)):
        if type(part) is not known:
            raise ValueError(f"'{run}' uses {type(part).__name__}, which acids-rave does not have.")
    if type(model.bottleneck) is not Gaussian:
        raise ValueError(
            f"'{run}' has {type(model.bottleneck).__name__} latents, which this version cannot "
            "write for acids-rave. Export it as TorchScript."
        )
    is_recurrent = any(isinstance(layer, Recurrent) for layer in model.decoder.modules())
    if model.spectrogram is not None or model.is_raw_output or is_recurrent:
        raise ValueError(
            f"'{run}' sees a spectrogram, gives audio without bands, or is recurrent, which this "
            "version cannot write for acids-rave. Export it as TorchScript."
        )
    noise = getattr(model.decoder, "noise", None)
    if noise is not None:
        raise ValueError(
            f"'{run}' uses {type(noise).__name__}, whose overlapping responses acids-rave does "
            "not have. Export it as TorchScript."
        )
    causal = {name: _is_causal(ours, name) for name in ("PQMF", "EncoderV2", "DecoderV2")}
    if len(set(causal.values())) > 1:
        told = ", ".join(f"{name} {value}" for name, value in causal.items())
        raise ValueError(
            f"'{run}' is causal in parts (is_causal: {told}); in acids-rave a run is so as a whole."
        )


def _is_causal(ours: Config, name: str) -> bool:
    return bool(ours.part(name).arguments.get("is_causal", False))


def _attenuation_db(ours: Config) -> float:
    value = ours.part("PQMF").number("attenuation_db")
    return int(value) if value == int(value) else value


def _model_weights(checkpoint: dict[str, Any], model: RAVE, ours: Config) -> dict[str, Tensor]:
    """Return what acids-rave's model of this kind keeps, but its discriminators."""
    layers = num_decoder_layers(model)
    weights = {their_name(n, layers): value for n, value in model_weights(checkpoint).items()}
    bands = model.pqmf.num_bands
    prototype = torch.from_numpy(prototype_filter(_attenuation_db(ours), bands)).float()
    is_second_phase = checkpoint["global_step"] >= _training(ours, "phase_1_steps", 1000000)
    weights |= {
        "pqmf.h": prototype,
        "pqmf.hk": model.pqmf.analysis_weight[:, 0, :-1].clone(),  # (M, P), one zero tap less
        "encoder.warmed_up": torch.tensor(int(is_second_phase)),
        "receptive_field": torch.zeros(2, dtype=torch.int64),  # not measured: acids-rave will
    }
    for index, size in enumerate(_scales(ours)):
        for distance in ("audio_distance", "multiband_audio_distance"):
            name = f"{distance}.multiscale_stft.stfts.{index}.window"
            weights[name] = torch.hann_window(size)
    return weights


def _discriminator_weights(checkpoint: dict[str, Any], ours: Config) -> dict[str, Tensor]:
    """Return the weights of the discriminators, or none if acids-rave has none of their kinds."""
    combined = ours.part("CombinedDiscriminator").arguments.get("discriminators", [])
    names = [d.name.rpartition(".")[2] for d in combined if isinstance(d, Reference)]
    if names != DISCRIMINATORS:
        return {}
    state = checkpoint["state_dict"]
    return {their_name(n, 0): value for n, value in state.items() if n.startswith("discriminator.")}


def _training(ours: Config, argument: str, default: Any) -> Any:
    return ours.part("RaveTraining").arguments.get(argument, default)


def _scales(ours: Config) -> list[int]:
    scales: list[int] = ours.part("SpectralDistance", "audio").arguments.get("scales", SCALES)
    return scales


def _config_text(model: RAVE, ours: Config) -> str:
    encoder, decoder = (ours.part(name).arguments for name in ("EncoderV2", "DecoderV2"))
    periods, scales = (ours.part(name).arguments for name in DISCRIMINATORS)
    distance = ours.part("SpectralDistance", "audio").arguments
    channels = model.num_channels  # versions before 2.3 do not know the argument
    return CONFIG_TEXT.format(
        sampling_rate=model.sample_rate_hz,
        n_band=model.pqmf.num_bands,
        capacity=encoder["capacity"],
        ratios=encoder["ratios"],
        dilations=encoder["dilations"],
        kernel_size=encoder["kernel_size"],
        latent_size=model.latent_size,
        phase_1_duration=_training(ours, "phase_1_steps", 1000000),
        mode=CAUSAL if _is_causal(ours, "PQMF") else CENTRED,
        attenuation=_attenuation_db(ours),
        decoder_capacity=decoder["capacity"],
        decoder_ratios=decoder["ratios"],
        decoder_dilations=decoder["dilations"],
        decoder_kernel_size=decoder["kernel_size"],
        num_layers=NUM_LAYERS,
        stride=STRIDE,
        period_kernel=PERIOD_KERNEL,
        period_capacity=periods.get("capacity", encoder["capacity"]),
        scale_kernel=SCALE_KERNEL,
        scale_capacity=scales.get("capacity", encoder["capacity"]),
        periods=periods.get("periods", PERIODS),
        num_scales=scales.get("num_scales", NUM_SCALES),
        scales=_scales(ours),
        log_epsilon=distance.get("log_epsilon", 1e-7),
        stereo=f"rave.RAVE.n_channels = {channels}\n" if channels > 1 else "",
        num_skipped_features=_training(ours, "num_skipped_features", 1),
        update_discriminator_every=_training(ours, "discriminator_every_steps", 4),
        feature_matching=_training(ours, "feature_matching_weight", 20.0),
        beta_initial=_training(ours, "beta_initial", 1e-6) / 2,  # its KL lacks the factor 1/2
        beta=_training(ours, "beta", 0.1) / 2,
        beta_warmup=_training(ours, "beta_warmup_steps", 20000),
    )
