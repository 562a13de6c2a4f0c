"""What happens between two states: stopped, changed meanwhile, begun anew, run again."""

import importlib
import os
import re
import shutil
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

import pytest
import torch
from every_command import (
    ALL,
    COMMANDS,
    FOLDERS,
    LARGE,
    SERVERS,
    TRAINERS,
    call,
    command,
    files_in,
    make,
    unchanged_process,
)

import rave.main_cli
from diffwave import vocode
from rave.cli import command_parser, execute
from rave.jobs import loop as batch

ROOT = Path(__file__).parents[1]
REFUSED = LARGE - {"diffwave diagnose"}  # as there is too little material
DONE = sorted({*COMMANDS} - LARGE - TRAINERS)  # those that come to an end here
RESUMED = [
    "rave augment",
    "rave preprocess",
    "rave encode",
    "rave decode",
    "rave generate",
    *("diffwave preprocess", "diffwave preprocess, controls", "diffwave vocode, spectrograms"),
    *("diffwave vocode, mels", "diffwave vocode, audio"),
    "rave transcribe",
]
SHARDED = ["rave shard", "rave unshard"]  # begun anew where the header of their input changes
# What they write has a header.
HEADED = sorted(
    {*RESUMED[1:3], "rave generate", *SHARDED, *RESUMED[5:7]}
    | {"rave sample_prior", "diffwave inference", "diffwave export"}
)
# Constants of modules, which name the header of a folder.
HEADER = re.compile(r'^(?:[A-Z_, ]*\b)?(?:HEADER|SHARDS)_NAME = .*?"(\w+\.json)"', re.MULTILINE)
HEADERS = {
    found
    for package in ("rave", "diffwave")
    for path in (ROOT / package).rglob("*.py")
    for found in HEADER.findall(path.read_text())
}
# One and the same name on some file systems; no stem of two, which would part them.
CLASHING = ("a.wav", "A.wav", "b.flac", "\u00e9.wav", "e\u0301.wav")


class History:
    """A command that is run again and again, into one folder, from sources of its own."""

    def __init__(self, name, material, folder):
        self.name, self.out = name, folder / "out"
        words = COMMANDS[name][0]
        self.at = material | {
            part: shutil.copytree(material[part], folder / part)
            for part in FOLDERS
            if f"{{{part}}}" in words
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "attempt", self._changed_meanwhile)
            self.first = self._run()

    @staticmethod
    def _changed_meanwhile(work, name, source):
        outcome = work(name, source)
        status = source.stat()
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
        return outcome

    def _run(self, *more):
        """Run it, and return its exit code and each file that it replaced beside which headers."""
        before, replaced = files_in(self.out), {}
        replace = os.replace

        def watched(source, target):
            name = os.path.relpath(target, self.out)
            if name in before and is_data(name):
                replaced[name] = {*os.listdir(self.out)} & HEADERS
            replace(source, target)

        with pytest.MonkeyPatch.context() as patch, unchanged_process():
            patch.setattr(os, "replace", watched)
            code = call(self.name, self.at, self.out, *more)
        return code, replaced

    @cached_property
    def again(self):
        """What the same command does after its sources changed while it worked on them."""
        return self._run()

    @cached_property
    def forced(self):
        """What the command does that makes something else there."""
        return self._run("--force", *COMMANDS[self.name][1].split())


def is_data(name):
    return not name.startswith(".") and name not in HEADERS


@pytest.fixture(scope="module")
def histories(material, tmp_path_factory):
    known = {}

    def history(name):
        if name not in known:
            known[name] = History(name, material, tmp_path_factory.mktemp("history"))
        return known[name]

    return history


def test_every_command_is_in_the_table():
    assert {command(name) for name in COMMANDS} | SERVERS == ALL


# The process


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_interrupted_leaves_the_process_as_it_was(
    name, material, tmp_path, monkeypatch
):
    def stop(*paths):
        raise KeyboardInterrupt

    with unchanged_process():
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stop)
            code = call(name, material, tmp_path / "out")
        assert code == (2 if name in REFUSED else 130)


@pytest.mark.parametrize("error", [None, ValueError, OSError, KeyboardInterrupt, ZeroDivisionError])
def test_whatever_a_command_does_to_the_process_it_leaves_as_it_was(error):
    def work(options):
        torch.manual_seed(3)
        torch.set_num_threads(4)
        raise error or ValueError

    with unchanged_process():
        try:
            execute(command_parser("rave test", "Test.", "rave test"), work, [])
        except ZeroDivisionError:
            assert error is ZeroDivisionError


@pytest.mark.parametrize("name", DONE)
def test_a_command_that_ends_leaves_the_process_as_it_was(name, histories):
    assert histories(name).first == (0, {})  # it looks itself


# Sources that change, data that is replaced


def test_every_command_with_a_journal_is_resumed_here_and_each_with_a_header_is_begun_anew(
    histories,
):
    found = {name: files_in(histories(name).out) for name in DONE}
    with_journal = [name for name in DONE if any(each.endswith(".jsonl") for each in found[name])]
    assert with_journal == sorted([*RESUMED, *SHARDED])
    headed = [name for name in DONE if HEADERS & {os.path.basename(each) for each in found[name]}]
    assert headed == HEADED


@pytest.mark.parametrize("name", RESUMED)
def test_what_changes_while_it_is_worked_on_is_made_again(name, histories):
    history = histories(name)
    code, replaced = history.again
    assert code == 0
    assert {*replaced} == {each for each in files_in(history.out) if is_data(each)}


@pytest.mark.parametrize("name", sorted({*HEADED} - {"rave unshard"}))  # replaces nothing
def test_no_header_stands_beside_data_of_before_that_is_replaced(name, histories):
    history = histories(name)
    runs = [history.again] if name in RESUMED else []
    if COMMANDS[name][1] or not runs:
        runs.append(history.forced)
    for code, replaced in runs:
        assert code == 0
        assert replaced
        assert {path: beside for path, beside in replaced.items() if beside} == {}


@pytest.mark.parametrize(
    ("name", "part", "module", "read"),
    [
        ("rave shard", "latents", "rave.files.atomic", "read_json"),
        ("rave unshard", "shards", "rave.files.atomic", "read_json"),
        ("diffwave vocode, mels", "vocoder", "diffwave.upstream.vocoder", "read_checkpoint"),
    ],
)
def test_what_changes_as_it_is_read_is_seen_at_the_next_run(
    name, part, module, read, material, tmp_path, monkeypatch, capsys
):
    at = material | {part: shutil.copytree(material[part], tmp_path / part, symlinks=True)}
    module = importlib.import_module(module)
    reader = getattr(module, read)

    def changed(path, *more):
        content = reader(path, *more)
        with path.open("ab") as file:
            file.write(b"\n" * (path.suffix == ".json"))
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
        return content

    with monkeypatch.context() as patch:
        patch.setattr(module, read, changed)
        assert call(name, at, tmp_path / "out") == 0
    assert call(name, at, tmp_path / "out") == 2
    assert "was made with other settings" in capsys.readouterr().err


# File systems


@pytest.fixture(scope="module")
def clashing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clashing")
    for name in CLASHING:
        (folder / name).touch()
    if len(os.listdir(folder)) < len(CLASHING):
        pytest.skip("this file system takes these names for one")
    return make(folder / "material", CLASHING)


@pytest.mark.parametrize("name", [*RESUMED, "rave unshard"])
def test_no_two_sources_have_one_result_on_any_file_system(name, clashing, histories, tmp_path):
    assert call(name, clashing, tmp_path / "out") == 0
    found = [each for each in files_in(tmp_path / "out") if is_data(each)]
    of_two = [each for each in files_in(histories(name).out) if is_data(each)]
    assert 2 * len(found) == len(CLASHING) * len(of_two)
    keys = {normalize("NFC", normalize("NFD", each).casefold()) for each in found}
    assert len(keys) == len(found)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (name, part)
        for name, (words, _) in COMMANDS.items()
        for part in FOLDERS
        if {f"{{{part}}}", "{out}"} <= {*words.split()}
    ],
)
def test_output_inside_an_input_is_refused_by_any_link(name, part, material, tmp_path, capsys):
    (tmp_path / "link").symlink_to(material[part])
    before = files_in(material[part])
    for at, out in (
        (material, tmp_path / "link" / "out"),
        (material | {part: tmp_path / "link"}, material[part] / "out"),
    ):
        assert call(name, at, out) == 2
        assert "is inside the input folder" in capsys.readouterr().err
    assert files_in(material[part]) == before


def test_nothing_is_written_over_what_it_is_made_of(material, tmp_path, capsys):
    sound = tmp_path / "mean.wav"
    shutil.copyfile(material["audio"] / "a.wav", sound)
    content = sound.read_bytes()
    for main, *words in (
        (rave.main_cli.main, "interpolate", material["codec"], sound, sound, tmp_path, "--force"),
        (vocode.main, material["vocoder"], sound, "--from-audio", sound, "--force"),
        (rave.main_cli.main, "generate", material["codec"], sound, tmp_path, "--force"),
    ):
        assert main([str(word) for word in words]) == 2
        assert f"'{sound}' would overwrite its source" in capsys.readouterr().err
    assert sound.read_bytes() == content
