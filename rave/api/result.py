"""The result of a command or of an API function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any


@dataclass
class Result:
    """The result of a command.

    Attributes:
        summary: Text for a person, printed on stdout.
        figures: The same as data; `--json` prints it instead.
        num_skipped: Number of files that could not be used.
        written: Levels of each audio file written now or earlier, from
            `rave.audio.blocks.Quantizer.figures`.
        warnings: Warnings about each file; printed on stderr, and part of the figures.
    """

    summary: str
    figures: dict[str, Any] = field(default_factory=dict)
    num_skipped: int = 0
    written: InitVar[Mapping[str, Mapping[str, Any]] | None] = None
    warnings: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self, written: Mapping[str, Mapping[str, Any]] | None) -> None:
        """Add peaks, limited samples and warnings to the figures."""
        written = written or {}
        counts = {name: levels["num_limited_samples"] for name, levels in written.items()}
        limited = {name: count for name, count in counts.items() if count}
        if written:
            self.figures["peak"] = {name: levels["peak"] for name, levels in written.items()}
            self.figures["num_limited_samples"] = limited
        for name, count in limited.items():
            peak = written[name]["peak"]
            text = f"{count} samples beyond full scale were limited (peak {peak:.3g}). "
            text += "If that is audible, lower the level of the recording."
            self.warnings = {**self.warnings, name: [*self.warnings.get(name, []), text]}
        if written or self.warnings:
            self.figures["warnings"] = self.warnings
