"""A folder of what a folder of audio should not hold, and of good files between it.

python tests/hostile.py FOLDER
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
from audio_files import noise, write, write_with_av

from rave.audio.formats import AUDIO_SUFFIXES

RATE_HZ = 22050
TEN_HOURS = 10 * 3600 * RATE_HZ  # more than 2 GiB is what a pipe writes that knows no length


def wav(
    samples: bytes = bytes(200),
    *,
    rate_hz: int = RATE_HZ,
    num_channels: int = 1,
    bits: int = 16,
    kind: int = 1,
    declared: int | None = None,
    before: bytes = b"",
    riff: bytes = b"RIFF",
) -> bytes:
    """Return a WAV file whose header may say anything."""
    size = len(samples) if declared is None else declared
    block = num_channels * bits // 8
    form = struct.pack(
        "<HHIIHH", kind, num_channels, rate_hz, rate_hz * block % 2**32, block % 2**16, bits
    )
    head = riff + struct.pack("<I", (36 + size + len(before)) % 2**32) + b"WAVE"
    return head + b"fmt \x10\0\0\0" + form + before + b"data" + struct.pack("<I", size) + samples


def chunk(name: bytes, size: int, content: bytes = b"", order: str = "<") -> bytes:
    """Return a chunk that claims a size."""
    return name + struct.pack(f"{order}I", size) + content


def flac_info(num_samples: int, content: bytes = b"") -> bytes:
    """Return a FLAC file of 44.1 kHz that claims a length."""
    packed = (44100 << 44) | (0 << 41) | (15 << 36) | num_samples
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC\x80\0\0\x22" + info + content


def encoded(folder: Path, suffix: str) -> bytes:
    """Return a short good file of a format that libsndfile writes."""
    path = write(folder / f"model{suffix}", noise(3000), RATE_HZ)
    content = path.read_bytes()
    path.unlink()
    return content


def cut_headers(scratch: Path) -> Iterator[tuple[str, bytes]]:
    """Yield files cut off after each byte of their headers."""
    for suffix, header_bytes in ((".wav", 44), (".flac", 42), (".aiff", 54), (".ogg", 58)):
        content = encoded(scratch, suffix)
        for size in range(1, header_bytes + 1):
            yield f"cut-{size:02d}{suffix}", content[:size]


def lies(scratch: Path) -> Iterator[tuple[str, bytes]]:
    """Yield files whose headers claim what is not so."""
    whole = encoded(scratch, ".wav")
    yield "magic-RIFX.wav", b"RIFX" + whole[4:]
    yield "magic-FORM.wav", b"FORM" + whole[4:]
    yield "magic-null.wav", bytes(4) + whole[4:]
    yield "magic-ogg.flac", b"OggS" + encoded(scratch, ".flac")[4:]
    yield "magic-flac.ogg", b"fLaC" + encoded(scratch, ".ogg")[4:]
    yield "picture.wav", b"\x89PNG\r\n\x1a\n" + bytes(2000)
    yield "program.wav", b"\x7fELF\x02\x01\x01" + bytes(2000)
    yield "page.mp3", b"<!DOCTYPE html><title>404</title>" * 40
    yield "archive.flac", archive(scratch)
    yield "ten-hours.wav", wav(b"", declared=2 * TEN_HOURS)
    yield "ten-hours-and-a-second.wav", wav(bytes(88200), declared=2 * TEN_HOURS)
    yield "ten-hours.flac", flac_info(TEN_HOURS)
    yield "ten-hours.au", b".snd" + struct.pack(">IIIII", 24, 2 * TEN_HOURS, 3, 44100, 1)
    aiff = b"COMM\0\0\0\x12\0\x01" + struct.pack(">I", TEN_HOURS) + b"\0\x10\x40\x0e\xac\x44"
    aiff += bytes(6) + chunk(b"SSND", 2 * TEN_HOURS, bytes(8), ">")
    yield "ten-hours.aiff", b"FORM" + struct.pack(">I", len(aiff) + 4) + b"AIFF" + aiff
    yield "rate-0.wav", wav(rate_hz=0)
    yield "rate-1.wav", wav(rate_hz=1)
    yield "rate-999.wav", wav(rate_hz=999)
    yield "rate-768001.wav", wav(rate_hz=768_001)
    yield "rate-2GHz.wav", wav(rate_hz=2**31 - 1)
    yield "rate-4GHz.wav", wav(rate_hz=2**32 - 1)
    yield "channels-0.wav", wav(num_channels=0)
    yield "channels-65535.wav", wav(num_channels=65535)
    yield "bits-0.wav", wav(bits=0)
    yield "bits-65535.wav", wav(bits=65535)
    yield "codec-unknown.wav", wav(kind=0x7777)
    yield "no-data.wav", wav()[:36]
    yield "no-samples.wav", wav(b"")
    yield "huge-list.wav", wav(before=chunk(b"LIST", 2**32 - 16, b"INFO"))
    yield "huge-format.wav", b"RIFF\x24\0\0\0WAVE" + chunk(b"fmt ", 2**31 - 1, bytes(16))
    yield "huge-unknown.wav", wav(before=chunk(b"junk", 2**31, bytes(8)))
    yield "huge-picture.flac", flac_info(3000)[:4] + b"\x06\xff\xff\xff" + bytes(100)
    yield "huge-sound.aiff", b"FORM\xff\xff\xff\xffAIFF" + chunk(b"SSND", 2**32 - 1, b"", ">")
    yield "huge-offset.au", b".snd" + struct.pack(">IIIII", 2**32 - 1, 2**32 - 1, 3, 44100, 1)
    yield "huge-chunk.caf", b"caff\0\x01\0\0desc" + struct.pack(">q", 2**62) + bytes(32)
    yield "huge-chunk.w64", b"riff" + bytes(12) + struct.pack("<Q", 2**63) + bytes(64)
    yield "huge-atom.m4a", b"\0\0\0\x01ftyp" + struct.pack(">Q", 2**60) + b"M4A "
    kind = b"\0\0\0\x18ftypisom\0\0\0\0isomiso2"
    yield "huge-atom.mp4", kind + b"\xff\xff\xff\xffmoov" + bytes(50)
    yield "huge-element.mkv", b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xfe" + bytes(50)
    yield "huge-tag.mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1000)
    yield "huge-page.ogg", b"OggS" + bytes(22) + b"\xff" + b"\xff" * 255
    yield "list-of-files.aac", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    yield "list-of-pages.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    yield "concat.mka", b"ffconcat version 1.0\nfile /etc/passwd\n"
    draw = np.random.default_rng(0)
    for suffix in sorted(AUDIO_SUFFIXES):
        yield f"empty{suffix}", b""
        if suffix in (
            ".wav",
            ".flac",
            ".ogg",
            ".aiff",
            ".w64",
            ".caf",
            ".m4a",
            ".mp4",
            ".wma",
            ".wv",
        ):
            # Of others any bytes may be a little audio.
            yield f"random{suffix}", draw.bytes(5000)


def archive(scratch: Path) -> bytes:
    """Return an archive whose only file would be written outside."""
    path = scratch / "archive.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../escaped", "")
    content = path.read_bytes()
    path.unlink()
    return content


def bad_samples(folder: Path) -> list[str]:
    """Write audio that is whole, and that nothing can be made of."""
    values = {"nan": np.nan, "inf": np.inf, "minus-inf": -np.inf}
    for name, value in values.items():
        audio = noise(3000)
        audio[0, 1500] = value
        write(folder / f"{name}.wav", audio, RATE_HZ, subtype="FLOAT")
        write(folder / f"{name}.caf", audio, RATE_HZ, subtype="DOUBLE")
    with av.open(str(folder / "film.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return [f"{name}{suffix}" for name in values for suffix in (".wav", ".caf")]


def no_files(folder: Path) -> list[str]:
    """Make what is no file: links that lead nowhere or in a circle, pipes, devices, sockets."""
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "loop-a.wav").symlink_to("loop-b.wav")
    (folder / "loop-b.wav").symlink_to("loop-a.wav")
    (folder / "zero.wav").symlink_to("/dev/zero")
    (folder / "random.flac.wav").symlink_to("/dev/urandom")
    (folder / "terminal.wav").symlink_to("/dev/tty")
    (folder / "self").symlink_to(".")
    (folder / "deep").mkdir()
    (folder / "deep" / "up").symlink_to("..")
    os.mkfifo(folder / "pipe.wav")
    os.mknod(folder / "socket.wav", stat.S_IFSOCK | 0o600)
    (folder / "folder.wav").mkdir()
    links = ["dangling.wav", "loop-a.wav", "loop-b.wav", "zero.wav", "random.flac.wav"]
    return [*links, "terminal.wav", "pipe.wav", "socket.wav"]


def good_files(folder: Path) -> list[str]:
    """Write audio that is good, and odd in its name or form."""
    names = [
        "plain.wav", "-rf.wav", "two words.wav", "%s%n.wav", "~.wav", "$(touch here).wav",
        "`id`.wav", "'quoted'.wav", '"double".wav', "a\nline.wav", "tab\t.wav", "back\\slash.wav",
        "dots...wav", "file:name.wav", "http:page.wav", "concat:a|b.wav", "#1.wav", "a;b&c.wav",
        "*.wav", "[0-9].wav", "музыка.wav", "音楽.wav", "🎹.wav", "e\u0301.wav", "\u00e9.wav",
        "\u202egnp.wav", "nul.wav", "CON.wav", "x" * 251 + ".wav", "音" * 80 + ".wav",
        os.fsdecode(b"\xff\xfe not text.wav"),
    ]  # fmt: skip
    for name in names:
        path = write(folder / "made.wav", noise(3000), RATE_HZ)
        path.replace(folder / name)  # libsndfile cannot open every name
    deep = folder.joinpath(*["d" * 200] * 6)
    deep.mkdir(parents=True)
    write(folder / "made.wav", noise(3000), RATE_HZ).replace(deep / "end.wav")
    write(folder / "hz-1000.wav", noise(3000), 1000)
    write(folder / "hz-768000.wav", noise(90_000), 768_000)
    write(folder / "channels-64.wav", noise(3000, 64), RATE_HZ)
    write(folder / "loud.wav", 1e30 * noise(3000), RATE_HZ, subtype="FLOAT")
    write(folder / "one-sample.wav", noise(1), RATE_HZ)
    write(folder / "SHOUTED.WAV", noise(3000), RATE_HZ)
    tone = write_with_av(folder / "tone.mp3", noise(RATE_HZ), RATE_HZ, "libmp3lame").read_bytes()
    jpeg = b"\xff\xd8\xff\xe0" + bytes(50_000) + b"\xff\xd9"
    picture = b"\0image/jpeg\0\x03\0" + jpeg
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = len(frame)
    digits = bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    (folder / "cover.mp3").write_bytes(b"ID3\x03\0\0" + digits + frame + tone)
    more = "hz-1000.wav hz-768000.wav channels-64.wav loud.wav one-sample.wav SHOUTED.WAV tone.mp3"
    end = (deep / "end.wav").relative_to(folder).as_posix()
    return [*names, *more.split(), "cover.mp3", end]


def make(folder: Path) -> tuple[list[str], list[str]]:
    """Write the corpus, and return the names of good files and of bad ones."""
    folder.mkdir(parents=True)
    bad = []
    for name, content in [*cut_headers(folder), *lies(folder)]:
        assert name not in bad, name
        (folder / name).write_bytes(content)
        bad.append(name)
    bad += [*bad_samples(folder), "film.mkv", *no_files(folder)]
    return good_files(folder), bad


if __name__ == "__main__":
    good, bad = make(Path(sys.argv[1]))
    print(f"{len(good)} good files, {len(bad)} bad ones; soundfile {soundfile.__version__}")
