"""Measurements inside a trained network, on held-out latents.

B segments, K latent size, H hidden channels, N latent frames, L noise levels, T timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffwave.denoiser import add_noise, stratified_timesteps, target
from diffwave.diagnosis.failures import (
    BROADCAST_OUTPUT,
    FOREIGN_SCHEDULE,
    RESIDUAL_READOUT,
    Finding,
)
from diffwave.model import LatentDiffusion
from diffwave.network import DiffWave
from diffwave.schedule import NoiseSchedule
from diffwave.training import NOISE_STREAM, generator_for
from rave.compute.arrays import FloatArray

# Log-SNR at which magnitudes are measured: form, between, detail.
LEVELS = (-4, 0, 4)
# Shifts of the timestep that the network gets, as shares of the schedule.
SHIFTS = (-0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2)
# Log-SNR at which timesteps are shifted; outside, predictions hardly depend on the timestep.
SCHEDULE_LEVELS = (-4, -2, 0, 2, 4)
# Reported as broadcast: a larger share of the prediction's power in its mean over channels.
# Independent channels have 1 / K, equal ones 1.
BROADCAST_SHARE = 0.9
# Reported as read from the residual stream: without the skips, the prediction changes by less than
# this, relatively. If it is read from the skips, it changes by 1.
READOUT_CHANGE = 0.05
# Smaller root mean squares count as no prediction: the network has not been trained.
SMALLEST_PREDICTION = 1e-4
# Reported as foreign: a smaller error with the best timestep, relative to that with the right one.
# A network of this schedule is best at the right one, up to the choice of the segments.
FOREIGN_GAIN = 0.97
# Schedules are the same if no signal power differs by more; float32 rounding is below.
SAME_ALPHA_BAR = 1e-3
# Measured in each block; a transformer has only the first.
BLOCK_PARTS = ("x", "y", "gate", "skip", "condition", "timestep")
# Largest number of training steps that are replayed: enough to draw each of 1000 timesteps.
REPLAYED_STEPS = 20000


@dataclass(frozen=True)
class Probe:
    """Held-out segments with fixed noise, on which a network predicts at any noise level.

    Attributes:
        model: Model in evaluation mode.
        latents: (B, K, N) standardized latents without padding.
        noise: (B, K, N) noise.
        inputs: Conditions of the segments by name.
    """

    model: LatentDiffusion
    latents: Tensor
    noise: Tensor
    inputs: Mapping[str, Tensor]

    def timestep(self, log_snr: float) -> int:
        """Return the timestep with the nearest noise level."""
        return int((self.model.schedule.log_snr - log_snr).abs().argmin())

    @torch.no_grad()
    def predict(
        self, timestep: int, stated: int | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the prediction and its target, each (B, K, N).

        Args:
            timestep: Timestep of the noise in the latents.
            stated: Timestep that the network gets as input. None: the same.
            inputs: Conditions that it gets. None: those of the segments.
        """
        count, _, num_frames = self.latents.shape
        alpha_bar = self.model.alpha_bar(torch.full((count,), timestep))
        condition = self.model.condition(
            self.inputs if inputs is None else inputs, None, count, num_frames
        )
        steps = torch.full((count,), timestep if stated is None else stated)
        output = self.model(add_noise(self.latents, self.noise, alpha_bar), steps, condition)
        return output, target(self.model.prediction, self.latents, self.noise, alpha_bar)


def rms(values: Tensor) -> float:
    """Return the root mean square."""
    return float(values.cpu().double().square().mean().sqrt())  # not every device has float64


def magnitudes(probe: Probe, log_snr: float) -> dict[str, Any]:
    """Return root mean squares inside the network at the timestep nearest to a log-SNR.

    Returns:
        `input`, `skip_sum` and `output` of the network; `blocks`, for each block `x`, the stream
        after it; `y`, the input of the gate; `gate`, the sigmoid, 0 to 1; `skip`; `condition` and
        `timestep`, which these add to y and to x (None without conditions).
    """
    network, seen = probe.model.network, dict[tuple[int, str], Any]()
    handles = []

    def watch(module: nn.Module | None, key: tuple[int, str]) -> None:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen[key] = output

        if module is not None:
            handles.append(module.register_forward_hook(hook))

    watch(network.input, (-1, "input"))
    if isinstance(network, DiffWave):
        handles.append(
            network.skip.register_forward_pre_hook(
                lambda _, inputs: seen.__setitem__((-1, "skips"), inputs[0])
            )
        )
    for index, block in enumerate(network.blocks):
        for name in ("step", "dilated", "scale", "condition"):
            watch(getattr(block, name, None), (index, name))
        watch(block, (index, "block"))
    timestep = probe.timestep(log_snr)
    try:
        output, _ = probe.predict(timestep)
    finally:
        for handle in handles:
            handle.remove()
    blocks = [
        _block_magnitudes({name: value for (place, name), value in seen.items() if place == index})
        for index in range(len(network.blocks))
    ]
    skips = seen.get((-1, "skips"))
    return {
        "log_snr": float(probe.model.schedule.log_snr[timestep]),
        "timestep": timestep,
        "input": rms(seen[(-1, "input")].relu() if skips is not None else seen[(-1, "input")]),
        "blocks": blocks,
        "skip_sum": None if skips is None else rms(skips),
        "output": rms(output),
    }


def _block_magnitudes(seen: dict[str, Any]) -> dict[str, float | None]:
    if "dilated" not in seen:  # a transformer has only a stream
        return {**dict.fromkeys(BLOCK_PARTS), "x": rms(seen["block"])}
    dilated = seen["dilated"]
    y = dilated if "scale" not in seen else dilated * (1.0 + seen["scale"])
    y = y if "condition" not in seen else y + seen["condition"]
    x, skip = seen["block"]
    return {
        "x": rms(x),
        "y": rms(y),
        "gate": rms(y.chunk(2, dim=1)[1].sigmoid()),
        "skip": rms(skip),
        "condition": rms(y - dilated) if "condition" in seen else None,
        "timestep": rms(seen["step"]),
    }


def _centred(prediction: Tensor) -> Tensor:
    """Return a prediction without its mean in each channel, which carries no information."""
    return prediction - prediction.mean(dim=(0, 2), keepdim=True)


def broadcast_share(probe: Probe) -> float | None:
    """Return the share of the prediction's power that lies in its mean over channels.

    None for a network with one channel, or with predictions of almost 0.
    """
    prediction = _centred(probe.predict(probe.timestep(0))[0])
    if prediction.shape[1] < 2 or rms(prediction) < SMALLEST_PREDICTION:
        return None
    return rms(prediction.mean(dim=1)) ** 2 / rms(prediction) ** 2


def broadcast_output(share: float | None, latent_size: int) -> Finding | None:
    """Return a finding if all channels of the prediction are (almost) the same.

    Args:
        share: Share that `broadcast_share` returned.
        latent_size: Number of channels K.
    """
    if share is None or not share > BROADCAST_SHARE:
        return None
    return Finding(
        BROADCAST_OUTPUT,
        f"{share:.0%} of the prediction's power is the same in all {latent_size} channels; "
        f"independent channels would have about {1 / latent_size:.0%}.",
    )


def readout_change(probe: Probe) -> float | None:
    """Return the relative change of the prediction if the skips of all blocks are left out.

    None for a network without skips, or with predictions of almost 0.
    """
    if not isinstance(probe.model.network, DiffWave):
        return None
    timestep = probe.timestep(0)
    whole = _centred(probe.predict(timestep)[0])
    if rms(whole) < SMALLEST_PREDICTION:
        return None
    handles = [
        block.register_forward_hook(lambda _, __, output: (output[0], 0.0 * output[1]))
        for block in probe.model.network.blocks
    ]
    try:
        without = _centred(probe.predict(timestep)[0])
    finally:
        for handle in handles:
            handle.remove()
    return rms(whole - without) / rms(whole)


def residual_readout(change: float | None) -> Finding | None:
    """Return a finding if the prediction does not come from the skips (`readout_change`)."""
    if change is None or not change < READOUT_CHANGE:
        return None
    return Finding(
        RESIDUAL_READOUT,
        f"Without the skips of all blocks the prediction changes by {change:.1%}: it is read from "
        "the residual stream, which each block divides by the square root of 2.",
    )


def shifted_errors(probe: Probe) -> dict[str, Any]:
    """Return mean squared errors if the network gets other timesteps than the latents have.

    Returns:
        `log_snr` of L levels; `shifts` of the timestep as shares of the schedule; `error`,
        (L, number of shifts); `zero`, (L,), the error of predicting 0.
    """
    last = len(probe.model.schedule) - 1
    timesteps = sorted({probe.timestep(level) for level in SCHEDULE_LEVELS}, reverse=True)
    errors, zero = [], []
    for right in timesteps:
        shifted = [min(max(right + round(shift * last), 0), last) for shift in SHIFTS]
        pairs = [probe.predict(right, each) for each in shifted]
        errors.append([rms(output - wanted) ** 2 for output, wanted in pairs])
        zero.append(rms(pairs[0][1]) ** 2)
    log_snr = probe.model.schedule.log_snr[timesteps].tolist()
    return {"log_snr": log_snr, "shifts": list(SHIFTS), "error": errors, "zero": zero}


def foreign_schedule(errors: FloatArray, zero: FloatArray) -> Finding | None:
    """Return a finding if the error falls with timesteps to one side of the right ones.

    Args:
        errors: (L, number of `SHIFTS`) errors that `shifted_errors` returned.
        zero: (L,) errors of predicting 0. A network that is never better has learnt nothing,
            with any schedule.
    """
    right = errors[:, SHIFTS.index(0.0)]
    best = np.asarray(SHIFTS)[errors.argmin(axis=1)]
    is_better = errors.min(axis=1) < FOREIGN_GAIN * np.minimum(right, zero)
    sides = set(np.sign(best[is_better]))
    if 2 * is_better.sum() <= len(errors) or len(sides) != 1:
        return None
    side = "less" if sides.pop() < 0 else "more"
    lowest = float((errors.min(axis=1) / right)[is_better].mean())
    return Finding(
        FOREIGN_SCHEDULE,
        f"At {is_better.sum()} of {len(errors)} noise levels the error falls to {lowest:.2f} with "
        f"a timestep of {side} noise than there is: the network was trained with another schedule "
        "than the checkpoint holds.",
    )


def other_schedule(found: NoiseSchedule, named: NoiseSchedule) -> Finding | None:
    """Return a finding if a checkpoint's schedule is not the one that its run names.

    Args:
        found: Schedule of the checkpoint.
        named: Schedule of model.gin.
    """
    if len(found) == len(named):
        difference = float((found.alpha_bar - named.alpha_bar).abs().max())
        if difference <= SAME_ALPHA_BAR:
            return None
        what = f"differs by up to {difference:.2g} of signal power from"
    else:
        what = f"has {len(found)} timesteps, not the {len(named)} of"
    return Finding(
        FOREIGN_SCHEDULE, f"The checkpoint's schedule {what} the one that the run's config names."
    )


def timestep_coverage(
    seed: int, batch_size: int, num_steps: int, num_timesteps: int
) -> dict[str, Any]:
    """Return which timesteps a training has drawn, by drawing them again.

    Returns:
        `replayed_steps` of `num_steps`; `share` of the timesteps drawn at least once; `visits`,
        the share of all draws in each tenth of the schedule.
    """
    replayed = min(num_steps, REPLAYED_STEPS)
    visits = torch.zeros(num_timesteps, dtype=torch.int64)
    for step in range(replayed):
        generator = generator_for(seed, NOISE_STREAM, step)
        drawn = stratified_timesteps(batch_size, num_timesteps, generator)
        visits += torch.bincount(drawn, minlength=num_timesteps)
    tenth = torch.arange(num_timesteps) * 10 // num_timesteps
    per_tenth = torch.zeros(10, dtype=torch.int64).index_add_(0, tenth, visits)
    return {
        "num_steps": num_steps,
        "replayed_steps": replayed,
        "share": float((visits > 0).double().mean()),
        "visits": (per_tenth / max(int(visits.sum()), 1)).tolist(),
    }
