"""Process files on many machines, with Ray.

The machine that runs the command keeps the journal; every worker writes its files itself, into
folders that all machines see under the same paths. Ray repeats work that was lost with a process
or a machine. A file that would keep one worker busy while others idle is divided:

    take1.wav   |——————————— part 0 ——————————|——————————— part 1 ————————…|
                     worker A → .partial-…           worker B → .partial-…
                any worker: join → take1.npy
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rave.files.atomic import PARTIAL_PREFIX, remove_partials
from rave.files.errors import SkipFile
from rave.jobs.loop import DivisibleWork, Outcome, Work, attempt
from rave.jobs.windows import parts

RETRIES = 3  # of tasks whose worker died
QUEUED_PER_SLOT = 2  # tasks queued in Ray per slot, so that no worker waits
PARTS_PER_SLOT = 2  # files larger than the work of half a slot are divided
MIN_PART_WINDOWS = 16  # three minutes of v2; for less, starting costs more than it saves
OBJECT_STORE_BYTES = 100 * 2**20  # audio goes through files; this holds the settings of the work
CONNECT_TIMEOUT_S = 10.0
NOT_IMPORTED = "failed to import on the worker"  # part of Ray's message
AUTO = "auto"


@dataclass
class _Job:
    """One task: a method of the work, and its arguments after name and source."""

    name: str
    method: str = "__call__"
    arguments: tuple[Any, ...] = ()
    index: int = 0  # of a part


@dataclass
class _CutFile:
    """A file that is processed in parts.

    Attributes:
        paths: Output paths of the parts.
        results: Results of the parts that are done.
        num_running: Parts that Ray is running.
        failure: Why the file is skipped.
    """

    paths: list[Path]
    results: dict[int, Any] = field(default_factory=dict)
    num_running: int = 0
    failure: SkipFile | OSError | None = None


class RayEngine:
    """Processes files in the workers of a Ray cluster.

    Args:
        address: Address of the cluster; None: start one on this machine, until the work ends.
        cpus: Cores per worker.
        needs_gpu: Each worker has a GPU of its own.

    Raises:
        ValueError: If Ray is not installed, `cpus` is not positive or nothing answers at `address`.
    """

    def __init__(self, address: str | None, cpus: int, *, needs_gpu: bool = False) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ValueError("Ray is not installed. Run: pip install 'rave-diffwave[ray]'")
        if cpus < 1:
            raise ValueError(f"--cpus-per-worker {cpus} was given; a worker needs 1 or more.")
        if address is not None:
            _check_reachable(address)
        self._address, self._cpus, self._needs_gpu = address, cpus, needs_gpu

    def run(
        self, work: Work, pending: Mapping[str, Path]
    ) -> Generator[tuple[str, Outcome], None, None]:
        """Yield the name of each file as it is done, and its outcome.

        Args:
            work: A dataclass that can be pickled, with the `folder` that it writes into; it may be
                `DivisibleWork`.
            pending: Name and path of each file.

        Raises:
            ValueError: If there is no such cluster, or no machine of it is large enough for a
                worker.
        """
        if not pending:
            return
        job: Any = work
        folder: Path = job.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)  # a worker that misses it shares no folders
        try:
            with _cluster(self._address):
                yield from self._run(replace(job, folder=folder), pending)
        finally:
            remove_partials(folder)

    def _run(
        self, work: Any, pending: Mapping[str, Path]
    ) -> Generator[tuple[str, Outcome], None, None]:
        import ray

        self._check_fits(ray.nodes())
        task = ray.remote(_do).options(
            num_cpus=self._cpus, num_gpus=int(self._needs_gpu), max_retries=RETRIES
        )
        shared = [ray.put(work)]
        sources = {name: source.absolute() for name, source in pending.items()}
        jobs, cut = self._jobs(work, sources)
        running: dict[Any, _Job] = {}
        while jobs or running:
            most = QUEUED_PER_SLOT * self._num_slots()
            while jobs and len(running) < most:
                job = jobs.popleft()
                arguments = (job.name, sources[job.name], *job.arguments)
                running[task.remote(shared, self._cpus, job.method, *arguments)] = job
                if job.method == "do_part":
                    cut[job.name].num_running += 1
            [reference, *_], _ = ray.wait(list(running), num_returns=1)
            job = running.pop(reference)
            outcome = _outcome(reference)
            if job.method == "do_part":
                yield from _part_done(job, outcome, cut[job.name], jobs)
                continue
            if job.method == "join":
                _remove(cut.pop(job.name).paths)
            yield job.name, outcome

    def _jobs(
        self, work: Any, sources: Mapping[str, Path]
    ) -> tuple[deque[_Job], dict[str, _CutFile]]:
        """Return the tasks, the largest file first, and the files that are divided."""
        sizes = {name: _size(source) for name, source in sources.items()}
        share = max(sum(sizes.values()) / (PARTS_PER_SLOT * self._num_slots()), 1)
        jobs: deque[_Job] = deque()
        cut: dict[str, _CutFile] = {}
        for name in sorted(sizes, key=lambda name: -sizes[name]):
            num_parts, num_windows = -int(-sizes[name] // share), 0
            if num_parts > 1 and isinstance(work, DivisibleWork):
                num_windows = work.num_windows(name, sources[name])
            num_parts = min(num_parts, num_windows // MIN_PART_WINDOWS)
            if num_parts < 2:
                jobs.append(_Job(name))
                continue
            stem = PARTIAL_PREFIX + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
            paths = [work.folder / f"{stem}-{index}" for index in range(num_parts)]
            cut[name] = _CutFile(paths)
            for index, part in enumerate(parts(num_windows, num_parts)):
                jobs.append(_Job(name, "do_part", (part, paths[index]), index))
        return jobs, cut

    def _num_slots(self) -> int:
        """Return how many tasks the cluster can currently run at once."""
        import ray

        found = ray.cluster_resources()
        slots = found.get("CPU", 0) / self._cpus
        if self._needs_gpu:
            slots = min(slots, found.get("GPU", 0))
        return max(int(slots), 1)

    def _check_fits(self, nodes: list[dict[str, Any]]) -> None:
        needed = {"CPU": self._cpus, "GPU": int(self._needs_gpu)}
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        if not any(all(r.get(name, 0) >= n for name, n in needed.items()) for r in alive):
            found = ", ".join(f"{r.get('CPU', 0):g} and {r.get('GPU', 0):g}" for r in alive)
            raise ValueError(
                f"A worker needs {self._cpus} CPUs and {needed['GPU']} GPUs; the machines of the "
                f"cluster have {found}. Give another --cpus-per-worker or --device."
            )


def _part_done(
    job: _Job, outcome: Any, file: _CutFile, jobs: deque[_Job]
) -> Iterator[tuple[str, Outcome]]:
    """Record a finished part; after the last one, queue the join or yield the failure."""
    file.num_running -= 1
    if isinstance(outcome, SkipFile | OSError):
        file.failure = file.failure or outcome
        kept = [other for other in jobs if other.name != job.name]
        jobs.clear()
        jobs.extend(kept)
    else:
        file.results[job.index] = outcome
    if file.failure is not None:
        if file.num_running == 0:
            _remove(file.paths)
            yield job.name, file.failure
    elif len(file.results) == len(file.paths):
        results = [file.results[index] for index in range(len(file.paths))]
        jobs.appendleft(_Job(job.name, "join", (file.paths, results)))


def _do(shared: list[Any], cpus: int, method: str, *arguments: Any) -> Any:
    """Run a task, in a worker."""
    return attempt(getattr(_opened(shared[0], cpus), method), *arguments)


@lru_cache(maxsize=1)
def _opened(reference: Any, cpus: int) -> Any:
    """Return the work, unpickled once per worker, so that the codec it opens stays open."""
    import ray

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # torch, not loaded yet, reads both
        os.environ[name] = str(cpus)
    from rave.compute.memory import keep_freed_memory

    keep_freed_memory()
    work = ray.get(reference)
    if not work.folder.is_dir():
        raise ValueError(
            f"'{work.folder}' does not exist on the machine {socket.gethostname()}. All machines "
            "must see the same folders under the same paths."
        )
    return work


def _outcome(reference: Any) -> Any:
    """Return what a task returned.

    Raises:
        Exception: What it raised.
    """
    import ray
    from ray import exceptions

    try:
        return ray.get(reference)
    except exceptions.RayTaskError as error:
        why = str(error.cause).splitlines()[0]
        if isinstance(error.cause, exceptions.RaySystemError) or NOT_IMPORTED in why:
            raise ValueError(
                f"A worker cannot run the task ({why}). Install the same versions of rave-diffwave "
                "and Python on all machines."
            ) from error
        raise error.cause from error
    except (
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
    ) as error:
        is_memory = isinstance(error, exceptions.OutOfMemoryError)
        what = "was killed (out of memory)" if is_memory else "crashed"
        return SkipFile(
            f"its worker process {what}, {RETRIES + 1} times. Check the file, give workers more "
            "memory, or try without --engine ray."
        )


def _size(source: Path) -> int:
    try:
        return source.stat().st_size
    except OSError:
        return 0


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _check_reachable(address: str) -> None:
    """Check that a server answers at the address; Ray itself would retry for ever.

    Raises:
        ValueError: If none does.
    """
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ValueError(
            f"--address {address} was given; auto or HOST:PORT is needed, on a machine of the "
            "cluster."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"{_unreachable(address)} ({error}).") from error


def _unreachable(address: str) -> str:
    return (
        f"No Ray cluster answers at '{address}'. Start one with `ray start --head`; if it has a "
        "token, set RAY_AUTH_MODE=token"
    )


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connect to a cluster while the block runs; without an address, start one."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address is None:  # only this machine reaches its ports, and only with the token
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
        environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # also has an effect on Linux
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(**environment))
        # Ray reports lost machines on stdout, which is for results.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        import ray

        if address is None:
            # The paths of sockets must be short.
            place = "/tmp" if os.name == "posix" else None
            private = tempfile.mkdtemp(prefix="rave-ray-", dir=place)
            stack.callback(shutil.rmtree, private, ignore_errors=True)
        stack.callback(ray.shutdown)
        try:
            if address is None:
                # Ray makes its folder readable for all users; the private one around it is not.
                _start(os.path.join(private, "ray"))
            else:
                _init(address=address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            what = (
                "Ray does not start on this machine" if address is None else _unreachable(address)
            )
            raise ValueError(f"{what} ({str(error).splitlines()[0]}).") from error
        yield


def _start(folder: str) -> None:
    """Start Ray on this machine, with its files in a folder."""
    _init(
        address="local",
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=folder,
        _system_config={"task_oom_retries": RETRIES},
    )


def _init(**options: Any) -> None:
    """Start Ray or connect to it; workers import nothing from the current directory."""
    import ray
    from ray.job_config import JobConfig

    # Ray adds the current directory to the workers' path, except for its remote clients.
    job = JobConfig(_client_job=True)
    ray.init(job_config=job, logging_level="ERROR", log_to_driver=False, **options)


@lru_cache(maxsize=1)
def _token() -> str:
    """Return the token of this process; Ray keeps the first one that it gets."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables while the block runs."""
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
