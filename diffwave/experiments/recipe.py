"""Experiments: lines of the diary, trainings of both models, and measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from diffwave.experiments.diary_model import DiaryNetwork
from diffwave.experiments.diary_training import DiaryRun
from diffwave.experiments.measures import Lab, Rows
from diffwave.experiments.our_model import OurRun

# The diary's hidden channels are divided by this in its model: no conclusion depends on them.
NARROWER = 4
# In the flattened model, its blocks too, except where depth is the question.
SHALLOWER = 5
DIARY_BETAS = (1e-4, 0.05)


@dataclass(frozen=True)
class Scale:
    """How much work an experiment is.

    Attributes:
        name: As the results name it.
        zero_steps: Steps of the diary's model with one output channel.
        white_steps: Steps of its flattened model.
        deep_steps: Steps of its flattened model with 30 blocks.
        our_steps: Steps of our model.
        max_clips: Training clips.
        num_items: Held-out items of a loss.
        num_timesteps: Stands for the diary's 1000; the others in proportion.
    """

    name: str
    zero_steps: int
    white_steps: int
    deep_steps: int
    our_steps: int
    max_clips: int
    num_items: int
    num_timesteps: int = 1000

    def timesteps(self, number: int) -> int:
        """Return the number of timesteps here for one of the diary's."""
        return max(number * self.num_timesteps // 1000, 4)


FULL = Scale("full", 80, 1500, 300, 300, 600, 48)
QUICK = Scale("quick", 40, 600, 100, 40, 300, 32)
TINY = Scale("tiny", 8, 12, 4, 4, 24, 8, num_timesteps=100)


@dataclass(frozen=True)
class Row:
    """One variant: a training of each model.

    Attributes:
        label: Variant.
        saw: Observation of the diary.
        diary: Its model's training, or None.
        ours: Ours, or None.
        bar: "zero", "white" or "bounded": the closed form that the diary's loss must meet; "" for
            none.
        note: Remark on the row.
    """

    label: str
    saw: str = ""
    diary: DiaryRun | None = None
    ours: OurRun | None = None
    bar: str = ""
    note: str = ""


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: On the command line.
        title: On the page.
        lines: Lines of the diary, shortened.
        why: Explanation by closed form and measurement.
        rows: Variants.
        differs: How it departs from the diary.
        measure: Measures more than losses, or None.
        more: Further trainings that `measure` uses.
        needs_spectrograms: Whether it needs spectrograms.
    """

    name: str
    title: str
    lines: tuple[str, ...]
    why: str
    rows: tuple[Row, ...] = ()
    differs: str = ""
    measure: Callable[[Lab], Rows] | None = None
    more: tuple[DiaryRun | OurRun, ...] = ()
    needs_spectrograms: bool = False

    @property
    def texts(self) -> dict[str, Any]:
        """Return its texts on the page."""
        return {
            "name": self.name,
            "title": self.title,
            "diary": list(self.lines),
            "why": self.why,
            "differs": self.differs,
        }

    @property
    def runs(self) -> list[DiaryRun | OurRun]:
        """Return the trainings that it needs, each once."""
        found: dict[DiaryRun | OurRun, None] = {}
        for row in self.rows:
            found.update({run: None for run in (row.diary, row.ours) if run is not None})
        return list({**found, **dict.fromkeys(self.more)})


@dataclass(frozen=True)
class Base:
    """The trainings that the experiments vary.

    Attributes:
        scale: Scale of all experiments.
        seed: Seed of all experiments.
    """

    scale: Scale
    seed: int

    def broadcast(self, *, channels: int = 64, **changes: Any) -> DiaryRun:
        """Return the model until 23 August: latents in, one channel out."""
        network = DiaryNetwork(hidden_channels=channels // NARROWER)
        run = DiaryRun(network, num_steps=self.scale.zero_steps, seed=self.seed)
        return vary(run, **changes)

    def flattened(
        self,
        num_timesteps: int = 1000,
        betas: tuple[float, float] = DIARY_BETAS,
        *,
        channels: int = 64,
        blocks: int = 30,
        **changes: Any,
    ) -> DiaryRun:
        """Return the model from 24 August: one channel of all latents, one out."""
        network = DiaryNetwork(
            is_flattened=True,
            hidden_channels=channels // NARROWER,
            num_blocks=round(blocks / SHALLOWER),
        )
        run = DiaryRun(
            network,
            schedule=(*betas, self.scale.timesteps(num_timesteps)),
            batch_size=16,
            learning_rate=2e-3,
            num_steps=self.scale.white_steps // (2 if num_timesteps < 500 else 1),
            item_rows=1,
            is_timestep_shared=False,
            seed=self.seed,
        )
        return vary(run, **changes)

    def deep(self, **changes: Any) -> DiaryRun:
        """Return the flattened model with all its 30 blocks, T = 50."""
        run = self.flattened(50, blocks=30 * SHALLOWER)
        return vary(run, **{"num_steps": self.scale.deep_steps, **changes})

    def ours(self, **changes: Any) -> OurRun:
        """Return our model."""
        run = OurRun(
            num_steps=self.scale.our_steps, num_timesteps=self.scale.timesteps(1000), seed=self.seed
        )
        return replace(run, **changes)


def vary(run: DiaryRun, **changes: Any) -> DiaryRun:
    """Return a run with some settings changed; those of the network by their own names."""
    of_network = set(DiaryNetwork.__dataclass_fields__)
    inner = {name: value for name, value in changes.items() if name in of_network}
    outer = {name: value for name, value in changes.items() if name not in of_network}
    if inner:
        assert run.network is not None
        outer["network"] = replace(run.network, **inner)
    return replace(run, **outer)
