"""A model as a TorchScript module for nn~ in Max, PureData and SuperCollider.

B batch, C channels, T samples of a block, K latents, D latent size of the model, n latent frames.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import torch
from torch import Tensor

from rave.adaptation import Adaptation
from rave.blocks.bottleneck import Gaussian
from rave.convolution import fold_weight_norm
from rave.host_module import BOOL_CODE, INT_CODE
from rave.model import RAVE
from rave.prior import LatentPrior
from rave.resampling import StreamingResampler
from rave.scripted_noise import ADDED_ROWS, BANDS, FRESH_NOISE, LATENTS, PositionalUniform
from rave.streaming_model import StreamingRAVE
from rave.streaming_prior import StreamingPrior


def latent_count(fidelity: Tensor, wanted: float, to_power_of_two: bool) -> int:
    """Return how many principal latents carry a share of the variance.

    Args:
        fidelity: (D) share of the variance in the first 1, 2, … D axes.
        wanted: Share; 1 is all D.
        to_power_of_two: Round up to a power of two, as far as there are latents.

    Raises:
        ValueError: If `wanted` is outside (0, 1], or the shares were never measured.
    """
    if not 0.0 < wanted <= 1.0:
        raise ValueError(f"Fidelity {wanted} is no share of the variance; give one in (0, 1].")
    size = len(fidelity)
    if wanted == 1.0:
        return size
    if float(fidelity[-1]) < wanted:
        raise ValueError(
            "The principal axes of the latents were never measured (no validation was run yet). "
            "Train on, or export all latents with --fidelity 1."
        )
    count = int((fidelity >= wanted).nonzero()[0]) + 1
    return min(1 << (count - 1).bit_length(), size) if to_power_of_two else count


class NNTilde(Adaptation):
    """`encode`, `decode` and `forward` of a stream, and the model itself for `load_codec`.

    Latents are the first K principal ones: rotated posterior means, largest variance first. On the
    way back N(0, 1) noise fills the others of a normal distribution, as collapsed latents were in
    training; those of points are at their mean.

    Args:
        model: Its weight norm is folded in place.
        num_latents: K.
        noise_seed: Of the noise in `decode`; negative: other noise each time.
        host_rate_hz: Sample rate of the host, a power of two times the model's.
        prior: Of the model's latents; makes the method `prior`.

    Raises:
        ValueError: If the host's rate or the hop does not fit, or a layer has no streaming form.
    """

    def __init__(
        self,
        model: RAVE,
        num_latents: int,
        noise_seed: int = FRESH_NOISE,
        host_rate_hz: int | None = None,
        prior: LatentPrior | None = None,
    ) -> None:
        fold_weight_norm(model)
        streaming = StreamingRAVE(model)
        ratio = host_ratio(model.sample_rate_hz, host_rate_hz)
        super().__init__(streaming, model.sample_rate_hz * ratio)
        hop_samples = model.hop_samples * ratio
        if hop_samples & (hop_samples - 1):
            raise ValueError(
                f"A hop of {hop_samples} samples never fills nn~'s blocks, whose length is a power "
                "of two. Use ratios of 2, 4 or 8."
            )
        self.model, self.streaming = model, streaming
        self.down, self.up = StreamingResampler(ratio), StreamingResampler(ratio)
        self.num_latents, self.latent_size = num_latents, model.latent_size
        self.num_channels, self.hop_samples = model.num_channels, hop_samples
        late = self.down.delay_samples
        self.encode_latency_samples = streaming.encoder_delay_frames * hop_samples + late
        self.decode_latency_samples = streaming.decoder_delay_samples * ratio + late
        self.latency_samples = self.encode_latency_samples + self.decode_latency_samples
        self.seed = noise_seed
        self.missing_std = 1.0 if isinstance(model.bottleneck, Gaussian) else 0.0
        self.missing = PositionalUniform(self.latent_size - num_latents, LATENTS)
        self.band_noise = PositionalUniform(streaming.noise_rows, BANDS)
        self.added_noise = PositionalUniform(streaming.num_noise_rows, ADDED_ROWS)
        self.latent_prior = None if prior is None else StreamingPrior(prior)
        self.frames_in = self.frames_out = self.batch = 0
        self.starts_with_encoder = True
        audio = model.num_channels * ["audio"]
        self.latent_labels = [f"latent {index + 1}" for index in range(num_latents)]
        self.offer_method("encode", audio, 1, self.latent_labels, hop_samples)
        self.offer_method("decode", self.latent_labels, hop_samples, audio, 1)
        self.offer_method("forward", audio, 1, audio, 1)
        if prior is not None:
            control = ["temperature"]
            self.offer_method("prior", control, hop_samples, self.latent_labels, hop_samples)
        for name, code in {"seed": INT_CODE, "reset": BOOL_CODE, "latency": INT_CODE}.items():
            self.offer_attribute(name, code)

    def begin(self, x: Tensor, is_encoder: bool) -> None:
        """Begin a new stream if this batch is of another size than the last."""
        if x.shape[0] != self.batch:
            self.batch = x.shape[0]
            self.frames_in = self.frames_out = 0
        if self.frames_out == 0:
            self.starts_with_encoder = is_encoder

    @torch.jit.export
    def encode(self, audio: Tensor) -> Tensor:
        """Return latents (B, K, n) of audio (B, C, n·hop), late by `encode_latency_samples`."""
        self.begin(audio, False)
        return self.latents_of(audio)

    def latents_of(self, audio: Tensor) -> Tensor:
        """Return the next latents (B, K, n) of the encoder."""
        if audio.shape[2] % self.hop_samples:
            raise ValueError(
                f"A block of {audio.shape[2]} samples is no multiple of {self.hop_samples}."
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
        self.begin(latents, False)
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
        steps = self.streaming.noise_steps_per_frame
        noise = 2.0 * self.band_noise(self.seed, frame * steps, count * steps, raw) - 1.0
        if self.streaming.num_noise_rows > 0:
            raw = torch.cat([raw, self.added_noise.normal(self.seed, frame, count, raw)], 1)
        low = self.streaming.decode(raw, noise, frame, is_first)
        self.frames_out += count
        return self.up.up(low, is_first)

    def forward(self, audio: Tensor) -> Tensor:
        """Return audio encoded and decoded, late by the latency of both."""
        self.begin(audio, True)
        delay = self.streaming.encoder_delay_frames if self.starts_with_encoder else 0
        return self.audio_of(self.latents_of(audio), delay)

    @torch.jit.export
    def posterior_parameters(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std of the whole posterior of whole audio at the model's own rate."""
        return self.model.posterior_parameters(audio)

    @torch.jit.export
    def decode_offline(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the audio of whole raw latents (B, D, n) at the model's own rate."""
        return self.model.decode(latents, noise)

    @torch.jit.export
    def prior(self, control: Tensor) -> Tensor:
        """Return new latents (B, K, n), for `decode`, of a control (B, 1, n) of the temperature."""
        if self.latent_prior is None:
            raise ValueError("This file has no prior. Export it again with --prior.")
        self.begin(control, False)
        raw = self.latent_prior(control, self.seed, self.frames_out == 0)
        self.frames_out += control.shape[2]
        return self.principal(raw)

    @torch.jit.export
    def get_seed(self) -> list[int]:
        """Return the seed of the noise; negative: other noise each time."""
        return [self.seed]

    @torch.jit.export
    def set_seed(self, seed: int) -> int:
        """Set the seed of the noise."""
        self.seed = seed
        return 0

    @torch.jit.export
    def get_reset(self) -> list[bool]:
        """Return whether a stream is yet to begin."""
        return [self.frames_in + self.frames_out == 0]

    @torch.jit.export
    def set_reset(self, reset: bool) -> int:
        """Forget the stream so far; the next block begins one."""
        if reset:
            self.frames_in = self.frames_out = 0
        return 0

    @torch.jit.export
    def get_latency(self) -> list[int]:
        """Return the latency of `forward` in samples of the host."""
        return [self.latency_samples]

    @torch.jit.export
    def set_latency(self, latency: int) -> int:
        """Refuse: the latency is what the model needs."""
        return -1


def fits_blocks(sample_rate_hz: int, host_rate_hz: int | None) -> bool:
    """Return whether the model's latent frames are whole blocks of the host."""
    ratio, rest = divmod(host_rate_hz or sample_rate_hz, sample_rate_hz)
    return not rest and ratio > 0 and not ratio & (ratio - 1)


def host_ratio(sample_rate_hz: int, host_rate_hz: int | None) -> int:
    """Return the host's rate over the model's.

    Raises:
        ValueError: If it is no power of two: a latent frame must be a whole block of the host.
    """
    if not fits_blocks(sample_rate_hz, host_rate_hz):
        raise ValueError(
            f"A host at {host_rate_hz} Hz cannot play a model at {sample_rate_hz} Hz block by "
            f"block; set it to {sample_rate_hz}, {2 * sample_rate_hz} or {4 * sample_rate_hz} Hz."
        )
    return (host_rate_hz or sample_rate_hz) // sample_rate_hz
