"""Conditions that generated music follows: curves of any length and a label, cut into windows.

C channels of a curve, N latent frames, R a curve's frames per latent frame.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from diffwave.conditioner import LABEL, SPECTROGRAM, LabelConditioner, SpectrogramConditioner
from diffwave.conditions.controls import CONTROLS, NUM_CHANNELS, open_control, write_control
from diffwave.conditions.spectrogram import (
    LogMel,
    count_frames,
    open_spectrogram,
    write_spectrogram,
)
from rave.compute.arrays import Float32Array

if TYPE_CHECKING:
    from diffwave.model import LatentDiffusion
    from rave.latents.folder import LatentHeader

# One scale for all conditions, a scale for each name, or texts [NAME=]SCALE.
Guidance: TypeAlias = float | Mapping[str, float] | Sequence[str]


@dataclass(frozen=True)
class Conditions:
    """Conditions that all items of a batch follow.

    Attributes:
        curves: (C, N·R) curves by name, may be memory-mapped; frame n·R starts with latent frame n.
        label: Index of the class label, or None.
    """

    curves: Mapping[str, Float32Array] = field(default_factory=dict)
    label: int | None = None

    @property
    def names(self) -> list[str]:
        """Return the names of the conditions."""
        return [*self.curves, *([] if self.label is None else [LABEL])]

    def num_frames(self, model: LatentDiffusion) -> int | None:
        """Return the number of latent frames of the shortest curve; None without curves.

        Raises:
            ValueError: If a curve is too short for one frame.
        """
        lengths = {name: self._length(model, name) for name in self.curves}
        for name, length in lengths.items():
            if length == 0:
                raise ValueError(
                    f"The {name} to follow has {self.curves[name].shape[1]} frames; at least "
                    f"{model.named_conditioners()[name].ratio} are needed (one latent frame)."
                )
        return min(lengths.values(), default=None)

    def _length(self, model: LatentDiffusion, name: str) -> int:
        return self.curves[name].shape[1] // model.named_conditioners()[name].ratio

    def window(self, model: LatentDiffusion, start: int, stop: int) -> dict[str, Tensor]:
        """Return the inputs of latent frames start to stop: (1, C, n·R) each, label (1,).

        Raises:
            ValueError: If a curve is shorter than that.
        """
        inputs: dict[str, Tensor] = {}
        for name, curve in self.curves.items():
            ratio = model.named_conditioners()[name].ratio
            if curve.shape[1] < stop * ratio:
                raise ValueError(
                    f"The {name} to follow has {curve.shape[1]} frames, but {stop} latent frames "
                    f"need {stop * ratio}. Give fewer --seconds."
                )
            part = np.array(curve[:, start * ratio : stop * ratio])
            inputs[name] = torch.from_numpy(part)[None]
        if self.label is not None:
            inputs[LABEL] = torch.tensor([self.label])
        return inputs


@contextlib.contextmanager
def open_conditions(
    model: LatentDiffusion,
    header: LatentHeader,
    from_audio: Path | None = None,
    spectrogram: Path | None = None,
    controls: Mapping[str, Path] | None = None,
    label: str | None = None,
    only: Sequence[str] = (),
) -> Iterator[Conditions]:
    """Yield conditions for a model, from files.

    Args:
        model: Model that follows them.
        header: Header of its training latents.
        from_audio: Audio file from which the model's curves are made.
        spectrogram: File of diffwave.preprocess; replaces the spectrogram of the audio.
        controls: File of each named control; replaces the control of the audio.
        label: Name of a class label.
        only: Names of the curves to make from the audio; empty for all.

    Raises:
        ValueError: If the model does not follow a given condition, or a file does not fit.
        AudioError: If the audio cannot be read.
    """
    files = {**({SPECTROGRAM: spectrogram} if spectrogram else {}), **(controls or {})}
    model.check_conditions([*files, *([LABEL] if label is not None else [])])
    if only and from_audio is None:
        raise ValueError(f"--follow {only[0]} needs --from-audio, the recording to follow.")
    model.check_conditions(only)
    names = [n for n in model.conditioners if n != LABEL and (not only or n in {*only, *files})]
    if from_audio is not None and not names:
        model.check_conditions([f"'{from_audio}'"])
    with contextlib.ExitStack() as stack:
        curves: dict[str, Float32Array] = {}
        folder = None
        for name in names if from_audio is not None else files:
            path = files.get(name)
            if path is None:
                assert from_audio is not None
                if folder is None:
                    temporary = tempfile.TemporaryDirectory(prefix="diffwave-")
                    folder = stack.enter_context(temporary)
                path = Path(folder, f"{name}.npy")
                _write_curve(path, from_audio, name, model, header)
            curves[name] = _open_curve(path, name, model)
        number = None
        if label is not None:
            labels = model.conditioners[LABEL]
            assert isinstance(labels, LabelConditioner)
            number = labels.index(label)
        yield Conditions(curves, number)
        curves.clear()  # closes the files before their folder is deleted


def _write_curve(
    path: Path, audio: Path, name: str, model: LatentDiffusion, header: LatentHeader
) -> None:
    rate_hz, hop = header.sample_rate_hz, header.hop_samples
    num_frames = count_frames(audio, rate_hz, hop)
    conditioner = model.conditioners[name]
    if isinstance(conditioner, SpectrogramConditioner):
        transform = LogMel(rate_hz, conditioner.mel_hop_samples, conditioner.num_mels)
        write_spectrogram(path, audio, transform, rate_hz, num_frames * conditioner.ratio)
    else:
        write_control(path, audio, name, rate_hz, hop, num_frames)


def _open_curve(path: Path, name: str, model: LatentDiffusion) -> Float32Array:
    conditioner = model.conditioners[name]
    if isinstance(conditioner, SpectrogramConditioner):
        return open_spectrogram(path, conditioner.num_mels, None)
    return open_control(path, name)


def parse_controls(texts: list[str]) -> dict[str, Path]:
    """Return the files of controls given as NAME=FILE.

    Raises:
        ValueError: If a text has another form, or there is no such control.
    """
    controls: dict[str, Path] = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or not path or name not in NUM_CHANNELS:
            raise ValueError(
                f"--control {text} is not NAME=F.npy with NAME one of {', '.join(CONTROLS)}."
            )
        controls[name] = Path(path)
    return controls


def guidance_texts(guidance: Guidance) -> list[str]:
    """Return guidance as the command line takes it: SCALE for all, or NAME=SCALE."""
    if isinstance(guidance, Mapping):
        return [f"{name}={scale}" for name, scale in guidance.items()]
    return [str(guidance)] if isinstance(guidance, float | int) else list(guidance)


def parse_guidance(guidance: Guidance, followed: list[str]) -> dict[str, float]:
    """Return the guidance scale of each condition.

    Args:
        guidance: One scale for all, a scale for each name, or texts: SCALE for all, or NAME=SCALE.
        followed: Names of the conditions.

    Raises:
        ValueError: If a scale is not a number, or a name is not a condition.
    """
    scales: dict[str, float] = {}
    for text in guidance_texts(guidance):
        name, sign, number = text.rpartition("=")
        try:
            scale = float(number)
        except ValueError:
            raise ValueError(
                f"--guidance {text} is neither a number nor NAME=NUMBER, such as 2 or chroma=3."
            ) from None
        if not followed:
            raise ValueError(
                "--guidance needs a condition: add --from-audio, --spectrogram, --control or "
                "--label."
            )
        if sign and name not in followed:
            raise ValueError(
                f"--guidance {text} needs the condition {name}; given: {', '.join(followed)}."
            )
        scales |= {name: scale} if sign else {key: scale for key in followed if key not in scales}
    return scales
