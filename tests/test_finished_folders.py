"""A finished folder is never called unchanged where an option or an input asks for something else.

Options are found by the parsers: a new one fails until it stands in a table below.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from audio_files import noise, write
from seeded import RATE_HZ, call, contents, make_audio_models, make_codec, parsers
from shard_data import write_folder

ROOT = Path(__file__).parents[1]
# Who computes, and what is shown: results are the same.
SAME = {"--help", "--version", "--json", "--verbose", "--force", "--device", "--backend"}
SAME |= {"--engine", "--address", "--cpus-per-worker"}
# Of each command that goes on where it was stopped: a call, and what may be asked for instead. What
# is None cannot be asked for in that call.
CODECS = {
    "--match-level": "--match-level",
    "--precision": "--precision bfloat16",
    "--derivative": "--derivative",
    "--seed": "--seed 1",
    "--ema": None,  # of runs of acids-rave: another fingerprint
    "codec": "{codec} {other_codec}",
}
DECODED = {
    "--as-encoded": "--as-encoded",
    "--codec-rate": "--codec-rate",
    "--shift": "--shift 0=2",
    "--scale": "--scale 0=2",
}
# Of single files, or of the other kind of folder.
OF_AUDIO = ("--count", "--seconds", "--spectrogram", "--from-audio", "--fast", "--seed")
OF_SPECTROGRAMS = ("--make-spectrograms", "--sample-rate", "--mels")
FINISHED = {
    "rave preprocess": (
        "{audio} {out} --sample-rate 8000",
        {
            "--sample-rate": "--sample-rate 16000",
            "--channels": "--channels 2",
            "audio_dir": "{audio} {other_audio}",
        },
    ),
    "rave augment": (
        "{audio} {out} --semitones 1",
        {
            "--semitones": "--semitones 2",
            "--seed": "--seed 1",
            "audio_dir": "{audio} {other_audio}",
        },
    ),
    "rave encode": (
        "{codec} {audio} {out} --sample",
        {**CODECS, "--sample": None, "audio_dir": "{audio} {other_audio}"},
    ),
    "rave encode the mean": (
        "{codec} {audio} {out}",
        {**dict.fromkeys(CODECS), "--sample": "--sample", "audio_dir": None},
    ),
    "rave decode": (
        "{codec} {latents} {out}",
        {
            **{option: asked for option, asked in CODECS.items() if option != "--match-level"},
            **DECODED,
            "codec": None,  # another codec does not decode them
            "--derivative": None,  # which is another codec
            "latents_dir": "{latents} {other_latents}",
        },
    ),
    "rave generate": (
        "{codec} {audio} {out}",
        {**CODECS, **DECODED, "--sample": "--sample", "inputs": "{audio} {other_audio}"},
    ),
    "rave transcribe": ("{audio} {out}", {"audio": "{audio} {other_audio}"}),
    "rave shard": (
        "{many} {out} --shard-mb 0.011",
        {
            "--shard-mb": "--shard-mb 0.012",  # as many shards
            "--seed": "--seed 3",
            "latents_dirs": "{many} {latents}",
        },
    ),
    "rave unshard": ("{shards} {out}", {"shards": "{shards} {other_shards}"}),
    "diffwave vocode of a folder": (
        "{follower} {out} --spectrogram {spectrograms}",
        {
            **dict.fromkeys([*OF_AUDIO, *OF_SPECTROGRAMS]),
            "--fast": "--fast",
            "--seed": "--seed 1",
            "source": "{follower} {other_follower}",
        },
    ),
    "diffwave preprocess": (
        "{latents} {audio} {out} --mel-hop 128",
        {
            "--controls": "--controls loudness",
            "--mel-hop": "--mel-hop 64",
            "--mels": "--mels 9",
            "latents_dir": "{latents} {other_latents}",
            "audio_dir": None,  # the same audio, moved
        },
    ),
    "diffwave vocode of spectrograms": (
        "{audio} {out} --make-spectrograms --mels 8",
        {
            **dict.fromkeys([*OF_AUDIO, *OF_SPECTROGRAMS]),
            "--sample-rate": "--sample-rate 16000",
            "--mels": "--mels 9",
            "source": "{audio} {other_audio}",
        },
    ),
}
ALL = [(name, asked) for name, (_, options) in FINISHED.items() for asked in options.values()]
REFUSED = "other settings|already holds|holds controls|holds spectrograms"


def command_of(name):
    """Return the command of an entry of the table."""
    return " ".join(name.split()[:2])


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    place = {name: str(folder / name) for name in ("codec", "other_codec", "audio", "other_audio")}
    for seed, name in enumerate(("codec", "other_codec")):
        make_codec(folder / name, seed)
    for first, name in ((0, "audio"), (5, "other_audio")):
        for index in range(2):
            # Quieter than what the codec knows, for --match-level.
            hiss = noise(6000 + 1000 * index, seed=first + index, gain=0.01)
            write(folder / name / f"{index}.wav", hiss, RATE_HZ)
    place["many"] = str(folder / "many")
    write_folder(folder / "many")
    for kind in ("", "other_"):
        place[f"{kind}latents"] = str(folder / f"{kind}latents")
        place[f"{kind}shards"] = str(folder / f"{kind}shards")
        words = [place["codec"], place[f"{kind}audio"], place[f"{kind}latents"]]
        assert call("rave encode", words) == 0
        assert call("rave shard", [place[f"{kind}latents"], place[f"{kind}shards"]]) == 0
    return place | make_audio_models(folder)


@pytest.fixture(scope="module")
def finished(places, tmp_path_factory):
    """Return a function that returns the finished folder of an entry of the table."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("finished") / "out"
            words = FINISHED[name][0].format(out=made[name], **places).split()
            assert call(command_of(name), words) == 0
        return made[name]

    return folder


def test_every_command_that_goes_on_and_every_option_of_it_is_looked_at():
    journals = {
        path
        for folder in ("rave/api", "diffwave/api")
        for path in (ROOT / folder).glob("*.py")
        if " Journal(" in path.read_text()
    }
    names = {f"{'rave' if 'rave' in path.parts else 'diffwave'} {path.stem}" for path in journals}
    names |= {"rave generate"}  # it calls encode and decode
    assert names == {command_of(name) for name in FINISHED}
    known = dict(parsers())
    for name, (_, asked) in FINISHED.items():
        actions = known[command_of(name)]._actions
        options = {action.option_strings[-1] for action in actions if action.option_strings}
        inputs = [action.dest for action in actions if not action.option_strings][:-1]
        assert set(asked) == (options - SAME) | set(inputs), name


@pytest.mark.parametrize(("name", "asked"), [each for each in ALL if each[1]])
def test_what_is_asked_for_is_made_or_refused(name, asked, finished, places, tmp_path, capsys):
    folder, before = finished(name), contents(finished(name))
    base = FINISHED[name][0]
    if asked.startswith("{"):
        base, asked = base.replace(*asked.split()), ""

    def words(out):
        return f"{base} {asked}".format(out=out, **places).split()

    capsys.readouterr()
    shutil.copytree(folder, tmp_path / "out")
    code = call(command_of(name), words(tmp_path / "out"))
    if code == 2:
        assert re.search(REFUSED, capsys.readouterr().err)
        assert contents(tmp_path / "out") == before
    else:
        assert code == 0
        assert call(command_of(name), words(tmp_path / "new")) == 0
        assert contents(tmp_path / "out") == contents(tmp_path / "new")


@pytest.mark.parametrize("name", FINISHED)
def test_who_computes_and_what_is_shown_leaves_a_finished_folder_as_it_is(
    name, finished, places, capsys
):
    folder = finished(name)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.stem[0] != "."}
    options = dict(parsers())[command_of(name)].format_help()
    more = ["--json", "--verbose"]
    is_made = "--make-spectrograms" in FINISHED[name][0]  # on no device
    for option in ("--device cpu", "--backend torch", "--engine local"):
        more += option.split() if option.split()[0] in options and not is_made else []
    words = FINISHED[name][0].format(out=folder, **places).split()
    capsys.readouterr()
    assert call(command_of(name), [*words, *more]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.get("num_done", figures.get("num_written")) in (0, figures.get("num_shards"))
    for path, time_ns in before.items():
        if path.suffix not in (".json", ".jsonl"):  # headers are written again
            assert path.stat().st_mtime_ns == time_ns
