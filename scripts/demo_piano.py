"""Free recordings for the demo: a synthesized piano, and an improvised phrase.

The pieces are the first bars of public-domain scores, transcribed here as text: one line a voice, a
note `F#4/2` is a pitch and its length in sixteenths (1 if left out), `-` a rest. T is a number of
audio samples, K a number of partials.

    python scripts/demo_piano.py FOLDER
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo_audio import Audio, compose, damped, limit, play, ring
from scipy.signal import fftconvolve

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
LEVEL_DBFS = -24.0  # of the recordings that the shipped piano models were trained on
END_S = 1.2  # after the last note
HUMAN_S = 0.006  # std of an onset
ROOM_S, ROOM_GAIN = 0.3, 0.25  # time in which the room falls to 1/e; its power beside the piano's
IMPROVISATION = "improvised-strings-and-bells"
IMPROVISATION_S = 10.0


@dataclass(frozen=True)
class Piece:
    """The beginning of a score.

    Attributes:
        name: Name of its file.
        tempo_bpm: Quarter notes a minute.
        bar: Sixteenths in a bar.
        voices: One text each, as the head of this file tells.
        pedal: Sixteenths between two changes of the pedal; a note sounds until the next. 0: none.
    """

    name: str
    tempo_bpm: float
    bar: int
    voices: tuple[str, ...]
    pedal: int = 0


def _broken(pattern: str, *chords: str) -> str:
    """Return chords, each played in the order of a pattern's digits."""
    return " ".join(chord.split()[int(i)] for chord in chords for i in pattern)


# Johann Sebastian Bach, 1685-1750.
PIECES = (
    Piece(
        "bach-invention-c-major-bwv772",
        76,
        16,
        (
            "- C4 D4 E4 F4 D4 E4 C4 G4/2 C5/2 B4/2 C5/2 "
            "D5 G4 A4 B4 C5 A4 B4 G4 D5/2 G5/2 F5/2 G5/2 "
            "E5 A5 G5 F5 E5 G5 F5 A5 G5 F5 E5 D5 C5 E5 D5 F5 "
            "E5 D5 C5 B4 A4 C5 B4 D5 C5 B4 A4 G4 F#4 A4 G4 B4",
            "-/8 - C3 D3 E3 F3 D3 E3 C3 "
            "G3/2 G2/2 -/4 - G3 A3 B3 C4 A3 B3 G3 "
            "C4/2 B3/2 C4/2 D4/2 E4/2 G3/2 A3/2 B3/2 "
            "C4/2 E3/2 F#3/2 G3/2 A3/2 B3/2 C4/4",
        ),
    ),
    Piece(
        "bach-prelude-c-major-bwv846",
        66,
        16,
        (_broken("0123423401234234", "C4 E4 G4 C5 E5", "C4 D4 A4 D5 F5", "B3 D4 G4 D5 F5"),),
        pedal=8,
    ),
    Piece(
        "bach-cello-prelude-g-major-bwv1007",
        63,
        16,
        (_broken("0123212101232121", "G2 D3 B3 A3", "G2 E3 C4 B3", "G2 F#3 C4 B3"),),
        pedal=8,
    ),
)


@dataclass(frozen=True)
class Key:
    """A key that is struck: when, how long it is held, MIDI pitch, and force (1 is full)."""

    start_s: float
    held_s: float
    pitch: int
    force: float


def read_voice(text: str) -> list[tuple[int, int, int | None]]:
    """Return the notes of a voice: start and length in sixteenths, MIDI pitch (None: a rest).

    Raises:
        ValueError: If a word is no note.
    """
    notes, start = [], 0
    for word in text.split():
        found = re.fullmatch(r"(?:([A-G])([#b]?)(\d)|-)(?:/(\d+))?", word)
        if not found:
            raise ValueError(f"'{word}' is no note; F#4/2 is one, -/2 a rest.")
        letter, accidental, octave, length = found.groups()
        pitch = None
        if letter:
            shift = {"#": 1, "b": -1, "": 0}[accidental]
            pitch = 12 * (int(octave) + 1) + STEPS[letter] + shift
        notes.append((start, int(length or 1), pitch))
        start += int(length or 1)
    return notes


def keys_of(piece: Piece, rng: np.random.Generator) -> list[Key]:
    """Return the keys that a player strikes, a little early, late, soft or loud."""
    sixteenth_s = 60.0 / piece.tempo_bpm / 4
    keys = []
    for voice in piece.voices:
        for start, length, pitch in read_voice(voice):
            if pitch is None:
                continue
            if piece.pedal:
                length = piece.pedal - start % piece.pedal
            beat = 0.12 * (start % 4 == 0) + 0.1 * (start % piece.bar == 0)
            force = float(np.clip(0.55 + beat + 0.06 * rng.standard_normal(), 0.2, 1.0))
            onset_s = max(0.0, start * sixteenth_s + HUMAN_S * rng.standard_normal())
            keys.append(Key(onset_s, length * sixteenth_s, pitch, force))
    return keys


def piano(key: Key, sample_rate_hz: int, rng: np.random.Generator) -> Audio:
    """Return the sound of a key, (T,).

    Stiff strings have partials k·f·√(1 + B·k²). Each falls fast while its strings move together and
    slowly once they do not, and beats, since they are not quite in tune. The hammer strikes at an
    eighth of the string, brighter the harder; its knock is a burst of noise and the soundboard.

    Source: Fletcher & Rossing, The Physics of Musical Instruments, ch. 12 (stiffness, hammer,
    spectra); Weinreich 1977, "Coupled piano strings" (two-stage decay). Numbers are rounded by ear.
    """
    frequency_hz = 440.0 * 2 ** ((key.pitch - 69) / 12)
    stiffness = 3.5e-4 * 2 ** ((key.pitch - 60) / 9)
    partial = np.arange(1.0, max(2.0, min(60.0, 9000 / frequency_hz)))
    partials_hz = partial * frequency_hz * np.sqrt(1 + stiffness * partial**2)
    bright_hz = 200 + 350 * key.force
    amplitudes = (
        np.abs(np.sin(np.pi * partial / 8)) / partial**0.3 * np.exp(-partials_hz / bright_hz)
    )
    prompt_s = 1.1 * (262 / partials_hz) ** 0.55
    detuned = 2 ** (rng.uniform(-0.7, 0.7, len(partial)) / 1200)  # within 0.7 cents
    num_samples = int(min(key.held_s + 0.25, 6.0) * sample_rate_hz)
    sound = ring(
        np.concatenate([partials_hz, partials_hz * detuned]),
        np.concatenate([0.8 * amplitudes, 0.2 * amplitudes]),
        np.concatenate([prompt_s, 5 * prompt_s]),
        num_samples,
        sample_rate_hz,
    )
    time_s = np.arange(num_samples) / sample_rate_hz
    knock = fftconvolve(rng.standard_normal(num_samples), np.hanning(48) / 24, mode="same")
    knock *= 0.05 * np.exp(-time_s / 0.012)
    modes_hz = np.array([92.0, 147.0, 218.0])
    knock += 0.04 * ring(modes_hz, np.ones(3), np.full(3, 0.04), num_samples, sample_rate_hz)
    damper = np.where(time_s > key.held_s, np.exp(-(time_s - key.held_s) / 0.06), 1.0)
    attack = np.minimum(time_s / 0.002, 1.0)
    return np.asarray(key.force**1.5 * (sound * damper * attack + key.force * knock))


def in_a_room(audio: Audio, sample_rate_hz: int, rng: np.random.Generator) -> Audio:
    """Return audio (T,) with a room around it: noise that dies away, duller than the piano."""
    time_s = np.arange(int(4 * ROOM_S * sample_rate_hz)) / sample_rate_hz
    noise = fftconvolve(rng.standard_normal(len(time_s)), np.hanning(32), mode="same")
    response = noise * np.exp(-time_s / ROOM_S) * (time_s > 0.008)
    response *= ROOM_GAIN / np.sqrt(np.sum(np.square(response)))
    return audio + fftconvolve(audio, response)[: len(audio)]


def play_piece(piece: Piece, sample_rate_hz: int, seed: int) -> Audio:
    """Return a piece as mono audio (T,), at `LEVEL_DBFS`."""
    rng = np.random.default_rng([seed, *piece.name.encode()])
    keys = keys_of(piece, rng)
    num_samples = int((max(k.start_s + k.held_s for k in keys) + END_S) * sample_rate_hz)
    audio = np.zeros(num_samples)
    for key in keys:
        start = round(key.start_s * sample_rate_hz)
        sound = piano(key, sample_rate_hz, rng)
        part = audio[start : start + len(sound)]
        part += sound[: len(part)]
    return at_level(damped(in_a_room(audio, sample_rate_hz, rng), sample_rate_hz))


def at_level(audio: Audio) -> Audio:
    """Return audio (T,) at `LEVEL_DBFS`, without clipping."""
    return limit(audio * 10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(np.square(audio))))


def make_recordings(folder: Path, sample_rate_hz: int = 22050, seed: int = 0) -> list[Path]:
    """Write the pieces and the improvisation as 16-bit mono wav files; keep those that are there.

    Args:
        folder: Made if missing.
        sample_rate_hz: Sample rate of the files.
        seed: The same seed gives the same files.

    Returns:
        The files; the improvisation last.
    """
    import soundfile

    from rave.files.atomic import atomic_write

    paths = []
    for name in (*(piece.name for piece in PIECES), IMPROVISATION):
        path = folder / f"{name}.wav"
        paths.append(path)
        if not path.exists():
            audio = _recording(name, sample_rate_hz, seed)
            with atomic_write(path) as temporary:
                soundfile.write(temporary, audio, sample_rate_hz, subtype="PCM_16")
    return paths


def _recording(name: str, sample_rate_hz: int, seed: int) -> Audio:
    """Return a piece, or the improvisation, as audio (T,)."""
    for piece in PIECES:
        if piece.name == name:
            return play_piece(piece, sample_rate_hz, seed)
    rng = np.random.default_rng([seed, *name.encode()])
    phrase = compose(rng, ("strings", "bells"), IMPROVISATION_S)
    return at_level(play(phrase, IMPROVISATION_S, sample_rate_hz, rng))


def main() -> None:
    """Write the recordings into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Write a synthesized piano and an improvisation.")
    parser.add_argument("folder", type=Path, help="folder for the wav files")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    options = parser.parse_args()
    paths = make_recordings(options.folder, seed=options.seed)
    print(f"{len(paths)} files in {options.folder}")


if __name__ == "__main__":
    main()
