"""`python -m benchmarks`: measure our speed beside that of the peers and the machine's limits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.comparison import Bench, Comparison, Outcome
from benchmarks.harness import ROOT, measure
from rave.cli import EXIT_INTERRUPTED, EXIT_SKIPPED, sentence
from rave.parsing import EXIT_ERROR

LIMITS = "limits"
ROWS = (
    *(LIMITS, "codec", "folder", "streaming", "training", "preprocess", "diffusion"),
    *("generation", "vocoder", "length", "loading", "scaling"),
)
FORMAT, VERSION = "rave-diffwave-benchmarks", 1


def parser() -> argparse.ArgumentParser:
    """Return the program's options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure speed and memory, each side in a process of its own, their runs "
        "taking turns. Prints a table; writes results.json and length.png.",
        epilog="example:\n  python -m benchmarks codec streaming --against-upstream",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("names", nargs="*", metavar="NAME", help="rows to measure; see --list")
    options.add_argument("--all", action="store_true", help="every row")
    options.add_argument("--list", action="store_true", help="print the rows and stop")
    options.add_argument(
        "--against-upstream",
        action="store_true",
        help="measure acids-rave, lmnt diffwave and a U-Net too; installs them into OUT/upstream",
    )
    options.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    options.add_argument(
        "--out",
        type=Path,
        default=Path("benchmark-results"),
        help="folder (default benchmark-results)",
    )
    options.add_argument(
        "--threads", type=int, nargs="+", metavar="N", help="of each side (default 1, all cores)"
    )
    options.add_argument("--rounds", type=int, default=5, help="runs of each side (default 5)")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    options.add_argument(
        "--models",
        type=Path,
        default=ROOT / "models" / "piano",
        help="codec/ and diffusion/ of the row generation (default models/piano)",
    )
    options.add_argument("--verbose", action="store_true", help="print a traceback with an error")
    return options


def rows() -> dict[str, Any]:
    """Return the module of each row by its name."""
    return {name: import_module(f"benchmarks.tasks.{name}") for name in ROWS}


class Report:
    """What was measured, written after each comparison.

    Args:
        out: Folder.
        machine: What it is measured on.
        options: What was asked for.

    Attributes:
        outcomes: So far.
        failed: Rows that could not be measured, and why.
    """

    def __init__(self, out: Path, machine: dict[str, Any], options: dict[str, Any]) -> None:
        self.out, self._machine, self._options = out, machine, options
        self.outcomes: list[Outcome] = []
        self.failed: dict[str, str] = {}

    def records(self) -> list[dict[str, Any]]:
        """Return all that was measured."""
        from benchmarks.tasks.limits import limits

        known = limits(self.outcomes)
        return [outcome.record(known) for outcome in self.outcomes if outcome.sides]

    def write(self) -> None:
        """Write results.json and length.png, each whole or not at all."""
        from benchmarks.results import plot_length
        from rave.files.atomic import write_json

        records = self.records()
        content = {
            "format": FORMAT,
            "version": VERSION,
            "machine": self._machine,
            "options": self._options,
            "rows": records,
            "failed": self.failed,
        }
        write_json(self.out / "results.json", content)
        sized = [r for r in records if r["size"] and "seconds" in r["sides"][0]]
        if sized:
            plot_length(sized, self.out / "length.png")


def run(options: argparse.Namespace) -> int:
    """Measure what is asked for, print the table, and return the exit code.

    Raises:
        ValueError: If options cannot be used.
    """
    known = rows()
    if options.list:
        for name, module in known.items():
            print(f"{name:12}{(module.__doc__ or '').splitlines()[0]}")
        return 0
    names = _chosen(options, known)
    bench, machine = _bench(options)
    settings = {"quick": options.quick, "device": options.device, "rounds": options.rounds}
    report = Report(options.out, machine, settings)
    code = 0
    try:
        for name in names:
            _measure_row(name, known[name], bench, options.rounds, report)
    except KeyboardInterrupt:
        print("Interrupted; what was measured is kept.", file=sys.stderr)
        code = EXIT_INTERRUPTED
    finally:
        report.write()
    _print(report)
    has_failed = report.failed or any(
        side.error for outcome in report.outcomes for side in outcome.sides
    )
    return code or (EXIT_SKIPPED if has_failed else 0)


def _print(report: Report) -> None:
    from benchmarks.results import table

    print(table(report.records()))
    for name, reason in report.failed.items():
        print(f"- {name}: {reason}")


def _chosen(options: argparse.Namespace, known: dict[str, Any]) -> list[str]:
    for name in options.names:
        if name not in known:
            raise ValueError(f"There is no row '{name}'. Choose among: {', '.join(known)}.")
    if options.all == bool(options.names):
        raise ValueError("Give the names of rows, or --all; --list prints them.")
    if options.rounds < 1 or any(count < 1 for count in options.threads or ()):
        raise ValueError("--rounds and --threads are numbers above 0.")
    chosen = list(known) if options.all else list(dict.fromkeys(options.names))
    return chosen if LIMITS in chosen else [LIMITS, *chosen]  # shares of them are reported


def _bench(options: argparse.Namespace) -> tuple[Bench, dict[str, Any]]:
    from benchmarks.machine import cores, describe

    machine = describe(options.device)
    work = options.out.absolute() / ("work-quick" if options.quick else "work")
    work.mkdir(parents=True, exist_ok=True)
    upstream = None
    if options.against_upstream:
        from benchmarks.upstream.environment import add_peers, make_environment

        upstream = make_environment(options.out.absolute() / "upstream")
        add_peers(options.out.absolute() / "upstream")
    threads = tuple(dict.fromkeys(options.threads or (1, cores())))
    models = options.models.absolute()
    return Bench(work, options.quick, options.device, threads, upstream, models), machine


def _measure_row(name: str, module: Any, bench: Bench, rounds: int, report: Report) -> None:
    try:
        comparisons: list[Comparison] = module.comparisons(bench)
    except (ValueError, OSError) as error:
        report.failed[name] = sentence(error)
        print(f"{name}: {report.failed[name]}", file=sys.stderr)
        return
    for comparison in comparisons:
        title = f"{name}: {comparison.what}, {comparison.threads} threads"
        print(title, file=sys.stderr, flush=True)
        outcome = Outcome(comparison)
        report.outcomes.append(outcome)
        measure(comparison, bench, rounds, outcome)
        for side in outcome.sides:
            if side.error:
                print(f"  {side.side.name}: {side.error}", file=sys.stderr)
        report.write()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        return run(options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (ValueError, OSError) as error:
        if options.verbose:
            raise
        print(f"python -m benchmarks: error: {sentence(error)}", file=sys.stderr)
        return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
