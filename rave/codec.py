"""The codec: a trained autoencoder for inference, audio ⇄ latents of any length.

B batch, C audio channels, T samples, D latent size, N latent frames, M bands.

A long file is processed in windows. Each window is extended by the network's receptive field, and
the extension is cut off the output, so that the windows join to the result of a single pass:

    audio    |———————————————————————————————|
    window 2          [seen|  kept  |seen]
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from rave import experiment
from rave.audio.derivative import differentiated, integrated
from rave.blocks.convolution import fold_weight_norm
from rave.codec_format import TORCHSCRIPT_HEADER, CodecFormat
from rave.compute.arrays import Float32Array
from rave.compute.backend import accelerated, choose_backend
from rave.compute.device import choose_device
from rave.jobs.windows import WHOLE, WINDOW_FRAMES, Part, audio_windows
from rave.latents.folder import LatentHeader
from rave.model import RAVE
from rave.noise import DecoderNoise
from rave.runs.checkpoint import codec_checkpoint, load_weights, read_checkpoint
from rave.training_audio import TrainingAudio
from rave.upstream import run as upstream
from rave.upstream import torchscript as upstream_script


class Codec:
    """A trained autoencoder, ready to encode and decode.

    Args:
        network: Module with `posterior_parameters(audio)` and `decode(latents, noise)`, as `RAVE`.
        format: Rates, sizes and fingerprint of the codec.
        path: Where it was loaded from; only for messages.
        device: Device to compute on.
    """

    def __init__(
        self, network: nn.Module, format: CodecFormat, path: Path, device: torch.device
    ) -> None:
        self.network: Any = network.to(device).eval()
        self.format, self.path, self.device = format, path, device

    def principal_axes(self) -> tuple[Float32Array, Float32Array]:
        """Return the mean (D,) and the principal axes (D, D) of the latents, one axis per row.

        Raises:
            ValueError: If the codec does not hold them.
        """
        network = getattr(self.network, "model", self.network)
        found = [getattr(network, name, None) for name in ("latent_mean", "latent_pca")]
        mean, axes = (None if one is None else one.detach().cpu().numpy() for one in found)
        if mean is None or axes is None or len(axes) != self.format.latent_size:
            raise ValueError(
                f"The codec '{self.path}' does not contain the principal axes of its latents. "
                "Give a run folder."
            )
        return mean, axes

    def accelerate(self, backend: str, precision: str) -> None:
        """Choose how encoder and decoder are computed; the filter bank does not change.

        Args:
            backend: auto, torch or openvino; a .ts file of this project always runs in torch.
            precision: float32 or bfloat16.

        Raises:
            ValueError: If backend or precision are not available, or a .ts file cannot have the
                precision.
        """
        num_weights = sum(each.numel() for each in self.network.parameters())
        backend = choose_backend(backend, self.device, num_weights)
        model = getattr(self.network, "model", self.network)  # inside a cropped one
        if isinstance(model, RAVE):
            model.encoder = accelerated(model.encoder, backend, precision)
            model.decoder = accelerated(model.decoder, backend, precision)
        elif precision != "float32":
            raise ValueError(
                f"'{self.path}' always computes in float32. For --precision {precision}, give the "
                "run that it was exported from."
            )

    def check_latents(self, header: LatentHeader, folder: Path) -> None:
        """Check that a latent folder was encoded by this codec.

        Raises:
            ValueError: If it was not; the message names both sides.
        """
        header.identity.check_same(self.format.identity, f"'{folder}'", f"the codec '{self.path}'")

    def encode(self, audio: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Return mean and std of the posterior of audio (C, T), each (D, ceil(T / hop_samples))."""
        pieces = list(self.encode_blocks([audio]))
        mean, std = (np.concatenate([piece[i] for piece in pieces], axis=1) for i in (0, 1))
        return mean, std

    def encode_blocks(
        self, blocks: Iterable[Float32Array], window_frames: int = WINDOW_FRAMES, part: Part = WHOLE
    ) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Yield mean and std of the posterior, each (D, n), of audio in blocks (C, t).

        The blocks together are one file of any length; memory use is that of one window. Only the
        windows of `part` are computed; they equal those of the whole file, bit for bit.
        """
        left, right = self.format.encoder_reach_frames
        hop = self.format.hop_samples
        if self.format.is_derivative:
            blocks = differentiated(blocks)
        for audio, start, count in audio_windows(blocks, hop, window_frames, left, right, part):
            mean, std = self._posterior(audio)
            yield mean[:, start : start + count], std[:, start : start + count]

    @torch.inference_mode()
    def _posterior(self, audio: Float32Array) -> tuple[Float32Array, Float32Array]:
        batch = torch.from_numpy(audio).to(self.device)[None]
        mean, std = self.network.posterior_parameters(batch)
        return mean[0].cpu().numpy(), std[0].cpu().numpy()

    def decode(
        self, latents: Float32Array | torch.Tensor, noise: DecoderNoise | None = None
    ) -> Float32Array:
        """Return the audio (C, N·hop_samples) of raw latents (D, N).

        Args:
            latents: (D, N).
            noise: Noise for the uninformative dimensions; None: that of seed 0.
        """
        noise = DecoderNoise(self.format, 0) if noise is None else noise
        return np.concatenate(list(self.decode_blocks(np.asarray(latents), noise)), axis=1)

    def decode_blocks(
        self, latents: Float32Array, noise: DecoderNoise, window_frames: int = WINDOW_FRAMES
    ) -> Iterator[Float32Array]:
        """Yield the audio of raw latents in blocks (C, t).

        Args:
            latents: (D, N), may be memory-mapped.
            noise: Noise for the uninformative dimensions.
            window_frames: Frames decoded at a time.
        """
        return self.audio_of(self.network_blocks(latents, noise, window_frames))

    def audio_of(self, blocks: Iterator[Float32Array]) -> Iterator[Float32Array]:
        """Yield audio from the output of `network_blocks`, all parts in order."""
        is_derivative = self.format.is_derivative
        return integrated(blocks, self.format.sample_rate_hz) if is_derivative else blocks

    def network_blocks(
        self,
        latents: Float32Array,
        noise: DecoderNoise,
        window_frames: int = WINDOW_FRAMES,
        part: Part = WHOLE,
    ) -> Iterator[Float32Array]:
        """Yield the network's output for raw latents (D, N), one block (C, t) per window.

        Only the windows of `part` are computed; they equal those of the whole, bit for bit.
        """
        left, right = self.format.decoder_reach_frames
        hop, num_frames = self.format.hop_samples, latents.shape[1]
        windows = range(0, num_frames, window_frames)[part.first : part.stop]
        for first in windows:
            last = min(first + window_frames, num_frames)
            start, stop = max(first - left, 0), min(last + right, num_frames)
            audio = self._audio(np.array(latents[:, start:stop]), noise, start)
            yield audio[:, (first - start) * hop : (last - start) * hop]

    @torch.inference_mode()
    def _audio(self, latents: Float32Array, noise: DecoderNoise, start: int) -> Float32Array:
        rows = torch.from_numpy(noise.decoder_input(latents, start)).to(self.device)[None]
        band_noise = noise.bands(start, latents.shape[1])
        if band_noise is not None:
            band_noise = band_noise.to(self.device)
        audio = self.network.decode(rows, band_noise)
        return audio[0].cpu().numpy()


def load_codec(
    path: str | Path,
    device: str | torch.device = "auto",
    *,
    ema: bool = False,
    derivative: bool = False,
    backend: str = "torch",
    precision: str = "float32",
) -> Codec:
    """Open a codec: a run, or a .ts file, of `rave train` and `rave export` or of acids-rave.

    A .ts file runs code: open only files you trust.

    Args:
        path: The run or the file.
        device: auto, cpu, cuda, cuda:N or mps.
        ema: Take the averaged weights of a run of acids-rave.
        derivative: The codec was trained on the derivative of audio, which a run of acids-rave does
            not state.
        backend: torch, openvino, or auto.
        precision: float32 or bfloat16, of encoder and decoder.

    Raises:
        ValueError: If it is neither, is damaged, has no averaged weights, or cannot use the backend
            or precision.

    Example:
        >>> codec = load_codec("runs/piano")
        >>> mean, std = codec.encode(audio)   # (C, T) → (D, N) each
        >>> audio = codec.decode(mean)
    """
    path = Path(path)
    device = choose_device(device) if isinstance(device, str) else device
    if path.suffix == ".ts":
        if ema:
            raise ValueError(f"The weights of '{path}' are fixed. Give --ema when you export it.")
        codec = _load_torchscript(path, device)
        codec.format = codec.format.of_derivative() if derivative else codec.format
    else:
        model, format = load_run(path, ema=ema, derivative=derivative)
        fold_weight_norm(model)
        codec = Codec(model, format, path, device)
    codec.accelerate(backend, precision)
    return codec


class OpenedRun(NamedTuple):
    """A run, read once: a training may replace its checkpoint meanwhile.

    Attributes:
        model: Model with the weights of the checkpoint.
        format: Format of the codec.
        checkpoint: Content of the checkpoint; for acids-rave, its weights as `state_dict`.
    """

    model: RAVE
    format: CodecFormat
    checkpoint: dict[str, Any]


def load_run(
    path: Path, *, ema: bool = False, derivative: bool = False
) -> tuple[RAVE, CodecFormat]:
    """Return model and format of a run, as `open_run` does."""
    return open_run(path, ema=ema, derivative=derivative)[:2]


def open_run(path: Path, *, ema: bool = False, derivative: bool = False) -> OpenedRun:
    """Return a run of `rave train` or of acids-rave.

    Args:
        path: Run folder; for acids-rave also a version folder or a checkpoint.
        ema: Take the averaged weights of a run of acids-rave.
        derivative: The codec was trained on the derivative of audio.

    Raises:
        ValueError: If it is neither, is damaged, or has no averaged weights.
    """
    if path.suffix == ".ts":
        raise ValueError(
            f"'{path}' is an exported file; a run is needed here. Give the run folder that it was "
            "exported from."
        )
    fingerprint = None
    if upstream.is_run(path):
        model, fingerprint, weights = upstream.open_run(path, ema)
        checkpoint: dict[str, Any] = {"state_dict": weights}
    elif not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ValueError(
            f"The codec '{path}' {what}. Give a run folder of `rave train` or of acids-rave, "
            "or a .ts file."
        )
    elif ema:
        raise ValueError(f"'{path}' is a run of `rave train`, which keeps no averaged weights.")
    else:
        model = experiment.rebuild_model(path, "rave", RAVE)
        checkpoint = read_checkpoint(codec_checkpoint(path))
        load_weights(model, checkpoint, path)
    format = CodecFormat.of(model.eval(), fingerprint)
    format = format.of_derivative() if derivative else format
    audio = TrainingAudio.read(path) if fingerprint is None else None
    # If the weights differ, training has continued since, and will measure again at its end.
    if audio is not None and audio.fingerprint == format.fingerprint:
        format = replace(format, training_audio=audio)
    return OpenedRun(model, format, checkpoint)


def load_streamable(path: Path, *, ema: bool = False) -> tuple[RAVE, CodecFormat, int | None]:
    """Return a model that can stream, and its codec format.

    Args:
        path: A run, as for `load_run`, or a .ts file of acids-rave.
        ema: Take the averaged weights of a run of acids-rave.

    Returns:
        Model and format; and how many principal latents the codec has, None if its latents are the
        model's own.

    Raises:
        ValueError: If it is neither, or has no averaged weights.
    """
    if path.suffix != ".ts":
        return (*load_run(path, ema=ema), None)
    codec = load_codec(path, torch.device("cpu"), ema=ema)
    if isinstance(codec.network, upstream_script.CroppedRAVE):
        return codec.network.model, codec.format, codec.network.num_latents
    if isinstance(codec.network, RAVE):
        return codec.network, codec.format, None
    raise ValueError(f"'{path}' cannot be exported again. Give the run that it was exported from.")


def _load_torchscript(path: Path, device: torch.device) -> Codec:
    if not path.is_file():
        raise ValueError(f"The codec '{path}' does not exist.")
    extra = {TORCHSCRIPT_HEADER: ""}
    with warnings.catch_warnings():
        # 2026-11: torch.jit is deprecated in favour of torch.export, which nn~ cannot load.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            network = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        except RuntimeError as error:
            raise ValueError(
                f"Cannot read the codec '{path}' ({str(error).splitlines()[0]}). Export it again."
            ) from error
    if not extra[TORCHSCRIPT_HEADER] and upstream_script.is_export(network):
        return Codec(*upstream_script.open_export(network.cpu(), path), path, device)
    codec_format = CodecFormat.from_json(extra[TORCHSCRIPT_HEADER], path)
    if hasattr(network, "decode_offline"):
        network = _OfflinePart(network)
    return Codec(network, codec_format, path, device)


class _OfflinePart(nn.Module):
    """The offline model inside a module for nn~, whose own methods are streaming."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def posterior_parameters(self, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and std of the posterior, as `RAVE` does."""
        return self.network.posterior_parameters(audio)

    def decode(self, latents: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Return the audio of latents, as `RAVE` does."""
        return self.network.decode_offline(latents, noise)
