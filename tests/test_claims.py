"""What files that strangers send say of themselves is checked before anything trusts it."""

import json
import re

import pytest
import torch
from diffwave_data import RATE_HZ
from rave_models import write_run
from strangers import audio_of, edit_header, format_of, latents_of
from test_rave_upstream_lmdb import LAZY, lazy_record, write_database
from upstream_runs import CHECKPOINT, checkpoint_of, golden_weights, write_upstream_run

from rave.files.atomic import built, check_inside
from rave.latents.folder import LatentFile
from rave.main_cli import main


def one_file(**changes):
    entry = vars(LatentFile("a.npy", 64, "a.wav", RATE_HZ, 1000))
    return {"files": [entry | changes]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (one_file(path="../../out.npy"), "leads out of its folder"),
        (one_file(path="/elsewhere/out.npy"), "leads out of its folder"),
        (one_file(path="C:\\out.npy"), "leads out of its folder"),
        (one_file(path="..\\out.npy"), "leads out of its folder"),
        (one_file(path=""), "leads out of its folder"),
        (one_file(path=3), "path is 3"),
        (one_file(source_num_samples=-1), "'a.npy' has a negative length"),
        (one_file(source_sample_rate_hz=10**12), "'a.npy' has a sample rate of 1000000000000 Hz"),
        (one_file(source_sample_rate_hz=0), "'a.npy' has a sample rate of 0 Hz"),
        (one_file(num_frames=True), "num_frames is True"),
        ({"latent_size": 10**12}, "statistics of 4 of 1000000000000 dimensions"),
        ({"latent_size": -4}, "statistics of 4 of -4 dimensions"),
        ({"latent_size": "4"}, "latent_size is '4'"),
        ({"hop_samples": 0}, "a size that is not positive"),
        ({"hop_samples": None}, "hop_samples is None"),
        ({"sample_rate_hz": 1e300}, "sample_rate_hz is 1e+300"),
        ({"statistics": []}, "a LatentStatistics is []"),
        ({"files": {"a": 1}}, "files is {'a': 1}"),
        ({"skipped": [1]}, "skipped is [1]"),
        ({"codec": {"a": []}}, "codec is {'a': []}"),
    ],
    ids=str,
)
def test_a_header_of_latents_that_claims_the_impossible_is_refused(
    changes, words, tmp_path, refused
):
    """A path out of the folder would be written to."""
    made = write_run(tmp_path / "run")
    latents_of(tmp_path / "latents")
    edit_header(tmp_path / "latents", **changes)
    command = (main, "decode", made, tmp_path / "latents", tmp_path / "out")
    told = refused(*command)
    assert told.startswith(f"'{tmp_path / 'latents' / 'latents.json'}' is not a complete header")
    assert words in told
    assert not (tmp_path / "out").exists()


def test_no_more_audio_is_written_than_there_are_latents_for(tmp_path, refused):
    made = write_run(tmp_path / "run")
    format = format_of(made)
    latents_of(tmp_path / "latents", codec=format.fingerprint)
    sizes = {"hop_samples": format.hop_samples, "sample_rate_hz": format.sample_rate_hz}
    edit_header(tmp_path / "latents", **sizes, **one_file(source_num_samples=10**15))
    told = refused(main, "decode", made, tmp_path / "latents", tmp_path / "out")
    assert "states 1000000000000000 samples for 64 frames" in told


NO_JSON = "is not valid JSON"
NO_HEADER = "is not the header of a "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *(("[" * 100_000, NO_JSON), ("9" * 5000, NO_JSON), ("NaN", NO_JSON), ("\xff", NO_JSON)),
        *(('"a"', NO_HEADER), ("{}", NO_HEADER)),
    ],
    ids=["deep", "long", "NaN", "bytes", "text", "empty"],
)
@pytest.mark.parametrize("name", ["run.json", "latents.json", "prepared.json", "data.mdb"])
def test_a_header_that_is_none_is_one_sentence(name, text, words, tmp_path, refused):
    made = write_run(tmp_path / "run")
    (tmp_path / "in").mkdir()
    path = (made if name == "run.json" else tmp_path / "in") / name
    path.write_text(text, encoding="latin-1")
    told = refused(
        *{
            "run.json": (main, "export", made, tmp_path / "a.ts"),
            "latents.json": (main, "decode", made, tmp_path / "in", tmp_path / "out"),
            "prepared.json": (main, "train", "v2", "--data", tmp_path / "in", "--out", made),
            "data.mdb": (main, "train", "v2", "--data", tmp_path / "in", "--out", made),
        }[name]
    )
    assert f"'{path}' {words}" in told or told.startswith(f"Cannot read the database '{path}' (it")


def test_values_of_other_types_are_named():
    with pytest.raises(TypeError, match="num_frames is '1'"):
        built(LatentFile, vars(LatentFile("a.npy", "1", None, 1, 1)))
    with pytest.raises(TypeError, match="missing 4 required"):
        built(LatentFile, {"path": "a.npy"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'more'"):
        built(LatentFile, {"more": 1})


def test_names_that_lead_out_of_a_folder_are_known():
    for name in ("a.npy", "b/a.npy", "..a/b.npy", "a..npy", "C:a"):
        check_inside(name)
    for name in ("", ".", "/a", "../a", "a/../../b", "C:\\a", "\\a", "a\\..\\b", "a\0b"):
        with pytest.raises(ValueError, match="leads out of its folder"):
            check_inside(name)


def test_a_journal_does_not_let_files_elsewhere_be_deleted(tmp_path, refused):
    made = write_run(tmp_path / "run")
    audio, out = audio_of(tmp_path), tmp_path / "out"
    assert main(["encode", str(made), str(audio), str(out)]) == 0
    lines = (out / ".encode.jsonl").read_text().splitlines()
    entry = json.loads(lines[1])
    for foreign in (
        {**entry, "name": "../victim.wav"},
        {**entry, "name": "b.wav", "record": {**entry["record"], "path": "../victim.npy"}},
    ):
        changed = [*lines, json.dumps(foreign), lines[1]]
        (out / ".encode.jsonl").write_text("\n".join(changed) + "\n")
        assert "is damaged at line 3" in refused(main, "encode", made, audio, out)


# Databases


def field(number, content):
    return bytes([number << 3 | 2]) + length(len(content)) + content


def length(count):
    groups = []
    while count >= 0x80:
        groups.append(count & 0x7F | 0x80)
        count >>= 7
    return bytes([*groups, count])


def record(*fields):
    """Return an AudioExample whose waveform has these fields."""
    return field(1, field(1, b"waveform") + field(2, b"".join(fields)))


SHAPE = field(1, length(1) + length(2))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x0a" + length(2**62), "field 1 is cut off"),
        (
            record(SHAPE, b"\x10" + length(22050), b"\x1a" + length(2**40), b"\x20\x03"),
            "field 3 is cut off",
        ),
        (
            record(SHAPE, b"\x10" + length(2**63), field(3, b"ab"), b"\x20\x03"),
            "it must be from 1000 to 768000 Hz",
        ),
        (
            record(
                field(1, length(2**62) * 2), b"\x10" + length(22050), field(3, b"ab"), b"\x20\x03"
            ),
            "2 bytes are not samples of 4611686018427387904 channels",
        ),
        (lazy_record("/dev/zero", 1e300), "from '/dev/zero', which does not exist"),
        (lazy_record("/etc/passwd\0.wav", 1), "from '/etc/passwd"),
        (lazy_record("https://example.org/a.wav", 1), "a.wav', which does not exist"),
        (lazy_record("none.wav", 1e14), "from 'none.wav', which does not exist"),
        (lazy_record("none.wav", "nan"), "cannot convert float NaN"),
    ],
)
def test_a_database_that_claims_the_impossible_is_refused(content, words, tmp_path, refused):
    database = write_database(tmp_path / "db", [content], LAZY)
    assert words in refused(main, "train", "v2", "--data", database, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("0", "'none.wav' has no samples"),
        ("9" * 5000, "'sr' is missing"),
        ("-1", "'sr' is missing"),
    ],
    ids=["0", "long", "-1"],
)
def test_a_database_of_an_impossible_rate_is_refused(rate, words, tmp_path, refused):
    lazy = re.sub(r"^sr: .*$", f"sr: {rate}", LAZY, flags=re.MULTILINE)
    database = write_database(tmp_path / "db", [lazy_record("none.wav", 1)], lazy)
    told = refused(main, "train", "v2", "--data", database, "--out", tmp_path / "out")
    assert f"'{database}'" in told
    assert words in told


def test_weights_that_claim_the_impossible_are_refused(tmp_path, refused):
    """A tensor of one number may pretend to be of any size."""
    weights = golden_weights() | {"encoder.encoder.net.0.weight_v": torch.zeros(1).expand(2**45)}
    made = write_upstream_run(tmp_path / "run")
    torch.save(checkpoint_of(weights), made / CHECKPOINT)
    assert "claims more values than are stored" in refused(main, "export", made, tmp_path / "a.ts")
