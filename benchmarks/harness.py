"""Measure a comparison: each side a process of its own, their runs taking turns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.comparison import Bench, Comparison, Measured, Outcome, Side

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Failed(Exception):
    """A side could not do what it was asked for."""


class Process:
    """A worker.

    Args:
        python: Of the side's environment.
        threads: That it has.
        log: For what it prints.
        is_ours: Finds this project before what is installed.
    """

    def __init__(self, python: Path, threads: int, log: Path, is_ours: bool) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {name: str(threads) for name in THREADS}
        if is_ours:
            environment["PYTHONPATH"] = str(ROOT)
        self._log = log.open("a")
        self._process = subprocess.Popen(
            [str(python), str(ROOT / "benchmarks" / "worker.py"), *(["--ours"] if is_ours else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this program, which ends them
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            os.killpg(self._process.pid, signal.SIGTERM)  # the command that it runs, too
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()
        self._log.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            Failed: If the side cannot do it, or has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(f"The process ended with code {self._process.wait()}.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer


def measure(comparison: Comparison, bench: Bench, rounds: int, outcome: Outcome) -> None:
    """Measure a comparison into its outcome, sample by sample.

    Every side is prepared and, but for whole commands, run once uncounted; then they take turns:
    A B A B …
    A side that fails leaves the others to go on.

    Args:
        comparison: What to measure. Sides of the peers are left out where there is no environment.
        bench: What with.
        rounds: Runs of each side.
        outcome: Gets the samples.
    """
    log = bench.work / "workers.log"
    sides = [s for s in comparison.sides if not s.is_upstream or bench.upstream is not None]
    with ExitStack() as stack:
        running: list[tuple[Measured, Process]] = []
        outputs: dict[str, Path] = {}
        for side in sides:
            measured = Measured(side)
            outcome.sides.append(measured)
            process = stack.enter_context(_start(side, comparison.threads, bench, log))
            try:
                _warm_up(measured, process, comparison, bench, outputs)
            except Failed as error:
                measured.error = str(error)
            else:
                running.append((measured, process))
        for _ in range(min(rounds, comparison.max_rounds or rounds)):
            for measured, process in [pair for pair in running if not pair[0].error]:
                try:
                    measured.add(process.ask("run", hands_back=comparison.is_large))
                except Failed as error:
                    measured.error = str(error)
        if comparison.compare is not None:
            outcome.differences = comparison.compare(_written(outputs))


def _start(side: Side, threads: int, bench: Bench, log: Path) -> Process:
    python = bench.upstream if side.is_upstream and bench.upstream else Path(sys.executable)
    return Process(python, threads, log, is_ours=not side.is_upstream)


def _warm_up(
    measured: Measured,
    process: Process,
    comparison: Comparison,
    bench: Bench,
    outputs: dict[str, Path],
) -> None:
    side = measured.side
    parameters = {**side.parameters, "device": bench.device}
    answer = process.ask("prepare", function=side.function, parameters=parameters)
    measured.facts = answer["facts"]
    if not comparison.has_warm_up:
        return
    output = None
    if comparison.compare is not None:
        output = bench.work / f"output-{len(outputs)}.npy"
        outputs[side.name] = output
        output.unlink(missing_ok=True)
    answer = process.ask(
        "run",
        output=None if output is None else str(output),
        is_counted=side.is_counted,
        hands_back=comparison.is_large,
    )
    measured.flops = answer["flops"]


def _written(outputs: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in outputs.items() if path.exists()}
