"""Statistics of a codec's training audio: its latents, level and spectrum.

    RUN/training_audio.json     measured at the end of `rave train`; exports contain it

They alone decide which dimensions are uninformative, not what is encoded later.
C audio channels, T samples, D latent size, B octaves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rave.audio.sound import Sound
from rave.files.atomic import built, read_header, write_json
from rave.latents.folder import MAX_GAIN_DB
from rave.latents.statistics import LatentStatistics

NAME, FORMAT, VERSION = "training_audio.json", "rave-training-audio", 1
# Larger deviations are reported, except in octaves this weak relative to the whole.
FAR_DB, FAR_OCTAVE_DB, WEAK_OCTAVE_DB = 3.0, 10.0, -30.0


def brought(level_dbfs: float, gain_db: float) -> str:
    """Return the note about audio that was brought to the training level."""
    return f"brought from {level_dbfs:.0f} to {level_dbfs + gain_db:.0f} dBFS, and back"


@dataclass(frozen=True)
class TrainingAudio:
    """Statistics of the audio that a codec was trained on.

    Attributes:
        fingerprint: Fingerprint of the codec that measured it.
        statistics: Statistics of its latents.
        levels_dbfs: Lowest and highest level of its files, without the outermost 5 %.
        octaves_db: Lowest and highest levels of their octaves, likewise, (2, B).
    """

    fingerprint: str
    statistics: LatentStatistics
    levels_dbfs: list[float]
    octaves_db: list[list[float]]

    def __post_init__(self) -> None:
        s = self.statistics
        lengths = {len(each) for each in (s.mean, s.std, s.posterior_std, s.kl)}
        ranges = (self.levels_dbfs, *zip(*self.octaves_db, strict=True))
        if len(lengths) != 1 or any(len(each) not in (0, 2) for each in ranges):
            raise ValueError("sizes contradict each other")
        if any(abs(value) > MAX_GAIN_DB / 2 for value in self.levels_dbfs):
            raise ValueError(f"levels of {self.levels_dbfs} dBFS")

    @property
    def is_noise(self) -> NDArray[np.bool_]:
        """Return (D,) whether each dimension is uninformative; all False if none is informative."""
        is_informative = self.statistics.is_informative
        return ~is_informative & is_informative.any()

    def off_db(self, sound: Sound) -> float:
        """Return by how many dB audio is louder (above 0) or softer than the training audio."""
        if sound.level_dbfs is None or not self.levels_dbfs:
            return 0.0
        low, high = self.levels_dbfs
        return round(sound.level_dbfs - min(max(sound.level_dbfs, low), high), 2)

    def remark(self, sound: Sound, gain_db: float, sample_rate_hz: int) -> str | None:
        """Return a note for the user about audio to encode, or None.

        Args:
            sound: Sound of the audio before the gain.
            gain_db: Gain that brought it to the training level.
            sample_rate_hz: Sample rate of the codec.
        """
        found = []
        off_db = self.off_db(sound)
        if gain_db and sound.level_dbfs is not None:
            found.append(brought(sound.level_dbfs, gain_db))
        elif abs(off_db) > FAR_DB and sound.level_dbfs is not None:
            found.append(
                f"{abs(off_db):.1f} dB {'louder' if off_db > 0 else 'softer'} than the codec's "
                f"training audio ({sound.level_dbfs:.1f} dBFS), so level and timbre suffer; add "
                "--match-level"
            )
        if sound.octaves_db and self.octaves_db:
            octaves = np.array(sound.octaves_db)
            above = np.where(octaves > WEAK_OCTAVE_DB, octaves - self.octaves_db[1], 0.0)
            octave = int(above.argmax())
            if above[octave] > FAR_OCTAVE_DB:
                top_hz = sample_rate_hz / 2 / 2**octave
                found.append(
                    f"{top_hz / 2:.0f} to {top_hz:.0f} Hz are {above[octave]:.1f} dB stronger than "
                    "in the codec's training audio, so they are reproduced less well"
                )
        return "; ".join(found) or None

    def write(self, run: Path) -> None:
        """Write training_audio.json into a run folder, whole or not at all."""
        write_json(run / NAME, {"format": FORMAT, "version": VERSION, **asdict(self)})

    @classmethod
    def read(cls, run: Path) -> TrainingAudio | None:
        """Return the training audio of a run folder, or None if it is not measured.

        Raises:
            ValueError: If its training_audio.json is damaged or of another version.
        """
        if not (run / NAME).exists():
            return None
        return read_header(
            run / NAME,
            "a run with measured training audio",
            lambda content: built(cls, content),
            "Delete the file; the same `rave train` writes it again.",
            format=FORMAT,
            version=VERSION,
        )
