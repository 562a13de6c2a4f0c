"""Distances between two sets of recordings, with a network and without one.

Recordings are read in pieces of 12 s, which embeddings and statistics describe, so that a long file
needs no more memory than a short one and pieces can be drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from rave.audio.blocks import regroup, resample
from rave.audio.formats import AudioError
from rave.audio.io import AudioStream
from rave.compute.arrays import Float32Array
from rave.evaluation.audio_statistics import DISTANCES, AudioStatistics, distances, measure, pool
from rave.evaluation.frechet import (
    MOST_FOR_KERNEL,
    NUM_DRAWS,
    Estimate,
    Spread,
    count_patches,
    estimate,
    estimate_kernel,
    frechet_distance,
    kernel_distance,
)
from rave.evaluation.musicnn import PATCH_SAMPLES, SAMPLE_RATE_HZ, embed, load_musicnn
from rave.losses import log_spectral_distance_db
from rave.notes.scores import note_scores
from rave.notes.statistics import NOTE_DISTANCES, NoteStatistics, note_distances
from rave.notes.transcriber import NOTHING, Transcriber, Transcription
from rave.notes.transcriber import SAMPLE_RATE_HZ as NOTE_RATE_HZ

PIECE_S = 12
SHORTEST_S = PATCH_SAMPLES / SAMPLE_RATE_HZ
SILENCE_DBFS = -90.0  # half a step of 16 bits
# Files of the same name are compared one by one up to here.
PAIR_S = 600
# Two files of the same name are one recording if their lengths differ by no more.
PAIR_TOLERANCE_S = 0.1


# Title and unit of each distance.
TITLES = {**DISTANCES, **NOTE_DISTANCES}


@dataclass(frozen=True)
class Piece:
    """Measurements of one piece of a recording.

    Attributes:
        name: Name of the recording.
        embeddings: (B, 200), of its patches of 3 s.
        statistics: Statistics of its sound.
        transcription: Its notes.
    """

    name: str
    embeddings: Float32Array
    statistics: AudioStatistics
    transcription: Transcription = NOTHING

    @cached_property
    def notes(self) -> NoteStatistics:
        """Return the statistics of its notes."""
        return NoteStatistics.of(self.transcription.notes, self.transcription.duration_s)


class Listener:
    """The networks that hear recordings: timbre by musicnn, notes by basic-pitch."""

    def __init__(self) -> None:
        self.musicnn, self.transcriber = load_musicnn(), Transcriber()


def measure_blocks(
    blocks: Iterable[Float32Array], sample_rate_hz: int, name: str, listener: Listener
) -> list[Piece]:
    """Return the pieces of audio in blocks (1, t); a rest below 3 s at the end is dropped.

    Args:
        blocks: Blocks of one recording, mono.
        sample_rate_hz: Sample rate of the blocks.
        name: Name of the recording.
        listener: The networks that hear it.
    """
    measured: list[tuple[Float32Array, AudioStatistics]] = []

    def passed() -> Iterator[Float32Array]:
        for block in regroup(blocks, PIECE_S * sample_rate_hz):
            heard = soxr.resample(block[0], sample_rate_hz, SAMPLE_RATE_HZ)
            if len(heard) >= PATCH_SAMPLES:
                embeddings = embed(listener.musicnn, heard)
                measured.append((embeddings, measure(block[0], sample_rate_hz)))
            yield block

    found = listener.transcriber.transcribe(resample(passed(), sample_rate_hz, NOTE_RATE_HZ))
    return [
        Piece(name, *each, found.part(number * PIECE_S, (number + 1) * PIECE_S))
        for number, each in enumerate(measured)
    ]


def measure_file(path: Path, name: str, sample_rate_hz: int, listener: Listener) -> list[Piece]:
    """Return the pieces of a file.

    Raises:
        AudioError: If it cannot be read, is shorter than a patch, or silent.
    """
    stream = AudioStream(path, sample_rate_hz, 1)
    pieces = measure_blocks(stream, sample_rate_hz, name, listener)
    if not pieces:
        source = stream.source
        raise AudioError(
            f"'{path.name}' lasts {source.num_samples / source.sample_rate_hz:.2f} s; "
            f"at least {SHORTEST_S:.2f} s are needed."
        )
    if is_silent(pieces):
        raise AudioError(f"'{path.name}' is silent.")
    return pieces


def is_silent(pieces: Sequence[Piece]) -> bool:
    """Return whether all pieces are silent."""
    loudest = max(piece.statistics.power for piece in pieces)
    return bool(loudest < 10 ** (SILENCE_DBFS / 10))


def groups(pieces: Sequence[Piece]) -> list[Float32Array]:
    """Return the embeddings, piece by piece."""
    return [piece.embeddings for piece in pieces]


def num_patches(pieces: Sequence[Piece]) -> int:
    """Return the number of patches of 3 s."""
    return count_patches(groups(pieces))


def pooled(pieces: Sequence[Piece]) -> AudioStatistics:
    """Return the statistics of all pieces together."""
    return pool([piece.statistics for piece in pieces])


def pooled_notes(pieces: Sequence[Piece]) -> NoteStatistics:
    """Return the statistics of the notes of all pieces together."""
    return NoteStatistics.pooled([piece.notes for piece in pieces])


def pair_scores(reference: Sequence[Piece], audio: Sequence[Piece]) -> dict[str, float]:
    """Return how many notes of a recording another one has; see `rave.notes.scores`."""
    return note_scores(
        *(
            Transcription.joined([p.transcription for p in side], PIECE_S)
            for side in (reference, audio)
        )
    )


@dataclass(frozen=True)
class Comparison:
    """A set of recordings compared with a reference.

    Attributes:
        frechet: Their Fréchet distance.
        kernel: Their Kernel Audio Distance.
        halves: The distance of random halves of the reference at the same size; None if some half
            is smaller.
        kernel_halves: The same of these halves.
        second_view: The distances of `TITLES`, of sound and of notes.
        second_view_halves: The same distances between random halves of the reference.
    """

    frechet: Estimate
    kernel: Spread
    halves: float | None
    kernel_halves: float | None
    second_view: dict[str, float | None]
    second_view_halves: dict[str, float | None]

    def record(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        return {
            "frechet": self.frechet.distance,
            "frechet_std": self.frechet.std,
            "interval": list(self.frechet.interval),
            "frechet_unbiased": self.frechet.unbiased,
            "patches": self.frechet.size,
            "kernel": self.kernel.distance,
            "kernel_std": self.kernel.std,
            **self.second_view,
            "halves": {
                "frechet": self.halves,
                "kernel": self.kernel_halves,
                **self.second_view_halves,
            },
        }

    def words(self) -> str:
        """Return the table of distances and its interpretation, for a person."""
        low, high = self.frechet.interval
        lines = [
            f"{'distance from the reference':44}{'audio':>10}{'halves of the reference':>26}",
            f"{f'Fréchet distance, {self.frechet.size} patches':44}{self.frechet.distance:>10.2f}"
            f"{_number(self.halves):>26}",
            f"{'  95 % of draws':44}{f'{low:.1f} to {high:.1f}':>10}",
            f"{'  extrapolated to infinite sets':44}{_number(self.frechet.unbiased):>10}",
            f"{f'Kernel Audio Distance, std {self.kernel.std:.2f}':44}{self.kernel.distance:>10.2f}"
            f"{_number(self.kernel_halves):>26}",
        ]
        for name, (title, unit) in TITLES.items():
            one, other = self.second_view[name], self.second_view_halves.get(name)
            lines.append(f"{f'{title}, {unit}':44}{_number(one):>10}{_number(other):>26}")
        return "\n".join([*lines, self.reading()])

    def reading(self) -> str:
        """Return a sentence that interprets the Fréchet distance."""
        if self.halves is None:
            return (
                "The reference is too short to compare its own halves at "
                f"{self.frechet.size} patches. Give more of it, or fewer --patches."
            )
        if self.frechet.interval[0] <= self.halves:
            text = "The audio cannot be distinguished from more of the reference."
        else:
            text = (
                f"The audio is {self.frechet.distance / max(self.halves, 1e-9):.1f} times as far "
                "from the reference as its halves are from each other."
            )
        if self.frechet.unbiased is None:
            text += (
                f" {self.frechet.size} patches of 3 s per side are few: compare this figure only "
                "with figures at the same number."
            )
        return text


def compare(
    reference: Sequence[Piece], audio: Sequence[Piece], seed: int, size: int | None = None
) -> Comparison:
    """Compare a set of recordings with a reference.

    Args:
        reference: Pieces.
        audio: Pieces.
        seed: Random seed of all draws.
        size: Patches per set; None: as many as the audio and all halves have.

    Raises:
        ValueError: If either is too short for the size.
    """
    splits = list(_halves(reference, seed)) if len(reference) > 1 else []
    # Halves consist of whole pieces, so one may be smaller than half the reference.
    smallest = min((num_patches(half) for split in splits for half in split), default=0)
    if size is None:
        size = min(smallest if smallest > 1 else num_patches(reference), num_patches(audio))
    if size > min(num_patches(reference), num_patches(audio)) or size < 2:
        raise ValueError(
            f"Sets of {size} patches of 3 s are needed, 2 at least; the reference holds "
            f"{num_patches(reference)}, the audio {num_patches(audio)}. Give more audio, or fewer "
            "--patches."
        )
    halves = [
        [np.concatenate(groups(half))[:size] for half in split]
        for split in splits
        if size <= smallest
    ]
    most = MOST_FOR_KERNEL
    kernel = estimate_kernel(groups(reference), groups(audio), size, seed)
    kernel_halves = [
        kernel_distance(one[:most], other[:most], kernel.bandwidth) for one, other in halves
    ]
    views = [all_distances(*split) for split in splits[:4]]
    return Comparison(
        estimate(groups(reference), groups(audio), size, seed),
        kernel,
        _mean([frechet_distance(*half) for half in halves]),
        _mean(kernel_halves),
        all_distances(reference, audio),
        {name: _mean([view[name] for view in views]) for name in TITLES},
    )


def all_distances(reference: Sequence[Piece], audio: Sequence[Piece]) -> dict[str, float | None]:
    """Return the distances of `TITLES`: of sound, then of notes."""
    return {
        **distances(pooled(reference), pooled(audio)),
        **note_distances(pooled_notes(reference), pooled_notes(audio)),
    }


def compare_pair(target: Path, audio: Path, sample_rate_hz: int) -> dict[str, float] | None:
    """Return the distance of a file from the one that it should equal; None if lengths differ.

    Raises:
        AudioError: If one cannot be read.
    """
    starts, samples = zip(
        *(_start_and_length(path, sample_rate_hz) for path in (target, audio)), strict=True
    )
    if abs(samples[0] - samples[1]) > PAIR_TOLERANCE_S * sample_rate_hz:
        return None
    length = min(start.shape[1] for start in starts)
    x, y = (torch.from_numpy(start[:, :length])[None] for start in starts)
    levels = [float(each.square().mean().clamp_min(1e-20).log10()) * 10 for each in (x, y)]
    return {
        "log_spectral_distance_db": float(log_spectral_distance_db(x, y)),
        "silence_would_score_db": float(log_spectral_distance_db(x, 0 * y)),
        "level_difference_db": levels[1] - levels[0],
    }


def _start_and_length(path: Path, sample_rate_hz: int) -> tuple[Float32Array, int]:
    """Return the first `PAIR_S` seconds of a file (1, t), and how many samples it has."""
    kept, count, most = [], 0, PAIR_S * sample_rate_hz
    for block in AudioStream(path, sample_rate_hz, 1):
        kept.append(block[:, : max(most - count, 0)])
        count += block.shape[1]
    return np.concatenate(kept, axis=1), count


def _halves(pieces: Sequence[Piece], seed: int) -> Iterator[tuple[list[Piece], list[Piece]]]:
    rng = np.random.default_rng(seed)
    for _ in range(NUM_DRAWS):
        order = rng.permutation(len(pieces))
        # One piece each in turn, the longest first, so that both halves are about equal.
        lengths = [len(pieces[index].embeddings) for index in order]
        order = order[np.argsort(lengths, kind="stable")[::-1]]
        yield [pieces[i] for i in order[::2]], [pieces[i] for i in order[1::2]]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
