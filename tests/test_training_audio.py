"""What a codec knows of its training audio: what is noise, and how loud audio should be."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from audio_files import noise, sine, write
from rave_models import remember, write_run
from rave_runs import RATE_HZ, prepare, train

from diffwave import inference
from rave.audio.sound import Sound, sound_of
from rave.codec import load_codec, load_run
from rave.export.torchscript import export_torchscript
from rave.latents.folder import LatentHeader
from rave.latents.statistics import StatisticsAccumulator
from rave.training_audio import NAME, TrainingAudio

CPU = torch.device("cpu")
MODELS = Path(__file__).parents[1] / "models"
NOISY = ("v2_small", "RATIOS=[2, 2, 2]", "DILATIONS=[[1, 3], [1], [1]]", "SAMPLE_RATE_HZ=22050")


def plucked(frequency_hz, level, seconds=1.5):
    """Return a string that is plucked three times, richer in partials than a piano."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * frequency_hz * k * times) / k for k in range(1, 30))
    return (level * tone * np.exp(-3 * (times % 0.5)))[None].astype(np.float32)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A codec with a noisy decoder, half of whose latents are uninformative."""
    run = write_run(tmp_path_factory.mktemp("noisy") / "run", *NOISY)
    remember(run, True, False, True, False)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert train(prepare(folder), folder / "run") == 0
    return folder / "run"


# What is noise


def test_a_few_frames_of_a_huge_std_make_no_dimension_uninformative():
    random = np.random.default_rng(0)
    mean = random.standard_normal((3, 1000)).astype(np.float32)
    std = np.full((3, 1000), 0.02, np.float32)
    mean[2], std[2] = 0.01 * mean[2], 1.0  # collapsed
    sums = StatisticsAccumulator(3)
    sums.add(mean, std)
    ordinary = sums.statistics()
    sums.add(mean[:, :30], np.full((3, 30), 100.0, np.float32))
    for statistics in (ordinary, sums.statistics()):
        assert statistics.is_informative.tolist() == [True, True, False]
    assert np.allclose(ordinary.noise_std, [0.02, 0.02, 1.0], rtol=1e-3)


def test_two_different_inputs_never_give_one_output(tmp_path, rave):
    """Both are hotter than the codec's training audio, so that it is unsure of all dimensions."""
    paths = [
        write(tmp_path / f"{index}.wav", plucked(frequency_hz, 0.3), RATE_HZ)
        for index, frequency_hz in enumerate((110, 164.8))
    ]
    codec = MODELS / "piano" / "codec"
    assert rave("interpolate", codec, *paths, tmp_path / "blends", "--steps", "3")[0] == 0
    blends = {path.stem: path.read_bytes() for path in (tmp_path / "blends").iterdir()}
    ends = {"lerp_00_0.00", "slerp_00_0.00"}, {"lerp_02_1.00", "slerp_02_1.00"}
    for first, second in zip(*ends, strict=True):
        assert blends[first] != blends[second]
    assert len(set(blends.values())) >= len(blends) - 2  # lerp and slerp meet at both ends


def decoded(rave, codec, folder, files, name, *options):
    """Encode and decode files in a folder of their own; return the bytes of one result."""
    for path, audio in files.items():
        write(folder / "audio" / path, audio, RATE_HZ)
    for command, source, out in (("encode", "audio", "latents"), ("decode", "latents", "out")):
        given = options if command == "encode" else ()
        assert rave(command, codec, folder / source, folder / out, *given)[0] == 0
    return (folder / "out" / name).with_suffix(".wav").read_bytes()


@pytest.mark.parametrize("options", [(), ("--sample",), ("--match-level",)])
def test_a_file_becomes_the_same_alone_and_in_any_folder_and_company(
    noisy, tmp_path, rave, options
):
    tone, loud = sine(300, RATE_HZ, 0.5, 0.3), noise(RATE_HZ, gain=0.9)
    alone = decoded(rave, noisy, tmp_path / "alone", {"b.wav": tone}, "b", *options)
    many = {"a.wav": loud, "sub/b.wav": tone, "z.flac": loud}
    assert decoded(rave, noisy, tmp_path / "many", many, "sub/b", *options) == alone
    renamed = {"x.wav": tone}
    assert decoded(rave, noisy, tmp_path / "renamed", renamed, "x", *options) == alone
    given = tmp_path / "alone" / "audio" / "b.wav"
    assert rave("generate", noisy, given, tmp_path / "out", *options)[0] == 0
    assert (tmp_path / "out" / "b.wav").read_bytes() == alone


def test_no_more_is_replaced_than_the_codecs_own_uninformative_dimensions(noisy, tmp_path, rave):
    """Changing these changes nothing, changing any other does, in the company of whatever."""
    write(tmp_path / "audio" / "a.wav", 1e-3 * noise(RATE_HZ), RATE_HZ)
    assert rave("encode", noisy, tmp_path / "audio", tmp_path / "latents")[0] == 0
    results = {}
    latents = np.load(tmp_path / "latents" / "a.npy")
    for changed in (None, 0, 1, 2, 3):
        other = latents.copy(order="F")
        if changed is not None:
            other[changed] += 1
        np.save(tmp_path / "latents" / "a.npy", other)
        out = tmp_path / f"out{changed}"
        assert rave("decode", noisy, tmp_path / "latents", out)[0] == 0
        results[changed] = (out / "a.wav").read_bytes()
    assert results[1] == results[3] == results[None]
    assert len({results[None], results[0], results[2]}) == 3


def test_what_is_decoded_with_other_noise_than_now_is_decoded_again(noisy, tmp_path, rave):
    run = shutil.copytree(noisy, tmp_path / "run")
    write(tmp_path / "audio" / "a.wav", noise(5000), RATE_HZ)
    places = (run, tmp_path / "latents", tmp_path / "out", "--json")
    assert rave("encode", run, tmp_path / "audio", tmp_path / "latents")[0] == 0
    assert json.loads(rave("decode", *places)[1])["num_done"] == 1
    assert json.loads(rave("decode", *places)[1])["num_done"] == 0
    remember(run, True, True, True, False)
    assert json.loads(rave("decode", *places)[1])["num_done"] == 1


# Measured at the end of training


def test_training_ends_with_what_its_audio_is_like(trained, tmp_path, rave):
    codec = load_codec(trained, CPU)
    known = codec.format.training_audio
    assert known is not None
    assert known.fingerprint == codec.format.fingerprint
    tones = sorted((trained.parent / "tones").iterdir())
    sounds = [sound_of([soundfile.read(path, dtype="float32")[0][None]]) for path in tones]
    levels = [sound.level_dbfs for sound in sounds]
    low, high = known.levels_dbfs
    assert min(levels) - 0.1 <= low <= high <= max(levels) + 0.1
    # Without the file, as in runs of before, the same command measures it again.
    before = (trained / NAME).read_text()
    (trained / NAME).unlink()
    assert load_codec(trained, CPU).format.training_audio is None
    assert train(trained.parent / "prepared", trained) == 0
    assert (trained / NAME).read_text() == before


def test_a_resumed_training_measures_again_and_stale_figures_do_not_count(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    first = (run / NAME).read_text()
    assert train(trained.parent / "prepared", run, "MAX_STEPS=10") == 0
    known = load_run(run)[1].training_audio
    assert known is not None
    assert json.loads(first)["fingerprint"] != known.fingerprint
    (run / NAME).write_text(first)  # as while the training goes on
    assert load_run(run)[1].training_audio is None


def test_an_export_carries_it_and_a_damaged_file_is_named(noisy, tmp_path, rave):
    export_torchscript(*load_run(noisy), tmp_path / "a.ts")
    assert load_codec(tmp_path / "a.ts", CPU).format == load_run(noisy)[1]
    assert load_run(noisy)[1].training_audio is not None
    run = shutil.copytree(noisy, tmp_path / "run")
    text = (run / NAME).read_text()
    damages = {"-30.0,": "", "-30.0": "-1e9", "-90.0,": "", '"kl": [': '"kl": [1,'}
    for damaged in (text[:100], *(text.replace(*each, 1) for each in damages.items())):
        (run / NAME).write_text(damaged)
        with pytest.raises(ValueError, match=r"training_audio\.json'"):
            load_run(run)


@pytest.mark.parametrize("kind", ["piano", "drums"])
def test_bundled_codecs_know_their_training_audio(kind):
    known = load_run(MODELS / kind / "codec")[1].training_audio
    assert known is not None
    assert known.is_noise.sum() <= 1
    assert known.statistics.num_frames > 10_000
    assert -45 < known.levels_dbfs[0] <= known.levels_dbfs[1] < -20


# Level


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("block_samples", [100, 4096, 10_000])
def test_level_and_octave_are_those_of_a_sine_and_silence_does_not_count(
    num_channels, block_samples
):
    tone = np.tile(sine(1000, RATE_HZ, 2.0, 0.1), (num_channels, 1))
    audio = np.concatenate([tone, np.zeros_like(tone)], axis=1)
    blocks = [audio[:, i : i + block_samples] for i in range(0, audio.shape[1], block_samples)]
    sound = sound_of(blocks)
    assert sound.level_dbfs == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=0.5)
    assert int(np.argmax(sound.octaves_db)) == 3  # 689 to 1378 Hz
    assert sound.octaves_db[3] > -0.1
    assert sound_of([np.zeros((1, 5000), np.float32)]) == Sound(None, [])


def test_a_file_off_the_training_level_is_named_with_its_decibels(noisy, tmp_path, rave):
    for name, level in (("hot", 0.5), ("right", 0.08), ("soft", 0.004)):
        write(tmp_path / "audio" / f"{name}.wav", sine(500, RATE_HZ, 1.0, level), RATE_HZ)
    _, told, _ = rave("encode", noisy, tmp_path / "audio", tmp_path / "latents")
    hot = 20 * np.log10(0.5 / np.sqrt(2))
    assert f"hot.wav: {hot + 20:.1f} dB louder than the codec's training audio" in told
    assert "soft.wav: 21.0 dB softer" in told
    assert "right.wav" not in told
    _, told, _ = rave("encode", noisy, tmp_path / "audio", tmp_path / "latents", "--json")
    levels = json.loads(told)["levels"]  # of an earlier call too
    assert levels["hot.wav"]["off_db"] == pytest.approx(hot + 20, abs=0.01)
    assert (levels["right.wav"]["off_db"], levels["right.wav"]["remark"]) == (0.0, None)


def test_octaves_stronger_than_in_training_are_told():
    known = TrainingAudio(
        "", StatisticsAccumulator(1).statistics(), [-24.0, -24.0], [[-60.0] * 3, [-20.0] * 3]
    )
    remark = known.remark(Sound(-24.0, [-2.0, -30.0, -40.0]), 0.0, 20_000)
    assert remark is not None
    assert "5000 to 10000 Hz are 18.0 dB stronger" in remark
    assert known.remark(Sound(-24.0, [-25.0, -15.0, -40.0]), 0.0, 20_000) is None


def test_matching_the_level_encodes_the_audio_at_it_and_decoding_gives_the_gain_back(
    noisy, tmp_path, rave
):
    """Exactly as if a user had done both by hand."""
    hot = sine(500, RATE_HZ, 1.0, 0.5) + noise(RATE_HZ, gain=0.01)
    write(tmp_path / "hot" / "a.wav", hot, RATE_HZ, subtype="FLOAT")
    code, told, _ = rave("encode", noisy, tmp_path / "hot", tmp_path / "matched", "--match-level")
    assert code == 0
    assert "a.wav: brought from -9 to -20 dBFS, and back" in told
    (file,) = LatentHeader.read(tmp_path / "matched").files
    gain = 10 ** (file.gain_db / 20)
    write(tmp_path / "quiet" / "a.wav", np.float32(gain) * hot, RATE_HZ, subtype="FLOAT")
    assert rave("encode", noisy, tmp_path / "quiet", tmp_path / "plain")[0] == 0
    arrays = [np.load(tmp_path / name / "a.npy") for name in ("matched", "plain")]
    assert np.allclose(*arrays, atol=1e-5)
    heard = {}
    for name in ("matched", "plain"):
        assert rave("decode", noisy, tmp_path / name, tmp_path / f"{name} out")[0] == 0
        heard[name] = soundfile.read(tmp_path / f"{name} out" / "a.wav")[0]
    assert np.allclose(heard["matched"] * gain, heard["plain"], atol=2e-4)
    assert np.abs(heard["matched"]).max() > 3 * np.abs(heard["plain"]).max() > 0


def test_what_is_made_of_latents_keeps_their_gain(instrument, tmp_path, rave):
    codec, diffusion, tone = instrument
    latents, out = tmp_path / "latents", tmp_path / "varied"
    given = tmp_path / "audio" / "a.wav"
    given.parent.mkdir()
    shutil.copyfile(tone, given)
    assert rave("encode", codec, given.parent, latents)[0] == 0
    header = LatentHeader.read(latents)
    replace(header, files=[replace(header.files[0], gain_db=-7.5)]).write(latents)
    options = ["--count", "1", "--steps", "2"]
    assert (
        inference.main([str(diffusion), str(out), "--vary", str(latents / "a.npy"), *options]) == 0
    )
    assert [file.gain_db for file in LatentHeader.read(out).files] == [-7.5]


def test_the_gain_outlives_shards_and_is_written_only_where_there_is_one(noisy, tmp_path, rave):
    write(tmp_path / "audio" / "hot.wav", sine(500, RATE_HZ, 0.5, 0.5), RATE_HZ)
    write(tmp_path / "audio" / "right.wav", sine(500, RATE_HZ, 0.5, 0.08), RATE_HZ)
    latents, shards, again = (tmp_path / name for name in ("latents", "shards", "again"))
    assert rave("encode", noisy, tmp_path / "audio", latents, "--match-level")[0] == 0
    assert rave("shard", latents, shards)[0] == 0
    assert rave("unshard", shards, again)[0] == 0
    files = LatentHeader.read(latents).files
    assert sorted(LatentHeader.read(again).files, key=lambda file: file.path) == files
    assert [file.gain_db < -10 for file in files] == [True, False]
    assert (latents / "latents.json").read_text().count("gain_db") == 1


def test_level_matching_without_a_known_level_is_refused(tmp_path, rave):
    run = write_run(tmp_path / "run", *NOISY)
    write(tmp_path / "audio" / "a.wav", noise(5000), RATE_HZ)
    code, _, err = rave("encode", run, tmp_path / "audio", tmp_path / "latents", "--match-level")
    assert code == 2
    assert "does not state the level of its training audio" in err
    assert not (tmp_path / "latents").exists()
