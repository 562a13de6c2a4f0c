"""What is measured on: models with random weights and synthesized recordings, made once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.comparison import Bench

RATE_HZ = 44100
V2_HOP = 2048
# Sizes of v2 for --quick; the strides stay, so that a frame is as long.
QUICK_V2 = ("CAPACITY=4", "LATENT_SIZE=8")
SHORTEST_S, LONGEST_S = 0.5, 8.0
SEED = 0


def codec(bench: Bench) -> Path:
    """Return a v2 of default sizes with random weights, mono, 44.1 kHz, in a run folder."""
    folder = bench.work / "codec"
    if not (folder / "checkpoints").exists():
        write_codec(folder, bench.size((), QUICK_V2))
    return folder


def latent_size(bench: Bench) -> int:
    """Return the latents of `codec`."""
    size: int = bench.size(128, 8)
    return size


def write_codec(folder: Path, settings: tuple[str, ...]) -> None:
    """Write a run of v2 that was not trained."""
    import torch

    from rave import experiment
    from rave.files.atomic import atomic_write
    from rave.runs.checkpoint import last_checkpoint

    torch.manual_seed(SEED)
    experiment.parse_recipe("rave", "v2", settings)
    model = experiment.build_model()
    size = len(model.fidelity)
    model.fidelity.copy_(torch.arange(1, size + 1) / size)  # an export keeps all latents
    config = experiment.resolved_config()
    experiment.save_run(folder, "rave", config, config)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    with atomic_write(last_checkpoint(folder)) as temporary:
        torch.save({"state_dict": weights, "global_step": 0}, temporary)


def acids_run(bench: Bench) -> Path:
    """Return the same weights as a run of acids-rave."""
    folder = bench.work / "acids-run"
    if not folder.exists():
        rave("export", str(codec(bench)), str(folder), "--format", "acids-rave")
    return folder


def rave(*arguments: str) -> None:
    """Run our command `rave` to make an input.

    Raises:
        ValueError: If it fails; the message is its own.
    """
    _command([sys.executable, "-m", "rave.main_cli", *arguments])


def _command(command: list[str]) -> None:
    from benchmarks.harness import ROOT

    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or ["no message"])[-1])


def music(duration_s: float, seed: int = SEED) -> NDArray[Any]:
    """Return audio (1, T): notes that die away, and noise."""
    import numpy as np

    rng = np.random.default_rng(seed)
    time = np.arange(max(int(duration_s * RATE_HZ), 1)) / RATE_HZ
    pitches_hz = 55.0 * 2 ** (rng.integers(0, 48, len(time) // RATE_HZ * 4 + 1) / 12)
    note = np.minimum((time * 4).astype(int), len(pitches_hz) - 1)
    decay = np.exp(-3 * (time - note / 4))
    audio = 0.3 * decay * np.sin(2 * np.pi * pitches_hz[note] * time)
    noise = 0.01 * rng.standard_normal(len(time))
    mixed: NDArray[Any] = (audio + noise).astype(np.float32)[None]
    return mixed


def array(bench: Bench, name: str, values: NDArray[Any]) -> Path:
    """Write an array for every side to read, and return its path."""
    import numpy as np

    path = bench.work / f"{name}.npy"
    np.save(path, values)
    return path


def latents(bench: Bench, num_frames: int) -> Path:
    """Return normal latents (D, N) for `codec`."""
    import numpy as np

    shape = (latent_size(bench), num_frames)
    values = np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)
    return array(bench, f"latents-{num_frames}", values)


def recordings(bench: Bench, count: int, shortest_s: float, longest_s: float) -> Path:
    """Return a folder of WAV files whose lengths are spread evenly over their logarithm."""
    import numpy as np

    from rave.audio.io import write_audio

    folder = bench.work / f"recordings-{count}-{longest_s:g}s"
    if folder.exists():
        return folder
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    durations_s = np.geomspace(shortest_s, longest_s, count)
    source = music(longest_s)
    for index, duration_s in enumerate(np.random.default_rng(SEED).permutation(durations_s)):
        audio = source[:, : int(duration_s * RATE_HZ)]
        path = partial / f"{index:04d}.wav"
        write_audio(path, [audio], RATE_HZ, 1, audio.shape[1])
    partial.rename(folder)
    return folder


def blocks(duration_s: float) -> Iterator[NDArray[Any]]:
    """Yield audio (1, t) of a length in seconds without ever holding it."""
    second, left = music(1.0), round(duration_s * RATE_HZ)
    while left > 0:
        yield second[:, :left]
        left -= second.shape[1]


def seconds_in(folder: Path) -> float:
    """Return how long the recordings of a folder are in all."""
    import soundfile

    return float(sum(soundfile.info(str(path)).duration for path in folder.iterdir()))


def prepared(bench: Bench) -> Path:
    """Return what `rave preprocess` makes of some recordings."""
    folder = bench.work / "prepared"
    if not folder.exists():
        source = recordings(bench, *bench.size((20, 30.0, 30.0), (2, 4.0, 4.0)))
        rave("preprocess", str(source), str(folder), "--sample-rate", str(RATE_HZ))
    return folder
