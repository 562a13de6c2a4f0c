"""Export a trained autoencoder as one TorchScript file that needs neither package nor recipe."""

# No `from __future__ import annotations`: TorchScript reads the annotations.

from pathlib import Path

import torch
from torch import Tensor, nn

from rave.blocks.convolution import fold_weight_norm
from rave.codec_format import CodecFormat, write_torchscript
from rave.model import RAVE
from rave.prior import LatentPrior
from rave.streaming.any_rate import NNTildeAtAnyRate
from rave.streaming.nn_tilde import NNTilde, NNTildePrior, fits_blocks


class ScriptedRAVE(nn.Module):
    """The methods of an exported codec. B batch, C channels, T samples, D latent size, N frames."""

    def __init__(self, model: RAVE) -> None:
        super().__init__()
        self.model = model
        self.sample_rate_hz = model.sample_rate_hz
        self.hop_samples = model.hop_samples
        self.latent_size = model.latent_size
        self.num_channels = model.num_channels

    @torch.jit.export
    def posterior_parameters(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return posterior mean and std, each (B, D, N), of audio (B, C, T)."""
        return self.model.posterior_parameters(audio)

    @torch.jit.export
    def encode(self, audio: Tensor) -> Tensor:
        """Return the posterior mean (B, D, N) of audio (B, C, T)."""
        return self.model.posterior_parameters(audio)[0]

    @torch.jit.export
    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the audio (B, C, N·hop) of raw latents (B, D, N)."""
        return self.model.decode(latents, noise)

    def forward(self, audio: Tensor) -> Tensor:
        """Return the reconstruction (B, C, T) of audio (B, C, T)."""
        return self.decode(self.encode(audio), None)[..., : audio.shape[-1]]


def export_torchscript(model: RAVE, codec_format: CodecFormat, path: Path) -> None:
    """Write a model as TorchScript, whole or not at all. Its weight norm is folded in place.

    Args:
        model: Model to write.
        codec_format: Format to state in the file.
        path: The file.
    """
    fold_weight_norm(model)
    write_torchscript(ScriptedRAVE(model.eval()), codec_format, path)


def export_nn_tilde(
    model: RAVE,
    codec_format: CodecFormat,
    path: Path,
    num_latents: int,
    noise_seed: int,
    host_rate_hz: int | None = None,
    prior: LatentPrior | None = None,
) -> NNTilde:
    """Write a model as TorchScript for nn~, as `export_torchscript` does.

    Args:
        model: Model to write.
        codec_format: Format to state in the file: the model's own, with all latents.
        path: The file.
        num_latents: Latents of `encode` and `decode` (`rave.streaming.nn_tilde.latent_count`).
        noise_seed: Random seed of the noise in `decode`; negative: new noise each time.
        host_rate_hz: Sample rate of the host, if not the model's.
        prior: Prior of the model's latents, for the method `prior`.

    Returns:
        The module written. It has only `forward` if latent frames do not fit the host's blocks.

    Raises:
        ValueError: If a layer has no streaming form, the hop does not fit, or a prior cannot be
            used.
    """
    module: NNTilde
    if host_rate_hz is None or fits_blocks(model.sample_rate_hz, host_rate_hz):
        model = model.eval()
        module = (
            NNTilde(model, num_latents, noise_seed, host_rate_hz)
            if prior is None
            else NNTildePrior(model, prior, num_latents, noise_seed, host_rate_hz)
        )
    elif prior is None:
        module = NNTildeAtAnyRate(model.eval(), num_latents, host_rate_hz, noise_seed)
    else:
        raise ValueError(
            f"At {host_rate_hz} Hz, a model of {model.sample_rate_hz} Hz has no method decode for "
            "a prior. Leave out --prior or --host-rate."
        )
    module.eval()
    write_torchscript(module, codec_format, path)
    return module
