"""DiffWave over RAVE latents: a diffusion model of music (Kong et al. 2020, arXiv:2009.09761).

    >>> diffwave.make_conditions("latents", "recordings", "controls", controls=["loudness"])
    >>> diffwave.generate("runs/piano", "generated", count=2, seconds=10, from_audio="solo.flac")

Each program `python -m diffwave.X` is one function here. Names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffwave.api.diagnose import diagnose_folder as diagnose_folder
    from diffwave.api.evaluate import evaluate_run as evaluate_run
    from diffwave.api.export import export_run as export_run
    from diffwave.api.inference import generate as generate
    from diffwave.api.preprocess import make_conditions as make_conditions
    from diffwave.api.train import train_diffusion as train_diffusion
    from diffwave.api.vocode import make_vocoder_spectrograms as make_vocoder_spectrograms
    from diffwave.api.vocode import vocode_audio as vocode_audio
    from diffwave.run import open_run as open_run

_MODULES = {
    "diagnose_folder": "api.diagnose",
    "evaluate_run": "api.evaluate",
    "export_run": "api.export",
    "generate": "api.inference",
    "make_conditions": "api.preprocess",
    "make_vocoder_spectrograms": "api.vocode",
    "open_run": "run",
    "train_diffusion": "api.train",
    "vocode_audio": "api.vocode",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'diffwave' has no attribute '{name}'")
    return getattr(import_module(f"diffwave.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
