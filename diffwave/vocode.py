# PYTHON_ARGCOMPLETE_OK
"""`python -m diffwave.vocode`: audio from a waveform run of lmnt diffwave; spectrograms for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rave.api.result import Result
from rave.cli import add_device, add_seed, command_parser, execute, keywords
from rave.parsing import existing

SOURCE = "a waveform run of lmnt diffwave; with --make-spectrograms, a folder of audio files"
OF_SPECTROGRAMS = ("sample_rate", "mels")
OF_AUDIO = ("spectrogram", "from_audio", "count", "seconds", "fast", "seed", "device")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.vocode",
        "Make audio with a waveform run of lmnt diffwave: of a spectrogram, of each of a folder,\n"
        "or from noise. With --make-spectrograms: make the spectrograms that such a run follows.",
        "python -m diffwave.vocode lmnt/weights.pt out.wav --spectrogram a.wav.spec.npy --fast\n"
        "  python -m diffwave.vocode recordings spectrograms --make-spectrograms",
    )
    options.add_argument("source", type=existing(SOURCE), metavar="RUN|AUDIO_DIR", help=SOURCE)
    options.add_argument(
        "out", type=Path, metavar="OUT", help="folder to write, or a file OUT.wav or OUT.flac"
    )
    options.add_argument(
        "--force", action="store_true", help="replace files, or make a folder anew"
    )
    audio = options.add_argument_group("to make audio")
    audio.add_argument(
        "--spectrogram",
        type=existing("what --make-spectrograms wrote"),
        metavar="F.spec.npy",
        help="follow a spectrogram, or each of a folder",
    )
    audio.add_argument(
        "--from-audio",
        type=existing("an audio file, or a folder of them"),
        metavar="F",
        help="follow the spectrogram of an audio file, or of each of a folder",
    )
    audio.add_argument("--count", type=int, help="clips to generate (default 1)")
    audio.add_argument(
        "--seconds",
        type=float,
        help="length of each, of a run without spectrograms (default: as in its training)",
    )
    audio.add_argument(
        "--fast", action="store_true", help="sample with the short schedule of the run"
    )
    making = options.add_argument_group("to make spectrograms")
    making.add_argument(
        "--make-spectrograms",
        action="store_true",
        help="make FILE.spec.npy of every audio file; OUT may be AUDIO_DIR",
    )
    making.add_argument("--sample-rate", type=int, help="in Hz (default 22050)")
    making.add_argument("--mels", type=int, help="mel bands (default 80)")
    add_seed(options)
    add_device(options)
    options.set_defaults(seed=None, device=None)  # so that --make-spectrograms can refuse them
    return options


def run(options: argparse.Namespace) -> Result:
    """Make audio, or spectrograms."""
    given = {name: value for name, value in keywords(options).items() if value is not None}
    is_making = given.pop("make_spectrograms")
    for name in OF_AUDIO if is_making else OF_SPECTROGRAMS:
        if given.get(name, False) is not False:
            verb = "does not go with" if is_making else "belongs to"
            raise ValueError(f"--{name.replace('_', '-')} {verb} --make-spectrograms.")
    from diffwave.api.vocode import make_vocoder_spectrograms, vocode_audio

    source, out = given.pop("source"), given.pop("out")
    if is_making:
        del given["fast"]
        return make_vocoder_spectrograms(source, out, **given)
    return vocode_audio(source, out, **given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
