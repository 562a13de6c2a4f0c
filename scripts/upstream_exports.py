"""Compare .ts files that acids-rave exports with ours of the same: what they encode and decode.

    python scripts/upstream_exports.py FILE.ts …

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
# Of acids-rave's centred synthesis, which ours takes out.
SYNTHESIS_LAG = 16
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
    told = subprocess.run(command, capture_output=True, text=True, env=outside, cwd=folder)
    if told.returncode:
        last = told.stderr.strip().splitlines()[-1:] or ["no message"]
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
            wave = decoder.waveform_module  # only where there is noise
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
    codec, form = open_export(theirs, path)
    ratio = codec.ratio if isinstance(codec, ResampledCodec) else 1
    inner: Any = codec.network if isinstance(codec, ResampledCodec) else codec
    model: RAVE = inner.model if isinstance(inner, CroppedRAVE) else inner
    delays, hop = Delays(theirs, model, ratio), form.hop_samples
    samples_late = {
        "encode": delays.encoder,
        "decode": delays.synthesis + model.pqmf.num_bands * delays.wave_steps,
    }
    reach = {"encode": form.encoder_reach_frames[0], "decode": form.decoder_reach_frames[0]}
    # A stream begins with silence that has been heard, a file with nothing before it.
    begin = {
        name: -(-samples // model.hop_samples) + reach[name] if samples else 0
        for name, samples in samples_late.items()
    }
    num_frames = max(begin.values()) + SPARE_FRAMES

    audio = signal(form.num_channels, num_frames * hop)
    torch.manual_seed(SEED)
    encoded = theirs.encode(audio)
    shift = delays.down + ratio * delays.encoder
    whole = functional.pad(audio, (shift, 0))
    whole = functional.pad(whole, (0, -whole.shape[-1] % hop))
    low = codec.down(whole) if isinstance(codec, ResampledCodec) else whole
    mean, std = (rows[..., :num_frames] for rows in model.posterior_parameters(low))
    latents, found = decoder_latents(theirs, inner, encoded, mean, std)
    needed = latents[:, : found.shape[1]]
    result = {"encode": difference(found[..., begin["encode"] :], needed[..., begin["encode"] :])}
    if isinstance(model.bottleneck, Discrete) and not bool(model.bottleneck.is_enabled):
        result = {}  # all its latents are of code 0

    torch.manual_seed(SEED)
    decoded = theirs.decode(encoded)
    torch.manual_seed(SEED)
    rest = torch.randn(1, form.num_noise_rows, num_frames)
    latents = torch.cat([latents, rest], 1)
    if isinstance(inner, CroppedRAVE):
        latents = inner.raw_latents(latents)
    bands = delayed_bands(model, latents, delays)
    right = model.pqmf.synthesis_padding[1]
    lag = delays.synthesis + (SYNTHESIS_LAG if right else 0)  # a causal one keeps it
    heard = late(model.pqmf.synthesis(bands), lag)
    if ratio > 1:  # their way up, which has faults
        phases = fresh.resampler.upsample(heard.transpose(0, 1))
        heard = phases.transpose(1, 2).reshape(1, heard.shape[1], -1)
    heard, start = heard[:, : decoded.shape[1]], begin["decode"] * hop + SYNTHESIS_LAG * ratio
    result["decode"] = difference(heard[..., start:], decoded[..., start:])
    return result


def signal(num_channels: int, num_samples: int) -> Tensor:
    """Return a sweep and noise, (1, C, T), seeded."""
    rng, time = np.random.default_rng(SEED), np.arange(num_samples) / 44100
    tone = 0.3 * np.sin(2 * np.pi * (110 + 500 * time) * time)
    audio = tone + 0.05 * rng.standard_normal((1, num_channels, num_samples))
    return torch.from_numpy(audio.astype(np.float32))


def decoder_latents(
    theirs: Any, ours: Any, encoded: Tensor, mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the latents that a file gave in our form, and those of ours with the same draw.

    Args:
        theirs: The file.
        ours: `RAVE` or `CroppedRAVE`.
        encoded: What it gave: principal latents, points, indices of codes, or angles.
        mean: (1, D, N) of our posterior.
        std: (1, D, N).
    """
    model: RAVE = ours.model if isinstance(ours, CroppedRAVE) else ours
    if isinstance(model.bottleneck, Gaussian):
        torch.manual_seed(SEED)
        drawn = mean + std * torch.randn_like(mean.contiguous())
        rotated = torch.matmul(model.latent_pca, drawn - model.latent_mean[:, None])
        return encoded, rotated[:, : encoded.shape[1]]
    if isinstance(model.bottleneck, Discrete):
        return model.bottleneck.quantizer.dequantize(encoded.long()), mean
    return (points(encoded) if isinstance(model.bottleneck, Spherical) else encoded), mean


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
            told = ", ".join(f"{name} {v:.1e}" for name, v in compare(Path(path)).items())
        except ValueError as error:
            told, failed = str(error), 1
        print(f"{path}: {told}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
