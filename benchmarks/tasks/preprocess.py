"""`rave preprocess`, ours and theirs: recordings to audio that can be trained on."""

from __future__ import annotations

from benchmarks import inputs
from benchmarks.comparison import Bench, Comparison, Side
from benchmarks.tasks.commands import PYTHON

ROW = "preprocess"
# What acids-rave drops of a file is more than this: files are long enough not to be dropped whole.
LENGTH_S = 30.0


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    count = bench.size(40, 2)
    source = inputs.recordings(bench, count, LENGTH_S, LENGTH_S)
    duration_s = inputs.seconds_in(source)
    out = str(bench.work / "preprocessed")
    step = [PYTHON, "-m", "rave.main_cli", "preprocess", str(source), out]
    step += ["--sample-rate", str(inputs.RATE_HZ)]
    sides = [Side("ours", "commands:commands", {"steps": [step], "outputs": [out]})]
    if bench.upstream is not None:
        command = str(bench.upstream.with_name("rave"))
        step = [PYTHON, command, "preprocess", "--input_path", str(source), "--output_path", out]
        step += ["--channels", "1", "--sampling_rate", str(inputs.RATE_HZ)]
        given = {"steps": [step], "outputs": [out], "needs": ["ffmpeg"]}
        sides.append(Side("acids-rave", "commands:commands", given, is_upstream=True))
    what = f"{count} files, {duration_s / 60:.1f} min"
    return [
        Comparison(ROW, what, sides, duration_s, "s of audio", threads, has_warm_up=False)
        for threads in bench.threads
    ]
