import errno
import os
import re
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from audio_files import cut, noise, sine, write, write_with_av

import rave.audio.io
from rave.audio.blocks import Quantizer, fit_length, mixing_matrix, regroup, resample
from rave.audio.formats import AudioError
from rave.audio.io import AudioStream, list_audio_files, read_audio, write_audio


def frequency_and_gain(audio, sample_rate_hz):
    """Frequency and amplitude of the sine in audio (T,), away from its ends."""
    middle = audio[len(audio) // 10 : -len(audio) // 10]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    index = int(spectrum.argmax())
    return index * sample_rate_hz / len(middle), np.sqrt(2 * np.mean(np.square(middle)))


# Listing


def test_list_is_sorted_and_finds_nested_files_of_any_case(tmp_path):
    names = ["b.WAV", "a/ü 音.flac", "a/x.Mp3", "a.wav", "a.ogg"]
    for name in [*names, ".hidden.wav", "a/.git/x.wav", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(list_audio_files(tmp_path)) == sorted(names)


def test_list_survives_a_loop_of_links(tmp_path):
    write(tmp_path / "sub" / "a.wav", sine(440, 8000), 8000)
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert list(list_audio_files(tmp_path)) == ["sub/a.wav"]


def test_list_names_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"does not exist\. Give a folder"):
        list_audio_files(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"is a file\. Give a folder"):
        list_audio_files(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"holds no audio files. Supported suffixes: .*\.flac"):
        list_audio_files(tmp_path)


# Reading


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_32", 1e-7),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "DOUBLE", 0),
        ("a.flac", "PCM_24", 2**-23),
        ("a.aiff", "PCM_16", 2**-15),
        ("a.caf", "PCM_16", 2**-15),
        ("a.au", "PCM_16", 2**-15),
        ("a.w64", "PCM_16", 2**-15),
    ],
)
def test_uncompressed_samples_are_read_to_their_precision(tmp_path, name, subtype, error):
    audio = noise(3001, 2)
    path = write(tmp_path / name, audio, 22050, subtype=subtype)
    assert np.abs(read_audio(path, 22050, 2) - audio).max() <= error


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.opus"])
def test_compressed_audio_keeps_its_length_and_level(tmp_path, name):
    audio = sine(440, 48000)
    path = tmp_path / name
    soundfile.write(
        path,
        audio.T,
        48000,
        subtype="OPUS" if name == "a.opus" else None,
        format=("MP3" if name == "a.mp3" else "OGG"),
    )
    read = read_audio(path, 48000, 1)
    assert read.shape == audio.shape
    assert np.abs(read - audio)[:, 2000:-2000].max() < 0.02


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.caf", "alac"), ("a.aac", "aac")])
def test_what_libsndfile_cannot_read_is_read_with_av(tmp_path, name, codec):
    audio = sine(440, 48000)
    path = write_with_av(tmp_path / name, audio, 48000, codec)
    stream = AudioStream(path, 48000, 1)
    read = np.concatenate(list(stream), axis=1)
    assert stream.source.num_samples == read.shape[1]
    assert abs(read.shape[1] - 48000) < 3072
    frequency_hz, gain = frequency_and_gain(read[0], 48000)
    assert abs(frequency_hz - 440) < 2
    assert abs(gain - 0.5) < 0.02


@pytest.mark.parametrize(("from_hz", "to_hz"), [(48000, 44100), (8000, 44100), (96000, 16000)])
def test_resampling_keeps_frequency_level_and_duration(tmp_path, from_hz, to_hz):
    path = write(tmp_path / "a.wav", sine(1000, from_hz, 2.0), from_hz, subtype="FLOAT")
    read = read_audio(path, to_hz, 1)
    assert read.shape == (1, 2 * to_hz)
    frequency_hz, gain = frequency_and_gain(read[0], to_hz)
    assert abs(frequency_hz - 1000) < 1
    assert abs(gain - 0.5) < 0.001
    expected = sine(1000, to_hz, 2.0)
    assert np.abs(read - expected)[:, 500:-500].max() < 1e-3  # in time as well


def test_stream_equals_whole_for_every_block_size(tmp_path):
    path = write(tmp_path / "a.flac", noise(5003, 2), 48000)
    whole = read_audio(path, 44100, 1)
    for block_samples in (1, 7, 1000, 4596, 100_000):
        blocks = list(AudioStream(path, 44100, 1, block_samples))
        assert all(block.shape[1] == block_samples for block in blocks[:-1])
        assert np.array_equal(np.concatenate(blocks, axis=1), whole)


def test_a_long_file_needs_no_more_memory_than_a_short_one(tmp_path):
    peaks = []
    for num_samples in (300_000, 3_000_000):
        path = write(tmp_path / "a.wav", np.zeros((1, num_samples), np.float32))
        tracemalloc.start()
        for _ in AudioStream(path, 48000, 1):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 8 * 65536 * 4


def test_stream_counts_the_samples_of_its_source(tmp_path):
    path = write(tmp_path / "a.wav", noise(70_001, 3), 22050)
    stream = AudioStream(path, 44100, 1)
    assert sum(block.shape[1] for block in stream) == 2 * 70_001
    source = stream.source
    assert (source.sample_rate_hz, source.num_channels, source.num_samples) == (22050, 3, 70_001)


@pytest.mark.parametrize("sample_rate_hz", [44100, 48000, 8000])
def test_one_sample_is_enough(tmp_path, sample_rate_hz):
    path = write(tmp_path / "a.wav", np.full((1, 1), 0.5, np.float32), sample_rate_hz)
    assert read_audio(path, sample_rate_hz, 1).tolist() == [[0.5]]
    assert read_audio(path, 8000, 2).shape == (2, 1)


# Mixing


def test_mono_is_the_mean_and_copies_go_back():
    assert np.allclose(mixing_matrix(64, 1), 1 / 64)
    assert mixing_matrix(1, 2).tolist() == [[1], [1]]
    assert np.array_equal(mixing_matrix(2, 2), np.eye(2))
    with pytest.raises(ValueError, match="3 channels cannot be mixed to 4; only to 1 or 2"):
        mixing_matrix(3, 4)


@pytest.mark.parametrize("num_channels", range(2, 20))
def test_stereo_mix_never_exceeds_full_scale_and_is_symmetric(num_channels):
    gains = mixing_matrix(num_channels, 2)
    assert np.allclose(gains.sum(axis=1), 1)
    assert (gains >= 0).all()
    if num_channels % 2 == 0 or num_channels < 8:
        assert np.allclose(np.sort(gains[0]), np.sort(gains[1]))


def test_surround_centre_goes_to_both_sides_and_bass_to_none(tmp_path):
    for channel, sides in enumerate(["L", "R", "LR", "", "L", "R", "L", "R"]):
        audio = np.zeros((8, 100), np.float32)
        audio[channel] = 0.5
        path = write(tmp_path / "a.wav", audio, 44100, subtype="FLOAT", format="WAVEX")
        left, right = read_audio(path, 44100, 2).max(axis=1)
        assert ("L" * bool(left) + "R" * bool(right)) == sides


def test_surround_vorbis_is_read_in_the_order_of_wav(tmp_path):
    audio = np.zeros((6, 20_000), np.float32)
    audio[1] = sine(440, 44100)[0, :20_000]  # Vorbis order: left, centre, right, ...
    left, right = read_audio(write(tmp_path / "a.ogg", audio), 44100, 2)
    assert np.abs(left - right).max() < 0.01
    assert np.abs(left).max() > 0.1


def test_many_channels_are_read(tmp_path):
    audio = noise(500, 64)
    path = write(tmp_path / "a.wav", audio, subtype="FLOAT")
    assert np.allclose(read_audio(path, 44100, 1), audio.mean(axis=0), atol=1e-6)
    assert np.allclose(read_audio(path, 44100, 2)[1], audio.mean(axis=0), atol=1e-6)


# Files that cannot be used


def unusable_files(folder):
    """Make files that cannot be used; yield each path and what its message says."""
    with_nan = noise(100_000)
    with_nan[0, 90_000] = np.nan
    (folder / "empty.wav").touch()
    (folder / "text.flac").write_text("no audio here, only words\n" * 50)
    (folder / "text.mp3").write_text("no audio here, only words\n" * 50)
    (folder / "folder.wav").mkdir()
    yield folder / "empty.wav", "is empty"
    yield write(folder / "no_samples.wav", noise(0)), "holds no samples"
    yield folder / "text.flac", "cannot be decoded"
    yield folder / "text.mp3", "cannot be decoded"
    yield write(folder / "nan.wav", with_nan, subtype="FLOAT"), r"NaN or infinite .* after 1\.49 s"
    yield write(folder / "inf.wav", noise(9) * np.inf, subtype="FLOAT"), "NaN or infinite"
    yield cut(write(folder / "cut.wav", noise(50_000))), "is cut off: it holds .* bytes"
    yield cut(write(folder / "cut.aiff", noise(50_000))), "is cut off: it holds .* bytes"
    yield cut(write(folder / "cut.flac", noise(50_000))), "cannot be decoded|is cut off"
    yield cut(write_with_av(folder / "cut.m4a", noise(50_000))), "cannot be decoded|is cut off"
    yield folder / "none.wav", "does not exist"
    yield folder / "folder.wav", "is not a regular file"


@pytest.mark.filterwarnings("ignore:invalid value")  # noise * inf
def test_an_unusable_file_is_named_with_the_reason(tmp_path):
    for path, reason in unusable_files(tmp_path):
        with pytest.raises(AudioError, match=f"^'{path.name}'.*({reason})") as caught:
            read_audio(path, 44100, 1)
        # It may be the only copy of a recording.
        assert not re.search("remove|delete", str(caught.value), re.IGNORECASE)


def test_a_wav_whose_writer_did_not_know_its_length_is_read(tmp_path):
    path = write(tmp_path / "piped.wav", noise(1000))
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[4:8] = content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert read_audio(path, 44100, 1).shape == (1, 1000)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = write(tmp_path / "a.wav", noise(1000))
    odd = path.rename(tmp_path / os.fsdecode(b"\xff.wav"))
    assert read_audio(odd, 44100, 1).shape == (1, 1000)


def test_impossible_rates_and_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rate is 0 Hz; it must be from 1000 to 768000"):
        AudioStream(tmp_path / "a.wav", 0, 1)
    with pytest.raises(ValueError, match="0 channels were given"):
        AudioStream(tmp_path / "a.wav", 44100, 0)
    path = write(tmp_path / "slow.wav", noise(10), 10)
    with pytest.raises(AudioError, match=r"'slow\.wav' has a sample rate of 10 Hz"):
        read_audio(path, 44100, 1)


# Blocks


def test_regroup_keeps_the_samples():
    audio = noise(1000, 2)
    pieces = [audio[:, a:b] for a, b in pairwise([0, 1, 1, 300, 999, 1000])]
    for block_samples in (1, 299, 500, 1000, 2000):
        blocks = list(regroup(pieces, block_samples))
        assert [b.shape[1] for b in blocks[:-1]] == [block_samples] * (len(blocks) - 1)
        assert np.array_equal(np.concatenate(blocks, axis=1), audio)


def test_resampling_there_and_back_is_the_identity_on_what_both_rates_hold():
    audio = sine(1000, 48000)
    back = resample(resample([audio], 48000, 44100), 44100, 48000)
    back = np.concatenate(list(back), axis=1)
    assert back.shape == audio.shape
    assert np.abs(back - audio)[:, 200:-200].max() < 1e-4


def test_fit_length_cuts_and_pads():
    audio = noise(100, 2)
    for num_samples in (1, 50, 60, 100, 101, 100_000):
        fitted = np.concatenate(list(fit_length([audio[:, :50], audio[:, 50:]], num_samples)), 1)
        assert fitted.shape == (2, num_samples)
        assert np.array_equal(fitted[:, :100], audio[:, :num_samples])
        assert not fitted[:, 100:].any()


def test_quantizer_counts_what_it_limits():
    quantize = Quantizer()
    samples = quantize(np.array([[0.5, 1.0, -1.0, 1.5, -3.0]], np.float32))
    assert samples.T.tolist() == [[16384, 32767, -32768, 32767, -32768]]
    assert (quantize.peak, quantize.num_limited_samples) == (3.0, 2)


# Writing


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "new/folder/a.WAV"])
def test_16_bit_audio_comes_back_bit_for_bit(tmp_path, name):
    samples = np.random.default_rng(0).integers(-32768, 32768, (2, 5000)).astype(np.float32) / 32768
    written = write_audio(tmp_path / name, regroup([samples], 999), 48000, 2, 5000)
    assert np.array_equal(read_audio(tmp_path / name, 48000, 2), samples)
    assert (written.num_limited_samples, written.peak) == (0, np.abs(samples).max())


def test_a_wav_beyond_4_gib_is_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(rave.audio.io, "WAV_LIMIT_BYTES", 1000)
    write_audio(tmp_path / "a.wav", [noise(1000)], 44100, 1, 1000)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert read_audio(tmp_path / "a.wav", 44100, 1).shape == (1, 1000)


def test_what_cannot_be_written_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match=r"'a.mp3' is not the name of a .wav or .flac file"):
        write_audio(tmp_path / "a.mp3", [], 44100, 1, 0)
    with pytest.raises(ValueError, match=r"'a.flac' cannot hold 9 channels .* Write a .wav"):
        write_audio(tmp_path / "a.flac", [], 44100, 9, 0)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def fail(self, data):
        raise soundfile.LibsndfileError(2)

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_audio(tmp_path / "a.wav", [noise(10)], 44100, 1, 10)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
