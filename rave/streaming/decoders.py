"""Decoders that process a stream block by block, with their noise and recurrent layers.

B batch, C audio channels, M bands, D latent size, A rows of noise below the latents, n steps of a
block.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.noise import NoiseGenerator, amplitude
from rave.blocks.oscillators import OscillatorDecoder
from rave.blocks.signals import Recurrent
from rave.blocks.v1 import DecoderV1
from rave.blocks.v2 import DecoderV2
from rave.streaming.layers import Clock, Delay, silence_before_start, streamed


class StreamingRecurrent(nn.Module):
    """A recurrent network of a stream: it keeps its state, and begins at time 0."""

    state: Tensor

    def __init__(self, layer: Recurrent, clock: Clock) -> None:
        super().__init__()
        self.gru = layer.gru
        self.num_layers, self.size = layer.gru.num_layers, layer.gru.hidden_size
        self.delay_steps, self.steps_per_frame = clock.delay_steps, clock.steps_per_frame
        self.register_buffer("state", torch.zeros(self.num_layers, 1, self.size))

    def forward(self, x: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return (B, C, n) for (B, C, n); zeros before time 0."""
        if is_first:
            self.state = x.new_zeros(self.num_layers, x.shape[0], self.size)
        early = min(max(self.delay_steps - frame * self.steps_per_frame, 0), x.shape[2])
        if early == x.shape[2]:
            return torch.zeros_like(x)
        hidden, self.state = self.gru(x[:, :, early:].transpose(1, 2), self.state)
        return functional.pad(hidden.transpose(1, 2), (early, 0))


class StreamingNoise(nn.Module):
    """Shaped noise of a stream; blocks overlap into the next call."""

    tail: Tensor

    def __init__(self, generator: NoiseGenerator, clock: Clock) -> None:
        super().__init__()
        self.net, at_blocks = streamed(generator.net, clock)
        self.generator = generator
        delay = at_blocks.delay_steps * generator.block_steps
        self.noise_delay, self.steps_per_frame = delay, clock.steps_per_frame
        self.clock_after = Clock(delay + generator.lead_steps, clock.steps_per_frame)
        self.delay = Delay(delay)
        self.register_buffer("tail", torch.zeros(1, 1, 0))

    def forward(self, hidden: Tensor, noise: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return (B, C·M, n) for hidden (B, in_channels, n) and noise (B, C·M, n)."""
        steps = hidden.shape[2]
        noise = self.delay(noise, is_first)
        noise = silence_before_start(noise, frame, self.steps_per_frame, self.noise_delay)
        summed = self.generator.shaped(self.net(hidden, frame, is_first), noise)
        if not is_first and summed.shape[2] > steps:
            summed = summed + functional.pad(self.tail, (0, steps))
        self.tail = summed[:, :, steps:].clone()
        return summed[:, :, :steps]


class Together(nn.Module):
    """Two streams, the earlier one delayed to match the later."""

    def __init__(self, first: Clock, second: Clock) -> None:
        super().__init__()
        late = second.delay_steps - first.delay_steps
        self.first, self.second = Delay(max(late, 0)), Delay(max(-late, 0))
        self.clock_after = first.later(max(late, 0))

    def forward(self, first: Tensor, second: Tensor, is_first: bool) -> tuple[Tensor, Tensor]:
        """Return both, aligned in time."""
        return self.first(first, is_first), self.second(second, is_first)


class StreamingDecoderV1(nn.Module):
    """`DecoderV1` of a stream, without and with noise."""

    def __init__(self, decoder: DecoderV1, clock: Clock) -> None:
        super().__init__()
        self.net, at_hidden = streamed(decoder.net, clock)
        self.wave, at_wave = streamed(decoder.wave, at_hidden)
        self.loudness, at_loudness = streamed(decoder.loudness, at_hidden)
        self.with_loudness = Together(at_wave, at_loudness)
        self.clock_after, self.noise = self.with_loudness.clock_after, None
        if decoder.noise is not None:
            self.noise = StreamingNoise(decoder.noise, at_hidden)
            self.with_noise = Together(self.clock_after, self.noise.clock_after)
            self.clock_after = self.with_noise.clock_after

    def forward(self, latents: Tensor, noise: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return bands (B, C·M, n·hop/M) of latents (B, D + A, n) and noise of the bands' shape."""
        hidden = self.net(latents, frame, is_first)
        wave, loudness = self.with_loudness(
            self.wave(hidden, frame, is_first), self.loudness(hidden, frame, is_first), is_first
        )
        bands = torch.tanh(wave) * amplitude(loudness)
        if self.noise is not None:
            shaped = self.noise(hidden, noise, frame, is_first)
            bands, shaped = self.with_noise(bands, shaped, is_first)
            bands = bands + shaped
        return bands


class StreamingDecoderV2(nn.Module):
    """`DecoderV2` of a stream, without and with noise."""

    def __init__(self, decoder: DecoderV2, clock: Clock) -> None:
        super().__init__()
        self.net, at_hidden = streamed(decoder.net, clock)
        self.wave, at_wave = streamed(decoder.wave, at_hidden)
        self.clock_after, self.noise = at_wave, None
        if decoder.noise is not None:
            self.noise = StreamingNoise(decoder.noise, at_hidden)
            self.with_noise = Together(at_wave, self.noise.clock_after)
            self.clock_after = self.with_noise.clock_after

    def forward(self, latents: Tensor, noise: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return bands (B, C·M, n·hop/M) of latents (B, D + A, n) and noise of the bands' shape."""
        hidden = self.net(latents, frame, is_first)
        wave, gate = self.wave(hidden, frame, is_first).chunk(2, dim=1)
        bands = wave * torch.sigmoid(gate)
        if self.noise is not None:
            shaped = self.noise(hidden, noise, frame, is_first)
            bands, shaped = self.with_noise(bands, shaped, is_first)
            bands = bands + shaped
        return torch.tanh(bands)


class StreamingOscillatorDecoder(nn.Module):
    """`OscillatorDecoder` of a stream: the spectrum and the clock wait for the network."""

    def __init__(self, decoder: OscillatorDecoder, clock: Clock) -> None:
        super().__init__()
        self.decoder, self.size, self.num_channels = decoder, decoder.size, decoder.num_channels
        self.linear, at_spectrum = streamed(decoder.linear, clock)
        self.net, at_amplitudes = streamed(decoder.net, at_spectrum)
        self.spectrum_delay = Delay(at_amplitudes.delay_steps - at_spectrum.delay_steps)
        self.clock_delay = Delay(at_amplitudes.delay_steps)
        self.synthesis, self.clock_after = streamed(decoder.oscillators.synthesis, at_amplitudes)

    def forward(self, latents: Tensor, noise: Tensor, frame: int, is_first: bool) -> Tensor:
        """Return audio (B, C, n·hop) of latents (B, D, n) and the number of each step."""
        spectrum, around = self.decoder.heard(self.linear(latents, frame, is_first))
        sharpened = self.net(around, frame, is_first)
        amplitudes = self.decoder.amplitudes(self.spectrum_delay(spectrum, is_first), sharpened)
        parts = self.decoder.oscillators.parts(amplitudes, self.clock_delay(noise, is_first))
        audio = self.synthesis(parts, frame, is_first)
        return audio.reshape(latents.shape[0], self.num_channels, -1)


@streamed.register
def _(layer: Recurrent, clock: Clock) -> tuple[nn.Module, Clock]:
    return StreamingRecurrent(layer, clock), clock


def streamed_decoder(decoder: nn.Module) -> tuple[nn.Module, Clock]:
    """Return the streaming form of a decoder, and the clock of its output.

    Raises:
        ValueError: If there is none.
    """
    begin = Clock(0, 1)
    if isinstance(decoder, DecoderV1):
        return (v1 := StreamingDecoderV1(decoder, begin)), v1.clock_after
    if isinstance(decoder, OscillatorDecoder):
        return (bank := StreamingOscillatorDecoder(decoder, begin)), bank.clock_after
    if isinstance(decoder, DecoderV2):
        return (v2 := StreamingDecoderV2(decoder, begin)), v2.clock_after
    return streamed(decoder, begin)
