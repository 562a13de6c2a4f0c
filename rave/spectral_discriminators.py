"""More discriminators of phase 2: on complex spectrograms, and the ensemble of Descript's codec.

B batch, C channels, T samples, F frequencies, S spectrogram frames.

Like those of `rave.discriminator`, each sub-discriminator returns its feature tensors, logits last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.convolution import LEAKY_SLOPE, normalised
from rave.discriminator import CombinedDiscriminator

DESCRIPT_SLOPE = 0.1  # slope of its leaky ReLUs
DESCRIPT_PEAK, PEAK_FLOOR = 0.8, 1e-9  # peak of every item
PERIOD_CHANNELS, PERIOD_STRIDES = (32, 128, 512, 1024, 1024), (3, 3, 3, 3, 1)
PERIOD_KERNEL = 5
BAND_CHANNELS = 32
BAND_EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the Nyquist frequency
BAND_LAYERS = (((3, 9), (1, 1)), *3 * (((3, 9), (1, 2)),), ((3, 3), (1, 1)))  # kernel, stride
# Kernel, stride and dilation, each (F, S).
SPECTRAL_LAYERS = (
    ((9, 3), (1, 1), (1, 1)),
    ((9, 3), (2, 1), (1, 1)),
    ((9, 3), (2, 1), (1, 2)),
    ((9, 3), (2, 1), (1, 4)),
    ((3, 3), (1, 1), (1, 1)),
)
READ_OUT_KERNEL = (3, 3)


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    padding = ((kernel[0] // 2) * dilation[0], (kernel[1] // 2) * dilation[1])
    return normalised(nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation))


def _activated(layer: nn.Module, slope: float) -> nn.Sequential:
    return nn.Sequential(layer, nn.LeakyReLU(slope))


class Spectrum(nn.Module):
    """Complex spectrogram with a hop of a quarter of its size, periodic Hann window.

    Args:
        size: Size of the transform, samples.
        is_centred: Mirror half a window at both ends, so that frame s is centred on sample s·hop.
        is_unit_power: Divide by the root of the window's power.
    """

    def __init__(self, size: int, *, is_centred: bool, is_unit_power: bool) -> None:
        super().__init__()
        window = torch.hann_window(size)
        if is_unit_power:
            window = window / window.square().sum().sqrt()
        self.size, self.is_centred = size, is_centred
        self.register_buffer("window", window, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Return the complex spectrogram (B, C, F, S) of (B, C, T)."""
        spectrum = torch.stft(
            audio.flatten(0, 1),
            self.size,
            self.size // 4,
            window=self.get_buffer("window"),
            center=self.is_centred,
            pad_mode="reflect",
            return_complex=True,
        )
        return spectrum.unflatten(0, audio.shape[:2])


class _SpectralNet(nn.Module):
    """Five activated convolutions over (F, S) and a read-out."""

    def __init__(self, in_channels: int, capacity: int) -> None:
        super().__init__()
        sizes = [in_channels, *[capacity] * len(SPECTRAL_LAYERS)]
        layers: list[nn.Module] = [
            _activated(_conv(size, next_size, *layer), LEAKY_SLOPE)
            for (size, next_size), layer in zip(pairwise(sizes), SPECTRAL_LAYERS, strict=True)
        ]
        self.net = nn.Sequential(*layers, _conv(capacity, 1, READ_OUT_KERNEL))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in self.net:
            x = layer(x)
            features.append(x)
        return features


class SpectralDiscriminator(nn.Module):
    """One network for each size of complex spectrogram, real parts before imaginary ones.

    Args:
        num_channels: C.
        capacity: Channels of every hidden layer.
        sizes: Sizes of the transforms, samples; no crop may be shorter.

    Source: Défossez et al. 2022, arXiv:2210.13438, section 3.4. Differs: sizes and, between
        frequencies and frames, strides are those of acids-rave.
    """

    def __init__(self, num_channels: int, capacity: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.specs = nn.ModuleList(
            Spectrum(size, is_centred=False, is_unit_power=True) for size in sizes
        )
        self.nets = nn.ModuleList(_SpectralNet(2 * num_channels, capacity) for _ in sizes)

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """Return five features and the logits of every size for (B, C, T)."""
        results = []
        for spectrum_of, net in zip(self.specs, self.nets, strict=True):
            spectrum = spectrum_of(audio)
            results.append(net(torch.cat([spectrum.real, spectrum.imag], dim=1)))
        return results


class _Period(nn.Module):
    """Descript's network of one period p, on audio folded to (T/p, p)."""

    def __init__(self, num_channels: int, period: int) -> None:
        super().__init__()
        self.period = period
        sizes = [num_channels, *PERIOD_CHANNELS]
        self.convs = nn.ModuleList(
            _activated(_conv(size, next_size, (PERIOD_KERNEL, 1), (stride, 1)), DESCRIPT_SLOPE)
            for (size, next_size), stride in zip(pairwise(sizes), PERIOD_STRIDES, strict=True)
        )
        self.conv_post = _conv(sizes[-1], 1, (3, 1))

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        # A whole period where T is a multiple of it, as those who train it elsewhere do.
        num_padding = self.period - audio.shape[-1] % self.period
        x = functional.pad(audio, (0, num_padding), mode="reflect")
        x = x.unflatten(-1, (-1, self.period))
        features = []
        for conv in (*self.convs, self.conv_post):
            x = conv(x)
            features.append(x)
        return [features]


class _Resolution(nn.Module):
    """Descript's network of one spectrogram, (S, F), each band of frequencies with its own."""

    def __init__(self, num_channels: int, size: int) -> None:
        super().__init__()
        self.stft = Spectrum(size, is_centred=True, is_unit_power=False)
        edges = [int(edge * (size // 2 + 1)) for edge in BAND_EDGES]
        self.bands = list(pairwise(edges))
        sizes = [2 * num_channels, *[BAND_CHANNELS] * len(BAND_LAYERS)]
        self.band_convs = nn.ModuleList(
            nn.ModuleList(
                _activated(_conv(size, next_size, *layer), DESCRIPT_SLOPE)
                for (size, next_size), layer in zip(pairwise(sizes), BAND_LAYERS, strict=True)
            )
            for _ in self.bands
        )
        self.conv_post = _conv(BAND_CHANNELS, 1, READ_OUT_KERNEL)

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        spectrum = torch.view_as_real(self.stft(audio))  # (B, C, F, S, 2)
        x = spectrum.permute(0, 1, 4, 3, 2).flatten(1, 2)  # (B, 2·C, S, F): re and im in turn
        features, last = [], []
        for (first, stop), convs in zip(self.bands, self.band_convs, strict=True):
            band = x[..., first:stop]
            for conv in convs:  # type: ignore[attr-defined]  # a ModuleList of ModuleLists
                band = conv(band)
                features.append(band)
            last.append(band)
        features.append(self.conv_post(torch.cat(last, dim=-1)))
        return [features]


class DescriptDiscriminator(CombinedDiscriminator):
    """Descript's ensemble: one network for each period, and one for each resolution.

    Every item and channel is first scaled to the same peak, so that level is not judged.

    Args:
        num_channels: C.
        periods: Periods in samples.
        sizes: Sizes of the transforms, samples.

    Source: Kumar et al. 2023, arXiv:2306.06546, section 3.3.
    """

    def __init__(self, num_channels: int, periods: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__(
            [
                *(_Period(num_channels, period) for period in periods),
                *(_Resolution(num_channels, size) for size in sizes),
            ]
        )

    def one_by_one(self, audio: Tensor) -> Iterator[list[list[Tensor]]]:
        """Yield the features of one network after another."""
        return super().one_by_one(_levelled(audio))


def _levelled(audio: Tensor) -> Tensor:
    """Return audio without its mean and at a peak of `DESCRIPT_PEAK`."""
    audio = audio - audio.mean(dim=-1, keepdim=True)
    peak = audio.abs().amax(dim=-1, keepdim=True)
    return audio * (DESCRIPT_PEAK / (peak + PEAK_FLOOR))
