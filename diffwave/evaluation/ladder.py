"""The ladder of an evaluation: clips from recordings down to noise, the generated ones between.

D raw latent size, N latent frames of a clip, T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from diffwave.dataset import FixedSegments, conditions_of
from diffwave.diagnosis.run_data import RunData
from diffwave.run import DiffusionRun
from diffwave.sampling.generation import Sampling
from diffwave.standardizer import PrincipalDimensions
from rave.audio.io import AudioStream
from rave.codec import Codec
from rave.compute.arrays import Float32Array
from rave.evaluation.folders import Listener, Piece, measure_blocks
from rave.held_out import originals
from rave.latent_dataset import Clip
from rave.noise import DecoderNoise

BATCH_SIZE = 4
HELD_OUT, RECONSTRUCTION, MODELLED, GENERATED, FOLLOWING, GAUSSIAN, NORMAL, NOISE = (
    "held_out",
    "reconstruction",
    "modelled",
    "generated",
    "following",
    "gaussian",
    "normal",
    "noise",
)
TITLES = {
    HELD_OUT: "held-out recordings",
    RECONSTRUCTION: "what the codec makes of them",
    MODELLED: "the same, dimensions modelled only",
    GENERATED: "generated",
    FOLLOWING: "generated, following them",
    GAUSSIAN: "Gaussian latents of the same covariance",
    NORMAL: "latents drawn from N(0, 1)",
    NOISE: "white noise",
}
# Stream of random numbers of each rung that is drawn; the others keep their places.
STREAMS = {name: number for number, name in enumerate(n for n in TITLES if n != MODELLED)}


@dataclass(frozen=True)
class Ladder:
    """Makes and measures the rungs. Each has `count` clips of N frames.

    Attributes:
        run: Run to evaluate.
        data: Latents of its training; N is the length of their segments.
        recordings: Folder of the recordings that the latents were encoded from.
        codec: Codec of the latents.
        listener: Networks that hear the clips.
        count: Clips per rung.
        seed: Random seed.
        num_steps: Sampling steps.
        guidance: Guidance scale by name.
        progress: Called after each clip and each recording is measured.
    """

    run: DiffusionRun
    data: RunData
    recordings: Path
    codec: Codec
    listener: Listener
    count: int
    seed: int
    num_steps: int
    guidance: Mapping[str, float]
    progress: Callable[[], None]

    @property
    def segments(self) -> FixedSegments:
        """Return `count` held-out segments."""
        return self.data.segments(self.data.held_out, self.count)

    def reference(self) -> list[Piece]:
        """Return the measured pieces of the training recordings."""
        hop = self.codec.format.hop_samples
        pieces: list[Piece] = []
        for clip in without_versions(self.data.training):
            blocks = self._recording(clip, clip.start * hop, clip.stop * hop)
            pieces += self._measured(blocks, clip.file.path)
        return pieces

    def held_out(self) -> list[list[Piece]]:
        """Return the pieces of the held-out recordings, cut to the segments."""
        hop = self.codec.format.hop_samples
        starts = [(clip, (clip.start + start) * hop) for clip, start in self.segments.places]
        length = self.data.num_frames * hop
        return [
            self._measured(self._recording(clip, start, start + length), clip.file.path)
            for clip, start in starts
        ]

    def reconstruction(self) -> list[list[Piece]]:
        """Return the pieces of the decoded latents of the held-out segments."""
        return self._decoded(RECONSTRUCTION, (each["raw"].numpy() for each in self.segments))

    def modelled(self) -> list[list[Piece]]:
        """Return the pieces of these latents with only the dimensions that the run models."""
        standardizer = self.run.model.standardizer
        device = standardizer.mean.device
        projected = (standardizer.project(each["raw"].to(device)) for each in self.segments)
        return self._decoded(MODELLED, (each.cpu().numpy() for each in projected))

    def generated(self, number: int) -> tuple[list[list[Piece]], Tensor]:
        """Return the pieces of unconditional clips, and their latents (count, K, N).

        Args:
            number: Number of the set. Set 0 has the first `count` clips of `diffwave.inference`,
                set 1 the next `count`.
        """
        first = number * self.count
        return self._sampled(GENERATED, range(first, first + self.count), [{}] * self.count)

    def following(self) -> tuple[list[list[Piece]], Tensor]:
        """Return the pieces of clips that follow held-out conditions, and their latents."""
        inputs = [conditions_of(default_collate([each])) for each in self.segments]
        return self._sampled(FOLLOWING, range(self.count), inputs)

    def gaussian(self) -> list[list[Piece]]:
        """Return decoded N(mean, covariance) of the training latents, independent in time."""
        arrays = (np.array(self.data.reader.raw(clip)) for clip in self.data.training)
        principal = PrincipalDimensions.of(arrays)
        spread = principal.vectors.T * np.sqrt(np.maximum(principal.variance, 0.0))
        return self._drawn(GAUSSIAN, lambda drawn: spread @ drawn + principal.mean[:, None])

    def normal(self) -> list[list[Piece]]:
        """Return decoded N(0, 1), the prior of the autoencoder."""
        return self._drawn(NORMAL, lambda drawn: drawn)

    def noise(self, power: float) -> list[list[Piece]]:
        """Return white noise of a mean square power."""
        rng = np.random.default_rng([self.seed, STREAMS[NOISE]])
        length = self.data.num_frames * self.codec.format.hop_samples
        return [
            self._measured(
                [(np.sqrt(power) * rng.standard_normal((1, length))).astype(np.float32)], NOISE
            )
            for _ in range(self.count)
        ]

    def _sampled(
        self, name: str, indices: Sequence[int], inputs: Sequence[Mapping[str, Tensor]]
    ) -> tuple[list[list[Piece]], Tensor]:
        starts = range(0, len(indices), BATCH_SIZE)
        batches = [slice(start, start + BATCH_SIZE) for start in starts]
        raw = torch.cat([self._raw(indices[each], inputs[each]) for each in batches])
        if not raw.isfinite().all():
            raise ValueError(
                f"Run '{self.run.folder}' generates values that are not finite. "
                "Diagnose it: python -m diffwave.diagnose."
            )
        standardizer = self.run.model.standardizer
        latents = standardizer.standardize(raw.to(standardizer.mean.device)).cpu()
        return self._decoded(name, raw.numpy(), indices[0]), latents

    def _raw(self, indices: Sequence[int], inputs: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Return generated raw latents of a batch, (B, D, N)."""
        followed = {name: torch.cat([each[name] for each in inputs]) for name in inputs[0]}
        sampling = Sampling(
            self.run.model,
            indices,
            self.seed,
            num_steps=self.num_steps,
            inputs_of=lambda *_: followed,
            guidance=self.guidance if followed else {},
        )
        return sampling.generate(self.data.num_frames).cpu()

    def _drawn(
        self, name: str, latents_of: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> list[list[Piece]]:
        rng = np.random.default_rng([self.seed, STREAMS[name]])
        shape = (self.codec.format.latent_size, self.data.num_frames)
        drawn = (latents_of(rng.standard_normal(shape)) for _ in range(self.count))
        return self._decoded(name, (each.astype(np.float32) for each in drawn))

    def _decoded(self, name: str, latents: Any, first: int = 0) -> list[list[Piece]]:
        clips = []
        for number, raw in enumerate(latents, start=first):
            label = f"{name} {number}"
            blocks = self.codec.decode_blocks(raw, DecoderNoise(self.codec.format, self.seed))
            mono = (block.mean(axis=0, keepdims=True) for block in blocks)
            clips.append(self._measured(mono, label))
        return clips

    def _recording(self, clip: Clip, start: int, stop: int) -> Iterator[Float32Array]:
        """Yield samples start to stop of the recording of a clip, (1, t) each."""
        return recorded(self.recordings, clip, start, stop, self.codec.format.sample_rate_hz)

    def _measured(self, blocks: Any, name: str) -> list[Piece]:
        rate_hz = self.codec.format.sample_rate_hz
        pieces = measure_blocks(blocks, rate_hz, name, self.listener)
        self.progress()
        return pieces


def without_versions(clips: Sequence[Clip]) -> list[Clip]:
    """Return the clips of the recordings, without their augmented versions."""
    kept = set(originals({clip.file.path: clip.file.origin for clip in clips}))
    return [clip for clip in clips if clip.file.path in kept]


def recorded(
    folder: Path, clip: Clip, start: int, stop: int, rate_hz: int, num_channels: int = 1
) -> Iterator[Float32Array]:
    """Yield samples start to stop of the recording of a clip, (C, t) each."""
    position = 0
    for block in AudioStream(recording_path(folder, clip), rate_hz, num_channels):
        part = block[:, max(start - position, 0) : max(stop - position, 0)]
        if part.shape[1]:
            yield part
        position += block.shape[1]
        if position >= stop:
            return


def recording_path(folder: Path, clip: Clip) -> Path:
    """Return the path of the recording of a clip.

    Raises:
        ValueError: If the latents do not name it, or the folder does not have it.
    """
    if clip.file.source is None:
        raise ValueError(f"'{clip.file.path}' was generated. Give latents of recordings.")
    path = folder / clip.file.source
    if not path.is_file():
        raise ValueError(
            f"'{clip.file.path}' was encoded from '{clip.file.source}', which is not in "
            f"'{folder}'. Give the folder that rave encode read."
        )
    return path
