"""What a command or a function of the API reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any


@dataclass
class Result:
    """What a command reports.

    Attributes:
        summary: What a person reads, on stdout.
        figures: The same as data, printed instead when `--json` is given.
        num_skipped: Files that could not be used.
        written: Each audio file written now or earlier: `rave.audio.blocks.Quantizer.figures`.
        warnings: What looks wrong with a file; printed on stderr, and part of the figures.
    """

    summary: str
    figures: dict[str, Any] = field(default_factory=dict)
    num_skipped: int = 0
    written: InitVar[Mapping[str, Mapping[str, Any]] | None] = None
    warnings: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self, written: Mapping[str, Mapping[str, Any]] | None) -> None:
        """Add what became of the level of audio, and the warnings."""
        written = written or {}
        limited = {name: n for name, of in written.items() if (n := of["num_limited_samples"])}
        if written:
            self.figures["peak"] = {name: of["peak"] for name, of in written.items()}
            self.figures["num_limited_samples"] = limited
        for name, count in limited.items():
            peak = written[name]["peak"]
            text = f"{count} samples beyond full scale were limited (peak {peak:.3g}). "
            text += "If that is audible, lower the level of the recording."
            self.warnings = {**self.warnings, name: [*self.warnings.get(name, []), text]}
        if written or self.warnings:
            self.figures["warnings"] = self.warnings
