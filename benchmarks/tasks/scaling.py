"""`rave encode` on Ray beside the plain command: what Ray costs, and what more workers give."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.comparison import Bench, Comparison, Side
from benchmarks.machine import cores
from benchmarks.tasks.commands import PYTHON, commands

ROW = "scaling"
LENGTH_S = 20.0


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure.

    Raises:
        ValueError: If Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed. Run: pip install 'rave-diffwave[ray]'")
    count = bench.size(100, 3)
    source = inputs.recordings(bench, count, LENGTH_S, LENGTH_S)
    all_cores = cores()
    shapes = {"Ray, 1 worker of 1 core": (1, 1), f"Ray, 1 worker of {all_cores}": (all_cores,) * 2}
    shapes[f"Ray, {all_cores} workers of 1"] = (all_cores, 1)
    out = str(bench.work / "scaling-latents")
    step = [PYTHON, "-m", "rave.main_cli", "encode", str(inputs.codec(bench)), str(source), out]
    step += ["--device", bench.device]
    sides = [
        Side(name, "scaling:encode", {"step": step, "out": out, "num_cpus": n, "cpus": of_worker})
        for name, (n, of_worker) in shapes.items()
    ]
    started = {"step": [*step, "--engine", "ray"], "out": out}
    sides.append(Side("the same, Ray started for it", "scaling:encode", started))
    sides.append(Side("local", "scaling:encode", {"step": step, "out": out}))
    duration_s = inputs.seconds_in(source)
    what = f"{count} files, {duration_s / 60:.1f} min"
    return [
        Comparison(
            ROW, what, sides, duration_s, "s of audio", all_cores, max_rounds=3, has_warm_up=False
        )
    ]


def encode(
    step: list[str], out: str, device: str, num_cpus: int = 0, cpus: int = 0
) -> Callable[[], dict[str, Any]]:
    """Return what runs the command and tells the seconds between its first file and its last.

    Args:
        step: The command.
        out: Folder that it writes.
        device: Is said in the command.
        num_cpus: Of a cluster that is started before; 0: none.
        cpus: Of a worker of it.
    """
    if num_cpus:
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": num_cpus})
        step = [*step, "--engine", "ray", "--address", cluster.address]
        step += ["--cpus-per-worker", str(cpus)]
    run = commands([step], [out], device)

    def work() -> dict[str, Any]:
        found = run()
        times = [path.stat().st_mtime for path in Path(out).rglob("*.npy")]
        return found | {"steady_s": max(times) - min(times)}

    return work
