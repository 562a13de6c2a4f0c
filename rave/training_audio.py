"""What a codec was trained on: what its latents carry there, how loud and how bright it is.

    RUN/training_audio.json     measured at the end of `rave train`; an export carries it

Which dimensions are uninformative follows from it, and from nothing that is encoded later.
C audio channels, T samples, D latent size, B octaves.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rave.audio.blocks import amplified
from rave.audio.io import AudioStream
from rave.files.atomic import built, read_header, write_json
from rave.latents.folder import MAX_GAIN_DB, LatentStatistics, StatisticsAccumulator
from rave.parsing import one_line

if TYPE_CHECKING:
    import torch

    from rave.audio.prepared import AudioStore
    from rave.codec import Codec
    from rave.codec_format import CodecFormat
    from rave.dataset import AudioRange
    from rave.held_out import Split

Audio = NDArray[np.float32]
NAME, FORMAT, VERSION = "training_audio.json", "rave-training-audio", 1
# Of the training audio, at most so many stretches of this length are measured, evenly spread.
STRETCH_S, MAX_STRETCHES = 10.0, 128
WINDOW_SAMPLES = 4096
SILENT_DBFS, SILENT_OCTAVE_DB = -70.0, -100.0
NUM_OCTAVES = 7
LEAST_SHARE, LARGEST_SHARE = 0.05, 0.95  # of the training files, between which the ranges lie
MAX_LINES = 8
# What is farther off is reported. An octave that weak beside the whole is not.
FAR_DB, FAR_OCTAVE_DB, WEAK_OCTAVE_DB = 3.0, 10.0, -30.0


@dataclass(frozen=True)
class Sound:
    """How loud audio is, and in which octaves.

    Attributes:
        level_dbfs: RMS of all windows that are not silent, dB of full scale; None if all are.
        octaves_db: (B,) level of each octave beside the whole, dB; the highest first, which ends
            at half of the sample rate.
    """

    level_dbfs: float | None
    octaves_db: list[float]


class SoundMeter:
    """Measures the sound of audio that passes through it."""

    def __init__(self) -> None:
        self._power, self._num_samples = 0.0, 0
        self._spectrum: NDArray[np.float64] = np.zeros(WINDOW_SAMPLES // 2 + 1)

    def __call__(self, blocks: Iterable[Audio]) -> Iterator[Audio]:
        """Yield the blocks (C, t) as they are."""
        held: Audio | None = None
        for block in blocks:
            held = block if held is None else np.concatenate([held, block], axis=1)
            whole = held.shape[1] // WINDOW_SAMPLES * WINDOW_SAMPLES
            self._count(held[:, :whole].reshape(len(held), -1, WINDOW_SAMPLES))
            held = held[:, whole:]
            yield block
        if held is not None and held.shape[1]:
            self._count(held[:, None])

    def _count(self, windows: Audio) -> None:
        """Count windows, (C, windows, n); n is WINDOW_SAMPLES, or less at the end."""
        power = np.square(windows, dtype=np.float64).mean(axis=(0, 2))
        is_heard = power > 10 ** (SILENT_DBFS / 10)
        if is_heard.any():
            heard = windows[:, is_heard]
            self._power += float(power[is_heard].sum()) * windows.shape[2]
            self._num_samples += int(is_heard.sum()) * windows.shape[2]
            spectra = np.square(np.abs(np.fft.rfft(heard, WINDOW_SAMPLES)))
            self._spectrum += spectra.mean(axis=0).sum(axis=0)

    @property
    def sound(self) -> Sound:
        """Return what was heard so far, to a hundredth of a dB."""
        if not self._num_samples:
            return Sound(None, [])
        bounds = WINDOW_SAMPLES // 2 >> np.arange(NUM_OCTAVES + 1)
        # Bin 0 is no sound.
        power = [float(self._spectrum[low + 1 : top + 1].sum()) for top, low in pairwise(bounds)]
        share = np.array(power) / max(float(self._spectrum[1:].sum()), 1e-30)
        octaves = np.maximum(10 * np.log10(np.maximum(share, 1e-30)), SILENT_OCTAVE_DB)
        level = 10 * np.log10(self._power / self._num_samples)
        return Sound(round(float(level), 2), [round(float(each), 2) for each in octaves])


def sound_of(blocks: Iterable[Audio]) -> Sound:
    """Return how loud audio in blocks (C, t) is, and in which octaves."""
    meter = SoundMeter()
    for _ in meter(blocks):
        pass
    return meter.sound


def brought(level_dbfs: float, gain_db: float) -> str:
    """Return what is said of audio that was brought to the training level with a gain."""
    return f"brought from {level_dbfs:.0f} to {level_dbfs + gain_db:.0f} dBFS, and back"


@dataclass(frozen=True)
class TrainingAudio:
    """What is known of the audio that a codec was trained on.

    Attributes:
        fingerprint: Of the codec that it was measured with.
        statistics: Of its latents.
        levels_dbfs: Lowest and highest level of its files, without the outermost twentieths.
        octaves_db: Lowest and highest levels of their octaves, (2, B).
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
        """Return (D,) which dimensions are uninformative; none where no other is left."""
        is_informative = self.statistics.is_informative
        return ~is_informative & is_informative.any()

    def off_db(self, sound: Sound) -> float:
        """Return by how many dB audio is louder (above 0) or softer than the training audio."""
        if sound.level_dbfs is None or not self.levels_dbfs:
            return 0.0
        low, high = self.levels_dbfs
        return round(sound.level_dbfs - min(max(sound.level_dbfs, low), high), 2)

    def remark(self, sound: Sound, gain_db: float, sample_rate_hz: int) -> str | None:
        """Return what a user should know of audio that is encoded, None if nothing.

        Args:
            sound: Of the audio as it was given.
            gain_db: That it was brought to the training level with.
            sample_rate_hz: Of the codec.
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
        """Return what a run folder knows of its training audio, None if nothing.

        Raises:
            ValueError: If its training_audio.json is damaged or of another version.
        """
        if not (run / NAME).exists():
            return None
        return read_header(
            run / NAME,
            "a run that knows its training audio",
            lambda content: built(cls, content),
            "Delete the file; the same `rave train` writes it again.",
            format=FORMAT,
            version=VERSION,
        )


class HeardAudio:
    """An audio file for a codec, block by block, at its own level or at the training audio's.

    Args:
        path: Of the file.
        form: Of the codec.
        is_level_matched: Bring it to the level of the codec's training audio, which is known.

    Attributes:
        gain_db: That it is brought there with; 0 within the training audio's range. Known when
            reading begins.
    """

    def __init__(self, path: Path, form: CodecFormat, *, is_level_matched: bool) -> None:
        self._stream = AudioStream(path, form.sample_rate_hz, form.num_channels)
        self._matched = form.training_audio if is_level_matched else None
        self._meter = SoundMeter()
        self.gain_db = 0.0

    def __iter__(self) -> Iterator[Audio]:
        """Yield blocks (C, t)."""
        if self._matched is not None:  # the file is read twice
            self.gain_db = 0.0 - self._matched.off_db(sound_of(self._stream))
        yield from amplified(self._meter(self._stream), self.gain_db)

    @property
    def record(self) -> dict[str, Any]:
        """Return the file's rate, length and notes, its sound as given, and the gain, for JSON.

        Known when it was read to its end.
        """
        return {
            "source_sample_rate_hz": self._stream.source.sample_rate_hz,
            "source_num_samples": self._stream.source.num_samples,
            "notes": self._stream.notes,
            "sound": asdict(self._meter.sound),
            "gain_db": self.gain_db,
        }


def levels_to_match(codec: Codec) -> list[float]:
    """Return the lowest and the highest level of a codec's training audio, dBFS.

    Raises:
        ValueError: If they are not known.
    """
    known = codec.format.training_audio
    if known is None or not codec.format.is_level_known:
        raise ValueError(
            f"The codec '{codec.path}' carries no level of its training audio to match. Leave "
            "--match-level out; for a run of `rave train`, the same command again measures it."
        )
    return known.levels_dbfs


def levels_of(
    form: CodecFormat, records: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the levels of files that were encoded, where the codec knows its training audio's.

    Args:
        form: Of the codec.
        records: Of each file, from `HeardAudio`.

    Returns:
        Of each file: `level_dbfs`; `off_db` from the training audio; `gain_db` that it was brought
        there with; `remark`, what a user should know, or None.
    """
    known, found = form.training_audio, dict[str, dict[str, Any]]()
    for name, record in records.items():
        if known is None or "sound" not in record:  # encoded before 2026-12
            continue
        sound, gain_db = Sound(**record["sound"]), record["gain_db"]
        found[name] = {
            "level_dbfs": sound.level_dbfs,
            "off_db": known.off_db(sound),
            "gain_db": gain_db,
            "remark": known.remark(sound, gain_db, form.sample_rate_hz),
        }
    return found


def level_lines(levels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each file whose level or spectrum is remarkable; of many, for some."""
    told = [
        f"  {one_line(name)}: {each['remark']}" for name, each in levels.items() if each["remark"]
    ]
    if len(told) <= MAX_LINES:
        return told
    return [*told[:MAX_LINES], f"  {len(told) - MAX_LINES} more are off; --json lists them."]


def measure(codec: Codec, store: AudioStore, ranges: Sequence[AudioRange]) -> TrainingAudio:
    """Return what is to be known of the audio that a codec was trained on.

    Args:
        codec: As it was trained.
        store: The audio.
        ranges: What of it was trained on.
    """
    length = round(STRETCH_S * store.sample_rate_hz)
    stretches = [
        (piece, start) for piece in ranges for start in range(0, piece.num_samples, length)
    ]
    kept = np.linspace(0, len(stretches) - 1, min(MAX_STRETCHES, len(stretches))).round()
    sums = StatisticsAccumulator(codec.format.latent_size)
    meters: dict[str, SoundMeter] = defaultdict(SoundMeter)
    for piece, start in (stretches[int(index)] for index in kept):
        count = min(length, piece.num_samples - start)
        audio = store.read(piece.file, piece.start + start, count)
        for block in meters[piece.file.name]([audio]):
            sums.add(*codec.encode(block))
    sounds = [meter.sound for meter in meters.values()]
    heard = [[s.level_dbfs, *s.octaves_db] for s in sounds if s.level_dbfs is not None]
    rows: list[list[float]] = []  # lowest and highest: level, then octaves
    if heard:
        rows = np.quantile(heard, (LEAST_SHARE, LARGEST_SHARE), axis=0).round(2).tolist()
    return TrainingAudio(
        codec.format.fingerprint,
        sums.statistics(),
        levels_dbfs=[row[0] for row in rows],
        octaves_db=[row[1:] for row in rows],
    )


def remember(run: Path, store: AudioStore, held_out: float | Split, device: torch.device) -> None:
    """Write what is to be known of the audio that a run was trained on, where it is not known yet.

    Args:
        run: Of `rave train`, or a released model.
        store: The audio.
        held_out: Fraction or split of the audio that is not trained on.
        device: To compute on.
    """
    from rave.codec import load_codec
    from rave.dataset import split_audio

    codec = load_codec(run, device)
    if codec.format.training_audio is None:
        print("Measuring the training audio …", file=sys.stderr)
        measure(codec, store, split_audio(store, held_out)[0]).write(run)
