"""Databases of acids-rave are training audio as they are; golden/README.md."""

from pathlib import Path

import lmdb
import numpy as np
import pytest
from audio_files import noise, sine, write
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from killing import differences
from rave_runs import RATE_HZ, checkpoint, train

from rave.audio.formats import decode_blocks
from rave.audio.io import read_audio
from rave.dataset import PreparedAudioDataset, PreparedCropsDataset, split_audio
from rave.upstream.lmdb import open_audio
from rave.upstream.lmdb_file import pairs

GOLDEN = Path(__file__).parent / "golden" / "acids_rave_lmdb"
FIXTURE = Path(__file__).parents[2] / "shared" / "fixtures" / "rave_lmdb"
INT16 = 3


def message_class():
    """Return AudioExample, described to the protobuf package: a reference of our reader."""
    file = descriptor_pb2.FileDescriptorProto(name="audio.proto", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    many, one = kinds.LABEL_REPEATED, kinds.LABEL_OPTIONAL

    def message(parent, name, fields):
        made = parent.add(name=name)
        for number, (field, kind, label, type_name) in enumerate(fields, 1):
            made.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)
        return made

    buffer = [
        ("shape", kinds.TYPE_INT32, many, None),
        ("sampling_rate", kinds.TYPE_INT32, one, None),
        ("data", kinds.TYPE_BYTES, one, None),
        ("precision", kinds.TYPE_INT32, one, None),
    ]
    message(file.message_type, "Buffer", buffer)
    maps = [
        ("buffers", kinds.TYPE_MESSAGE, many, ".Example.BuffersEntry"),
        ("metadata", kinds.TYPE_MESSAGE, many, ".Example.MetadataEntry"),
    ]
    example = message(file.message_type, "Example", maps)
    for name, kind, type_name in (
        ("BuffersEntry", kinds.TYPE_MESSAGE, ".Buffer"),
        ("MetadataEntry", kinds.TYPE_STRING, None),
    ):
        pair = [("key", kinds.TYPE_STRING, one, None), ("value", kind, one, type_name)]
        message(example.nested_type, name, pair).options.map_entry = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


EXAMPLE = message_class()


def samples_record(samples, rate_hz=RATE_HZ, precision=INT16):
    """Return a record of samples (C, T)."""
    example = EXAMPLE()
    data = np.asarray(samples, dtype="<i2").tobytes()
    example.buffers["waveform"].shape.extend([len(samples), len(data) // len(samples)])
    example.buffers["waveform"].sampling_rate = rate_hz
    example.buffers["waveform"].data = data
    example.buffers["waveform"].precision = precision
    return example.SerializeToString(deterministic=True)


def lazy_record(path, seconds):
    example = EXAMPLE()
    for name, value in (("path", path), ("length", seconds), ("channels", 1)):
        example.metadata[name] = str(value)
    return example.SerializeToString(deterministic=True)


def write_database(folder, records, metadata=None):
    folder.mkdir()
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        for number, record in enumerate(records):
            transaction.put(f"{number:08d}".encode(), record)
    if metadata:
        (folder / "metadata.yaml").write_text(metadata)
    return folder


LAZY = f"channels: 1\nlazy: true\nn_seconds: 3.5\nsr: {RATE_HZ}\n"


# What acids-rave wrote


def test_records_hold_the_samples_that_acids_rave_was_given():
    """It was given a file whose left samples count up and whose right ones count down."""
    store = open_audio(GOLDEN)
    assert (store.sample_rate_hz, store.num_channels) == (44100, 2)
    assert [file.num_samples for file in store.files] == [2048] * 4
    audio = np.concatenate([store.read(file, 0, 2048) for file in store.files], axis=1)
    counts = np.arange(8192)
    assert np.array_equal(audio * 32768, [counts, -counts])
    part = store.read(store.files[2], 100, 7)
    assert np.array_equal(part, audio[:, 4196:4203])


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="the reference data is not beside the checkout")
def test_a_larger_database_of_acids_rave_trains(tmp_path):
    store = open_audio(FIXTURE)
    assert [file.num_samples for file in store.files] == [131072] * 6
    assert train(FIXTURE, tmp_path / "run", "MAX_STEPS=2", "VALIDATE_EVERY_STEPS=2") == 0
    assert checkpoint(tmp_path / "run")["global_step"] == 2


# Laws


@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_what_protobuf_and_lmdb_write_is_read(tmp_path, num_channels):
    rng = np.random.default_rng(num_channels)
    lengths = (1, 100, 70_000)  # in the page, across pages, and a length of three bytes
    written = [rng.integers(-(2**15), 2**15, (num_channels, n)) for n in lengths]
    store = open_audio(write_database(tmp_path / "db", map(samples_record, written)))
    assert (store.sample_rate_hz, store.num_channels) == (RATE_HZ, num_channels)
    for file, samples in zip(store.files, written, strict=True):
        assert np.array_equal(store.read(file, 0, file.num_samples) * 32768, samples)


def test_crops_of_a_database_do_not_depend_on_what_was_read_before(tmp_path):
    records = [samples_record(np.full((1, 500), value)) for value in range(1, 20)]
    store = open_audio(write_database(tmp_path / "db", records))
    training, held_out = split_audio(store, 0.2)
    assert not {r.name for r in training} & {r.name for r in held_out}
    crops = PreparedAudioDataset(store, 64, 50, seed=1, ranges=training)
    again = PreparedAudioDataset(tmp_path / "db", 64, 50, seed=1, ranges=training)
    assert all(crops[i].equal(again[i]) for i in (49, 3, 17))
    values = {int(crop[0, 0] * 32768) for crop in PreparedCropsDataset(store, 64, held_out)}
    assert values == {int(r.name) + 1 for r in held_out}


@pytest.mark.parametrize("rate_hz", [22050, 44100, 48000, 8000])
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_lazy_crops_are_parts_of_the_whole_file(tmp_path, rate_hz, suffix):
    path = tmp_path / f"a.{suffix}"
    write(path, 0.3 * noise(int(3.5 * rate_hz)) + sine(440, rate_hz, 3.5, 0.3), rate_hz)
    store = open_audio(write_database(tmp_path / "db", [lazy_record(path, 3.5)], LAZY))
    (file,) = store.files
    assert file.num_samples == int(3.5 * RATE_HZ)
    whole = read_audio(path, RATE_HZ, 1)
    for start, count in ((0, 1000), (30_000, 4096), (RATE_HZ - 1, 3), (60_001, 10_000)):
        part = store.read(file, start, count)
        assert part.shape == (1, count)
        assert np.abs(part - whole[:, start : start + count]).max() < 1e-4
    end = store.read(file, file.num_samples - 10, 5000)
    assert end.shape == (1, 5000)
    assert not end[0, 4000:].any()


def test_an_mp3_is_read_from_any_second_as_from_its_beginning(tmp_path):
    """Also without the table of its frames, as recordings of streams are."""
    write(tmp_path / "a.mp3", 0.3 * noise(8 * 44100) + sine(440, 44100, 8.0, 0.3), 44100)
    (tmp_path / "b.mp3").write_bytes((tmp_path / "a.mp3").read_bytes()[2000:])
    for name in "ab":
        path = tmp_path / f"{name}.mp3"
        whole = np.concatenate([block for _, block in decode_blocks(path)], axis=1)
        for start_s in (1, 2, 3, 6, 7):
            part = np.concatenate([block for _, block in decode_blocks(path, start_s)], axis=1)
            assert np.array_equal(part, whole[:, start_s * 44100 :])
        assert list(decode_blocks(path, 1000)) == []


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44100])
def test_a_lazy_database_trains_as_one_of_its_samples(tmp_path, rate_hz, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Path(f"{index:08d}.wav") for index in range(3)]  # named as its records are
    for index, path in enumerate(paths):
        write(path, sine(220 * (index + 1), rate_hz, 1.0), rate_hz)
    lazy = write_database(tmp_path / "lazy", [lazy_record(path, 1.0) for path in paths], LAZY)
    samples = [np.round(read_audio(path, RATE_HZ, 1) * 32768) for path in paths]
    eager = write_database(tmp_path / "eager", map(samples_record, samples))
    for database in (lazy, eager):
        run = tmp_path / f"{database.name} run"
        assert train(database, run, "MAX_STEPS=2", "VALIDATE_EVERY_STEPS=2") == 0
    one, other = (checkpoint(tmp_path / f"{name} run") for name in ("lazy", "eager"))
    assert one["global_step"] == other["global_step"] == 2
    if rate_hz == RATE_HZ:  # else the lazy ones are resampled, and not rounded to 16 bits
        assert differences(one, other) == []


# Refusals


@pytest.mark.parametrize(
    ("records", "metadata", "message"),
    [
        ([], None, "holds no records"),
        ([b"\x0a\x7f"], None, r"Record 00000000 .*field 1 is cut off"),
        ([b"\xff" * 20], None, "a number is too long"),
        ([b"\x0b"], None, "field 1 has wire type 3"),
        ([b""], None, "neither a waveform nor a path"),
        ([samples_record([[1]], precision=1)], None, "samples are FLOAT32; only INT16"),
        ([samples_record([[1]], precision=99)], None, "samples are 99"),
        ([samples_record([[1]]), samples_record([[1], [1]])], None, "mixes formats"),
        ([samples_record([[1]])], "sr: 44100\n", "states 44100 Hz, but the records 22050 Hz"),
        ([lazy_record("a.wav", 1)], None, "'sr' is missing"),
        ([lazy_record("a.wav", "x")], LAZY, "could not convert"),
        ([lazy_record("a.wav", "inf")], LAZY, "infinity"),
        ([lazy_record("gone.wav", 1)], LAZY, r"--lazy from 'gone\.wav', which does not exist"),
    ],
)
def test_what_is_not_a_whole_database_is_refused(tmp_path, records, metadata, message):
    database = write_database(tmp_path / "db", records, metadata)
    with pytest.raises(ValueError, match=message):
        PreparedCropsDataset(database, 10)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_refused(tmp_path, kept):
    data = (GOLDEN / "data.mdb").read_bytes()
    (tmp_path / "data.mdb").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=r"is cut off|Cannot read the database") as error:
        open_audio(tmp_path)
    assert str(tmp_path / "data.mdb") in str(error.value)


def test_no_changed_byte_is_more_than_an_error(tmp_path):
    """Of every field of every page that the library would follow, and of the records' beginnings.

    Read by this very process: the library would end it.
    """
    data = (GOLDEN / "data.mdb").read_bytes()
    whole = open_audio(GOLDEN).files
    places = [page + at for page in range(0, len(data), 4096) for at in range(8, 40)]
    places += [page + at for page in (0, 4096) for at in range(152)]
    places += [page + at for page in range(8192, len(data), 4096) for at in range(3900, 4096, 7)]
    path, num_refused = tmp_path / "data.mdb", 0
    path.write_bytes(data)
    for place in places:
        for value in (data[place] ^ 0x80, data[place] ^ 1):
            with path.open("r+b") as file:
                file.seek(place)
                file.write(bytes([value]))
            try:
                store = open_audio(tmp_path)
                assert sum(store.read(file, 0, 2048).shape[1] for file in store.files) <= 4 * 2048
            except ValueError as error:
                num_refused += 1
                assert str(path) in str(error) or str(tmp_path) in str(error)
        with path.open("r+b") as file:
            file.seek(place)
            file.write(data[place : place + 1])
    assert num_refused > 100
    assert open_audio(tmp_path).files == whole


def test_what_lmdb_gives_is_what_is_read(tmp_path):
    """Also of several levels of pages, after deletions, and of values in the page and beyond it."""
    rng = np.random.default_rng(0)
    folder = write_database(tmp_path / "db", [rng.bytes(n % 5000) for n in range(2000)])
    with lmdb.open(str(folder)) as environment:
        with environment.begin(write=True) as transaction:
            for number in range(0, 2000, 3):
                transaction.delete(f"{number:08d}".encode())
        with environment.begin() as transaction:
            wanted = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
    with (folder / "data.mdb").open("rb") as file:
        found = [(key, value[0 : len(value)]) for key, value in pairs(file)]
    assert found == wanted


def test_a_page_overwritten_is_refused_or_changes_samples_only(tmp_path):
    data, whole = (GOLDEN / "data.mdb").read_bytes(), open_audio(GOLDEN)
    samples = [whole.read(file, 0, 2048) for file in whole.files]
    num_refused = num_changed = 0
    for start in range(2 * 4096, len(data), 4096):  # behind the two that begin a database
        damaged = data[:start] + bytes(4096) + data[start + 4096 :]
        (tmp_path / "data.mdb").write_bytes(damaged)
        try:
            store = open_audio(tmp_path)
        except ValueError as error:
            assert "Cannot read the database" in str(error) or "not from acids-rave" in str(error)
            num_refused += 1
        else:  # it was a page of samples
            assert store.files == whole.files
            found = [store.read(file, 0, 2048) for file in store.files]
            changed = [a != b for a, b in zip(found, samples, strict=True)]
            assert sum(int(each.sum()) for each in changed) <= 4096 // 2
            num_changed += any(each.any() for each in changed)
            assert all((a[each] == 0).all() for a, each in zip(found, changed, strict=True))
    assert num_refused > 0
    assert num_changed >= len(samples)  # a page of each record


def test_a_damaged_file_is_refused(tmp_path, rave):
    (tmp_path / "db").mkdir()
    damaged = tmp_path / "db" / "data.mdb"
    damaged.write_bytes(b"\0" * 8192)
    code, _, error = rave("train", "tiny", "--data", tmp_path / "db", "--out", tmp_path / "run")
    assert code == 2
    assert error.startswith(f"rave train: error: Cannot read the database '{damaged}'")
    assert damaged.read_bytes() == b"\0" * 8192
    assert not (tmp_path / "run").exists()
