"""Spectrograms as input of the encoder, and a recurrent layer over latents.

B batch, C audio channels, T samples, D latent size, N latent frames, S spectrogram frames.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# The initial state of a GRU has faded after this many frames: the codec decodes in windows, each
# this much longer on the left.
MEMORY_FRAMES = 64
# Of logarithms of power, which networks read best between about −2 and 3.
LOG_SCALE, LOG_OFFSET = 0.25, 3.0


class Spectrogram(nn.Module):
    """Rows of numbers per frame; frames are centred at multiples of the hop.

    Args:
        window_samples: Length of the longest window.
        hop_samples: Samples between frames.
        num_bands: Rows per channel.
    """

    def __init__(self, window_samples: int, hop_samples: int, num_bands: int) -> None:
        super().__init__()
        self.window_samples, self.hop_samples = window_samples, hop_samples
        self.num_bands = num_bands

    @property
    def reach_samples(self) -> int:
        """Return the samples left and right of a frame's centre that it sees."""
        return self.window_samples // 2

    def forward(self, audio: Tensor) -> Tensor:
        """Return (B, C·bands, S), S = T / hop_samples, for (B, C, T); T is a multiple of it."""
        half, num_samples = self.window_samples // 2, audio.shape[-1]
        if num_samples <= half:  # too short to be reflected
            audio = functional.pad(audio, (0, half + 1 - num_samples))
        rows = self.of_windows(functional.pad(audio, (half, half), mode="reflect")[..., :-1])
        return rows if num_samples > half else rows[..., : num_samples // self.hop_samples]

    def of_windows(self, audio: Tensor) -> Tensor:
        """Return (B, C·bands, S) of the windows that lie within audio (B, C, T), one per hop."""
        # Not torch.stft: it now writes an argument into exports that older hosts do not support.
        return self.rows(audio.unfold(-1, self.window_samples, self.hop_samples)).flatten(1, 2)

    def rows(self, windows: Tensor) -> Tensor:
        """Return (B, C, bands, S) of windows (B, C, S, window_samples)."""
        raise NotImplementedError


class LogSpectrogram(Spectrogram):
    """Logarithm of the power in each bin of one or more windows, about −2 to 2. It hears no phase.

    Args:
        windows: Lengths of the Hann windows, the longest first; all have the same centre.
        bins: Number of the lowest bins that are kept of each.
        hop_samples: Samples between frames.
        floor: Added to the power; 1 is that of a sine of full scale.
    """

    def __init__(
        self, windows: Sequence[int], bins: Sequence[int], hop_samples: int, floor: float = 1e-8
    ) -> None:
        super().__init__(windows[0], hop_samples, sum(bins))
        self.floor = floor
        self.parts = nn.ModuleList(
            LogPower(size, kept, floor) for size, kept in zip(windows, bins, strict=True)
        )

    def rows(self, windows: Tensor) -> Tensor:
        """Return (B, C, bands, S) of windows (B, C, S, window_samples)."""
        return torch.cat([part(windows) for part in self.parts], dim=-1).transpose(2, 3)

    def rows_at(self, frequencies_hz: Tensor, sample_rate_hz: int) -> Tensor:
        """Return a matrix ((1 + windows)·K, bands) that finds the spectrum at K frequencies.

        First in the longest window that has them, or else in the last; then in each window. Above a
        window's highest bin, it is that bin.
        """
        found: list[Tensor] = []
        column = self.num_bands
        places = torch.arange(len(frequencies_hz))
        chosen = torch.zeros(len(places), self.num_bands)
        for part in cast(list[LogPower], list(self.parts)[::-1]):
            column -= part.num_bins
            at = frequencies_hz * part.size / sample_rate_hz
            below = at.long().clamp(max=part.num_bins - 2)
            share = (at - below).clamp(max=1.0).float()
            matrix = torch.zeros(len(places), self.num_bands)
            matrix[places, column + below], matrix[places, column + below + 1] = 1.0 - share, share
            is_here = at <= part.num_bins - 1 if found else at >= 0
            chosen = torch.where(is_here[:, None], matrix, chosen)
            found.insert(0, matrix)
        return torch.cat([chosen, *found])


class LogPower(nn.Module):
    """Logarithm of the power in the lowest bins of the middle of a window, about −2 to 2."""

    window: Tensor

    def __init__(self, size: int, num_bins: int, floor: float) -> None:
        super().__init__()
        shape = torch.hann_window(size)
        self.size, self.num_bins, self.floor = size, num_bins, floor
        self.scale, self.offset = LOG_SCALE, LOG_OFFSET  # TorchScript reads no globals
        self.register_buffer("window", 2 * shape / shape.sum(), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """Return (…, num_bins) for (…, at least size)."""
        start = (windows.shape[-1] - self.size) // 2
        spectrum = torch.fft.rfft(windows[..., start : start + self.size] * self.window)
        power = torch.view_as_real(spectrum[..., : self.num_bins]).square().sum(-1)
        return self.scale * torch.log(power + self.floor) + self.offset


class MelSpectrogram(Spectrogram):
    """Logarithm of the power in mel bands.

    Args:
        sample_rate_hz: Sample rate of the audio.
        window_samples: Length of the Hann window.
        hop_samples: Samples between frames.
        num_bands: Mel bands, HTK, from 0 Hz to half the sample rate.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self, sample_rate_hz: int, window_samples: int, hop_samples: int, num_bands: int
    ) -> None:
        # Takes seconds, which models without a spectrogram need not spend.
        from rave.compute.numba_safe import librosa

        super().__init__(window_samples, hop_samples, num_bands)
        self.register_buffer("window", torch.hann_window(window_samples))
        filters = librosa.filters.mel(
            sr=sample_rate_hz, n_fft=window_samples, n_mels=num_bands, htk=True, norm=None
        )
        self.register_buffer("filters", torch.from_numpy(filters.T.copy()))  # (bins, bands)

    def rows(self, windows: Tensor) -> Tensor:
        """Return (B, C, bands, S) of windows (B, C, S, window_samples)."""
        spectrum = torch.fft.rfft(windows * self.window) / self.window.square().sum().sqrt()
        power = torch.view_as_real(spectrum).square().sum(-1)
        return torch.log1p(torch.matmul(power, self.filters)).transpose(2, 3)


class Recurrent(nn.Module):
    """A gated recurrent network along the frames; its state is 0 before the first.

    Args:
        size: Rows of input and output.
        num_layers: Number of layers of the network.
    """

    def __init__(self, size: int, num_layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(size, size, num_layers, batch_first=True)

    def forward(self, latents: Tensor) -> Tensor:
        """Return (B, size, N) for (B, size, N)."""
        hidden: Tensor = self.gru(latents.transpose(1, 2))[0]
        return hidden.transpose(1, 2)
