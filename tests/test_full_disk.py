"""Every kind of large file under a limit on its size: one sentence, exit 2, no halves.

The limit is the operating system's own, so that libraries fail as they do on a full disk.
"""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
from audio_files import write

LIMIT_BYTES = 4096
PROGRAM = f"""
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT_BYTES}, {LIMIT_BYTES}))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def material(run, tmp_path_factory):
    from rave.main_cli import main

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


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system has no such limit")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_ends_in_one_sentence_and_leaves_nothing_half_written(name, material):
    out = f"out_{name}"
    (material / out).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *COMMANDS[name].format(out=out).split()],
        cwd=material,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    error = done.stderr.splitlines()[-1]
    assert ": error: " in error
    assert "What was finished before is kept." in error
    assert "Traceback" not in done.stderr
    left = [path for path in (material / out).rglob("*") if path.is_file()]
    assert all(path.name.startswith(".") and path.suffix == ".jsonl" for path in left), left
    for journal in left:  # whole lines only
        assert all(json.loads(line) for line in journal.read_text().splitlines())
