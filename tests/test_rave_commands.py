import errno
import json
import os
import re

import numpy as np
import pytest
import soundfile
from audio_files import noise, sine, write

from rave.codec import Codec
from rave.latent_dataset import LatentDataset
from rave.latents import folder as rave_latents
from rave.latents.folder import LatentHeader

AUDIO = {  # name: rate, samples, channels
    "cd.flac": (44100, 30_001, 2),
    "deep/er/phone.wav": (8000, 4000, 1),
    "one.wav": (22050, 1, 1),
    "same.wav": (22050, 5000, 1),
    "same.flac": (22050, 6000, 1),
    "ünï 音.wav": (22050, 3333, 1),
}


@pytest.fixture
def audio(tmp_path):
    for seed, (name, (rate_hz, num_samples, num_channels)) in enumerate(AUDIO.items()):
        tone = sine(200 * (seed + 1), rate_hz, num_samples / rate_hz, 0.3)
        hiss = noise(num_samples, num_channels, seed, 0.02)
        write(tmp_path / "audio" / name, tone + hiss, rate_hz)
    return tmp_path / "audio"


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def times_of(folder, pattern="*.npy"):
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob(pattern)}


# There and back


def test_audio_comes_back_with_its_names_lengths_and_rates(run, audio, tmp_path, rave):
    latents, decoded = tmp_path / "latents", tmp_path / "decoded"
    assert rave("encode", run, audio, latents)[0] == 0
    names = {"cd", "deep/er/phone", "one", "same.wav", "same.flac", "ünï 音"}
    assert files_in(latents) == {f"{n}.npy" for n in names} | {"latents.json", ".encode.jsonl"}
    assert rave("decode", run, latents, decoded)[0] == 0
    assert files_in(decoded) == {f"{n}.wav" for n in names} | {".decode.jsonl"}
    for name, (rate_hz, num_samples, _) in AUDIO.items():
        stem = name if name.startswith("same") else name.rsplit(".", 1)[0]
        info = soundfile.info(decoded / f"{stem}.wav")
        assert (info.samplerate, info.frames, info.channels) == (rate_hz, num_samples, 1)
        assert info.subtype == "PCM_16"


def test_the_header_tells_what_the_arrays_hold(run, audio, tmp_path, rave):
    assert rave("encode", run, audio, tmp_path / "latents")[0] == 0
    dataset = LatentDataset(tmp_path / "latents")
    header = dataset.header
    assert (header.sample_rate_hz, header.hop_samples, header.latent_size) == (22050, 64, 4)
    assert {entry.source for entry in header.files} == set(AUDIO)
    for index, entry in enumerate(header.files):
        rate_hz, num_samples, _ = AUDIO[entry.source]
        assert (entry.source_sample_rate_hz, entry.source_num_samples) == (rate_hz, num_samples)
        assert dataset[index].shape == (4, entry.num_frames)
        assert abs(entry.num_frames - num_samples * 22050 / rate_hz / 64) <= 1
    means = np.concatenate([dataset.array(i) for i in range(len(dataset))], axis=1)
    assert np.allclose(header.statistics.mean, means.mean(axis=1), atol=1e-3)
    assert np.allclose(header.statistics.std, means.std(axis=1), rtol=1e-3)
    assert header.statistics.is_informative.all()


def test_samples_repeat_with_the_seed_and_scatter_about_the_mean(run, audio, tmp_path, rave):
    assert rave("encode", run, audio, tmp_path / "mean")[0] == 0
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert rave("encode", run, audio, tmp_path / name, "--sample", "--seed", seed)[0] == 0
    mean, first, again, other = (np.load(tmp_path / n / "cd.npy") for n in ("mean", "a", "b", "c"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    header = LatentHeader.read(tmp_path / "a")
    scatter = np.sqrt(np.square(first - mean).mean(axis=1))
    assert np.allclose(scatter, header.statistics.posterior_std, rtol=0.25)
    assert (header.contents, header.seed) == ("posterior sample", 0)


def test_codec_rate_keeps_the_duration(run, audio, tmp_path, rave):
    assert rave("encode", run, audio, tmp_path / "latents")[0] == 0
    assert rave("decode", run, tmp_path / "latents", tmp_path / "out", "--codec-rate")[0] == 0
    info = soundfile.info(tmp_path / "out" / "deep" / "er" / "phone.wav")
    assert (info.samplerate, info.frames) == (22050, 11025)


def test_an_exported_codec_gives_the_runs_latents(run, audio, tmp_path, rave):
    code, out, _ = rave("export", run, tmp_path / "codec.ts", "--json")
    assert code == 0
    assert json.loads(out)["largest_difference"] < 1e-5
    assert rave("encode", run, audio, tmp_path / "a")[0] == 0
    assert rave("encode", tmp_path / "codec.ts", audio, tmp_path / "b")[0] == 0
    for name in ("cd.npy", "one.npy", "deep/er/phone.npy"):
        assert np.allclose(
            np.load(tmp_path / "a" / name), np.load(tmp_path / "b" / name), atol=1e-3
        )
    assert rave("decode", tmp_path / "codec.ts", tmp_path / "a", tmp_path / "out")[0] == 0


def test_json_is_all_there_is_on_stdout(run, audio, tmp_path, rave):
    code, out, _ = rave("encode", run, audio, tmp_path / "latents", "--json")
    figures = json.loads(out)
    assert (code, figures["num_done"], figures["skipped"]) == (0, 6, {})
    assert figures["latent_size"] == figures["num_informative"] == 4
    code, out, _ = rave("decode", run, tmp_path / "latents", tmp_path / "out", "--json")
    figures = json.loads(out)
    assert (code, figures["num_done"]) == (0, 6)
    assert -60 < figures["level_dbfs"]["cd.npy"] < 0


# Again


def test_a_second_time_does_nothing(run, audio, tmp_path, rave):
    latents, decoded = tmp_path / "latents", tmp_path / "decoded"
    for _ in range(2):
        encoded = json.loads(rave("encode", run, audio, latents, "--json")[1])
        done = json.loads(rave("decode", run, latents, decoded, "--json")[1])
    assert (encoded["num_done"], encoded["num_unchanged"]) == (0, 6)
    assert (done["num_done"], done["num_unchanged"]) == (0, 6)
    assert len(done["level_dbfs"]) == 6


def test_only_what_changed_is_done_again_and_what_is_gone_drops_out(run, audio, tmp_path, rave):
    latents, decoded = tmp_path / "latents", tmp_path / "decoded"
    assert rave("encode", run, audio, latents)[0] == rave("decode", run, latents, decoded)[0] == 0
    before, heard = times_of(latents), times_of(decoded, "*.wav")
    write(audio / "one.wav", noise(700), 22050)
    (audio / "cd.flac").unlink()
    figures = json.loads(rave("encode", run, audio, latents, "--json")[1])
    assert (figures["num_done"], figures["num_unchanged"]) == (1, 4)
    after = times_of(latents)
    assert set(before) - set(after) == {"cd.npy"}
    assert {name for name in after if after[name] != before[name]} == {"one.npy"}
    assert len(LatentHeader.read(latents).files) == 5
    figures = json.loads(rave("decode", run, latents, decoded, "--json")[1])
    assert (figures["num_done"], figures["num_unchanged"]) == (1, 4)
    later = times_of(decoded, "*.wav")
    assert {name for name in later if later[name] != heard[name]} == {"one.wav"}
    assert soundfile.info(decoded / "one.wav").frames == 700


def test_a_file_that_takes_the_place_of_another_keeps_its_latents(run, tmp_path, rave):
    """The names of arrays depend on what lies beside a file, so they move when that goes."""
    folder, latents = tmp_path / "audio", tmp_path / "latents"
    first, second = (
        write(folder / f"a.{suffix}", noise(count), 22050)
        for suffix, count in (("wav", 640), ("flac", 6400))
    )
    for gone, frames in ((None, {"a.wav.npy": 10, "a.flac.npy": 100}), (first, {"a.npy": 100})):
        if gone:
            gone.rename(tmp_path / "kept.wav")
        assert rave("encode", run, folder, latents)[0] == 0
        assert set(times_of(latents)) == set(frames)
        found = {
            e.path: np.load(latents / e.path).shape[1] for e in LatentHeader.read(latents).files
        }
        assert found == frames
    second.unlink()
    (tmp_path / "kept.wav").rename(first)  # of the same size and time as at first
    assert rave("encode", run, folder, latents)[0] == 0
    assert np.load(latents / "a.npy").shape == (4, 10)


def test_other_settings_need_force(run, audio, tmp_path, rave):
    assert rave("encode", run, audio, tmp_path / "latents")[0] == 0
    code, _, err = rave("encode", run, audio, tmp_path / "latents", "--sample")
    assert code == 2
    assert "contents 'posterior mean', now 'posterior sample'" in err
    assert rave("encode", run, audio, tmp_path / "latents", "--sample", "--force")[0] == 0
    assert LatentHeader.read(tmp_path / "latents").contents == "posterior sample"


# Interrupted


def test_what_a_decoder_gives_above_full_scale_is_limited_and_told(
    run, audio, tmp_path, rave, monkeypatch
):
    assert rave("encode", run, audio, tmp_path / "latents")[0] == 0
    blocks = Codec.network_blocks
    monkeypatch.setattr(
        Codec,
        "network_blocks",
        lambda *given, **more: (2.5 + 0 * b for b in blocks(*given, **more)),
    )
    code, out, _ = rave("decode", run, tmp_path / "latents", tmp_path / "out", "--json")
    assert code == 0
    found = json.loads(out)["warnings"]
    assert found
    for texts in found.values():
        assert re.search(r"[1-9]\d* samples beyond full scale were limited \(peak 2\.\d", texts[-1])
    for path in (tmp_path / "out").rglob("*.wav"):
        samples, _ = soundfile.read(path)
        assert samples.max() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command continues"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "No space left on device"),
    ],
)
@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_a_command_that_breaks_off_leaves_nothing_partial_and_continues(
    run, audio, tmp_path, rave, monkeypatch, verb, error, code, message
):
    assert rave("encode", run, audio, tmp_path / "whole")[0] == 0
    assert rave("decode", run, tmp_path / "whole", tmp_path / "heard")[0] == 0
    source, needed = (audio, "whole") if verb == "encode" else (tmp_path / "whole", "heard")
    method = {"encode": "encode_blocks", "decode": "network_blocks"}[verb]
    work, calls = getattr(Codec, method), []

    def breaks_off(self, *arguments, **options):
        calls.append(1)
        for number, block in enumerate(work(self, *arguments, **options)):
            if len(calls) == 3 and number == 0:
                raise error
            yield block

    with monkeypatch.context() as patch:
        patch.setattr(Codec, method, breaks_off)
        found, _, err = rave(verb, run, source, tmp_path / "out")
    assert found == code
    assert message in err
    assert f"rave {verb}:" in err
    assert len(files_in(tmp_path / "out")) == 3  # two results and the journal
    figures = json.loads(rave(verb, run, source, tmp_path / "out", "--json")[1])
    assert (figures["num_done"], figures["num_unchanged"]) == (4, 2)
    kinds = (".npy", ".wav")
    results = {name for name in files_in(tmp_path / needed) if name.endswith(kinds)}
    assert results == {name for name in files_in(tmp_path / "out") if name.endswith(kinds)}
    for name in results:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / needed / name).read_bytes()


def test_latents_cut_off_while_writing_are_no_file(run, audio, tmp_path, rave, monkeypatch):
    def full(file, latent_size, num_frames):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rave_latents, "write_array_header", full)
    code, _, err = rave("encode", run, audio, tmp_path / "latents")
    assert code == 2
    assert os.strerror(errno.ENOSPC) in err
    assert files_in(tmp_path / "latents") == set()
