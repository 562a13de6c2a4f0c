"""Exports as ONNX, several in one process: `python -m onnx_exports FOLDER`.

What a run `FOLDER/<name>/run` is as ONNX goes to `FOLDER/<name>/out`.
"""

import sys
from pathlib import Path

from rave.main_cli import main

if __name__ == "__main__":
    for run in sorted(Path(sys.argv[1]).glob("*/run")):
        command = ["export", str(run), str(run.parent / "out"), "--format", "onnx"]
        if code := main(command):
            sys.exit(code)
