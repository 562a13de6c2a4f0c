"""Music and worse: what a run generates, between what it could at best and what needs no model.

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
from diffwave.sampling.samplers import generate
from diffwave.standardizer import PrincipalDimensions
from rave.audio.io import AudioStream
from rave.codec import Codec
from rave.evaluation.folders import Piece, measure_blocks
from rave.evaluation.musicnn import Musicnn
from rave.held_out import originals
from rave.latent_dataset import Clip
from rave.noise import DecoderNoise

Array = NDArray[np.float32]
BATCH_SIZE = 4
HELD_OUT, RECONSTRUCTION, GENERATED, FOLLOWING, GAUSSIAN, NORMAL, NOISE = (
    "held_out",
    "reconstruction",
    "generated",
    "following",
    "gaussian",
    "normal",
    "noise",
)
TITLES = {
    HELD_OUT: "held-out recordings",
    RECONSTRUCTION: "what the codec makes of them",
    GENERATED: "generated",
    FOLLOWING: "generated, following them",
    GAUSSIAN: "Gaussian latents of the same covariance",
    NORMAL: "latents drawn from N(0, 1)",
    NOISE: "white noise",
}
# Each rung that is drawn has random numbers of its own.
STREAMS = {name: number for number, name in enumerate(TITLES)}


@dataclass(frozen=True)
class Ladder:
    """What the rungs are made of; every rung is `count` clips of N frames.

    Attributes:
        run: Generates.
        data: Its latents; N is that of its segments.
        recordings: Folder of the audio that the latents were encoded from.
        codec: Decodes all but recordings and noise.
        listener: Hears the clips.
        count: Clips of a rung.
        seed: Of all that is drawn.
        num_steps: Sampling steps.
        guidance: Guidance scale by name.
        progress: Called after each clip, and each recording, that was heard.
    """

    run: DiffusionRun
    data: RunData
    recordings: Path
    codec: Codec
    listener: Musicnn
    count: int
    seed: int
    num_steps: int
    guidance: Mapping[str, float]
    progress: Callable[[], None]

    @property
    def segments(self) -> FixedSegments:
        """Return the held-out segments, as many as a rung has clips."""
        return self.data.segments(self.data.held_out, self.count)

    def reference(self) -> list[Piece]:
        """Return the training recordings."""
        hop = self.codec.format.hop_samples
        pieces: list[Piece] = []
        for clip in without_versions(self.data.training):
            blocks = self._recording(clip, clip.start * hop, clip.stop * hop)
            pieces += self._heard(blocks, clip.file.path)
        return pieces

    def held_out(self) -> list[list[Piece]]:
        """Return the held-out recordings, where the segments lie."""
        hop = self.codec.format.hop_samples
        starts = [(clip, (clip.start + start) * hop) for clip, start in self.segments.places]
        length = self.data.num_frames * hop
        return [
            self._heard(self._recording(clip, start, start + length), clip.file.path)
            for clip, start in starts
        ]

    def reconstruction(self) -> list[list[Piece]]:
        """Return what the codec makes of the latents of the held-out segments."""
        return self._decoded(RECONSTRUCTION, (each["raw"].numpy() for each in self.segments))

    def generated(self, number: int) -> tuple[list[list[Piece]], Tensor]:
        """Return clips that follow nothing, and their latents (count, K, N).

        Args:
            number: Of the set; set 0 holds the clips of `diffwave.inference --count`, set 1 those
                that would come next.
        """
        first = number * self.count
        return self._sampled(GENERATED, range(first, first + self.count), [{}] * self.count)

    def following(self) -> tuple[list[list[Piece]], Tensor]:
        """Return clips that follow the conditions of the held-out segments, and their latents."""
        inputs = [conditions_of(default_collate([each])) for each in self.segments]
        return self._sampled(FOLLOWING, range(self.count), inputs)

    def gaussian(self) -> list[list[Piece]]:
        """Return N(mean, covariance of all D dimensions) of the training, independent in time."""
        arrays = (np.array(self.data.reader.raw(clip)) for clip in self.data.training)
        principal = PrincipalDimensions.of(arrays)
        spread = principal.vectors.T * np.sqrt(np.maximum(principal.variance, 0.0))
        return self._drawn(GAUSSIAN, lambda drawn: spread @ drawn + principal.mean[:, None])

    def normal(self) -> list[list[Piece]]:
        """Return latents from N(0, 1), what an autoencoder's prior is."""
        return self._drawn(NORMAL, lambda drawn: drawn)

    def noise(self, power: float) -> list[list[Piece]]:
        """Return white noise of a mean square."""
        rng = np.random.default_rng([self.seed, STREAMS[NOISE]])
        length = self.data.num_frames * self.codec.format.hop_samples
        return [
            self._heard(
                [(np.sqrt(power) * rng.standard_normal((1, length))).astype(np.float32)], NOISE
            )
            for _ in range(self.count)
        ]

    def _sampled(
        self, name: str, indices: Sequence[int], inputs: Sequence[Mapping[str, Tensor]]
    ) -> tuple[list[list[Piece]], Tensor]:
        model = self.run.model
        parts: list[Tensor] = []
        for start in range(0, len(indices), BATCH_SIZE):
            batch = inputs[start : start + BATCH_SIZE]
            together = {k: torch.cat([each[k] for each in batch]) for k in batch[0]}
            parts.append(
                generate(
                    model,
                    self.data.num_frames,
                    indices[start : start + BATCH_SIZE],
                    self.seed,
                    num_steps=self.num_steps,
                    inputs={k: v.to(model.standardizer.mean.device) for k, v in together.items()},
                    guidance=self.guidance if together else {},
                ).cpu()
            )
        raw = torch.cat(parts)
        if not raw.isfinite().all():
            raise ValueError(
                f"Run '{self.run.folder}' generates values that are not finite; "
                "`python -m diffwave.diagnose` shows more."
            )
        device = model.standardizer.mean.device
        latents = model.standardizer.standardize(raw.to(device)).cpu()
        return self._decoded(name, raw.numpy(), indices[0]), latents

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
            clips.append(self._heard(mono, label))
        return clips

    def _recording(self, clip: Clip, start: int, stop: int) -> Iterator[Array]:
        """Yield samples start to stop of the recording of a clip, mono."""
        position = 0
        path = recording_path(self.recordings, clip)
        for block in AudioStream(path, self.codec.format.sample_rate_hz, 1):
            part = block[:, max(start - position, 0) : max(stop - position, 0)]
            if part.shape[1]:
                yield part
            position += block.shape[1]
            if position >= stop:
                return

    def _heard(self, blocks: Any, name: str) -> list[Piece]:
        rate_hz = self.codec.format.sample_rate_hz
        pieces = list(measure_blocks(blocks, rate_hz, name, self.listener))
        self.progress()
        return pieces


def without_versions(clips: Sequence[Clip]) -> list[Clip]:
    """Return the clips of recordings themselves, without those of their versions."""
    kept = set(originals({clip.file.path: clip.file.origin for clip in clips}))
    return [clip for clip in clips if clip.file.path in kept]


def recording_path(folder: Path, clip: Clip) -> Path:
    """Return the recording that a clip was encoded from.

    Raises:
        ValueError: If it is not known, or not there.
    """
    if clip.file.source is None:
        raise ValueError(f"'{clip.file.path}' was generated; give the latents of recordings.")
    path = folder / clip.file.source
    if not path.is_file():
        raise ValueError(
            f"'{clip.file.path}' was encoded from '{clip.file.source}', which is not in "
            f"'{folder}'. Give the folder that rave encode was given."
        )
    return path
