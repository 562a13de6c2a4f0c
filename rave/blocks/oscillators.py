"""Sound as a bank of oscillators that never stop: a decoder that needs no phase from the latents.

B batch, C audio channels, K oscillators, S steps of the bank, T = S · step_samples samples.

Latents that stay the same are decoded to the same thing, frame after frame. So convolutions alone
repeat themselves with every hop: they can only play multiples of the frame rate, unless the latents
carry the phase of the waveform. Here the phase comes from a clock instead, the number of the step:

    amplitudes (B, C·K, S)   of each oscillator
    clock (S)                → its phase, 2π · frequency · time + a constant
    audio                    = sum of amplitude · cos(phase)

Frequencies are multiples of 1/PERIOD of the step rate, so that phases are exact in float32 however
long it plays. The constants are φ · k² turns for oscillator k, so that none ever meet: where they
are equally far apart, φ · k turns would be a delay only, and noise a train of clicks.

Source: Engel et al. 2020, DDSP, arXiv:2001.04643 (amplitudes of oscillators, section 3); McAulay &
Quatieri 1986 (speech from sinusoids, added window by window).
Differs: frequencies are fixed and lie closer than one can hear. There is no generator of noise:
    noise is what many oscillators play whose amplitudes follow it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.convolution import Conv1d, ConvTranspose1d
from rave.blocks.signals import LOG_OFFSET, LOG_SCALE, LogSpectrogram
from rave.blocks.v2 import Residual

PERIOD = 4096
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
# Several oscillators share the width of a window's lobe: each has about half of its amplitude.
LOG_SHARE = math.log(0.5)
NETWORK_SCALE = 4.0  # of the network's output, in logarithms of amplitude


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

    frequencies_hz: Tensor
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
        self.sample_rate_hz = sample_rate_hz
        self.period, self.unit = float(PERIOD), 2 * math.pi / PERIOD  # TorchScript reads no globals
        self.register_buffer("frequencies_hz", units * unit_hz, persistent=False)
        self.register_buffer("turns", (units % PERIOD).float()[:, None], persistent=False)
        turns = torch.arange(self.size, dtype=torch.float64).square() * GOLDEN_RATIO % 1
        phases = 2 * math.pi * turns
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
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self.synthesis(self.parts(amplitudes, clock)).reshape(shape)
        with torch.autocast(amplitudes.device.type, enabled=False):  # phases need 24 bits
            return self.synthesis(self.parts(amplitudes.float(), clock)).reshape(shape)

    def parts(self, amplitudes: Tensor, clock: Tensor) -> Tensor:
        """Return the cosine and sine part of each oscillator, (B·C, 2·K, S)."""
        turned = self.turns * torch.remainder(clock, self.period)  # below 2²⁴: exact
        phase = (torch.remainder(turned, self.period) * self.unit + self.phases)[:, None]
        amplitudes = amplitudes.reshape(phase.shape[0], self.num_channels, self.size, -1)
        parts = torch.cat([amplitudes * phase.cos(), amplitudes * phase.sin()], dim=2)
        return parts.flatten(0, 1)


class BandConv(Conv1d):
    """A convolution along frequencies and time, (B, in·K, S) → (B, out·K, S).

    Args:
        num_bands: K.
        in_channels: Numbers per band and step of the input.
        out_channels: The same of the output.
        kernel_bands: Bands that an output sees, odd.
        kernel_steps: Steps that it sees.
        is_causal: Put all zeros on the left, so that no output sees later input.
    """

    def __init__(
        self,
        num_bands: int,
        in_channels: int,
        out_channels: int,
        kernel_bands: int,
        kernel_steps: int,
        is_causal: bool = False,
    ) -> None:
        super().__init__(1, 1, kernel_steps, is_causal=is_causal)
        kernel = kernel_bands, kernel_steps
        self.weight = nn.Conv2d(in_channels, out_channels, kernel, bias=False).weight
        # Bands are not equally far apart, so each has numbers of its own.
        self.shift = nn.Parameter(torch.zeros(out_channels, num_bands, 1))
        self.in_channels, self.num_bands, self.beside = in_channels, num_bands, kernel_bands // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out·K, S) for (B, in·K, S)."""
        return self.inner(functional.pad(x, (self.left, self.right)))

    def inner(self, x: Tensor) -> Tensor:
        """Return (B, out·K, S − kernel_steps + 1) for (B, in·K, S)."""
        grid = x.reshape(x.shape[0], self.in_channels, self.num_bands, -1)
        grid = functional.conv2d(grid, self.weight, padding=(self.beside, 0)) + self.shift
        return grid.flatten(1, 2)


class OscillatorDecoder(nn.Module):
    """Latents → a spectrum, by a linear layer → amplitudes of an `OscillatorBank`.

    An oscillator's amplitude is first that of the spectrum at its frequency. A network sharpens
    what the windows of the spectrogram have blurred: it sees the spectrum around each oscillator,
    along frequency and time, and has the same weights everywhere. Its output begins at 0.

    Args:
        oscillators: The bank. Its step times the ratios is the hop.
        spectrogram: The encoder's; the linear layer gives its rows.
        num_channels: C, each decoded by the same network.
        capacity: Numbers per oscillator and step in the network.
        ratios: Their product is the steps per latent frame, even.
        latent_size: D.
        num_units: Residual layers of the network.
        is_causal: Layers see no later latents, apart from the reach of transposed convolutions.
    """

    def __init__(
        self,
        oscillators: OscillatorBank,
        spectrogram: LogSpectrogram,
        num_channels: int,
        capacity: int,
        ratios: Sequence[int],
        latent_size: int,
        num_units: int,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        size, rows = oscillators.size, spectrogram.num_bands
        self.num_channels, self.size = num_channels, size
        # TorchScript reads no globals
        self.row_scale, self.row_offset = 0.5 / LOG_SCALE, LOG_OFFSET
        self.log_share, self.network_scale = LOG_SHARE, NETWORK_SCALE
        # What the spectrogram's floor comes to, so that silence is silent.
        self.floor = math.exp(LOG_SHARE) * spectrogram.floor**0.5
        steps = math.prod(ratios)
        self.linear = ConvTranspose1d(latent_size, num_channels * rows, steps, has_bias=True)
        self.linear.requires_grad_(False)  # fitted with the encoder
        places = spectrogram.rows_at(oscillators.frequencies_hz, oscillators.sample_rate_hz)
        self.at_oscillators = Conv1d(rows, len(places), 1)
        del self.at_oscillators.weight
        self.at_oscillators.register_buffer("weight", places[:, :, None], persistent=False)
        num_heard = len(places) // size - 1

        def layer(before: int, after: int, kernel_bands: int) -> BandConv:
            return BandConv(size, before, after, kernel_bands, 3, is_causal)

        units = [
            Residual(nn.Sequential(layer(capacity, capacity, 7), nn.SiLU()))
            for _ in range(num_units)
        ]
        last = layer(capacity, 1, 5)
        nn.init.zeros_(last.weight)
        self.net = nn.Sequential(layer(num_heard, capacity, 9), nn.SiLU(), *units, last)
        self.oscillators = oscillators

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return audio (B, C, T).

        Args:
            latents: (B, D, N).
            noise: (B, 1, S), the number of each step. None: from 0 on.
        """
        spectrum, around = self.heard(self.linear(latents))
        amplitudes = self.amplitudes(spectrum, self.net(around))
        if noise is None:
            steps = torch.arange(amplitudes.shape[2], device=latents.device)
            noise = steps.float().expand(latents.shape[0], 1, -1)
        audio: Tensor = self.oscillators(amplitudes, noise)
        return audio

    def heard(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spectrum at each oscillator, and in each window there: (B·C, W·K, S).

        Args:
            rows: Spectrograms (B, C·R, S).
        """
        rows = rows.reshape(-1, rows.shape[1] // self.num_channels, rows.shape[2])
        heard = self.at_oscillators(rows)
        return heard[:, : self.size], heard[:, self.size :]

    def amplitudes(self, spectrum: Tensor, sharpened: Tensor) -> Tensor:
        """Return amplitudes below 1, (B, C·K, S).

        Args:
            spectrum: Of each oscillator, (B·C, K, S), as in `LogPower`.
            sharpened: What the network makes of it, of the same shape.
        """
        logs = self.row_scale * (spectrum - self.row_offset) + self.log_share
        logs = logs + self.network_scale * sharpened
        amplitudes = torch.relu(torch.sigmoid(logs) - self.floor)
        return amplitudes.reshape(-1, self.num_channels * self.size, logs.shape[2])
