"""Open a .ts file of acids-rave as a codec: any kind, streaming or not, mono or stereo.

Only loading runs its code: settings and weights are read from its layers, and the model is built
from ours. So it decodes whole files as a run does, and streaming files keep no state.

Its latents are the file's if these are Gaussian (the first principal ones) or points; if the file
outputs indices of codes, or angles on the sphere, they are the sums of codes, or the points.

K latents of the file, D of the model, N latent frames, R the ratio of its rate to the model's.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.bottleneck import Bottleneck, Discrete, Gaussian, Spherical, Wasserstein
from rave.blocks.convolution import fold_weight_norm, padding
from rave.blocks.quantizer import ResidualQuantizer
from rave.codec_format import CodecFormat
from rave.model import RAVE
from rave.pqmf import PQMF
from rave.upstream.names import naming, their_name
from rave.upstream.run import TRAINING_WEIGHTS, fingerprint
from rave.upstream.script_layers import Layers, decoder_of, encoder_of, spectrogram_of

ATTENUATION_DB = 100.0  # of every shipped configuration; the file contains its filters
# Other content of a file: parameters for the host, a layer without effect, a prior.
OTHER_WEIGHTS = re.compile(r".*_params$|(fake_adain|prior_module|resampler)\.")

KINDS: dict[str, type[Bottleneck]] = {
    "VariationalScriptedRAVE": Gaussian,
    "DiscreteScriptedRAVE": Discrete,
    "WasserteinScriptedRAVE": Wasserstein,
    "SphericalScriptedRAVE": Spherical,
}


class CroppedRAVE(nn.Module):
    """A model seen through its first K principal latents, as acids-rave exports it.

    Args:
        model: The model.
        num_latents: K.
    """

    def __init__(self, model: RAVE, num_latents: int) -> None:
        super().__init__()
        self.model, self.num_latents = model, num_latents

    def posterior_parameters(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std of the principal latents, each (B, K, N)."""
        mean, std = self.model.posterior_parameters(audio)
        axes = self.model.latent_pca[: self.num_latents]
        rotated = torch.matmul(axes, mean - self.model.latent_mean[:, None])
        return rotated, torch.matmul(axes.square(), std.square()).sqrt()

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the audio of principal latents.

        Args:
            latents: (B, D, N), the K first, then the others, which acids-rave draws from N(0, 1).
            noise: Noise input, as in `RAVE.decode`.
        """
        return self.model.decode(self.raw_latents(latents), noise)

    def raw_latents(self, latents: Tensor) -> Tensor:
        """Return the model's own latents (B, D, N) of all principal ones."""
        return torch.matmul(self.model.latent_pca.T, latents) + self.model.latent_mean[:, None]


class ResampledCodec(nn.Module):
    """A codec at a rate R times its own.

    Differs: acids-rave's upsampling is quieter by R and has its samples out of order.

    Args:
        network: `RAVE` or `CroppedRAVE`.
        taps: Low-pass of gain 1 at the higher rate, an odd number of them, at least 2·R.
        ratio: R.
        is_causal: Downsampling sees no later samples, as in causal models of acids-rave.
    """

    taps: Tensor

    def __init__(self, network: nn.Module, taps: Tensor, ratio: int, is_causal: bool) -> None:
        super().__init__()
        self.network: Any = network
        self.ratio, self.taps_left = ratio, len(taps) // 2
        self.padding = padding(len(taps), is_causal=is_causal)
        self.register_buffer("taps", taps[None, None])

    def down(self, audio: Tensor) -> Tensor:
        """Return audio (B, C, T·R) at the network's rate, (B, C, T)."""
        rows = functional.pad(audio.flatten(0, 1)[:, None], self.padding)
        low = functional.conv1d(rows, self.taps, stride=self.ratio)
        return low.reshape(*audio.shape[:2], -1)

    def posterior_parameters(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std of the posterior of audio (B, C, T·R)."""
        parameters: tuple[Tensor, Tensor] = self.network.posterior_parameters(self.down(audio))
        return parameters

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the audio (B, C, T·R) of latents, as `RAVE` does (B, C, T)."""
        low: Tensor = self.network.decode(latents, noise)
        rows = low.flatten(0, 1)[:, None]
        high = self.ratio * functional.conv_transpose1d(rows, self.taps, stride=self.ratio)
        stop = self.taps_left + low.shape[2] * self.ratio
        return high[..., self.taps_left : stop].reshape(*low.shape[:2], -1)


def is_export(network: Any) -> bool:
    """Return whether a loaded .ts file is from acids-rave."""
    return str(network.original_name).endswith("ScriptedRAVE")


def open_export(network: Any, path: Path) -> tuple[nn.Module, CodecFormat]:
    """Return the codec in a loaded .ts file of acids-rave, and its format.

    Args:
        network: Result of torch.jit.load.
        path: Path of the file; only for messages.

    Raises:
        ValueError: If it holds a model that this version cannot open; the message names what.
    """
    layers = Layers(network, path)
    rate_hz = int(_attribute(layers, "sr", "sampling_rate"))
    model, weights = _model(layers, rate_hz)
    codec: nn.Module = model
    is_variational = isinstance(model.bottleneck, Gaussian)
    digest = sha256(fingerprint(weights, is_variational).encode())
    form = CodecFormat.of(model)
    if is_variational:
        count = int(_attribute(layers, "latent_size"))
        if not 1 <= count <= model.latent_size:
            raise layers.refused(f"{count} latents")
        codec = CroppedRAVE(model, count)
        form = replace(form, latent_size=count, num_noise_rows=model.latent_size - count)
        digest.update(f" {count}".encode())
        for buffer in (model.latent_pca, model.latent_mean):
            digest.update(buffer.numpy().tobytes())
    if layers.part("resampler") is not None:
        codec = _resampled(layers, codec)
        form = _at_ratio(form, codec.ratio)
        digest.update(codec.taps.numpy().tobytes())
    form = replace(form, sample_rate_hz=rate_hz, fingerprint=digest.hexdigest()[:16])
    return codec.eval().requires_grad_(False), form


def _attribute(layers: Layers, *names: str) -> Any:
    for name in names:
        if getattr(layers.network, name, None) is not None:
            return getattr(layers.network, name)
    raise ValueError(f"'{layers.path}' does not state its {names[0]}; is it from acids-rave 2?")


def _model(layers: Layers, rate_hz: int) -> tuple[RAVE, dict[str, Tensor]]:
    """Return the model of a file, and its weights by their names in the file."""
    kind = layers.network.original_name
    if kind not in KINDS:
        raise layers.refused(f"a {kind}")
    output_mode = getattr(layers.network, "output_mode", "pqmf")
    if output_mode != "pqmf":
        raise layers.refused(f"output_mode '{output_mode}'")
    num_bands = layers.weight("pqmf.forward_conv").shape[0]
    latent_size = len(layers.buffer("latent_mean"))
    spectrogram = spectrogram_of(layers)
    num_rows = num_bands if spectrogram is None else spectrogram.num_bands
    num_channels = layers.weight("encoder.encoder.net.0").shape[1] // num_rows
    encoder, ratios = encoder_of(layers, num_rows, latent_size, KINDS[kind].rows_per_latent)
    decoder, up_ratios, decoder_rows = decoder_of(layers, num_bands, num_channels)
    step_samples = num_bands if spectrogram is None else spectrogram.hop_samples
    if step_samples * math.prod(ratios) != num_bands * math.prod(up_ratios):
        raise layers.refused(f"ratios {ratios} and {up_ratios}")
    bottleneck = _bottleneck(layers, KINDS[kind], latent_size, decoder_rows - latent_size)
    pqmf = PQMF(ATTENUATION_DB, num_bands, layers.is_causal("pqmf.forward_conv"))
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
    ).eval()
    model.pads_layers = True
    fold_weight_norm(model)
    weights = _load_weights(model, layers)
    if isinstance(bottleneck, Discrete):
        # It always quantizes. Untrained codebooks would leave nothing, and 2.3.1 trains none.
        codes = [v for name, v in bottleneck.named_buffers() if name.endswith(".codes")]
        bottleneck.is_enabled.fill_(any(bool(v.any()) for v in codes))
    return model, weights


def _bottleneck(
    layers: Layers, kind: type[Bottleneck], latent_size: int, num_noise_rows: int
) -> Bottleneck:
    if num_noise_rows < 0 or (num_noise_rows and kind in (Gaussian, Spherical)):
        raise layers.refused(f"a decoder of {latent_size + num_noise_rows} latents")
    if kind is Discrete:
        stages = layers.children("encoder.rvq.layers")
        codes = layers.weights.get("encoder.rvq.layers.0._codebook.embed")
        if codes is None or codes.shape[1] != latent_size:
            raise layers.refused("codebooks of another size than the latents")
        return Discrete(ResidualQuantizer(len(stages), *codes.shape), num_noise_rows)
    return Wasserstein(num_noise_rows) if kind is Wasserstein else kind()


def _load_weights(model: RAVE, layers: Layers) -> dict[str, Tensor]:
    """Copy the weights into a model, and return them by the file's names."""
    rules, state = naming(model), model.state_dict()
    used = {}
    for ours in state:
        theirs = their_name(ours, rules)
        found = layers.weights.get(theirs)
        if found is None or found.shape != state[ours].shape:
            what = "no" if found is None else f"a {tuple(found.shape)}"
            raise layers.refused(f"{what} {theirs}")
        state[ours] = used[theirs] = found
    for name in layers.weights:
        if not (name in used or TRAINING_WEIGHTS.match(name) or OTHER_WEIGHTS.match(name)):
            # the noise of v1 before its second phase
            if name.startswith("decoder.synth.branches.2.") and model.decoder.noise is None:
                continue
            raise layers.refused(f"{name}, unknown here")
    model.load_state_dict(state)
    return used


def _resampled(layers: Layers, codec: nn.Module) -> ResampledCodec:
    name = "resampler.downsample"
    taps, ratio = layers.weight(name).flatten(), layers.part(name).stride[0]
    if len(taps) % 2 == 0 or len(taps) < 2 * ratio:
        raise layers.refused(f"a resampler of {len(taps)} taps for ratio {ratio}")
    return ResampledCodec(codec, taps, ratio, layers.is_causal(name))


def _at_ratio(form: CodecFormat, ratio: int) -> CodecFormat:
    """Return the format of a `ResampledCodec`; its taps reach less than a frame."""
    reaches = form.encoder_reach_frames, form.decoder_reach_frames
    encoder, decoder = ((left + 1, right + 1) for left, right in reaches)
    return replace(
        form,
        hop_samples=form.hop_samples * ratio,
        encoder_reach_frames=encoder,
        decoder_reach_frames=decoder,
    )
