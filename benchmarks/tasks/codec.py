"""Encode and decode in memory: v2 of default sizes, mono, 44.1 kHz, the same weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.comparison import Bench, Comparison, Side

ROW = "codec"
UPSTREAM = "acids-rave"
SYNTHESIS_LAG = 16  # samples that its filter bank is late, one band's step
PRECISIONS = ("bfloat16", "float32")
Work = Callable[[], Any]


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    duration_s = bench.size(60.0, 1.5)
    num_frames = round(duration_s * inputs.RATE_HZ / inputs.V2_HOP)
    audio = inputs.array(bench, "audio", inputs.music(num_frames * inputs.V2_HOP / inputs.RATE_HZ))
    given = {"encode": str(audio), "decode": str(inputs.latents(bench, num_frames))}
    return [
        Comparison(
            ROW,
            f"{what} {duration_s:g} s",
            sides(bench, what, given[what]),
            duration_s,
            "s of audio",
            threads,
            compare=compare,
        )
        for threads in bench.threads
        for what in given
    ]


def sides(bench: Bench, what: str, given: str) -> list[Side]:
    """Return ours in each backend and precision, and theirs."""
    codec = str(inputs.codec(bench))
    found = []
    for backend, precision in choices(bench):
        choice = {"backend": backend, "precision": precision}
        parameters = {"what": what, "codec": codec, "given": given, **choice}
        is_torch = backend == "torch"
        name = f"ours, {backend}, {precision}"
        found.append(Side(name, "codec:ours", parameters, precision=precision, is_counted=is_torch))
    if bench.upstream is not None:
        parameters = {"what": what, "run": str(inputs.acids_run(bench)), "given": given}
        found.append(Side(UPSTREAM, "codec:theirs", parameters, is_upstream=True, is_counted=True))
    return found


def choices(bench: Bench) -> list[tuple[str, str]]:
    """Return each backend that there is here with each precision."""
    has_openvino = bench.device == "cpu" and importlib.util.find_spec("openvino") is not None
    backends = ("openvino", "torch") if has_openvino else ("torch",)
    return [(backend, precision) for backend in backends for precision in PRECISIONS]


def ours(what: str, codec: str, given: str, backend: str, precision: str, device: str) -> Work:
    """Return what encodes or decodes an array."""
    import numpy as np
    import torch

    from rave.codec import load_codec
    from rave.noise import DecoderNoise

    opened = load_codec(Path(codec), torch.device(device), backend=backend, precision=precision)
    values = np.load(given)
    if what == "encode":
        return lambda: opened.encode(values)[0]
    noise = DecoderNoise(opened.format, 0, as_encoded=True)
    return lambda: opened.decode(values, noise)


def theirs(what: str, run: str, given: str, device: str) -> Work:
    """Return what does the same with acids-rave, in one piece, as its commands do."""
    import numpy as np
    import torch

    from benchmarks.tasks.theirs import open_run

    model, values = open_run(Path(run), device), np.load(given)

    @torch.no_grad()
    def work() -> Any:
        batch = torch.from_numpy(values)[None].to(device)
        if what == "decode":
            return model.decode(batch)[0].cpu().numpy()[:, SYNTHESIS_LAG:]
        rows = model.encode(batch)[0]
        return rows[: len(rows) // 2].cpu().numpy()  # means, then scales

    return work


def compare(outputs: Mapping[str, Path]) -> dict[str, float]:
    """Return how each output differs from the last one, which is theirs if it is there.

    The largest difference relative to the largest value; of audio in bfloat16 also the log-spectral
    distance to the same backend's in float32.
    """
    import numpy as np
    import torch

    from rave.losses import log_spectral_distance_db

    arrays = {name: np.load(path) for name, path in outputs.items()}
    if not arrays:
        return {}
    shortest = min(values.shape[1] for values in arrays.values())
    arrays = {name: values[:, :shortest] for name, values in arrays.items()}
    *_, last = arrays
    found = {}
    for name, values in arrays.items():
        if name != last:
            largest = np.abs(arrays[last]).max()
            found[f"{name} to {last}"] = float(np.abs(values - arrays[last]).max() / largest)
        exact = arrays.get(name.replace("bfloat16", "float32"))
        if "bfloat16" in name and exact is not None and len(exact) == 1:
            pair = (torch.from_numpy(each)[None] for each in (exact, values))
            found[f"{name} to float32, dB"] = float(log_spectral_distance_db(*pair))
    return found
