"""RAVE: audio ⇄ latents. B batch, C audio channels, T samples, D latent size, N latent frames.

A rows of noise, M bands.
"""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from rave.blocks.bottleneck import Bottleneck, Gaussian
from rave.blocks.convolution import reach
from rave.blocks.oscillators import OscillatorDecoder
from rave.blocks.posterior import DiagonalGaussian
from rave.blocks.signals import MEMORY_FRAMES, Recurrent, Spectrogram
from rave.compute.distributed import ONE_PROCESS, GlobalBatch
from rave.pqmf import PQMF

LATEST_STEP = 2**20  # at which a crop begins in training, for the clock of oscillators


class RAVE(nn.Module):
    """A variational autoencoder on the bands of a filter bank.

    Args:
        pqmf: Filter bank.
        encoder: Module (B, C·M, T/M) → the bottleneck's rows, (B, 2·D, N) of mean and scale.
        decoder: Module (B, D + A, N) → (B, C·M, T/M), with optional noise as second argument.
        latent_size: D.
        ratios: Strides of the encoder; hop = M · their product.
        sample_rate_hz: Sample rate of the audio.
        num_channels: C.
        bottleneck: Kind of the latents; None: a normal distribution.
        spectrogram: Input of the encoder instead of bands, or None.
        is_raw_output: The decoder outputs audio (B, C, T) instead of bands.
        is_derivative: Audio of this model is the derivative of the actual audio.

    Attributes:
        latent_mean: (D) mean of the posterior means over held-out audio.
        latent_pca: (D, D) their principal axes, one per row, largest variance first.
        fidelity: (D) share of their variance in the first 1, 2, … D axes.
        pads_layers: At the end of audio each layer sees zeros behind its own input, as in
            acids-rave; else zeros fill the last hop. They differ where audio ends inside a hop.

    Source: Caillon & Esling 2021, arXiv:2111.05011.
    """

    # TorchScript would compile them.
    __jit_unused_properties__ = ("has_clock", "decoder_noise_rows", "noise_steps_per_frame")
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
        bottleneck: Bottleneck | None = None,
        spectrogram: Spectrogram | None = None,
        is_raw_output: bool = False,
        is_derivative: bool = False,
    ) -> None:
        super().__init__()
        self.pqmf, self.encoder, self.decoder = pqmf, encoder, decoder
        self.bottleneck = Gaussian() if bottleneck is None else bottleneck
        self.latent_size, self.num_channels = latent_size, num_channels
        self.num_noise_rows = self.bottleneck.num_noise_rows
        self.sample_rate_hz = sample_rate_hz
        self.spectrogram, self.is_raw_output = spectrogram, is_raw_output
        self.is_derivative = is_derivative
        self.pads_layers = False
        step_samples = pqmf.num_bands if spectrogram is None else spectrogram.hop_samples
        self.hop_samples = step_samples * math.prod(ratios)
        self.register_buffer("latent_mean", torch.zeros(latent_size))
        self.register_buffer("latent_pca", torch.eye(latent_size))
        self.register_buffer("fidelity", torch.zeros(latent_size))

    def encode(self, audio: Tensor) -> DiagonalGaussian:
        """Return the posterior over latents of a batch of audio.

        Args:
            audio: (B, C, T) in [-1, 1] at `sample_rate_hz`. Its end is zero-padded: `pads_layers`.

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
        return self.bottleneck.posterior(self.encoder_rows(audio))

    def posterior_parameters(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std of `encode` as two tensors, for TorchScript."""
        parameters: tuple[Tensor, Tensor] = self.bottleneck(self.encoder_rows(audio))
        return parameters

    def encoder_rows(self, audio: Tensor) -> Tensor:
        """Return the encoder's output for audio (B, C, T), before the bottleneck."""
        whole = functional.pad(audio, (0, -audio.shape[-1] % self.hop_samples))
        num_samples = audio.shape[-1]
        if self.spectrogram is None:  # TorchScript compiles one branch only
            rows = self._encoded(self.pqmf.analysis(audio if self.pads_layers else whole))
        else:
            rows = self._encoded(self.spectrogram(whole))
            seen = self.spectrogram.reach_samples
            if self.pads_layers and num_samples % self.hop_samples > 0 and num_samples > seen:
                num_steps = num_samples // self.spectrogram.hop_samples
                theirs = self._encoded(self.spectrogram(audio)[..., :num_steps])
                # acids-rave gives no frame whose first step is not whole
                rows = torch.cat([theirs, rows[..., theirs.shape[-1] :]], dim=-1)
        return rows

    def _encoded(self, steps: Tensor) -> Tensor:
        rows: Tensor = self.encoder(steps)
        return rows

    def with_noise_rows(
        self, latents: Tensor, generator: Generator | None = None, batch: GlobalBatch = ONE_PROCESS
    ) -> Tensor:
        """Return latents with the noise that the decoder sees beside them.

        Args:
            latents: (B, D, N).
            generator: Draws it; a CPU generator draws the same on every device.
            batch: Of which the latents are a shard.

        Returns:
            (B, D + A, N), the noise from N(0, 1).
        """
        shape = (batch.size(len(latents)), self.num_noise_rows, latents.shape[2])
        device = latents.device if generator is None else generator.device
        noise = batch.shard(torch.randn(shape, generator=generator, device=device))
        return torch.cat([latents, noise.to(latents)], dim=1)

    def band_noise(
        self, latents: Tensor, generator: Generator, batch: GlobalBatch = ONE_PROCESS
    ) -> Tensor | None:
        """Return the noise that `decode` shapes, if the decoder has a noise generator.

        Args:
            latents: (B, D, N).
            generator: Draws it; a CPU generator draws the same on every device.
            batch: Of which the latents are a shard.

        Returns:
            (B, rows, N·steps) uniform in [-1, 1); for oscillators (B, 1, N·steps), the number of
            each step from a random one on; or None.
        """
        num_steps = latents.shape[2] * self.noise_steps_per_frame
        size, device = batch.size(len(latents)), generator.device
        if self.has_clock:
            first = torch.randint(0, LATEST_STEP, (size, 1, 1), generator=generator, device=device)
            first = batch.shard(first).to(latents.device)
            return (first + torch.arange(num_steps, device=latents.device)).float()
        if not self.decoder_noise_rows:
            return None
        shape = (size, self.decoder_noise_rows, num_steps)
        uniform = torch.rand(shape, generator=generator, device=device)
        return 2.0 * batch.shard(uniform).to(latents) - 1.0

    @property
    def has_clock(self) -> bool:
        """Return whether the decoder takes the number of each step instead of noise."""
        return isinstance(self.decoder, OscillatorDecoder)

    @property
    def decoder_noise_rows(self) -> int:
        """Return the random rows that the decoder takes, 0 for none."""
        shaper = getattr(self.decoder, "noise", None)
        return 0 if shaper is None else int(shaper.out_channels)

    @property
    def noise_steps_per_frame(self) -> int:
        """Return the steps of the decoder's noise per latent frame."""
        if isinstance(self.decoder, OscillatorDecoder):
            return self.hop_samples // self.decoder.oscillators.step_samples
        return self.hop_samples // self.pqmf.num_bands

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the audio of latents.

        Args:
            latents: (B, D, N), raw latents; or (B, D + A, N), with the rows of noise.
            noise: As `band_noise` gives it, for decoders that use noise; drawn if None.

        Returns:
            (B, C, N·hop_samples), in time with the audio that was encoded. Nominally in [-1, 1].
        """
        output = self.decoder_output(latents, noise)
        return output if self.is_raw_output else self.pqmf.synthesis(output)

    def decode_bands(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the bands of latents, (B, C·M, N·hop/M) in [-1, 1]; arguments as in `decode`."""
        return self.decode_with_bands(latents, noise)[1]

    def decode_with_bands(
        self, latents: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return audio and bands of latents; arguments as in `decode`."""
        output = self.decoder_output(latents, noise)
        if self.is_raw_output:
            return output, self.pqmf.analysis(output)
        return self.pqmf.synthesis(output), output

    def decoder_output(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return what the decoder gives for latents: bands, or audio; arguments as in `decode`."""
        size = self.latent_size
        rest = latents[:, size:]
        if rest.shape[1] < self.num_noise_rows:
            shape = [latents.shape[0], self.num_noise_rows, latents.shape[2]]
            rest = torch.randn(shape, device=latents.device)
        latents = torch.cat([self.bottleneck.project(latents[:, :size]), rest], dim=1)
        output: Tensor = self.decoder(latents, noise)
        return output

    def encoder_reach_frames(self) -> tuple[int, int]:
        """Return the latent frames left and right of a frame whose audio the encoder sees."""
        if self.spectrogram is None:
            step_samples, seen = self.pqmf.num_bands, self.pqmf.analysis_reach
        else:
            step_samples = self.spectrogram.hop_samples
            seen = self.spectrogram.reach_samples, self.spectrogram.reach_samples
        left, right = reach(self.encoder.modules(), step_samples)
        return self._frames(left, seen[0]), self._frames(right, seen[1])

    def decoder_reach_frames(self) -> tuple[int, int]:
        """Return the latent frames left and right of a frame that the decoder sees."""
        left, right = reach(self.decoder.modules(), self.hop_samples)
        noise = getattr(self.decoder, "noise", None)
        response = 0 if noise is None else noise.reach_steps * self.pqmf.num_bands
        seen = (0, 0) if self.is_raw_output else self.pqmf.synthesis_reach
        is_recurrent = any(isinstance(layer, Recurrent) for layer in self.decoder.modules())
        memory = MEMORY_FRAMES if is_recurrent else 0
        return self._frames(left + response, seen[0]) + memory, self._frames(
            right + response, seen[1]
        )

    def _frames(self, network_samples: int, filter_bank_samples: int) -> int:
        return math.ceil((network_samples + filter_bank_samples) / self.hop_samples)
