"""Compare `rave transcribe` with basic-pitch's own package on the same audio.

    python -m benchmarks.upstream.transcription ENVIRONMENT AUDIO …

makes an environment with basic-pitch (onnxruntime instead of TensorFlow), transcribes each file and
some signals with both, and prints a table: notes of each, F1 of onsets within 50 ms, and with ends.
"""

from __future__ import annotations

import json
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

import mir_eval
import numpy as np
import soundfile

from benchmarks.upstream.environment import run_there
from rave.audio.io import AudioStream
from rave.notes.note import Note
from rave.notes.scores import intervals
from rave.notes.transcriber import SAMPLE_RATE_HZ, Transcriber

PINS = ("basic-pitch==0.4.0",)
PINS_WITH_DEPENDENCIES = (
    *("numpy==2.4.6", "scipy==1.17.1", "librosa==0.11.0", "mir_eval==0.8.2", "onnxruntime==1.27.0"),
    *("pretty_midi==0.2.11", "resampy==0.4.3", "setuptools<81"),
)
THEIRS = """
import json, sys
from basic_pitch.inference import Model, predict
model = Model(sys.argv[1])
found = {}
for path in sys.argv[3:]:
    _, _, notes = predict(path, model)
    found[path] = [(float(a), float(b), int(p), float(s)) for a, b, p, s, _ in notes]
json.dump(found, open(sys.argv[2], "w"))
"""


def signals(folder: Path) -> list[Path]:
    """Write silence, noise and clicks of 8 s into a folder, and return their paths."""
    rng, size = np.random.default_rng(0), 8 * SAMPLE_RATE_HZ
    clicks = np.zeros(size)
    clicks[:: SAMPLE_RATE_HZ // 4] = 0.9
    audio = {"silence": np.zeros(size), "noise": 0.1 * rng.standard_normal(size), "clicks": clicks}
    for name, samples in audio.items():
        soundfile.write(folder / f"{name}.wav", samples, SAMPLE_RATE_HZ)
    return [folder / f"{name}.wav" for name in audio]


def theirs(environment: Path, paths: Sequence[Path], folder: Path) -> dict[str, list[Note]]:
    """Return the notes that basic-pitch finds in audio files, by path."""
    python = environment / "bin" / "python"
    if not (environment / "basic-pitch-installed").exists():
        venv.create(environment, with_pip=True, clear=True)
        for pins in (PINS_WITH_DEPENDENCIES, ("--no-deps", *PINS)):
            run_there(python, "-m", "pip", "install", "--quiet", *pins)
        (environment / "basic-pitch-installed").touch()
    weights = next(environment.glob("lib/python*/site-packages/basic_pitch/**/nmp.onnx"))
    out = folder / "theirs.json"
    run_there(python, "-c", THEIRS, str(weights), str(out), *map(str, paths))
    found = json.loads(out.read_text())
    return {path: sorted(Note(*note) for note in notes) for path, notes in found.items()}


def f1(one: Sequence[Note], other: Sequence[Note], offset_ratio: float | None) -> float:
    """Return mir_eval's F1 of notes; 1 if both have none."""
    if not one or not other:
        return float(not one and not other)
    return float(
        mir_eval.transcription.precision_recall_f1_overlap(
            *intervals(one), *intervals(other), offset_ratio=offset_ratio
        )[2]
    )


def main(environment: Path, paths: Sequence[Path]) -> None:
    """Print the table."""
    transcriber = Transcriber()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [*(path.absolute() for path in paths), *signals(folder)]
        reference = theirs(environment, paths, folder)
        print("| audio | basic-pitch | here | F1 | F1 with ends |\n|---|---|---|---|---|")
        for path in paths:
            right = reference[str(path)]
            found = transcriber.transcribe(AudioStream(path, SAMPLE_RATE_HZ, 1)).notes
            print(
                f"| {path.stem} | {len(right)} | {len(found)} "
                f"| {f1(right, found, None):.4f} | {f1(right, found, 0.2):.4f} |"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
