"""Whole commands: start, work and end, with the peak memory of the largest process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PYTHON = "{python}"


def commands(
    steps: list[list[str]],
    outputs: list[str],
    device: str,
    answer: str = "",
    needs: tuple[str, ...] = (),
) -> Callable[[], dict[str, Any]]:
    """Return what runs some commands one after the other.

    Args:
        steps: Each begins with `PYTHON`, this side's own.
        outputs: Removed before, so that nothing is there already.
        device: Where a command is to compute is said in it.
        answer: To what they ask.
        needs: Programs that they call, and without which they would wait for ever.

    Raises:
        RuntimeError: If one of these is not installed.
    """
    for program in needs:
        if shutil.which(program) is None:
            raise RuntimeError(f"'{program}', which this needs, is not installed.")
    commands = [[sys.executable if word == PYTHON else word for word in step] for step in steps]

    def run() -> dict[str, Any]:
        for path in map(Path, outputs):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
        start = time.perf_counter()
        peaks = [_peak_mib(step, answer) for step in commands]
        return {"seconds": time.perf_counter() - start, "peak_mib": max(peaks)}

    return run


def _peak_mib(command: list[str], answer: str) -> float:
    """Run a command and return its largest memory.

    Raises:
        RuntimeError: If it fails.
    """
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(answer)
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"'{' '.join(command[1:4])} …' ended with code {process.returncode}.")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
