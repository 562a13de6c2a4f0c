"""Change one thing in the code at a time, and check whether a test notices: `make mutants`.

    python scripts/mutants.py [--sample N] [--seed N] [--processes N] [--minutes N] FILE ...

mutmut makes the mutants: an operator inverted, an argument left out, a number raised by one. A seed
draws a sample. Each mutant is run, in a copy of the tree, against the tests that run its line, the
fastest files first, until one fails; if no test runs its line, against those that run or name its
module. Which tests run which line is measured first, one file of tests at a time. Results are kept
in build/mutants. The same command continues, and repeats what has changed: everything after a
change of the code, its own part after a change of a file of tests.

tests/judged_mutants.json lists mutants that cannot be noticed, each with a reason; they do not
count. The other survivors are printed, and written to build/mutants/survivors.json in this format.
Exit code 1 if fewer than `BAR` are noticed, or an entry there is not of the current code.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import difflib
import hashlib
import importlib
import itertools
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "build" / "mutants"
JUDGED = ROOT / "tests" / "judged_mutants.json"
NOT_COPIED = (".git", ".venv*", ".*_cache", ".hypothesis", "build", "runs", "demo*-output")
LOADED_ONCE = ("pytest", "hypothesis", "scipy.signal", "pytorch_lightning", "diffusers", "coverage")
BAR = 0.85
BUDGET_S = 60  # CPU time of the tests of a mutant; after it, the mutant has survived
MOST_S = 180  # CPU time of a mutant in an endless loop
LIMIT_S = 1200  # wall time of a mutant that waits, and of a file of tests
MOST_BYTES = 8 << 30  # of memory, and of a file: a mutant may ask for any size
PROCESSES = multiprocessing.get_context("fork")


class Mutant(NamedTuple):
    """A change, as a diff of lines."""

    file: str
    function: str
    diff: str


class Place(NamedTuple):
    """Where a mutant is in the current code."""

    line: int
    statement: range  # of lines; empty outside of functions
    span: slice  # of bytes
    text: bytes


def mutants_of(file: str) -> dict[Mutant, Place]:
    """Return the mutants of a file; of equal ones, the first."""
    import libcst as cst
    from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
    from mutmut.mutation.mutators import mutation_operators

    source = (ROOT / file).read_bytes()
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    lines = wrapper.resolve(PositionProvider)
    found: dict[Mutant, Place] = {}

    def change(node: Any, function: str, statement: range) -> None:
        start, end = spans[node].start, spans[node].start + spans[node].length
        whole = slice(source.rfind(b"\n", 0, start) + 1, source.find(b"\n", end))
        before = [line.strip() for line in source[whole].decode().split("\n")]
        for kind, operator in mutation_operators:
            for changed in operator(node) if isinstance(node, kind) else ():
                text = wrapper.module.code_for_node(changed).encode()
                text = text if source[start : start + 1] == b" " else text.strip()
                changed_lines = source[whole.start : start] + text + source[end : whole.stop]
                after = [line.strip() for line in changed_lines.decode().split("\n")]
                diff = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
                for header in diff[:1]:  # @@ -line ...
                    line = lines[node].start.line + int(header[4:].split(",")[0].split()[0]) - 1
                    diff = [part for part in diff if not part.startswith("@@")]
                    place = Place(line, statement, slice(start, end), text)
                    found.setdefault(Mutant(file, function, "\n".join(diff)), place)

    def visit(node: Any, function: str, statement: range) -> None:
        if isinstance(node, (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)):
            return
        if isinstance(node, cst.SimpleString) and " " in node.value:
            return  # A sentence. Names, keys and formats have no space.
        if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            function = f"{function}.{node.name.value}".lstrip(".")
        is_function = isinstance(node, cst.FunctionDef)
        if is_function or (
            statement and isinstance(node, (cst.BaseCompoundStatement, cst.SimpleStatementLine))
        ):
            part = lines[node.body if is_function else node]
            statement = range(part.start.line, part.end.line + 1)
        if node in spans:
            change(node, function, statement)
        for child in node.children:
            visit(child, function, statement)

    visit(wrapper.module, "", range(0))
    return found


def mutated(mutant: Mutant, place: Place) -> bytes:
    """Return the file with the change; empty if the program stays the same."""
    source = (ROOT / mutant.file).read_bytes()
    changed = source[: place.span.start] + place.text + source[place.span.stop :]
    with contextlib.suppress(SyntaxError):
        if ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)):
            return changed
    return b""


def digest(*contents: bytes | str) -> str:
    """Return a hash of contents."""
    return hashlib.sha256(repr(contents).encode()).hexdigest()[:16]


def digests() -> dict[str, str]:
    """Return a hash of the code with each file of tests, by file, and under '' with all files."""
    folders = ("rave", "diffwave", "scripts", "tests")
    paths = sorted(path for name in folders for path in (ROOT / name).rglob("*") if path.is_file())
    contents = {str(path.relative_to(ROOT)): path.read_bytes() for path in paths}
    tests = {name: content for name, content in contents.items() if "tests/test_" in name}
    others = [name for name in contents if name not in tests and not re.search("pyc|mutants", name)]
    code = digest(*(contents[name] for name in others))
    return {"": digest(code, *tests.values())} | {k: digest(code, v) for k, v in tests.items()}


def used_s() -> float:
    """Return the CPU time of this process and its children, in seconds."""
    return sum(os.times()[:4])


class _Plugin:
    """Plugin of pytest: records results; runs only chosen tests, in order, while there is time."""

    def __init__(self, chosen: list[str]) -> None:
        self.rank = {name: place for place, name in enumerate(chosen)}
        self.seconds, self.failed = defaultdict[str, float](float), list[str]()
        self.now_s, self.until_s = 0.0, float("inf")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.rank:
            kept = (item for item in items if item.nodeid in self.rank)
            items[:] = sorted(kept, key=lambda item: self.rank[item.nodeid])
            self.until_s = used_s() + BUDGET_S
        self.now_s = used_s()

    def pytest_runtest_protocol(self) -> bool | None:
        return used_s() > self.until_s or None  # True: it is done

    def pytest_runtest_logreport(self, report: Any) -> None:
        before_s, self.now_s = self.now_s, used_s()
        self.seconds[report.nodeid] += self.now_s - before_s
        self.failed += [report.nodeid] * report.failed


class Job(NamedTuple):
    """Tests to run: with a mutant, chosen ones until one fails; without, all, to measure lines."""

    today: dict[str, str]
    files: list[str]  # of tests
    chosen: list[str] = []  # noqa: RUF012
    mutant: Mutant = Mutant("", "", "")
    changed: bytes = b""

    @property
    def path(self) -> Path:
        """File of its result."""
        return STATE / f"{digest(*(self.mutant if self.changed else self.files))}.json"

    def known(self) -> dict[str, Any] | None:
        """Return its result, if code and tests have not changed since."""
        found = json.loads(self.path.read_text()) if self.path.exists() else {}
        return found if found and self.today.get(found["of"]) == found["digest"] else None

    def write(self, **found: Any) -> None:
        """Write its result with a hash of its tests and code."""
        of = "".join(found["failed"][:1]).partition("::")[0] if self.changed else self.files[0]
        written = self.path.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps({**found, "of": of, "digest": self.today[of]}))
        written.replace(self.path)

    def run(self, tree: Path) -> None:
        """Run the tests as a process started in a tree would. Never returns."""
        import coverage
        import pytest

        try:
            os.setsid()
            os.dup2(os.open(f"{tree}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(1, 2)
            bounds = {resource.RLIMIT_DATA: MOST_BYTES, resource.RLIMIT_FSIZE: MOST_BYTES}
            if self.changed:
                bounds[resource.RLIMIT_CPU] = MOST_S
            for bound, most in bounds.items():
                resource.setrlimit(bound, (most, most))
            os.chdir(tree)
            os.environ["PYTHONPATH"] = sys.path[0] = str(tree)
            sys.argv[:] = ["pytest"]
            names = [f"{tree}/{folder}/*" for folder in ("rave", "diffwave", "scripts")]
            measured = coverage.Coverage(data_file=None, include=names, config_file=False)
            measured.set_option("run:dynamic_context", "test_function")
            plugin = _Plugin(self.chosen)
            options = ["--assert=plain", "-o", f"cache_dir={STATE}", f"--basetemp={tree}.tmp"]
            with contextlib.nullcontext() if self.changed else measured.collect():
                code = pytest.main(
                    [*options, *["-x"] * bool(self.changed), *self.files], plugins=[plugin]
                )
            data = measured.get_data()
            lines = {
                os.path.relpath(file, tree): {
                    line: sorted({context.rpartition(".")[2] for context in contexts})
                    for line, contexts in data.contexts_by_lineno(file).items()
                }
                for file in data.measured_files()
            }
            self.write(code=int(code), failed=plugin.failed, seconds=plugin.seconds, lines=lines)
        finally:
            os._exit(0)


def work(tree: Path, jobs: list[Job], until: float) -> None:
    """Run one job after the other in a copy of the tree, as long as the parent lives."""
    parent = os.getppid()
    for job in jobs:
        if (started := time.monotonic()) > until or os.getppid() != parent:
            return
        file = job.mutant.file
        if job.changed:
            (tree / file).write_bytes(job.changed)
            for compiled in (tree / file).parent.glob(f"__pycache__/{Path(file).stem}.*"):
                compiled.unlink()  # none is made again
        job.path.unlink(missing_ok=True)
        process = PROCESSES.Process(target=job.run, args=(tree,))
        process.start()
        try:
            process.join(LIMIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)  # it, or what its tests left running
        process.join()
        if not job.path.exists():
            job.write(code=-1, failed=[], seconds={}, lines={})
        if job.changed:
            shutil.copy2(ROOT / file, tree / file)
        found = job.known() or {}
        outcome = f"{file or job.files[0]}: exit code {found['code']} {' '.join(found['failed'])}"
        print(f"{time.monotonic() - started:.1f} s, {outcome}", file=sys.stderr, flush=True)


def copied(tree: Path) -> Path:
    """Return a compiled copy of the tree."""
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    compileall.compile_dir(tree, quiet=1)
    return tree


def run_jobs(jobs: list[Job], trees: list[Path], until: float) -> None:
    """Run the jobs without a result, with one process per tree."""
    todo = [job for job in jobs if not job.known()]
    parts = [(tree, todo[number :: len(trees)], until) for number, tree in enumerate(trees)]
    workers = [PROCESSES.Process(target=work, args=part) for part in parts]
    for step in (PROCESSES.Process.start, PROCESSES.Process.join):
        for worker in workers:
            step(worker)


@cache
def naming(file: str) -> set[str]:
    """Return the files of tests that name a module."""
    module = file.removesuffix(".py").replace("/", ".").removeprefix("scripts.")
    found = (path for path in ROOT.glob("tests/test_*.py") if module in path.read_text())
    return {str(path.relative_to(ROOT)) for path in found}


def choose(measured: list[dict[str, Any]], mutant: Mutant, place: Place) -> list[str]:
    """Return the tests that run a mutant, then those whose fixtures do; fast files first.

    If there are none, it may run in TorchScript or in other processes: then the tests that run
    anything of its module, or are in files that name it.
    """
    parts = []
    named, nearby = naming(mutant.file), list[tuple[float, str]]()
    for found in measured:
        lines = found["lines"].get(mutant.file, {})
        numbers = map(str, place.statement) if place.statement else lines
        functions = {name for number in numbers for name in lines.get(number, ())}
        elsewhere = {name for names in lines.values() for name in names}
        ways: tuple[list[tuple[float, str]], ...] = [], []
        for test, seconds in found["seconds"].items():
            if test in found["failed"] or seconds >= BUDGET_S / 2:
                continue
            function = re.sub(r"\[.*|.*::", "", test)
            is_direct = function in functions
            if is_direct or (place.statement and "" in functions):  # '': of a fixture
                ways[not is_direct].append((seconds, test))
            elif function in elsewhere or test.partition("::")[0] in named:
                nearby.append((seconds, test))
        parts += [(way, sum(s for s, _ in tests), sorted(tests)) for way, tests in enumerate(ways)]
    chosen = [each for *_, tests in sorted(parts) for each in tests] or sorted(nearby)
    return [test for _, test in chosen]


def main() -> int:
    """Draw, run and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE", help="files to change, under the root")
    parser.add_argument("--sample", type=int, default=200, help="mutants (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=60, help="at most (default: %(default)s)")
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    os.environ.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    for name in LOADED_ONCE:
        importlib.import_module(name)
    STATE.mkdir(parents=True, exist_ok=True)
    places = {mutant: place for file in args.files for mutant, place in mutants_of(file).items()}
    order = sorted(places, key=lambda mutant: digest(str(args.seed), *mutant))
    programs = ((mutant, mutated(mutant, places[mutant])) for mutant in order)
    sample = dict(itertools.islice((item for item in programs if item[1]), args.sample))
    entries = json.loads(JUDGED.read_text())
    judged = {Mutant(entry["file"], entry["function"], entry["diff"]) for entry in entries}

    today = digests()
    of_tests = [Job(today, [name]) for name in today if name]
    jobs = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:  # no .git above it
        root = Path(folder).resolve()
        trees = [copied(root / str(number)) for number in range(args.processes)]
        run_jobs(of_tests, trees, until)
        measured = [found for job in of_tests if (found := job.known())]
        for mutant in (mutant for mutant in sample if mutant not in judged):
            chosen = choose(measured, mutant, places[mutant])
            files = sorted({test.partition("::")[0] for test in chosen}) or ["scripts"]  # no tests
            jobs.append(Job(today, files, chosen, mutant, sample[mutant]))
        run_jobs(jobs, trees, until)

    codes = {job.mutant: found["code"] for job in jobs if (found := job.known())}
    survivors = [mutant for mutant, code in codes.items() if code in (0, 5)]  # 5: no tests
    for mutant in survivors:
        where = f"{mutant.file}:{places[mutant].line} {mutant.function}"
        print(where, *mutant.diff.split("\n"), sep="\n  ")
    entries = [{**mutant._asdict(), "reason": ""} for mutant in survivors]
    (STATE / "survivors.json").write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    gone = {mutant for mutant in judged if mutant.file in args.files} - places.keys()
    for mutant in gone:
        print(f"{JUDGED.name}: not in the current code: {mutant}")
    score = 1 - len(survivors) / max(len(codes), 1)
    print(
        f"{len(places)} mutants of {len(args.files)} files; seed {args.seed}: {len(sample)} drawn, "
        f"{len(sample) - len(jobs)} judged, {len(codes)} run, {len(survivors)} survive: {score:.1%}"
    )
    return int(score < BAR or bool(gone) or len(codes) < len(jobs))


if __name__ == "__main__":
    sys.exit(main())
