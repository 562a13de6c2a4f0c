"""Trainings and experiments shared by any number of processes, each done once.

A process holds a file lock while it trains or measures. The system frees it if the process dies;
another one, or the same command again, then takes the work over. What is finished is a JSON file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import nn

from diffwave.experiments import diary_training, our_model
from diffwave.experiments.closed_forms import (
    bounded_loss,
    broadcast_loss,
    white_loss,
    zero_loss,
)
from diffwave.experiments.data import Data
from diffwave.experiments.diary_training import DiaryRun
from diffwave.experiments.our_model import OurModel, OurRun
from diffwave.experiments.recipe import Experiment, Row, Scale
from diffwave.experiments.results import Picture, ResultRow, run_key, tidy
from rave.files.atomic import atomic_write, read_json, write_json
from rave.jobs.journal import check_links
from rave.runs.checkpoint import read_checkpoint

FORMAT, VERSION, HEADER_NAME = "rave-diffwave-experiments", 1, "experiments.json"
LOCKS, RUNS = ".locks", "runs"
WAIT_SECONDS = 0.5
Report = Callable[[str], None]


class Progress(NamedTuple):
    """The trainings to do, how many of them were done at the start, and when that was."""

    runs: list[DiaryRun | OurRun]
    num_done: int
    start_s: float


class Laboratory:
    """Trains the models of experiments, each once, and keeps them in a folder.

    Args:
        folder: Folder of the results.
        data: Clips.
        scale: How much work an experiment is.
        seed: Seed of all trainings.
        report: Called with a line when work begins.
        measured: Trainings whose weights are needed again; of others only the figures are kept.

    Raises:
        ValueError: If the folder holds results of other latents, another scale or seed, or a link
            that leads out of it; see `rave.jobs.journal.FolderLock`.
    """

    def __init__(
        self,
        folder: Path,
        data: Data,
        scale: Scale,
        seed: int,
        report: Report,
        measured: Collection[DiaryRun | OurRun],
    ) -> None:
        self.folder = folder
        self.measured = set(measured)
        self.data = data
        self.scale = scale
        self.report = report
        self.identity = {**data.identity(), "scale": asdict(scale), "seed": seed}
        self._progress = Progress([], 0, 0.0)
        self._keys: dict[DiaryRun | OurRun, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        check_links(folder)
        with self._lock(HEADER_NAME).acquire():
            self._check_header()

    def _check_header(self) -> None:
        path = self.folder / HEADER_NAME
        content = {"format": FORMAT, "version": VERSION, **self.identity}
        if not path.exists():
            write_json(path, content)
            return
        known = read_json(path, "a folder of experiments")
        found = known if isinstance(known, dict) else {}
        names = [name for name in {**found, **content} if found.get(name) != content.get(name)]
        if names:
            changed = "; ".join(f"{n} {found.get(n)!r}, now {content.get(n)!r}" for n in names[:3])
            raise ValueError(
                f"'{self.folder}' holds results of other data or another scale ({changed}). "
                "Choose another OUT."
            )

    def _lock(self, name: str) -> FileLock:
        path = self.folder / LOCKS / f"{name}.lock"
        path.parent.mkdir(exist_ok=True)
        if path.is_symlink():  # some versions of filelock follow it, and empty what it leads to
            path.unlink()
        return FileLock(path)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Yield whether this process has got the work of a name, and no other is doing it."""
        lock = self._lock(name)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def key(self, run: DiaryRun | OurRun) -> str:
        """Return the name of a training's files."""
        if run not in self._keys:
            kind = "diary" if isinstance(run, DiaryRun) else "ours"
            self._keys[run] = run_key(kind, run, self.identity)
        return self._keys[run]

    def figures_path(self, run: DiaryRun | OurRun) -> Path:
        """Return where a training's figures are; they exist when it is finished."""
        return self.folder / RUNS / f"{self.key(run)}.json"

    def result_path(self, experiment: Experiment) -> Path:
        """Return where an experiment's result is; it exists when it is finished."""
        return self.folder / f"{experiment.name}.json"

    def train(self, run: DiaryRun | OurRun) -> bool:
        """Train, unless it is done or another process is at it; return whether it is done now."""
        if self.is_trained(run):
            return True
        with self.claim(self.key(run)) as is_ours:
            if is_ours and not self.is_trained(run):
                self._train(run, self.figures_path(run))
        return self.is_trained(run)

    def is_trained(self, run: DiaryRun | OurRun) -> bool:
        """Return whether a training is finished, with its weights where they are needed."""
        path = self.figures_path(run)
        is_whole = run not in self.measured or not run.num_steps or path.with_suffix(".pt").exists()
        return path.exists() and is_whole

    def _train(self, run: DiaryRun | OurRun, path: Path) -> None:
        self.report(f"training {path.stem}{self._remaining()}")
        model: nn.Module
        if isinstance(run, DiaryRun):
            model, figures = diary_training.train(run, self.data)
            figures |= diary_training.evaluate(run, model, self.data, self.scale.num_items)
        else:
            ours, figures = our_model.train(run, self.data)
            figures |= our_model.evaluate(ours, self.data, self.scale.num_items)
            model = ours
        if run in self.measured and run.num_steps:
            with atomic_write(path.with_suffix(".pt")) as temporary:
                torch.save(model.state_dict(), temporary)
        write_json(path, tidy({"settings": asdict(run), "figures": figures}))

    def _remaining(self) -> str:
        runs, done_before, start = self._progress
        done = sum(self.is_trained(run) for run in runs)
        if done == done_before:
            return ""
        rate = (done - done_before) / (time.monotonic() - start)
        left_min = (len(runs) - done) / rate / 60.0
        return f" ({done} of {len(runs)} done, about {left_min:.0f} min left)"

    def figures(self, run: DiaryRun | OurRun) -> dict[str, Any]:
        """Return the figures of a training; it runs first if it has not."""
        while not self.train(run):
            time.sleep(WAIT_SECONDS)
        figures: dict[str, Any] = read_json(self.figures_path(run), "a training")["figures"]
        return figures

    def _weights(self, run: DiaryRun | OurRun) -> dict[str, Any]:
        path = self.figures_path(run).with_suffix(".pt")
        return read_checkpoint(path, "Delete it to train that model again.")

    def diary(self, run: DiaryRun) -> tuple[nn.Module, dict[str, Any]]:
        """Return the diary's model of a run, in evaluation mode, and its figures."""
        figures = self.figures(run)
        network = run.build(self.data.latent_size)
        if run.num_steps:
            network.load_state_dict(self._weights(run))
        return network.eval().requires_grad_(False), figures

    def ours(self, run: OurRun) -> tuple[OurModel, dict[str, Any]]:
        """Return our model of a run, in evaluation mode, and its figures."""
        figures = self.figures(run)
        model = our_model.build(run, self.data)
        model.load_state_dict(self._weights(run))
        return model.eval().requires_grad_(False), figures

    def row(self, row: Row) -> ResultRow:
        """Return the result of a variant."""
        result = ResultRow(row.label, row.saw, note=row.note)
        if row.diary is not None:
            run, figures = row.diary, self.figures(row.diary)
            white = white_loss(run.noise_schedule, run.loss)
            if row.bar == "zero":
                floor = broadcast_loss(run.noise_schedule, run.loss, self.data.latent_size)
                result.predicted = {"zero": zero_loss(run.loss)}
                result.predicted["best of one channel"] = floor
                result.diary = {"loss": figures["loss"]}
            elif row.bar == "bounded":
                bounded = bounded_loss(run.noise_schedule, run.loss)
                result.predicted = {"best of 0 to 1": bounded, "zero": zero_loss(run.loss)}
                result.diary = {"loss": figures["loss"]}
            else:
                result.predicted = {"white": white}
                result.diary = {"loss": figures["loss"]}
                if figures["loss_collapsed"] is not None:
                    where = {"loss where latents carry nothing": figures["loss_collapsed"]}
                    result.diary = {**where, "over all": figures["loss"]}
            for name in ("condition_gain", "condition_effect"):
                if name in figures:
                    result.diary[NAMES[name]] = figures[name]
            if row.bar:
                result.judge()
        if row.ours is not None:
            figures = self.figures(row.ours)
            result.ours = {n: figures[n] for n in ("skill", "loss", "white", "gaussian")}
            for name in ("condition_gain", "condition_effect"):
                if name in figures:
                    result.ours[NAMES[name]] = figures[name]
        return result

    def measure(self, experiment: Experiment) -> dict[str, Any]:
        """Return the result of an experiment whose trainings are done."""
        start = time.process_time()
        rows = [self.row(row) for row in experiment.rows]
        pictures: list[Picture] = []
        if experiment.measure is not None:
            more, pictures = experiment.measure(self)
            rows += more
        seconds = time.process_time() - start
        trained = {self.key(run): self.figures(run)["train_seconds"] for run in experiment.runs}
        bars = [row.passed for row in rows if row.passed is not None]
        content: dict[str, Any] = tidy(
            {
                **experiment.texts,
                "passed": all(bars) if bars else None,
                "rows": [asdict(row) for row in rows],
                "pictures": [asdict(picture) for picture in pictures],
                "cpu_seconds": {"trainings": trained, "measuring": seconds},
            }
        )
        return content

    def work(self, experiments: list[Experiment]) -> None:
        """Do experiments until all are finished, by this process or by others."""
        pending = list(experiments)
        runs = list({self.key(run): run for each in experiments for run in each.runs}.values())
        num_trained = sum(self.is_trained(run) for run in runs)
        self._progress = Progress(runs, num_trained, time.monotonic())
        while pending:
            is_idle = True
            for experiment in list(pending):
                path = self.result_path(experiment)
                if path.exists():
                    pending.remove(experiment)
                    is_idle = False
                    continue
                before = [self.is_trained(run) for run in experiment.runs]
                after = [self.train(run) for run in experiment.runs]
                is_idle = is_idle and before == after
                if not all(after):
                    continue
                with self.claim(experiment.name) as is_ours:
                    if is_ours and not path.exists():
                        self.report(f"measuring {experiment.name}")
                        write_json(path, self.measure(experiment))
                        is_idle = False
            if is_idle:
                time.sleep(WAIT_SECONDS)


NAMES = {
    "condition_gain": "loss with another spectrogram / with the right one",
    "condition_effect": "change of the prediction",
}
