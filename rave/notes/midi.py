"""MIDI files ⇄ notes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rave.files.atomic import atomic_write, regular
from rave.notes.note import Note
from rave.parsing import one_line

TICKS_PER_QUARTER, MICROSECONDS_PER_QUARTER = 960, 500_000  # of what is written: 120 bpm
TICKS_PER_SECOND = TICKS_PER_QUARTER * 1e6 / MICROSECONDS_PER_QUARTER


def read_midi(path: str | Path) -> list[Note]:
    """Return the notes of a MIDI file, by onset.

    Tempo changes are followed. A note that begins again while it sounds ends there; one that never
    ends lasts as long as its file.

    Args:
        path: Of format 0 or 1, with ticks per quarter or SMPTE time.

    Raises:
        ValueError: If it is not a MIDI file, is damaged, is of format 2, or holds no notes.
        OSError: If it cannot be read.
    """
    import mido

    path = Path(path)
    regular(path)
    try:
        file = mido.MidiFile(path, clip=True)
        if file.type == 2:
            raise ValueError("it is of format 2, which holds independent patterns")
        notes = _notes(file)
    except Exception as error:  # mido raises many types for a damaged file
        reason = one_line(str(error)) or "it ends early"
        raise ValueError(
            f"'{path}' cannot be read as MIDI: {reason}. Save it as MIDI of format 0 or 1."
        ) from error
    if not notes:
        raise ValueError(f"'{path}' holds no notes. Give a MIDI file with notes.")
    return notes


def _notes(file: Any) -> list[Note]:
    import mido

    ticks_per_quarter = file.ticks_per_beat
    seconds_per_tick = 0.0
    if ticks_per_quarter < 0:  # frames per second (negative) and ticks per frame, a byte each
        frames, ticks = divmod(ticks_per_quarter & 0xFFFF, 256)
        seconds_per_tick = 1.0 / ((256 - frames) * ticks)
    tempo = MICROSECONDS_PER_QUARTER
    now_s = 0.0
    sounding: dict[tuple[int, int], tuple[float, float]] = {}
    notes: list[Note] = []

    def end(channel: int, pitch: int) -> None:
        if (channel, pitch) in sounding:
            start_s, strength = sounding.pop((channel, pitch))
            notes.append(Note(start_s, now_s, pitch, strength, channel))

    for message in mido.merge_tracks(file.tracks):
        now_s += message.time * (seconds_per_tick or tempo * 1e-6 / ticks_per_quarter)
        if message.type == "set_tempo":
            tempo = message.tempo
        elif message.type in ("note_on", "note_off"):
            end(message.channel, message.note)
            if message.type == "note_on" and message.velocity:
                sounding[message.channel, message.note] = now_s, message.velocity / 127
    for channel, pitch in list(sounding):
        end(channel, pitch)
    return sorted(notes)


def write_midi(path: str | Path, notes: Iterable[Note]) -> None:
    """Write notes as a MIDI file of one track at 120 bpm, whole or not at all.

    Times are rounded to 1/1920 s. Reading the file returns the same notes, but of two that overlap
    in pitch and channel the earlier ends where the later begins.

    Raises:
        ValueError: If a note has no MIDI pitch, ends before it begins, or begins before 0.
        OSError: If the file cannot be written.
    """
    import mido

    events: list[tuple[int, int, int, int, int]] = []
    for note in notes:
        if not (0 <= note.pitch <= 127 and 0 <= note.start_s <= note.end_s):
            raise ValueError(f"{note} cannot be written as MIDI; check its pitch and its times.")
        start = round(note.start_s * TICKS_PER_SECOND)
        stop = max(round(note.end_s * TICKS_PER_SECOND), start + 1)
        velocity = min(max(round(127 * note.strength), 1), 127)
        # At equal ticks notes end before others begin.
        events.append((start, 1, note.channel, note.pitch, velocity))
        events.append((stop, 0, note.channel, note.pitch, 0))
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=MICROSECONDS_PER_QUARTER)])
    now = 0
    for ticks, is_onset, channel, pitch, velocity in sorted(events):
        kind = "note_on" if is_onset else "note_off"
        track.append(
            mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=ticks - now)
        )
        now = ticks
    file = mido.MidiFile(type=0, ticks_per_beat=TICKS_PER_QUARTER, tracks=[track])
    with atomic_write(Path(path)) as temporary:
        file.save(temporary)
