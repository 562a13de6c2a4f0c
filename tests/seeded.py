"""Commands found by their parsers, and small codecs, models and folders for one of each kind."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audio_files import noise, write
from diffwave_data import settings
from rave_models import remember, write_run
from shard_data import write_folder
from test_diffwave_waveform import GOLDEN, make_checkpoint
from test_diffwave_waveform import write_run as write_vocoder

from diffwave.__main__ import PROGRAMS
from rave.main_cli import AVAILABLE_SCRIPTS, command_module, main

RATE_HZ = 44100  # of the audio, twice that of the codec
# Noisy, and a hop of 128.
CODEC = ("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[1, 3], [1], [1]]", "SAMPLE_RATE_HZ=22050")
PRIOR = ("MAX_STEPS=1", "VALIDATE_EVERY=1", "SEGMENT_FRAMES=8", "BATCH_SIZE=2")
PRIOR = (*PRIOR, "HIDDEN_CHANNELS=4", "SKIP_CHANNELS=4", "NUM_BLOCKS=1")
DIFFUSION = ("MAX_STEPS=1", "FIDELITY=1.0", "VALIDATE_EVERY=1")


def program(name: str) -> Any:
    """Return the module of a program of diffwave."""
    return import_module(f"diffwave.{name}" + ".__main__" * (name == "experiments"))


def parsers() -> Iterator[tuple[str, Any]]:
    """Yield name and parser of every command."""
    for name in AVAILABLE_SCRIPTS:
        yield f"rave {name}", command_module(name).parser()
    for name in PROGRAMS:
        yield f"diffwave {name}", program(name).parser()


def call(command: str, words: list[str]) -> int:
    """Run a command, and return its exit code."""
    package, name = command.split()
    if package == "rave":
        return main([name, *words])
    code: int = program(name).main(words)
    return code


def sets(names: tuple[str, ...]) -> list[str]:
    """Return the options that change a recipe."""
    return [word for each in names for word in ("--set", each)]


def make_codec(folder: Path, seed: int = 0) -> str:
    """Write a codec that knows that one dimension of four is uninformative; return its path."""
    write_run(folder, *CODEC, seed=seed)
    remember(folder, True, False, True, True)
    return str(folder)


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Return what each file of a folder holds, but journals, which hold times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and path.suffix != ".jsonl"
    }


def make_places(folder: Path) -> dict[str, str]:
    """Make what commands read, and return the path of each by its name."""
    names = ("audio", "latents", "prior", "diffusion", "many")
    place = {name: str(folder / name) for name in names}
    for index, (name, length) in enumerate((("a", 9000), ("sub/b", 7000))):
        write(folder / "audio" / f"{name}.wav", noise(length, seed=index), RATE_HZ)
    place["codec"] = make_codec(folder / "codec")
    assert main(["encode", place["codec"], place["audio"], place["latents"]]) == 0
    words = [place["latents"], "--device", "cpu", "--out"]
    prior = [place["prior"], "--config", "prior/tiny", *sets(PRIOR)]
    assert main(["train_prior", *words, *prior]) == 0
    assert program("train").main([*words, place["diffusion"], *settings(*DIFFUSION)]) == 0
    write_folder(folder / "many")
    return place | make_audio_models(folder)


def make_audio_models(folder: Path) -> dict[str, str]:
    """Make waveform runs with a spectrogram and without, and spectrograms; return their paths."""
    kinds = {
        "vocoder": "unconditional",
        "follower": "conditional",
        "other_follower": "conditional",
    }
    with np.load(GOLDEN) as found:
        arrays = {name: torch.from_numpy(found[name]) for name in found.files}
    place = {name: str(folder / name) for name in (*kinds, "spectrograms")}
    for name, kind in kinds.items():
        write_vocoder(folder / name, make_checkpoint(arrays, kind))
    (folder / "spectrograms").mkdir()
    for name in "ab":
        np.save(folder / "spectrograms" / f"{name}.spec.npy", arrays["spectrogram"][0].numpy())
    return place
