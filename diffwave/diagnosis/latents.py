"""Whether latents can be learned, and which losses to expect; measured without a model.

D raw latent size, K modelled dimensions, P principal dimensions, L lags, N frames.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from diffwave.clips import split_clips
from diffwave.dataset import RUN_OF_SEGMENTS, ClipReader, FixedSegments, standardized_runs
from diffwave.diagnosis.expected_losses import (
    ExpectedLoss,
    Recipe,
    ScheduleEnd,
    all_expected_losses,
    expected_losses,
    schedule_end,
)
from diffwave.diagnosis.failures import WHITE_LATENTS, Finding
from diffwave.diagnosis.latent_statistics import Memory, distance_from_normal, memory
from diffwave.objective import Objective
from diffwave.reference_loss import (
    REFERENCE_SEGMENTS,
    LossCurve,
    ReferenceLosses,
    SpectralDensity,
    channel_errors,
    fit_gaussian,
    loss_curve,
    reference_losses,
)
from diffwave.schedule import (
    COSINE,
    SCHEDULES,
    alpha_bar_from_log_snr,
    named_schedule,
)
from diffwave.skill import units
from diffwave.standardizer import PrincipalDimensions, Standardizer, check_fidelity
from rave.compute.arrays import Float32Array, Float64Array
from rave.latent_dataset import Clip, LatentDataset
from rave.latents.folder import GENERATED, LatentHeader

# Latents are reported as white noise if the best linear denoiser is above this share of the loss of
# `white`. White noise has 1 (0.9999 and more in draws of many sizes); latents whose only structure
# is that neighbouring frames correlate by 0.3 (9 % of their variance) have 0.977.
WHITE_SHARE = 0.98
# The same for one dimension, whose share is measured on fewer values. In 20 minutes of piano,
# encoded as samples of the posterior, noise has 0.970 to 1.023, other dimensions at most 0.785.
WHITE_DIMENSION_SHARE = 0.96
# Shares of the variance for which the number of principal dimensions is reported.
FIDELITIES = (0.9, 0.95, 0.99)
# Frames read at once.
BLOCK_FRAMES = 4096
# Largest number of blocks that memory and distribution are measured on: a million frames.
NUM_BLOCKS = 256
# Lags, in frames, at which correlation is measured: 24 s at 21.5 frames per second.
NUM_LAGS = 512
# Approximate number of frames whose distribution is measured.
DISTRIBUTION_FRAMES = 65536
# Noise levels of the curves.
CURVE_LOG_SNR = np.linspace(-8.0, 8.0, 65)
# Seconds before progress is shown.
PROGRESS_DELAY_S = 2.0
# Objective by which latents are judged, with the schedule `cosine`, whatever the recipe is.
USUAL = Objective("v", "mse")

T = TypeVar("T")


@dataclass(frozen=True)
class LatentDiagnosis:
    """Measurements of a folder of real latents.

    Attributes:
        folder: The latent folder.
        header: Its header.
        recipe: Recipe of the planned training.
        variance: (P,) variance of the training latents per principal dimension, falling.
        num_for: Number of principal dimensions that hold each of `FIDELITIES` of the variance.
        latent_size: Number of modelled dimensions K.
        references: Reference losses (v, mse, cosine) that show whether the latents are white.
        white_shares: (K,) `gaussian` over `white` of each modelled dimension.
        raw_memory: Memory of the D raw dimensions.
        memory: Memory of the K modelled dimensions.
        normal_distances: (K,) distance of each modelled dimension from a normal distribution.
        ends: End of each schedule.
        expected: Losses of the recipe, then of every schedule, prediction and kind of loss.
        curve: Reference losses (v, mse) over log-SNR.
        num_held_out: Number of independent units of the held-out latents.
    """

    folder: Path
    header: LatentHeader
    recipe: Recipe
    variance: Float64Array
    num_for: Mapping[float, int]
    latent_size: int
    references: ReferenceLosses
    white_shares: Float64Array
    raw_memory: Memory
    memory: Memory
    normal_distances: Float64Array
    ends: Sequence[ScheduleEnd]
    expected: Sequence[ExpectedLoss]
    curve: LossCurve
    num_held_out: int

    @property
    def findings(self) -> list[Finding]:
        """Return the known failures that were found."""
        finding = white_latents(self.references)
        return [finding] if finding else []

    @property
    def num_white(self) -> int:
        """Return the number of modelled dimensions that are white noise."""
        return int((self.white_shares > WHITE_DIMENSION_SHARE).sum())

    def record(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        header, statistics = self.header, self.header.statistics
        return {
            "kind": "latents",
            "folder": str(self.folder),
            "findings": [finding.record() for finding in self.findings],
            "contents": header.contents,
            "num_files": len(header.files),
            "num_skipped": len(header.skipped),
            "num_frames": sum(file.num_frames for file in header.files),
            "frame_rate_hz": header.frame_rate_hz,
            "raw_size": header.latent_size,
            "num_informative": int(statistics.is_informative.sum()),
            "information": statistics.information.tolist(),
            "kl": list(statistics.kl),
            "principal_variance": self.variance.tolist(),
            "num_principal_for": {str(share): count for share, count in self.num_for.items()},
            "fidelity": self.recipe.fidelity,
            "latent_size": self.latent_size,
            "white_share": self.references.gaussian / self.references.white,
            "white_shares": self.white_shares.tolist(),
            "num_white": self.num_white,
            "raw_memory_frames": self.raw_memory.frames.tolist(),
            "raw_memory_is_whole": self.raw_memory.is_whole.tolist(),
            "memory_frames": self.memory.frames.tolist(),
            "memory_is_whole": self.memory.is_whole.tolist(),
            "segment_frames": self.recipe.segment_frames,
            "normal_distances": self.normal_distances.tolist(),
            "schedules": [asdict(each) for each in self.ends],
            "expected_losses": [asdict(each) for each in self.expected],
        }


def white_latents(references: ReferenceLosses, objective: str = "v, mse, cosine") -> Finding | None:
    """Return a finding if latents are white noise.

    Args:
        references: Reference losses of held-out latents.
        objective: Prediction, loss and schedule of the references, for the message.
    """
    share = references.gaussian / references.white
    if share <= WHITE_SHARE:
        return None
    return Finding(
        WHITE_LATENTS,
        f"The best linear denoiser leaves {100 * share:.1f} % of the loss of white noise "
        f"({references.gaussian:.3f} of {references.white:.3f}; {objective}), so there is nothing "
        "to learn.",
    )


def diagnose_latents(folder: Path, recipe: Recipe | None = None) -> LatentDiagnosis:
    """Diagnose a folder of latents.

    Files are read three times, in parts. Memory does not grow with their number.

    Args:
        folder: Latent folder of real music.
        recipe: Recipe of the planned training. None: the default.

    Raises:
        ValueError: If the folder holds generated latents or too few, or cannot be read.
    """
    recipe = recipe or Recipe()
    check_fidelity(recipe.fidelity)
    dataset = LatentDataset(folder, takes_shards=False)
    header = dataset.header
    if header.contents == GENERATED:
        raise ValueError(
            f"'{folder}' holds generated latents; those of real music are needed. "
            "Give a folder that rave encode wrote."
        )
    reader = ClipReader.open(dataset)
    training, held_out = split_clips(header.files, recipe.held_out_fraction)
    blocks, held_out_blocks = list(_blocks(training)), list(_blocks(held_out))
    principal = PrincipalDimensions.of(
        _finite(reader, block) for block in _shown(blocks, "Dimensions", len(blocks))
    )
    for block in _shown(held_out_blocks, "Held-out files", len(held_out_blocks)):
        _finite(reader, block)
    standardizer = Standardizer.of(principal, recipe.fidelity)

    segments = FixedSegments(reader, training, recipe.segment_frames, REFERENCE_SEGMENTS)
    num_runs = -(-len(segments) // RUN_OF_SEGMENTS)
    runs = _shown(standardized_runs(standardizer, segments), "Covariance", num_runs)
    gaussian = fit_gaussian(runs)
    segments = FixedSegments(reader, held_out, recipe.segment_frames, recipe.held_out_segments)
    density = SpectralDensity(standardizer.latent_size, recipe.segment_frames)
    for run, num_valid_frames in standardized_runs(standardizer, segments):
        density.add(run, num_valid_frames)
    cosine = named_schedule(COSINE)
    _, white, linear = channel_errors(gaussian, density, cosine.alpha_bar.numpy(), "v")
    names = _shown(SCHEDULES, "Losses", len(SCHEDULES))
    levels = alpha_bar_from_log_snr(torch.from_numpy(CURVE_LOG_SNR)).numpy()
    raw_memory, modelled_memory, distances = _over_time(reader, standardizer, header, blocks)
    return LatentDiagnosis(
        folder,
        header,
        recipe,
        variance=principal.variance[principal.is_real],
        num_for={fidelity: principal.count(fidelity) for fidelity in FIDELITIES},
        latent_size=standardizer.latent_size,
        references=reference_losses(gaussian, density, cosine, USUAL),
        white_shares=linear.mean(axis=0) / white.mean(axis=0),
        raw_memory=raw_memory,
        memory=modelled_memory,
        normal_distances=distances,
        ends=[schedule_end(name) for name in SCHEDULES],
        expected=[
            expected_losses(
                gaussian, density, recipe.schedule_name, recipe.schedule, recipe.objective
            ),
            *all_expected_losses(gaussian, density, names),
        ],
        curve=loss_curve(gaussian, density, levels, USUAL),
        num_held_out=len(set(units(segments.clips).tolist())),
    )


def _over_time(
    reader: ClipReader, standardizer: Standardizer, header: LatentHeader, blocks: Sequence[Clip]
) -> tuple[Memory, Memory, Float64Array]:
    """Return the memory of raw and of modelled dimensions, and the latter's distances from normal.

    All are measured on the same blocks, evenly spread over the training latents.
    """
    count = min(NUM_BLOCKS, len(blocks))
    chosen = [blocks[index * len(blocks) // count] for index in range(count)]
    skip = -(-sum(block.num_frames for block in chosen) // DISTRIBUTION_FRAMES)
    raw_size, kept = header.latent_size, list[Float32Array]()
    mean = standardizer.mean.double().numpy()[:, None]

    def both() -> Iterator[Float64Array]:
        for block in _shown(chosen, "Memory", count):
            raw = reader.raw(block)
            latents = standardizer.standardize(torch.from_numpy(np.array(raw))[None])[0].numpy()
            kept.append(latents[:, ::skip])
            yield np.concatenate([raw - mean, latents])

    found = memory(both(), NUM_LAGS)
    raw_memory, modelled_memory = (
        Memory(found.correlation[rows], found.frames[rows], found.is_whole[rows])
        for rows in (slice(raw_size), slice(raw_size, None))
    )
    return raw_memory, modelled_memory, distance_from_normal(np.concatenate(kept, axis=1))


def _blocks(clips: Sequence[Clip]) -> Iterator[Clip]:
    """Yield the clips in parts that can be held in memory."""
    for clip in clips:
        for start in range(clip.start, clip.stop, BLOCK_FRAMES):
            yield Clip(clip.file, start, min(start + BLOCK_FRAMES, clip.stop))


def _finite(reader: ClipReader, block: Clip) -> Float32Array:
    """Return the raw latents of a block; refuse values that are not finite."""
    raw = reader.raw(block)
    if not np.isfinite(raw).all():
        path = Path(reader.latents.place) / block.file.path
        raise ValueError(
            f"'{path}' holds values that are not finite (NaN or infinite). Encode the audio again."
        )
    return raw


def _shown(items: Iterable[T], label: str, count: int) -> Iterable[T]:
    """Return items that show their progress on stderr if iterating over them takes long."""
    from tqdm import tqdm

    shown: Iterable[T] = tqdm(
        items, label, count, file=sys.stderr, leave=False, delay=PROGRESS_DELAY_S
    )
    return shown
