"""Run two versions of this project on the same inputs, and compare all that they write.

    git worktree add ../before COMMIT
    python -m benchmarks.compare_trees ../before . --out comparison

Each command runs in a process of its own, with one thread, in a folder of its own for each
version. Files are compared byte for byte; checkpoints by their tensors; TorchScript, which names
the modules that its code is from, by its tensors and by what it computes. Curves of TensorBoard,
which hold times, and journals, which hold times of files, are compared by what they list.
Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

RATE_HZ, SECONDS = 22050, 4
CODEC = "CAPACITY=2 LATENT_SIZE=4 RATIOS=[4,2] DILATIONS=[[1],[1]] SCALES=[256,128]"
CODEC += " CROP_SAMPLES=4096 BATCH_SIZE=2 MAX_STEPS=8 PHASE_1_STEPS=4 VALIDATE_EVERY_STEPS=4"
SMALL = "MAX_STEPS=6 BATCH_SIZE=2 SEGMENT_FRAMES=16 VALIDATE_EVERY=3 HIDDEN_CHANNELS=8 NUM_BLOCKS=2"
DIFFUSION = f"{SMALL} HELD_OUT_SEGMENTS=4 WARMUP_STEPS=2 CONDITION_CHANNELS=4 FIDELITY=1.0"
FOLLOW = "--from-audio audio/0.wav --steps 4 --count 2"
FREE = "--seconds 2 --steps 4 --count 3 --seed 3"
# In order; later ones work on what earlier ones wrote.
COMMANDS = {
    "augment": "rave augment audio augmented --semitones -1",
    "preprocess": f"rave preprocess audio prepared --sample-rate {RATE_HZ}",
    "train": f"rave train v2 --data prepared --out codec SET {CODEC}",
    "train noise": f"rave train v2+noise --data prepared --out noisy SET {CODEC}",
    "encode": "rave encode codec audio latents",
    "encode samples": "rave encode codec audio samples --sample --seed 2",
    "shard": "rave shard latents shards",
    "unshard": "rave unshard shards unsharded",
    "decode": "rave decode codec latents decoded --seed 1",
    "decode bent": "rave decode codec latents bent --shift 0=1 --scale 1=0.5 --codec-rate",
    "generate": "rave generate codec audio generated --match-level",
    "generate noise": "rave generate noisy audio generated-noisy",
    "interpolate": "rave interpolate codec audio/0.wav audio/1.wav blends --steps 3",
    "evaluate": "rave evaluate augmented audio --out evaluation.json",
    "train prior": f"rave train_prior latents --out prior SET {SMALL} SKIP_CHANNELS=4",
    "sample prior": "rave sample_prior prior from-prior --seconds 2 --count 2",
    "export": "rave export codec codec.ts",
    "export live": "rave export codec live.ts --streaming",
    "controls": "diffwave.preprocess latents audio controls --controls loudness chroma onsets",
    "spectrograms": "diffwave.preprocess latents audio spectrograms --mel-hop 64",
    "train free": f"diffwave.train latents --out free --config tiny SET {DIFFUSION}",
    "train shards": f"diffwave.train shards --out of-shards --config tiny SET {DIFFUSION}",
    "train controls": "diffwave.train latents --out following --config tiny "
    f"--controls controls loudness chroma SET {DIFFUSION} PREDICTION='flow'",
    "train spectrograms": "diffwave.train latents --out spectral --config tiny "
    f"--spectrograms spectrograms SET {DIFFUSION} WEIGHTING='min-snr'",
    "generate free": f"diffwave.inference free out-free {FREE}",
    "generate long": "diffwave.inference free out-long --seconds 8 --window 1 --steps 3 --count 1",
    "sampler ddim": f"diffwave.inference free out-ddim {FREE} --sampler ddim",
    "follow controls": f"diffwave.inference following out-controls {FOLLOW} --guidance 2",
    "follow spectrogram": f"diffwave.inference spectral out-spectral {FOLLOW}",
    "vary": "diffwave.inference free out-vary --vary latents/0.npy --strength 0.6 --steps 4",
    "inpaint": "diffwave.inference free out-inpaint --inpaint latents/0.npy --from 1 --to 2 "
    "--steps 4",
    "continue": "diffwave.inference free out-continue --continue latents/0.npy --seconds 1 "
    "--steps 4",
    "decode generated": "rave decode codec out-free out-free-audio",
    "diagnose latents": "diffwave.diagnose latents --out of-latents --config tiny",
    "diagnose run": "diffwave.diagnose following --codec codec --out of-run",
    "export lmnt": "diffwave.export free lmnt",
    "export nn": "diffwave.export free free.ts --codec codec",
}
UNSTABLE = (".png", ".tmp")  # of pictures, the figures are compared


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both versions, compare, print a line for each command, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="tree of one version")
    parser.add_argument("after", type=Path, help="tree of the other")
    parser.add_argument("--out", type=Path, required=True, help="folder to work in, new")
    options = parser.parse_args(arguments)
    trees = {"before": options.before.resolve(), "after": options.after.resolve()}
    places = {name: (options.out / name).resolve() for name in trees}
    make_audio(places["before"] / "audio")
    shutil.copytree(places["before"], places["after"])  # times of files, too
    num_different, seen = 0, set[str]()
    for name, words in COMMANDS.items():
        printed = [run(trees[side], place, words) for side, place in places.items()]
        found = [contents(place) for place in places.values()]
        new = {path for each in found for path in each} - seen
        seen |= new
        different = sorted(path for path in new if found[0].get(path) != found[1].get(path))
        if printed[0] != printed[1]:
            different.insert(0, "what it prints")
        num_different += len(different)
        what = "DIFFERENT: " + ", ".join(different) if different else "equal"
        print(f"{name}: {len(new)} files, {what}", flush=True)
    print(f"{len(COMMANDS)} commands, {len(seen)} files, {num_different} different")
    return int(num_different > 0)


def make_audio(folder: Path) -> None:
    """Write recordings: decaying tones with a little noise."""
    folder.mkdir(parents=True)
    time = np.arange(SECONDS * RATE_HZ) / RATE_HZ
    for number, frequency_hz in enumerate((220, 277, 330, 440, 495, 660)):
        noise = np.random.default_rng(number).standard_normal(len(time))
        tone = np.sin(2 * np.pi * frequency_hz * time) * np.exp(-3 * (time % 0.5))
        soundfile.write(folder / f"{number}.wav", 0.3 * tone + 0.01 * noise, RATE_HZ)


def run(tree: Path, folder: Path, words: str) -> str:
    """Run a command of a tree in a folder, and return what it prints as JSON."""
    command, _, settings = words.partition(" SET ")
    program, *rest = command.split()
    rest += [part for setting in settings.split() for part in ("--set", setting)]
    module = "rave.main_cli" if program == "rave" else program
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *rest, "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{words}: exit code {done.returncode} of {tree}\n{done.stderr}")
    return without_times(json.loads(done.stdout.replace(str(folder), "")))


def without_times(figures: Any) -> str:
    """Return figures as text, without times and sizes of files: names of modules have lengths."""
    if isinstance(figures, dict):
        kept = (name for name in figures if not name.endswith(("seconds", "size_mib")))
        figures = {name: without_times(figures[name]) for name in kept}
    return json.dumps(figures, sort_keys=True)


def contents(folder: Path) -> dict[str, Any]:
    """Return what stands for the contents of each file below a folder."""
    return {path.relative_to(folder).as_posix(): value for path, value in _contents(folder)}


def _contents(folder: Path) -> Iterator[tuple[Path, Any]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in UNSTABLE or "tfevents" in path.name:
            continue
        if path.suffix == ".jsonl":
            records = [json.loads(line) for line in path.read_text().splitlines()]
            yield path, [_without_stamps(record) for record in records]
        elif path.suffix == ".ts":
            yield path, of_module(path)
        elif zipfile.is_zipfile(path):
            yield path, of_tensors(torch.load(path, map_location="cpu", weights_only=False))
        else:
            content = path.read_bytes().replace(str(folder).encode(), b"")
            yield path, sha256(content).hexdigest()


def _without_stamps(record: Any) -> Any:
    if isinstance(record, dict):
        return {k: _without_stamps(v) for k, v in record.items() if "stamp" not in k}
    return record


def of_tensors(content: Any) -> Any:
    """Return what stands for tensors in any nesting of a checkpoint."""
    if isinstance(content, torch.Tensor):
        return sha256(content.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(content, dict):
        return {str(key): of_tensors(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [of_tensors(value) for value in content]
    return repr(content)


def of_module(path: Path) -> Any:
    """Return what stands for the tensors of a module and for what it makes of noise."""
    module = torch.jit.load(str(path)).eval()
    made = {}
    torch.manual_seed(0)
    for method in ("encode", "decode", "forward", "sample"):
        if hasattr(module, f"{method}_params"):
            rows, ratio, *_ = getattr(module, f"{method}_params").tolist()
            values = torch.randn(1, int(rows), max(8192 // int(ratio), 1))
            made[method] = of_tensors(getattr(module, method)(values))
    return of_tensors({**module.state_dict(), **dict(module.named_buffers())}), made


if __name__ == "__main__":
    sys.exit(main())
