"""Compare .ts files that acids-rave exports with ours of the same: what they encode and decode.

    python -m benchmarks.upstream.exports FILE.ts …

prints the largest relative difference of `encode` and `decode` of each file, run by torch, from
those of the codec that `rave.codec.load_codec` makes of it. Both draw the same noise. A streaming
file is compared after its latency, all of it in one block.

D latents of the model, N frames, R ratio of the file's rate to the model's; delays are in samples
of the model's rate or, where the name says so, in band steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rave.blocks.bottleneck import Discrete, Gaussian, Spherical
from rave.blocks.noise import amplitude
from rave.blocks.v1 import DecoderV1
from rave.model import RAVE
from rave.upstream.torchscript import CroppedRAVE, ResampledCodec, open_export

SEED, SPARE_FRAMES = 0, 24
# Their names for what has a delay of its own in a streaming network.
CONVOLUTIONS, TRANSPOSED, UNIT = "CachedConv1d", "CachedConvTranspose1d", "Residual"


def export(python: Path, run: Path, folder: Path, *flags: str) -> Path:
    """Return the .ts file that acids-rave's `rave export` makes of a run.

    Args:
        python: Of an environment with acids-rave.
        run: The run folder.
        folder: For the file.
        *flags: Of its command: --streaming, --fidelity=0.5, --channels=1, --sr=88200.

    Raises:
        ValueError: If it fails; the message is its last line.
    """
    name = "_".join(["codec", *(flag.strip("-").replace("=", "") for flag in flags)])
    command = [str(python), str(python.with_name("rave")), "export", "--run", str(run.absolute())]
    command += ["--output", str(folder.absolute()), "--name", name, *flags]
    # Not where this project's own `rave` is found.
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, env=outside, cwd=folder)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"acids-rave cannot export it: {last[0]}")
    suffix = "_streaming" if "--streaming" in flags else ""
    return folder / f"{name}{suffix}.ts"


class Delays:
    """How late a streaming file is, by its layers' own words; all 0 in another file.

    Attributes:
        encoder: Samples.
        wave_steps: Band steps, of the wave, from the latents.
        noise_steps: Band steps, of what the noise is made from.
        synthesis: Samples.
        down: Of the resampler's way down, samples of the file's rate.
    """

    def __init__(self, network: Any, model: RAVE, ratio: int) -> None:
        bank, decoder = network.pqmf, network.decoder
        bands = model.pqmf.num_bands
        step = bands if model.spectrogram is None else model.spectrogram.hop_samples
        encoder = network.encoder.encoder
        if encoder.original_name == "Encoder":  # of v1: each layer knows of those before it
            self.encoder = encoder.cumulative_delay * model.hop_samples
        else:
            self.encoder = _delay(encoder.net, step)
        if model.spectrogram is None:
            self.encoder += bank.forward_conv.cumulative_delay * bands
        if decoder.original_name == "Generator":
            self.wave_steps = self.noise_steps = decoder.cumulative_delay
        else:
            wave = getattr(decoder, "waveform_module", None)  # only where there is noise
            self.noise_steps = _delay(decoder.net, model.hop_samples) // bands
            self.wave_steps = self.noise_steps + (wave.cumulative_delay if wave else 0)
        self.synthesis = bank.inverse_conv.cumulative_delay * bands
        self.down = network.resampler.downsample.cumulative_delay * ratio if ratio > 1 else 0


def _delay(net: Any, samples_per_step: int) -> int:
    """Return the delay of a chain whose layers do not know of each other, in samples."""
    total = 0
    for layer in net.children():
        if layer.original_name == TRANSPOSED:
            samples_per_step //= layer.stride[0]
        if layer.original_name == CONVOLUTIONS:
            samples_per_step *= layer.stride[0]
        if layer.original_name in (TRANSPOSED, CONVOLUTIONS, UNIT):
            total += layer.cumulative_delay * samples_per_step
    return total


def late(rows: Tensor, steps: int) -> Tensor:
    """Return rows (…, T) after `steps` of zeros, as long as before."""
    return functional.pad(rows, (steps, 0))[..., : rows.shape[-1]]


def difference(found: Tensor, needed: Tensor) -> float:
    """Return the largest difference, relative to the largest value needed."""
    if found.shape != needed.shape:
        raise ValueError(f"shape {tuple(found.shape)} for {tuple(needed.shape)}")
    return float((found - needed).abs().max() / needed.abs().max().clamp_min(1e-12))


class Export:
    """A .ts file of acids-rave, opened here.

    Args:
        network: What torch.jit.load gave; its layers are read, nothing of it is run.
        path: Of the file.

    Attributes:
        model: Of ours.
        num_channels: Of its audio.
        num_frames: Enough to compare the file with ours.

    Raises:
        ValueError: If ours does not open it.
    """

    def __init__(self, network: Any, path: Path) -> None:
        codec, self.format = open_export(network, path)
        self.resampler = codec if isinstance(codec, ResampledCodec) else None
        inner: Any = codec.network if isinstance(codec, ResampledCodec) else codec
        self.cropped = inner if isinstance(inner, CroppedRAVE) else None
        self.model: RAVE = inner.model if isinstance(inner, CroppedRAVE) else inner
        self.ratio = codec.ratio if isinstance(codec, ResampledCodec) else 1
        self.delays = Delays(network, self.model, self.ratio)
        bands = self.model.pqmf.num_bands
        samples_late = {
            "encode": self.delays.encoder,
            "decode": self.delays.synthesis + bands * self.delays.wave_steps,
        }
        reach = {
            "encode": self.format.encoder_reach_frames[0],
            "decode": self.format.decoder_reach_frames[0],
        }
        # A stream begins with silence that has been heard, a file with nothing before it.
        self.begin = {
            name: -(-samples // self.model.hop_samples) + reach[name] if samples else 0
            for name, samples in samples_late.items()
        }
        self.num_frames = max(self.begin.values()) + SPARE_FRAMES
        self.num_channels = self.format.num_channels

    def signal(self) -> Tensor:
        """Return a sweep and noise, (1, C, T), seeded."""
        num_samples = self.num_frames * self.format.hop_samples
        rng, time = np.random.default_rng(SEED), np.arange(num_samples) / 44100
        tone = 0.3 * np.sin(2 * np.pi * (110 + 500 * time) * time)
        audio = tone + 0.05 * rng.standard_normal((1, self.num_channels, num_samples))
        return torch.from_numpy(audio.astype(np.float32))

    @torch.inference_mode()
    def differences(self, encoded: Tensor, decoded: Tensor, way_up: Any = None) -> dict[str, float]:
        """Return the largest relative difference of ours from what the file made of the signal.

        Args:
            encoded: What its `encode` gave, after `torch.manual_seed(SEED)`.
            decoded: What its `decode` gave of that, seeded alike.
            way_up: Their convolution from the model's rate to the file's, which has faults.

        Raises:
            ValueError: If ours has another shape.
        """
        found = {}
        latents, ours = self._latents(encoded)
        begin = self.begin["encode"]
        if not isinstance(self.model.bottleneck, Discrete) or self.model.bottleneck.is_enabled:
            needed = latents[:, : ours.shape[1]]
            found["encode"] = difference(ours[..., begin:], needed[..., begin:])
        torch.manual_seed(SEED)
        rest = torch.randn(1, self.format.num_noise_rows, self.num_frames)
        latents = torch.cat([latents, rest], 1)
        if self.cropped is not None:
            latents = self.cropped.raw_latents(latents)
        bank = self.model.pqmf
        # acids-rave's centred synthesis is late by a step, which ours takes out
        lag = self.delays.synthesis + (bank.num_bands if bank.synthesis_padding[1] else 0)
        audio = late(bank.synthesis(delayed_bands(self.model, latents, self.delays)), lag)
        if way_up is not None:
            phases = way_up(audio.transpose(0, 1))
            audio = phases.transpose(1, 2).reshape(1, audio.shape[1], -1)
        audio = audio[:, : decoded.shape[1]]  # of a stereo model, some files play one channel
        start = (self.begin["decode"] + 1) * self.format.hop_samples
        found["decode"] = difference(audio[..., start:], decoded[..., start:])
        return found

    def _latents(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents that the file gave in our form, and ours with the same draw."""
        audio = self.signal()
        shift = self.delays.down + self.ratio * self.delays.encoder
        audio = functional.pad(audio, (shift, -shift % self.format.hop_samples))
        audio = audio if self.resampler is None else self.resampler.down(audio)
        mean, std = self.model.posterior_parameters(audio)
        mean, std = mean[..., : self.num_frames], std[..., : self.num_frames]
        kind = self.model.bottleneck
        if isinstance(kind, Gaussian):
            torch.manual_seed(SEED)
            drawn = mean + std * torch.randn(mean.shape) - self.model.latent_mean[:, None]
            rotated = torch.matmul(self.model.latent_pca, drawn)
            return encoded, rotated[:, : encoded.shape[1]]
        if isinstance(kind, Discrete):
            return kind.quantizer.dequantize(encoded.long()), mean
        return (points(encoded) if isinstance(kind, Spherical) else encoded), mean


@torch.inference_mode()
def compare(path: Path) -> dict[str, float]:
    """Return the largest relative difference of encode and decode of a .ts file of acids-rave.

    Raises:
        ValueError: If ours does not open it, or gives another shape.
    """
    with warnings.catch_warnings():
        # 2026-11: torch.jit is deprecated in favour of torch.export.
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs, fresh = torch.jit.load(str(path)), torch.jit.load(str(path))
    export = Export(theirs, path)
    torch.manual_seed(SEED)
    encoded = theirs.encode(export.signal())
    torch.manual_seed(SEED)
    decoded = theirs.decode(encoded)
    way_up = None if export.resampler is None else fresh.resampler.upsample
    return export.differences(encoded, decoded, way_up)


def points(angles: Tensor) -> Tensor:
    """Return points on the sphere (B, D, N) of angles (B, D − 1, N), in halves of their range."""
    radians = (angles / 2 + 0.5) * torch.pi
    radians = torch.cat([radians[:, :-1], 2 * radians[:, -1:]], 1)
    one = torch.ones_like(radians[:, :1])
    return torch.cat([radians.cos(), one], 1) * torch.cat([one, radians.sin().cumprod(1)], 1)


def delayed_bands(model: RAVE, latents: Tensor, delays: Delays) -> Tensor:
    """Return what our decoder gives if its parts are as late as those of a streaming file."""
    decoder: Any = model.decoder
    size = model.latent_size
    latents = torch.cat([model.bottleneck.project(latents[:, :size]), latents[:, size:]], 1)
    hidden, noise = decoder.net(latents), torch.zeros(())
    if decoder.noise is not None:
        length, rows = decoder.noise.block_steps, decoder.noise.out_channels
        blocks = 2 * torch.rand(1, hidden.shape[-1] // length, rows, length) - 1
        drawn = blocks.permute(0, 2, 1, 3).flatten(2)
        noise = decoder.noise(late(hidden, delays.noise_steps), drawn)
    wave = decoder.wave(hidden)
    if isinstance(decoder, DecoderV1):
        wave = torch.tanh(wave) * amplitude(decoder.loudness(hidden))
        return late(wave, delays.wave_steps) + noise
    wave, gate = wave.chunk(2, dim=1)
    return torch.tanh(late(wave * torch.sigmoid(gate), delays.wave_steps) + noise)


def main(paths: Sequence[str]) -> int:
    """Print the differences of some files; return 1 if one cannot be compared."""
    failed = 0
    for path in paths:
        try:
            message = ", ".join(f"{name} {v:.1e}" for name, v in compare(Path(path)).items())
        except ValueError as error:
            message, failed = str(error), 1
        print(f"{path}: {message}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
