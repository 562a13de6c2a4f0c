"""What is measured: sides that do the same work, and the figures that follow from their samples."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Compare = Callable[[Mapping[str, Path]], dict[str, float]]


@dataclass(frozen=True)
class Bench:
    """What the rows are to be measured with.

    Attributes:
        work: Folder for what is made once: models, recordings.
        is_quick: Tiny sizes, to see that everything runs.
        device: cpu or cuda.
        threads: Numbers of threads.
        upstream: Python of the environment with the peers, or None.
        models: Folder with codec/ and diffusion/, trained.
    """

    work: Path
    is_quick: bool
    device: str
    threads: tuple[int, ...]
    upstream: Path | None
    models: Path

    def size(self, full: Any, quick: Any) -> Any:
        """Return the one that is asked for."""
        return quick if self.is_quick else full


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    Attributes:
        name: In the table.
        function: `module:function` of `benchmarks.tasks`, which prepares the work.
        parameters: Its arguments, as JSON has them.
        is_upstream: Runs in the environment of the peers.
        precision: Of the limit that it is held against.
        scale: What is timed stands for so many of it.
        is_counted: Count its FLOPs, where torch computes; a side without takes another's.
    """

    name: str
    function: str
    parameters: dict[str, Any]
    is_upstream: bool = False
    precision: str = "float32"
    scale: float = 1.0
    is_counted: bool = False


@dataclass(frozen=True)
class Comparison:
    """Sides that do the same work; ratios are against the last one.

    Attributes:
        row: Name of the row.
        what: The work, in words.
        sides: Those that do it.
        amount: How much one run does.
        unit: Of the amount.
        threads: That each side has.
        max_rounds: Runs of each side at most.
        has_warm_up: Run each side once before, uncounted.
        is_large: Memory holds one side's work and not all of them: hand it back after each run.
        size: Where it stands in a plot of cost against size, minutes.
        compare: Takes the output of each side, returns differences by name.
    """

    row: str
    what: str
    sides: Sequence[Side]
    amount: float
    unit: str
    threads: int
    max_rounds: int | None = None
    size: float | None = None
    compare: Compare | None = None
    has_warm_up: bool = True
    is_large: bool = False


@dataclass
class Measured:
    """What came of one side.

    Attributes:
        side: It.
        seconds: Of each run.
        peak_mib: Of each run.
        flops: Of one run, 0 if not counted.
        facts: What the task says of itself.
        measured: What the runs measured themselves, by name.
        error: Why there is nothing, or no more.
    """

    side: Side
    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    flops: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)
    error: str = ""

    def add(self, answer: dict[str, Any]) -> None:
        """Keep one run."""
        known = {"seconds", "peak_mib", "flops"}
        self.seconds.append(answer["seconds"] * self.side.scale)
        self.peak_mib.append(answer["peak_mib"])
        for name in answer.keys() - known:
            self.measured.setdefault(name, []).append(answer[name])


@dataclass
class Outcome:
    """What came of a comparison.

    Attributes:
        comparison: It.
        sides: In its order.
        differences: Of outputs, by name.
    """

    comparison: Comparison
    sides: list[Measured] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)

    def record(self, limits: Mapping[tuple[str, int], float]) -> dict[str, Any]:
        """Return it as JSON has it.

        Args:
            limits: FLOP/s of the machine, by precision and threads.
        """
        given, known = self.comparison, max((side.flops for side in self.sides), default=0.0)
        sides = []
        for side in self.sides:
            entry: dict[str, Any] = {"name": side.side.name, "error": side.error, **side.facts}
            if side.seconds:
                entry["seconds"] = spread(side.seconds)
                entry["rate"] = given.amount / entry["seconds"]["median"]
                entry["peak_mib"] = max(side.peak_mib)
                entry |= {name: spread(values) for name, values in side.measured.items()}
                limit = limits.get((side.side.precision, given.threads))
                flops = (side.flops or known) * side.side.scale
                if flops and limit:
                    entry["flops"] = flops
                    entry["share_of_limit"] = flops / entry["seconds"]["median"] / limit
            sides.append(entry)
        what = {name: getattr(given, name) for name in ("row", "what", "threads", "size")}
        unit = {"amount": given.amount, "unit": given.unit}
        found = {"ratios": self.ratios(), "differences": self.differences}
        return {**what, **unit, "sides": sides, **found}

    def ratios(self) -> list[dict[str, Any]]:
        """Return how many times as fast as the last side each other one is, pair by pair."""
        done = [side for side in self.sides if side.seconds]
        if len(done) < 2:
            return []
        last = done[-1]
        return [
            {
                "of": side.side.name,
                "to": last.side.name,
                **spread(ratios_of_pairs(last.seconds, side.seconds)),
            }
            for side in done[:-1]
        ]


def ratios_of_pairs(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratio of each round that both sides have."""
    return [a / b for a, b in zip(above, below, strict=False)]


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """Return samples with their median, lowest and highest."""
    return {
        "median": statistics.median(samples),
        "lowest": min(samples),
        "highest": max(samples),
        "samples": list(samples),
    }
