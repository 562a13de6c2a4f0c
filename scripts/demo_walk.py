"""Run a demo: commands as typed in the demo's folder, each with an entry in a journal."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rave.cli import EXIT_INTERRUPTED
from rave.files.atomic import read_json, write_json
from rave.parsing import EXIT_ERROR, escaping

# Keys of the demo, and its commands with titles, times and outputs.
JOURNAL = "demo.json"
REPORT = "report.html"
INTERRUPT_GRACE_S = 60


@dataclass(frozen=True)
class Stage:
    """A title, and a command as typed in the demo's folder."""

    title: str
    command: str


def run_command(command: str, folder: Path) -> tuple[int, str]:
    """Run a command in `folder` and return its exit code and its standard output.

    Ctrl-C reaches the command too, which saves what it has; this waits for it.

    Raises:
        KeyboardInterrupt: After the command has ended.
    """
    program, *arguments = shlex.split(command)
    prefix = {"rave": [sys.executable, "-m", "rave.main_cli"], "python": [sys.executable]}
    repository = str(Path(__file__).resolve().parents[1])
    python_path = os.pathsep.join(filter(None, [repository, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [*prefix[program], *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:
        process.wait(INTERRUPT_GRACE_S)
        raise
    return process.returncode, output


def walk_stages(stages: Sequence[Stage], out: Path, journal: dict[str, Any]) -> None:
    """Run every stage in `out`, and write the journal after each.

    Args:
        stages: The stages, in order.
        out: Folder of the demo.
        journal: Other keys of the journal.

    Raises:
        ValueError: If a command fails; its own message is on stderr already.
    """
    path = out / JOURNAL
    known = read_json(path, "a demo folder")["commands"] if path.exists() else []
    entries = {entry["command"]: entry for entry in known}
    for stage in stages:
        print(f"\n{stage.title}\n$ {stage.command}", flush=True)
        started = time.monotonic()
        code, output = run_command(stage.command, out)
        seconds = time.monotonic() - started
        print(f"{output.rstrip()}\n({seconds:.0f} s)", flush=True)
        seconds += entries.get(stage.command, {"seconds": 0.0})["seconds"]
        entries[stage.command] = {
            "title": stage.title,
            "command": stage.command,
            "seconds": round(seconds, 1),
            "output": output,
        }
        write_json(path, {**journal, "commands": list(entries.values())})
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            raise ValueError(
                f"'{stage.command}' ended with exit code {code} (see its message above). "
                "Fix that and run the demo again: it continues from there."
            )


@escaping()
def run_demo(program: str, walk: Callable[[], Path]) -> int:
    """Run a demo, print the report's path and the time, and return the exit code.

    Args:
        program: Name for messages.
        walk: Runs all stages, and returns the report.
    """
    started = time.monotonic()
    try:
        report = walk()
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command continues.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    print(f"Done in {time.monotonic() - started:.0f} s.\nListen and look: {report.resolve()}")
    return 0
