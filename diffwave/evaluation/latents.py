"""Whether latents can be modelled: do they move with the sound, what does a spectrogram explain?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffwave.diagnosis.phase import phase_in_words
from diffwave.diagnosis.predictability import predictability, predictability_in_words
from diffwave.diagnosis.run_data import RunData
from diffwave.diagnosis.samples import PHRASE_FRAMES
from diffwave.evaluation.ladder import recorded
from diffwave.model import LatentDiffusion
from rave.codec import Codec
from rave.compute.arrays import Float32Array
from rave.latents.shifts import shift_consistency

# Held-out music that is encoded again.
NUM_PARTS, PART_S = 8, 7.5


def measure_latents(
    model: LatentDiffusion, data: RunData, recordings: Path, codec: Codec
) -> dict[str, Any]:
    """Encode held-out recordings moved by a part of a frame; predict latents from spectrograms.

    Args:
        model: Model of a run.
        data: Latents and conditions of the run.
        recordings: Folder of the recordings that the latents were encoded from.
        codec: Codec of the latents.

    Returns:
        `shifts`, a `ShiftConsistency`; `predictability`, or None without a spectrogram.
    """
    hop, rate_hz = codec.format.hop_samples, codec.format.sample_rate_hz
    longest = max(clip.num_frames for clip in data.held_out)
    num_frames = min(max(round(PART_S * rate_hz / hop), PHRASE_FRAMES), longest)

    def parts() -> Iterator[Float32Array]:
        segments = replace(data, num_frames=num_frames).segments(data.held_out, NUM_PARTS)
        for clip, start in segments.places:
            first = (clip.start + start) * hop
            last = first + num_frames * hop
            blocks = recorded(recordings, clip, first, last, rate_hz, codec.format.num_channels)
            yield np.concatenate([*blocks], axis=1)

    shifts = shift_consistency(lambda audio: codec.encode(audio)[0], parts(), hop)
    return {"shifts": asdict(shifts), "predictability": predictability(model, data)}


def latents_in_words(found: Mapping[str, Any]) -> str:
    """Return the figures of `measure_latents` as sentences."""
    sentences = [phase_in_words(found["shifts"])]
    if found["predictability"] is not None:
        sentences.append(predictability_in_words(found["predictability"]))
    return " ".join(sentences)
