"""Results of an experiment as JSON: rows for the table and pictures for the page.

OUT/experiments.json     the inputs of the results
OUT/NAME.json            a finished experiment
OUT/runs/KEY.json .pt    a finished training: figures, weights; several experiments may use it
OUT/index.html, table.md the page, and its table for documents
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

# How near to its closed form a loss must come.
TOLERANCE = 0.02


@dataclass
class ResultRow:
    """One line of the table.

    Attributes:
        label: Variant, or measured quantity.
        saw: Observation of the diary, shortened; empty if it has none.
        predicted: Predictions of closed form for the diary's model, by name; the first is compared.
        diary: Measurements on the diary's model, by name.
        ours: Measurements on ours, by name.
        passed: Whether the first of `diary` is within `TOLERANCE` of the first of `predicted`; None
            if there is no prediction.
        note: Difference from the diary, or remark.
    """

    label: str
    saw: str = ""
    predicted: dict[str, Any] = field(default_factory=dict)
    diary: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    passed: bool | None = None
    note: str = ""

    def judge(self) -> ResultRow:
        """Set `passed` by the first prediction and the first figure of the diary's model."""
        predicted, measured = (next(iter(side.values())) for side in (self.predicted, self.diary))
        self.passed = measured is not None and abs(measured - predicted) <= TOLERANCE
        return self


@dataclass
class Picture:
    """A plot: lines with names.

    Attributes:
        title: Title.
        x_label: With unit.
        y_label: With unit.
        lines: Name, x values, y values, and a style: "predicted", "diary", "ours" or "other".
        is_log_y: Whether y has a logarithmic scale.
    """

    title: str
    x_label: str
    y_label: str
    lines: list[tuple[str, list[float], list[float], str]]
    is_log_y: bool = False


def run_key(kind: str, run: Any, identity: dict[str, Any]) -> str:
    """Return the name of a training's files: it follows from all that the training depends on."""
    content = json.dumps([kind, asdict(run), identity], sort_keys=True)
    return f"{kind}-{sha256(content.encode()).hexdigest()[:12]}"


def tidy(content: Any) -> Any:
    """Return JSON-able content: numbers of six digits, None for those that are not finite."""
    if isinstance(content, dict):
        return {str(key): tidy(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [tidy(value) for value in content]
    if isinstance(content, float):
        return float(f"{content:.6g}") if math.isfinite(content) else None
    return content
