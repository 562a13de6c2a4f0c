"""Whether music that follows a recording has the notes that its codec keeps.

S segments, D raw latent size, N latent frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffwave.diagnosis.failures import NOTES_LOST, Finding
from rave.audio.blocks import resample
from rave.codec import Codec
from rave.compute.arrays import FloatArray
from rave.noise import DecoderNoise
from rave.notes.scores import note_scores
from rave.notes.transcriber import SAMPLE_RATE_HZ, Transcriber, Transcription

# Segments that are transcribed, and those of them whose notes the picture shows.
NUM_HEARD, NUM_SHOWN = 16, 3
# Reported as lost: a smaller share of the notes that the modelled dimensions keep.
NOTES_LOST_RATIO = 0.8
# Where the modelled dimensions keep fewer notes, or fewer are played, F1 shows nothing: drums.
SMALLEST_F1, FEWEST_PER_SECOND = 0.5, 0.5
HEARD, MODELLED, FOLLOWED = "held_out", "modelled", "followed"


def measure_notes(
    codec: Codec, latents: Mapping[str, FloatArray], noise: DecoderNoise
) -> dict[str, Any]:
    """Decode and transcribe latents; return how many notes of the first ones the others have.

    Args:
        codec: Codec of the latents.
        latents: Raw latents (S, D, N): `HEARD`, held-out segments; `MODELLED`, the same with only
            the dimensions that the model has; `FOLLOWED`, generated to follow them.
        noise: Noise of the decoder.

    Returns:
        `per_second`, notes of `HEARD`; `modelled` and `followed`, each with `note_f1` and
        `frame_f1` against `HEARD`; `rolls`, (start in s, end in s, pitch) of the notes of the first
        segments of `HEARD` and `FOLLOWED`.
    """
    transcriber = Transcriber()
    heard = {
        name: [_transcribed(codec, each, noise, transcriber) for each in clips]
        for name, clips in latents.items()
    }
    part_s = heard[HEARD][0].duration_s
    joined = {name: Transcription.joined(parts, part_s) for name, parts in heard.items()}
    figures: dict[str, Any] = {"per_second": len(joined[HEARD].notes) / joined[HEARD].duration_s}
    for name in (MODELLED, FOLLOWED):
        scores = note_scores(joined[HEARD], joined[name])
        figures[name] = {key: scores[key] for key in ("note_f1", "frame_f1")}
    figures["rolls"] = {
        name: [
            [note.start_s, note.end_s, note.pitch]
            for note in joined[name].part(0.0, NUM_SHOWN * part_s).notes
        ]
        for name in (HEARD, FOLLOWED)
    }
    return figures


def _transcribed(
    codec: Codec, clip: FloatArray, noise: DecoderNoise, transcriber: Transcriber
) -> Transcription:
    mono = codec.decode(clip.astype(np.float32), noise).mean(axis=0, keepdims=True)
    return transcriber.transcribe(resample([mono], codec.format.sample_rate_hz, SAMPLE_RATE_HZ))


def notes_lost(figures: Mapping[str, Any]) -> Finding | None:
    """Return a finding if generated music has far fewer of the notes than the codec keeps.

    Args:
        figures: What `measure_notes` returns.
    """
    modelled, followed = (figures[name]["note_f1"] for name in (MODELLED, FOLLOWED))
    if modelled < SMALLEST_F1 or figures["per_second"] < FEWEST_PER_SECOND:
        return None  # drums, or hardly a note: F1 shows nothing
    if followed >= NOTES_LOST_RATIO * modelled:
        return None
    return Finding(
        NOTES_LOST,
        f"Of the notes of held-out music, the dimensions modelled keep an F1 of {modelled:.2f}, "
        f"what follows it {followed:.2f}.",
    )
