"""Level and spectrum of audio, compared with a codec's training audio.

C audio channels, T samples.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rave.audio.blocks import amplified
from rave.audio.io import AudioStream
from rave.audio.sound import Sound, SoundMeter, sound_of
from rave.compute.arrays import Float32Array
from rave.latents.statistics import StatisticsAccumulator
from rave.parsing import one_line
from rave.training_audio import TrainingAudio

if TYPE_CHECKING:
    import torch

    from rave.audio.prepared import AudioStore
    from rave.codec import Codec
    from rave.codec_format import CodecFormat
    from rave.dataset import AudioRange
    from rave.held_out import Split

# At most so many stretches of training audio of this length are measured, evenly spread.
STRETCH_S, MAX_STRETCHES = 10.0, 128
LEAST_SHARE, LARGEST_SHARE = 0.05, 0.95  # quantiles of the training files that bound the ranges
MAX_LINES = 8


class LevelledAudio:
    """An audio file for a codec, block by block, at its own or at the training audio's level.

    Args:
        path: Path of the file.
        form: Format of the codec.
        is_level_matched: Bring it to the level of the codec's training audio.

    Attributes:
        gain_db: Gain that brings it there; 0 within the training audio's range. Set when reading
            begins.
    """

    def __init__(self, path: Path, form: CodecFormat, *, is_level_matched: bool) -> None:
        self._stream = AudioStream(path, form.sample_rate_hz, form.num_channels)
        self._matched = form.training_audio if is_level_matched else None
        self._meter = SoundMeter()
        self.gain_db = 0.0

    def __iter__(self) -> Iterator[Float32Array]:
        """Yield blocks (C, t)."""
        if self._matched is not None:  # the file is read twice
            self.gain_db = 0.0 - self._matched.off_db(sound_of(self._stream))
        yield from amplified(self._meter(self._stream), self.gain_db)

    @property
    def record(self) -> dict[str, Any]:
        """Return rate, length, notes, sound (before the gain) and gain of the file, for JSON.

        Read the file to its end first.
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
        ValueError: If the codec does not state them.
    """
    training_audio = codec.format.training_audio
    if training_audio is None or not codec.format.is_level_known:
        raise ValueError(
            f"The codec '{codec.path}' does not state the level of its training audio. Leave "
            "--match-level out; for a run of `rave train`, the same command again measures it."
        )
    return training_audio.levels_dbfs


def levels_of(
    form: CodecFormat, records: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the levels of encoded files, if the codec states that of its training audio.

    Args:
        form: Format of the codec.
        records: Record of each file, from `LevelledAudio`.

    Returns:
        Per file: `level_dbfs`; `off_db`, its distance from the training audio's range; `gain_db`,
        the gain before encoding; `remark`, a note for the user, or None.
    """
    training_audio, found = form.training_audio, dict[str, dict[str, Any]]()
    if training_audio is None:
        return found
    for name, record in records.items():
        sound, gain_db = Sound(**record["sound"]), record["gain_db"]
        found[name] = {
            "level_dbfs": sound.level_dbfs,
            "off_db": training_audio.off_db(sound),
            "gain_db": gain_db,
            "remark": training_audio.remark(sound, gain_db, form.sample_rate_hz),
        }
    return found


def level_lines(levels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line per file with a remark on its level or spectrum, at most `MAX_LINES`."""
    lines = [
        f"  {one_line(name)}: {each['remark']}" for name, each in levels.items() if each["remark"]
    ]
    if len(lines) <= MAX_LINES:
        return lines
    return [*lines[:MAX_LINES], f"  {len(lines) - MAX_LINES} more files; --json lists them."]


def measure(codec: Codec, store: AudioStore, ranges: Sequence[AudioRange]) -> TrainingAudio:
    """Measure the audio that a codec was trained on.

    Args:
        codec: Trained codec.
        store: The audio.
        ranges: Ranges that were trained on.
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
    """Measure and store the training audio of a run, if that is not done yet.

    Args:
        run: Run of `rave train`, or a released model.
        store: The audio.
        held_out: Fraction that is held out, or the split of the run.
        device: Device to compute on.
    """
    from rave.codec import load_codec
    from rave.dataset import split_audio

    codec = load_codec(run, device)
    if codec.format.training_audio is None:
        print("Measuring the training audio …", file=sys.stderr)
        measure(codec, store, split_audio(store, held_out)[0]).write(run)
