"""Parts of a file are computed anywhere, and join to the very bits of the whole."""

import dataclasses
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from audio_files import noise, write
from rave_models import FEW_OSCILLATORS, SHORT, codec_of, known_audio, small_model

from rave.api.decode import Decoding
from rave.api.encode import Encoding
from rave.api.preprocess import Preparing
from rave.jobs.loop import DivisibleWork
from rave.jobs.windows import WINDOW_FRAMES, Part, audio_windows, parts
from rave.latents.folder import LatentFile, LatentHeader
from rave.latents.statistics import LatentStatistics


def in_blocks(audio, size):
    return (audio[:, start : start + size] for start in range(0, audio.shape[1], size))


@pytest.mark.parametrize("guess", [1, 2, 5, 30])
def test_parts_are_the_whole_whatever_was_guessed(guess):
    for num_parts in range(1, guess + 1):
        cut = parts(guess, num_parts)
        assert len(cut) == num_parts
        assert (cut[0].first, cut[-1].stop) == (0, None)
        assert all(one.stop == other.first for one, other in pairwise(cut))


@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 2), (9, 9)])
@pytest.mark.parametrize("num_samples", [1, 23, 24, 25, 100, 191, 192, 193])
def test_windows_of_parts_are_those_of_the_whole(num_samples, left, right):
    audio = np.arange(num_samples, dtype=np.float32)[None]
    whole = list(audio_windows(in_blocks(audio, 7), 4, 6, left, right))
    for guess in (2, 8, 12):  # 192 samples are 8 windows
        for num_parts in range(1, guess + 1):
            found = []
            for part in parts(guess, num_parts):
                found += audio_windows(in_blocks(audio, 5), 4, 6, left, right, part)
            assert len(found) == len(whole)
            for (one, *place), (other, *same) in zip(found, whole, strict=True):
                assert place == same
                assert np.array_equal(one, other)


def in_parts(work, source, num_windows, num_parts):
    """Return what a whole file's work returns, done in parts, the last one first."""
    cut = parts(num_windows, num_parts)
    paths = [work.folder / f"part {index}" for index in range(num_parts)]
    given = list(zip(cut, paths, strict=True))
    results = [work.do_part("a.wav", source, *each) for each in reversed(given)]
    return work.join("a.wav", source, paths, results[::-1])


@pytest.mark.parametrize(
    "recipe",
    [
        ("v2", *SHORT),
        ("v2", *SHORT, "NUM_CHANNELS=2"),
        ("v2", *SHORT, "derivative"),
        ("small", *FEW_OSCILLATORS),
    ],
)
def test_work_in_parts_gives_the_bits_of_the_whole(tmp_path, recipe):
    codec = codec_of(small_model(*(word for word in recipe if word != "derivative")))
    if "derivative" in recipe:
        codec.format = codec.format.of_derivative()
    known = known_audio([True, False, True, True])
    f = codec.format = dataclasses.replace(codec.format, training_audio=known)
    length = round(4.3 * WINDOW_FRAMES * f.hop_samples)
    source = write(tmp_path / "a.wav", 3 * noise(length, f.num_channels), f.sample_rate_hz // 2)
    opener = SimpleNamespace(codec=codec)
    names = {"a.wav": "a.wav"}
    encoding = Encoding(opener, tmp_path / "whole", names, seed=3, is_level_matched=True)
    assert isinstance(encoding, DivisibleWork)
    assert not isinstance(Preparing(tmp_path, names, 44100, 1), DivisibleWork)
    assert encoding.num_windows("a.wav", source) == 8
    record = encoding("a.wav", source)
    assert record["gain_db"]
    place = ("a.wav", record["num_frames"], None, f.sample_rate_hz // 2, length)
    file = LatentFile(*place, record["gain_db"])
    statistics = LatentStatistics([0.0] * 4, [1.0] * 4, [1.0] * 4, [1.0] * 4, 10)
    size = (f.sample_rate_hz, f.hop_samples, f.latent_size)
    header = LatentHeader(f.fingerprint, "", *size, "posterior sample", statistics, [file])
    heard = (tmp_path / "heard", {"a.wav": "a.wav.wav"}, header)
    decoding = Decoding(opener, *heard, 0, False, False, lambda x, _: x)
    for work, given in ((encoding, source), (decoding, tmp_path / "whole" / "a.wav")):
        whole = work("a.wav", given)
        for num_windows, num_parts in ((9, 2), (9, 9), (20, 4), (3, 2)):
            again = dataclasses.replace(work, folder=tmp_path / f"{num_windows} {num_parts}")
            assert in_parts(again, given, num_windows, num_parts) == whole
            name = "a.wav" if work is encoding else "a.wav.wav"
            assert (again.folder / name).read_bytes() == (work.folder / name).read_bytes()


def test_a_part_that_ends_early_reads_no_more_than_it_needs():
    read = []

    def blocks():
        for index in range(100):
            read.append(index)
            yield np.full((1, 24), index, dtype=np.float32)

    assert len(list(audio_windows(blocks(), 4, 6, 1, 1, Part(2, 4)))) == 2
    assert len(read) == 5
