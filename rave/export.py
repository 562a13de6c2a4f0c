"""A trained autoencoder as one TorchScript file that needs neither package nor recipe."""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from rave.codec import TORCHSCRIPT_HEADER, CodecFormat
from rave.convolution import fold_weight_norm
from rave.files import atomic_write
from rave.model import RAVE


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
        model: To write.
        codec_format: That the file states.
        path: The file.
    """
    fold_weight_norm(model)
    with warnings.catch_warnings():
        # 2026-11: torch.jit is deprecated in favour of torch.export, which nn~ cannot load.
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(ScriptedRAVE(model.eval()))
        with atomic_write(path) as temporary:
            extra = {TORCHSCRIPT_HEADER: codec_format.to_json()}
            # By way of memory: on a full disk torch's own writer would end the program.
            content = io.BytesIO()
            torch.jit.save(scripted, content, _extra_files=extra)
            temporary.write_bytes(content.getbuffer())
