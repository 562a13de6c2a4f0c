"""Every command in words, and small material that it works on: for laws over all commands."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audio_files import noise, write
from diffwave_data import TINY as DIFFUSION
from rave_models import SHORT, remember, write_run
from rave_runs import TINY as CODEC
from strangers import diffusion_run, prior_run
from test_diffwave_waveform import GOLDEN, make_checkpoint
from test_diffwave_waveform import write_run as write_vocoder
from test_rave_prior import SETTINGS as PRIOR

from diffwave.__main__ import PROGRAMS
from rave.main_cli import AVAILABLE_SCRIPTS, main

RATE_HZ, NUM_SAMPLES = 44100, 2500
ALL = {f"rave {name}" for name in AVAILABLE_SCRIPTS} | {f"diffwave {name}" for name in PROGRAMS}
# What holds the files that a command reads.
FOLDERS = ("audio", "latents", "shards", "prepared", "spectrograms", "controls", "mels")
OTHERS = ("codec", "prior", "diffusion", "vocoder")


def sets(values: Sequence[str], *more: str) -> str:
    """Return settings of a recipe as words."""
    return " ".join(f"--set {value.replace(' ', '')}" for value in (*values, *more))


# Each command, in each of its ways: its words, and those that make something else of the same.
COMMANDS = {
    "rave augment": ("{audio} {out} --semitones -12", "--seed 1"),
    "rave preprocess": ("{audio} {out}", "--channels 2"),
    "rave train": (f"v2 --data {{prepared}} --out {{out}} {sets(CODEC)}", ""),
    "rave encode": ("{codec} {audio} {out} --sample", "--seed 1"),
    "rave shard": ("{latents} {out}", "--seed 1"),
    "rave unshard": ("{shards} {out}", ""),
    "rave decode": ("{codec} {latents} {out}", "--seed 1"),
    "rave generate": ("{codec} {audio} {out}", "--seed 1"),
    "rave transcribe": ("{audio} {out}", ""),
    "rave interpolate": ("{codec} {one} {one} {out} --steps 2", "--seed 1"),
    "rave evaluate": ("{audio} {audio} --out {out}.json", ""),
    "rave train_prior": (f"{{latents}} --out {{out}} {sets(PRIOR)}", ""),
    "rave sample_prior": ("{prior} {out} --count 1 --seconds 0.5", "--seed 1"),
    "rave export": ("{codec} {out}.ts", ""),
    "diffwave preprocess": ("{latents} {audio} {out} --mel-hop 64", "--mels 40"),
    "diffwave preprocess, controls": ("{latents} {audio} {out} --controls loudness", ""),
    "diffwave train": (
        "{latents} --out {out} --config tiny --spectrograms {spectrograms} "
        f"--controls {{controls}} {sets(DIFFUSION)}",
        "",
    ),
    "diffwave inference": ("{diffusion} {out} --count 1 --seconds 0.5 --steps 2", "--seed 1"),
    "diffwave vocode, spectrograms": ("{audio} {out} --make-spectrograms --mels 8", "--mels 40"),
    "diffwave vocode, mels": ("{vocoder} {out} --fast --spectrogram {mels}", "--seed 1"),
    "diffwave vocode, audio": ("{vocoder} {out} --fast --from-audio {audio}", "--seed 1"),
    "diffwave evaluate": ("{diffusion} {latents} {audio} --codec {codec} --out {out}", ""),
    "diffwave diagnose": ("{latents} --out {out} --config tiny", ""),
    "diffwave export": ("{diffusion} {out}", ""),
    "diffwave experiments": (
        "{latents} {out} --spectrograms {spectrograms} --run mse --threads 2",
        "",
    ),
}
TRAINERS = {"rave train", "rave train_prior", "diffwave train"}
SERVERS = {"rave app"}  # end when they are stopped
# Those that need more than the material to come to an end.
LARGE = {"rave evaluate", "diffwave evaluate", "diffwave diagnose", "diffwave experiments"}


def command(name: str) -> str:
    """Return which of the commands a way is of."""
    return name.partition(",")[0]


def places(folder: Path) -> dict[str, Path]:
    """Return where each part of the material lies below a folder."""
    return {name: folder / name for name in (*FOLDERS, *OTHERS)}


def call(name: str, at: dict[str, Path], out: Path, *more: str) -> int:
    """Run a command of the table in this process, with more words; return its exit code."""
    one = min(at["audio"].iterdir())
    words = [word.format(**at, one=one, out=out) for word in COMMANDS[name][0].split()]
    package, verb = command(name).split()
    if package == "rave":
        return main([verb, *words, *more])
    place = f"diffwave.{verb}" + ".__main__" * (verb == "experiments")
    code: int = importlib.import_module(place).main([*words, *more])
    return code


def make(folder: Path, names: Sequence[str] = ("a.wav", "b.wav")) -> dict[str, Path]:
    """Write the material below a folder: recordings of these names, and what is made of them."""
    at = places(folder)
    for number, name in enumerate(names):
        write(at["audio"] / name, noise(NUM_SAMPLES + 100 * number, seed=number), RATE_HZ)
    remember(write_run(at["codec"], "v2", *SHORT), *[True] * 4)
    for name, out in (
        ("rave preprocess", "prepared"),
        ("rave encode", "latents"),
        ("rave shard", "shards"),
        ("diffwave preprocess", "spectrograms"),
        ("diffwave preprocess, controls", "controls"),
        ("diffwave vocode, spectrograms", "mels"),
    ):
        assert call(name, at, at[out]) == 0, name
    prior_run(at["prior"])
    diffusion_run(at["diffusion"])
    with np.load(GOLDEN) as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    write_vocoder(at["vocoder"], make_checkpoint(weights, "conditional"))
    return at


def files_in(folder: Path) -> set[str]:
    """Return the names of all that lies in a folder, relative to it."""
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return {path.relative_to(folder).as_posix() for path in found}


def _state() -> dict[str, Any]:
    """Return what a process has one of."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "umask": umask,
        "folder": os.getcwd(),
        "variables": dict(os.environ),
        "random": random.getstate(),
        "numpy.random": str(np.random.get_state()),
        "numpy.errors": np.geterr(),
        "torch.random": torch.get_rng_state().tolist(),
        "torch.threads": torch.get_num_threads(),
        "torch.grad": torch.is_grad_enabled(),
        "torch.inference": torch.is_inference_mode_enabled(),
        "torch.deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch.warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "torch.cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "torch.dtype": torch.get_default_dtype(),
        "torch.matmul": torch.get_float32_matmul_precision(),
        "torch.autocast": torch.is_autocast_enabled("cpu"),
    }


def _handler(number: int, frame: object) -> None:
    raise AssertionError("a signal that nobody sent")


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Check that a block leaves the process as it found it, in a state that no command chooses."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    umask = os.umask(0o027)
    try:
        for number in former:
            signal.signal(number, _handler)
        random.seed(71)
        torch.manual_seed(72)
        before = _state()
        yield
        after = _state()
        assert [name for name in before if before[name] != after[name]] == []
    finally:
        os.umask(umask)
        for number, handler in former.items():
            signal.signal(number, handler)
