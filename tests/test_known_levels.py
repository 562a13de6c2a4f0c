"""Levels, counts and sizes of audio, each on audio of which it is known by closed form."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from audio_files import noise, write
from rave_models import known_audio, small_model
from shard_data import array_of, file_of

import rave.audio.io
from diffwave.diagnosis.samples import decoded_db
from diffwave.evaluation.ladder import Ladder
from rave.api.encode import Encoding
from rave.audio.blocks import LevelMeter, Quantizer, amplified
from rave.audio.io import WAV_LIMIT_BYTES, read_audio, write_audio
from rave.audio.prepared import PreparedAudio, PreparedFile, PreparedHeader
from rave.audio.sound import SoundMeter
from rave.codec_format import CodecFormat
from rave.evaluation.audio_statistics import measure, pool
from rave.evaluation.folders import compare_pair
from rave.jobs.windows import WINDOW_FRAMES
from rave.latents.shard_writer import CLIP_BYTES, Clip, shard_numbers, write_shard
from rave.levels import LevelledAudio

RATE_HZ = 8000
HALF_DB = 20 * np.log10(0.5)


def square(num_samples, *gains):
    """Return a square wave, (C, T), each channel of a level of its own."""
    signs = (-1.0) ** (np.arange(num_samples) // 8)
    return (np.array(gains)[:, None] * signs).astype(np.float32)


def metered(meter, *blocks):
    for _ in meter(blocks):
        pass
    return meter


def statistics(*parts):
    return pool([measure(part.mean(axis=0), RATE_HZ) for part in parts]).figures()["level_dbfs"]


def of_decoded(*parts):
    audio = np.concatenate(parts, axis=1)
    return decoded_db(SimpleNamespace(decode=lambda *_: audio), np.zeros((3, 1, 1)), None)


# Of audio (C, T) in parts; and whether channels are measured, or their mean.
METERS = {
    "LevelMeter": (lambda *parts: metered(LevelMeter(), *parts).level_dbfs, False),
    "SoundMeter": (lambda *parts: metered(SoundMeter(), *parts).sound.level_dbfs, False),
    "AudioStatistics": (statistics, True),
    "decoded_db": (of_decoded, False),
}


@pytest.mark.parametrize("name", METERS)
def test_every_meter_of_level_counts_channels_samples_and_decibels_alike(name):
    level, is_mixed = METERS[name]
    mono = square(2 * RATE_HZ, 0.5)
    assert level(mono) == pytest.approx(HALF_DB, abs=0.01)  # of full scale
    assert level(0.5 * mono) - level(mono) == pytest.approx(HALF_DB, abs=0.01)
    assert level(np.tile(mono, (2, 1))) == pytest.approx(level(mono), abs=0.01)
    one_side = level(square(2 * RATE_HZ, 0.5, 0.0)) - level(mono)
    assert one_side == pytest.approx(HALF_DB * (1 if is_mixed else 0.5), abs=0.01)
    # A long part and a short one: power is weighted by length.
    long, short = square(3 * RATE_HZ, 0.5), square(RATE_HZ, 0.1)
    power = (3 * 0.5**2 + 0.1**2) / 4
    assert level(long, short) == pytest.approx(10 * np.log10(power), abs=0.01)
    assert level(short, long) == pytest.approx(level(long, short), abs=0.01)


def test_gains_and_differences_of_level_have_their_sign(tmp_path):
    audio = square(RATE_HZ, 0.5, 0.5)
    (louder,) = amplified([audio], 20 * np.log10(1.5))
    assert louder == pytest.approx(1.5 * audio, rel=1e-6)
    reference = write(tmp_path / "reference.wav", audio, RATE_HZ)
    halved = write(tmp_path / "halved.wav", 0.5 * audio, RATE_HZ)
    pair = compare_pair(reference, halved, RATE_HZ)
    assert pair["level_difference_db"] == pytest.approx(HALF_DB, abs=0.01)
    hiss = noise(RATE_HZ)
    pair = compare_pair(
        write(tmp_path / "hiss.wav", hiss, RATE_HZ),
        write(tmp_path / "softer.wav", 0.5 * hiss, RATE_HZ),
        RATE_HZ,
    )
    assert pair["log_spectral_distance_db"] == pytest.approx(-HALF_DB, abs=0.05)
    assert pair["silence_would_score_db"] > 30


def test_files_are_a_pair_up_to_a_tenth_of_a_second(tmp_path):
    audio = noise(RATE_HZ)
    whole, shorter, short = (
        write(tmp_path / f"{n}.wav", audio[:, : RATE_HZ - n], RATE_HZ)
        for n in (0, RATE_HZ // 20, RATE_HZ // 5)
    )
    assert compare_pair(whole, shorter, RATE_HZ)["level_difference_db"] == pytest.approx(
        0, abs=0.01
    )
    assert compare_pair(whole, short, RATE_HZ) is None


def test_a_file_heard_is_as_loud_as_given_and_brought_to_the_nearest_training_level(tmp_path):
    path = write(tmp_path / "a.wav", square(2 * RATE_HZ, 0.5), 44100)
    form = CodecFormat.of(small_model())
    form = type(form)(**{**vars(form), "training_audio": known_audio([True] * 4)})  # -30 to -20
    heard = LevelledAudio(path, form, is_level_matched=True)
    audio = np.concatenate(list(heard), axis=1)
    assert heard.record["sound"]["level_dbfs"] == pytest.approx(HALF_DB, abs=0.05)
    assert heard.record["gain_db"] == pytest.approx(-20 - HALF_DB, abs=0.05)
    assert 10 * np.log10(np.square(audio).mean()) == pytest.approx(-20, abs=0.05)
    assert heard.record["source_sample_rate_hz"] == 44100
    assert heard.record["source_num_samples"] == 2 * RATE_HZ


def test_what_is_limited_is_counted_in_every_channel_and_block():
    quantize = Quantizer()
    quantize(np.array([[1.5, -0.5, 0.25], [-2.0, 1.25, 0.0]], np.float32))
    quantize(np.array([[0.5], [1.75]], np.float32))
    assert quantize.figures == {"peak": 2.0, "num_limited_samples": 4}


def test_the_rung_of_white_noise_has_the_power_asked_for():
    codec = SimpleNamespace(format=SimpleNamespace(hop_samples=64, sample_rate_hz=RATE_HZ))
    data = SimpleNamespace(num_frames=2000)
    heard = []
    ladder = SimpleNamespace(
        seed=0, data=data, codec=codec, count=2, _measured=lambda blocks, _: heard.extend(blocks)
    )
    Ladder.noise(ladder, 0.04)
    assert [block.shape for block in heard] == [(1, 64 * 2000)] * 2
    assert float(np.square(heard).mean()) == pytest.approx(0.04, rel=0.02)


# Sizes


@pytest.mark.parametrize("num_channels", [1, 2, 6])
def test_a_wav_holds_4_gib_whatever_its_channels_and_one_sample_more_makes_it_rf64(
    num_channels, tmp_path, monkeypatch
):
    assert WAV_LIMIT_BYTES < 2**32 - 1024  # a header comes to it
    most = 100
    monkeypatch.setattr(rave.audio.io, "WAV_LIMIT_BYTES", most * num_channels * 2)
    for num_samples, kind in ((most, b"RIFF"), (most + 1, b"RF64")):
        path = tmp_path / f"{num_samples}.wav"
        audio = noise(num_samples, num_channels)
        write_audio(path, [audio], RATE_HZ, num_channels, num_samples)
        assert path.read_bytes()[:4] == kind
        assert read_audio(path, RATE_HZ, num_channels).shape == audio.shape
    data = (tmp_path / f"{most}.wav").stat().st_size - most * num_channels * 2
    assert 44 <= data <= 80  # what is written is what was counted, and a header


@pytest.mark.parametrize("num_channels", [1, 2])
def test_prepared_audio_of_any_channels_is_read_from_where_it_lies(num_channels, tmp_path):
    audio = np.random.default_rng(0).integers(-99, 99, (num_channels, 1000)).astype(np.int16)
    (tmp_path / "a.pcm").write_bytes(audio.T.tobytes())
    file = PreparedFile("a.wav", "a.pcm", 1000, 0.1, 0, "a")
    PreparedHeader(RATE_HZ, num_channels, [file], {}).write(tmp_path)
    store = PreparedAudio(tmp_path)
    store.check(file)
    assert np.array_equal(store.read(file, 300, 50), audio[:, 300:350] / np.float32(32768))
    for change in (-2, 2):
        (tmp_path / "a.pcm").write_bytes(audio.T.tobytes()[:change] + bytes(max(change, 0)) * 2)
        with pytest.raises(ValueError, match=f"not {2000 * num_channels}"):
            store.check(file)


def test_shards_are_about_as_large_as_asked_for_also_beyond_4_gib(tmp_path):
    num_frames, latent_size = np.full(60, 4_000_000), 16
    size, frame_bytes = 10**9, 4 * latent_size
    bounds = shard_numbers(num_frames, latent_size, size)
    assert num_frames.sum() * frame_bytes > 3 * 2**32
    sizes = [num_frames[a:b].sum() * frame_bytes for a, b in pairwise(bounds)]
    assert max(sizes) <= size + num_frames[0] * frame_bytes
    assert min(sizes[:-1]) >= size - 2 * num_frames[0] * frame_bytes
    # What is written is no larger than what it was taken for.
    clips = [Clip(file_of(number), array_of(number)) for number in range(8)]
    shard = write_shard(tmp_path, 0, iter(clips), latent_size)
    taken = sum(clip.array.shape[1] * frame_bytes + CLIP_BYTES for clip in clips)
    assert taken / 2 < shard.num_bytes <= taken


@pytest.mark.parametrize("num_channels", [1, 2])
def test_the_windows_guessed_of_a_file_follow_from_its_seconds(num_channels, tmp_path):
    path = write(tmp_path / "a.wav", noise(48000 * 3, num_channels), 48000)
    form = SimpleNamespace(sample_rate_hz=24000, hop_samples=10)
    work = Encoding(SimpleNamespace(codec=SimpleNamespace(format=form)), tmp_path, {}, None)
    assert work.num_windows("a.wav", path) == 3 * 2400 // WINDOW_FRAMES
