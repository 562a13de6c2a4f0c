"""Diagnosis of a run as sentences and short tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffwave.diagnosis.failures import findings_in_words
from diffwave.diagnosis.phase import phase_in_words
from diffwave.diagnosis.predictability import predictability_in_words
from diffwave.diagnosis.run import RunDiagnosis


def words(found: RunDiagnosis) -> str:
    """Return a diagnosis of a run as text: findings first, then short tables."""
    figures = found.figures
    parts = [
        _run(figures),
        findings_in_words(found.findings, "this run"),
        _learned(figures),
        _noise_levels(figures),
        _timesteps(figures),
        _network(figures["network"]),
        _sampling(figures["sampling"]),
        _samples(figures),
    ]
    return "\n\n".join(part for part in parts if part)


def _run(figures: dict[str, Any]) -> str:
    follows = ", ".join(figures["follows"]) or "nothing"
    line = (
        f"'{figures['run']}': step {figures['num_steps']}, {figures['latent_size']} of "
        f"{figures['raw_size']} dimensions, follows {follows}."
    )
    if figures["is_training_data"]:
        return line
    return (
        f"{line}\n'{figures['latents']}' are not the latents of its training: what is held out "
        "here may have been in the training."
    )


def _learned(figures: dict[str, Any]) -> str:
    text = f"{figures['verdict']} Losses: {figures['prediction']}, {figures['loss']}, weighting "
    text += f"{figures['weighting']}."
    if figures["follows"]:
        text += " (The references do not use the conditions.)"
    return text


def _noise_levels(figures: dict[str, Any]) -> str:
    """Return skill and the effect of conditions over log-SNR."""
    bins = figures["by_log_snr"]
    levels = [each["log_snr"] for each in bins]
    rows = [
        ["log-SNR (noise to detail)", *(f"{level:+d}" for level in levels)],
        ["segments", *(str(each["num_segments"]) for each in bins)],
        ["skill", *(f"{each['skill']:.2f}" for each in bins)],
    ]
    conditioner = figures["conditioner"]
    gain_text = ""
    if conditioner is not None:
        for name, curve in conditioner["curves"].items():
            for key, label in (("gain", "gain"), ("change", "change by")):
                row = [_nearest(curve["log_snr"], curve[key], level) for level in levels]
                rows.append([f"{label} {name}", *(f"{value:.2f}" for value in row)])
        gains = [f"{name} {gain:.2f}" for name, gain in conditioner["gain"].items()]
        gain_text = f"Conditioner gain over all noise levels: {', '.join(gains)}."
        if len(gains) > 1:
            alone = [f"{k} {v:.2f}" for k, v in conditioner["gain_alone"].items() if k != "all"]
            gain_text += f" Without the others: {', '.join(alone)}."
        gain_text += "\nGain: error with conditions of other clips / error with the right ones. "
        gain_text += "Change: relative\nchange of the prediction by conditions of other clips.\n"
    return gain_text + table(rows)


def _nearest(places: Sequence[float], values: Sequence[float], wanted: float) -> float:
    return min(zip(places, values, strict=True), key=lambda pair: abs(pair[0] - wanted))[1]


def _timesteps(figures: dict[str, Any]) -> str:
    timesteps = figures["timesteps"]
    if timesteps is None:
        return "The timesteps that the training drew are not known for a run of lmnt diffwave."
    replayed, most = timesteps["replayed_steps"], timesteps["num_steps"]
    which = f"{replayed} steps" if replayed == most else f"the first {replayed} of {most} steps"
    visits = timesteps["visits"]
    return (
        f"Timesteps: {timesteps['share']:.1%} of them drawn in {which}; each tenth of the schedule "
        f"has {min(visits):.1%} to {max(visits):.1%} of the draws."
    )


def _network(network: dict[str, Any]) -> str:
    """Return magnitudes by block at the middle noise level, and the checks of the output."""
    level = network["levels"][len(network["levels"]) // 2]
    names = [name for name, value in level["blocks"][0].items() if value is not None]
    rows = [
        ["block", *names],
        ["input", f"{level['input']:.2f}", *[""] * (len(names) - 1)],
        *(
            [str(index), *(f"{block[name]:.2f}" for name in names)]
            for index, block in enumerate(level["blocks"])
        ),
    ]
    skip_sum = level["skip_sum"]
    sums = "Output" if skip_sum is None else f"Sum of the skips {skip_sum:.2f}, output"
    lines = [
        f"Through the network at log-SNR {level['log_snr']:+.1f} (timestep {level['timestep']}), "
        "root mean squares:",
        table(rows),
        f"{sums} {level['output']:.2f}.",
    ]
    share, change = network["broadcast_share"], network["readout_change"]
    if share is not None:
        lines.append(f"{share:.0%} of the output's power is the same in all channels.")
    if change is not None:
        lines.append(f"Without the skips the output changes by {change:.0%}.")
    shifted = network["told"]
    best = [min(row) / row[shifted["shifts"].index(0.0)] for row in shifted["error"]]
    levels = ", ".join(f"{level:+.0f}" for level in shifted["log_snr"])
    lines.append(
        f"Lowest error with any timestep, relative to the right one: "
        f"{', '.join(f'{each:.2f}' for each in best)} (log-SNR {levels})."
    )
    return "\n".join(lines)


def _sampling(sampling: dict[str, Any]) -> str:
    num_steps = sampling["num_steps"]
    shown = sorted({round(part * num_steps / 5) for part in range(6)})
    rows = [["sampling step", *(str(step) for step in shown)]]
    for name, label in (
        ("alpha_bar", "signal power"),
        ("noisy", "noisy latents"),
        ("expected", "predicted by the schedule"),
        ("denoised", "denoised latents"),
        ("linear", "of a linear denoiser"),
    ):
        values = [sampling[name][step] if step < len(sampling[name]) else None for step in shown]
        rows.append([label, *("" if value is None else f"{value:.2f}" for value in values)])
    head = f"Sampling {sampling['count']} clips in {num_steps} steps, root mean squares:"
    return "\n".join([head, table(rows)])


def _samples(figures: dict[str, Any]) -> str:
    samples, nearest = figures["samples"], figures["nearest"]
    if samples is None:
        return "The samples are not finite, so they cannot be measured."
    generated, training, held_out = (samples[k] for k in ("generated", "training", "held_out"))
    rows = [["", "generated", "training"]]
    for name, label in (
        ("frames", "sliced Wasserstein, frames"),
        ("windows", "sliced Wasserstein, 16 frames"),
        ("mean", "mean"),
        ("std", "std"),
        ("covariance", "covariance (relative)"),
        ("autocorrelation", "autocorrelation"),
    ):
        values = [each["distance"][name] for each in (generated, training)]
        rows.append([label, *(f"{value:.3f}" for value in values)])
    lines = [
        "Distance from held-out latents, of generated and of as many training latents:",
        table(rows),
        f"Level of raw latents: {samples['level']:.2f} of the training latents'.",
        f"Extremes in the model's space: generated {_extremes(generated)}, held-out "
        f"{_extremes(held_out)}.",
        f"Distance to the nearest training window: generated {nearest['generated']:.3f}, held-out "
        f"{nearest['held_out']:.3f} (cosine; a copy has 0).",
    ]
    decoded = figures["decoded"]
    if decoded is not None:
        lines.append(
            f"Decoded: generated {decoded['generated']:.1f} dB, held-out {decoded['held_out']:.1f} "
            "dB of full scale."
        )
    predictability, phase, notes = (figures[k] for k in ("predictability", "phase", "notes"))
    if predictability is not None:
        lines.append(predictability_in_words(predictability))
    if phase is not None:
        lines.append(phase_in_words(phase))
    if notes is not None:
        both = (
            f"{label} {notes[name]['note_f1']:.2f} (frames {notes[name]['frame_f1']:.2f})"
            for name, label in (("modelled", "dimensions modelled"), ("followed", "following"))
        )
        lines.append(
            f"Notes of held-out latents as decoded, {notes['per_second']:.1f} per second, F1: "
            f"{', '.join(both)}."
        )
    return "\n".join(lines)


def _extremes(segments: dict[str, Any]) -> str:
    return f"{segments['lowest']:.1f} to {segments['highest']:.1f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as aligned text; the first column is aligned left."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
