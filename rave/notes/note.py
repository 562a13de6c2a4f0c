"""A note, and a list of notes."""

from __future__ import annotations

from dataclasses import dataclass

# MIDI numbers of the lowest and the highest key of a piano, 27.5 Hz and 4186 Hz.
LOWEST_PITCH, HIGHEST_PITCH = 21, 108
DRUM_CHANNEL = 9


@dataclass(frozen=True, order=True)
class Note:
    """One note.

    Attributes:
        start_s: Onset in seconds.
        end_s: End in seconds.
        pitch: MIDI number, 0 to 127; 69 is 440 Hz. On channel 9: which drum.
        strength: 0 to 1; MIDI velocity / 127.
        channel: MIDI channel, 0 to 15; 9 holds drums.
    """

    start_s: float
    end_s: float
    pitch: int
    strength: float = 1.0
    channel: int = 0

    @property
    def frequency_hz(self) -> float:
        """Return the pitch in Hz, in equal temperament with A4 = 440 Hz."""
        return float(440.0 * 2.0 ** ((self.pitch - 69) / 12))

    @property
    def is_drum(self) -> bool:
        """Return whether the pitch names a drum."""
        return self.channel == DRUM_CHANNEL
