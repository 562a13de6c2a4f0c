"""Each option of each command does something: another value changes what is made."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
from collections.abc import Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from option_cases import PRINTED, Case
from option_places import Places, standing_in
from option_table import COMMANDS

from diffwave.__main__ import PROGRAMS
from rave.api.result import Result
from rave.main_cli import AVAILABLE_SCRIPTS, command_module, main
from rave.runs.checkpoint import read_checkpoint

# Of what a command writes: that it was asked for, not what came of it.
REPEATED = {"command", "run", "codec", "codec_path", "latents", "seed"}
TIMES = {"cpu_seconds", "train_seconds"}  # also inside of records
# What every command has; the law below shows them.
COMMON = {"--help", "--json", "--verbose", "--version"}


def module_of(command: str) -> Any:
    """Return the module of a command; rows of the table differ by what follows a comma."""
    name = command.partition(",")[0]
    if name.startswith("rave "):
        return command_module(name.removeprefix("rave "))
    return import_module(name + ".__main__" * (name == "diffwave.experiments"))


def call(command: str, words: Sequence[str]) -> int:
    """Run a command as the shell does, and return its exit code."""
    name = command.partition(",")[0]
    if name.startswith("rave "):
        return main([name.removeprefix("rave "), *words])
    code: int = module_of(command).main(words)
    return code


EVERY = [
    *(f"rave {name}" for name in AVAILABLE_SCRIPTS),
    *(f"diffwave.{name}" for name in PROGRAMS),
]


def named(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else action.dest


@pytest.mark.parametrize("command", EVERY)
def test_the_table_has_every_option_of_every_command_and_no_other(command):
    parser = module_of(command).parser()
    rows = [case for name, case in COMMANDS.items() if name.partition(",")[0] == command]
    found = {name for row in rows for name in row.options}
    assert {named(action) for action in parser._actions} - COMMON == found


def test_the_table_has_no_command_that_is_not_there():
    assert {name.partition(",")[0] for name in COMMANDS} == set(EVERY)


@pytest.mark.parametrize("command", EVERY)
def test_every_command_has_json_a_traceback_and_a_version(command, capsys, monkeypatch, places):
    module = module_of(command)
    row = COMMANDS[command]
    words = row.words.format_map(Anything()).split()
    monkeypatch.setattr(module, "run", lambda options: Result("in words", {"figure": 1}))
    monkeypatch.setattr(Path, "exists", lambda path: True)
    printed = []
    for options in ([], ["--json"]):
        assert call(command, [*words, *options]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == "in words\n"
    assert json.loads(printed[1]) == {"figure": 1}

    def refuse(options):
        raise ValueError("no such thing")

    monkeypatch.setattr(module, "run", refuse)
    for options in ([], ["--verbose"]):
        assert call(command, [*words, *options]) == 2
        assert ("Traceback" in capsys.readouterr().err) == bool(options)
    for option, held in (("--version", "rave-diffwave "), ("--help", "example:")):
        assert call(command, [option]) == 0
        assert held in capsys.readouterr().out


class Anything(dict):
    """Names that stand for themselves."""

    def __missing__(self, name: str) -> str:
        return "" if name.endswith("_sizes") else name


@pytest.fixture(scope="module")
def places(run, tmp_path_factory):
    return Places(tmp_path_factory.mktemp("places"), run)


class Runner:
    """Runs commands of the table, each only once, and returns what they made and printed."""

    def __init__(self, folder: Path, places: Places) -> None:
        self.folder, self.places = folder, places
        self._numbers, self._known = count(), {}

    def __call__(self, command: str, words: str, after: str = "") -> tuple[Any, ...]:
        """Return exit code, what was written by name, and what was printed."""
        key = command.partition(",")[0], words, after
        if key not in self._known:
            self._known[key] = self.fresh(command, words, after)
        return self._known[key]

    def fresh(self, command: str, words: str, after: str = "") -> tuple[Any, ...]:
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        out, err = io.StringIO(), io.StringIO()
        named = Named(self.places, {"out": folder / "out"})
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            if after:
                assert call(command, after.format_map(named).split()) == 0, err.getvalue()
                err.truncate(0)
            code = call(command, words.format_map(named).split())
        refusal = re.findall(r": error: (.*)", err.getvalue())
        printed = "\n".join([out.getvalue(), *refusal]).replace(str(folder), "")
        return code, written_in(folder), printed


class Named(dict):
    """Names of places, with some of this run alone."""

    def __init__(self, places: Places, own: dict[str, Any]) -> None:
        super().__init__(own)
        self._places = places

    def __missing__(self, name: str) -> Any:
        return self._places[name]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


def written_in(folder: Path) -> dict[str, bytes]:
    """Return what a command made: no journal or header that only repeats its options."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or "tensorboard" in name or path.name.startswith("."):
            continue
        if path.name in ("config.gin", "data.json"):
            continue
        if path.suffix == ".ckpt":
            weights = read_checkpoint(path)["state_dict"]
            found[name] = b"".join(each.numpy().tobytes() for each in weights.values())
        elif path.suffix == ".json":
            record = json.loads(path.read_text(), object_hook=without_times)
            kept = {key: value for key, value in record.items() if key not in REPEATED}
            found[name] = json.dumps(kept).encode()
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def runner(places, tmp_path_factory):
    with standing_in():
        yield Runner(tmp_path_factory.mktemp("runs"), places)


def words_of(command: str, case: Case) -> tuple[str, str]:
    """Return the words of the two commands that differ in an option."""
    words = f"{case.words or COMMANDS[command].words} {case.more}".strip()
    if not case.instead:
        return words, f"{words} {case.given}"
    assert case.instead in words
    return words, words.replace(case.instead, case.given)


SHOWN = [(command, option) for command, row in COMMANDS.items() for option in row.options]


@pytest.mark.parametrize(("command", "option"), SHOWN)
def test_another_value_of_an_option_changes_what_is_made_or_is_refused(command, option, runner):
    case = COMMANDS[command].options[option]
    before, after = words_of(command, case)
    one, other = runner(command, before, case.after), runner(command, after, case.after)
    if case.refused:
        assert other[0] == 2
        assert case.refused in other[2]
        assert case.refused not in one[2]
    elif case.after:  # as into a new folder
        assert (one[0], other[0]) == (2, 0)
        assert runner(command, before)[1].items() <= other[1].items()
    elif case.seen == PRINTED:
        assert one[0] == other[0] == 0
        assert one[2] != other[2]
    else:
        assert other[0] == 0, other[2]
        assert one[1] != other[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_options_make_and_print_the_same(command, runner):
    words = COMMANDS[command].words
    assert runner(command, words) == runner.fresh(command, words)
