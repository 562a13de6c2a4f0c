"""Every kind of large file under a limit on its size: one sentence, exit 2, no halves.

The limit is the operating system's own, so that libraries fail as they do on a full disk.
"""

import importlib
import json
import resource
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_files import write
from forks import Fork
from rave_runs import checkpoint, train, train_words

from rave.main_cli import main
from rave.runs.checkpoint import last_checkpoint

LIMIT_BYTES = 4096
CHECKPOINT_LIMIT_BYTES = 100_000  # curves are smaller, checkpoints larger


@pytest.fixture(scope="module")
def material(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    for seed in (0, 1):
        noise = 0.1 * np.random.default_rng(seed).standard_normal((1, 66150))
        write(folder / "audio" / f"{seed}.wav", noise.astype(np.float32), 22050)
    assert main(["encode", str(run), str(folder / "audio"), str(folder / "latents")]) == 0
    (folder / "run").symlink_to(run)
    return folder


COMMANDS = {
    "preprocess": "rave.main_cli preprocess audio {out}",
    "encode": "rave.main_cli encode run audio {out}",
    "decode": "rave.main_cli decode run latents {out}",
    "export": "rave.main_cli export run {out}/codec.ts",
    "spectrograms": "diffwave.preprocess latents audio {out} --mel-hop 64",
}


def set_limit(limit_bytes):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def limited(folder, limit_bytes, *words):
    """Run a command in a folder, where no file may be larger; return exit code and stderr."""
    before = partial(set_limit, limit_bytes)
    code, _, err = Fork(*words, folder=folder, before=before).finish()
    return code, err


needs_limit = pytest.mark.skipif(
    not hasattr(resource, "RLIMIT_FSIZE"), reason="this system has no such limit"
)


@needs_limit
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_ends_in_one_sentence_and_leaves_nothing_half_written(name, material):
    out = f"out_{name}"
    (material / out).mkdir()
    code, err = limited(material, LIMIT_BYTES, *COMMANDS[name].format(out=out).split())
    assert code == 2, err
    error = err.splitlines()[-1]
    assert ": error: " in error
    assert "What was finished before is kept." in error
    assert "Traceback" not in err
    left = [path for path in (material / out).rglob("*") if path.is_file()]
    assert all(path.name.startswith(".") and path.suffix == ".jsonl" for path in left), left
    for journal in left:  # whole lines only
        assert all(json.loads(line) for line in journal.read_text().splitlines())


@needs_limit
def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on_from_it(run, tmp_path):
    prepared, out = run.parent / "prepared", tmp_path / "run"
    assert train(prepared, out, "MAX_STEPS=4") == 0
    before = last_checkpoint(out).read_bytes()
    assert len(before) > CHECKPOINT_LIMIT_BYTES
    words = train_words(prepared, out)
    code, err = limited(tmp_path, CHECKPOINT_LIMIT_BYTES, "rave.main_cli", *words)
    assert code == 2, err
    assert "error: File too large" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert last_checkpoint(out).read_bytes() == before
    assert main(words) == 0
    undisturbed = tmp_path / "undisturbed"
    assert train(prepared, undisturbed) == 0
    found, wanted = checkpoint(out)["state_dict"], checkpoint(undisturbed)["state_dict"]
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="this system has no /sys")
@pytest.mark.parametrize("name", [*COMMANDS, "train"])
def test_a_folder_that_cannot_be_made_is_one_sentence(name, material, run, monkeypatch, capsys):
    out = "/sys/rave-diffwave"  # not even root may
    monkeypatch.chdir(material)
    words = ["rave.main_cli", *train_words(run.parent / "prepared", Path(out))]
    if name != "train":
        words = COMMANDS[name].format(out=out).split()
    capsys.readouterr()
    assert importlib.import_module(words[0]).main(words[1:]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert ": error: " in error
    assert "('/sys/rave-diffwave" in error
