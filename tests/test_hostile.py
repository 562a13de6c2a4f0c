"""Hundreds of hostile files among good ones: each is named, and the good ones are done."""

import json
import os
import resource
import subprocess
import sys

import pytest
from hostile import make

MEMORY_MIB = {"preprocess": 512, "encode": 1536, "transcribe": 512}  # torch alone takes 300


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "audio"
    return folder, *make(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names and limits")
@pytest.mark.parametrize("command", MEMORY_MIB)
def test_bad_files_are_named_and_good_ones_are_done(command, corpus, run, tmp_path):
    folder, good, bad = corpus
    assert len(bad) > 250
    codec = [str(run)] if command == "encode" else []
    words = [command, *codec, str(folder), str(tmp_path / "out"), "--json"]
    limit = MEMORY_MIB[command] * 2**20
    done = subprocess.run(
        [sys.executable, "-m", "rave.main_cli", *words],
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        check=False,
        timeout=300,
    )
    told = done.stderr.decode(errors="replace")
    assert done.returncode == 1, told[-2000:]
    assert "Traceback" not in told
    found = json.loads(done.stdout)
    skipped = found["skipped"]
    assert set(bad) - set(skipped) == set()
    assert set(skipped) - set(bad) == set(), {n: skipped[n] for n in set(skipped) - set(bad)}
    assert found["num_done"] == len(good)
    for name, reason in skipped.items():
        shown = os.path.basename(name)
        assert shown in reason, (name, reason)
        assert reason.rstrip().endswith((".", ")")), reason
        assert "\n" not in reason.replace(shown, "")
    assert not list(tmp_path.parent.rglob("escaped")), "something was written outside"
    assert not (folder / "here").exists()
