"""Every number of a command's JSON follows from its input; one without a law fails."""

import json
import math
import re
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from audio_files import noise, sine, write
from diffwave_data import settings
from rave_models import SHORT, known_audio, write_run
from training_curves import read_curves

from diffwave.__main__ import PROGRAMS
from rave.audio.io import read_audio
from rave.codec import load_codec, load_run
from rave.latents.statistics import INFORMATIVE_NATS
from rave.main_cli import AVAILABLE_SCRIPTS
from rave.notes.midi import read_midi
from rave.runs.checkpoint import last_checkpoint, read_checkpoint

RATE_HZ, HOP, SIZE = 44100, 64, 4
SECONDS = {"long.wav": 4.5, "short.wav": 1.5}
GAINS = {"long.wav": 0.2, "short.wav": 0.02}
TOTAL_S = sum(SECONDS.values())
FRAMES = {name: -int(-seconds * RATE_HZ // HOP) for name, seconds in SECONDS.items()}
TRAINING_DBFS = (-30.0, -20.0)
TRAINED_ON = ("long.npy",)  # the other is held out
NUM_CLASSES = 8
PLAYED = {"scale.wav": (60, 62, 64, 65), "octave.wav": (57, 69)}  # MIDI numbers, one after another
PRIOR = " ".join(
    f"--set {each}"
    for each in (
        *("MAX_STEPS=2", "BATCH_SIZE=2", "SEGMENT_FRAMES=16", f"NUM_CLASSES={NUM_CLASSES}"),
        *("NUM_BLOCKS=3", "HIDDEN_CHANNELS=16", "SKIP_CHANNELS=8", "VALIDATE_EVERY=2"),
    )
)
BAR = re.compile(r"^(\w[^:]*): +\d+%.* (\d+)/(\d+) \[", re.MULTILINE)
# Of the other commands.
ELSEWHERE = {
    "rave app": "test_app.py",
    "rave evaluate": "test_known_statistics.py",
    "rave export": "test_rave_nn_tilde.py",
    "rave train": "test_logged_figures.py",
    "diffwave.diagnose": "test_known_statistics.py",
    "diffwave.evaluate": "test_known_statistics.py",
    "diffwave.experiments": "test_diffwave_experiments_runs.py",
    "diffwave.export": "test_diffwave_nn_tilde.py",
    "diffwave.preprocess": "test_diffwave_controls.py",
    "diffwave.vocode": "test_diffwave_waveform.py",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two stereo recordings, two of notes, and a codec that knows its training levels."""
    folder = tmp_path_factory.mktemp("figures")
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        audio = noise(round(seconds * RATE_HZ), 2, seed, GAINS[name])
        write(folder / "in" / name, audio * [[1.0], [0.5]], RATE_HZ, subtype="FLOAT")
    for name, pitches in PLAYED.items():
        tones = [sine(440 * 2 ** ((pitch - 69) / 12), RATE_HZ, 0.5, 0.3) for pitch in pitches]
        write(folder / "played" / name, np.concatenate(tones, axis=1), RATE_HZ)
    run = write_run(folder / "run", "v2", *SHORT, "NUM_CHANNELS=2")
    content = read_checkpoint(last_checkpoint(run))
    for name, weight in content["state_dict"].items():
        if name.startswith("model.encoder") and name.endswith("original0"):
            weight *= 3
    torch.save(content, last_checkpoint(run))
    known_audio([True] * SIZE, fingerprint=load_run(run)[1].fingerprint).write(run)
    return folder


def counts(num=2, **more):
    return {"num_done": num, "num_unchanged": 0, "num_skipped": 0, **more}


def decibels(audio):
    return 10 * np.log10(np.square(audio, dtype=np.float64).mean())


def of_files(folder, suffix, of):
    """Return a figure of each audio file that was written, by its name in the figures."""
    found = {path: soundfile.read(path)[0] for path in sorted(folder.rglob("*.wav"))}
    return {str(path.relative_to(folder).with_suffix(suffix)): of(a) for path, a in found.items()}


def peaks(folder, suffix):
    return flat({"peak": of_files(folder, suffix, lambda audio: np.abs(audio).max())})


def levels_written(folder, suffix):
    return flat({"level_dbfs": of_files(folder, suffix, decibels)})


def levels_read(names):
    levels = {}
    for name, path in names.items():
        level = decibels(soundfile.read(path)[0])
        off_db = level - np.clip(level, *TRAINING_DBFS)
        levels[name] = {"level_dbfs": level, "off_db": off_db, "gain_db": 0.0}
    return flat({"levels": levels})


def posteriors(folder):
    codec = load_codec(folder / "run", torch.device("cpu"))
    pairs = [codec.encode(read_audio(folder / "in" / name, RATE_HZ, 2)) for name in SECONDS]
    return [np.concatenate(each, axis=1) for each in zip(*pairs, strict=True)]


def of_preprocess(folder, out):
    peak = {name: np.abs(soundfile.read(folder / "in" / name)[0]).max() for name in SECONDS}
    return counts(num_files=2, duration_s=TOTAL_S, num_removed=0) | flat({"peak": peak})


def of_augment(folder, out):
    written = [path for path in out.rglob("*") if path.suffix in (".wav", ".flac")]
    seconds = sum(soundfile.info(path).duration for path in written)
    versions = {p.name: np.abs(soundfile.read(p)[0]).max() for p in written if "~" in p.name}
    assert len(written) == 6  # an octave up takes half of the time; a moment is left out
    assert 2.5 * TOTAL_S - 0.4 < seconds <= 2.5 * TOTAL_S
    return counts(recorded_s=TOTAL_S, duration_s=seconds) | flat({"peak": versions})


def of_encode(folder, out):
    mean, std = posteriors(folder)
    normal = torch.distributions.Normal(0.0, 1.0)
    posterior = torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(std))
    kl = torch.distributions.kl_divergence(posterior, normal).mean(dim=1)
    noise_variance = np.exp(2 * np.log(std).mean(axis=1))
    information = 0.5 * np.log1p(mean.var(axis=1) / noise_variance)
    return (
        counts(num_frames=sum(FRAMES.values()), frame_rate_hz=RATE_HZ / HOP, latent_size=SIZE)
        | {"num_informative": int((information > INFORMATIVE_NATS).sum())}
        | {"information_nats_per_frame": information.sum(), "kl_nats_per_frame": float(kl.sum())}
        | levels_read({name: folder / "in" / name for name in SECONDS})
    )


def of_decode(folder, out):
    return counts() | levels_written(out, ".npy") | peaks(out, ".npy")


def of_generate(folder, out):
    return of_decode(folder, out) | levels_read({name: folder / "in" / name for name in SECONDS})


def of_transcribe(folder, out):
    notes = {name: read_midi((out / name).with_suffix(".mid")) for name in PLAYED}
    for name, pitches in PLAYED.items():
        assert {note.pitch for note in notes[name]} >= {*pitches}
    return counts() | flat({"num_notes": {name: len(found) for name, found in notes.items()}})


def of_interpolate(folder, out):
    paths = {str(folder / "in" / name): folder / "in" / name for name in SECONDS}
    cut = {path: 0.0 for path in paths}
    cut[next(iter(paths))] = (FRAMES["long.wav"] - FRAMES["short.wav"]) * HOP / RATE_HZ
    mean, _ = posteriors(folder)
    a, b = mean[:, : FRAMES["short.wav"]], mean[:, FRAMES["long.wav"] :]
    latents = {"lerp": 0.75 * a + 0.25 * b}
    blends = {"lerp": {"latent_length": np.linalg.norm(latents["lerp"], axis=0).mean()}}
    lengths = (np.linalg.norm(each, axis=0) for each in (a, b))
    first, second = lengths
    blends["slerp"] = {"latent_length": (0.75 * first + 0.25 * second).mean()}
    for name, level in of_files(out, "", decibels).items():
        blends[name]["level_dbfs"] = level
    return flat({"cut_s": cut, "blends": blends}) | levels_read(paths) | peaks(out, ".wav")


def of_shard(folder, out):
    size = sum(path.stat().st_size for path in out.glob("*.tar"))
    frames = sum(FRAMES.values())
    found = {"num_clips": 2, "num_frames": frames, "num_shards": 2, "num_done": 2}
    return found | {"num_bytes": size, "num_skipped": 0}


def of_unshard(folder, out):
    return {"num_clips": 2, "num_written": 2}


def of_train_prior(folder, out):
    found = {"steps": 2, "resumed_from": 0, "latent_size": len(Standards(folder).modelled)}
    held_out = read_curves(out)["held_out_loss"][-1][1]
    return found | {"uniform": math.log(NUM_CLASSES), "held_out_loss": held_out}


def of_sample_prior(folder, out):
    frames = round(0.1 * RATE_HZ / HOP)
    assert {np.load(path).shape[1] for path in out.glob("*.npy")} == {frames}
    return {"num_frames": frames, "duration_s": frames * HOP / RATE_HZ, "temperature": 0.5}


def of_train(folder, out):
    curves, standards = read_curves(out), Standards(folder)
    step, loss = min(curves["held_out_loss"], key=itemgetter(1))
    found = {name: curves[f"reference/{name}"][-1][1] for name in ("zero", "white", "gaussian")}
    found |= {"num_steps": 8, "best_step": step + 1, "step": step + 1, "held_out_loss": loss}
    found |= {"latent_size": len(standards.modelled), "raw_size": SIZE}
    found |= {"fidelity": standards.modelled.sum() / standards.variance.sum()}
    return found | {"skill": 1 - loss / found["gaussian"]}


def of_inference(folder, out):
    frames = round(0.2 * RATE_HZ / HOP)
    mean, _ = posteriors(folder)
    centre, spread = mean.mean(axis=1), mean.std(axis=1)
    step, _ = min(read_curves(folder / "train")["held_out_loss"], key=itemgetter(1))
    found = {"num_frames": frames, "duration_s": frames * HOP / RATE_HZ, "train_steps": step + 1}
    for index, path in enumerate(sorted(out.glob("*.npy"))):
        off = np.load(path) - centre[:, None]
        level = np.sqrt(np.square(off).mean() / np.square(spread).mean())
        found[f"items/{index}/level"] = level
        found[f"items/{index}/largest_shift"] = np.abs(off.mean(axis=1) / spread).max()
    return found


class Standards:
    """The variances of the training latents along their axes, and those that are modelled."""

    def __init__(self, folder):
        (name,) = TRAINED_ON
        array = np.load(folder / "encode" / name).astype(np.float64)
        self.variance = np.linalg.eigvalsh(np.cov(array, ddof=0))[::-1]
        share = np.cumsum(self.variance) / self.variance.sum()
        self.modelled = self.variance[: int((share < 0.99).sum()) + 1]


# In this order: what one writes, a later one reads.
LAWS = {
    "rave preprocess": ("in {out} --channels 2", of_preprocess),
    "rave augment": ("in {out} --semitones 0 12", of_augment),
    "rave encode": ("run in {out}", of_encode),
    "rave decode": ("run encode {out}", of_decode),
    "rave generate": ("run in {out}", of_generate),
    "rave transcribe": ("played {out}", of_transcribe),
    "rave interpolate": ("run in/long.wav in/short.wav {out} --weight 0.25", of_interpolate),
    "rave shard": ("encode {out} --shard-mb 0.015", of_shard),
    "rave unshard": ("shard {out}", of_unshard),
    "rave train_prior": (f"encode --out {{out}} --config prior/tiny {PRIOR}", of_train_prior),
    "rave sample_prior": (
        "train_prior {out} --count 1 --seconds 0.1 --temperature 0.5",
        of_sample_prior,
    ),
    "diffwave.train": ("encode --out {out} --config tiny " + " ".join(settings()), of_train),
    "diffwave.inference": ("train {out} --count 2 --seconds 0.2 --steps 2", of_inference),
}


def flat(figures, above=""):
    """Return the numbers of figures by the path of their keys."""
    found = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{name}/")
        elif name == "items":
            found |= flat({str(n): item for n, item in enumerate(value)}, f"{above}items/")
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool):
            found[above + name] = value
    return found


@pytest.fixture(scope="module")
def results(places):
    """What each command said, and where it wrote, by name."""
    found = {}
    for command, (words, _) in LAWS.items():
        module = import_module(command.replace("rave ", "rave.commands."))
        out = places / module.__name__.rpartition(".")[2]
        given = [str(places / word) if (places / word).exists() else word for word in words.split()]
        options = module.parser().parse_args([word.format(out=out) for word in given])
        with redirect_stderr(StringIO()) as shown:
            found[command] = module.run(options), out, shown
    return found


@pytest.mark.parametrize("command", LAWS)
def test_every_number_of_a_command_follows_from_its_input(command, places, results):
    result, out, _ = results[command]
    found = flat(json.loads(json.dumps(result.figures)))
    needed = LAWS[command][1](places, out)
    assert found.keys() == needed.keys()
    for key, value in needed.items():
        tolerance = 0.02 if "db" in key else 5e-4  # rounded; 16 bits
        assert found[key] == pytest.approx(value, rel=1e-4, abs=tolerance), key


@pytest.mark.parametrize("command", sorted(LAWS.keys() - {"rave interpolate"}))
def test_progress_ends_at_all_there_was_to_do(command, results):
    shown = results[command][2].getvalue().replace("\r", "\n")
    last = {bar[1]: (bar[2], bar[3]) for bar in BAR.finditer(shown)}
    assert last and all(done == total for done, total in last.values())


def test_sentences_say_the_numbers_of_the_figures_in_their_units(results):
    figures = {command: result.figures for command, (result, *_) in results.items()}
    encoded, shard = figures["rave encode"], figures["rave shard"]
    prior, trained = figures["rave train_prior"], figures["diffwave.train"]
    blend = figures["rave interpolate"]["blends"]["slerp"]
    notes = figures["rave transcribe"]["num_notes"]
    minutes = figures["rave augment"]["duration_s"] / 60
    needed = {
        "rave preprocess": "holds 2 files, 0.1 minutes, 44100 Hz, 2 channel(s).",
        "rave augment": f"holds {minutes:.1f} minutes, 0.1 of them recordings.",
        "rave encode": f"{sum(FRAMES.values())} frames of 4 dimensions at 689.06 Hz; "
        f"{encoded['num_informative']} dimensions are informative, "
        f"{encoded['information_nats_per_frame']:.1f} nats per frame.",
        "rave decode": "Decoded 2 files, 0 unchanged.",
        "rave generate": "holds 2 audio files.",
        "rave transcribe": f"holds 2 MIDI files, {sum(notes.values())} notes.",
        "rave interpolate": f"slerp: mean length of the latents {blend['latent_length']:.2f}, "
        f"{blend['level_dbfs']:.1f} dBFS",
        "rave shard": f"in 2 shards of {shard['num_bytes'] / 2e6:.0f} MB; 2 written now.",
        "rave unshard": "holds 2 clips; 2 written now.",
        "rave train_prior": f"Held-out loss {prior['held_out_loss']:.3f} nats per value "
        f"(uniform guess: {math.log(NUM_CLASSES):.3f}).",
        "rave sample_prior": "Generated 1 clips of 0.10 s",
        "diffwave.train": f"Held-out loss {trained['held_out_loss']:.3f} against white "
        f"{trained['white']:.3f} and gaussian {trained['gaussian']:.3f}, skill "
        f"{trained['skill']:.3f}",
        "diffwave.inference": "Generated 2 clips of 0.20 s",
    }
    assert needed.keys() == LAWS.keys()
    for command, words in needed.items():
        assert words in results[command][0].summary, command
    off_db = decibels_of_short() - TRAINING_DBFS[0]
    assert f"{-off_db:.1f} dB softer" in results["rave encode"][0].summary
    assert "cut the last 3.00 s of" in results["rave interpolate"][0].summary


def decibels_of_short():
    audio = noise(round(SECONDS["short.wav"] * RATE_HZ), 2, 1, GAINS["short.wav"])
    return decibels(audio * [[1.0], [0.5]])


def test_every_command_has_laws_of_its_numbers():
    commands = {f"rave {name}" for name in AVAILABLE_SCRIPTS} | {f"diffwave.{n}" for n in PROGRAMS}
    assert commands == LAWS.keys() | ELSEWHERE.keys()
    assert not LAWS.keys() & ELSEWHERE.keys()
    assert all((Path(__file__).parent / name).exists() for name in ELSEWHERE.values())
