"""Failures of a folder of generated latents, from its header and its values alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffwave.diagnosis.failures import Finding
from diffwave.diagnosis.generated_latents import compare, varying
from diffwave.diagnosis.samples import clamped_sampler, level_lost
from rave.compute.arrays import Float32Array, Float64Array
from rave.latent_dataset import LatentDataset
from rave.latents.folder import LatentHeader

# Largest number of values that are searched for clamping, evenly from all frames: 128 MB.
NUM_VALUES = 2**25


@dataclass(frozen=True)
class GeneratedDiagnosis:
    """What was measured of a folder of generated latents.

    Attributes:
        folder: The latent folder.
        header: Its header, with the statistics of the training latents.
        files: Path, number of frames and figures (`generated_latents.compare`) of each file.
        rms: (D,) root mean square deviation from the mean of the training latents.
        findings: Known failures that were found.
    """

    folder: Path
    header: LatentHeader
    files: Sequence[dict[str, Any]]
    rms: Float64Array
    findings: Sequence[Finding]

    @property
    def relative(self) -> Float64Array:
        """Return the level of each dimension that varies in training, relative to training."""
        std = np.asarray(self.header.statistics.std)
        varies = varying(std)
        return np.asarray(self.rms[varies] / std[varies])

    def record(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        return {
            "kind": "generated latents",
            "folder": str(self.folder),
            "findings": [finding.record() for finding in self.findings],
            "num_files": len(self.files),
            "num_frames": sum(file.num_frames for file in self.header.files),
            "frame_rate_hz": self.header.frame_rate_hz,
            "raw_size": self.header.latent_size,
            "rms": self.rms.tolist(),
            "training_std": list(self.header.statistics.std),
            "files": list(self.files),
        }


def diagnose_generated(folder: Path) -> GeneratedDiagnosis:
    """Diagnose a folder of generated latents.

    Args:
        folder: Latent folder that diffwave.inference wrote.

    Raises:
        ValueError: If it cannot be read, is empty, or holds values that are not finite.
    """
    latents = LatentDataset(folder)
    header, num_frames = latents.header, sum(file.num_frames for file in latents.files)
    if num_frames == 0:
        raise ValueError(f"'{folder}' holds no frames. Generate again.")
    power: Float64Array = np.zeros(header.latent_size)
    mean = np.asarray(header.statistics.mean)
    skip = -(-num_frames * header.latent_size // NUM_VALUES)
    files, values = list[dict[str, Any]](), list[Float32Array]()
    for index, file in enumerate(latents.files):
        if file.num_frames == 0:
            continue
        array = latents.array(index)
        figures = compare(array, header)
        shift = np.asarray(figures["mean"]) - mean
        power += (np.square(figures["std"]) + np.square(shift)) * (file.num_frames / num_frames)
        files.append({"path": file.path, "num_frames": file.num_frames, **figures})
        values.append(np.array(array[:, ::skip]))
    rms = np.sqrt(power)
    findings = (
        clamped_sampler(np.concatenate(values, axis=1)),
        level_lost(rms, np.asarray(header.statistics.std)),
    )
    return GeneratedDiagnosis(
        folder, header, files, rms, [finding for finding in findings if finding is not None]
    )
