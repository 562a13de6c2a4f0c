"""One side of a comparison, in its own environment: prepares a task, then runs it when asked.

Requests and answers are lines of JSON on stdin and stdout; what the task prints goes to stderr.
Imports the standard library, and whatever the task imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 2**20


class Worker:
    """Holds what was prepared."""

    def __init__(self) -> None:
        self.work: Callable[[], Any] = lambda: None
        self.device = "cpu"

    def prepare(self, function: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Call `module:function` of `benchmarks.tasks`; it returns the work, or work and facts."""
        module, _, name = function.partition(":")
        self.device = parameters.get("device", "cpu")
        made = getattr(importlib.import_module(f"benchmarks.tasks.{module}"), name)(**parameters)
        self.work, facts = made if isinstance(made, tuple) else (made, {})
        return {"facts": facts}

    def run(
        self, output: str | None = None, is_counted: bool = False, hands_back: bool = False
    ) -> dict[str, Any]:
        """Run the work once; return its seconds, peak memory and what it says itself.

        Args:
            output: Write the array that the work returns there.
            is_counted: Count FLOPs, those that torch sees.
            hands_back: Leave freed memory to the others afterwards.
        """
        flops = 0
        with contextlib.ExitStack() as stack:
            counter = None
            if is_counted:
                from torch.utils.flop_counter import FlopCounterMode

                counter = stack.enter_context(FlopCounterMode(display=False))
            self._synchronise()
            start = time.perf_counter()
            result = self.work()
            self._synchronise()
            seconds = time.perf_counter() - start
            if counter is not None:
                flops = counter.get_total_flops()
        if hands_back and sys.platform == "linux":
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
        answer = {"seconds": seconds, "peak_mib": self._peak_mib(), "flops": flops}
        if isinstance(result, dict):  # what the work measured itself
            return answer | result
        if output is not None:
            import numpy as np

            np.save(output, result)
        return answer

    def _synchronise(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()

    def _peak_mib(self) -> float:
        if self.device != "cpu":
            import torch

            return torch.cuda.max_memory_allocated() / MIB
        return peak_mib()


def peak_mib() -> float:
    """Return the largest memory that this process has held; not that of the one that began it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # bytes on macOS


def name_package() -> None:
    """Make `benchmarks` importable without the folder that holds it, where `rave` lies too."""
    folder = Path(__file__).resolve().parent
    if "benchmarks" in sys.modules:
        return
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        "benchmarks", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)


def main() -> None:
    """Answer requests until there are no more."""
    name_package()
    if sys.argv[1:] == ["--ours"]:
        from rave.compute.memory import keep_freed_memory

        keep_freed_memory()  # as our commands do
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # whatever a side raises is reported, and the others go on
            traceback.print_exc()
            reason = (str(error).strip().splitlines() or ["no message"])[0]
            answer = {"error": f"{type(error).__name__}: {reason}"}
        channel.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
