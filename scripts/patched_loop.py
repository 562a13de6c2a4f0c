"""Patch two upstream trees, install them in a new environment, run the whole loop, and compare.

    python scripts/patched_loop.py RAVE_TREE DIFFWAVE_TREE AUDIO_DIR WORK_DIR [--transcript FILE.md]

RAVE_TREE and DIFFWAVE_TREE are clones or unpacked source archives; they are copied into WORK_DIR.
The loop is that of patches/README.md: preprocess, train, encode, train on the latents, generate,
decode. Then our own commands open the files of the patched ones, and the reverse, and every
length and value is compared. `docs/patched-upstream.md` holds a transcript.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rave.audio.blocks import LevelMeter

ROOT = Path(__file__).resolve().parent.parent
SHOWN_LINES = 8
# A small v2 at 21.5 latent frames a second.
SETTINGS = ("SAMPLING_RATE=22050", "RATIOS=[4,4,2,2]", "CAPACITY=8", "LATENT_SIZE=16")


class Transcript:
    """Commands and the end of their output, as Markdown, on stdout and in a file.

    Args:
        file: File to write. None: stdout only.
        folder: Folder in which the commands run.
        audio: Folder of recordings; shown as `recordings`.
    """

    def __init__(self, file: Path | None, folder: Path, audio: Path) -> None:
        self._file, self.folder, self._audio = file, folder, audio
        self._lines: list[str] = []

    def write(self, text: str) -> None:
        """Add text."""
        text = text.replace(str(self._audio), "recordings").replace(f"{self.folder}/", "")
        text = text.replace(str(self.folder), ".").replace(f"{ROOT}/", "")
        print(text, flush=True)
        self._lines.append(text)
        if self._file is not None:
            self._file.write_text("\n".join(self._lines) + "\n")

    @contextmanager
    def section(self, title: str) -> Iterator[None]:
        """Begin a section of commands."""
        self.write(f"\n## {title}\n\n```")
        yield
        self.write("```")

    def run(
        self,
        *command: str | Path,
        environment: Path | None = None,
        shown: int = SHOWN_LINES,
        only: str = r"\S",
    ) -> None:
        """Run a command in the folder and show the end of its output.

        Args:
            command: Command with arguments.
            environment: Virtual environment of its programs. None: this one.
            shown: Number of lines of output to show.
            only: Regex of the lines to show.

        Raises:
            SystemExit: If it fails, after showing all of its output.
        """
        words = [str(word) for word in command]
        programs = Path(sys.executable).parent if environment is None else environment / "bin"
        self.write("$ " + " ".join(shlex.quote(word) for word in words))
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        start = time.monotonic()
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        # A progress bar writes its states between carriage returns; the last one is shown.
        output = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout.decode(errors="replace"))
        lines = [line.rstrip().split("\r")[-1] for line in output.split("\n")]
        kept = [line for line in lines if re.search(only, line) or (done.returncode and line)]
        if done.returncode:
            self.write("\n".join(kept))
            raise SystemExit(f"'{words[0]} {words[1]}' ended with exit code {done.returncode}.")
        seconds = f"# {time.monotonic() - start:.0f} s\n"
        self.write("\n".join([*(kept[-shown:] if shown else []), seconds]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the loop and the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rave_tree", type=Path)
    parser.add_argument("diffwave_tree", type=Path)
    parser.add_argument("audio", type=Path, help="folder of recordings")
    parser.add_argument("work", type=Path, help="new folder for all results")
    parser.add_argument("--transcript", type=Path, help="markdown file to write")
    parser.add_argument("--rave-steps", type=int, default=300)
    parser.add_argument("--diffwave-steps", type=int, default=300)
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    if work.exists():
        parser.error(f"'{options.work}' exists already. Name a new folder.")
    work.mkdir(parents=True)
    audio = options.audio.resolve()
    environment = work / "venv"
    log = Transcript(options.transcript, work, audio)
    with log.section("Patch and install"):
        patch(log, options.rave_tree, "RAVE")
        patch(log, options.diffwave_tree, "diffwave")
        install(log, environment)
    with log.section("The loop"):
        loop(log, environment, audio, options.rave_steps, options.diffwave_steps)
    with log.section("Theirs in ours"):
        theirs_in_ours(log, audio)
    with log.section("Ours in theirs"):
        our_codec_in_theirs(log, environment, audio)
        our_diffusion_in_theirs(log, environment)


def patch(log: Transcript, tree: Path, name: str) -> None:
    """Copy a tree into the folder and patch the copy."""
    shutil.copytree(tree, log.folder / name, symlinks=True)
    log.run("python", ROOT / "scripts" / "apply_patches.py", name, shown=40)


def install(log: Transcript, environment: Path) -> None:
    """Install both trees in a new environment with the torch that this project is tested with."""
    (log.folder / "constraints.txt").write_text("torch==2.13.0\n")
    log.run("python", "-m", "venv", environment.name, shown=0)
    log.run(
        *("pip", "install", "--quiet", "--constraint", "constraints.txt"),
        *("--editable", "./RAVE", "--editable", "./diffwave"),
        environment=environment,
        shown=0,
    )


def loop(
    log: Transcript, environment: Path, audio: Path, rave_steps: int, diffwave_steps: int
) -> None:
    """Go from recordings to generated audio with the patched commands only."""

    def run(*command: str | Path, shown: int = SHOWN_LINES, only: str = r"\S") -> None:
        log.run(*command, environment=environment, shown=shown, only=only)

    run(
        *("rave", "preprocess", "--input_path", audio, "--output_path", "db"),
        *("--sampling_rate", "22050", "--num_signal", "65536"),
        shown=1,
    )
    overrides = [word for setting in SETTINGS for word in ("--override", setting)]
    run(
        *("rave", "train", "--name", "piano", "--config", "v2", "--db_path", "db"),
        *overrides,
        *("--n_signal", "65536", "--batch", "2"),
        *("--max_steps", str(rave_steps), "--val_every", "100", "--save_every", "100"),
        *("--workers", "1", "--gpu", "-1"),
        only=r"^(train|val) set:|^Compression|^Receptive field|stopped:",
    )
    their_run = trained_run(log)
    run(
        *("rave", "encode", "--model", their_run, "--input", audio, "--out_path", "latents"),
        *("--spectrograms", "spectrograms"),
    )
    run(
        *("python", "-m", "diffwave.train", "diffusion", "latents"),
        *("--spectrograms", "spectrograms", "--max_steps", str(diffwave_steps)),
        *("--set", "residual_channels=96", "--set", "residual_layers=8"),
    )
    spectrogram = first_spectrogram(log)
    run(
        *("python", "-m", "diffwave.inference", "diffusion", "-s", spectrogram),
        *("--seconds", "10", "--count", "2", "-o", "generated"),
    )
    run(
        *("rave", "decode", "--model", their_run, "--input", "generated"),
        *("--out_path", "generated-audio"),
    )
    run(
        *("rave", "decode", "--model", their_run, "--input", "latents"),
        *("--out_path", "reconstructions"),
    )
    log.write("# Levels of the recordings, of their reconstructions, and of what was generated:")
    for folder in (audio, log.folder / "reconstructions", log.folder / "generated-audio"):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav")):
            log.write(describe(path))


def trained_run(log: Transcript) -> Path:
    """Return the run folder of the patched `rave train`, whose name ends in a hash."""
    return next((log.folder / "runs").glob("piano_*"))


def first_spectrogram(log: Transcript) -> Path:
    """Return the spectrogram that both sides follow."""
    return min((log.folder / "spectrograms").rglob("*.npy"))


def theirs_in_ours(log: Transcript, audio: Path) -> None:
    """Open their run, latents and diffusion run with our commands."""
    their_run = trained_run(log)
    log.run("rave", "encode", their_run, audio, "latents-ours")
    log.write(compare_arrays(log.folder / "latents", log.folder / "latents-ours"))
    log.run("rave", "decode", their_run, "generated", "generated-audio-ours")
    log.write(compare_audio(log.folder / "generated-audio", log.folder / "generated-audio-ours"))
    log.run("python", "-m", "diffwave.preprocess", "latents", audio, "spectrograms-ours")
    log.write(compare_arrays(log.folder / "spectrograms", log.folder / "spectrograms-ours"))
    spectrogram = first_spectrogram(log)
    log.run(
        *("python", "-m", "diffwave.inference", "diffusion", "generated-ours"),
        *("--spectrogram", spectrogram, "--seconds", "10", "--count", "2", "--sampler", "ddim"),
    )
    log.write(compare_arrays(log.folder / "generated", log.folder / "generated-ours"))


def our_codec_in_theirs(log: Transcript, environment: Path, audio: Path) -> None:
    """Train our codec on the same recordings, and open its run and latents with theirs."""
    log.run("rave", "preprocess", audio, "prepared", "--sample-rate", "22050")
    log.run(
        *("rave", "train", "tiny", "--data", "prepared", "--out", "our-rave"),
        *("--set", "MAX_STEPS=300", "--set", "PHASE_1_STEPS=300"),
    )
    log.run("rave", "encode", "our-rave", audio, "our-latents")
    log.run("rave", "export", "our-rave", "our-rave-for-acids", "--format", "acids-rave")
    log.run(
        *("rave", "encode", "--model", "our-rave-for-acids", "--input", audio),
        *("--out_path", "our-latents-theirs"),
        environment=environment,
    )
    log.write(compare_arrays(log.folder / "our-latents", log.folder / "our-latents-theirs"))
    log.run("rave", "decode", "our-rave-for-acids", "our-latents-theirs", "our-audio")
    log.run(
        *("rave", "decode", "--model", "our-rave-for-acids", "--input", "our-latents-theirs"),
        *("--out_path", "our-audio-theirs"),
        environment=environment,
    )
    log.write(compare_audio(log.folder / "our-audio", log.folder / "our-audio-theirs"))


def our_diffusion_in_theirs(log: Transcript, environment: Path) -> None:
    """Train our diffusion model on those latents, and generate with theirs."""
    log.run(
        *("python", "-m", "diffwave.train", "our-latents", "--config", "tiny"),
        *("--out", "our-diffusion", "--set", "MAX_STEPS=100"),
    )
    log.run("python", "-m", "diffwave.export", "our-diffusion", "our-diffusion-for-lmnt")
    shared = ("--seconds", "10", "--count", "2")
    log.run(
        *("python", "-m", "diffwave.inference", "our-diffusion", "our-generated", *shared),
        *("--sampler", "ddim"),
    )
    log.run(
        *("python", "-m", "diffwave.inference", "our-diffusion-for-lmnt", *shared),
        *("-o", "our-generated-theirs"),
        environment=environment,
    )
    log.write(compare_arrays(log.folder / "our-generated", log.folder / "our-generated-theirs"))


def describe(path: Path) -> str:
    """Return length and level of an audio file, in a sentence."""
    import soundfile

    audio, sample_rate_hz = soundfile.read(path, dtype="float32")
    meter = LevelMeter()
    list(meter([audio]))
    name = f"{path.parent.name}/{path.name}"
    return f"# {name}: {len(audio) / sample_rate_hz:.2f} s, {meter.level_dbfs:.1f} dBFS"


def compare_arrays(folder: Path, other: Path) -> str:
    """Return the largest difference of the arrays of two folders, which must have equal names."""
    pairs = _pairs(folder, other, ".npy")
    return _difference(((np.load(a), np.load(b)) for a, b in pairs), len(pairs), folder, other)


def compare_audio(folder: Path, other: Path) -> str:
    """Return the largest difference of the audio of two folders, which must have equal names."""
    import soundfile

    pairs = _pairs(folder, other, ".wav")
    audio = ((soundfile.read(a)[0], soundfile.read(b)[0]) for a, b in pairs)
    return _difference(audio, len(pairs), folder, other)


def _pairs(folder: Path, other: Path, suffix: str) -> list[tuple[Path, Path]]:
    names, others = (
        sorted(p.relative_to(f) for p in f.rglob(f"*{suffix}")) for f in (folder, other)
    )
    if names != others or not names:
        raise SystemExit(f"'{folder}' holds {names}, '{other}' holds {others}.")
    return [(folder / name, other / name) for name in names]


def _difference(
    pairs: Iterator[tuple[np.ndarray, np.ndarray]], count: int, folder: Path, other: Path
) -> str:
    largest = scale = 0.0
    for array, again in pairs:
        if array.shape != again.shape:
            raise SystemExit(f"'{folder}' and '{other}' differ: {array.shape}, {again.shape}.")
        largest = max(largest, float(np.abs(array - again).max()))
        scale = max(scale, float(np.abs(array).max()))
    return (
        f"# {count} files of {folder.name} and {other.name}: equal lengths; "
        f"largest difference {largest:.1e}, largest value {scale:.2f}\n"
    )


if __name__ == "__main__":
    main()
