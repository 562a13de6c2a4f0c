"""The machine's limits: products of matrices in float32 and bfloat16, and memory bandwidth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.comparison import Bench, Comparison, Outcome, Side

ROW = "limits"
PRODUCT, COPY = "product of matrices", "copy"


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    size, mib = bench.size((2048, 512), (256, 8))
    found = []
    for threads in bench.threads:
        sides = [
            Side(
                precision,
                "limits:product",
                {"size": size, "precision": precision},
                precision=precision,
                is_counted=True,
            )
            for precision in ("bfloat16", "float32")
        ]
        flops = 2.0 * size**3
        found.append(Comparison(ROW, PRODUCT, sides, flops, "FLOP", threads))
        copy = [Side("float32", "limits:copy", {"mib": mib})]
        moved = 2.0 * mib * 2**20  # read and written
        found.append(Comparison(ROW, COPY, copy, moved, "byte", threads))
    return found


def limits(outcomes: Sequence[Outcome]) -> Mapping[tuple[str, int], float]:
    """Return the highest FLOP/s that was measured, by precision and threads."""
    return {
        (side.side.precision, outcome.comparison.threads): outcome.comparison.amount
        / min(side.seconds)
        for outcome in outcomes
        if outcome.comparison.row == ROW and outcome.comparison.what == PRODUCT
        for side in outcome.sides
        if side.seconds
    }


def product(size: int, precision: str, device: str) -> Callable[[], None]:
    """Return what multiplies two square matrices."""
    import torch

    kind = getattr(torch, precision)
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        torch.mm(a, b, out=out)

    return run


def copy(mib: int, device: str) -> Callable[[], None]:
    """Return what copies memory."""
    import torch

    source = torch.ones(mib * 2**18, device=device)
    target = torch.empty_like(source)

    def run() -> None:
        target.copy_(source)

    return run
