"""The known ways in which a diffusion model over latents fails, by name.

Each has a section in docs/diagnosis.md. The measurements and thresholds that detect them are in
diffwave.diagnosis.latents, diffwave.diagnosis.network, diffwave.diagnosis.conditioner,
diffwave.diagnosis.samples, diffwave.diagnosis.phase and diffwave.diagnosis.notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

WHITE_LATENTS = "white-latents"
BROADCAST_OUTPUT = "broadcast-output"
RESIDUAL_READOUT = "residual-readout"
FOREIGN_SCHEDULE = "foreign-schedule"
IGNORED_CONDITIONER = "ignored-conditioner"
CLAMPED_SAMPLER = "clamped-sampler"
EXPLODING_NORM = "exploding-norm"
LEVEL_LOST = "level-lost"
SILENT_DECODE = "silent-decode"
MEMORISED = "memorised"
PHASE_IN_LATENTS = "phase-in-latents"
NOTES_LOST = "notes-lost"
# What the user should do about each.
REMEDIES = {
    WHITE_LATENTS: "Encode the posterior mean, not samples; train the codec longer; lower FIDELITY",
    BROADCAST_OUTPUT: "Give the network as many output channels as it has input channels",
    RESIDUAL_READOUT: "Read the output from the sum of the skips, not from the residual stream",
    FOREIGN_SCHEDULE: "Sample with the schedule of the training",
    IGNORED_CONDITIONER: "Check that conditions belong to their clips; train longer, with dropout",
    CLAMPED_SAMPLER: "Sample without clamping: latents have no range",
    EXPLODING_NORM: "Train longer, sample with the schedule of the training, lower the guidance",
    LEVEL_LOST: "Undo the standardization before decoding; check that the statistics are the run's",
    SILENT_DECODE: "Decode with the codec that the latents were encoded with; train it longer",
    MEMORISED: "Train on more music, for fewer steps, or with a smaller network",
    PHASE_IN_LATENTS: "Train a codec whose encoder hears no phase: --config small",
    NOTES_LOST: "Follow with --guidance 2; train longer; use a codec whose latents are predictable",
}


@dataclass(frozen=True)
class Finding:
    """A failure that was found.

    Attributes:
        name: One of `REMEDIES`.
        message: The measurement and its meaning, in one sentence.
    """

    name: str
    message: str

    def __post_init__(self) -> None:
        assert self.name in REMEDIES

    def __str__(self) -> str:
        return f"{self.name}: {self.message} {REMEDIES[self.name]} (docs/diagnosis.md#{self.name})."

    def record(self) -> dict[str, Any]:
        """Return the finding as JSON-able data."""
        return {**asdict(self), "remedy": REMEDIES[self.name]}


def findings_in_words(findings: Sequence[Finding], where: str) -> str:
    """Return the findings, one per line, or that there are none.

    Args:
        findings: Findings of a diagnosis.
        where: What was diagnosed, e.g. "this run".
    """
    if not findings:
        return f"Nothing found: none of the twelve known failures shows in {where}."
    return "\n".join(f"Found {finding}" for finding in findings)
