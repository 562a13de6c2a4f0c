"""What every command that trains does between two checkpoints, and what it says of a bad batch."""

import contextlib
import importlib
import io
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from audio_files import noise, write
from diffwave_data import TINY as DIFFUSION
from diffwave_data import autoregression, write_latent_folder
from every_command import TRAINERS, sets, unchanged_process
from rave_runs import TINY as CODEC
from seeded import parsers
from test_rave_prior import SETTINGS as PRIOR

from diffwave.training import DiffusionSystem
from rave import trainer
from rave.audio.prepared import PreparedAudio
from rave.latents.folder import read_latents
from rave.main_cli import main
from rave.prior_training import PriorSystem
from rave.runs.checkpoint import LAST
from rave.training import RaveSystem

RATE_HZ, CROP = 16000, 2304
STEP_S = 100.0  # of a clock that training moves
STOPPED_STEP, BAD_STEP = 3, 9
# Of each command: the words before --out, those behind it that leave saving to the clock, and
# what makes a step.
SYSTEMS = {
    "rave train": (
        "rave.main_cli train v2 --data {}/prepared",
        sets(
            CODEC,
            *("MAX_STEPS=30", "PHASE_1_STEPS=30", "VALIDATE_EVERY_STEPS=100"),
            *(f"CROP_SAMPLES={CROP}", "training.RaveTraining.log_every_steps=50"),
        ),
        RaveSystem,
    ),
    "rave train_prior": (
        "rave.main_cli train_prior {}/latents",
        sets(PRIOR, "MAX_STEPS=30", "VALIDATE_EVERY=100", "LOG_EVERY=50"),
        PriorSystem,
    ),
    "diffwave train": (
        "diffwave.train {}/latents --config tiny",
        sets(DIFFUSION, "MAX_STEPS=30", "VALIDATE_EVERY=100", "LOG_EVERY=50"),
        DiffusionSystem,
    ),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Noise of six recordings, prepared and as latents: each stretch of it is there once."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(6):
        write(folder / "audio" / f"{number}.wav", noise(3000 + number, seed=number), RATE_HZ)
    words = ["preprocess", f"{folder}/audio", f"{folder}/prepared", "--sample-rate", str(RATE_HZ)]
    assert main(words) == 0
    arrays = {f"{n}.npy": autoregression(4, 40 + n, 0.5, n) for n in range(6)}
    write_latent_folder(folder / "latents", arrays)
    return folder


class Watched:
    """A training whose clock is moved by its steps, with the checkpoints that it writes.

    It is stopped in one step and resumed; a later one has a loss that is no number.
    """

    def __init__(self, name, sources, out):
        before, behind, system = SYSTEMS[name]
        module, *words = before.format(sources).split()
        words += ["--out", str(out), "--device", "cpu", *behind.split()]
        self.saved, self.bad, self.now_s = [], [], 0.0
        step_of, save_of = system.training_step, trainer._WholeFiles.save_checkpoint
        self.error = io.StringIO()

        def training_step(system, batch, batch_idx):
            step, loss = system.global_step + 1, step_of(system, batch, batch_idx)
            self.now_s += STEP_S
            if step == STOPPED_STEP:
                os.kill(os.getpid(), signal.SIGTERM)
            if step == BAD_STEP:
                self.bad = batch["raw"] if isinstance(batch, dict) else batch
            return loss * float("nan") if step == BAD_STEP else loss

        def save_checkpoint(files, checkpoint, path, storage_options=None):
            save_of(files, checkpoint, path)
            self.saved.append((checkpoint["global_step"], Path(path).name))

        main = importlib.import_module(module).main
        with (
            pytest.MonkeyPatch.context() as patch,
            unchanged_process(),
            contextlib.redirect_stderr(self.error),
        ):
            patch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: self.now_s))
            patch.setattr(system, "training_step", training_step)
            patch.setattr(trainer._WholeFiles, "save_checkpoint", save_checkpoint)
            self.codes = [main(words), main(words)]


@pytest.fixture(scope="module", params=SYSTEMS)
def watched(request, sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return Watched(request.param, sources, out)


def test_every_command_that_trains_is_tried_here():
    training = {name for name, parser in parsers() if "--devices" in parser.format_help()}
    assert training == TRAINERS == {*SYSTEMS}


def test_a_training_is_saved_when_the_clock_says_so_and_where_it_is_stopped(watched):
    assert pytest.approx(1.8) == trainer.SAVE_EVERY_S / STEP_S
    assert [step for step, name in watched.saved if name == LAST] == [2, STOPPED_STEP, 5, 7]
    assert watched.codes == [130, 2]  # the next would be of the bad step


def test_the_batch_that_an_error_names_is_the_one_that_had_it(watched, sources):
    error = watched.error.getvalue().splitlines()[-1]
    found = re.search(rf"The loss became nan at step {BAD_STEP}, on (.*), so training", error)
    named = re.findall(r"'([^']+)' at (frame )?([\d.]+)", found[1])
    assert len(named) == len(watched.bad) > 1
    for (name, is_frame, position), row in zip(named, watched.bad, strict=True):
        array = read_latents(sources / "latents" / name, 4) if is_frame else audio_of(sources, name)
        first = round(float(position) * (1 if is_frame else RATE_HZ))
        near = 0 if is_frame else RATE_HZ // 100  # seconds are told with two decimals
        starts = range(max(first - near, 0), first + near + 1)
        parts = [array[:, start : start + row.shape[1]] for start in starts]
        assert any(np.array_equal(part, row) for part in parts)


def audio_of(sources, name):
    """Return what a prepared folder holds of a recording."""
    prepared = PreparedAudio(sources / "prepared")
    (file,) = (file for file in prepared.files if file.name == name)
    return prepared.read(file, 0, file.num_samples)
