"""Runs that go on after recordings were added: what was held out stays held out."""

import json
import random

import numpy as np
import pytest
import torch
from audio_files import sine, write
from diffwave_data import autoregression, settings, write_latent_folder
from rave_runs import RATE_HZ, train
from test_rave_prior import SETTINGS as PRIOR

from diffwave import train as diffwave_train
from diffwave.clips import split_clips
from diffwave.diagnosis.run_data import TrainingData, open_data
from diffwave.run import open_run, training_settings
from rave.dataset import split_audio
from rave.held_out import SPLIT_NAME, Origin, Split, recording_keys, split_names, without_suffix
from rave.latent_dataset import LatentDataset, keys_and_lengths
from rave.main_cli import main
from rave.runs.checkpoint import BEST, CHECKPOINTS, last_checkpoint, read_checkpoint
from rave.upstream.lmdb import open_audio

FIRST, MORE = "abcd", "efghijklmnop"


def prepare(folder, names):
    """Prepare a tone of each name, and return the prepared folder."""
    for name in names:
        write(folder / "in" / f"{name}.wav", sine(100.0 + ord(name), RATE_HZ, 0.5), RATE_HZ)
    options = ["--sample-rate", str(RATE_HZ)]
    assert main(["preprocess", str(folder / "in"), str(folder / "prepared"), *options]) == 0
    return folder / "prepared"


def latents(folder, names, num_frames=40, scale=1.0):
    """Write latents of each name, of which the later ones need more dimensions."""
    arrays = {}
    for name in names:
        arrays[f"{name}.npy"] = scale * autoregression(4, num_frames, 0.9, ord(name))
        arrays[f"{name}.npy"][2:] *= 1e-3 if name in FIRST else 1.0
    write_latent_folder(folder, arrays)
    return folder


def train_diffusion(folder, run, *more):
    return diffwave_train.main(
        [str(folder), "--out", str(run), "--config", "tiny", *settings(*more)]
    )


def train_prior(folder, run, *more):
    sets = [text for each in (*PRIOR, *more) for text in ("--set", each)]
    return main(["train_prior", str(folder), "--out", str(run), *sets])


def origins_of(names):
    return {name: Origin(without_suffix(name)) for name in names}


# The rule


def test_by_the_split_of_a_run_added_recordings_move_no_other_and_keep_the_share():
    draw = random.Random(0)
    for count in (2, 3, 10, 50):
        names = [f"{draw.random()}.wav" for _ in range(count)]
        origins = origins_of(names)
        split = Split.of(recording_keys(origins.values()), 0.2)
        before = split_names(origins, 0.2)
        assert split_names(origins, split) == before
        grown = [*names, *(f"{draw.random()}.wav" for _ in range(400))]
        training, held_out = split_names(origins_of(grown), split)
        assert set(before[0]) <= set(training)
        assert set(before[1]) <= set(held_out)
        assert set(training).isdisjoint(held_out)
    assert 0.1 < len(held_out) / len(grown) < 0.3


def test_of_the_only_recording_the_end_stays_held_out_when_others_come(tmp_path):
    store = open_audio(prepare(tmp_path, "a"))
    split = Split.of(recording_keys([Origin("a")]), 0.2)
    before = split_audio(store, 0.2)
    grown = split_audio(open_audio(prepare(tmp_path, MORE)), split)
    assert any(piece.name.startswith(tuple(MORE)) for piece in grown[1])
    for old, new in zip(before, grown, strict=True):
        assert old[0] in new
        assert [piece.start for piece in new if piece.file.name != "a.wav"] == [0] * (len(new) - 1)
    arrays = {f"{name}.npy": autoregression(4, 40, 0.9, 0) for name in "a" + MORE}
    files = write_latent_folder(tmp_path / "latents", arrays).files
    training, held_out = split_clips(files, split)
    assert [(clip.start, clip.stop) for clip in training if clip.file.path == "a.npy"] == [(0, 32)]
    assert [(clip.start, clip.stop) for clip in held_out if clip.file.path == "a.npy"] == [(32, 40)]


def test_a_sharded_set_is_divided_by_the_split_of_a_run_as_its_folder_is(tmp_path):
    folder = latents(tmp_path / "latents", FIRST + MORE)
    assert main(["shard", str(folder), str(tmp_path / "shards")]) == 0
    split = Split.of(recording_keys(map(Origin, FIRST)), 0.3)
    found = []
    for place in (folder, tmp_path / "shards"):
        sides = split_clips(LatentDataset(place).files, split)
        found.append([sorted(clip.file.path for clip in side) for side in sides])
        keys, lengths = keys_and_lengths(LatentDataset(place).files)
        found[-1].append(sorted(zip(keys.tolist(), lengths.tolist(), strict=True)))
    assert found[0] == found[1]
    assert set(FIRST) & {path[0] for path in found[0][1]}


# The commands


def held_out_of(text):
    (line,) = (line for line in text.splitlines() if line.startswith("held out: "))
    return set(line.removeprefix("held out: ").split(", "))


def test_rave_train_never_trains_on_what_it_held_out_before(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(prepare(tmp_path, FIRST), run, "MAX_STEPS=2", "VALIDATE_EVERY_STEPS=2") == 0
    before = held_out_of(capsys.readouterr().err)
    best = read_checkpoint(run / CHECKPOINTS / BEST)["global_step"]
    data = prepare(tmp_path, MORE)
    names = origins_of(f"{name}.wav" for name in FIRST + MORE)
    assert split_names(names, 0.1)[1] != sorted(before)
    assert train(data, run, "MAX_STEPS=4", "VALIDATE_EVERY_STEPS=2") == 0
    error = capsys.readouterr().err
    assert before <= held_out_of(error)
    assert "The data has changed since the last checkpoint: 16 recordings, 4 before." in error
    # Losses on other held-out music cannot be compared.
    assert read_checkpoint(run / CHECKPOINTS / BEST)["global_step"] > best
    assert train(data, run, "MAX_STEPS=6", "VALIDATE_EVERY_STEPS=2") == 0
    assert "has changed" not in capsys.readouterr().err


@pytest.mark.parametrize("begin", [train_diffusion, train_prior], ids=["diffusion", "prior"])
def test_a_model_of_latents_goes_on_with_recordings_added(tmp_path, capsys, begin):
    run, folder = tmp_path / "run", tmp_path / "latents"
    assert begin(latents(folder, FIRST), run, "FIDELITY=0.999") == 0
    config = (run / "config.gin").read_text()
    split = Split.read(run)
    before = read_checkpoint(last_checkpoint(run))["state_dict"]
    latents(folder, FIRST + MORE)
    assert begin(folder, run, "FIDELITY=0.999", "MAX_STEPS=10") == 0
    error = capsys.readouterr().err
    assert "The data has changed since the last checkpoint: 16 recordings, 4 before." in error
    assert "Statistics of the data from the beginning of the run are kept" in error
    after = read_checkpoint(last_checkpoint(run))["state_dict"]
    kept = [name for name in before if name.endswith((".mean", ".basis", ".scale"))]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert (run / "config.gin").read_text() == config.replace("MAX_STEPS = 8", "MAX_STEPS = 10")
    assert Split.read(run) == split


def test_a_diagnosis_takes_the_split_of_its_run(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "latents"
    assert train_diffusion(latents(folder, FIRST), run) == 0
    split = Split.read(run)
    latents(folder, FIRST + MORE)
    opened = open_run(run)
    data = open_data(opened, training_settings(run), TrainingData(), 16)
    expected = split_names(origins_of(f"{name}.npy" for name in FIRST + MORE), split)
    assert [clip.file.path for clip in data.held_out] == expected[1]
    assert data.is_known


def test_recordings_that_are_gone_or_changed_are_told_in_a_sentence_about_the_data(
    tmp_path, capsys
):
    run, folder = tmp_path / "run", tmp_path / "latents"
    assert train_diffusion(latents(folder, FIRST), run) == 0
    held_out = split_names(origins_of(f"{name}.npy" for name in FIRST), Split.read(run))[1][0][0]
    latents(folder, FIRST, scale=2.0)
    assert train_diffusion(folder, run, "MAX_STEPS=9") == 0
    assert "changed since the last checkpoint: in names or content." in capsys.readouterr().err
    latents(folder, FIRST.replace(held_out, ""))
    assert train_diffusion(folder, run, "MAX_STEPS=10") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "The data has no recording that this run holds out" in error
    assert "LATENT_SIZE" not in error


def test_a_run_that_does_not_say_what_it_held_out_takes_no_other_latents(tmp_path, capsys):
    run, folder = tmp_path / "run", tmp_path / "latents"
    assert train_diffusion(latents(folder, FIRST), run) == 0
    (run / SPLIT_NAME).unlink()  # as runs were written before
    assert train_diffusion(folder, run, "MAX_STEPS=9") == 0
    (run / SPLIT_NAME).unlink()
    latents(folder, FIRST + MORE)
    assert train_diffusion(folder, run, "MAX_STEPS=10") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "was started on other latents (160 frames; these have 640), and does not state" in error


def test_a_label_that_the_run_does_not_know_is_named(tmp_path, capsys):
    run, folder = tmp_path / "run", tmp_path / "latents"
    arrays = {f"{kind}/{n}.npy": autoregression(4, 40, 0.9, n) for kind in "xy" for n in range(3)}
    write_latent_folder(folder, arrays)
    words = [str(folder), "--out", str(run), "--config", "tiny", "--labels"]
    assert diffwave_train.main([*words, *settings()]) == 0
    more = {f"z/{n}.npy": autoregression(4, 40, 0.9, n) for n in range(3)}
    write_latent_folder(folder, arrays | more)
    assert diffwave_train.main([*words, *settings("MAX_STEPS=9")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "a labelled folder 'z', but the run was started with x, y." in error


def test_a_split_survives_its_file(tmp_path):
    for split in (Split(2**64 - 1, 0.2), Split(17, 0.1, 2**63 + 5)):
        split.write(tmp_path)
        assert Split.read(tmp_path) == split
    (tmp_path / SPLIT_NAME).write_text(json.dumps({"format": "rave-diffwave-split", "version": 1}))
    with pytest.raises(ValueError, match="Copy it from where the run was made"):
        Split.read(tmp_path)
    assert np.uint64(split.below) == split.below
