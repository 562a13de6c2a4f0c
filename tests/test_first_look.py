"""What a stranger meets first: help, versions, completion, and how fast a slip is found."""

import os
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

from diffwave.__main__ import PROGRAMS
from diffwave.recipe import diffusion_recipe
from rave.main_cli import AVAILABLE_SCRIPTS
from rave.runs.recipes import list_options, list_recipes, read_recipe

PACKAGES = Path(__file__).parents[1]
COMMANDS = [
    *(("rave", name) for name in AVAILABLE_SCRIPTS),
    *(("python", "-m", f"diffwave.{name}") for name in PROGRAMS),
]
# Slips of one argument; A.wav, EMPTY and LATENTS are there.
SLIPS = """
rave train tniy --data EMPTY --out o
rave train tiny+cuasal --data EMPTY --out o
rave train tiny --data missing --out o
rave train tiny --data EMPTY --out o
rave train tiny --data EMPTY --out o --set MAX_STEPS
rave train tiny --data EMPTY --out o --set MAX_STEP=1
rave train tiny --data EMPTY --out o --device gpu
rave train tiny --data EMPTY --out o --initialise-from missing
rave train_prior missing --out o
rave train_prior EMPTY --out o --config prior/tniy
rave train_prior EMPTY --out o --set MAX_STEP=1
rave encode missing EMPTY o
rave encode EMPTY missing o
rave encode EMPTY EMPTY o --backend onnx
rave encode EMPTY EMPTY o --precision half
rave encode EMPTY EMPTY o --address auto
rave decode missing EMPTY o
rave decode EMPTY missing o
rave decode EMPTY EMPTY o --shift x
rave generate EMPTY missing.flac o
rave generate missing EMPTY o
rave transcribe missing o
rave transcribe A.wav o
rave transcribe A.wav EMPTY
rave transcribe EMPTY o
rave interpolate missing A.wav A.wav o
rave interpolate EMPTY missing.wav A.wav o
rave interpolate EMPTY A.wav o
rave interpolate EMPTY A.wav A.wav o --weight 3
rave evaluate missing EMPTY
rave evaluate EMPTY missing
rave evaluate EMPTY EMPTY --sample-rate 1
rave app --codec missing
rave app --diffusion missing
rave sample_prior missing o
rave sample_prior EMPTY o --count 0
rave sample_prior EMPTY o --seconds -1
rave sample_prior EMPTY o --temperature -1
rave export missing o.ts
rave export EMPTY o.txt
rave export EMPTY o.ts --fidelity 2
rave augment missing o
rave augment EMPTY o --semitones
rave preprocess missing o
rave preprocess EMPTY o --sample-rate 0
rave preprocess EMPTY o --channels 0
rave shard missing o
rave shard EMPTY o --shard-mb 0
rave unshard missing o
diffwave.train missing --out o
diffwave.train EMPTY --out o --config defualt
diffwave.train EMPTY --out o --set LATENT_SIZE=3
diffwave.train EMPTY --out o --controls missing
diffwave.train EMPTY --out o --spectrograms missing
diffwave.inference missing o
diffwave.inference EMPTY o --vary missing.npy
diffwave.inference EMPTY o --from-audio missing.wav
diffwave.inference EMPTY o --sampler euler
diffwave.inference EMPTY o --count 0
diffwave.inference EMPTY o --seconds -1
diffwave.inference EMPTY o --strength 1
diffwave.inference EMPTY o --inpaint A.wav
diffwave.inference EMPTY o --continue A.wav
diffwave.inference EMPTY o --continue A.wav --seconds 1 --sampler ddim
diffwave.vocode missing o
diffwave.vocode EMPTY o --mels 8
diffwave.vocode EMPTY o --make-spectrograms --fast
diffwave.preprocess missing EMPTY o
diffwave.preprocess EMPTY missing o
diffwave.preprocess EMPTY o
diffwave.export missing o
diffwave.export EMPTY o.ts
diffwave.export EMPTY o --steps 3
diffwave.diagnose missing
diffwave.diagnose EMPTY --config nope
diffwave.diagnose EMPTY --set LATENT_SIZE=3
diffwave.evaluate missing EMPTY EMPTY --codec EMPTY
diffwave.evaluate EMPTY missing EMPTY --codec EMPTY
diffwave.evaluate EMPTY EMPTY EMPTY --codec missing
diffwave.experiments missing o --all
diffwave.experiments EMPTY --all
""".strip().splitlines()


def call(words, capsys):
    """Run one of our command lines; return exit code, stdout and stderr."""
    capsys.readouterr()
    if words[0] == "rave":
        main, words = import_module("rave.main_cli").main, words[1:]
    else:
        name, *words = words[words[0] == "python" and 2 :]
        main = import_module(name + ".__main__" * (name == "diffwave.experiments")).main
    return main(words), *capsys.readouterr()


def test_slips_that_need_no_torch_are_found_without_it(tmp_path):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "A.wav").touch()
    program = (
        "import sys; sys.modules['torch'] = None\n"  # whoever imports it fails
        "from rave.main_cli import main; from importlib import import_module\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    name, *words = line.split()\n"
        "    part = '.__main__' * name.endswith('experiments')\n"
        "    call = main if name == 'rave' else import_module(name + part).main\n"
        "    assert call(words) == 2, line\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(SLIPS),
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(SLIPS)
    for slip, line in zip(SLIPS, lines, strict=True):
        words = slip.split()
        who = f"rave {words[1]}" if words[0] == "rave" else f"python -m {words[0]}"
        assert line.startswith(f"{who}: error: "), slip
    assert not (tmp_path / "o").exists()


def test_a_slip_in_a_recipes_name_is_answered_with_those_that_there_are(tmp_path, capsys):
    code, _, said = call(f"rave train tniy --data {tmp_path} --out o".split(), capsys)
    assert code == 2
    assert set(re.findall(r"\w+", said)) >= set(list_recipes("rave"))
    code, _, said = call(f"rave train_prior {tmp_path} --out o --config x".split(), capsys)
    assert code == 2


def test_a_missing_file_is_not_called_a_folder(tmp_path, capsys):
    code, _, said = call(f"rave generate {tmp_path} missing.flac out".split(), capsys)
    assert code == 2
    assert said.endswith("'missing.flac' does not exist. Give audio files, or folders of them.\n")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[-1])
def test_every_program_says_its_version(command, capsys):
    version = f"rave-diffwave {metadata.version('rave-diffwave')}\n"
    assert call([*command, "--version"], capsys)[:2] == (0, version)


def test_both_packages_say_their_version_and_list_their_programs(capsys):
    version = f"rave-diffwave {metadata.version('rave-diffwave')}\n"
    assert call(["rave", "--version"], capsys)[:2] == (0, version)
    assert call(["rave", "--help"], capsys)[0] == 0
    listed = import_module("diffwave.__main__").main([]), capsys.readouterr().out
    programs = [
        path for path in PACKAGES.glob("diffwave/*.py") if "\ndef main(" in path.read_text()
    ]
    names = {path.stem for path in programs} - {"__main__"} | {"experiments"}
    assert set(PROGRAMS) == names
    assert listed[0] == 0
    assert all(f"\n  {name} " in listed[1] for name in names)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[-1])
def test_the_example_of_set_in_a_help_is_accepted(command, capsys):
    shown = " ".join(call([*command, "--help"], capsys)[1].split())
    example = re.search(r"change a value of the recipe, e\.g\. (\S+)", shown)
    assert bool(example) == ("--set NAME=VALUE" in shown)
    if example is None:
        return
    if command[0] == "rave":
        recipe = {"train": "tiny", "train_prior": "prior/default"}[command[1]]
        read_recipe("rave", recipe, [example[1]])
    else:
        diffusion_recipe("default", [example[1]])


def test_help_lists_every_recipe_and_option_that_there_is(capsys):
    shown = call(["rave", "train", "--help"], capsys)[1]
    assert set(re.findall(r"\w+", shown)) >= {*list_recipes("rave"), *list_options("rave")}
    shown = call(["python", "-m", "diffwave.train", "--help"], capsys)[1]
    assert set(re.findall(r"\w+", shown)) >= set(list_recipes("diffwave"))


@pytest.mark.parametrize(
    ("program", "line", "expected"),
    [
        ("rave.main_cli", "rave tr", {"train", "train_prior", "transcribe"}),
        ("rave.main_cli", "rave train sm", {"small"}),
        ("rave.main_cli", "rave train tiny --init", {"--initialise-from"}),
        ("rave.main_cli", "rave encode run in out --backend o", {"openvino"}),
        ("diffwave.train", "diffwave.train latents --co", {"--config", "--controls"}),
    ],
)
def test_the_shell_completes_without_torch(tmp_path, program, line, expected):
    code = f"import sys; sys.modules['torch'] = None; from {program} import main; main([])"
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGES),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert {word.strip() for word in (tmp_path / "answer").read_text().split("\n")} == expected
