"""A model as a TorchScript module for nn~ in Max, PureData and SuperCollider.

B batch, C channels, T samples of a block, K latents, D latent size of the model, n latent frames.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

from typing import cast

import torch
from torch import Tensor, nn

from rave.blocks.bottleneck import Gaussian
from rave.blocks.convolution import fold_weight_norm
from rave.model import RAVE
from rave.prior import LatentPrior
from rave.streaming.adaptation import Adaptation
from rave.streaming.host_module import INT_CODE
from rave.streaming.layers import silence_before_start
from rave.streaming.model import StreamingRAVE
from rave.streaming.noise import ADDED_ROWS, BANDS, FRESH_NOISE, LATENTS, PositionalUniform
from rave.streaming.prior import StreamingPrior
from rave.streaming.resampling import StreamingResampler
from rave.streaming.tracing import interface, scripted


def latent_count(fidelity: Tensor, wanted: float, to_power_of_two: bool) -> int:
    """Return how many principal latents carry a share of the variance.

    Args:
        fidelity: (D) share of the variance in the first 1, 2, … D axes.
        wanted: Share; 1 is all D.
        to_power_of_two: Round up to a power of two, as far as there are latents.

    Raises:
        ValueError: If `wanted` is outside (0, 1], or the shares were not measured.
    """
    if not 0.0 < wanted <= 1.0:
        raise ValueError(f"Fidelity {wanted} is not a share of the variance; give one in (0, 1].")
    size = len(fidelity)
    if wanted == 1.0:
        return size
    if float(fidelity[-1]) < wanted:
        raise ValueError(
            "The principal axes of the latents were not measured yet (no validation has run). "
            "Continue training, or export all latents with --fidelity 1."
        )
    count = int((fidelity >= wanted).nonzero()[0]) + 1
    return min(1 << (count - 1).bit_length(), size) if to_power_of_two else count


@interface
class Codec(nn.Module):
    """Interface of `StreamingRAVE`, so that it is compiled separately, and once for all methods."""

    def encode(self, audio: Tensor, frame: int) -> tuple[Tensor, Tensor]:  # noqa: D102
        pass

    def decode(self, latents: Tensor, noise: Tensor, frame: int, is_first: bool) -> Tensor:  # noqa: D102
        pass


class NNTilde(Adaptation):
    """`encode`, `decode` and `forward` of a stream, and the model itself for `load_codec`.

    Latents are the first K principal ones: rotated posterior means, largest variance first. In
    decoding, the others are N(0, 1) noise, as collapsed latents were in training, if the posterior
    is normal; else they are at their mean.

    Args:
        model: Its weight norm is folded in place.
        num_latents: K.
        noise_seed: Random seed of the noise in `decode`; negative: new noise each time.
        host_rate_hz: Sample rate of the host, a power of two times the model's.

    Raises:
        ValueError: If the host's rate or the hop does not fit, or a layer has no streaming form.
    """

    streaming: Codec

    def __init__(
        self,
        model: RAVE,
        num_latents: int,
        noise_seed: int = FRESH_NOISE,
        host_rate_hz: int | None = None,
    ) -> None:
        fold_weight_norm(model)
        streaming = StreamingRAVE(model).eval()
        ratio = host_ratio(model.sample_rate_hz, host_rate_hz)
        super().__init__(streaming, model.sample_rate_hz * ratio)
        hop_samples = model.hop_samples * ratio
        if hop_samples & (hop_samples - 1):
            raise ValueError(
                f"A hop of {hop_samples} samples does not fit nn~'s blocks, whose length is a "
                "power of two. Use ratios of 2, 4 or 8."
            )
        self.model, self.streaming = model, cast(Codec, scripted(streaming))
        self.down, self.up = StreamingResampler(ratio), StreamingResampler(ratio)
        self.num_latents, self.latent_size = num_latents, model.latent_size
        self.num_channels, self.hop_samples = model.num_channels, hop_samples
        self.encoder_delay_frames = streaming.encoder_delay_frames
        self.noise_steps_per_frame = streaming.noise_steps_per_frame
        self.num_noise_rows = streaming.num_noise_rows
        late = self.down.delay_samples
        self.encode_latency_samples = streaming.encoder_delay_frames * hop_samples + late
        self.decode_latency_samples = streaming.decoder_delay_samples * ratio + late
        self.latency_samples = self.encode_latency_samples + self.decode_latency_samples
        self.seed = noise_seed
        self.missing_std = 1.0 if isinstance(model.bottleneck, Gaussian) else 0.0
        self.missing = PositionalUniform(self.latent_size - num_latents, LATENTS)
        self.band_noise = PositionalUniform(streaming.noise_rows, BANDS)
        self.added_noise = PositionalUniform(streaming.num_noise_rows, ADDED_ROWS)
        self.frames_in = self.frames_out = 0
        audio = self.audio_labels()
        self.latent_labels = [f"latent {index + 1}" for index in range(num_latents)]
        self.offer_method("encode", audio, 1, self.latent_labels, hop_samples)
        self.offer_method("decode", self.latent_labels, hop_samples, audio, 1)
        self.offer_method("forward", audio, 1, audio, 1)
        for name in ("seed", "latency"):
            self.offer_attribute(name, INT_CODE)

    @torch.jit.unused
    def audio_labels(self) -> list[str]:
        """Return a label for each channel of audio, for the host to show."""
        return self.num_channels * [f"audio at {self.sample_rate_hz} Hz"]

    def warm_up(self) -> None:
        """Compile the codec."""
        self.warm_up_codec()

    def warm_up_codec(self) -> None:
        """Compile the codec, which torch does in its first two runs."""
        like = self.model.latent_mean
        audio = like.new_zeros(1, self.num_channels, self.hop_samples // self.down.ratio)
        noise = like.new_zeros(1, self.band_noise.rows, self.noise_steps_per_frame)
        rows = like.new_zeros(1, self.latent_size + self.num_noise_rows, 1)
        for frame in range(2):
            self.streaming.encode(audio, frame)
            self.streaming.decode(rows, noise, frame, frame == 0)

    @torch.jit.export
    def encode(self, audio: Tensor) -> Tensor:
        """Return latents (B, K, n) of audio (B, C, n·hop), late by `encode_latency_samples`."""
        if self.begins("encode", ["encoder"], audio.shape[0]):
            self.frames_in = 0
        return self.latents_of(audio)

    def latents_of(self, audio: Tensor) -> Tensor:
        """Return the next latents (B, K, n) of the encoder."""
        if audio.shape[2] % self.hop_samples:
            raise ValueError(
                f"A block of {audio.shape[2]} samples is not a multiple of {self.hop_samples}."
            )
        low = self.down.down(audio, self.frames_in == 0)
        mean, _ = self.streaming.encode(low, self.frames_in)
        self.frames_in += mean.shape[2]
        return self.principal(mean)

    def principal(self, raw: Tensor) -> Tensor:
        """Return the first K principal latents of raw ones."""
        centred = raw - self.model.latent_mean[:, None]
        return torch.matmul(self.model.latent_pca[: self.num_latents], centred)

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        """Return audio (B, C, n·hop) of latents (B, K, n), late by `decode_latency_samples`."""
        if self.begins("decode", ["decoder"], latents.shape[0]):
            self.frames_out = 0
        return self.audio_of(latents, 0)

    def audio_of(self, latents: Tensor, delay_frames: int) -> Tensor:
        """Return the next audio of the decoder, whose latents are `delay_frames` late."""
        if latents.shape[1] != self.num_latents:
            raise ValueError(f"{latents.shape[1]} latents are given, {self.num_latents} needed.")
        if self.latent_size > self.num_latents:
            frame = self.frames_out - delay_frames
            noise = self.missing.normal(self.seed, frame, latents.shape[2], latents)
            latents = torch.cat([latents, self.missing_std * noise], 1)
        raw = torch.matmul(self.model.latent_pca.t(), latents) + self.model.latent_mean[:, None]
        return self.audio_of_raw(raw, delay_frames)

    def audio_of_raw(self, raw: Tensor, delay_frames: int) -> Tensor:
        """Return the next audio of the decoder, whose raw latents are `delay_frames` late."""
        count, is_first = raw.shape[2], self.frames_out == 0
        frame = self.frames_out - delay_frames
        steps = self.noise_steps_per_frame
        noise = 2.0 * self.band_noise(self.seed, frame * steps, count * steps, raw) - 1.0
        if self.num_noise_rows > 0:
            raw = torch.cat([raw, self.added_noise.normal(self.seed, frame, count, raw)], 1)
        low = self.streaming.decode(raw, noise, frame, is_first)
        self.frames_out += count
        return self.up.up(low, is_first)

    def forward(self, audio: Tensor) -> Tensor:
        """Return audio encoded and decoded, late by the latency of both."""
        if self.begins("forward", ["encoder", "decoder"], audio.shape[0]):
            self.frames_in, self.frames_out = 0, 0
        return self.audio_of(self.latents_of(audio), self.encoder_delay_frames)

    @torch.jit.export
    def posterior_parameters(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std of the whole posterior of whole audio at the model's own rate."""
        return self.model.posterior_parameters(audio)

    @torch.jit.export
    def decode_offline(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the audio of whole raw latents (B, D, n) at the model's own rate."""
        return self.model.decode(latents, noise)

    @torch.jit.export
    def get_seed(self) -> list[int]:
        """Return the seed of the noise; negative: new noise each time."""
        return [self.seed]

    @torch.jit.export
    def set_seed(self, seed: int) -> int:
        """Set the seed of the noise."""
        self.seed = seed
        return 0

    @torch.jit.export
    def get_latency(self) -> list[int]:
        """Return the latency of `forward` in samples of the host."""
        return [self.latency_samples]

    @torch.jit.export
    def set_latency(self, latency: int) -> int:
        """Refuse: the model determines the latency."""
        return -1


@interface
class Prior(nn.Module):
    """Interface of `StreamingPrior`."""

    def forward(self, control: Tensor, seed: int, is_first: bool) -> Tensor:  # noqa: D102
        pass


class NNTildePrior(NNTilde):
    """The methods of the codec, and `prior`: latents for `decode`.

    Args:
        model: As in `NNTilde`, like the arguments after the prior.
        prior: Prior of the model's latents.
        num_latents: K.
        noise_seed: Random seed of the noise and of the prior's choices.
        host_rate_hz: Sample rate of the host.

    Raises:
        ValueError: As `NNTilde`.
    """

    latent_prior: Prior

    def __init__(
        self,
        model: RAVE,
        prior: LatentPrior,
        num_latents: int,
        noise_seed: int = FRESH_NOISE,
        host_rate_hz: int | None = None,
    ) -> None:
        super().__init__(model, num_latents, noise_seed, host_rate_hz)
        streaming = StreamingPrior(prior)
        self.latent_prior = cast(Prior, scripted(streaming))
        self.prior_delay_frames, self.frames_made = streaming.delay_frames, 0
        labels, hop_samples = self.latent_labels, self.hop_samples
        self.offer_method("prior", ["temperature"], hop_samples, labels, hop_samples)
        self.offer_attribute("prior_latency", INT_CODE)

    def warm_up(self) -> None:
        """Compile the codec and the prior."""
        self.warm_up_codec()
        for index in range(2):
            self.latent_prior(torch.zeros(1, 1, 1), self.seed, index == 0)

    @torch.jit.export
    def prior(self, control: Tensor) -> Tensor:
        """Return new latents (B, K, n) for `decode`, late by the attribute `prior_latency`.

        Args:
            control: (B, 1, n) control of the temperature.
        """
        is_first = self.begins("prior", ["prior"], control.shape[0])
        if is_first:
            self.frames_made = 0
        latents = self.principal(self.latent_prior(control, self.seed, is_first))
        latents = silence_before_start(latents, self.frames_made, 1, self.prior_delay_frames)
        self.frames_made += control.shape[2]
        return latents

    @torch.jit.export
    def get_prior_latency(self) -> list[int]:
        """Return the latency of `prior` in samples of the host."""
        return [self.prior_delay_frames * self.hop_samples]

    @torch.jit.export
    def set_prior_latency(self, latency: int) -> int:
        """Refuse: the prior determines the latency."""
        return -1


def fits_blocks(sample_rate_hz: int, host_rate_hz: int | None) -> bool:
    """Return whether the model's latent frames are whole blocks of the host."""
    ratio, rest = divmod(host_rate_hz or sample_rate_hz, sample_rate_hz)
    return not rest and ratio > 0 and not ratio & (ratio - 1)


def host_ratio(sample_rate_hz: int, host_rate_hz: int | None) -> int:
    """Return the host's rate over the model's.

    Raises:
        ValueError: If it is not a power of two: a latent frame must be a whole block of the host.
    """
    if not fits_blocks(sample_rate_hz, host_rate_hz):
        raise ValueError(
            f"A host at {host_rate_hz} Hz cannot run a model at {sample_rate_hz} Hz block by "
            f"block; set it to {sample_rate_hz}, {2 * sample_rate_hz} or {4 * sample_rate_hz} Hz."
        )
    return (host_rate_hz or sample_rate_hz) // sample_rate_hz
