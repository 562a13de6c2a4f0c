"""RAVE: audio ⇄ about 21 latent frames per second (Caillon & Esling 2021, arXiv:2111.05011).

    >>> codec = rave.load_codec("runs/piano")
    >>> mean, std = codec.encode(rave.read_audio("solo.flac", codec.format.sample_rate_hz))
    >>> rave.write_audio("solo.wav", codec.decode(mean), codec.format.sample_rate_hz)

Each command `rave X` is one function here. Names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rave.api.augment import augment_folder as augment_folder
    from rave.api.decode import decode_folder as decode_folder
    from rave.api.encode import encode_folder as encode_folder
    from rave.api.evaluate import evaluate_folder as evaluate_folder
    from rave.api.export import export_codec as export_codec
    from rave.api.generate import generate_audio as generate_audio
    from rave.api.interpolate import interpolate_audio as interpolate_audio
    from rave.api.preprocess import preprocess_folder as preprocess_folder
    from rave.api.result import Result as Result
    from rave.api.sample_prior import sample_prior as sample_prior
    from rave.api.shard import shard_latents as shard_latents
    from rave.api.train import train_codec as train_codec
    from rave.api.train_prior import train_prior as train_prior
    from rave.api.transcribe import transcribe_audio as transcribe_audio
    from rave.api.unshard import unshard_latents as unshard_latents
    from rave.audio.io import read_audio as read_audio
    from rave.audio.io import write_audio as write_audio
    from rave.codec import Codec as Codec
    from rave.codec import load_codec as load_codec
    from rave.latent_dataset import LatentDataset as LatentDataset

_MODULES = {
    "Codec": "codec",
    "LatentDataset": "latent_dataset",
    "Result": "api.result",
    "augment_folder": "api.augment",
    "decode_folder": "api.decode",
    "encode_folder": "api.encode",
    "evaluate_folder": "api.evaluate",
    "export_codec": "api.export",
    "generate_audio": "api.generate",
    "interpolate_audio": "api.interpolate",
    "load_codec": "codec",
    "preprocess_folder": "api.preprocess",
    "read_audio": "audio.io",
    "sample_prior": "api.sample_prior",
    "shard_latents": "api.shard",
    "train_codec": "api.train",
    "train_prior": "api.train_prior",
    "transcribe_audio": "api.transcribe",
    "unshard_latents": "api.unshard",
    "write_audio": "audio.io",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rave' has no attribute '{name}'")
    return getattr(import_module(f"rave.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
