"""Every command of the documents runs as it stands there, in order, on small data."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_files import noise, sine, write
from diffwave_data import settings
from rave_runs import RATE_HZ, TINY
from test_diffwave_waveform import GOLDEN, make_checkpoint, write_run

from rave.main_cli import AVAILABLE_SCRIPTS, command_module, main

ROOT = Path(__file__).parents[1]
# What a reader has before the first command; a page of these makes everything else itself.
ALONE = [
    "README.md",
    "docs/guide.md",
    "docs/install.md",
    "models/README.md",
    "models/piano/README.md",
    "models/drums/README.md",
]
TOUR = "docs/tour.md"  # is read after the README, in the same folder
# What readers of these have made beside that: what the README and the tour make.
AFTER_TOUR = [
    "docs/app.md",
    "docs/connecting.md",
    "docs/control-format.md",
    "docs/diagnosis.md",
    "docs/evaluation.md",
    "docs/experiments.md",
    "docs/following-and-editing.md",
    "docs/from-and-to-upstream.md",
    "docs/latent-format.md",
    "docs/notes.md",
    "docs/scaling.md",
]
# Of these only the options are looked at: hours of work on recordings that are not here.
READ_ONLY = [
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/commands.md",
    "docs/patched-upstream.md",
    "docs/performance.md",
    "docs/results.md",
    "docs/training-runs.md",
]
INSTALLS = "installs packages"
SERVES = "serves until it is stopped; tests/test_app_page.py opens it"
MACHINES = "needs several machines or GPUs; tests/test_ray.py and test_sharded_training.py"
PRIOR = "needs a prior of acids-rave; tests/test_rave_prior.py"
LMNT = (
    "needs another model of lmnt diffwave; tests/test_diffwave_waveform.py, test_diffwave_lmnt.py"
)
LONG = "takes minutes on any data"
NOT_RUN = {
    "make demo": LONG,
    "make demo-train": LONG,
    "make test": LONG,
    "python3 -m venv .venv": INSTALLS,
    ". .venv/bin/activate": "the environment that the line before makes",
    "pip install -c constraints.txt -e .": INSTALLS,
    "pip install -c constraints.txt -e '.[app]'": INSTALLS,
    "pip install -c constraints.txt -e '.[ray]'": INSTALLS,
    "tensorboard --logdir runs": "serves until it is stopped",
    "rave app": SERVES,
    "rave app --codec runs/rave --diffusion runs/diffusion": SERVES,
    "rave app --codec models/piano/codec --diffusion models/piano/diffusion": SERVES,
    "python -m diffwave.experiments latents results --spectrograms spectrograms --quick": LONG,
    "python -m diffwave.experiments latents results --spectrograms spectrograms --all": LONG,
    "rave export runs/rave codec-onnx --format onnx": "takes long; tests/test_rave_onnx.py",
    "rave sample_prior runs/their-prior sampled --codec runs/theirs --seconds 20": PRIOR,
    "rave decode runs/theirs sampled sampled-audio": PRIOR,
    "python -m diffwave.vocode lmnt-free out-folder --count 4 --seconds 2": LMNT,
    "python -m diffwave.inference their-run generated": LMNT,
    "rave encode runs/rave recordings latents --engine ray": MACHINES,
    "rave encode runs/rave recordings latents --engine ray --address 10.0.0.1:6379": MACHINES,
    "ray get-auth-token --generate": MACHINES,
    "export RAY_AUTH_MODE=token": MACHINES,
    "ray start --head --port=6379": MACHINES,
    "ray start --address=10.0.0.1:6379": MACHINES,
    "python -m benchmarks scaling --threads 2": LONG,
    "rave train prepared --config v2 --out runs/v2 --devices 8": MACHINES,
    "torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HOST -m "
    "diffwave.train latents --out runs/d": MACHINES,
    "srun --nodes 4 --ntasks-per-node 8 rave train prepared --config v2 --out runs/v2 --devices 8 "
    "--nodes 4": MACHINES,
    "python scripts/overlay_processes.py recordings --out overlay": LONG,
    "python -m diffwave.train s3://bucket/shards --out runs/sharded": "needs object storage",
    "pytest --soak --capture no tests/test_million_latents.py": LONG,
    "python tests/shard_reader.py SHARDS LATENTS": LONG,
}
PROGRAMS = "rave|python3?|pip|make|cp|tensorboard|pytest|ray|srun|torchrun|git|tar|export"
VERB = rf"(?:rave (?:{'|'.join(AVAILABLE_SCRIPTS)})|python -m diffwave\.\w+)"
COMMAND = re.compile(
    rf"^ {{4}}((?:{PROGRAMS}) (?:[^\n\\]|\\\n)+)"  # in a block
    rf"|`({VERB} [^`\s]+ [^`]+)`",  # in a cell or a sentence, with two arguments or more
    re.MULTILINE,
)
REPORT = re.compile(r"^(?:rave |python -m diffwave\.)(?:evaluate|diagnose) ")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What others made with the reader's own codec.
ELSEWHERE = {
    "latents-of-another-machine": "rave encode runs/rave elsewhere latents-of-another-machine",
}
# What cuts work short; the last of an option given twice counts.
RAVE_SIZES = (
    *TINY,
    "RATIOS=[8, 4]",
    "MAX_STEPS=2",
    "PHASE_1_STEPS=2",
    "VALIDATE_EVERY_STEPS=2",
)
RAVE_STEPS = ("MAX_STEPS=1", "PHASE_1_STEPS=1", "BATCH_SIZE=1", "CROP_SAMPLES=16384")
PRIOR_SIZES = ("MAX_STEPS=2", "VALIDATE_EVERY=2", "HIDDEN_CHANNELS=8", "SKIP_CHANNELS=8")
EVALUATION = ["--count", "2", "--seconds", "4", "--seeds", "1", "--steps", "2"]


def listed(page):
    """Return the commands of a page, in order."""
    text = FENCE.sub(
        lambda block: re.sub("^", "    ", block[2], flags=re.M) if block[1] == "sh" else "",
        (ROOT / page).read_text(),
    )
    lines = (found[1] or found[2] for found in COMMAND.finditer(text))
    for line in lines:
        joined = " ".join(re.sub(r"\\\n|\n", " ", line).split())
        for command in re.sub(r" # .*", "", joined).split(" && "):
            yield command.strip()


def program(words):
    """Return module and arguments of one of our commands, and its parser; None of any other."""
    if words[0] == "rave":
        return "rave.main_cli", words[1:], command_module(words[1]).parser()
    if words[:2] == ["python", "-m"] and words[2].startswith("diffwave."):
        name = words[2] + ".__main__" * (words[2] == "diffwave.experiments")
        return name, words[3:], import_module(name).parser()
    return None


def parse(words):
    """Parse one of our commands."""
    _, arguments, parser = program(words)
    return parser.parse_args(arguments[words[0] == "rave" :])


def cut(words):
    """Return what to add to a command, so that it ends soon."""
    text = " ".join(words)
    if words[:2] == ["rave", "train"]:
        sizes = RAVE_STEPS if "models/" in text else RAVE_SIZES
        if "--config small" in text:
            rest = [each for each in sizes if not each.startswith(("DILATIONS", "RATIOS"))]
            sizes = [*rest, "RATIOS=[2]", "CROP_SAMPLES=8192"]
    elif words[:2] == ["rave", "train_prior"]:
        sizes = PRIOR_SIZES
    elif "diffwave.train" in text:
        return settings("MAX_STEPS=2")
    elif "diffwave.evaluate" in text:
        return EVALUATION
    elif "diffwave.inference" in text:
        return ["--steps", "2", *(["--seconds", "2"] if "--seconds" in words else [])]
    elif "sample_prior" in text:
        return ["--seconds", "1", "--count", "1"]
    else:
        return []
    return [part for setting in sizes for part in ("--set", setting)]


class Reader:
    """Someone who types the commands of a page, in a folder of their own.

    Args:
        folder: Where they are.
        sources: Folders of what they may have from before, taken when a command asks for it.
    """

    def __init__(self, folder, *sources):
        self.folder, self.sources = folder, sources

    def fetch(self, path):
        """Bring a path from the sources unless it is there; return whether it is there."""
        if path.is_absolute():
            return os.path.exists(path)
        for source in self.sources:
            if not os.path.lexists(path) and os.path.lexists(source / path):
                is_folder = (source / path).is_dir() or path.parent == Path()
                whole = path if is_folder else path.parent  # the folder that a file is part of
                copy = shutil.copytree if (source / whole).is_dir() else shutil.copy
                whole.parent.mkdir(parents=True, exist_ok=True)
                copy(source / whole, whole)
        return os.path.exists(path)

    def type(self, command):
        """Run a command, and return why it failed, or None."""
        words, said = shlex.split(command), io.StringIO()
        for name in ELSEWHERE.keys() & set(words[:-1]):
            if not (self.folder / name).exists():
                assert self.type(ELSEWHERE[name]) is None
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stderr(said),
            redirect_stdout(io.StringIO()),
        ):
            patch.chdir(self.folder)
            try:
                code = self._ours(words) if program(words) else self._other(command, words, said)
            except SystemExit as stop:
                code = stop.code
        return f"{command}: exit code {code}\n{said.getvalue()[-800:]}" if code else None

    def _ours(self, words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "exists", lambda path: self.fetch(path))
            options = parse(words)
        given = vars(options)
        controls = given.get("controls") or []
        # Those of diffwave.preprocess, of diffwave.train, and the data of rave train.
        is_preprocess = "diffwave.preprocess" in words
        inputs = [given[name] for name in ("latents_dir", "audio_dir") if is_preprocess]
        inputs += words[2:3] if words[:2] == ["rave", "train"] else []
        for path in [*inputs, *([controls] if isinstance(controls, Path) else controls[:1])]:
            self.fetch(Path(path))
        module, arguments, _ = program(words)
        return import_module(module).main([*arguments, *cut(words)])

    def _other(self, command, words, said):
        for word in words:
            self.fetch(Path(word))
        if words[0] == "python" and words[1].startswith("scripts/"):
            return import_module(Path(words[1]).stem).main(words[2:])
        if words[0] != "cp" and words[:2] != ["python", "-c"]:
            said.write("No program of ours: it belongs to NOT_RUN, with the reason.")
            return 1
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
        said.write(done.stderr)
        return done.returncode

    def read(self, page, exported):
        """Run all commands of a page, and return what failed.

        Args:
            page: Its path.
            exported: Commands that export, which no other needs; one that was run is not run again.

        A report of what the tour made, which it asks for too, is not asked for again.
        """
        failures = []
        is_after_tour = len(self.sources) > 1
        known = {c for c in listed(TOUR) if is_after_tour and REPORT.search(c)}
        for command in listed(page):
            is_export = ".export " in command or " export " in command
            if command not in NOT_RUN and command not in exported | known:
                failures.append(self.type(command))
                exported |= {command} if is_export else set()
        return [failure for failure in failures if failure]


def record(folder, *names, seconds=5.0):
    """Write recordings of tones that change, with a little noise."""
    for number, name in enumerate(names):
        tones = [sine(110 * (1 + (number * 3 + k) % 7), RATE_HZ, seconds / 4) for k in range(4)]
        audio = np.concatenate(tones, axis=1)
        write(folder / name, audio + noise(audio.shape[1], seed=number, gain=0.01), RATE_HZ)


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    """What a reader has: recordings, and what they made with acids-rave and lmnt diffwave."""
    folder = tmp_path_factory.mktemp("own")
    pieces = ("a.flac", "b.flac", "c.flac", "strings/d.flac", "strings/e.wav", "brass/f.flac")
    for kind in ("recordings", "piano", "drums"):
        record(folder / kind, *pieces)
    record(folder / "elsewhere", "g.flac", "h.flac")
    takes = ("solo.flac", "a.wav", "b.wav", "other.wav", "song.flac", "tapped.wav", "take.wav")
    record(folder, *takes, seconds=2)
    shutil.copytree(ROOT / "models", folder / "models")
    for name in ("acids-lmdb", "their-db"):
        shutil.copytree(ROOT / "tests" / "golden" / "acids_rave_lmdb", folder / name)
    with np.load(GOLDEN) as arrays:
        golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    np.save(folder / "a.wav.spec.npy", golden["spectrogram"][0].numpy())
    write_run(folder / "lmnt", make_checkpoint(golden, "conditional"), is_link=False)
    write_run(folder / "lmnt-free", make_checkpoint(golden, "unconditional"), is_link=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train = ["train", "v2", "--data", "prepared", "--out", "ours", "--device", "cpu"]
        assert main(["preprocess", "recordings", "prepared", "--sample-rate", str(RATE_HZ)]) == 0
        assert main([*train, *cut(["rave", "train"])]) == 0
        for name in ("acids", "theirs"):
            assert main(["export", "ours", f"runs/{name}", "--format", "acids-rave"]) == 0
        shutil.rmtree("prepared")
        shutil.rmtree("ours")
    return folder


@pytest.fixture(scope="session")
def exported():
    """Exports, which take long, that were run."""
    return set()


@pytest.fixture(scope="session")
def readme(own, exported, tmp_path_factory):
    """A folder in which all commands of the README were run, and what failed."""
    folder = tmp_path_factory.mktemp("readme")
    return folder, Reader(folder, own).read("README.md", exported)


@pytest.fixture(scope="session")
def tour(own, readme, exported):
    """The same folder, after all commands of the tour were run there too, and what failed."""
    return readme[0], Reader(readme[0], own).read(TOUR, exported)


def test_every_command_of_the_readme_runs(readme):
    assert not readme[1], "\n".join(readme[1])


def test_every_command_of_the_tour_runs_after_the_readme(tour):
    assert not tour[1], "\n".join(tour[1])


@pytest.mark.parametrize("page", ALONE[1:])
def test_every_command_of_a_page_that_stands_alone_runs(page, own, exported, tmp_path):
    failures = Reader(tmp_path, own).read(page, exported)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("page", AFTER_TOUR)
def test_every_command_of_a_page_runs_after_the_tour(page, own, tour, exported, tmp_path):
    failures = Reader(tmp_path, own, tour[0]).read(page, exported)
    assert not failures, "\n".join(failures)


def test_every_document_is_read():
    pages = {str(path.relative_to(ROOT)) for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]}
    pages |= {str(path.relative_to(ROOT)) for path in ROOT.glob("models/**/*.md")}
    assert {page for page in pages if list(listed(page))} - {"CHANGELOG.md"} == {
        *ALONE,
        TOUR,
        *AFTER_TOUR,
        *READ_ONLY,
    }


def test_what_is_not_run_still_stands_in_the_documents():
    known = {command for page in [*ALONE, TOUR, *AFTER_TOUR] for command in listed(page)}
    assert set(NOT_RUN) <= known


def test_every_command_in_the_documents_is_understood(monkeypatch, capsys):
    monkeypatch.setattr(Path, "exists", lambda path: True)
    pages = [*ALONE, TOUR, *AFTER_TOUR, *READ_ONLY]
    commands = dict.fromkeys(command for page in pages for command in listed(page))
    assert len(commands) > 50
    for command in commands:
        words = shlex.split(command)
        if program(words):
            try:
                parse(words)
            except SystemExit:
                pytest.fail(f"{command}\n{capsys.readouterr().err}")
