"""Losses of both phases.

B batch, C channels or bands, T samples, S signals, F frames, K frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.compute.distributed import ONE_PROCESS, GlobalBatch

# Added to the target's mean power, so that a silent crop does not divide by zero.
POWER_FLOOR = 1e-8
# Of one bin, far below any floor; keeps the gradient of a magnitude finite.
TINY_POWER = 1e-14
# Of all bins of a frame relative to a sine of full scale, −50 dB.
FRAME_POWER_FLOOR = 1e-5
# Of a squared log ratio; keeps the gradient of its root finite.
RATIO_FLOOR = 1e-6
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


class SpectralDistance(nn.Module):
    """Multi-scale distance of magnitude spectrograms: relative power of the difference + log ratio.

    Args:
        scales: STFT sizes in samples; hop a quarter of each.
        log_epsilon: Added to magnitudes inside the logarithm.
        num_scales_per_step: Draw that many of the scales for each call with a generator; the sum is
            weighted so that its expectation is that of all scales. None: all of them.

    Source: Caillon & Esling 2021, arXiv:2111.05011, eq. 5; Engel et al. 2020, arXiv:2001.04643.
    """

    def __init__(
        self,
        scales: Sequence[int],
        log_epsilon: float,
        num_scales_per_step: int | None = None,
    ) -> None:
        super().__init__()
        self.scales = list(scales)
        self.log_epsilon = log_epsilon
        self.num_scales_per_step = num_scales_per_step or len(self.scales)
        for scale in self.scales:
            self.register_buffer(f"window_{scale}", torch.hann_window(scale), persistent=False)

    def forward(
        self,
        target: Tensor,
        audio: Tensor,
        generator: torch.Generator | None = None,
        batch: GlobalBatch = ONE_PROCESS,
    ) -> Tensor:
        """Return the distance, a scalar ≥ 0.

        Args:
            target: (B, C, T), the real audio or bands; every row is a signal of its own.
            audio: (B, C, T), the reconstruction.
            generator: Draws the scales of this step; None: all scales.
            batch: Of which target and audio are a shard.
        """
        scales = self.scales
        if generator is not None and self.num_scales_per_step < len(scales):
            order = torch.randperm(len(scales), generator=generator)
            scales = [scales[int(i)] for i in order[: self.num_scales_per_step]]
        target, audio = target.flatten(0, 1).float(), audio.flatten(0, 1).float()
        distances = []
        for scale in scales:
            window: Tensor = getattr(self, f"window_{scale}")
            x, y = power_spectra(target, window), power_spectra(audio, window)
            distances.append(self.of_powers(x, y, window, batch))
        return torch.stack(distances).mean() * len(self.scales)

    def of_powers(self, x: Tensor, y: Tensor, window: Tensor, batch: GlobalBatch) -> Tensor:
        """Return the distance of the power spectra (S, F, K) of target and audio."""
        target, audio = _magnitude(x), _magnitude(y)
        ratio = torch.log(target + self.log_epsilon) - torch.log(audio + self.log_epsilon)
        return _relative_distance(target, audio, batch.mean(x.mean())) + ratio.abs().mean()


class DecibelDistance(SpectralDistance):
    """Multi-scale distance that takes logarithms as `log_spectral_distance_db`, the measure, does.

    Of magnitudes relative to a sine of full scale, so that one floor fits every STFT size, and root
    mean square over frequency. Sound below the floor is inaudible, and costs nothing here.

    Args:
        scales: STFT sizes in samples; hop a quarter of each.
        log_epsilon: Soft floor, as the amplitude of a sine.
        num_scales_per_step: Scales per step, as in `SpectralDistance`.
        level_weight: Weight of the log ratio of the powers of a frame, which keeps the level where
            frequencies are unsure.
        is_bounded: The power of the difference is relative to that of both, signal by signal, not
            to the targets': for decoders whose output can be far too loud.
    """

    def __init__(
        self,
        scales: Sequence[int],
        log_epsilon: float,
        num_scales_per_step: int | None = None,
        level_weight: float = 0.3,
        is_bounded: bool = False,
    ) -> None:
        super().__init__(scales, log_epsilon, num_scales_per_step)
        self.level_weight, self.is_bounded = level_weight, is_bounded

    def of_powers(self, x: Tensor, y: Tensor, window: Tensor, batch: GlobalBatch) -> Tensor:
        """Return the distance of the power spectra (S, F, K) of target and audio."""
        x, y = (p * (2 / window.sum()) ** 2 for p in (x, y))  # 1: a sine of full scale
        ratio = torch.log(x + self.log_epsilon**2) - torch.log(y + self.log_epsilon**2)
        logs = 0.5 * (ratio.square().mean(dim=-1) + RATIO_FLOOR).sqrt().mean()
        levels = [torch.log(p.sum(dim=-1) + FRAME_POWER_FLOOR) for p in (x, y)]
        level = 0.5 * (levels[0] - levels[1]).abs().mean()
        target, audio = _magnitude(x), _magnitude(y)
        if self.is_bounded:
            both = (x + y).mean(dim=(1, 2)) + POWER_FLOOR
            relative = ((target - audio).square().mean(dim=(1, 2)) / both).mean()
        else:
            relative = _relative_distance(target, audio, batch.mean(x.mean()))
        return relative + logs + self.level_weight * level


def _relative_distance(x: Tensor, y: Tensor, power: Tensor) -> Tensor:
    """Return the power of the difference of magnitudes relative to x's mean power."""
    return (x - y).square().mean() / (power + POWER_FLOOR)


def _magnitude(power: Tensor) -> Tensor:
    return (power + TINY_POWER).sqrt()


def waveform_distance(target: Tensor, audio: Tensor, batch: GlobalBatch = ONE_PROCESS) -> Tensor:
    """Return the power of the difference of waveforms (B, C, T) relative to the target's.

    1 for silence, 2 for right magnitudes with random phases; below 1 only where phases are right.
    """
    power = batch.mean(target.square().mean()) + POWER_FLOOR
    return (target - audio).square().mean() / power


def discriminator_hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return mean(relu(1 − real) + relu(1 + fake)) of logits (Lim & Ye 2017, arXiv:1705.02894)."""
    return (torch.relu(1.0 - real) + torch.relu(1.0 + fake)).mean()


def feature_matching(
    real: Sequence[Sequence[Tensor]],
    fake: Sequence[Sequence[Tensor]],
    num_skipped: int,
    *,
    is_relative: bool = True,
    batch: GlobalBatch = ONE_PROCESS,
) -> Tensor:
    """Return the mean L1 distance of discriminator features.

    Args:
        real: Feature tensors of each sub-discriminator, logits last.
        fake: The same for the reconstruction.
        num_skipped: First features of each sub-discriminator to leave out.
        is_relative: Divide that of each feature by its mean magnitude in the real audio.
        batch: Of which the features are a shard.

    Source: Kumar et al. 2019, arXiv:1910.06711, eq. 3; relative as in acids-rave.
    """
    pairs = [
        list(zip(real_features[num_skipped:], fake_features[num_skipped:], strict=True))
        for real_features, fake_features in zip(real, fake, strict=True)
    ]
    sizes = torch.stack([x.abs().mean() for features in pairs for x, _ in features])
    sizes = batch.mean(sizes) + POWER_FLOOR if is_relative else torch.ones_like(sizes)
    remaining = iter(sizes)
    distances = [
        torch.stack([(x - y).abs().mean() / next(remaining) for x, y in features]).mean()
        for features in pairs
    ]
    return torch.stack(distances).mean()


MEASURE_SCALES, MEASURE_FLOOR_DB = (2048, 1024, 512, 256), -60.0


def log_spectral_distance_db(target: Tensor, audio: Tensor) -> Tensor:
    """Return the mean log-spectral distance of each item in dB, (B); a measure, not a loss.

    Over STFTs of four sizes with 75 % overlap: the root mean square over frequency of the
    difference in dB, then the mean over frames. Both are floored at −60 dB of the target's loudest
    bin, so that the figure of a crop is above that of the whole piece.

    Args:
        target: (B, C, T).
        audio: (B, C, T).
    """
    distances = []
    for scale in MEASURE_SCALES:
        window = torch.hann_window(scale, device=target.device)
        x, y = (
            torch.stft(s.flatten(0, 1), scale, scale // 4, window=window, return_complex=True)
            .abs()
            .unflatten(0, target.shape[:2])
            for s in (target, audio)
        )
        floor = x.amax(dim=(1, 2, 3), keepdim=True) * 10 ** (MEASURE_FLOOR_DB / 20)
        floor = floor.clamp_min(torch.finfo(x.dtype).tiny)
        difference = 20 * (torch.log10(x.maximum(floor)) - torch.log10(y.maximum(floor)))
        distances.append(difference.square().mean(dim=2).sqrt().mean(dim=(1, 2)))
    return torch.stack(distances).mean(dim=0)
