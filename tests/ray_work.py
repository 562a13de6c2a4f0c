"""Work for Ray's workers that meets trouble on request: files beside the output folder ask for it.

`hold-KEY`: whoever works on KEY, a name or the id of a node, waits until the file is gone.
`die-KEY`: the process that works on it is killed; `die-once-KEY`: the first one is.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import ray

from rave.api.encode import Encoding
from rave.api.preprocess import Preparing
from rave.files.errors import SkipFile


def wait_for(condition, timeout_s=180):
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def meet_trouble(folder: Path, name: str) -> None:
    """Tell that a name is worked on, and where; then do what is asked for."""
    marks, node = folder.parent / "marks", ray.get_runtime_context().get_node_id()
    for key in (node, name.replace("/", " ")):
        (marks / f"began-{key}").touch()
        while (marks / f"hold-{key}").exists():
            time.sleep(0.02)
        once = marks / f"die-once-{key}"
        if once.exists() or (marks / f"die-{key}").exists():
            once.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)


class TroubledEncoding(Encoding):
    def __call__(self, name, source):
        meet_trouble(self.folder, name)
        return super().__call__(name, source)

    def do_part(self, name, source, part, path):
        meet_trouble(self.folder, name)
        return super().do_part(name, source, part, path)


class TroubledPreparing(Preparing):
    def __call__(self, name, source):
        meet_trouble(self.folder, name)
        return super().__call__(name, source)


@dataclass(frozen=True)
class Copying:
    """Copies words, and tells of the process that does."""

    folder: Path

    def __call__(self, name, source):
        meet_trouble(self.folder, name)
        words = source.read_text()
        if words == "bad":
            raise SkipFile("it is bad")
        if words == "wrong":
            raise KeyError(name)
        (self.folder / name).write_text(words)
        told = {"pid": os.getpid()}
        if words == "threads":  # torch takes long to import
            import torch

            told["threads"] = torch.get_num_threads()
        return told
