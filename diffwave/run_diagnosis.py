"""A whole diagnosis of a run: its network, its conditions, what it generates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from diffwave.failures import Finding


@dataclass(frozen=True)
class RunDiagnosis:
    """What was measured of a run, and what is wrong with it.

    Attributes:
        figures: JSON-able.
        findings: The failures found; none in a healthy run.
    """

    figures: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)

    def words(self) -> str:
        """Return what a person reads: findings first, then short tables."""
        raise NotImplementedError

    def record(self) -> dict[str, Any]:
        """Return findings and figures as JSON-able data."""
        return {"findings": [each.record() for each in self.findings], **self.figures}

    def picture(self, path: Path) -> None:
        """Draw the figures into a .png or .svg file, whole or not at all."""
        raise NotImplementedError


def diagnose_run(
    folder: Path,
    *,
    latents: Path | None = None,
    spectrograms: Path | None = None,
    controls: Path | None = None,
    codec: Path | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> RunDiagnosis:
    """Return the diagnosis of a run.

    Args:
        folder: What diffwave.train wrote, or a run of the patched lmnt diffwave.
        latents: The latents that it was trained on, if they have moved since.
        spectrograms: The same of its spectrograms.
        controls: The same of its controls.
        codec: Decodes generated latents; None leaves out what needs it.
        device: To compute on; None for the CPU.
        seed: Of what is generated.
        progress: Called with a few words when a part of the work begins.

    Raises:
        ValueError: If the folder is no run, or its latents or conditions are not found or are
            not those of the run.
    """
    raise NotImplementedError
