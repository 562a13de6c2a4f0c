"""A model as a TorchScript module for nn~ in Max, PureData and SuperCollider.

What the host asks of a module: `<method>_params` (channels and samples per step of input and of
output), `get_methods`, `get_attributes` with `<attribute>_params`, `get_…` and `set_…`, buffers,
sample rate. It calls a method with whole blocks: a power of two of samples, at least a hop.

B batch, C channels, T samples of a block, K latents, D latent size of the model, n latent frames.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import math

import torch
from torch import Tensor, nn

from rave.adaptation import ATTRIBUTES, Adaptation
from rave.model import RAVE
from rave.resampling import StreamingResampler
from rave.streaming_model import StreamingRAVE

FRESH_NOISE = -1  # as a seed: other noise each time
INT_CODE, BOOL_CODE = 1, 0  # of attribute types in nn~
# SplitMix64 (Steele, Lea & Flood 2014, OOPSLA), constants as signed numbers
GAMMA, MIX_1, MIX_2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


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


class PositionalUniform(nn.Module):
    """Numbers that are a function of seed, row and step: the same however the stream is cut."""

    def __init__(self, rows: int, stream: int) -> None:
        super().__init__()
        self.rows, self.stream = rows, stream
        self.gamma, self.mix_1, self.mix_2 = GAMMA, MIX_1, MIX_2

    def forward(self, seed: int, first: int, steps: int, like: Tensor) -> Tensor:
        """Return (B, rows, steps) in (0, 1), alike for all items of the batch."""
        batch = like.shape[0]
        if seed < 0:
            uniform = torch.rand(batch, self.rows, steps, device=like.device)
            return uniform.clamp(2.0**-25, 1.0 - 2.0**-24)
        step = torch.arange(first, first + steps, device=like.device)
        row = torch.arange(self.rows, device=like.device)[:, None]
        bits = self.mixed(self.mixed(row + ((seed * 2 + self.stream) << 24)) + step)
        # the upper 24 bits, each number at the middle of its step
        uniform = (((bits >> 40) & 0xFFFFFF).to(like.dtype) + 0.5) * 2.0**-24
        return uniform.clamp(max=1.0 - 2.0**-24).expand(batch, -1, -1)

    def mixed(self, bits: Tensor) -> Tensor:
        """Return SplitMix64's output at the states `bits`."""
        bits = bits * self.gamma
        bits = (bits ^ ((bits >> 30) & 0x3FFFFFFFF)) * self.mix_1
        bits = (bits ^ ((bits >> 27) & 0x1FFFFFFFFF)) * self.mix_2
        return bits ^ ((bits >> 31) & 0x1FFFFFFFF)


class NNTilde(Adaptation):
    """`encode`, `decode` and `forward` of a stream, and the model itself for `load_codec`.

    Latents are the first K principal ones: rotated posterior means, largest variance first. The
    others are filled with N(0, 1) noise on the way back, as collapsed latents were in training.

    Args:
        model: Without weight norm.
        num_latents: K.
        noise_seed: Of the noise in `decode`; negative: other noise each time.
        host_rate_hz: Sample rate of the host, a power of two times the model's.

    Raises:
        ValueError: If the host's rate or the hop does not fit.
    """

    def __init__(
        self,
        model: RAVE,
        num_latents: int,
        noise_seed: int = FRESH_NOISE,
        host_rate_hz: int | None = None,
    ) -> None:
        streaming = StreamingRAVE(model)
        super().__init__(streaming)
        ratio = host_ratio(model.sample_rate_hz, host_rate_hz)
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
        self.sample_rate_hz = model.sample_rate_hz * ratio
        late = self.down.delay_samples
        self.encode_latency_samples = self.streaming.encoder_delay_frames * hop_samples + late
        self.decode_latency_samples = self.streaming.decoder_delay_samples * ratio + late
        self.seed = noise_seed
        rows = self.latent_size - num_latents
        self.latent_noise = PositionalUniform(rows, 0)
        self.band_noise = PositionalUniform(self.streaming.noise_rows, 1)
        self.frames_in = self.frames_out = self.batch = 0
        self.starts_with_encoder = True
        channels = model.num_channels
        shapes = {
            "encode": (channels, 1, num_latents, hop_samples),
            "decode": (num_latents, hop_samples, channels, 1),
            "forward": (channels, 1, channels, 1),
        }
        for name, shape in shapes.items():
            self.register_buffer(f"{name}_params", torch.tensor(shape))
        codes = {"seed": INT_CODE, "reset": BOOL_CODE, "latency": INT_CODE}
        if self.streaming.has_adaptation:
            codes |= dict.fromkeys(ATTRIBUTES, BOOL_CODE)
        for name, code in codes.items():
            self.register_buffer(f"{name}_params", torch.tensor([code]))
        self.attributes = list(codes)
        audio, latents = ["audio"], [f"latent {index + 1}" for index in range(num_latents)]
        self.encode_input_labels = self.forward_input_labels = channels * audio
        self.decode_output_labels = self.forward_output_labels = channels * audio
        self.encode_output_labels = self.decode_input_labels = latents

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
        centred = mean - self.model.latent_mean[:, None]
        return torch.matmul(self.model.latent_pca[: self.num_latents], centred)

    @torch.jit.export
    def decode(self, latents: Tensor) -> Tensor:
        """Return audio (B, C, n·hop) of latents (B, K, n), late by `decode_latency_samples`."""
        self.begin(latents, False)
        return self.audio_of(latents, 0)

    def audio_of(self, latents: Tensor, delay_frames: int) -> Tensor:
        """Return the next audio of the decoder, whose latents are `delay_frames` late."""
        count, done = latents.shape[2], self.frames_out
        if latents.shape[1] != self.num_latents:
            raise ValueError(f"{latents.shape[1]} latents are given, {self.num_latents} needed.")
        frame = done - delay_frames
        if self.latent_size > self.num_latents:
            uniform = self.latent_noise(self.seed, frame, count, latents)
            normal = math.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)
            latents = torch.cat([latents, normal], 1)
        raw = torch.matmul(self.model.latent_pca.t(), latents) + self.model.latent_mean[:, None]
        steps = self.streaming.noise_steps_per_frame
        noise = 2.0 * self.band_noise(self.seed, frame * steps, count * steps, raw) - 1.0
        low = self.streaming.decode(raw, noise, frame, done == 0)
        self.frames_out += count
        return self.up.up(low, done == 0)

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
    def get_methods(self) -> list[str]:
        """Return the names of the methods of the host."""
        return ["encode", "decode", "forward"]

    @torch.jit.export
    def get_attributes(self) -> list[str]:
        """Return the names of the attributes of the host."""
        return self.attributes

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
        return [self.encode_latency_samples + self.decode_latency_samples]

    @torch.jit.export
    def set_latency(self, latency: int) -> int:
        """Refuse: the latency is what the model needs."""
        return -1

    @torch.jit.export
    def get_sample_rate(self) -> int:
        """Return the sample rate that the module works at."""
        return self.sample_rate_hz

    @torch.jit.export
    def set_sample_rate(self, sample_rate_hz: int) -> int:
        """Hear of the host's rate, and keep the module's: its weights are made for it."""
        return 0

    @torch.jit.export
    def get_buffer_attributes(self) -> list[str]:
        """Return no names: the module reads no buffers of the host."""
        empty: list[str] = []
        return empty

    @torch.jit.export
    def set_buffer_attribute(self, name: str, buffer: Tensor, sample_rate_hz: int) -> int:
        """Refuse."""
        return -1

    @torch.jit.export
    def clear_buffer_attribute(self, name: str) -> int:
        """Refuse."""
        return -1

    @torch.jit.export
    def is_buffer_empty(self, name: str) -> bool:
        """Return True."""
        return True


def host_ratio(sample_rate_hz: int, host_rate_hz: int | None) -> int:
    """Return the host's rate over the model's.

    Raises:
        ValueError: If it is no power of two: a latent frame must be a whole block of the host.
    """
    ratio, rest = divmod(host_rate_hz or sample_rate_hz, sample_rate_hz)
    if rest or ratio < 1 or ratio & (ratio - 1):
        raise ValueError(
            f"A host at {host_rate_hz} Hz cannot play a model at {sample_rate_hz} Hz block by "
            f"block; set it to {sample_rate_hz}, {2 * sample_rate_hz} or {4 * sample_rate_hz} Hz."
        )
    return ratio
