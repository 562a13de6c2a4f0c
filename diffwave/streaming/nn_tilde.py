"""A diffusion model and its codec as one TorchScript module for nn~, which plays endlessly.

B batch, R rows of conditions, C audio channels, n latent frames of a block.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

from typing import Any, cast

import torch
from torch import Tensor, nn

from diffwave.conditioner import LABEL
from diffwave.conditions.controls import CHROMA, LOUDNESS, ONSETS
from diffwave.streaming.sampler import StreamingSampler
from rave.codec_format import CodecFormat
from rave.streaming.host_module import FLOAT_CODE, INT_CODE
from rave.streaming.nn_tilde import NNTilde
from rave.streaming.noise import FRESH_NOISE, UNINFORMATIVE, PositionalUniform
from rave.streaming.tracing import interface, scripted

MAX_STEPS = 50  # largest value of the attribute `steps`, the default of diffwave.inference


@interface
class Sampler(nn.Module):
    """The interface of `StreamingSampler`, which is compiled on its own."""

    def forward(  # noqa: D102
        self,
        rows: Tensor,
        num_steps: int,
        temperature: float,
        guidance: float,
        follows: list[bool],
        seed: int,
        is_first: bool,
    ) -> Tensor:
        pass

    def warm_up(self) -> None:  # noqa: D102
        pass


class NNTildeSampler(NNTilde):
    """The methods of the codec, and `sample`: audio decoded from generated latents.

    Attributes of the host: `steps` (used from the next window on), `temperature` (scale of the
    noise that sampling begins with), `guidance`, and a switch `follow_…` for each control of the
    model. A new seed is used from the next `reset` on.

    Args:
        codec: The autoencoder, a `rave.model.RAVE`. Its weight norm is folded in place.
        sampler: Sampler of the diffusion model.
        form: Format of the codec of the generated latents. Noise replaces uninformative dimensions,
            as in `rave decode`.
        num_steps: Sampling steps.
        num_latents: Number of principal latents that the model generates. None: it generates all
            latents of the codec.
        seed: Random seed of the latents and of the decoder's noise. Negative: a new one each time.
        host_rate_hz: Sample rate of the host in Hz. None: that of the codec.

    Raises:
        ValueError: If the codec cannot play in blocks or at the rate of the host; see `NNTilde`.
    """

    sampler: Sampler
    is_noise: Tensor
    noise_mean: Tensor
    noise_std: Tensor
    follows: list[bool]

    def __init__(
        self,
        codec: Any,
        sampler: StreamingSampler,
        form: CodecFormat,
        num_steps: int,
        num_latents: int | None = None,
        seed: int = FRESH_NOISE,
        host_rate_hz: int | None = None,
    ) -> None:
        super().__init__(codec, num_latents or codec.latent_size, seed, host_rate_hz)
        self.makes_principal = num_latents is not None
        self.sampler, self.delay_frames = cast(Sampler, scripted(sampler)), sampler.delay_frames
        self.num_steps, self.max_steps = num_steps, len(sampler.steps) - 1
        self.temperature = self.guidance = 1.0
        self.filling = PositionalUniform(self.num_latents, UNINFORMATIVE)
        is_noise, mean, std = (torch.from_numpy(each) for each in form.uninformative)
        self.register_buffer("is_noise", is_noise)
        self.register_buffer("noise_mean", mean)
        self.register_buffer("noise_std", std)
        delay_samples = self.delay_frames * self.hop_samples
        self.sample_latency_samples = delay_samples + self.decode_latency_samples
        labels = [name for name, count in sampler.followed.items() for _ in range(count)]
        self.num_rows = max(len(labels), 1)
        inputs, outputs = labels or ["unused"], self.audio_labels()
        self.offer_method("sample", inputs, self.hop_samples, outputs, 1)
        self.offer_attribute("steps", INT_CODE)
        self.offer_attribute("temperature", FLOAT_CODE)
        self.offer_attribute("sample_latency", INT_CODE)
        self.follows = [True] * len(sampler.followed)
        names = list(sampler.followed)
        self.loudness, self.chroma, self.onsets, self.label = (
            names.index(name) if name in names else -1 for name in (LOUDNESS, CHROMA, ONSETS, LABEL)
        )
        for name in names:
            self.offer_attribute(f"follow_{name}", INT_CODE)
        if names:
            self.offer_attribute("guidance", FLOAT_CODE)

    @torch.jit.export
    def sample(self, rows: Tensor) -> Tensor:
        """Return generated audio (B, C, n·hop) with a latency of `sample_latency_samples`.

        Args:
            rows: (B, R, n) conditions: controls as from `diffwave.preprocess --controls`, and the
                number of a label, -1 for none. Without conditions (B, 1, n), not used.

        Raises:
            ValueError: If there are not R rows.
        """
        if rows.shape[1] != self.num_rows:
            raise ValueError(f"{rows.shape[1]} rows are given, {self.num_rows} needed.")
        is_first = self.begins("sample", ["sampler", "decoder"], rows.shape[0])
        if is_first:
            self.frames_out = 0
        latents = self.sampler(
            rows,
            self.num_steps,
            self.temperature,
            self.guidance,
            self.follows,
            self.seed,
            is_first,
        )
        frame = self.frames_out - self.delay_frames
        noise = self.filling.normal(self.seed, frame, latents.shape[2], latents)
        latents = torch.where(self.is_noise, self.noise_mean + self.noise_std * noise, latents)
        if self.makes_principal:
            return self.audio_of(latents, self.delay_frames)
        return self.audio_of_raw(latents, self.delay_frames)

    @torch.jit.export
    def get_steps(self) -> list[int]:
        """Return the number of sampling steps."""
        return [self.num_steps]

    @torch.jit.export
    def set_steps(self, steps: int) -> int:
        """Set the number of sampling steps; return -1 if it is out of range."""
        if steps < 1 or steps > self.max_steps:
            return -1
        self.num_steps = steps
        return 0

    @torch.jit.export
    def get_temperature(self) -> list[float]:
        """Return the temperature."""
        return [self.temperature]

    @torch.jit.export
    def set_temperature(self, temperature: float) -> int:
        """Set the temperature; return -1 if it is negative or too large."""
        if not 0.0 <= temperature < 1e3:
            return -1
        self.temperature = temperature
        return 0

    @torch.jit.export
    def get_guidance(self) -> list[float]:
        """Return the guidance scale."""
        return [self.guidance]

    @torch.jit.export
    def set_guidance(self, guidance: float) -> int:
        """Set the guidance scale: 1 is as trained, more exaggerates the conditions."""
        self.guidance = guidance
        return 0

    @torch.jit.export
    def get_sample_latency(self) -> list[int]:
        """Return the latency of `sample` in samples of the host."""
        return [self.sample_latency_samples]

    @torch.jit.export
    def set_sample_latency(self, latency: int) -> int:
        """Return -1: the model determines the latency."""
        return -1

    def warm_up(self) -> None:
        """Compile the codec and the network."""
        self.warm_up_codec()
        self.sampler.warm_up()
        rows = torch.zeros(1, self.num_rows, 1)
        for index in range(2):
            self.sampler(rows, self.num_steps, 1.0, 1.0, self.follows, self.seed, index == 0)

    def is_followed(self, place: int) -> list[int]:
        """Return 1 if the condition at a place is followed, else 0."""
        return [int(place >= 0 and self.follows[place])]

    def follow(self, place: int, is_followed: int) -> int:
        """Switch the condition at a place on, or off with 0; return -1 if there is none."""
        if place < 0:
            return -1
        self.follows[place] = is_followed != 0
        return 0

    @torch.jit.export
    def get_follow_loudness(self) -> list[int]:
        """Return 1 if loudness is followed, else 0."""
        return self.is_followed(self.loudness)

    @torch.jit.export
    def set_follow_loudness(self, is_followed: int) -> int:
        """Follow loudness; 0 switches it off."""
        return self.follow(self.loudness, is_followed)

    @torch.jit.export
    def get_follow_chroma(self) -> list[int]:
        """Return 1 if chroma is followed, else 0."""
        return self.is_followed(self.chroma)

    @torch.jit.export
    def set_follow_chroma(self, is_followed: int) -> int:
        """Follow chroma; 0 switches it off."""
        return self.follow(self.chroma, is_followed)

    @torch.jit.export
    def get_follow_onsets(self) -> list[int]:
        """Return 1 if onsets are followed, else 0."""
        return self.is_followed(self.onsets)

    @torch.jit.export
    def set_follow_onsets(self, is_followed: int) -> int:
        """Follow onsets; 0 switches it off."""
        return self.follow(self.onsets, is_followed)

    @torch.jit.export
    def get_follow_label(self) -> list[int]:
        """Return 1 if the label is followed, else 0."""
        return self.is_followed(self.label)

    @torch.jit.export
    def set_follow_label(self, is_followed: int) -> int:
        """Follow the label; 0 switches it off."""
        return self.follow(self.label, is_followed)
