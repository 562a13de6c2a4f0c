"""Recordings in which each sample and each frame shows where it is from.

A training, or whatever reads them, is asked what it got, not from where it should come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
from audio_files import write
from diffwave_data import HOP, RATE_HZ, autoregression, write_latent_folder
from numpy.typing import NDArray

from diffwave.conditions.controls import NUM_CHANNELS, ControlHeader
from diffwave.conditions.spectrogram import SpectrogramHeader
from rave.held_out import note_of
from rave.latents.folder import write_latents

TRAINING, HELD_OUT, VERSION = "trained on", "held out", "a version of what is held out"
# Two folders, which are class labels of latents too; each recording has a version.
FIRST = ("x/a", "y/b", "x/c", "y/d")
MORE = ("x/e", "y/f", "x/h", "y/h")
FRACTION = 0.5
# What must not be read is long: a draw from everything would hit it.
NUM_FRAMES, TIMES_LONGER = 40, 4
PLACES_A_FILE = 1000
RATIO, NUM_MELS = 4, 8
STEP = 200  # of 16 bits, between the levels of two stretches of audio


def digests(recordings: Iterable[str]) -> dict[str, bytes]:
    """Return the digest that decides on each recording, by docs/latent-format.md."""
    return {name: sha256(name.encode()).digest() for name in recordings}


def held_out_below(first: Iterable[str]) -> bytes:
    """Return the digest below which a run that began with these recordings holds out."""
    found = sorted(digests(first).values())
    return found[round(FRACTION * len(found))]


def side_of_each(recordings: Mapping[str, str], below: bytes | None) -> dict[str, str]:
    """Return the side of each file, given its recording by its name.

    Args:
        recordings: Of each name; a version has the name of another file's recording.
        below: Of `held_out_below`; None for a recording whose end is held out.
    """
    of_digests = digests(recordings.values())
    sides = {}
    for name, recording in recordings.items():
        is_kept_back = below is not None and of_digests[recording] < below
        is_version = "~" in PurePosixPath(name).name
        sides[name] = (VERSION if is_version else HELD_OUT) if is_kept_back else TRAINING
    return sides


# Latents


def ramp(places: NDArray[np.float32], num_channels: int, ratio: int = 1) -> NDArray[np.float32]:
    """Return a condition (C, N·R) that shows the place of each frame (N,)."""
    fine = (places[:, None] + np.arange(ratio) / ratio).reshape(-1)
    channels = np.arange(num_channels)[:, None] / 16
    return (fine + channels).astype(np.float32)


class PlantedLatents:
    """Latents whose first row is the place: the file's number times 1000, and the frame.

    Args:
        folder: To write into: latents, controls, spectrograms.
        recordings: Names without suffix.
        first: Those that the run began with; None: it is their only one, whose end is held out.
        scale: Of what is held out but for its places.
    """

    def __init__(
        self,
        folder: Path,
        recordings: tuple[str, ...] = FIRST,
        first: tuple[str, ...] | None = FIRST,
        scale: float = 1.0,
    ) -> None:
        self.folder = folder
        of_names = {
            f"{name}{kind}.npy": name for name in sorted(FIRST + MORE) for kind in ("", "~1")
        }
        self.numbers = {name: number for number, name in enumerate(of_names, 1)}
        known = {name: of for name, of in of_names.items() if of in recordings}
        self.sides = side_of_each(known, first and held_out_below(first))
        self.cut = None if first else TIMES_LONGER * NUM_FRAMES // 2
        arrays = {name: self._array(name, scale) for name in known}
        self.header = write_latent_folder(folder / "latents", arrays)
        self.files = dict[str, int]()
        for name, array in arrays.items():
            self.add_conditions(name, array[0])

    def add_conditions(self, name: str, places: NDArray[np.float32]) -> None:
        """Write the conditions of a file, and their headers."""
        self.files[name] = len(places)
        for control, count in NUM_CHANNELS.items():
            write_latents(self.folder / "controls" / control / name, [ramp(places, count)], count)
        mels = ramp(places, NUM_MELS, RATIO)
        write_latents(self.folder / "spectrograms" / name, [mels], NUM_MELS)
        made_for = self.header.codec, RATE_HZ, HOP
        controls = ControlHeader(*made_for, dict(NUM_CHANNELS), self.files)
        controls.write(self.folder / "controls")
        spectrograms = SpectrogramHeader(*made_for, HOP // RATIO, NUM_MELS, self.files)
        spectrograms.write(self.folder / "spectrograms")

    def _array(self, name: str, scale: float) -> NDArray[np.float32]:
        number, is_trained = self.numbers[name], self.sides[name] == TRAINING
        is_long = self.cut is not None or not is_trained
        count = NUM_FRAMES * (TIMES_LONGER if is_long else 1)
        array = autoregression(4, count, 0.9, number)
        if is_long:
            array[1:, self.cut or 0 :] *= scale
        array[0] = PLACES_A_FILE * number + np.arange(count)
        return array

    @property
    def latents(self) -> Path:
        """Return the folder of latents."""
        return self.folder / "latents"

    def sides_in(self, raw: NDArray[np.float32], mask: NDArray[np.bool_] | None = None) -> set[str]:
        """Return the sides of what is in raw latents (B, D, N), where a mask (B, N) is True."""
        places = raw[:, 0] if mask is None else raw[:, 0][mask]
        return {self._side(int(place)) for place in np.unique(places)}

    def _side(self, place: int) -> str:
        name = self.name_of(place)
        if self.cut is None or place % PLACES_A_FILE < self.cut:
            return self.sides[name]
        return VERSION if "~" in name else HELD_OUT

    def name_of(self, place: float) -> str:
        """Return the file that a frame is of."""
        number = int(place) // PLACES_A_FILE
        return next(name for name, each in self.numbers.items() if each == number)


# Audio


class PlantedAudio:
    """Audio files in which every sample has the magnitude of its file, and of its half.

    Args:
        folder: To write into.
        recordings: Names without suffix.
        first: As of `PlantedLatents`.
        loud: Levels of what is held out are raised by so many steps.
        prefix: Of the names that the split goes by.
    """

    def __init__(
        self,
        folder: Path,
        recordings: tuple[str, ...] = FIRST,
        first: tuple[str, ...] | None = FIRST,
        loud: int = 0,
        prefix: str = "",
    ) -> None:
        self.folder = folder
        known = {f"{name}.wav": prefix + name for name in recordings}
        known |= {f"{name}~1.flac": prefix + name for name in recordings}
        below = first and held_out_below(prefix + name for name in first)
        self.sides = side_of_each(known, below)
        self.is_one, self.levels = first is None, dict[int, str]()
        self.names = sorted(known)
        for number, name in enumerate(self.names, 1):
            self._write(name, number, loud)

    def _write(self, name: str, number: int, loud: int) -> None:
        side = self.sides[name]
        end = (VERSION if "~" in name else HELD_OUT) if self.is_one else side
        pieces = []
        for part, of_part in enumerate((side, end)):
            level = STEP * (2 * number + part + (loud if of_part != TRAINING else 0))
            self.levels[level] = of_part
            count = 3000 if of_part == TRAINING else 3000 * TIMES_LONGER
            count = 6000 if self.is_one else count
            signs = np.random.default_rng(2 * number + part).choice([-1.0, 1.0], count)
            pieces.append(level * signs / 2**15)
        audio = np.concatenate(pieces)[None].astype(np.float32)
        path = self.folder / name
        if not name.endswith(".flac"):
            write(path, audio, 22050)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(path, "w", 22050, 1, "PCM_16", format="FLAC") as file:
            file.comment = note_of(name.rpartition("/")[2].replace("~1.flac", ".wav"))
            file.write(audio[0])

    def sides_in(self, audio: NDArray[np.float32]) -> set[str]:
        """Return the sides of what is in audio, but for the zeros behind an end."""
        found = np.unique(np.abs(np.round(audio * 2**15)).astype(int)).tolist()
        return {self.levels[level] for level in found if level}
