"""Experiments on synthetic latents: finished work is kept, shared between processes, and shown."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffwave_data import HOP, RATE_HZ, autoregression, write_latent_folder
from forks import Fork, context
from test_imports import heavy_after

from diffwave.conditions.spectrogram import SpectrogramHeader
from diffwave.experiments.__main__ import main, perform
from diffwave.experiments.catalogue import QUICK_NAMES, catalogue
from diffwave.experiments.data import read_data
from diffwave.experiments.laboratory import Laboratory
from diffwave.experiments.recipe import TINY
from rave.latents.folder import POSTERIOR_MEAN, LatentFile, LatentHeader, write_latents
from rave.latents.statistics import StatisticsAccumulator

SMALL = replace(
    TINY,
    zero_steps=1,
    white_steps=2,  # half of it where there are few timesteps
    deep_steps=1,
    our_steps=1,
    max_clips=12,
    num_items=2,
    num_timesteps=20,  # not fewer than the 16 items of a batch
)
MEL_HOP, NUM_MELS = HOP // 4, 80
SHARED = ("mse", "precision", "no-sqrt")  # of which each needs a training of another


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Latents of eight dimensions, half of them collapsed, and spectrograms."""
    folder = tmp_path_factory.mktemp("experiments")
    latents, spectrograms = folder / "latents", folder / "spectrograms"
    sums, files = StatisticsAccumulator(8), []
    for number in range(4):
        array = autoregression(8, 330, 0.9, number)
        array[4:] *= 0.01
        std = np.repeat(np.float32([[0.2]] * 4 + [[1.0]] * 4), 330, axis=1)
        write_latents(latents / f"{number}.npy", [array], 8)
        sums.add(array, std)
        files.append(LatentFile(f"{number}.npy", 330, f"{number}.wav", RATE_HZ, 330 * HOP))
        mel = np.random.default_rng(number).random((NUM_MELS, 330 * 4)).astype(np.float32)
        write_latents(spectrograms / f"{number}.npy", [mel], NUM_MELS)
    LatentHeader(
        "c0dec", "runs/codec", RATE_HZ, HOP, 8, POSTERIOR_MEAN, sums.statistics(), files
    ).write(latents)
    SpectrogramHeader(
        "c0dec", RATE_HZ, HOP, MEL_HOP, NUM_MELS, {file.path: 330 for file in files}
    ).write(spectrograms)
    return latents, spectrograms


def chosen(*names):
    return [each for each in catalogue(SMALL) if each.name in names]


def all_that_is_measured():
    return [run for each in catalogue(SMALL) for run in each.more]


def do(folders, out, *names, with_spectrograms=True):
    latents, spectrograms = folders
    given = spectrograms if with_spectrograms else None
    return perform(latents, out, given, catalogue(SMALL), names, SMALL)


def trained(stderr):
    return re.findall(r"training (\S+)", stderr)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The results of `--quick`, on latents of which most dimensions are collapsed, and its figures.

    What it does is done by no other test again: it takes most of the time of this file.
    """
    folder = tmp_path_factory.mktemp("quick")
    rng = np.random.default_rng(0)
    clips = {}
    for number in range(8):
        noise = 0.05 * rng.standard_normal((24, 110)).astype(np.float32)  # collapsed dimensions
        clips[f"{number}.npy"] = np.concatenate([autoregression(8, 110, 0.9, number), noise])
    write_latent_folder(folder / "latents", clips)
    paths = [str(folder / "latents"), str(folder / "results")]
    code, out, err = Fork("diffwave.experiments", *paths, "--quick", "--json").finish(900)
    assert code == 0, err
    return folder / "results", json.loads(out)


@pytest.fixture(scope="module")
def others(folders, tmp_path_factory):
    """The results of all experiments that `--quick` leaves out, and their figures."""
    names = [each.name for each in catalogue(SMALL) if each.name not in QUICK_NAMES]
    out = tmp_path_factory.mktemp("others")
    return out, do(folders, out, *names).figures


def rows_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["rows"]


def test_the_quick_experiments_meet_what_closed_form_predicts(quick):
    figures = quick[1]
    assert figures["bars"] == 10 and figures["missed"] == []


def test_every_experiment_runs(quick, others):
    names = [figures["experiments"] for _, figures in (quick, others)]
    assert names[0] == list(QUICK_NAMES)
    assert names[1] == [each.name for each in catalogue(SMALL) if each.name not in QUICK_NAMES]
    for (folder, _), least_pictures in ((quick, 1), (others, 8)):
        _are_shown(folder, names.pop(0), least_pictures)


def _are_shown(folder, names, least_pictures):
    page = (folder / "index.html").read_text()
    table = (folder / "table.md").read_text()
    for name in names:
        rows = rows_of(folder, name)
        assert rows
        assert all(row["diary"] or row["ours"] for row in rows)
        assert f'id="{name}"' in page
        assert f"(`{name}`)" in table
    assert not re.search(r'(src|href)="(?!#)', page)
    assert page.count("<svg") >= least_pictures


def test_skips_are_not_used(others):
    losses = {row["label"]: row["diary"] for row in rows_of(others[0], "batch-norm")}
    assert losses["on output and skips"] == losses["on each block's output"]


def test_samples_are_cut_to_1(quick):
    rows = rows_of(quick[0], "sampling-range")
    (clamped,) = (row for row in rows if row["label"].startswith("samples, x clamped"))
    nearer, further = sorted((-clamped["diary"]["min"], clamped["diary"]["max"]))
    assert further == 1.0
    assert nearer > 0.99  # of few samples none may have met the other end


def test_zero_rows_meet_their_prediction(quick):
    rows = [row for row in rows_of(quick[0], "mse") if "best of one channel" in row["predicted"]]
    assert len(rows) == 2
    for row in rows:
        low = row["predicted"]["best of one channel"]
        assert low - 0.02 <= row["diary"]["loss"] <= row["predicted"]["zero"] + 0.02


def test_finished_work_is_not_done_again(folders, tmp_path, capsys):
    do(folders, tmp_path, "mse", "encodings")
    assert trained(capsys.readouterr().err)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/*.json")}
    (tmp_path / "mse.json").unlink()  # as if killed between training and measuring
    again = do(folders, tmp_path, "mse", "encodings", "precision")
    told = capsys.readouterr().err
    assert "measuring mse" in told and "measuring encodings" not in told
    assert len(trained(told)) == 2  # 16 bit of the diary's and of ours; 32 bit is there
    assert again.figures["experiments"] == ["mse", "precision", "encodings"]
    for path, time_ns in kept.items():
        assert path.name == "mse.json" or path.stat().st_mtime_ns == time_ns


def test_the_same_seed_gives_the_same_figures(folders, others, tmp_path):
    do(folders, tmp_path, "precision")
    assert rows_of(tmp_path, "precision") == rows_of(others[0], "precision")


def share(latents, out, told, barrier):
    """Do experiments in a process of its own; leave what was told in a file."""
    import torch

    from diffwave.experiments.data import read_data
    from diffwave.experiments.laboratory import Laboratory

    torch.set_num_threads(1)
    with Path(told).open("w") as file:
        data = read_data(latents, None, SMALL.max_clips)
        laboratory = Laboratory(
            out, data, SMALL, 0, lambda what: _tell(file, what), all_that_is_measured()
        )
        barrier.wait(60)
        laboratory.work(chosen(*SHARED, "encodings"))


def _tell(file, what):
    file.write(what + "\n")
    file.flush()


def test_two_processes_share_the_work_and_double_none(folders, tmp_path):
    files = [tmp_path / f"{number}.log" for number in range(2)]
    barrier = context().Barrier(2)
    processes = [
        context().Process(target=share, args=(folders[0], tmp_path / "out", str(file), barrier))
        for file in files
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert len(lines) == len(set(lines))
    runs = {run for each in chosen(*SHARED) for run in each.runs}
    assert sum(line.startswith("training") for line in lines) == len(runs)
    assert sum(line.startswith("measuring") for line in lines) == 4
    assert all(file.read_text() for file in files)


def test_what_a_killed_process_had_claimed_is_taken_over(folders, tmp_path):
    from diffwave.experiments.data import read_data
    from diffwave.experiments.laboratory import LOCKS, Laboratory

    data = read_data(folders[0], None, 24)
    laboratory = Laboratory(tmp_path, data, SMALL, 0, lambda what: None, [])
    (run, *_) = chosen("precision")[0].runs
    (tmp_path / LOCKS / f"{laboratory.key(run)}.lock").touch()  # what a kill leaves
    assert laboratory.train(run)
    with laboratory.claim("x") as first:
        assert first


def test_results_of_other_data_are_refused(folders, tmp_path):
    do(folders, tmp_path, "encodings")
    other = replace(SMALL, our_steps=4)
    with pytest.raises(ValueError, match="holds results of other data or another scale"):
        perform(folders[0], tmp_path, folders[1], catalogue(other), ["encodings"], other)


def test_results_of_other_latents_of_the_same_sizes_are_refused(folders, tmp_path):
    laboratory_in(tmp_path / "out", folders[0])
    other = shutil.copytree(folders[0], tmp_path / "latents")
    for path in other.glob("*.npy"):
        array = np.load(path)
        np.save(path, np.asfortranarray(array[:, ::-1]))
    with pytest.raises(ValueError, match=r"holds results of other data .*clips"):
        laboratory_in(tmp_path / "out", other)


def laboratory_in(out, latents):
    data = read_data(latents, None, SMALL.max_clips)
    return Laboratory(out, data, SMALL, 0, print, [])


@pytest.mark.parametrize("name", ["runs", ".locks", ".locks/mse.lock", "within/further"])
def test_a_folder_that_is_a_link_out_of_the_results_is_not_written_through(name, folders, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("precious")
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).symlink_to(outside)
    with pytest.raises(ValueError, match="outside the folder to write"):
        laboratory_in(tmp_path / "out", folders[0])
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("canary", "precious")]


def test_a_link_in_place_of_a_lock_is_replaced_and_not_followed(folders, tmp_path):
    canary, locks = tmp_path / "canary", tmp_path / "out" / ".locks"
    canary.write_text("precious")
    locks.mkdir(parents=True)
    for name in ("experiments.json.lock", "mse.lock"):
        (locks / name).symlink_to(canary)
    with laboratory_in(tmp_path / "out", folders[0]).claim("mse") as is_ours:
        assert is_ours
    assert canary.read_text() == "precious"
    assert not any(path.is_symlink() for path in locks.iterdir())


def test_without_spectrograms_conditions_are_left_out_by_name(folders, tmp_path):
    result = do(folders, tmp_path, "encodings", "conditioner", with_spectrograms=False)
    assert result.figures["left_out"] == ["conditioner"]
    assert "Left out without --spectrograms: conditioner." in result.summary


def test_latents_too_short_for_a_clip_are_refused(folders, tmp_path):
    header = LatentHeader.read(folders[0])
    array = np.zeros((8, 50), np.float32)
    write_latents(tmp_path / "a.npy", [array], 8)
    replace(header, files=[LatentFile("a.npy", 50, None, RATE_HZ, 50 * HOP)]).write(tmp_path)
    with pytest.raises(ValueError, match="does not hold a clip of 109 frames"):
        perform(tmp_path, tmp_path.parent / "out", None, catalogue(SMALL), ["encodings"], SMALL)


def test_the_list_names_every_experiment_and_its_lines(capsys):
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    for each in catalogue(TINY):
        assert each.name in out
        assert each.lines[0] in out


def test_help_imports_nothing_heavy_and_ends_with_an_example():
    heavy, output = heavy_after(
        "from diffwave.experiments.__main__ import main; sys.exit(main(['--help']))"
    )
    assert heavy == "[]"
    assert output.strip().splitlines()[-1].strip().startswith("python -m diffwave.experiments ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([".", "b", "--run", "batch"], "Unknown experiment 'batch'. Choose from: learning"),
        (["--all"], "LATENTS and OUT are needed"),
        ([".", "b", "--all", "--threads", "0"], "--threads is 0"),
        (
            ["nowhere", "b", "--all"],
            "'nowhere' does not exist. Give a folder that `rave encode` wrote.",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
