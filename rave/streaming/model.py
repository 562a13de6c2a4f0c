"""The autoencoder of a stream: filter bank or spectrogram, encoder and decoder block by block.

B batch, C audio channels, M bands, D latent size, A rows of noise, n steps of a block.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import torch
from torch import Tensor, nn

from rave.blocks.oscillators import PERIOD
from rave.blocks.signals import Spectrogram
from rave.model import RAVE
from rave.pqmf import PQMF
from rave.streaming.decoders import streamed_decoder
from rave.streaming.layers import (
    Clock,
    StreamingAdaIN,
    StreamingConv1d,
    remembered,
    silence_before_start,
    streamed,
)


def flip_odd(bands: Tensor, first_step: int) -> Tensor:
    """Negate odd bands at even steps, counted from time 0."""
    odd = torch.arange(bands.shape[1], device=bands.device)[:, None] % 2 == 1
    even = (torch.arange(bands.shape[2], device=bands.device) + first_step) % 2 == 0
    return torch.where(odd & even, -bands, bands)


class StreamingAnalysis(nn.Module):
    """Audio (B, C, n) → bands (B, C·M, n/M)."""

    def __init__(self, pqmf: PQMF, clock: Clock) -> None:
        super().__init__()
        self.num_bands = pqmf.num_bands
        weight, padding = pqmf.analysis_weight, pqmf.analysis_padding
        self.conv = StreamingConv1d(weight, None, padding, pqmf.num_bands, 1, 1, clock)
        self.clock_after = self.conv.clock_after
        self.first_step = -self.clock_after.delay_steps

    def forward(self, audio: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return the bands of a block of a whole, even number of band steps."""
        batch, channels, samples = audio.shape
        bands = self.conv(audio.reshape(batch * channels, 1, samples), frame, is_first)
        bands = flip_odd(bands, self.first_step)
        return bands.reshape(batch, channels * self.num_bands, -1)


class StreamingSpectrogram(nn.Module):
    """Audio (B, C, n) → rows of a spectrogram (B, C·bands, n / hop of the spectrogram)."""

    memory: Tensor

    def __init__(self, spectrogram: Spectrogram, clock: Clock) -> None:
        super().__init__()
        self.spectrogram, self.steps_per_frame = spectrogram, clock.steps_per_frame
        hop, window = spectrogram.hop_samples, spectrogram.window_samples
        # The window's first weight is 0, so a frame sees one sample less on the left.
        right = window // 2 - 1
        self.wait = -right % hop
        self.kept = window - 1 + self.wait
        self.clock_after = Clock((right + self.wait) // hop, clock.steps_per_frame // hop)
        self.register_buffer("memory", torch.zeros(1, 1, 0))

    def forward(self, audio: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return the frames that are complete with this block."""
        x = remembered(self.memory, audio, self.kept, is_first)
        self.memory = x[:, :, x.shape[2] - self.kept :].clone()
        start = frame * self.steps_per_frame - self.kept
        if start < 0:  # what lies before time 0 is the audio mirrored, as offline
            time = torch.arange(start, start + x.shape[2], device=x.device).abs()
            x = x[:, :, (time - start).clamp(max=x.shape[2] - 1)]
        return self.spectrogram.of_windows(x[:, :, : x.shape[2] - self.wait])


class StreamingSynthesis(nn.Module):
    """Bands (B, C·M, n) → audio (B, C, n·M)."""

    def __init__(self, pqmf: PQMF, clock: Clock) -> None:
        super().__init__()
        self.num_bands = pqmf.num_bands
        weight, padding = pqmf.synthesis_weight, pqmf.synthesis_padding
        self.conv = StreamingConv1d(weight, None, padding, 1, 1, 1, clock)
        self.first_step = -clock.delay_steps
        after = self.conv.clock_after
        self.clock_after = Clock(
            after.delay_steps * self.num_bands, after.steps_per_frame * self.num_bands
        )

    def forward(self, bands: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return the audio of a block of an even number of band steps."""
        batch, rows, steps = bands.shape
        channels = rows // self.num_bands
        bands = flip_odd(bands.reshape(-1, self.num_bands, steps), self.first_step)
        phases = self.conv(bands, frame, is_first)
        audio = (self.num_bands * phases).flip(1).transpose(1, 2)
        return audio.reshape(batch, channels, steps * self.num_bands)


def shared_adaptation(network: nn.Module) -> Tensor:
    """Return one `adaptation`, shared by all layers of a network from now on."""
    layers = [layer for layer in network.modules() if isinstance(layer, StreamingAdaIN)]
    adaptation = layers[0].adaptation if layers else torch.zeros(4)
    for layer in layers:
        layer.adaptation = adaptation
    return adaptation


class StreamingRAVE(nn.Module):
    """A model that processes a stream; shares the weights of the offline model.

    Args:
        model: Model without weight norm.

    Attributes:
        encoder_delay_frames: Delay of latents, in latent frames.
        decoder_delay_samples: Delay of audio relative to latents.

    Raises:
        ValueError: If a layer has no streaming form.
    """

    encoder_adaptation: Tensor
    decoder_adaptation: Tensor

    def __init__(self, model: RAVE) -> None:
        super().__init__()
        self.hop_samples, self.latent_size = model.hop_samples, model.latent_size
        self.bottleneck = model.bottleneck
        self.num_noise_rows = model.num_noise_rows
        self.noise_rows = model.decoder_noise_rows or model.pqmf.num_bands * model.num_channels
        self.noise_steps_per_frame, self.has_clock = model.noise_steps_per_frame, model.has_clock
        self.period = PERIOD  # TorchScript reads no globals
        begin = Clock(0, model.hop_samples)
        self.analysis = (
            StreamingAnalysis(model.pqmf, begin)
            if model.spectrogram is None
            else StreamingSpectrogram(model.spectrogram, begin)
        )
        self.encoder, at_latents = streamed(model.encoder, self.analysis.clock_after)
        self.decoder, at_output = streamed_decoder(model.decoder)
        self.synthesis = None
        if not model.is_raw_output:
            self.synthesis = StreamingSynthesis(model.pqmf, at_output)
            at_output = self.synthesis.clock_after
        self.register_buffer("encoder_adaptation", shared_adaptation(self.encoder))
        self.register_buffer("decoder_adaptation", shared_adaptation(self.decoder))
        self.has_adaptation = any(isinstance(m, StreamingAdaIN) for m in self.modules())
        self.encoder_delay_frames = at_latents.delay_steps
        self.decoder_delay_samples = at_output.delay_steps

    @torch.jit.export
    def encode(self, audio: Tensor, frame: int) -> tuple[Tensor, Tensor]:
        """Return mean and std of the posterior, each (B, D, n), `encoder_delay_frames` late.

        Args:
            audio: (B, C, n·hop_samples).
            frame: Its first frame; 0 begins a stream.
        """
        bands = self.analysis(audio, frame, frame == 0)
        rows = self.encoder(bands, frame, frame == 0)
        self.encoder_adaptation[2:] += self.encoder_adaptation[:2]
        parameters: tuple[Tensor, Tensor] = self.bottleneck(rows)
        return parameters

    @torch.jit.export
    def decode(self, latents: Tensor, noise: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return audio (B, C, n·hop_samples), `decoder_delay_samples` late; silence before it.

        Args:
            latents: (B, D + A, n), raw, with the rows of noise below them.
            noise: (B, noise_rows, n·noise_steps_per_frame) uniform in [-1, 1), for decoders
                that use noise; a clock counts by itself.
            frame: Their first frame. Latents before frame 0 do not exist.
            is_first: Begin a stream.
        """
        size = self.latent_size
        latents = torch.cat([self.bottleneck.project(latents[:, :size]), latents[:, size:]], 1)
        if self.has_clock:
            first = frame * self.noise_steps_per_frame
            clock = torch.arange(first, first + noise.shape[2], device=noise.device) % self.period
            noise = clock.float().expand(latents.shape[0], 1, -1)
        audio = self.decoder(latents, noise, frame, is_first)
        self.decoder_adaptation[2:] += self.decoder_adaptation[:2]
        if self.synthesis is not None:
            audio = self.synthesis(audio, frame, is_first)
        return silence_before_start(audio, frame, self.hop_samples, self.decoder_delay_samples)
