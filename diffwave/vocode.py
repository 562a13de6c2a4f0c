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
SPECTROGRAM_OPTIONS = ("sample_rate", "mels")
AUDIO_OPTIONS = ("spectrogram", "from_audio", "count", "seconds", "fast", "seed", "device")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = command_parser(
        "python -m diffwave.vocode",
        "Generate audio with a waveform run of lmnt diffwave, from spectrograms or from noise.\n"
        "With --make-spectrograms: make the spectrograms that such a run follows.",
        "python -m diffwave.vocode lmnt/weights.pt out.wav --spectrogram a.wav.spec.npy --fast\n"
        "  python -m diffwave.vocode recordings spectrograms --make-spectrograms",
    )
    options.add_argument("source", type=existing(SOURCE), metavar="RUN|AUDIO_DIR", help=SOURCE)
    options.add_argument(
        "out", type=Path, metavar="OUT", help="folder to write, or a file OUT.wav or OUT.flac"
    )
    options.add_argument(
        "--force", action="store_true", help="replace files, or a folder made with other settings"
    )
    audio = options.add_argument_group("to generate audio")
    audio.add_argument(
        "--spectrogram",
        type=existing("a file or folder of --make-spectrograms"),
        metavar="F.spec.npy",
        help="spectrogram to follow, or a folder of them",
    )
    audio.add_argument(
        "--from-audio",
        type=existing("an audio file, or a folder of them"),
        metavar="F",
        help="audio file to follow, or a folder of them",
    )
    audio.add_argument("--count", type=int, help="clips to generate (default 1)")
    audio.add_argument(
        "--seconds",
        type=float,
        help="length of each clip, for a run without spectrograms (default: as in its training)",
    )
    audio.add_argument("--fast", action="store_true", help="use the run's short noise schedule")
    making = options.add_argument_group("to make spectrograms")
    making.add_argument(
        "--make-spectrograms",
        action="store_true",
        help="write FILE.spec.npy for every audio file; OUT may be AUDIO_DIR",
    )
    making.add_argument("--sample-rate", type=int, help="sample rate in Hz (default 22050)")
    making.add_argument("--mels", type=int, help="mel bands (default 80)")
    add_seed(options)
    add_device(options)
    options.set_defaults(seed=None, device=None)  # so that --make-spectrograms can refuse them
    return options


def run(options: argparse.Namespace) -> Result:
    """Generate audio, or make spectrograms."""
    values = {name: value for name, value in keywords(options).items() if value is not None}
    is_making = values.pop("make_spectrograms")
    for name in AUDIO_OPTIONS if is_making else SPECTROGRAM_OPTIONS:
        if values.get(name, False) is not False:
            verb = "does not work with" if is_making else "works only with"
            raise ValueError(f"--{name.replace('_', '-')} {verb} --make-spectrograms.")
    from diffwave.api.vocode import make_vocoder_spectrograms, vocode_audio

    source, out = values.pop("source"), values.pop("out")
    if is_making:
        del values["fast"]
        return make_vocoder_spectrograms(source, out, **values)
    return vocode_audio(source, out, **values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
