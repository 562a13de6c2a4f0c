"""Sound as a bank of oscillators that never stop: a decoder that needs no phase from the latents.

B batch, C audio channels, K oscillators, S steps of the bank, T = S · step_samples samples.

Latents that stay the same are decoded to the same thing, frame after frame. So convolutions alone
repeat themselves with every hop: they can only play multiples of the frame rate, unless the latents
carry the phase of the waveform. Here the phase comes from a clock instead, the number of the step:

    tones, noises (B, C·K, S)   amplitudes of each oscillator
    clock (S)                   → its phase, 2π · frequency · time
    audio                       = sum of tones · cos(phase) + noises · narrow-band noise

Frequencies are multiples of 1/PERIOD of the step rate, so that phases are exact in float32 however
long it plays.

Source: Engel et al. 2020, DDSP, arXiv:2001.04643 (amplitudes of oscillators and of noise, section
3); McAulay & Quatieri 1986 (speech from sinusoids, added window by window).
Differs: frequencies are fixed and lie closer than one can hear.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rave.blocks.convolution import ConvTranspose1d
from rave.blocks.noise import AMPLITUDE_BIAS, amplitude
from rave.blocks.v2 import DecoderV2, OfChannels

PERIOD = 4096
NOISE_SCALE = math.sqrt(3.0)  # uniform in [-1, 1) to variance 1


class OscillatorBank(nn.Module):
    """Amplitudes → audio.

    Args:
        sample_rate_hz: Sample rate of the audio.
        num_channels: C.
        step_samples: Samples per step; windows are twice as long.
        lowest_hz: Lowest frequency.
        spacing_cents: Distance of neighbours, where it lies between the next two.
        narrowest_hz: Smallest distance of neighbours.
        widest_hz: Largest distance; no wider than a window resolves, or noise has gaps.
    """

    turns: Tensor

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
        self.period, self.noise_scale = PERIOD, NOISE_SCALE  # TorchScript reads no globals
        self.register_buffer("turns", (units % PERIOD).float()[:, None], persistent=False)
        self.synthesis = ConvTranspose1d(2 * self.size, 1, step_samples)
        time = torch.arange(2 * step_samples, dtype=torch.float64) - step_samples // 2
        angles = 2 * math.pi * (units * unit_hz)[:, None] * time / sample_rate_hz
        window = torch.hann_window(2 * step_samples, dtype=torch.float64)
        waves = torch.cat([angles.cos(), -angles.sin()]) * window
        del self.synthesis.weight
        self.synthesis.register_buffer("weight", waves[:, None].float(), persistent=False)

    @property
    def noise_rows(self) -> int:
        """Return the rows of random numbers that it takes; the clock is one more."""
        return 2 * self.num_channels * self.size

    def forward(self, amplitudes: Tensor, noise: Tensor) -> Tensor:
        """Return audio (B, C, T).

        Args:
            amplitudes: (B, 2·C·K, S) ≥ 0, of tones, then of noises.
            noise: (B, 2·C·K + 1, S): uniform in [-1, 1), and the number of each step.
        """
        shape = amplitudes.shape[0], self.num_channels, -1
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self.synthesis(self.parts(amplitudes, noise)).reshape(shape)
        with torch.autocast(amplitudes.device.type, enabled=False):  # phases need 24 bits
            return self.synthesis(self.parts(amplitudes.float(), noise)).reshape(shape)

    def parts(self, amplitudes: Tensor, noise: Tensor) -> Tensor:
        """Return the cosine and sine part of each oscillator, (B·C, 2·K, S)."""
        batch, _, steps = amplitudes.shape
        clock = torch.remainder(noise[:, -1:], float(self.period))
        phase = torch.remainder(self.turns * clock, float(self.period))  # below 2²⁴: exact
        phase = (phase * (2 * math.pi / self.period))[:, None]
        tones, noises = amplitudes.reshape(batch, 2, -1, self.size, steps).unbind(1)
        random = noise[:, :-1].reshape(batch, 2, -1, self.size, steps) * self.noise_scale
        cosines = tones * phase.cos() + noises * random[:, 0]
        sines = tones * phase.sin() + noises * random[:, 1]
        parts = torch.stack([cosines, sines], dim=2)
        return parts.reshape(-1, 2 * self.size, steps)


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
        self.oscillators, self.bias = oscillators, AMPLITUDE_BIAS

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return audio (B, C, T).

        Args:
            latents: (B, D, N).
            noise: (B, 2·C·K + 1, S), as `OscillatorBank` takes it. None: drawn, from step 0.
        """
        amplitudes = amplitude(self.wave(self.net(latents)) + self.bias)
        if noise is None:
            batch, rows, steps = amplitudes.shape
            random = 2.0 * torch.rand(batch, rows, steps, device=latents.device) - 1.0
            clock = torch.arange(steps, device=latents.device).to(random).expand(batch, 1, -1)
            noise = torch.cat([random, clock], dim=1)
        audio: Tensor = self.oscillators(amplitudes, noise)
        return audio
