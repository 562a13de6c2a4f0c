"""Parts of audio at any place, damage, and the layout of channels."""

import json
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from audio_files import decoded, joined, noise, notes_of, sine, write, write_with_av

from rave.audio.blocks import mixing_matrix
from rave.audio.io import read_audio, read_audio_part
from rave.audio.parts import Findings, find_parts

RATE_HZ = 44100

# Seeking


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("wav", "GSM610"), ("wav", "G721_32"), ("wav", "NMS_ADPCM_32"), ("wav", "MS_ADPCM"),
        ("wav", "IMA_ADPCM"), ("au", "G723_24"), ("au", "G723_40"), ("aiff", "DWVW_16"),
        ("aiff", "GSM610"), ("caf", "ALAC_16"), ("flac", "PCM_16"), ("ogg", "VORBIS"),
        ("ogg", "OPUS"), ("w64", "GSM610"), ("wav", "ULAW"),
    ],
)  # fmt: skip
def test_a_part_of_any_encoding_is_that_of_the_whole(tmp_path, suffix, subtype):
    rate_hz = 48000 if subtype == "OPUS" else RATE_HZ
    path = write(tmp_path / f"a.{suffix}", noise(5 * rate_hz), rate_hz, subtype=subtype)
    whole = read_audio(path, rate_hz, 1)
    assert whole.shape[1] >= 5 * rate_hz
    for start in (100, 3 * rate_hz + 7):
        part = read_audio_part(path, rate_hz, 1, start, 5000)
        assert np.array_equal(part, whole[:, start : start + 5000])


def test_a_part_is_found_across_joined_files(tmp_path):
    parts = [write(tmp_path / f"{n}.flac", noise(n * RATE_HZ, seed=n)) for n in (3, 4)]
    path = joined(tmp_path / "all.flac", *parts)
    part = read_audio_part(path, RATE_HZ, 1, 5 * RATE_HZ, 1000)
    assert np.array_equal(part, decoded(path)[:, 5 * RATE_HZ :][:, :1000])


# Damage


@pytest.mark.parametrize("kind", ["flac", "ogg", "opus"])
def test_damage_in_the_middle_is_silence_and_is_named_and_counted(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    opus = {"subtype": "OPUS", "format": "OGG"} if kind == "opus" else {}
    write(path, noise(8 * 48000), 48000, **opus)
    expected, content = decoded(path), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    content[len(content) // 2 : len(content) // 2] = bytes(200_000 if kind != "flac" else 0)
    path.write_bytes(content)
    read = decoded(path)
    assert read.shape == expected.shape
    _, notes = notes_of(path)
    assert f"'{path.name}' is damaged in 1 place(s), at " in notes
    place = round(float(notes.split(" at ")[1].split(" s")[0]) * 48000)
    assert abs(place - 4 * 48000) < 1.2 * 48000
    assert np.abs(read - expected)[:, : place - 48000].max() < 1e-6
    assert np.abs(read - expected)[:, place + 3 * 48000 :].max() < 1e-4


@pytest.mark.parametrize("kind", ["mp3", "aac"])
def test_garbage_between_frames_costs_what_it_covers(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    audio = sine(440, 48000, 8.0) + noise(8 * 48000, gain=0.01)
    write_with_av(path, audio, 48000, {"mp3": "libmp3lame", "aac": "aac"}[kind])
    expected, content = decoded(path), path.read_bytes()
    garbage = np.random.default_rng(0).bytes(3000)
    middle = len(content) // 2
    path.write_bytes(content[:middle] + garbage + content[middle:])
    read = decoded(path)
    assert abs(read.shape[1] - expected.shape[1]) < 0.2 * 48000
    assert np.abs(read - expected)[:, : 3 * 48000].max() < 1e-6
    assert "is damaged in 1 place(s), at " in notes_of(path)[1]


def test_a_batch_counts_damage_and_says_where(tmp_path, rave):
    content = bytearray(write(tmp_path / "in" / "a.flac", noise(200_000)).read_bytes())
    content[len(content) // 2] ^= 0x55
    (tmp_path / "in" / "a.flac").write_bytes(content)
    code, out, _ = rave("preprocess", tmp_path / "in", tmp_path / "out", "--json")
    assert code == 0
    (note,) = json.loads(out)["notes"]["a.flac"]
    assert "'a.flac' is damaged in 1 place(s), at 2." in note


def test_of_much_damage_some_places_are_named_and_the_others_counted():
    for count in range(1, 9):
        (said,) = Findings(damage=[(10.0 * n, 0.5) for n in range(count)]).sentences(Path("a.mp3"))
        named = [f"{10.0 * n:.2f} s" for n in range(count) if f"{10.0 * n:.2f} s" in said]
        others = re.search(r" and (\d+) more", said)
        assert len(named) + (int(others[1]) if others else 0) == count
        assert f"in {count} place(s)" in said and f"({count * 0.5:.2f} s)" in said


@pytest.mark.parametrize("digit", range(4))
def test_a_tag_of_any_size_is_passed_over_whatever_it_holds(tmp_path, digit):
    content = write(tmp_path / "a.flac", noise(2000), RATE_HZ).read_bytes()
    sizes = bytes(place == digit for place in range(4))  # in digits of base 128
    tag = b"ID3\4\0\0" + sizes + (b"fLaC" * 128 ** (3 - digit))[: 128 ** (3 - digit)]
    path = tmp_path / "tagged.flac"
    path.write_bytes(tag + content)
    assert [part.ranges for part in find_parts(path)] == [((len(tag), len(tag + content)),)]


# Layouts


def positions(path, num_channels):
    """Left and right share of each channel in a stereo mix, and of each in mono."""
    stereo, mono = (read_audio(path, RATE_HZ, n) for n in (2, 1))
    size = 1000  # channel k sounds alone in the k-th thousand
    return [
        tuple(np.abs(side[k * size : (k + 1) * size]).max() > 0.02 for side in (*stereo, mono[0]))
        for k in range(num_channels)
    ]


def turns(num_channels):
    audio = np.zeros((num_channels, 1000 * num_channels), np.float32)
    for channel in range(num_channels):
        audio[channel, 1000 * channel : 1000 * channel + 900] = 0.5
    return audio


LEFT, RIGHT, BOTH, NONE = (True, False, True), (False, True, True), (True, True, True), (False,) * 3


def test_the_mask_of_a_wav_decides_what_each_channel_is(tmp_path):
    samples = np.ascontiguousarray(turns(4).T * 32767, dtype="<i2").tobytes()
    for mask, expected in (
        (0b001111, [LEFT, RIGHT, BOTH, NONE]),  # front, centre, bass
        (0b110011, [LEFT, RIGHT, LEFT, RIGHT]),  # front, back
        (0b100000111, [LEFT, RIGHT, BOTH, BOTH]),  # front, centre, back centre
    ):
        form = struct.pack("<HHIIHHHHI", 0xFFFE, 4, RATE_HZ, 8 * RATE_HZ, 8, 16, 22, 16, mask)
        form += struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
        head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data"
        content = head + struct.pack("<I", len(samples)) + samples
        path = tmp_path / "a.wav"
        path.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
        assert positions(path, 4) == expected, mask
        assert not notes_of(path)[1]


@pytest.mark.parametrize(
    ("tag", "labels", "expected"),
    [
        (121 << 16 | 6, (), [LEFT, RIGHT, BOTH, NONE, LEFT, RIGHT]),
        (123 << 16 | 6, (), [LEFT, BOTH, RIGHT, LEFT, RIGHT, NONE]),
        (0, (3, 1, 2, 4, 5, 6), [BOTH, LEFT, RIGHT, NONE, LEFT, RIGHT]),
    ],
)
def test_the_layout_chunk_of_a_caf_decides_what_each_channel_is(tmp_path, tag, labels, expected):
    samples = np.ascontiguousarray(turns(6).T * 32767, dtype=">i2").tobytes()
    layout = struct.pack(">III", tag, 0, len(labels))
    layout += b"".join(struct.pack(">II12x", label, 0) for label in labels)
    path = tmp_path / "a.caf"
    path.write_bytes(
        b"caff\0\1\0\0desc" + struct.pack(">qd4sIIIII", 32, RATE_HZ, b"lpcm", 0, 12, 1, 6, 16)
        + b"chan" + struct.pack(">q", len(layout)) + layout
        + b"data" + struct.pack(">qI", len(samples) + 4, 0) + samples
    )  # fmt: skip
    assert positions(path, 6) == expected


def test_the_layout_of_compressed_audio_decides_what_each_channel_is(tmp_path):
    for name, codec in (("a.m4a", "alac"), ("a.flac", "flac")):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=RATE_HZ, layout="5.1")
            frame = av.AudioFrame.from_ndarray(turns(6), "fltp", "5.1")
            frame.sample_rate = RATE_HZ
            for packed in av.AudioResampler("s16p" if codec == "alac" else "s16").resample(frame):
                container.mux(stream.encode(packed))
            container.mux(stream.encode(None))
        assert positions(path, 6) == [LEFT, RIGHT, BOTH, NONE, LEFT, RIGHT], name


@pytest.mark.parametrize("num_channels", [8, 12])
def test_many_planes_are_read(tmp_path, num_channels):
    path = write(tmp_path / "a.ogg", noise(50_000, num_channels), 48000)
    assert decoded(path).shape == (num_channels, 50_000)


def test_an_unknown_layout_is_averaged_and_that_is_noted(tmp_path):
    audio = noise(500, 6)
    path = write(tmp_path / "a.wav", audio, subtype="FLOAT")
    for num_channels in (1, 2):
        read, notes = notes_of(path, num_channels)
        assert np.allclose(read, np.repeat(audio.mean(axis=0)[None], num_channels, 0), atol=1e-6)
        assert "'a.wav' does not state the layout of its 6 channels: all were averaged" in notes
    assert not notes_of(path, 6)[1]
    assert np.allclose(mixing_matrix(3, 1, ("FL", "FR", "UNK")), 1 / 3)
