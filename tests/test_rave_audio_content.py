"""Audio is read by its content, in full: parts, names, sizes, tags, streams."""

import struct

import av
import numpy as np
import pytest
import soundfile
from audio_files import decoded, joined, noise, notes_of, write, write_with_av
from hostile import wav

from rave.audio.chunks import AudioError
from rave.audio.formats import decode_blocks
from rave.audio.io import read_audio
from rave.audio.parts import find_parts

RATE_HZ = 44100


def by_ffmpeg(path):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate(frames, axis=1)


def by_libsndfile(path):
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def ogg(path, audio, codec):
    """An Ogg file of any codec."""
    if codec == "flac":
        return write_with_flac(path, audio)
    return write(path, audio, 48000, format="OGG", subtype=codec)


def write_with_flac(path, audio):
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("flac", rate=48000, layout="mono")
        for start in range(0, audio.shape[1], 960):
            samples = (audio[:, start : start + 960] * 32768).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "s16", "mono")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# Files of several parts


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS", "flac"])
def test_every_part_of_a_chained_ogg_file_is_read(tmp_path, codec):
    parts = [ogg(tmp_path / f"{n}.ogg", noise(n, seed=n), codec) for n in (48000, 30000, 70000)]
    read = decoded(joined(tmp_path / "all.ogg", *parts))
    assert len(find_parts(tmp_path / "all.ogg")) == 3
    for other in (by_ffmpeg, by_libsndfile):
        expected = np.concatenate([other(part) for part in parts], axis=1)
        if expected.dtype == np.int16:
            expected = expected / np.float32(32768)
        assert read.shape == expected.shape
        assert np.abs(read - expected).max() < 1e-4
        if codec == "flac":  # libsndfile reads no Ogg FLAC of FFmpeg's
            break


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "au", "caf", "w64"])
def test_every_file_that_was_appended_is_read(tmp_path, suffix):
    parts = [write(tmp_path / f"{n}.{suffix}", noise(n, seed=n)) for n in (5000, 70_000)]
    other = write(tmp_path / "other.flac", noise(300))
    for names, count in ((parts, 75_000), ([*parts, other], 75_300), ([other, *parts], 75_300)):
        read = decoded(joined(tmp_path / f"all.{suffix}", *names))
        assert read.shape == (1, count)
    assert np.array_equal(read, np.concatenate([by_libsndfile(p) for p in (other, *parts)], axis=1))


def test_two_mp3s_joined_are_read_as_ffmpeg_reads_them(tmp_path):
    parts = [write(tmp_path / f"{n}.mp3", noise(n, seed=n)) for n in (30_000, 50_000)]
    path = joined(tmp_path / "both.m4a", *parts)
    assert np.array_equal(decoded(path), by_ffmpeg(path))
    assert decoded(path).shape[1] > 80_000


def test_parts_of_two_rates_are_refused_with_both_and_the_time(tmp_path):
    parts = [write(tmp_path / f"{hz}.flac", noise(hz), hz) for hz in (48000, 44100)]
    with pytest.raises(AudioError, match=r"'all\.flac' changes .* 48000 to 44100 Hz at 1\.00 s"):
        read_audio(joined(tmp_path / "all.flac", *parts), 48000, 1)


def test_parts_of_one_and_two_channels_are_mixed_each(tmp_path):
    mono, stereo = noise(1000), noise(2000, 2)
    parts = [write(tmp_path / f"{len(a)}.wav", a, subtype="FLOAT") for a in (mono, stereo)]
    read = read_audio(joined(tmp_path / "all.wav", *parts), RATE_HZ, 1)
    expected = np.concatenate([mono, stereo.mean(axis=0, keepdims=True)], axis=1)
    assert np.allclose(read, expected, atol=1e-7)


# Names


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "ogg", "aac", "m4a"])
def test_the_suffix_decides_nothing(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind in ("aac", "m4a"):
        write_with_av(path, noise(60_000))
    else:
        write(path, noise(60_000))
    expected = decoded(path)
    assert expected.shape[1] >= 60_000
    for suffix in ("wav", "mp3", "flac", "ogg", "m4a", "aac", "aiff"):
        assert np.array_equal(decoded(path.rename(tmp_path / f"b.{suffix}")), expected)
        path = tmp_path / f"b.{suffix}"


def test_mp3_inside_of_riff_is_read_in_full(tmp_path):
    content = write(tmp_path / "a.mp3", noise(50_000)).read_bytes()
    (tmp_path / "a.wav").write_bytes(wav(content, rate_hz=RATE_HZ, kind=0x55, bits=0))
    read, notes = notes_of(tmp_path / "a.wav")
    assert read.shape[1] >= 50_000
    assert not notes


# Sizes


def resized(path, name, size):
    """Write another size into the chunk of the audio."""
    content = bytearray(path.read_bytes())
    place = 8 if name is None else content.index(name) + 4
    order, code = {".wav": "<I", ".w64": "<Q", ".caf": ">Q"}.get(path.suffix, ">I")
    place += 12 if path.suffix == ".w64" else 0
    struct.pack_into(order + code, content, place, size)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("suffix", "name", "sizes"),
    [
        ("wav", b"data", (0, 2**32 - 1, 2**31 - 1, 2**31)),
        ("rf64.wav", b"ds64\x1c\0\0\0" + bytes(0), (0, 2**64 - 1)),
        ("aiff", b"SSND", (0, 8, 2**32 - 1)),
        ("au", None, (0, 2**32 - 1)),
        ("caf", b"data", (0, 4, 2**64 - 1)),
        ("w64", b"data\xf3", (0, 24, 2**64 - 1)),
    ],
)
def test_a_size_that_was_never_written_loses_nothing(tmp_path, suffix, name, sizes):
    for size in sizes:
        audio = noise(5000)
        if suffix == "rf64.wav":
            path = write(tmp_path / "a.wav", audio, format="RF64")
            content = bytearray(path.read_bytes())
            struct.pack_into("<Q", content, content.index(b"ds64") + 16, size)
            path.write_bytes(content)
        else:
            path = resized(write(tmp_path / f"a.{suffix}", audio), name, size)
        assert np.abs(decoded(path) - audio).max() < 2**-14, size


@pytest.mark.parametrize("stated", [2**30, 2**32 - 1, 0])
def test_a_size_that_wrapped_beyond_4_gib_loses_nothing(tmp_path, stated):
    path = tmp_path / "a.wav"
    size = 5 * 2**30
    with path.open("wb") as file:  # sparse
        file.write(wav(b"", rate_hz=RATE_HZ, declared=stated))
        file.seek(44 + size - 2)
        file.write(b"\1\1" + b"LIST\4\0\0\0abcd" * (stated == 2**30))
    (part,) = find_parts(path)
    assert part.num_bytes - len(part.header) == size
    end_s = size // 2 // RATE_HZ - 1
    end = np.concatenate([block for _, block in decode_blocks(path, end_s)], axis=1)
    assert end.shape[1] == size // 2 - end_s * RATE_HZ
    assert np.flatnonzero(end).tolist() == [end.shape[1] - 1]


@pytest.mark.parametrize("suffix", ["wav", "aiff", "caf", "w64", "au"])
def test_what_follows_the_audio_is_not_read_as_audio(tmp_path, suffix):
    audio = noise(5001)
    content = write(tmp_path / f"a.{suffix}", audio).read_bytes()
    order, code = {"wav": "<I", "w64": "<Q", "caf": ">Q"}.get(suffix, ">I")
    name = b"list/\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" if suffix == "w64" else b"LIST"
    size = 32 if suffix == "w64" else 8
    chunk = name + struct.pack(order + code, size) + b"IARTyou!"
    if suffix in ("wav", "aiff"):
        content += b"\0" * (len(content) % 2)
    if suffix == "w64":
        content += bytes(-len(content) % 8)
    tails = [b"TAG" + b"song".ljust(125, b"\0"), bytes(5000), b"\0"]
    for tail in tails if suffix == "au" else [chunk, chunk * 3 + b"\0", *tails]:
        (tmp_path / f"b.{suffix}").write_bytes(content + tail)
        read, notes = notes_of(tmp_path / f"b.{suffix}")
        assert read.shape == audio.shape
        assert np.abs(read - audio).max() < 2**-14
        assert not notes


def test_unexplained_bytes_are_named_with_both_figures(tmp_path):
    content = write(tmp_path / "a.wav", noise(5000)).read_bytes()
    (tmp_path / "a.wav").write_bytes(content + b"<html>" * 100)
    read, notes = notes_of(tmp_path / "a.wav")
    assert read.shape == (1, 5000)
    assert "states 10000 bytes of audio, but holds 10600: the rest was not read" in notes
    (tmp_path / "a.wav").write_bytes(content + noise(50_000).tobytes())
    with pytest.raises(
        AudioError, match=r"states 10000 bytes of audio, but holds 210000; .* keep this"
    ):
        decoded(tmp_path / "a.wav")
    (tmp_path / "a.wav").write_bytes(content + content[36:])
    with pytest.raises(AudioError, match="audio in two places, the second at byte 10044"):
        decoded(tmp_path / "a.wav")


# Tags behind the last frame, and streams that state no length


@pytest.mark.parametrize("kind", ["mp3", "aac", "flac", "ogg", "opus"])
def test_bytes_behind_the_last_frame_cost_no_sample(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "aac":
        write_with_av(path, noise(60_000))
    else:
        subtype = "OPUS" if kind == "opus" else None
        format = "OGG" if kind == "opus" else None
        write(path, noise(60_000), 48000, subtype=subtype, format=format)
    content, expected = path.read_bytes(), decoded(path)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0xA0000000) + bytes(8)
    tails = [b"TAG" + b"song".ljust(125, b"\0"), ape, bytes(3000), b"\0", b"words\n" * 99, b"\xff"]
    for tail in tails:
        path.write_bytes(content + tail)
        read = decoded(path)  # FFmpeg keeps the padding of an mp3 whose size is not that of its tag
        assert np.array_equal(read[:, : expected.shape[1]], expected), tail[:8]
        assert read.shape[1] < expected.shape[1] + 1152
        assert not notes_of(path)[1]


@pytest.mark.parametrize("kind", ["mp3", "aac"])
def test_many_bytes_behind_the_last_frame_are_noted_and_cost_no_sample(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    write_with_av(path, noise(60_000), 48000, {"mp3": "libmp3lame", "aac": "aac"}[kind])
    content, expected = path.read_bytes(), decoded(path)
    path.write_bytes(content + b"words\n" * 4000)
    assert np.array_equal(decoded(path)[:, : expected.shape[1]], expected)
    assert "bytes that cannot be decoded after 1.2" in notes_of(path)[1]


@pytest.mark.parametrize(
    ("format", "codec"),
    [("flac", "flac"), ("webm", "libopus"), ("matroska", "aac"), ("adts", "aac"), ("mp4", "aac")],
)
def test_a_stream_without_a_stated_length_is_read_to_its_end(tmp_path, format, codec):
    class Pipe:
        """Cannot go back to write a length."""

        def __init__(self, path):
            self.file = path.open("wb")
            self.write = self.file.write

    pipe = Pipe(tmp_path / "a.flac")
    flags = {"movflags": "empty_moov+frag_keyframe"} if format == "mp4" else {}
    with av.open(pipe, "w", format=format, options=flags) as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        for start in range(0, 96_000, 960):
            kind = "s16" if codec in ("flac", "libopus") else "fltp"
            samples = noise(960, seed=start)
            samples = (samples * 32768).astype(np.int16) if kind == "s16" else samples
            frame = av.AudioFrame.from_ndarray(samples, kind, "mono")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    pipe.file.close()
    assert decoded(tmp_path / "a.flac").shape == by_ffmpeg(tmp_path / "a.flac").shape
    assert decoded(tmp_path / "a.flac").shape[1] >= 96_000
    assert not notes_of(tmp_path / "a.flac")[1]


def test_a_total_that_is_too_small_loses_nothing(tmp_path):
    path = write(tmp_path / "a.flac", noise(50_000))
    content = bytearray(path.read_bytes())
    content[22:26] = struct.pack(">I", 1000)
    path.write_bytes(content)
    assert decoded(path).shape == (1, 50_000)
