"""Each command of `rave` is one function of Python, with the same options and the same results."""

import inspect
import json
import re
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from audio_files import noise, write
from option_places import Places, standing_in
from option_table import COMMANDS
from rave_runs import RATE_HZ
from test_imports import heavy_after

import rave
from rave.main_cli import AVAILABLE_SCRIPTS, command_module

FUNCTIONS = {
    "augment": "augment_folder",
    "preprocess": "preprocess_folder",
    "encode": "encode_folder",
    "shard": "shard_latents",
    "transcribe": "transcribe_audio",
    "unshard": "unshard_latents",
    "decode": "decode_folder",
    "generate": "generate_audio",
    "interpolate": "interpolate_audio",
    "evaluate": "evaluate_folder",
    "sample_prior": "sample_prior",
    "export": "export_codec",
}
LISTS = {"audio", "inputs", "latents_dirs"}
WITHOUT = {"app"}
TRAININGS = {"train": "train_codec", "train_prior": "train_prior"}
# How a command prints, and what does the work, which is one parameter.
COMMON, ENGINE = {"help", "json", "verbose", "version"}, {"engine", "address", "cpus_per_worker"}


def parameters(command):
    return inspect.signature(getattr(rave, {**FUNCTIONS, **TRAININGS}[command])).parameters


def options_of(command):
    actions = command_module(command).parser()._actions
    return {action.dest: action for action in actions if action.dest not in COMMON}


def plain(default):
    """Return what is the same for a default of an option and of a parameter."""
    return (tuple(default) or None) if isinstance(default, list) else default


def test_every_command_has_a_function():
    assert FUNCTIONS.keys() | TRAININGS.keys() | WITHOUT == AVAILABLE_SCRIPTS.keys()


@pytest.mark.parametrize("command", FUNCTIONS)
def test_options_and_parameters_are_the_same_with_the_same_defaults(command):
    options, found = options_of(command), parameters(command)
    positional = [name for name, action in options.items() if not action.option_strings]
    required = [name for name, each in found.items() if each.default is inspect.Parameter.empty]
    assert required == positional
    defaults = {name: plain(options[name].default) for name in options.keys() - positional}
    if "engine" in options:
        assert {name: defaults.pop(name) for name in ENGINE} == {
            **dict.fromkeys(ENGINE),
            "engine": "local",
        }
        defaults["engine"] = None
    assert {name: each.default for name, each in found.items() if name not in required} == defaults
    assert all(
        each.kind == inspect.Parameter.KEYWORD_ONLY for n, each in found.items() if n in defaults
    )


@pytest.mark.parametrize("command", TRAININGS)
def test_a_training_has_the_options_of_its_command(command):
    of_the_old_form = {"data_of_recipe"}
    assert options_of(command).keys() - of_the_old_form == parameters(command).keys()


@pytest.mark.parametrize("command", [*FUNCTIONS, *TRAININGS])
def test_every_parameter_is_documented_and_typed(command):
    function = getattr(rave, {**FUNCTIONS, **TRAININGS}[command])
    named = inspect.getdoc(function).partition("Args:")[2].partition("Returns:")[0]
    told = [line.strip().partition(":")[0] for line in named.splitlines() if line[:5].strip()]
    assert told == list(inspect.signature(function).parameters)
    assert function.__annotations__.keys() == {*told, "return"}


@pytest.fixture(scope="module")
def places(run, tmp_path_factory):
    return Places(tmp_path_factory.mktemp("places"), run)


def as_text(value):
    """Return paths as text, which a function takes, too."""
    if isinstance(value, list):
        return [as_text(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def written(folder):
    """Return all files; of journals without the times of latents that the command made itself."""
    found = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: re.sub(rb'"mtime_ns": \d+', b"", content) for name, content in found.items()}


class Here(dict):
    """Names of places; what is written lies in the current folder."""

    def __missing__(self, name):
        return "out" if name == "out" else self["places"][name]


@pytest.mark.parametrize("command", FUNCTIONS)
def test_a_function_writes_and_reports_what_its_command_does(
    command, places, tmp_path, monkeypatch
):
    words = COMMANDS[f"rave {command}"].words.format_map(Here(places=places)).split()
    module = command_module(command)
    options = module.parser().parse_args(words)
    function, defaults = getattr(rave, FUNCTIONS[command]), parameters(command)
    given = {
        name: as_text(value)
        for name, value in vars(options).items()
        if name in defaults.keys() - ENGINE and plain(value) != defaults[name].default
    }
    number, found = count(), []
    for work in (lambda: module.run(options), lambda: function(**given)):
        folder = tmp_path / str(next(number))
        folder.mkdir()
        monkeypatch.chdir(folder)
        with standing_in():
            result = work()
        report = result.summary, json.dumps(result.figures), result.num_skipped, result.warnings
        found.append((report, written(folder)))
    assert found[0] == found[1]
    assert found[0][1] or command == "evaluate"  # which writes nothing unless it is asked to


def test_arrays_go_the_way_of_files(run, tmp_path):
    source = str(write(tmp_path / "in" / "a.wav", noise(5000, seed=3), RATE_HZ))
    rave.generate_audio(run, source, tmp_path / "out", device="cpu")
    codec = rave.load_codec(str(run), "cpu")
    mean, std = codec.encode(rave.read_audio(source, RATE_HZ))
    assert (
        mean.shape == std.shape == (codec.format.latent_size, -(-5000 // codec.format.hop_samples))
    )
    rave.write_audio(str(tmp_path / "a.wav"), codec.decode(mean), RATE_HZ, num_samples=5000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "out" / "a.wav").read_bytes()
    latents = rave.LatentDataset(tmp_path / "out" / ".latents")
    assert np.array_equal(latents.array(0), mean)


def test_audio_in_blocks_needs_its_format(tmp_path):
    with pytest.raises(ValueError, match="need num_channels and num_samples"):
        rave.write_audio(tmp_path / "a.wav", iter([noise(10)]), RATE_HZ)


def test_a_bend_of_no_axis_is_refused_before_a_codec_is_opened(tmp_path):
    for shift in ({-1: 1.0}, {0: float("nan")}):
        with pytest.raises(ValueError, match="axes count from 0, and values must be finite"):
            rave.decode_folder("none", "none", tmp_path / "out", shift=shift)


def test_functions_import_nothing_heavy_before_they_have_looked_at_their_arguments():
    names = ", ".join(f"rave.{name}" for name in FUNCTIONS.values())
    assert heavy_after(f"import rave; {names}")[0] in ("[]", "['numpy']")  # of 0.1 s


@pytest.mark.parametrize("command", [name for name in FUNCTIONS if "seed" in parameters(name)])
@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_what_is_no_seed_is_refused(command, seed, tmp_path):
    required = [n for n, p in parameters(command).items() if p.default is inspect.Parameter.empty]
    values = {name: [tmp_path] if name in LISTS else tmp_path for name in required}
    with pytest.raises(ValueError, match="is not a seed; give 0 to 4294967295"):
        getattr(rave, FUNCTIONS[command])(**values, seed=seed)


def test_public_names_are_there_and_no_others():
    assert {*FUNCTIONS.values()} < {*rave.__all__} <= {*dir(rave)}
    for name in rave.__all__:
        assert inspect.getdoc(getattr(rave, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rave.nothing  # noqa: B018
