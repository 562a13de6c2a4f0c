"""RAVE: audio ⇄ latents. B batch, C audio channels, T samples, D latent size, N latent frames."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.convolution import reach
from rave.posterior import DiagonalGaussian
from rave.pqmf import PQMF

STD_FLOOR = 1e-4


class RAVE(nn.Module):
    """A variational autoencoder on the bands of a filter bank.

    Args:
        pqmf: Filter bank.
        encoder: Module (B, C·M, T/M) → (B, 2·D, N).
        decoder: Module (B, D, N) → (B, C·M, T/M), with optional noise as second argument.
        latent_size: D.
        ratios: Strides of the encoder; hop = M · their product.
        sample_rate_hz: Of the audio.
        num_channels: C.

    Attributes:
        latent_mean: (D) mean of the posterior means over held-out audio.
        latent_pca: (D, D) their principal axes, one a row, largest variance first.
        fidelity: (D) share of their variance in the first 1, 2, … D axes.

    Source: Caillon & Esling 2021, arXiv:2111.05011.
    """

    latent_mean: Tensor
    latent_pca: Tensor
    fidelity: Tensor

    def __init__(
        self,
        pqmf: PQMF,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_size: int,
        ratios: list[int],
        sample_rate_hz: int,
        num_channels: int = 1,
    ) -> None:
        super().__init__()
        self.pqmf, self.encoder, self.decoder = pqmf, encoder, decoder
        self.latent_size, self.num_channels = latent_size, num_channels
        self.sample_rate_hz = sample_rate_hz
        self.std_floor = STD_FLOOR  # TorchScript reads attributes, but no globals
        self.hop_samples = pqmf.num_bands * math.prod(ratios)
        self.register_buffer("latent_mean", torch.zeros(latent_size))
        self.register_buffer("latent_pca", torch.eye(latent_size))
        self.register_buffer("fidelity", torch.zeros(latent_size))

    def encode(self, audio: Tensor) -> DiagonalGaussian:
        """Return the posterior over latents of a batch of audio.

        Args:
            audio: (B, C, T) in [-1, 1] at `sample_rate_hz`. The end is zero-padded to a whole hop.

        Returns:
            Posterior with mean and std of shape (B, D, N), N = ceil(T / hop_samples). std > 0.

        Raises:
            ValueError: If `audio` is not 3-D or C differs from `num_channels`.
        """
        if audio.dim() != 3 or audio.shape[1] != self.num_channels:
            raise ValueError(
                f"Audio has shape {tuple(audio.shape)}; (batch, {self.num_channels}, samples) "
                "is needed."
            )
        return DiagonalGaussian(*self.posterior_parameters(audio))

    def posterior_parameters(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std of `encode` as two tensors, for TorchScript."""
        audio = functional.pad(audio, (0, -audio.shape[-1] % self.hop_samples))
        mean, scale = self.encoder(self.pqmf.analysis(audio)).chunk(2, dim=1)
        return mean, functional.softplus(scale) + self.std_floor

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the audio of latents.

        Args:
            latents: (B, D, N), raw latents.
            noise: (B, C·M, N·hop/M) uniform in [-1, 1), for decoders that use noise; drawn if None.

        Returns:
            (B, C, N·hop_samples), in time with the audio that was encoded. Nominally in [-1, 1].
        """
        audio: Tensor = self.pqmf.synthesis(self.decode_bands(latents, noise))
        return audio

    def decode_bands(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the bands of latents, (B, C·M, N·hop/M) in [-1, 1]; arguments as in `decode`."""
        bands: Tensor = self.decoder(latents, noise)
        return bands

    def encoder_reach_frames(self) -> tuple[int, int]:
        """Return the latent frames left and right of a frame whose audio the encoder sees."""
        left, right = reach(self.encoder.modules(), self.pqmf.num_bands)
        return self._frames(left, self.pqmf.analysis_reach[0]), self._frames(
            right, self.pqmf.analysis_reach[1]
        )

    def decoder_reach_frames(self) -> tuple[int, int]:
        """Return the latent frames left and right of a frame that the decoder sees."""
        left, right = reach(self.decoder.modules(), self.hop_samples)
        noise = getattr(self.decoder, "noise", None)
        response = 0 if noise is None else noise.reach_steps * self.pqmf.num_bands
        return self._frames(left + response, self.pqmf.synthesis_reach[0]), self._frames(
            right + response, self.pqmf.synthesis_reach[1]
        )

    def _frames(self, network_samples: int, filter_bank_samples: int) -> int:
        return math.ceil((network_samples + filter_bank_samples) / self.hop_samples)
