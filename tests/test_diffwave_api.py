"""The functions of the Python API: each takes what its command does, and protects what it does."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
from diffwave_data import autoregression, settings, write_latent_folder

import diffwave
from diffwave import train
from rave.cli import COMMON

# The function of each program, what its command spells otherwise, and what only Python can give.
FUNCTIONS = {
    "preprocess": ("make_conditions", {}, set()),
    "inference": ("generate", {"control": "controls"}, {"watch"}),
    "evaluate": ("evaluate_run", {}, set()),
    "diagnose": ("diagnose_folder", {}, set()),
    "export": ("export_run", {}, set()),
}
VOCODE = {
    "vocode_audio": {"source": "run"},
    "make_vocoder_spectrograms": {"source": "audio_dir", "out": "out_dir"},
}


def options_of(program: str) -> dict[str, object]:
    """Return the default of each option of a program."""
    actions = import_module(f"diffwave.{program}").parser()._actions
    return {each.dest: each.default for each in actions if each.dest not in (*COMMON, "help")}


@pytest.mark.parametrize("program", FUNCTIONS)
def test_a_function_has_the_options_of_its_program_and_their_defaults(program: str) -> None:
    name, spelled, more = FUNCTIONS[program]
    parameters = dict(inspect.signature(getattr(diffwave, name)).parameters)
    options = {spelled.get(option, option): v for option, v in options_of(program).items()}
    assert set(options) | more == set(parameters)
    for option, default in options.items():
        ours = parameters[option].default
        assert (None if ours is inspect.Parameter.empty else ours or None) == (default or None)


def test_the_two_functions_of_vocode_have_its_options_between_them() -> None:
    found = {"make_spectrograms"}
    for name, spelled in VOCODE.items():
        parameters = set(inspect.signature(getattr(diffwave, name)).parameters)
        named = {option: spelled.get(option, option) for option in options_of("vocode")}
        own = {option for option, parameter in named.items() if parameter in parameters}
        assert {named[option] for option in own} == parameters
        found |= own
    assert found == set(options_of("vocode"))


def test_every_public_name_is_there_and_no_other() -> None:
    assert {name: getattr(diffwave, name).__name__ for name in diffwave.__all__} == {
        name: name for name in diffwave.__all__
    }
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = diffwave.nothing


def test_no_options_of_a_command_line_go_beyond_its_module() -> None:
    root = Path(diffwave.__file__).parent
    programs = {f"{name}.py" for name in (*FUNCTIONS, "vocode", "train", "__main__")}
    for path in root.rglob("*.py"):
        is_parser = path.name in programs and path.parent.name != "api"
        assert is_parser or "argparse.Namespace" not in path.read_text(), path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("api")
    arrays = {f"{n}.npy": autoregression(4, 100, 0.9, seed) for seed, n in enumerate("abc")}
    write_latent_folder(folder / "latents", arrays)
    options = ["--out", str(folder / "run"), "--config", "tiny", *settings("MAX_STEPS=2")]
    assert train.main([str(folder / "latents"), *options]) == 0
    return str(folder / "run")


def test_python_generates_what_the_command_does(run: str, tmp_path: Path) -> None:
    given = {"count": 2, "steps": 2, "seconds": 0.5, "seed": 3}
    result = diffwave.generate(run, str(tmp_path / "python"), **given)
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    inference = import_module("diffwave.inference")
    assert inference.main([run, str(tmp_path / "command"), *words]) == 0
    names = [item["file"] for item in result.figures["items"]]
    assert names == ["generated_000.npy", "generated_001.npy"]
    for path in sorted((tmp_path / "python").iterdir()):
        assert path.read_bytes() == (tmp_path / "command" / path.name).read_bytes()


def test_python_is_protected_as_the_command_line_is(run: str, tmp_path: Path) -> None:
    latents = Path(run).parent / "latents"
    before = {path: path.read_bytes() for path in latents.iterdir()}
    clip = str(latents / "a.npy")
    for given, words in (
        ({"out": latents, "force": True}, "holds latents of real audio, which are never"),
        ({"seed": -1}, "-1 is not a seed; give 0 to 4294967295"),
        ({"sampler": "heun"}, "There is no sampler 'heun'"),
        ({"vary": clip, "inpaint": clip}, "--inpaint does not go with --vary. Give one of them"),
        ({"device": "tpu"}, "There is no device 'tpu' here"),
        ({"guidance": 2}, "--guidance needs a condition"),
        ({"guidance": {"chroma": 2.0}}, "--guidance needs a condition"),
        ({"controls": {"loudness": clip}}, "trained with no conditions"),
    ):
        with pytest.raises(ValueError) as refused:
            diffwave.generate(**{"run": run, "out": tmp_path / "out", **given})
        assert words in str(refused.value)
    assert not (tmp_path / "out").exists()
    assert {path: path.read_bytes() for path in latents.iterdir()} == before


def test_watch_is_told_of_each_step_and_stops_the_work(run: str, tmp_path: Path) -> None:
    seen = []

    def watch(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        diffwave.generate(run, tmp_path / "out", count=1, steps=4, seconds=0.5, watch=watch)
    assert seen == [(1, 4), (2, 4)]
    assert not (tmp_path / "out" / "latents.json").exists()
