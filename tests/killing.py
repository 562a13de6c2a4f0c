"""Kill a command again and again at random moments, and compare with one that was left alone.

    python tests/killing.py FOLDER NUM_KILLS SEED SHORT MODULE ARGUMENT…

The command is run in FOLDER/alone, first with the arguments SHORT too, a list in JSON, to see what
it imports; and in FOLDER/killed, where it is killed, and given again, until NUM_KILLS have hit it;
one that was quicker is compared, and begun anew. Prints one JSON object. It forks, so that
libraries must have one thread: OMP_NUM_THREADS and OPENBLAS_NUM_THREADS.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

LEFT_OUT = "tensorboard/"  # curves: files named after the time


def start(module: str, arguments: list[str], folder: Path, modules: Path | None = None) -> int:
    """Begin a command in a folder, and return the number of its process."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        log = os.open(folder.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = importlib.import_module(module).main(arguments)
        if modules is not None:
            modules.write_text(json.dumps(sorted(sys.modules)))
    finally:
        os._exit(code)


def finish(process: int) -> None:
    """Wait until a command has ended well."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == 0, f"the command ended with code {code}"


def preload(modules: Path) -> None:
    """Import what the command imports, so that kills hit its work and not its start."""
    for name in json.loads(modules.read_text()):
        try:
            importlib.import_module(name)
        except BaseException:  # what is no module to import by itself
            continue


def files_of(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are compared, by name."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in found.items() if LEFT_OUT not in name}


def open_whole(path: Path) -> Any:
    """Return what a file holds; raises if it is half written."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".wav":
        return soundfile.read(path, dtype="int16")
    if path.suffix == ".ckpt":
        return torch.load(path, weights_only=True)
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()


def check_whole(folder: Path) -> None:
    """Check that whatever a kill left under its own name can be read."""
    for path in files_of(folder).values():
        if not path.name.startswith(".partial-"):
            open_whole(path)


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Return where two contents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return [place]
        return [d for key in one for d in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [place]
        pairs = zip(one, other, strict=True)
        return [d for i, pair in enumerate(pairs) for d in differences(*pair, f"{place}/{i}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [place]
    if isinstance(one, np.ndarray):
        return [] if np.array_equal(one, other) else [place]
    return [] if one == other else [place]


def compare(alone: Path, killed: Path) -> list[str]:
    """Return in what two folders differ."""
    wanted, found = files_of(alone), files_of(killed)
    differing = [f"only one has {name}" for name in set(wanted) ^ set(found)]
    for name in sorted(set(wanted) & set(found)):
        if wanted[name].read_bytes() != found[name].read_bytes():
            differing += differences(open_whole(wanted[name]), open_whole(found[name]), name)
    return differing


def main(
    folder: Path, num_kills: int, seed: int, short: list[str], module: str, arguments: list[str]
) -> int:
    """Kill, compare and report."""
    alone, killed, modules = folder / "alone", folder / "killed", folder / "modules.json"
    finish(start(module, [*arguments, *short], alone, modules))
    preload(modules)
    shutil.rmtree(alone)
    began = time.perf_counter()
    finish(start(module, arguments, alone))
    duration_s = time.perf_counter() - began
    draw = random.Random(seed)
    num_whole, differing, moments = 0, [], []
    while len(moments) < num_kills and not differing:
        process = start(module, arguments, killed)
        moment_s = draw.uniform(0, duration_s)
        time.sleep(moment_s)
        if os.waitpid(process, os.WNOHANG)[0]:  # done by itself
            differing, num_whole = compare(alone, killed), num_whole + 1
            shutil.rmtree(killed)
            continue
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        moments.append(moment_s)
        check_whole(killed)
    finish(start(module, arguments, killed))
    differing += compare(alone, killed)
    told = {"duration_s": duration_s, "moments_s": moments, "num_whole": num_whole + 1}
    print(json.dumps({**told, "num_files": len(files_of(alone)), "differing": differing}))
    return 0


if __name__ == "__main__":
    _, where, kills, first_seed, less, name, *rest = sys.argv
    sys.exit(
        main(Path(where).absolute(), int(kills), int(first_seed), json.loads(less), name, rest)
    )
