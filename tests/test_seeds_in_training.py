"""What of a training, a ladder and a measure follows from the seed: all that is drawn."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace as Fake

import numpy as np
import pytest
import torch
from diffwave_data import HOP, RATE_HZ, autoregression, settings, write_latent_folder
from rave_runs import prepare, train_words
from seeded import PRIOR, call, contents, parsers, sets
from test_diffwave_generate import make_model
from test_finished_folders import SAME

from diffwave.conditions.controls import LOUDNESS, ControlHeader
from diffwave.conditions.spectrogram import SpectrogramHeader
from diffwave.evaluation import ladder as ladders
from diffwave.evaluation.ladder import (
    FOLLOWING,
    GAUSSIAN,
    GENERATED,
    HELD_OUT,
    MODELLED,
    NORMAL,
    RECONSTRUCTION,
    TITLES,
    Ladder,
)
from diffwave.evaluation.ladder import NOISE as WHITE
from diffwave.experiments.catalogue import catalogue
from diffwave.experiments.laboratory import HEADER_NAME, Laboratory
from diffwave.experiments.recipe import TINY
from rave.latents.folder import write_latents
from rave.noise import DecoderNoise

STOP = "handed over"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Prepared audio and latents, both more than one recording."""
    folder = tmp_path_factory.mktemp("data")
    arrays = {f"{'ab'[n % 2]}/{n}.npy": autoregression(4, 60, 0.9, n) for n in range(6)}
    header = write_latent_folder(folder / "latents", arrays)
    files = dict.fromkeys(arrays, 60)
    place = {name: folder / name for name in ("controls", "spectrograms")}
    for name, array in arrays.items():
        write_latents(place["controls"] / LOUDNESS / name, [array[:1]], 1)
        write_latents(place["spectrograms"] / name, [np.abs(array)], 4)
    shared = header.codec, RATE_HZ, HOP
    ControlHeader(*shared, {LOUDNESS: 1}, files).write(place["controls"])
    SpectrogramHeader(*shared, HOP, 4, files).write(place["spectrograms"])
    return prepare(folder), folder / "latents", place


@pytest.fixture
def handed(data, tmp_path, monkeypatch, capsys):
    """Return a function that gives what a command hands to the trainer, or why it does not."""
    prepared, latents, _ = data
    taken = []

    def fit(system, data_for, *_, **__):
        taken.append((system, data_for(0)))
        raise ValueError(STOP)

    monkeypatch.setattr("rave.trainer.fit", fit)

    def hand(command, out, seed, *more):
        given = [str(latents), "--out", str(tmp_path / out), "--device", "cpu"]
        recipe, _, place, *rest = train_words(prepared, tmp_path / out)[1:]
        words = {
            "rave train": [place, "--config", recipe, *rest],
            "rave train_prior": [*given, "--config", "prior/tiny", *sets(PRIOR)],
            "diffwave train": [*given, "--config", "tiny", *settings()],
        }[command]
        words = [*words, "--seed", str(seed), *more]
        if more[:1] == ("recipe",):  # the old form
            words = [more[1], "--data", place, *rest]
        assert call(command, words) == 2
        error = capsys.readouterr().err
        return taken.pop() if STOP in error else error

    hand.out = tmp_path
    return hand


def items(loader):
    """Return the first items of a loader."""
    found = [each["raw"] if isinstance(each, dict) else each for each in islice(loader, 3)]
    return torch.cat(found)


@pytest.mark.parametrize("command", ["rave train", "rave train_prior", "diffwave train"])
def test_weights_items_and_draws_of_a_training_follow_from_its_seed(command, handed):
    one, same, other = (
        handed(command, out, seed) for out, seed in zip("abc", (4, 4, 5), strict=True)
    )
    (system, loaders), (again, loaders_again), (changed, loaders_changed) = one, same, other
    state, other_state = system.state_dict(), changed.state_dict()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())
    for part in {name.split(".")[0] for name in state}:
        names = [name for name in state if name.startswith(f"{part}.")]
        assert not all(torch.equal(state[name], other_state[name]) for name in names)
    assert torch.equal(items(loaders.train), items(loaders_again.train))
    assert not torch.equal(items(loaders.train), items(loaders_changed.train))
    # Runs of other seeds are compared by what they hold out.
    assert torch.equal(items(loaders.held_out), items(loaders_changed.held_out))
    for trained, seed in ((system, 4), (changed, 5)):  # of what steps draw: test_draws.py
        recipe = getattr(trained, "settings", None) or trained.training_recipe
        assert recipe.seed == seed
    assert "SEED 4, now 5" in handed(command, "a", 5)


# What else a run is begun with, beside its seed; what is None is looked at elsewhere.
CONFIG, SET = "--config default", "--set HIDDEN_CHANNELS=5"
BEGUN = {
    "rave train": {
        "--set": "--set CAPACITY=3",
        "--config": "--config v2+causal",
        "data": None,  # which may grow: test_growing_data.py
        "--data": "recipe v2+causal",
        "--initialise-from": None,  # test_rave_initial_weights.py
    },
    "rave train_prior": {"--set": SET, "--config": "--config prior/default", "latents": None},
    "diffwave train": {
        "--set": SET,
        "--config": CONFIG,
        "--labels": "--labels",
        "--controls": "--controls {controls} loudness",
        "--spectrograms": "--spectrograms {spectrograms}",
        "latents": None,
    },
}
ASKED = [(command, asked) for command, all_ in BEGUN.items() for asked in all_.values() if asked]
ALIKE = SAME | {"--seed", "--out", "--devices", "--nodes", "--dry-run"}


@pytest.mark.parametrize(("command", "asked"), ASKED)
def test_a_run_that_is_begun_goes_on_with_nothing_else(command, asked, data, handed):
    assert handed(command, "run", 0)[0] is not None
    begun = contents(Path(handed.out) / "run")
    words = asked.format(**data[2]).split()
    assert "holds a run with other settings" in handed(command, "run", 0, *words)
    assert contents(Path(handed.out) / "run") == begun


def test_every_option_of_a_training_is_looked_at():
    known = dict(parsers())
    for command, asked in BEGUN.items():
        options = {(each.option_strings or [each.dest])[-1] for each in known[command]._actions}
        assert set(asked) == options - ALIKE


# The ladder


def ladder_of(seed, *, is_noise_heard=False):
    """Return a ladder whose clips are their latents, or the decoder's noise, as they are."""
    ones = np.ones((4, 1), np.float32)
    form = Fake(
        uninformative=(ones == 1, 0 * ones, ones),
        latent_size=4,
        num_noise_rows=0,
        noise_steps_per_frame=1,
        noise_rows=0,
        has_clock=False,
        hop_samples=2,
        sample_rate_hz=100,
    )
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((4, 30)).astype(np.float32) for _ in range(3)]
    whole = {"raw": torch.from_numpy(clips[0]), "mask": torch.ones(30), "index": torch.tensor(0)}

    def decode_blocks(raw, noise: DecoderNoise):
        yield noise.decoder_input(raw, 0) if is_noise_heard else raw

    data = Fake(
        num_frames=30,
        held_out=None,
        segments=lambda *_: [whole, whole],
        training=clips,
        reader=Fake(raw=lambda clip: clip),
    )
    return Ladder(
        Fake(model=make_model(), folder="run"),
        data,
        None,
        Fake(format=form, decode_blocks=decode_blocks),
        None,
        count=2,
        seed=seed,
        num_steps=2,
        guidance={},
        progress=lambda: None,
    )


RUNGS = {
    RECONSTRUCTION: Ladder.reconstruction,
    MODELLED: Ladder.modelled,
    GENERATED: lambda ladder: ladder.generated(0)[0],
    FOLLOWING: lambda ladder: ladder.following()[0],
    GAUSSIAN: Ladder.gaussian,
    NORMAL: Ladder.normal,
    WHITE: lambda ladder: ladder.noise(1.0),
}

# Nothing of them is drawn.
FIXED = (RECONSTRUCTION, MODELLED)


@pytest.fixture
def unheard(monkeypatch):
    """Let the ladder keep what it should listen to."""
    monkeypatch.setattr(ladders, "measure_blocks", lambda blocks, *_: list(blocks))


def clips_of(rung, ladder):
    """Return the clips of a rung, (count, T)."""
    return [np.concatenate(blocks, axis=1).ravel() for blocks in RUNGS[rung](ladder)]


@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_that_is_drawn_follows_from_the_seed_clip_by_clip(rung, unheard):
    first, again, other = (clips_of(rung, ladder_of(seed)) for seed in (0, 0, 7))
    assert np.array_equal(first, again)
    for one, two in zip(first, other, strict=True):
        assert np.array_equal(one, two) == (rung in FIXED)
    if rung not in FIXED:
        assert not np.array_equal(*first)
    if rung != WHITE:  # decoded, with a noise that follows from the seed too
        first, other = (clips_of(rung, ladder_of(seed, is_noise_heard=True)) for seed in (0, 7))
        assert all(not np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_all_rungs_are_looked_at():
    assert {*RUNGS, HELD_OUT} == set(TITLES)


def test_no_clip_of_one_set_is_in_another(unheard):
    ladder = ladder_of(0)
    clips = [clip for number in range(3) for clip, _ in zip(*ladder.generated(number), strict=True)]
    assert len({np.concatenate(clip).tobytes() for clip in clips}) == 6


# Measures


def test_a_measure_draws_with_the_seed_that_it_is_given(tmp_path, monkeypatch, capsys):
    """What follows from it is shown beside each measure and in test_draws.py."""
    given = []

    def keep(seed):
        given.append(seed)
        raise ValueError(STOP)

    (tmp_path / "a.wav").touch()
    (tmp_path / "run.json").touch()
    here = str(tmp_path)
    monkeypatch.setattr("rave.api.evaluate._measured", lambda *_: [])
    monkeypatch.setattr("rave.evaluation.folders.compare", lambda _, __, seed, ___: keep(seed))
    monkeypatch.setattr("diffwave.diagnosis.run.diagnose_run", lambda *_, seed, **__: keep(seed))
    monkeypatch.setattr("diffwave.experiments.__main__.perform", lambda *given: keep(given[-1]))
    for command, words in (
        ("rave evaluate", [here, here]),
        ("diffwave diagnose", [here]),
        ("diffwave experiments", [here, here, "--all"]),
    ):
        assert call(command, [*words, "--seed", "23"]) == 2
        assert STOP in capsys.readouterr().err
    assert given == [23] * 3


def test_every_training_of_an_experiment_has_the_seed_and_no_folder_has_two(tmp_path):
    runs = [run for each in catalogue(TINY, 23) for run in each.runs]
    assert {run.seed for run in runs} == {23}
    for seed in (0, 0):
        Laboratory(tmp_path, Fake(identity=dict), TINY, seed, print, [])
    before = (tmp_path / HEADER_NAME).read_bytes()
    with pytest.raises(ValueError, match="seed 0, now 1"):
        Laboratory(tmp_path, Fake(identity=dict), TINY, 1, print, [])
    assert (tmp_path / HEADER_NAME).read_bytes() == before
