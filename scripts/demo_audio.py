"""Seeded phrases of music for the demo: plucked strings, bells and drums in a key and a tempo.

A phrase is composed as notes (`compose`), then played (`play`). T is a number of audio samples,
K a number of partials. Run as a program, it writes a folder of wav files:

    python scripts/demo_audio.py FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rave.compute.arrays import Float64Array

Audio = Float64Array

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# C major and A minor: the same seven pitch classes, since minutes of training learn few pitches.
TONICS = {"major": 0, "minor": 9}
PITCH_NAMES = ("c", "c#", "d", "eb", "e", "f", "f#", "g", "ab", "a", "bb", "b")
# One chord a bar, as degrees of the scale counted from 0.
PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 1, 4), (0, 2, 3, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 3, 6, 2)),
}
ENSEMBLES = (
    ("strings",),
    ("strings", "drums"),
    ("strings", "bells"),
    ("strings", "bells", "drums"),
)
BEATS_PER_BAR = 4
# Partials of a struck tuned bell over its strike note, with relative amplitudes; the minor third
# in the series is what makes a bell sound like a bell.
BELL_PARTIALS = (
    (0.5, 0.25),
    (1.0, 1.0),
    (1.2, 0.5),
    (1.5, 0.25),
    (2.0, 0.55),
    (2.66, 0.3),
    (4.1, 0.2),
)
LEVEL_DBFS = (-19.0, -17.0)
LIMIT = 0.7  # samples beyond this are bent smoothly towards 1


@dataclass(frozen=True)
class Note:
    """One event of a part.

    Attributes:
        start_s: Onset.
        voice: Voice: "string", "bell", "kick", "snare" or "hat".
        gain: Linear, 1 is a full stroke.
        pitch: MIDI number; not used by drums.
    """

    start_s: float
    voice: str
    gain: float
    pitch: int = 0


@dataclass(frozen=True)
class Phrase:
    """A composed phrase.

    Attributes:
        key: Pitch class of the tonic, 0 is C.
        mode: "major" or "minor".
        tempo_bpm: Quarter notes a minute.
        notes: All events, in no order.
    """

    key: int
    mode: str
    tempo_bpm: float
    notes: tuple[Note, ...]

    def pitch(self, degree: int, lowest: int) -> int:
        """Return the MIDI number of a degree, counted from the first tonic at or above `lowest`."""
        tonic = lowest + (self.key - lowest) % 12
        octave, step = divmod(degree, 7)
        return tonic + 12 * octave + SCALES[self.mode][step]


def compose(rng: np.random.Generator, ensemble: Sequence[str], duration_s: float) -> Phrase:
    """Return a phrase for an ensemble, in a random mode, tempo and chord progression."""
    mode = str(rng.choice(list(SCALES)))
    phrase = Phrase(TONICS[mode], mode, float(rng.integers(84, 125)), ())
    beat_s = 60.0 / phrase.tempo_bpm
    num_bars = int(np.ceil(duration_s / (beat_s * BEATS_PER_BAR)))
    progression = PROGRESSIONS[mode][rng.integers(len(PROGRESSIONS[mode]))]
    chords = [progression[bar % len(progression)] for bar in range(num_bars)]
    parts = {"strings": _strings_part, "bells": _bells_part, "drums": _drums_part}
    notes = [note for name in ensemble for note in parts[name](rng, phrase, chords)]
    played = [
        Note(max(0.0, note.start_s * beat_s + rng.normal(0, 0.004)), note.voice, gain, note.pitch)
        for note in notes
        if note.start_s * beat_s < duration_s - 0.25
        for gain in [note.gain * rng.uniform(0.8, 1.0)]
    ]
    return Phrase(phrase.key, phrase.mode, phrase.tempo_bpm, tuple(played))


# The parts below count `start_s` in beats; `compose` turns beats into seconds.


def _strings_part(rng: np.random.Generator, phrase: Phrase, chords: Sequence[int]) -> list[Note]:
    """Return a bass note on beats 1 and 3 and a broken chord in eighths."""
    figures = ((0, 2, 4, 7, 4, 2, 4, 2), (0, 4, 2, 4, 7, 4, 2, 4), (4, 2, 0, 2, 4, 7, 4, 2))
    figure = figures[rng.integers(len(figures))]
    notes = []
    for bar, chord in enumerate(chords):
        start = bar * BEATS_PER_BAR
        notes += [Note(start, "string", 1.0, phrase.pitch(chord, 36))]
        notes += [Note(start + 2, "string", 0.7, phrase.pitch(chord + 4, 36))]
        for eighth, degree in enumerate(figure):
            if eighth % 4 == 0 or rng.random() < 0.9:
                gain = 0.7 if eighth % 2 == 0 else 0.5
                pitch = phrase.pitch(chord + degree, 53)
                notes.append(Note(start + eighth / 2, "string", gain, pitch))
    return notes


def _bells_part(rng: np.random.Generator, phrase: Phrase, chords: Sequence[int]) -> list[Note]:
    """Return a melody that steps through the scale and meets the chord on beats 1 and 3."""
    rhythms = ((0, 1, 2, 3), (0, 1.5, 2, 3), (0, 2, 2.5, 3), (0, 1, 1.5, 2))
    notes, degree = [], 4
    for bar, chord in enumerate(chords):
        for beat in rhythms[rng.integers(len(rhythms))]:
            degree = int(np.clip(degree + rng.integers(-2, 3), 0, 10))
            if beat in (0, 2):
                tones = [d for d in range(11) if (d - chord) % 7 in (0, 2, 4)]
                degree = min(tones, key=lambda tone: (abs(tone - degree), tone))
            start = bar * BEATS_PER_BAR + beat
            notes.append(Note(start, "bell", 0.6, phrase.pitch(degree, 67)))
    return notes


def _drums_part(rng: np.random.Generator, phrase: Phrase, chords: Sequence[int]) -> list[Note]:
    """Return kick on 1 and 3, snare on 2 and 4, hats in eighths, and a fill every fourth bar."""
    notes = []
    for bar in range(len(chords)):
        start = bar * BEATS_PER_BAR
        notes += [Note(start + beat, "kick", 1.0) for beat in (0, 2)]
        notes += [Note(start + beat, "snare", 0.7) for beat in (1, 3)]
        notes += [Note(start + i / 2, "hat", 0.3 if i % 2 else 0.45) for i in range(8)]
        if rng.random() < 0.4:
            notes.append(Note(start + 1.5, "kick", 0.7))
        if bar % 4 == 3:
            notes += [Note(start + beat, "snare", 0.5) for beat in (3.25, 3.5, 3.75)]
    return notes


def ring(
    frequencies_hz: Audio, amplitudes: Audio, decays_s: Audio, num_samples: int, sample_rate_hz: int
) -> Audio:
    """Return a sum of sines that die away, (T,).

    Args:
        frequencies_hz: (K,). Partials at or above half the sample rate are left out.
        amplitudes: (K,).
        decays_s: (K,), time in which each falls to 1/e.
        num_samples: T.
        sample_rate_hz: Sample rate of the result.
    """
    heard = frequencies_hz < sample_rate_hz / 2
    rates = (2j * np.pi * frequencies_hz[heard] - 1 / decays_s[heard]) / sample_rate_hz
    # Sample r of block b is Σ a·exp(rate·(b·block + r)): one matrix product over the partials.
    block = int(np.ceil(np.sqrt(num_samples)))
    steps = np.arange(block)
    blocks = np.exp(np.outer(steps * block, rates)) * amplitudes[heard]
    audio: Audio = (blocks @ np.exp(np.outer(rates, steps))).imag.ravel()[:num_samples]
    return audio


def damped(audio: Audio, sample_rate_hz: int, fade_s: float = 0.2) -> Audio:
    """Return audio (T,) that falls to 0 over its last `fade_s`, so that its end does not click."""
    remaining_s = np.arange(len(audio))[::-1] / sample_rate_hz
    return audio * np.minimum(remaining_s / fade_s, 1.0)


def string(pitch: int, sample_rate_hz: int, duration_s: float = 2.5) -> Audio:
    """Return a plucked string, (T,): the partials that the Karplus-Strong loop would leave.

    Source: Karplus & Strong 1983, "Digital Synthesis of Plucked-String and Drum Timbres". Each turn
    round the loop of period 1/f averages two neighbouring samples, which multiplies partial k by
    cos(πkf / sample rate). Differs: partials are summed, which makes the pitch exact.
    """
    frequency_hz = 440.0 * 2 ** ((pitch - 69) / 12)
    loop_rate_hz, loss, pluck_position = 22050, 0.996, 0.21
    partial = np.arange(1.0, max(2, int(0.4 * loop_rate_hz / frequency_hz)))
    gain_per_period = loss * np.cos(np.pi * partial * frequency_hz / loop_rate_hz)
    decays_s = -1 / (frequency_hz * np.log(gain_per_period))
    amplitudes = np.sin(np.pi * partial * pluck_position) / partial
    num_samples = int(duration_s * sample_rate_hz)
    audio = ring(partial * frequency_hz, amplitudes, decays_s, num_samples, sample_rate_hz)
    return damped(audio, sample_rate_hz)


def bell(pitch: int, sample_rate_hz: int, duration_s: float = 2.5) -> Audio:
    """Return a struck bell, (T,): inharmonic partials, the higher the sooner gone."""
    frequency_hz = 440.0 * 2 ** ((pitch - 69) / 12)
    ratios, amplitudes = np.array(BELL_PARTIALS).T
    num_samples = int(duration_s * sample_rate_hz)
    decays_s = 0.9 / ratios**0.8
    audio = ring(ratios * frequency_hz, amplitudes, decays_s, num_samples, sample_rate_hz)
    return damped(audio, sample_rate_hz)


def drum(voice: str, sample_rate_hz: int, rng: np.random.Generator) -> Audio:
    """Return one stroke of a "kick", "snare" or "hat", (T,)."""
    num_samples = int({"kick": 0.35, "snare": 0.25, "hat": 0.08}[voice] * sample_rate_hz)
    time_s = np.arange(num_samples) / sample_rate_hz
    if voice == "kick":
        # From 160 Hz down to 50 Hz within a few hundredths of a second.
        phase = 2 * np.pi * (50 * time_s + 110 * 0.03 * (1 - np.exp(-time_s / 0.03)))
        return np.asarray(1.6 * np.sin(phase) * np.exp(-time_s / 0.1))
    noise = rng.standard_normal(num_samples)
    if voice == "hat":
        return np.asarray(0.35 * np.diff(noise, n=2, prepend=[0, 0]) * np.exp(-time_s / 0.015))
    modes_hz, modes_gain = np.array([185.0, 330.0]), np.array([0.8, 0.5])
    body = ring(modes_hz, modes_gain, np.array([0.06, 0.04]), num_samples, sample_rate_hz)
    return np.asarray(body + 0.3 * np.diff(noise, prepend=0) * np.exp(-time_s / 0.06))


def play(phrase: Phrase, duration_s: float, sample_rate_hz: int, rng: np.random.Generator) -> Audio:
    """Return the phrase as mono audio, (T,), at a level between `LEVEL_DBFS`, without clipping."""
    num_samples = round(duration_s * sample_rate_hz)
    audio = np.zeros(num_samples)
    for note in phrase.notes:
        if note.voice == "string":
            sound = string(note.pitch, sample_rate_hz)
        elif note.voice == "bell":
            sound = bell(note.pitch, sample_rate_hz)
        else:
            sound = drum(note.voice, sample_rate_hz, rng)
        start = round(note.start_s * sample_rate_hz)
        part = audio[start : start + len(sound)]
        part += note.gain * sound[: len(part)]
    audio = damped(audio, sample_rate_hz)
    gain = 10 ** (rng.uniform(*LEVEL_DBFS) / 20) / np.sqrt(np.mean(np.square(audio)))
    return limit(gain * audio)


def limit(audio: Audio) -> Audio:
    """Return audio whose samples beyond `LIMIT` are bent towards 1, which they never reach."""
    excess = np.maximum(np.abs(audio) - LIMIT, 0.0)
    bent = LIMIT + (1 - LIMIT) * np.tanh(excess / (1 - LIMIT))
    return np.where(excess > 0, np.copysign(bent, audio), audio)


def make_demo_audio(
    folder: Path,
    num_files: int = 24,
    seconds: float = 10.0,
    sample_rate_hz: int = 22050,
    seed: int = 0,
) -> list[Path]:
    """Write phrases as 16-bit mono wav files, named by instruments and key.

    Args:
        folder: Made if missing. Files that are already there are kept.
        num_files: Number of phrases.
        seconds: Length of each.
        sample_rate_hz: Sample rate of the files.
        seed: The same seed gives the same files.

    Returns:
        The files, in order.
    """
    import soundfile

    from rave.files.atomic import atomic_write

    paths = []
    for index in range(num_files):
        rng = np.random.default_rng([seed, index])
        ensemble = ENSEMBLES[index % len(ENSEMBLES)]
        phrase = compose(rng, ensemble, seconds)
        key = f"{PITCH_NAMES[phrase.key]}-{phrase.mode}".replace("#", "-sharp")
        path = folder / f"{index + 1:02d}-{'-'.join(ensemble)}-{key}.wav"
        paths.append(path)
        if not path.exists():
            audio = play(phrase, seconds, sample_rate_hz, rng)
            with atomic_write(path) as temporary:
                soundfile.write(temporary, audio, sample_rate_hz, subtype="PCM_16")
    return paths


def main() -> None:
    """Write demo audio into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Write a folder of seeded, synthesized music.")
    parser.add_argument("folder", type=Path, help="folder for the wav files")
    parser.add_argument("--count", type=int, default=24, help="number of files (default 24)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    options = parser.parse_args()
    paths = make_demo_audio(options.folder, options.count, options.seconds, seed=options.seed)
    print(f"{len(paths)} files in {options.folder}")


if __name__ == "__main__":
    main()
