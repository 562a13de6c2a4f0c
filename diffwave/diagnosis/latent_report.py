"""A diagnosis of latents as text: findings, what to do, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from diffwave.denoiser import Prediction
from diffwave.diagnosis.expected_losses import ExpectedLoss
from diffwave.diagnosis.failures import findings_in_words
from diffwave.diagnosis.generated import GeneratedDiagnosis
from diffwave.diagnosis.latent_statistics import Memory
from diffwave.diagnosis.latents import LatentDiagnosis
from diffwave.objective import LossKind
from diffwave.skill import FEWEST_UNITS, TOO_LITTLE
from rave.latents.folder import POSTERIOR_SAMPLE
from rave.parsing import one_line

# A segment should be at least this many times as long as the slowest dimension's memory, so that
# many segments show how it continues.
FEW_MEMORIES = 2
# A distribution nearer to normal is reported to look like noise: a histogram hardly shows the
# difference. In 20 minutes of piano, collapsed dimensions have 0.005 to 0.02, others 0.09 to 0.17.
NEARLY_NORMAL = 0.03
# If a schedule leaves more signal power at its end, sampling starts from noise never trained on.
LITTLE_SIGNAL = 1e-3


def words(found: LatentDiagnosis) -> str:
    """Return a diagnosis of latents as text."""
    parts = [
        _what(found),
        findings_in_words(found.findings, "these latents"),
        _verdict(found),
        *_to_do(found),
        _dimensions(found),
        _schedules(found),
        _losses(found),
    ]
    return "\n\n".join(parts)


def words_of_generated(found: GeneratedDiagnosis) -> str:
    """Return a diagnosis of generated latents as text."""
    header = found.header
    num_frames = sum(file.num_frames for file in header.files)
    level, width = found.relative, max(len(each["path"]) for each in found.files)
    lines = [
        f"'{found.folder}': {len(found.files)} files of generated latents, {num_frames} frames "
        f"({duration(num_frames, header.frame_rate_hz)}), {header.latent_size} dimensions.",
        "",
        findings_in_words(found.findings, "these generated latents"),
        "",
        "Diagnose the run that generated them for more: python -m diffwave.diagnose RUN",
        "",
        "Relative to the training latents",
        f"  level of a dimension: {level.min():.2f} to {level.max():.2f}, median "
        f"{np.median(level):.2f}",
        f"  {'file':<{width}}  level  largest shift of a mean, in std",
    ]
    lines += [
        f"  {one_line(each['path']):<{width}}  {each['level']:5.2f}  "
        f"{each['largest_shift']:.2f}" + (f"  ({each['warning']})" if each["warning"] else "")
        for each in found.files
    ]
    return "\n".join(lines)


def _what(found: LatentDiagnosis) -> str:
    header = found.header
    num_frames = sum(file.num_frames for file in header.files)
    text = (
        f"'{found.folder}': {len(header.files)} files, {num_frames} frames "
        f"({duration(num_frames, header.frame_rate_hz)}), {header.latent_size} dimensions, "
        f"{header.contents}."
    )
    if header.skipped:
        text += f" {len(header.skipped)} audio files could not be encoded."
    return text


def _verdict(found: LatentDiagnosis) -> str:
    references, num_dimensions = found.references, found.latent_size
    share = 100 * references.gaussian / references.white
    if found.num_held_out < FEWEST_UNITS:
        return (
            f"{TOO_LITTLE} whether these latents can be learned: add recordings, or raise "
            "HELD_OUT_FRACTION."
        )
    if found.findings:
        return "These latents cannot be learned."
    can = "They can be learned"
    if found.num_white:
        can += f", but {found.num_white} of the {num_dimensions} dimensions modelled are noise"
    return (
        f"{can}: the best linear denoiser leaves {share:.0f} % of the loss of white noise, on "
        "held-out latents. The lower, the more there is to learn."
    )


def _to_do(found: LatentDiagnosis) -> list[str]:
    """Return advice that follows from the figures, one item per line, if there is any."""
    header, recipe, expected = found.header, found.recipe, found.expected[0]
    num_collapsed = int((~header.statistics.is_informative).sum())
    lines = []
    if header.contents == POSTERIOR_SAMPLE:
        lines.append(
            f"Encode again without --sample. These are samples of the posterior: {num_collapsed} "
            f"of {header.latent_size} dimensions are uninformative, so they are noise."
        )
    elif 0 < found.num_white < found.latent_size:
        lines.append(
            f"Lower FIDELITY: {found.num_white} of {found.latent_size} dimensions modelled are "
            "noise, which cannot be learned."
        )
    slowest = float(found.memory.frames.max())
    if recipe.segment_frames < FEW_MEMORIES * slowest:
        lines.append(
            f"Raise SEGMENT_FRAMES: {recipe.segment_frames} frames are less than {FEW_MEMORIES} "
            f"times the memory of the slowest dimension ({slowest:.0f} frames)."
        )
    signal = float(recipe.schedule.alpha_bar[-1])
    if signal > LITTLE_SIGNAL:
        lines.append(
            f"Choose SCHEDULE='cosine': '{expected.schedule}' leaves {100 * signal:.2g} % of the "
            "signal at its end, where sampling begins from pure noise."
        )
    if not found.findings and header.contents != POSTERIOR_SAMPLE:
        lines.append(
            f"Train. A model has learned music when its held-out loss is below "
            f"{expected.gaussian:.3f} ({_objective(expected)})."
        )
    return ["\n".join(["What to do:", *(f"  - {line}" for line in lines)])] if lines else []


def _dimensions(found: LatentDiagnosis) -> str:
    statistics, rate_hz = found.header.statistics, found.header.frame_rate_hz
    is_informative = statistics.is_informative
    counts = ", ".join(f"{count} for {100 * f:g} %" for f, count in found.num_for.items())
    distances = found.normal_distances
    num_normal = int((distances < NEARLY_NORMAL).sum())
    segment = duration(found.recipe.segment_frames, rate_hz)
    rows = [
        (
            "informative dimensions",
            f"{is_informative.sum()} of {len(is_informative)} "
            f"({statistics.information.sum():.1f} nats per frame; KL {sum(statistics.kl):.1f})",
        ),
        ("principal dimensions of the variance", counts),
        (
            f"modelled with FIDELITY {found.recipe.fidelity:g}",
            f"{found.latent_size}, of which white noise {found.num_white}",
        ),
        (
            "memory, informative dimensions",
            _memory(found.raw_memory, is_informative, rate_hz),
        ),
        (
            "memory, modelled dimensions",
            _memory(found.memory, np.ones(found.latent_size, dtype=bool), rate_hz),
        ),
        ("a training segment", f"{found.recipe.segment_frames} frames ({segment})"),
        (
            "distance from a normal distribution",
            f"{distances.min():.3f} to {distances.max():.3f}; "
            f"{num_normal} of {len(distances)} nearly normal, as noise is",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(["Dimensions", *(f"  {name:<{width}}  {value}" for name, value in rows)])


def _memory(memory: Memory, which: np.ndarray, rate_hz: float) -> str:
    frames = memory.frames[which]
    if not len(frames):
        return "none"
    longest = int(frames.argmax())
    more = "" if memory.is_whole[which][longest] else "more than "
    return (
        f"{frames.min():.1f} to {more}{frames[longest]:.1f} frames "
        f"({duration(frames[longest], rate_hz)}), median {np.median(frames):.1f}"
    )


def _schedules(found: LatentDiagnosis) -> str:
    width = max(len(end.schedule) for end in found.ends)
    lines = [f"{'Schedule':<{width}}    timesteps  signal left  SNR at the end"]
    for end in found.ends:
        left = "none" if end.snr_db is None else f"{100 * end.signal:.2g} %"
        snr = "" if end.snr_db is None else f"{end.snr_db:.1f} dB"
        line = f"  {end.schedule:<{width}}  {end.num_timesteps:>9}  {left:>11}  {snr:>14}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _losses(found: LatentDiagnosis) -> str:
    recipe, *others = found.expected
    predictions = get_args(Prediction)
    width = max(len(each.schedule) for each in others)
    lines = [
        "Expected held-out losses: predicting zero, white noise model, best linear denoiser",
        f"  this recipe ({_objective(recipe)}): {_three(recipe)}",
    ]
    for loss in get_args(LossKind):
        lines.append(f"  {loss:<{width}}" + _cells(predictions))
        for name in dict.fromkeys(each.schedule for each in others):
            texts = {
                each.prediction: _three(each)
                for each in others
                if (each.schedule, each.loss) == (name, loss)
            }
            cells = [texts.get(prediction, "-") for prediction in predictions]
            lines.append(f"  {name:<{width}}" + _cells(cells))
    return "\n".join(lines)


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"  {text:<17}" for text in texts).rstrip()


def _three(losses: ExpectedLoss) -> str:
    return " ".join(f"{value:.3f}" for value in (losses.zero, losses.white, losses.gaussian))


def _objective(expected: ExpectedLoss) -> str:
    weighting = "" if expected.weighting == "none" else f", {expected.weighting}"
    return f"{expected.schedule}, {expected.prediction}, {expected.loss}{weighting}"


def duration(num_frames: float, rate_hz: float) -> str:
    """Return the duration of a number of latent frames, as text in ms, s or minutes."""
    seconds = num_frames / rate_hz
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
