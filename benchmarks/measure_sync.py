"""Measure what it costs that `rave preprocess` brings 1,000 files onto the disk, not to its cache.

    python -m benchmarks.measure_sync FOLDER [NUM_FILES] [SECONDS] [ROUNDS]

FOLDER is made on the disk to be measured. Each round prepares the same recordings as it is, and
with `os.fsync` replaced by nothing, in turns. Prints the medians in s, and their ratio.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from rave.main_cli import main as rave

RATE_HZ = 44100
FSYNC = os.fsync


def measure(audio: Path, out: Path) -> float:
    """Return the seconds that `rave preprocess` takes."""
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        assert rave(["preprocess", str(audio), str(out)]) == 0
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def main(folder: Path, num_files: int = 1000, duration_s: int = 10, num_rounds: int = 5) -> None:
    """Write recordings, and prepare them in turns."""
    audio = folder / "audio"
    audio.mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal((duration_s * RATE_HZ, 2))
    for number in range(num_files):
        soundfile.write(audio / f"{number:04d}.wav", np.roll(noise, number, axis=0), RATE_HZ)
    found: dict[str, list[float]] = {"with": [], "without": []}
    measure(audio, folder / "out")
    for _ in range(num_rounds):
        for way, fsync in (("with", FSYNC), ("without", lambda _: None)):
            os.sync()
            os.fsync = fsync
            found[way].append(measure(audio, folder / "out"))
            print(f"{way}: {found[way][-1]:.2f} s", file=sys.stderr, flush=True)
    shutil.rmtree(folder)
    medians = {way: statistics.median(seconds) for way, seconds in found.items()}
    print(medians, f"ratio {medians['with'] / medians['without']:.3f}", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
