"""Compare every model of acids-rave with ours, stage by stage.

    python scripts/compare_upstream.py WORK_DIR [--only v2 v1+causal …] [--table FILE.md]

Makes an environment in WORK_DIR/venv with acids-rave from the package index and its own pins
(Python 3.10 or 3.11), lets it build each model tiny with random weights, opens that run here, and
prints the largest difference of each stage, relative to the largest value. Exit code 1 if one is
above 1e-3. What is there already is kept, so that the same command continues.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rave.codec import load_run
from rave.command import Result, command_parser, execute
from rave.files import atomic_write

Array = NDArray[np.float32]
BUILDER = Path(__file__).with_name("upstream_family.py")
BAR = 1e-3
# Of acids-rave's centred synthesis, which ours takes out.
SYNTHESIS_LAG = 16
KINDS = (
    *("v1", "v2", "v2_small", "v2_nopqmf", "v2_with_augs", "v3", "discrete", "discrete_v3"),
    *("v2+wasserstein", "v2+spherical", "hybrid", "v2+noise", "v2+snake", "v2+adain", "v2+causal"),
    *("v1+causal", "v2+causal+noise+snake", "onnx", "raspberry", "v2+spectral_discriminator"),
)
# acids-rave's own pins, and what they leave open as it was when they were made.
PINS = (
    *("acids-rave==2.3.1", "cached-conv==2.5.0", "nn-tilde==1.5.6", "udls==1.1.4", "lmdb==3.0.0"),
    *("torchaudio==2.11.0", "pytorch-lightning==1.9.0", "torchmetrics==1.9.0"),
)
PINS_WITH_DEPENDENCIES = (
    *("torch==2.13.0", "numpy==1.26.4", "scipy==1.10.0", "librosa==0.10.2.post1", "setuptools<81"),
    *("gin-config==0.5.0", "einops", "GPUtil", "scikit-learn", "tensorboard", "Flask", "absl-py"),
    *("PyYAML", "tqdm", "protobuf", "lightning-utilities", "fsspec", "packaging", "requests"),
)


def parser() -> argparse.ArgumentParser:
    """Return the program's options."""
    options = command_parser(
        "compare_upstream.py",
        "Compare every model of acids-rave with ours, stage by stage.",
        "python scripts/compare_upstream.py upstream --table upstream/table.md",
    )
    options.add_argument("work", type=Path, metavar="WORK_DIR", help="for environment and runs")
    options.add_argument("--only", nargs="+", metavar="KIND", default=KINDS, help="some models")
    options.add_argument("--table", type=Path, metavar="FILE.md", help="write the table there too")
    return options


def make_environment(folder: Path) -> Path:
    """Return the Python of an environment with acids-rave; it is made if it is not there.

    Raises:
        ValueError: If this Python is too new for it, or pip fails.
    """
    python = folder / "bin" / "python"
    done = folder / "acids-rave-installed"
    if done.exists():
        return python
    if sys.version_info >= (3, 12):
        raise ValueError(
            "acids-rave 2.3.1 needs scipy 1.10.0, which Python "
            f"{sys.version_info.major}.{sys.version_info.minor} cannot install. Run this program "
            "with Python 3.10 or 3.11."
        )
    venv.create(folder, with_pip=True, clear=True)
    for pins in (PINS_WITH_DEPENDENCIES, ("--no-deps", *PINS)):
        _run([str(python), "-m", "pip", "install", "--quiet", *pins])
    for library in folder.glob("lib/python*/site-packages/torchaudio/**/*.so"):
        library.unlink()  # built for CUDA; acids-rave needs none of it here
    done.touch()
    return python


def _run(command: list[str]) -> None:
    # Not where this project's own `rave` is found.
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(command, capture_output=True, text=True, env=outside)
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"'{' '.join(command[:4])} …' failed: {last[0]}")


def difference(found: torch.Tensor | Array, needed: Array) -> float:
    """Return the largest difference, relative to the largest value needed."""
    ours = np.asarray(found, dtype=np.float64)
    if ours.shape != needed.shape:
        raise ValueError(f"shape {ours.shape} for {needed.shape}")
    return float(np.abs(ours - needed).max() / max(float(np.abs(needed).max()), 1e-12))


@torch.inference_mode()
def compare(run: Path) -> dict[str, float]:
    """Return the difference of each stage that a run of `upstream_family.py` holds."""
    model, _ = load_run(run)
    with np.load(run / "stages.npz") as file:
        needed = {name: file[name] for name in file.files}
    audio = torch.from_numpy(needed["audio"])
    found = {}
    if "bands" in needed:
        found["filter bank"] = difference(model.pqmf.analysis(audio), needed["bands"])
    size = model.latent_size
    mean, _ = model.posterior_parameters(audio)
    is_variational = needed["encoded"].shape[1] == 2 * size
    theirs = needed["encoded" if is_variational else "latents"][:, :size]
    found["latents"] = difference(mean, theirs)
    noise = None
    if "draw_0" in needed:  # (B, steps, rows, block) of theirs, in [0, 1)
        blocks = 2.0 * torch.from_numpy(needed["draw_0"]) - 1.0
        noise = blocks.reshape(1, -1, *blocks.shape[-2:]).permute(0, 2, 1, 3).flatten(2)
    latents = torch.from_numpy(needed["latents"])
    lag = 0
    if not model.is_raw_output:
        bands = model.decode_bands(latents, noise)
        found["decoder"] = difference(bands, needed["decoded_bands"])
        left, right = model.pqmf.synthesis_padding
        lag = SYNTHESIS_LAG if right >= left else 0  # a causal one keeps it
    audio = model.decode(latents, noise)
    theirs = needed["decoded"][..., lag:]
    found["audio"] = difference(audio[..., : theirs.shape[-1]], theirs)
    return found


def run(options: argparse.Namespace) -> Result:
    """Build, compare, and print a table."""
    python = make_environment(options.work.absolute() / "venv")
    rows, failed = [], 0
    for kind in options.only:
        folder = options.work / "runs" / kind
        try:
            if not (folder / "stages.npz").exists():
                _run([str(python), str(BUILDER), "build", kind, str(folder.absolute())])
            found = compare(folder)
        except ValueError as error:
            rows.append((kind, str(error)))
            failed += 1
            continue
        failed += max(found.values()) > BAR
        rows.append((kind, ", ".join(f"{name} {value:.1e}" for name, value in found.items())))
        print(f"{kind}: {rows[-1][1]}", file=sys.stderr, flush=True)
    table = "\n".join(["| model | largest relative difference |", "|---|---|"]
                      + [f"| {kind} | {told} |" for kind, told in rows])  # fmt: skip
    if options.table is not None:
        with atomic_write(options.table) as temporary:
            temporary.write_text(table + "\n")
    return Result(table, {"rows": dict(rows)}, num_skipped=failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return execute(parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
