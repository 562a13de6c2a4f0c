"""`forward` of a module for nn~ in a host of any rate, such as 48 kHz for a model of 44.1 kHz.

There a latent frame is not a whole number of samples, so `encode` and `decode` do not exist. Input
waits in the module until it fills a frame, and output until the host requests it:

    host's rate ─▶ model's rate ─▶ whole frames ─▶ model ─▶ host's rate ─▶ requested block

B batch, C channels, n samples of a block, p / q output rate over input rate of a resampler, in
lowest terms.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations.

import math

import torch
from scipy.signal import kaiserord
from torch import Tensor, nn

from rave.model import RAVE
from rave.streaming.nn_tilde import NNTilde
from rave.streaming.noise import FRESH_NOISE
from rave.streaming.resampling import STOP_BAND_DB, TRANSITION

LARGEST_TERM = 1000  # limit of p and q; the filters are a table of p rows


class StreamingRational(nn.Module):
    """Resample a stream: Kaiser-windowed low-pass, gain 1, no delay; output waits for later input.

    Args:
        rate_hz: Sample rate of the input.
        wanted_hz: Sample rate of the output.

    Attributes:
        ahead: Later input samples that an output depends on.
    """

    filters: Tensor
    offsets: Tensor
    held: Tensor

    def __init__(self, rate_hz: int, wanted_hz: int) -> None:
        super().__init__()
        common = math.gcd(rate_hz, wanted_hz)
        self.p, self.q = wanted_hz // common, rate_hz // common
        lower = min(1.0, wanted_hz / rate_hz)  # the lower Nyquist frequency
        num_taps, beta = kaiserord(STOP_BAND_DB, TRANSITION * lower)
        self.ahead = num_taps // 2 + 1
        cutoff = (1 - TRANSITION / 2) * lower
        offsets = torch.arange(1 - self.ahead, self.ahead + 1)
        distance = offsets - torch.arange(self.p, dtype=torch.float64)[:, None] / self.p
        inside = (1 - (distance / self.ahead).square()).clamp(min=0).sqrt()
        window = torch.special.i0(beta * inside) / torch.special.i0(torch.tensor(beta).double())
        filters = cutoff * torch.special.sinc(cutoff * distance) * window
        # The sum of each row is its gain at 0 Hz.
        self.register_buffer("filters", (filters / filters.sum(1, keepdim=True)).float())
        self.register_buffer("offsets", offsets)
        self.register_buffer("held", torch.zeros(1, 1, 0))
        self.held_from = self.received = self.given = 0

    def forward(self, audio: Tensor, is_first: bool) -> Tensor:
        """Return the output (B, C, ·) that is complete after a block (B, C, n)."""
        if is_first:
            self.held = audio.new_zeros(audio.shape[0], audio.shape[1], self.ahead)
            self.held_from, self.received, self.given = -self.ahead, 0, 0
        self.held = torch.cat([self.held, audio], 2)
        self.received += audio.shape[2]
        # Output j lies at input position j·q / p.
        stop = max(-(-(self.received - self.ahead) * self.p // self.q), self.given)
        places = torch.arange(self.given, stop, device=audio.device) * self.q
        whole = torch.div(places, self.p, rounding_mode="floor")
        seen = (whole - self.held_from)[:, None] + self.offsets
        given = (self.held[:, :, seen] * self.filters[places - whole * self.p]).sum(3)
        self.given = stop
        done = max(stop * self.q // self.p - self.ahead - self.held_from, 0)
        self.held = self.held[:, :, done:].clone()
        self.held_from += done
        return given


class NNTildeAtAnyRate(NNTilde):
    """`forward` at the rate of a host, in blocks of any length.

    Args:
        model: Its weight norm is folded in place.
        num_latents: Number of principal latents of encode and decode.
        host_rate_hz: Sample rate of the host.
        noise_seed: Random seed of the noise in decode; negative: new noise each time.

    Raises:
        ValueError: If the ratio of the rates has large terms, or as `NNTilde`.
    """

    pending: Tensor
    ready: Tensor

    def __init__(
        self, model: RAVE, num_latents: int, host_rate_hz: int, noise_seed: int = FRESH_NOISE
    ) -> None:
        super().__init__(model, num_latents, noise_seed)
        rate_hz = model.sample_rate_hz
        self.to_model = StreamingRational(rate_hz=host_rate_hz, wanted_hz=rate_hz)
        self.to_host = StreamingRational(rate_hz=rate_hz, wanted_hz=host_rate_hz)
        if max(self.to_host.p, self.to_host.q) > LARGEST_TERM:
            raise ValueError(
                f"The ratio of {host_rate_hz} and {rate_hz} Hz is too complex; set the host to a "
                "usual rate such as 44100, 48000 or 96000 Hz."
            )
        # Latency of the model's stream, whose first samples are left out.
        self.model_delay = self.latency_samples
        # The longest time of a sample in the module: two filters, a frame, the model.
        slowest = self.hop_samples - 1 + self.model_delay + self.to_host.ahead + 1
        self.latency_samples = self.to_model.ahead + 1 + -(-slowest * host_rate_hz // rate_hz)
        self.sample_rate_hz = host_rate_hz
        self.methods = []
        self.offer_method("forward", self.audio_labels(), 1, self.audio_labels(), 1)
        self.left_out = 0
        self.register_buffer("pending", torch.zeros(1, 1, 0))
        self.register_buffer("ready", torch.zeros(1, 1, 0))

    def forward(self, audio: Tensor) -> Tensor:
        """Return audio (B, C, n) encoded and decoded, `latency_samples` late."""
        is_new = self.begins("forward", ["encoder", "decoder"], audio.shape[0])
        if is_new:
            self.frames_in, self.frames_out, self.left_out = 0, 0, 0
            self.pending = audio.new_zeros(audio.shape[0], audio.shape[1], 0)
            self.ready = audio.new_zeros(audio.shape[0], audio.shape[1], self.latency_samples)
        self.pending = torch.cat([self.pending, self.to_model(audio, is_new)], 2)
        whole = self.pending.shape[2] // self.hop_samples * self.hop_samples
        if whole > 0:
            is_first = self.frames_in == 0
            latents = self.latents_of(self.pending[:, :, :whole])
            made = self.audio_of(latents, self.encoder_delay_frames)
            left_out = min(self.model_delay - self.left_out, whole)
            self.left_out += left_out
            self.ready = torch.cat([self.ready, self.to_host(made[:, :, left_out:], is_first)], 2)
            self.pending = self.pending[:, :, whole:].clone()
        given = self.ready[:, :, : audio.shape[2]]
        self.ready = self.ready[:, :, audio.shape[2] :].clone()
        return given
