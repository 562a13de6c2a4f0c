"""Pseudo-quadrature mirror filter bank: audio ⇄ M bands at 1/M of its rate.

B batch, C channels, T samples, M bands. Bands of a channel are adjacent: (B, C·M, T/M).

Source: Nguyen 1994, "Near-perfect-reconstruction pseudo-QMF banks"; cut-off by Cruz-Roldán et al.
2002 (minimal autocorrelation at multiples of 2M). Tap layout and sign convention are those of
acids-rave, so that its weights fit.
"""

from functools import cache

import numpy as np
import torch
from scipy.optimize import fmin
from scipy.signal import firwin, kaiserord
from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.convolution import padding
from rave.compute.arrays import Float64Array

NUM_BANDS = [2**exponent for exponent in range(9)]


def _design(attenuation_db: float, cutoff: float) -> Float64Array:
    num_taps, beta = kaiserord(attenuation_db, cutoff / np.pi)
    num_taps = 2 * (num_taps // 2) + 1
    taps: Float64Array = firwin(
        num_taps, cutoff, window=("kaiser", beta), scale=False, fs=2 * np.pi
    )
    return taps


@cache  # each model that is built or opened needs it
def _cutoff(attenuation_db: float, num_bands: int) -> float:
    def aliasing(cutoff: Float64Array) -> float:
        taps = _design(attenuation_db, float(cutoff[0]))
        autocorrelation = np.convolve(taps, taps[::-1])[len(taps) - 1 :]
        return float(np.abs(autocorrelation[2 * num_bands :: 2 * num_bands]).max())

    cutoff = fmin(aliasing, np.array([1.0 / num_bands]), xtol=1e-9, ftol=1e-12, disp=False)
    return float(cutoff[0])


def prototype_filter(attenuation_db: float, num_bands: int) -> Float64Array:
    """Return the low-pass prototype, an odd number of taps.

    Args:
        attenuation_db: Stop-band attenuation.
        num_bands: M. The cut-off, near π/2M, is optimised.
    """
    return _design(attenuation_db, _cutoff(attenuation_db, num_bands))


def modulated_filters(prototype: Float64Array, num_bands: int) -> Tensor:
    """Return the cosine-modulated band filters, (M, P), P the next power of two; zeros around."""
    half = len(prototype) // 2
    time = torch.arange(-half, half + 1, dtype=torch.float64)
    band = torch.arange(num_bands, dtype=torch.float64)[:, None]
    phase = torch.where(band % 2 == 0, 1.0, -1.0) * torch.pi / 4
    carrier = torch.cos((2 * band + 1) * torch.pi / (2 * num_bands) * time + phase)
    filters = 2 * torch.from_numpy(prototype) * carrier
    size = 1 << (len(prototype) - 1).bit_length()
    left = (size - len(prototype)) // 2
    return functional.pad(filters, (left, size - len(prototype) - left)).float()


class PQMF(nn.Module):
    """The filter bank, with 100 dB attenuation and 16 bands by default.

    Analysis and synthesis together have no delay: `synthesis` compensates the delay of one band
    step (M samples) of the centred synthesis.

    Args:
        attenuation_db: Stop-band attenuation of the prototype.
        num_bands: M, a power of two.
        is_causal: No band step sees later samples; analysis and synthesis then delay by
            (P + M) / M · M samples in total, P the filter length.

    Raises:
        ValueError: If such a filter bank cannot be designed.

    Differs: acids-rave leaves the M samples of delay in its output.
    """

    analysis_weight: Tensor
    synthesis_weight: Tensor

    def __init__(self, attenuation_db: float = 100.0, num_bands: int = 16, is_causal: bool = False):
        super().__init__()
        if num_bands not in NUM_BANDS or not 20 <= attenuation_db <= 200:
            raise ValueError(
                f"A filter bank cannot have {num_bands} bands and {attenuation_db} dB; give a "
                f"power of two up to {NUM_BANDS[-1]}, and 20 to 200 dB."
            )
        self.num_bands = num_bands
        filters = modulated_filters(prototype_filter(attenuation_db, num_bands), num_bands)
        # One more zero tap makes the centred padding an integer on both sides.
        self.register_buffer("analysis_weight", functional.pad(filters, (0, 1))[:, None])
        blocks = filters.flip(1).reshape(num_bands, -1, num_bands).permute(2, 0, 1)
        self.register_buffer("synthesis_weight", functional.pad(blocks, (0, 1)).contiguous())
        self.analysis_padding = padding(self.analysis_weight.shape[-1], is_causal=is_causal)
        left, right = padding(self.synthesis_weight.shape[-1], is_causal=is_causal)
        self.synthesis_padding = (left, right) if is_causal else (left - 1, right + 1)

    def _flip_odd(self, bands: Tensor) -> Tensor:
        """Negate odd bands at even steps, which undoes the spectral inversion of decimation."""
        odd = torch.arange(bands.shape[1], device=bands.device)[:, None] % 2 == 1
        even = torch.arange(bands.shape[2], device=bands.device) % 2 == 0
        return torch.where(odd & even, -bands, bands)

    def analysis(self, audio: Tensor) -> Tensor:
        """Return the bands of audio.

        Args:
            audio: (B, C, T); zeros follow it.

        Returns:
            (B, C·M, ceil(T / M)).
        """
        batch, channels, samples = audio.shape
        audio = functional.pad(audio.reshape(batch * channels, 1, samples), self.analysis_padding)
        bands = functional.conv1d(audio, self.analysis_weight, stride=self.num_bands)
        return self._flip_odd(bands).reshape(batch, channels * self.num_bands, -1)

    def synthesis(self, bands: Tensor) -> Tensor:
        """Return the audio of bands.

        Args:
            bands: (B, C·M, T/M).

        Returns:
            (B, C, T).
        """
        batch, rows, steps = bands.shape
        channels = rows // self.num_bands
        bands = self._flip_odd(bands.reshape(batch * channels, self.num_bands, steps))
        phases = functional.conv1d(
            functional.pad(bands, self.synthesis_padding), self.synthesis_weight
        )
        audio = (self.num_bands * phases).flip(1).transpose(1, 2)
        return audio.reshape(batch, channels, steps * self.num_bands)

    @property
    def analysis_reach(self) -> tuple[int, int]:
        """Return the samples left and right of a band step that analysis sees."""
        return self.analysis_padding

    @property
    def synthesis_reach(self) -> tuple[int, int]:
        """Return the samples left and right of a sample whose bands synthesis sees."""
        left, right = self.synthesis_padding
        return left * self.num_bands, right * self.num_bands
