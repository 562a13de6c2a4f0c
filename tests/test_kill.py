"""Commands that are killed at random moments end as if they had not been.

`pytest --soak tests/test_kill.py` kills each 50 times.
"""

import importlib
import json
import sys
from pathlib import Path

import pytest
from audio_files import noise, write
from diffwave_data import settings
from forks import Fork
from rave_runs import RATE_HZ, TINY, prepare

from rave.jobs.journal import sole_writer
from rave.main_cli import main

KILLS, SOAK_KILLS = 4, 50


@pytest.fixture(scope="module")
def material(run, tmp_path_factory):
    """Recordings, what is made of them, and a diffusion run."""
    from diffwave import train

    folder = tmp_path_factory.mktemp("material")
    for number in range(24):
        audio = noise(RATE_HZ * (2 + number % 5), seed=number)
        write(folder / "audio" / f"{number:02d}.wav", audio, RATE_HZ)
    assert main(["encode", str(run), str(folder / "audio"), str(folder / "latents")]) == 0
    assert main(["shard", str(folder / "latents"), str(folder / "shards")]) == 0
    prepare(folder)
    diffusion = ["--out", str(folder / "diffusion"), "--config", "tiny", *settings()]
    assert train.main([str(folder / "latents"), *diffusion]) == 0
    (folder / "run").symlink_to(run)
    return folder


OUTPUTS = {
    "preprocess": "prepared",
    "encode": "latents",
    "decode": "audio",
    "train": "run",
    "shard": "shards",
    "unshard": "latents",
    "diffwave.train": "run",
    "diffwave.inference": "latents",
}


def sets(*values):
    return [part for value in values for part in ("--set", value)]


# Each is given in an empty folder; {} is where the material lies.
COMMANDS = {
    "preprocess": ("rave.main_cli preprocess {}/audio prepared --sample-rate 16000", []),
    "encode": ("rave.main_cli encode {}/run {}/audio latents --sample", []),
    "decode": ("rave.main_cli decode {}/run {}/latents audio", []),
    "train": (
        "rave.main_cli train v2 --data {}/prepared --out run --device cpu",
        sets(*TINY, "MAX_STEPS=16", "PHASE_1_STEPS=8", "VALIDATE_EVERY_STEPS=2"),
    ),
    "shard": ("rave.main_cli shard {}/latents shards --shard-mb 0.1", []),
    "unshard": ("rave.main_cli unshard {}/shards latents", []),
    "diffwave.train": (
        "diffwave.train {}/latents --out run --device cpu --config tiny",
        settings("MAX_STEPS=30", "VALIDATE_EVERY=3"),
    ),
    "diffwave.inference": (
        "diffwave.inference {}/diffusion latents --count 40 --steps 20 --seconds 1",
        [],
    ),
}
# What cuts work short where it need not last; the last of an option given twice counts.
SHORT = {
    "train": sets("MAX_STEPS=2", "PHASE_1_STEPS=2"),
    "diffwave.train": sets("MAX_STEPS=2"),
    "diffwave.inference": ["--count", "2", "--steps", "2"],
}


def given(name, material):
    """Return the module and the arguments of a command."""
    command, options = COMMANDS[name]
    return [*command.replace("{}", str(material)).split(), *options]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere libraries do not survive a fork")
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_killed_and_given_again_ends_as_if_it_had_not_been(
    name, material, tmp_path, is_soak
):
    kills = SOAK_KILLS if is_soak else KILLS
    process = Fork(
        "killing", tmp_path, kills, 0, json.dumps(SHORT.get(name, [])), *given(name, material)
    )
    code, out, err = process.finish(timeout_s=None)
    log = tmp_path / "log.txt"
    told = log.read_text()[-2000:] if log.exists() else ""
    assert code == 0, f"{err}\n{told}"
    found = json.loads(out.splitlines()[-1])
    print(json.dumps({"command": name, **found}))
    assert found["differing"] == []
    assert len(found["moments_s"]) == kills
    assert found["num_files"] > 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_run_into_a_folder_is_refused(name, material, tmp_path, monkeypatch, capsys):
    module, *arguments = [*given(name, material), *SHORT.get(name, [])]
    monkeypatch.chdir(tmp_path)
    with sole_writer(Path(OUTPUTS[name])):
        assert importlib.import_module(module).main(arguments) == 2
    told = capsys.readouterr().err
    assert f"error: Another run is writing into '{OUTPUTS[name]}'. Wait" in told
    assert not list(Path(OUTPUTS[name]).rglob("*.npy"))
    assert not list(Path(OUTPUTS[name]).rglob("*.tar"))
    assert not list(Path(OUTPUTS[name]).rglob("*.ckpt"))
    assert importlib.import_module(module).main(arguments) == 0
