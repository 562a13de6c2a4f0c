"""`rave transcribe`: audio → the notes that are heard in it, as MIDI."""

from __future__ import annotations

import argparse
from pathlib import Path

from rave.api.result import Result
from rave.cli import command_parser, keywords
from rave.parsing import existing


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave transcribe`."""
    parser = command_parser(
        "rave transcribe",
        "Write the notes that are heard in recordings as MIDI: onset, end, pitch and strength. Any "
        "instrument with pitch, one or several notes at a time.",
        "rave transcribe recordings notes",
    )
    parser.add_argument(
        "audio", type=existing("audio, or a folder of it"), help="audio file, or folder of them"
    )
    parser.add_argument("out", type=Path, help="MIDI file to write; for a folder, a folder")
    parser.add_argument("--force", action="store_true", help="replace what is in the way")
    return parser


def run(options: argparse.Namespace) -> Result:
    """Transcribe, and report how many notes were heard."""
    from rave.api.transcribe import transcribe_audio

    return transcribe_audio(**keywords(options))
