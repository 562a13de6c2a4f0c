"""Commands in processes of their own that start at once.

To start Python and import torch and Lightning takes a core five seconds. Here one process has
imported them for all tests of a worker of pytest, and each command is a fork of it.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

IMPORTED = [
    *(
        "rave.main_cli",
        "rave.trainer",
        "rave.training",
        "rave.evaluation.audio_statistics",
        "rave.dataset",
    ),
    *(
        "rave.audio.io",
        "rave.latent_dataset",
        "rave.latents.shard_writer",
        "rave.compute.numba_safe",
        "rave.export.torchscript",
    ),
    *("diffwave.train", "diffwave.training", "diffwave.api.diagnose", "diffwave.sampling.samplers"),
    *(
        "diffwave.api.inference",
        "diffwave.upstream.run",
        "diffwave.sampling.editing",
        "diffwave.diagnosis.failures",
    ),
    *("torch.utils.tensorboard", "PIL.ImageOps"),
]
_FIRST_HANDLERS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


def context() -> multiprocessing.context.ForkServerContext:
    """Return what starts processes as forks of the one that has imported everything."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(IMPORTED)
    return found


def _run(
    module: str,
    words: list[str],
    outputs: list[Connection],
    folder: str | None,
    environment: Mapping[str, str],
    before: Callable[[], None] | None,
) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the system's own, as in any other process
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    for handle, output in enumerate(outputs, start=1):
        os.dup2(output.fileno(), handle)
        output.close()
    # Those of the server may be files, in which a stream has its place.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if before is not None:
        before()
    _be(module, words)


def _be(module: str, words: list[str]) -> None:
    sys.argv = [module, *words]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_module(module, run_name="__main__", alter_sys=True)


class Fork:
    """`python -m MODULE WORD …` in a process of its own; has what tests need of a Popen.

    Args:
        module: Its name.
        words: Its arguments.
        folder: The working directory.
        environment: What is set there beside what is set at the first fork.
        before: Is called in the process first.
    """

    def __init__(
        self,
        module: str,
        *words: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ):
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
        where = None if folder is None else str(folder)
        outputs = [output for _, output in pipes]
        self._process = context().Process(
            target=_run,
            args=(module, [str(w) for w in words], outputs, where, environment or {}, before),
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._said = ["", ""]
        self._readers = []
        for number, (told, output) in enumerate(pipes):
            output.close()
            reader = threading.Thread(target=self._read, args=(number, told), daemon=True)
            reader.start()
            self._readers.append(reader)

    def _read(self, number: int, told: Connection) -> None:
        with told, open(told.fileno(), errors="replace", closefd=False) as file:
            self._said[number] = file.read()

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.exitcode

    def finish(self, timeout_s: float | None = 300) -> tuple[int | None, str, str]:
        """Wait for the end, and return exit code, stdout and stderr; kills what takes longer."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.join()
        for reader in self._readers:
            reader.join(timeout_s)
        return self._process.exitcode, *self._said


class _Copy:
    """What Lightning starts for each process but the first, and torchrun for each: here, forks."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: str | None = None):
        python, *options = command[: command.index("-m")]
        module, *words = command[command.index("-m") + 1 :]
        assert python == sys.executable
        assert options == ["-u"] or (options, words) == (
            [],
            sys.argv[1:],
        )  # torchrun's, Lightning's
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            if options:
                os.setsid()
                for number, handler in _FIRST_HANDLERS.items():
                    signal.signal(number, handler)
            os.environ.clear()
            os.environ.update(env)
            code: object = 1
            try:
                _be(module, words)
            except SystemExit as ended:
                code = ended.code
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else bool(code))

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def fork_the_others() -> None:
    """Let Lightning fork the other processes of a training, where it would start them."""
    from pytorch_lightning.strategies.launchers import subprocess_script

    subprocess_script.subprocess = SimpleNamespace(Popen=_Copy)


def fork_all() -> None:
    """Let torchrun fork the processes of a training, where it would start them."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    subprocess_handler.SubprocessHandler._popen = lambda self, args, env: _Copy(args, env)
