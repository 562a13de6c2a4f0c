"""Any name that the file system allows goes through every command, and no two results are one."""

import json
import os
import random
import shutil
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np
import pytest
import soundfile
from audio_files import noise
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from rave_models import SHORT, write_run

from diffwave import preprocess as diffwave_preprocess
from diffwave import train as diffwave_train
from diffwave import vocode as diffwave_vocode
from diffwave.conditions.controls import ControlHeader
from rave.api.augment import names_of
from rave.audio.prepared import PreparedAudio
from rave.cli import EXIT_SKIPPED
from rave.files.atomic import check_inside
from rave.jobs.loop import MAX_NAME_BYTES, name_key, result_names
from rave.latents.folder import LatentHeader
from rave.main_cli import main

RATE_HZ = 44100
HARD = (
    "A:B take",  # as Finder shows A/B
    "C: minor/x",
    "con",
    "nul.tar",
    "trailing. ",
    "a.b.c",
    "a",
    "-rf",
    "--help",
    "two\nlines",
    "tab\tquote'\"`$(x)",
    "back\\slash",
    "caf\udce9",  # latin-1 bytes
    "nfc \u00e9",
    "nfd e\u0301",
    "\u202eright to left \u05d0\u05d1",
    "100%",
    "a%2Eb",
    "__meta__/x",
    "x~1",
    "{brace}*?[glob]",
    "%TIME%=@&|;",
    "n" * (MAX_NAME_BYTES - 4),
    "ä" * ((MAX_NAME_BYTES - 4) // 2),
    "song.wav/inside",
    "song.npy/inside",
)
COMMANDS = {
    "prep": (main, "preprocess", "in", "prep"),
    "RAVE": (main, "train", "tiny", "--data", "prep", "--out", "run", "--dry-run"),
    "lat": (main, "encode", "codec", "in", "lat", "--sample"),
    "dec": (main, "decode", "codec", "lat", "dec"),
    "gen": (main, "generate", "codec", "in", "gen"),
    "mid": (main, "transcribe", "in", "mid"),
    "aug": (main, "augment", "in", "aug", "--semitones", "0"),
    "shards": (main, "shard", "lat", "shards"),
    "again": (main, "unshard", "shards", "again"),
    "controls": (diffwave_preprocess.main, "lat", "in", "controls", "--controls", "loudness"),
    "spec": (diffwave_vocode.main, "--make-spectrograms", "in", "spec"),
    "DiffWave": (diffwave_train.main, "lat", "--out", "run", "--dry-run"),
}
DRY = ("RAVE", "DiffWave")
SUFFIXES = (".wav", ".flac", ".WAV")
part = st.text(
    st.sampled_from("aAbéÉe\u0301ßſıİ .:%~\\-_\n\u05d0\udcff1"), min_size=1, max_size=5
).filter(lambda text: not text.startswith("."))
name = st.builds(
    lambda folder, stem, suffixes: f"{folder}{stem}{''.join(suffixes)}",
    st.sampled_from(["", "a/", "a.wav/", "A.wav.npy/", "\udcff/"]),
    part,
    st.lists(st.sampled_from(SUFFIXES), min_size=1, max_size=2),
)


@given(st.sets(name, min_size=1, max_size=12), st.sampled_from([".npy", ".spec.npy", ""]))
@example({"song.wav", "song.flac", "song.wav.mp3"}, ".npy")
@example({"A.wav", "a.wav", "a.wav.2.wav", "a.wav.2.flac"}, ".npy")
@example({"foo.npy/x.wav", "foo.wav", "foo.wav.npy/y.wav"}, ".npy")
@example({"n" * 251 + ".wav", "n" * 251 + ".WAV", "é" * 125 + ".wav"}, ".spec.npy")
def test_no_two_results_are_one_file_on_any_file_system(sources, suffix):
    names = result_names(sources, suffix)
    shuffled = random.Random(0).sample(sorted(sources), len(sources))
    assert result_names(shuffled, suffix) == names
    keys = [normalize("NFC", normalize("NFD", found).casefold()) for found in names.values()]
    folders = {name_key(str(f)) for n in sources for f in PurePosixPath(n).parents}
    assert len({*keys} | folders) == len(sources) + len(folders)
    for source, found in names.items():
        assert PurePosixPath(found).parent == PurePosixPath(source).parent
        assert found.endswith(suffix)
        assert len(os.fsencode(PurePosixPath(found).name)) <= MAX_NAME_BYTES
    stems = {source: name_key(str(PurePosixPath(source).with_suffix(""))) for source in sources}
    for source, stem in stems.items():
        is_alone = list(stems.values()).count(stem) == 1 and name_key(stem + suffix) not in folders
        if is_alone and len(sources) == 1 and len(os.fsencode(source)) < 200:
            assert names[source] == str(PurePosixPath(source).with_suffix("")) + suffix


@given(st.sets(name, min_size=1, max_size=8))
@example({"a.wav", "a~1.flac", "a.flac", "A~1.wav", "a.wav~1.flac"})
def test_no_version_has_the_name_of_a_recording_or_of_another_version(sources):
    copies, versions = names_of(sources, 2)
    names = [*copies.values(), *(v for of in versions.values() for v in of)]
    assert len({name_key(found) for found in names}) == 3 * len(sources)
    for source in sources:
        assert all(
            PurePosixPath(v).parent == PurePosixPath(source).parent for v in versions[source]
        )


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    return write_run(folder / "run", "v2", *SHORT)


def walk(folder, codec, capsys, *names, code=0):
    """Take a folder through commands, and return the figures of each."""
    places = {name: str(folder / name) for name in (*COMMANDS, "in", "run")} | {"codec": str(codec)}
    figures = {}
    for name in names or COMMANDS:
        call, *words = COMMANDS[name]
        capsys.readouterr()
        found = call([*(places.get(word, word) for word in words), "--json"])
        out, err = capsys.readouterr()
        assert found == code, (name, err)
        figures[name] = json.loads(out)
    return figures


def write_all(folder, names):
    """Write recordings of different lengths, and return how many samples each name has."""
    lengths = {found: 6000 + 50 * index for index, found in enumerate(sorted(names))}
    for found, num_samples in lengths.items():
        path = folder / found
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "FLAC" if found.lower().endswith(".flac") else "WAV"
        soundfile.write(os.fsencode(path), noise(num_samples)[0], RATE_HZ, format=kind)
    return lengths


def check_all(folder, lengths):
    """Check that each recording is in every result once, with its own length."""
    prepared = PreparedAudio(folder / "prep")
    assert {file.name: file.num_samples for file in prepared.files} == lengths
    for file in prepared.files:
        prepared.check(file)
    header = LatentHeader.read(folder / "lat")
    assert {file.source: file.source_num_samples for file in header.files} == lengths
    frames = {file.path: -(-file.source_num_samples // header.hop_samples) for file in header.files}
    controls = ControlHeader.read(folder / "controls")
    controls.check_matches(header, "these", "those")
    for file in header.files:
        assert np.load(folder / "lat" / file.path).shape[1] == frames[file.path]
        assert np.load(folder / "controls/loudness" / file.path).shape[1] == frames[file.path]
        assert controls.sources[file.path] == file.source
    assert LatentHeader.read(folder / "again").files == sorted(header.files, key=lambda f: f.path)
    for made in ("dec", "gen"):
        paths = files_in(folder / made, ".wav")
        found = [soundfile.info(os.fsencode(path)).frames for path in paths]
        assert sorted(found) == sorted(lengths.values()), made
    for made in ("lat", "prep", "spec", "mid", "controls/loudness", "again"):
        assert len(files_in(folder / made, ".npy", ".pcm", ".mid")) == len(lengths), made
    assert len(files_in(folder / "aug", ".wav", ".flac")) == 2 * len(lengths)


def files_in(folder, *suffixes):
    """Return the files below a folder that have one of these suffixes, but for hidden folders."""
    visible = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    return [
        path
        for path in visible
        if path.suffix.lower() in suffixes and "/." not in str(path.relative_to(folder.parent))
    ]


def test_every_name_goes_through_every_command_and_again(tmp_path, codec, capsys):
    lengths = write_all(tmp_path / "in", {f"{stem}.wav" for stem in HARD} | {"a.flac", "a.b.flac"})
    walk(tmp_path, codec, capsys)
    check_all(tmp_path, lengths)
    again = walk(tmp_path, codec, capsys, *(name for name in COMMANDS if name not in DRY))
    for command, figures in again.items():
        assert figures.get("num_done", figures.get("num_written")) == 0, command


@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.sets(name, min_size=2, max_size=6))
def test_drawn_names_go_through_every_command(tmp_path_factory, codec, capsys, names):
    assume(all(is_inside(found) for found in names))
    assume(not names & {str(folder) for n in names for folder in PurePosixPath(n).parents})
    folder = tmp_path_factory.mktemp("drawn")
    lengths = write_all(folder / "in", names)
    walk(folder, codec, capsys)
    check_all(folder, lengths)


def is_inside(found):
    try:
        check_inside(found)
    except ValueError:
        return False
    return True


def test_a_name_that_leads_out_of_its_folder_on_windows_is_skipped_by_name(tmp_path, codec, capsys):
    bad = {"C:\\canary.wav", "\\root.wav", "a\\..\\..\\b.wav"}
    write_all(tmp_path / "in", bad | {"good.wav"})
    commands = ("prep", "lat", "gen", "aug", "spec")
    for command, figures in walk(tmp_path, codec, capsys, *commands, code=EXIT_SKIPPED).items():
        assert figures["num_done"] == 1, command
        assert {*figures["skipped"]} == bad
        assert all("Rename it" in reason for reason in figures["skipped"].values())


def test_a_new_neighbour_changes_names_and_mixes_nothing_up(tmp_path, codec, capsys):
    lengths = write_all(tmp_path / "in", {"song.wav", "take.flac"})
    walk(tmp_path, codec, capsys)
    check_all(tmp_path, lengths)
    assert "song.npy" in os.listdir(tmp_path / "lat")
    lengths = write_all(tmp_path / "in", {"song.wav", "song.flac", "song.wav.wav", "take.flac"})
    walk(tmp_path, codec, capsys, *(n for n in COMMANDS if n not in ("shards", "again")))
    shutil.rmtree(tmp_path / "shards")
    shutil.rmtree(tmp_path / "again")
    walk(tmp_path, codec, capsys, "shards", "again")
    check_all(tmp_path, lengths)
    assert "song.npy" not in os.listdir(tmp_path / "lat")
    (tmp_path / "in/song.wav").unlink()
    (tmp_path / "in/song.wav.wav").unlink()
    walk(tmp_path, codec, capsys, "prep", "lat", "dec", "gen", "aug", "controls", "spec")
    header = LatentHeader.read(tmp_path / "lat")
    assert {file.path: file.source for file in header.files} == {
        "song.npy": "song.flac",
        "take.npy": "take.flac",
    }
    for made in ("lat", "prep", "dec", "gen", "spec", "controls/loudness"):
        assert len(files_in(tmp_path / made, ".npy", ".pcm", ".wav")) == 2, made


def test_controls_made_of_another_file_of_that_name_are_refused_and_made_again(
    tmp_path, codec, capsys
):
    write_all(tmp_path / "in", {"song.wav"})
    walk(tmp_path, codec, capsys, "lat", "controls")
    (tmp_path / "in/song.wav").rename(tmp_path / "in/song.WAV")  # as long, of the same time
    walk(tmp_path, codec, capsys, "lat")
    header = LatentHeader.read(tmp_path / "lat")
    with pytest.raises(ValueError, match=r"'song.npy' of those was made from 'song.WAV', but its"):
        ControlHeader.read(tmp_path / "controls").check_matches(header, "these", "those")
    assert walk(tmp_path, codec, capsys, "controls")["controls"]["num_done"] == 1
    ControlHeader.read(tmp_path / "controls").check_matches(header, "these", "those")
