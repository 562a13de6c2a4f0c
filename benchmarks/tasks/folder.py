"""A folder of files of mixed length to their reconstructions: whole commands, I/O included."""

from __future__ import annotations

from pathlib import Path

from benchmarks import inputs
from benchmarks.comparison import Bench, Comparison, Side
from benchmarks.tasks.commands import PYTHON

ROW = "folder"
UPSTREAM = "acids-rave, file by file"


# Run where acids-rave is installed, and away from this project's own `rave`.
LOOP = (
    f"import sys; sys.path.append({str(Path(__file__).parents[1])!r}); "
    "from worker import name_package; name_package(); "
    "from benchmarks.tasks.folder import loop; loop(*sys.argv[1:])"
)


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    count, longest_s = bench.size((1000, inputs.LONGEST_S), (3, 1.0))
    folder = inputs.recordings(bench, count, inputs.SHORTEST_S, longest_s)
    duration_s = inputs.seconds_in(folder)
    what, codec = f"{count} files, {duration_s / 60:.1f} min", str(inputs.codec(bench))
    out = str(bench.work / "reconstructions")
    sides = []
    for precision in ("bfloat16", "float32"):
        step = [PYTHON, "-m", "rave.main_cli", "generate", codec, str(folder), out]
        step += ["--device", bench.device, "--precision", precision]
        given = {"steps": [step], "outputs": [out]}
        sides.append(Side(f"ours, {precision}", "commands:commands", given, precision=precision))
    if bench.upstream is not None:
        run = str(inputs.acids_run(bench))
        step = [PYTHON, "-I", "-c", LOOP, run, str(folder), out, bench.device]
        given = {"steps": [step], "outputs": [out]}
        sides.append(Side(UPSTREAM, "commands:commands", given, is_upstream=True))
    return [
        Comparison(
            ROW, what, sides, duration_s, "s of audio", threads, max_rounds=3, has_warm_up=False
        )
        for threads in bench.threads
    ]


def loop(run: str, source: str, out: str, device: str) -> None:
    """Do what acids-rave's `rave generate` does, which cannot read a file since torchaudio 2.9."""
    import soundfile
    import torch

    from benchmarks.tasks.theirs import open_run

    model = open_run(Path(run), device)
    Path(out).mkdir(parents=True)
    for path in sorted(Path(source).iterdir()):
        audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        with torch.no_grad():
            made = model(torch.from_numpy(audio.T.copy())[None].to(device))
        soundfile.write(Path(out) / path.name, made[0].cpu().numpy().T, rate_hz)
