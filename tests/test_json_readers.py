"""Whatever stands in a header or a journal, perhaps a stranger's: it is read, or one sentence."""

import ast
import itertools
import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
from every_command import call
from test_states import RESUMED

from diffwave.app import storage
from diffwave.conditions.controls import ControlHeader
from diffwave.conditions.spectrogram import SpectrogramHeader
from diffwave.run import TrainingData
from rave.api.train import ORIGIN, _read_origin
from rave.audio.prepared import PreparedHeader
from rave.codec_format import CodecFormat
from rave.experiment import check_run
from rave.held_out import Split
from rave.jobs import loop as batch
from rave.latents.folder import LatentHeader
from rave.latents.shards import LatentShards, ShardsHeader
from rave.training_audio import TrainingAudio

ROOT = Path(__file__).parents[1]
NAN, HUGE = "@NaN@", "@1e999@"  # as JSON has no words for them
NO_NUMBERS = (NAN, "@Infinity@", "@-Infinity@", HUGE, 10**400, -(10**400))
ODD = (None, True, "x", -1, 2**63, 2**64, 1e308, "", [], {}, [[[]]], {"a": {}}, "\ud800")


def write(content, path):
    text = json.dumps(content)
    for word in (NAN, "@Infinity@", "@-Infinity@", HUGE):
        text = text.replace(f'"{word}"', word.strip("@"))
    path.write_text(text + "\n")


def paths_in(content, path=()):
    """Yield the path of each value inside JSON content, the innermost first."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from paths_in(value, (*path, key))
        yield (*path, key)


def changed(content, path, value):
    content = deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return content


# Headers


def read_exported(path):
    return CodecFormat.from_json(path.read_text(), path)


def read_kept(path):
    if not storage.newest_results(path.parents[1], 1):
        raise ValueError("it is left out")


# Where each is, who reads it, and how.
HEADERS = {
    "rave/latents/folder.py": ("latents/latents.json", lambda path: LatentHeader.read(path.parent)),
    "rave/audio/prepared.py": ("prepared/prepared.json", lambda p: PreparedHeader.read(p.parent)),
    "rave/latents/shards.py": ("shards/shards.json", ShardsHeader.read),
    "rave/training_audio.py": (
        "codec/training_audio.json",
        lambda path: TrainingAudio.read(path.parent),
    ),
    "rave/experiment.py": ("codec/run.json", lambda path: check_run(path.parent, "rave")),
    "rave/api/train.py": ("initial.json", _read_origin),
    "rave/held_out.py": ("split.json", lambda path: Split.read(path.parent)),
    "rave/codec_format.py": ("header.json", read_exported),
    "diffwave/conditions/header.py: controls": (
        "controls/controls.json",
        lambda p: ControlHeader.read(p.parent),
    ),
    "diffwave/conditions/header.py: spectrograms": (
        "spectrograms/spectrograms.json",
        lambda path: SpectrogramHeader.read(path.parent),
    ),
    "diffwave/run.py": ("data.json", lambda path: TrainingData.read(path.parent)),
    "diffwave/app/storage.py": ("001-made/made.json", read_kept),
}
# Read elsewhere: these two by all of them; a journal and the parts of a shard below.
OTHERS = {"rave/files/atomic.py", "rave/jobs/journal.py"}
# Of whoever makes them: results of experiments.
OWN = {f"diffwave/experiments/{name}.py" for name in ("__main__", "laboratory", "page")}


def test_every_reader_of_json_is_tried_here():
    found = set()
    for package in ("rave", "diffwave"):
        for path in (ROOT / package).rglob("*.py"):
            names = {
                node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
            }
            if names & {"read_header", "read_json", "loads", "load_json"}:
                found.add(path.relative_to(ROOT).as_posix())
    assert found == {name.partition(":")[0] for name in HEADERS} | OTHERS | OWN


@pytest.fixture(scope="module")
def headers(material, tmp_path_factory):
    """A copy of each header of the material, and of those that it has not, each in a folder."""
    made = tmp_path_factory.mktemp("headers")
    Split(2**63, 0.2, 5).write(made)
    TrainingData(material["latents"], material["mels"], None).write(made)
    (made / ORIGIN).write_text(json.dumps({"run": "a", "fingerprint": "b"}))
    record = storage.Record("a", 1.0, 3, "rave encode", ["b"])
    (made / "001-made").mkdir()
    (made / "001-made" / "made.json").write_text(json.dumps(vars(record)))
    (made / "001-made" / "a.wav").touch()
    form = CodecFormat(
        *("c0dec", 44100, 1, 64, 4, (1, 2), (3, 4), 16, 4),
        training_audio=TrainingAudio.read(material["codec"]),
    )
    (made / "header.json").write_text(form.to_json())
    for part, name in (place.split("/") for place, _ in HEADERS.values() if "/" in place):
        if part in material:
            (made / part).mkdir(exist_ok=True)
            shutil.copyfile(material[part] / name, made / part / name)
    return made


@pytest.mark.parametrize("module", HEADERS)
def test_a_header_with_any_value_is_read_or_one_sentence(module, headers):
    place, read = HEADERS[module]
    path = headers / place
    content = json.loads(path.read_text())
    read(path)
    for inner, value in itertools.product([*paths_in(content)], [*NO_NUMBERS, *ODD]):
        write(changed(content, inner, value), path)
        try:
            read(path)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert value not in NO_NUMBERS, (inner, value)
    write(content, path)
    read(path)


# Journals


def accepted(record, value, check):
    """Return a record with a value wherever the command takes it."""
    for path in paths_in(record):
        if path[0] in ("path", "others", "source", "source_stamp"):  # compared with what is known
            continue
        try:
            other = changed(record, path, value)
        except (KeyError, TypeError, IndexError):  # gone with what it was in
            continue
        if batch._is_record(json.loads(json.dumps(other)), check):
            record = other
    return record


# Modules that import the loop by name.
RESUMING = [
    f"rave.api.{name}" for name in ("augment", "decode", "encode", "preprocess", "transcribe")
]
RESUMING += ["rave.jobs.loop", "diffwave.api.vocode"]


@pytest.mark.parametrize("name", RESUMED)
def test_a_record_of_a_journal_with_any_value_is_used_or_made_again(
    name, material, tmp_path, monkeypatch, capsys
):
    checks, out = {}, tmp_path / "out"
    process = batch.process_files

    def spied(sources, work, results, journal, label, check, *more, **options):
        checks[journal.path] = check
        return process(sources, work, results, journal, label, check, *more, **options)

    for module in RESUMING:
        monkeypatch.setattr(f"{module}.process_files", spied)
    assert call(name, material, out) == 0
    assert checks
    for path, check in list(checks.items()):
        settings, first, *more = path.read_text().splitlines()
        entry = json.loads(first)
        for value in ("x", -1, float("nan"), [[]]):
            record = {**accepted(entry["record"], value, check), "unknown": value}
            lines = [settings, json.dumps({**entry, "record": record}), *more]
            path.write_text("".join(f"{line}\n" for line in lines))
            assert call(name, material, out) in (0, 2), capsys.readouterr().err


@pytest.mark.parametrize("value", [None, "x", -1, 2**70, 1.5, [[]], {}])
def test_a_record_of_a_shard_with_any_value_is_made_again(value, material, tmp_path):
    out = tmp_path / "out"
    assert call("rave shard", material, out) == 0
    path = out / ".shard.jsonl"
    settings, first = path.read_text().splitlines()
    entry = json.loads(first)
    for inner in paths_in(entry["record"]):
        other = {**entry, "record": changed(entry["record"], inner, value)}
        path.write_text(f"{settings}\n{json.dumps(other)}\n")
        assert call("rave shard", material, out) == 0
        assert LatentShards(out).shards
