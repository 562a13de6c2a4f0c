"""A linear encoder of spectrograms, and how to fit it and the decoder's linear layer to audio.

B batch, C audio channels, D latent size, N latent frames, R rows of a spectrogram, r its steps per
latent frame.

Neighbouring bins and steps of a spectrogram say nearly the same. So its largest principal
components hold most of it, and are found in seconds. They are the latents: training leaves them as
they are, and teaches the decoder only.

Source: principal component analysis by random projections (Halko et al. 2011, arXiv:0909.4061).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rave.blocks.convolution import Conv1d, ConvTranspose1d

STD = 0.3  # of the posterior; the least of the components has the standard deviation 1
OVERSAMPLED = 16  # components that are searched for, too, so that the others are found well
LEAST_STD = 1e-3  # of a component, so that audio that does not vary has latents, too


class LinearEncoder(nn.Module):
    """A spectrogram → mean and scale of the posterior, linearly; fitted, not trained.

    Args:
        num_rows: R.
        num_channels: C; the input has C·R rows.
        ratios: Their product is r.
        latent_size: D.
        is_causal: No frame sees later steps.
    """

    def __init__(
        self,
        num_rows: int,
        num_channels: int,
        ratios: Sequence[int],
        latent_size: int,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        self.latent_size, ratio = latent_size, math.prod(ratios)
        self.net = Conv1d(
            num_rows * num_channels,
            2 * latent_size,
            ratio,
            stride=ratio,
            is_causal=is_causal,
            has_bias=True,
        )
        if not is_causal:  # a frame is made of its own steps: nothing is padded
            self.net.left, self.net.right = 0, ratio - 1
        self.requires_grad_(False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return (B, 2·D, N) for (B, C·R, N·r)."""
        out: Tensor = self.net(rows)
        return out

    @torch.no_grad()
    def fit(self, spectrograms: Tensor, decoder: ConvTranspose1d, seed: int) -> None:
        """Set the weights of encoder and decoder to the principal components of spectrograms.

        Args:
            spectrograms: (B, C·R, N·r), B·N > D.
            decoder: Latents → C·R rows, r steps per frame.
            seed: Of the search for the components.

        Raises:
            ValueError: If there are not more frames than latents.
        """
        layer, size = self.net, self.latent_size
        bias, decoder_bias = cast(Tensor, layer.bias), cast(Tensor, decoder.bias)
        padded = functional.pad(spectrograms, (layer.left, layer.right), mode="replicate")
        frames = padded.unfold(2, layer.stride, layer.stride).transpose(1, 2).flatten(0, 1)
        if len(frames) <= size:
            raise ValueError(
                f"The training audio has {len(frames)} latent frames; more than the {size} latents "
                "of a frame are needed. Train on more audio."
            )
        mean = frames.mean(dim=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            points = (frames - mean).flatten(1)
            searched = min(size + OVERSAMPLED, *points.shape)
            _, values, axes = torch.pca_lowrank(points, searched, center=False, niter=4)
        scale = 1 / max(float(values[size - 1]) / len(frames) ** 0.5, LEAST_STD)
        components = axes.T[:size].reshape(size, *mean.shape)
        layer.weight.zero_()
        layer.weight[:size] = scale * components
        bias[:size] = -scale * (components * mean).sum(dim=(1, 2))
        bias[size:] = math.log(math.expm1(STD))
        decoder.weight.zero_()
        # Where the steps that a frame is made of begin; the decoder cannot give those before 0. It
        # repeats the last one in the time that is left until the next frame.
        first = decoder.stride // 2 - layer.left
        steps = (torch.arange(layer.stride) - min(first, 0)).clamp(max=layer.stride - 1)
        first = max(first, 0)
        decoder.weight[:, :, first : first + layer.stride] = components[:, :, steps] / scale
        decoder_bias.copy_(mean.mean(dim=1))
