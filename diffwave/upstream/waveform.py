"""DiffWave over audio instead of latents: a vocoder, or a generator of short sounds.

B batch, M mel bands, F mel frames, T audio samples; T = F·hop_samples where there is a spectrogram.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffwave.network import EMBEDDING_SIZE, DiffWave

# Upsampling factor of each of two transposed convolutions.
UPSAMPLING, UPSAMPLER_KERNEL = 16, (3, 32)
HOP_SAMPLES = UPSAMPLING**2
UPSAMPLER_SLOPE = 0.4
# Neighbouring mel frames on each side that affect a sample through the upsampler.
UPSAMPLER_REACH = 2
# Exponent of the highest frequency in the step table: 10^4 times the lowest.
FASTEST = 4.0
# Mel frames per call of the network; this limits memory and does not change the result.
PIECE_FRAMES = 512


class WaveformDiffusion(nn.Module):
    """A denoiser of audio with its noise schedules.

    Args:
        num_mels: M; 0 for a model without a spectrogram.
        num_blocks: Number of residual blocks.
        hidden_channels: H.
        dilation_cycle: Blocks after which the dilation starts at 1 again.
        betas: Noise schedule of the training.
        fast_betas: Shorter noise schedule for fast sampling.

    Source: Kong et al. 2020, arXiv:2009.09761, and lmnt-com/diffwave 0.1.7, whose checkpoints fit.
    """

    def __init__(
        self,
        num_mels: int,
        num_blocks: int,
        hidden_channels: int,
        dilation_cycle: int,
        betas: Sequence[float],
        fast_betas: Sequence[float],
    ) -> None:
        super().__init__()
        self.betas, self.fast_betas = list(betas), list(fast_betas)
        self.num_mels = num_mels
        self.network = DiffWave(
            latent_size=1,
            num_blocks=num_blocks,
            hidden_channels=hidden_channels,
            segment_frames=1,  # unused: the cycle is given
            dilation_cycle=dilation_cycle,
            condition_channels=num_mels,
        )
        self.upsampler = _upsampler() if num_mels else None
        self.step_table: Tensor
        self.register_buffer("step_table", step_table(len(self.betas)), persistent=False)

    def forward(self, audio: Tensor, step: Tensor, spectrogram: Tensor | None = None) -> Tensor:
        """Return the noise in noisy audio.

        Args:
            audio: (B, T).
            step: (B,) or (1,), index of a training beta; fractions interpolate the embedding.
            spectrogram: (B, M, F) in [0, 1]; None for a model without spectrograms.

        Returns:
            (B, T).

        Raises:
            ValueError: If the spectrogram is missing, not expected or has another shape.
        """
        self._check(audio, spectrogram)
        below = step.floor().long()
        low, high = self.step_table[below], self.step_table[step.ceil().long()]
        embedding = self.network.step(low + (high - low) * (step - below)[:, None])
        condition = None
        if self.upsampler is not None and spectrogram is not None:
            condition = self.upsampler(spectrogram[:, None])[:, 0]
        return self.network.predict(audio[:, None], embedding, condition)[:, 0]

    def _check(self, audio: Tensor, spectrogram: Tensor | None) -> None:
        if spectrogram is None and not self.num_mels:
            return
        needed = (len(audio), self.num_mels, audio.shape[1] // HOP_SAMPLES)
        if spectrogram is None or spectrogram.shape != needed or audio.shape[1] % HOP_SAMPLES:
            shape = "missing" if spectrogram is None else f"of shape {tuple(spectrogram.shape)}"
            raise ValueError(
                f"The spectrogram is {shape}; for audio of shape {tuple(audio.shape)} the shape "
                f"{needed} is needed (0 mel bands: no spectrogram)."
            )

    def _noise(
        self, audio: Tensor, step: Tensor, spectrogram: Tensor | None, piece_frames: int
    ) -> Tensor:
        """Return the same as `forward`, computed in pieces with enough context on each side."""
        reach = (self.network.receptive_field_frames - 1) // 2
        margin = (-(-reach // HOP_SAMPLES) + UPSAMPLER_REACH) * HOP_SAMPLES
        size, length = piece_frames * HOP_SAMPLES, audio.shape[1]
        parts = []
        for start in range(0, length, size):
            stop = min(start + size, length)
            first, last = max(start - margin, 0), min(stop + margin, length)
            frames = slice(first // HOP_SAMPLES, last // HOP_SAMPLES)
            condition = None if spectrogram is None else spectrogram[:, :, frames]
            noise = self(audio[:, first:last], step, condition)
            parts.append(noise[:, start - first : stop - first])
        return torch.cat(parts, dim=1)

    @torch.inference_mode()
    def sample(
        self,
        audio: Tensor,
        spectrogram: Tensor | None,
        generator: torch.Generator,
        is_fast: bool = False,
        progress: Callable[[], object] = lambda: None,
        piece_frames: int = PIECE_FRAMES,
    ) -> Tensor:
        """Return audio sampled from noise.

        Args:
            audio: (B, T) noise of variance 1.
            spectrogram: (B, M, F) to follow; None for a model without spectrograms.
            generator: CPU generator of the added noise, so that a seed gives the same audio on
                every device.
            is_fast: Whether to use the short noise schedule.
            progress: Function to call after each step.
            piece_frames: Mel frames per call of the network; does not change the result.

        Returns:
            (B, T), nominally in [-1, 1].

        Raises:
            ValueError: If shapes do not fit, or the short schedule is outside that of the training.

        Source: Kong et al. 2020, algorithm 2 and section 3.3. Differs: as in lmnt diffwave, audio
        is clamped to [-1, 1] after every step, but not after the last, so that the writer can count
        clipped samples.
        """
        self._check(audio, spectrogram)
        betas = self.fast_betas if is_fast else self.betas
        steps, alpha_bar = self.steps_of(betas), _alpha_bar(betas)
        for index in reversed(range(len(betas))):
            step = torch.tensor([steps[index]], device=audio.device)
            noise = self._noise(audio, step, spectrogram, piece_frames)
            beta = betas[index]
            audio = audio - beta / math.sqrt(1 - alpha_bar[index]) * noise
            audio = audio * (1 / math.sqrt(1 - beta))
            if index > 0:
                variance = (1 - alpha_bar[index - 1]) / (1 - alpha_bar[index]) * beta
                fresh = torch.randn(audio.shape, generator=generator).to(audio.device)
                audio = (audio + math.sqrt(variance) * fresh).clamp(-1.0, 1.0)
            progress()
        return audio

    def steps_of(self, betas: Sequence[float]) -> list[float]:
        """Return the (fractional) training steps with the noise levels of another schedule.

        Raises:
            ValueError: If a noise level is outside the training schedule.

        Source: Kong et al. 2020, section 3.3. Differs: lmnt diffwave leaves out a level outside the
        training schedule, and gives wrong steps to those before it.
        """
        training = [math.sqrt(value) for value in _alpha_bar(self.betas)]
        steps = []
        for index, value in enumerate(_alpha_bar(betas)):
            root = math.sqrt(value)
            below = (t for t in range(len(training) - 1) if training[t + 1] <= root <= training[t])
            step = next(below, None)
            if step is None:
                raise ValueError(
                    f"Noise level {index + 1} of {len(betas)} of the short schedule is outside the "
                    "training schedule. Sample without --fast."
                )
            distance = training[step] - training[step + 1]
            steps.append(step + ((training[step] - root) / distance if distance else 0.0))
        return steps


def step_table(num_steps: int) -> Tensor:
    """Return the embeddings of whole steps, (num_steps, EMBEDDING_SIZE).

    Angles reach 10^4·num_steps, so the rounding of float32, as in training, matters. The table is
    computed on the CPU.
    """
    half = EMBEDDING_SIZE // 2
    steps = torch.arange(num_steps, device="cpu", dtype=torch.float32)
    exponents = torch.arange(half, device="cpu", dtype=torch.float32) * FASTEST / (half - 1)
    angles = steps[:, None] * torch.pow(10.0, exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _alpha_bar(betas: Sequence[float]) -> list[float]:
    values, product = [], 1.0
    for beta in betas:
        product *= 1.0 - beta
        values.append(product)
    return values


def _upsampler() -> nn.Sequential:
    """Return the layers from (B, 1, M, F) to (B, 1, M, F·HOP_SAMPLES)."""
    layers: list[nn.Module] = []
    for _ in range(2):
        stride, padding = (1, UPSAMPLING), (1, UPSAMPLING // 2)
        layers += [
            nn.ConvTranspose2d(1, 1, UPSAMPLER_KERNEL, stride, padding),
            nn.LeakyReLU(UPSAMPLER_SLOPE),
        ]
    return nn.Sequential(*layers)
