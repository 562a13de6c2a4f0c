"""The format of a codec: rate, hop, sizes, fingerprint; stored beside the weights of an export."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rave.files.atomic import atomic_write, built
from rave.latents.identity import CodecIdentity
from rave.model import RAVE
from rave.training_audio import TrainingAudio

TORCHSCRIPT_HEADER = "codec.json"
TORCHSCRIPT_VERSION = 1


@dataclass(frozen=True)
class CodecFormat:
    """Rates and sizes of what a codec reads and writes.

    Attributes:
        fingerprint: Digest of the weights; latents of one codec do not fit another.
        sample_rate_hz: Sample rate of the audio.
        num_channels: C.
        hop_samples: Audio samples per latent frame.
        latent_size: D.
        encoder_reach_frames: Frames left and right of a frame that the encoder sees.
        decoder_reach_frames: Frames left and right of a frame that the decoder sees.
        noise_rows: Random rows of the decoder's noise input, C·M; 0 if it takes none.
        noise_steps_per_frame: Steps of that input per latent frame, hop / M.
        is_derivative: The model knows the derivative of audio; the codec differentiates and
            integrates.
        num_noise_rows: A, rows of N(0, 1) that the decoder takes below the latents.
        has_clock: That input is the number of each step.
        training_audio: What is known of the audio that it was trained on. None, as of acids-rave's:
            latents are decoded as they were encoded.
    """

    fingerprint: str
    sample_rate_hz: int
    num_channels: int
    hop_samples: int
    latent_size: int
    encoder_reach_frames: tuple[int, int]
    decoder_reach_frames: tuple[int, int]
    noise_rows: int
    noise_steps_per_frame: int
    is_derivative: bool = False
    num_noise_rows: int = 0  # what .ts files that do not state it have
    has_clock: bool = False
    training_audio: TrainingAudio | None = None

    def __post_init__(self) -> None:
        known = self.training_audio
        if known is not None and len(known.statistics.mean) != self.latent_size:
            raise ValueError(
                f"The training audio was measured in {len(known.statistics.mean)} dimensions; the "
                f"codec has {self.latent_size}. Run the same `rave train` again."
            )

    @property
    def identity(self) -> CodecIdentity:
        """Return which codec it is."""
        return CodecIdentity(
            self.fingerprint, self.sample_rate_hz, self.hop_samples, self.latent_size
        )

    @classmethod
    def of(cls, model: RAVE, fingerprint: str | None = None) -> CodecFormat:
        """Return the format of a model. Call before its weight norm is folded.

        Args:
            model: The model.
            fingerprint: Digest of the original weights, if the model was converted from acids-rave.
        """
        found = cls(
            fingerprint=fingerprint or _fingerprint(model),
            sample_rate_hz=model.sample_rate_hz,
            num_channels=model.num_channels,
            hop_samples=model.hop_samples,
            latent_size=model.latent_size,
            encoder_reach_frames=model.encoder_reach_frames(),
            decoder_reach_frames=model.decoder_reach_frames(),
            noise_rows=model.decoder_noise_rows,
            noise_steps_per_frame=model.noise_steps_per_frame,
            has_clock=model.has_clock,
            num_noise_rows=model.num_noise_rows,
        )
        return found.of_derivative() if model.is_derivative else found

    def of_derivative(self) -> CodecFormat:
        """Return the format of the same weights for audio's derivative, with its fingerprint."""
        if self.is_derivative:
            return self
        digest = sha256(f"derivative {self.fingerprint}".encode())
        fingerprint = digest.hexdigest()[:16]
        return replace(self, is_derivative=True, fingerprint=fingerprint, training_audio=None)

    @property
    def is_level_known(self) -> bool:
        """Return whether audio can be brought to the level of the training audio."""
        return self.training_audio is not None and bool(self.training_audio.levels_dbfs)

    @property
    def uninformative(self) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        """Return which dimensions noise stands for in decoding, its mean and its std, (D, 1) each.

        They are a property of the codec, the same for whatever is decoded.
        """
        known = self.training_audio
        if known is None:
            zeros = np.zeros((self.latent_size, 1), dtype=np.float32)
            return zeros > 0, zeros, zeros
        mean, std = (
            np.asarray(each, dtype=np.float32)[:, None]
            for each in (known.statistics.mean, known.statistics.noise_std)
        )
        return known.is_noise[:, None], mean, std

    def to_json(self) -> str:
        """Return the header of an exported codec."""
        return json.dumps({"version": TORCHSCRIPT_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str, path: Path) -> CodecFormat:
        """Return the format that an exported codec states.

        Raises:
            ValueError: If it states none, or one of another version.
        """
        try:
            content: dict[str, Any] = dict(json.loads(text))
            version = content.pop("version")
            if version == TORCHSCRIPT_VERSION:
                return built(cls, content)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"'{path}' is TorchScript, but not a codec that `rave export` wrote."
            ) from error
        raise ValueError(
            f"'{path}' has codec format {version}; this program reads {TORCHSCRIPT_VERSION}. "
            "Export the run again."
        )


def write_torchscript(module: nn.Module, codec_format: CodecFormat, path: Path) -> None:
    """Write a module as TorchScript that states a format, whole or not at all."""
    with warnings.catch_warnings():
        # 2026-11: torch.jit is deprecated in favour of torch.export, which nn~ cannot load.
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(module)
        with atomic_write(path) as temporary:
            extra = {TORCHSCRIPT_HEADER: codec_format.to_json()}
            # By way of memory: on a full disk torch's own writer would end the program.
            content = io.BytesIO()
            torch.jit.save(scripted, content, _extra_files=extra)
            temporary.write_bytes(content.getbuffer())


def _fingerprint(model: RAVE) -> str:
    digest = sha256()
    for part in (model.pqmf, model.encoder, model.bottleneck, model.decoder):
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
