"""Sound as a bank of oscillators that never stop: a decoder that needs no phase from the latents.

B batch, C audio channels, K oscillators, S steps of the bank, T = S · step_samples samples.

Latents that stay the same are decoded to the same thing, frame after frame. So convolutions alone
repeat themselves with every hop: they can only play multiples of the frame rate, unless the latents
carry the phase of the waveform. Here the phase comes from a clock instead, the number of the step:

    amplitudes (B, C·K, S)   of each oscillator
    clock (S)                → its phase, 2π · frequency · time + a constant
    audio                    = sum of amplitude · cos(phase)

Frequencies are multiples of 1/PERIOD of the step rate, so that phases are exact in float32 however
long it plays. The constants keep oscillators from beginning together, which would be a click.

Source: Engel et al. 2020, DDSP, arXiv:2001.04643 (amplitudes of oscillators, section 3); McAulay &
Quatieri 1986 (speech from sinusoids, added window by window).
Differs: frequencies are fixed and lie closer than one can hear. There is no generator of noise:
    noise is what many oscillators play whose amplitudes follow it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rave.blocks.convolution import Conv1d, ConvTranspose1d, normalised
from rave.blocks.noise import AMPLITUDE_BIAS, amplitude
from rave.blocks.v2 import DecoderV2, OfChannels

PERIOD = 4096
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


class OscillatorBank(nn.Module):
    """Amplitudes → audio.

    Args:
        sample_rate_hz: Sample rate of the audio.
        num_channels: C.
        step_samples: Samples per step; windows are twice as long.
        lowest_hz: Lowest frequency.
        spacing_cents: Distance of neighbours, where it lies between the next two.
        narrowest_hz: Smallest distance of neighbours.
        widest_hz: Largest distance; no wider than a window resolves, or spectra have gaps.
    """

    turns: Tensor
    phases: Tensor

    def __init__(
        self,
        sample_rate_hz: int,
        num_channels: int,
        step_samples: int,
        lowest_hz: float,
        spacing_cents: float,
        narrowest_hz: float,
        widest_hz: float,
    ) -> None:
        super().__init__()
        unit_hz = sample_rate_hz / (step_samples * PERIOD)
        frequencies = [lowest_hz]
        ratio = 2 ** (spacing_cents / 1200) - 1
        while frequencies[-1] < sample_rate_hz / 2:
            distance = min(max(ratio * frequencies[-1], narrowest_hz), widest_hz)
            frequencies.append(frequencies[-1] + distance)
        units = (torch.tensor(frequencies[:-1], dtype=torch.float64) / unit_hz).round()
        self.num_channels, self.size, self.step_samples = num_channels, len(units), step_samples
        self.period = PERIOD  # TorchScript reads no globals
        self.register_buffer("turns", (units % PERIOD).float()[:, None], persistent=False)
        phases = 2 * math.pi * (torch.arange(self.size, dtype=torch.float64) * GOLDEN_RATIO % 1)
        self.register_buffer("phases", phases.float()[:, None], persistent=False)
        self.synthesis = ConvTranspose1d(2 * self.size, 1, step_samples)
        time = torch.arange(2 * step_samples, dtype=torch.float64) - step_samples // 2
        angles = 2 * math.pi * (units * unit_hz)[:, None] * time / sample_rate_hz
        window = torch.hann_window(2 * step_samples, dtype=torch.float64)
        waves = torch.cat([angles.cos(), -angles.sin()]) * window
        del self.synthesis.weight
        self.synthesis.register_buffer("weight", waves[:, None].float(), persistent=False)

    def forward(self, amplitudes: Tensor, clock: Tensor) -> Tensor:
        """Return audio (B, C, T).

        Args:
            amplitudes: (B, C·K, S) ≥ 0.
            clock: (B, 1, S), the number of each step.
        """
        shape = amplitudes.shape[0], self.num_channels, -1
        if torch.jit.is_scripting():
            return self.synthesis(self.parts(amplitudes, clock)).reshape(shape)
        with torch.autocast(amplitudes.device.type, enabled=False):  # phases need 24 bits
            return self.synthesis(self.parts(amplitudes.float(), clock)).reshape(shape)

    def parts(self, amplitudes: Tensor, clock: Tensor) -> Tensor:
        """Return the cosine and sine part of each oscillator, (B·C, 2·K, S)."""
        turned = self.turns * torch.remainder(clock, float(self.period))  # below 2²⁴: exact
        phase = torch.remainder(turned, float(self.period)) * (2 * math.pi / self.period)
        phase = (phase + self.phases)[:, None]
        amplitudes = amplitudes.reshape(phase.shape[0], self.num_channels, self.size, -1)
        parts = torch.cat([amplitudes * phase.cos(), amplitudes * phase.sin()], dim=2)
        return parts.flatten(0, 1)


class OscillatorDecoder(DecoderV2):
    """Latents → audio: the layers of `DecoderV2`, then amplitudes of an `OscillatorBank`.

    Args:
        oscillators: The bank. The product of its step and of the ratios is the hop.
        num_channels: C.
        capacity: Channels before the last convolution.
        ratios: In the order of the encoder, as for `DecoderV2`.
        latent_size: D.
        kernel_size: As for `DecoderV2`.
        dilations: As for `DecoderV2`.
        is_causal: As for `DecoderV2`.
        activation: As for `DecoderV2`.
    """

    def __init__(
        self,
        oscillators: OscillatorBank,
        num_channels: int,
        capacity: int,
        ratios: Sequence[int],
        latent_size: int,
        kernel_size: int,
        dilations: Sequence[Sequence[int]],
        is_causal: bool = False,
        activation: OfChannels | None = None,
    ) -> None:
        super().__init__(
            oscillators.size,
            num_channels,
            capacity,
            ratios,
            latent_size,
            kernel_size,
            dilations,
            is_causal=is_causal,
            activation=activation,
        )
        rows, taps = oscillators.size * num_channels, 2 * kernel_size + 1
        self.wave = normalised(Conv1d(capacity, rows, taps, is_causal=is_causal))
        self.oscillators, self.bias = oscillators, AMPLITUDE_BIAS

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return audio (B, C, T).

        Args:
            latents: (B, D, N).
            noise: (B, 1, S), the number of each step. None: from 0 on.
        """
        amplitudes = amplitude(self.wave(self.net(latents)) + self.bias)
        if noise is None:
            steps = torch.arange(amplitudes.shape[2], device=latents.device)
            noise = steps.float().expand(latents.shape[0], 1, -1)
        audio: Tensor = self.oscillators(amplitudes, noise)
        return audio
