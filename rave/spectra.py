"""Short-time spectra, cheap to differentiate. S signals, T samples, F frames, K frequencies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HOPS_PER_WINDOW = 4  # 75 % overlap


class _PowerSpectra(torch.autograd.Function):
    """The power of the STFT of real signals, with one inverse real transform as its gradient.

    torch differentiates through transforms of all the frequencies, negative ones too, adds
    overlapping frames up sample by sample, and keeps real and imaginary parts squared.
    """

    @staticmethod
    def forward(ctx: Any, signals: Tensor, window: Tensor) -> Tensor:
        frames = signals.unfold(-1, len(window), len(window) // HOPS_PER_WINDOW) * window
        spectra = torch.fft.rfft(frames)
        ctx.save_for_backward(spectra, window)
        ctx.num_samples = signals.shape[-1]
        return spectra.real.square().addcmul_(spectra.imag, spectra.imag)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        spectra, window = ctx.saved_tensors
        size, hop = len(window), len(window) // HOPS_PER_WINDOW
        spectra = spectra * gradients[0]
        spectra[..., 0] *= 2  # the inverse counts every frequency twice but the first and the last
        spectra[..., -1] *= 2
        frames = torch.fft.irfft(spectra, n=size, norm="forward") * window
        num_signals, num_frames, _ = frames.shape
        total = frames.new_zeros(num_signals, num_frames + HOPS_PER_WINDOW - 1, hop)
        for index in range(HOPS_PER_WINDOW):
            part = frames[..., index * hop : (index + 1) * hop]
            total[:, index : index + num_frames] += part
        signals = total.flatten(1)
        return functional.pad(signals, (0, ctx.num_samples - signals.shape[1])), None


def power_spectra(signals: Tensor, window: Tensor) -> Tensor:
    """Return the power of STFTs with 75 % overlap, centred on the samples 0, hop, 2·hop, ….

    Args:
        signals: (S, T), reflected at both ends.
        window: (W), W a multiple of 4; hop W/4.

    Returns:
        (S, F, K), F = T // hop + 1, K = W/2 + 1.
    """
    half = len(window) // 2
    padded = functional.pad(signals, (half, half), mode="reflect")
    power: Tensor = _PowerSpectra.apply(padded, window)
    return power
