"""Noise schedules: how much of the data is left at each of T timesteps.

    noisy = sqrt(alpha_bar) * latents + sqrt(1 - alpha_bar) * noise

One number per timestep defines a schedule: alpha_bar, the signal power.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
# Name: first beta, last beta, T. "diffwave" is Kong et al. 2020, "audioldm" Liu et al. 2023
# (arXiv:2301.12503); the low ones keep a large part of the data at their last timestep.
LINEAR_SCHEDULES = {
    "diffwave": (1e-4, 0.05, 50),
    "audioldm": (0.0015, 0.0195, NUM_TIMESTEPS),
    "linear-low-0.0085": (1e-5, 0.0085, NUM_TIMESTEPS),
    "linear-low-0.005": (1e-5, 0.005, NUM_TIMESTEPS),
    "linear-low-0.0195": (1e-5, 0.0195, NUM_TIMESTEPS),
}
COSINE = "cosine"
FLOW = "flow"
SCHEDULES = (COSINE, FLOW, *LINEAR_SCHEDULES)


class NoiseSchedule:
    """The signal power at each timestep, and quantities that follow from it.

    Args:
        alpha_bar: (T,) signal power in [0, 1), never rising; stored as float64 on the CPU.

    Raises:
        ValueError: If `alpha_bar` is not such a tensor.
    """

    def __init__(self, alpha_bar: Tensor) -> None:
        alpha_bar = alpha_bar.detach().cpu().double()
        is_vector = alpha_bar.ndim == 1 and len(alpha_bar) > 0
        if not is_vector or not bool(((alpha_bar >= 0) & (alpha_bar < 1)).all()):
            raise ValueError("A noise schedule needs one signal power in [0, 1) per timestep.")
        if bool((alpha_bar.diff() > 0).any()):
            raise ValueError(
                "The signal power of a noise schedule must not rise with the timestep."
            )
        self.alpha_bar = alpha_bar

    def __len__(self) -> int:
        return len(self.alpha_bar)

    @property
    def betas(self) -> Tensor:
        """Return the noise power added by each timestep: (T,) float64 in (0, 1]."""
        before = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        return 1.0 - self.alpha_bar / before

    @property
    def sigma(self) -> Tensor:
        """Return the noise level relative to the data: (T,) float64, infinite at zero signal."""
        return sigma_from_alpha_bar(self.alpha_bar)

    @property
    def log_snr(self) -> Tensor:
        """Return log(signal power / noise power): (T,) float64."""
        return torch.logit(self.alpha_bar)

    @property
    def is_zero_terminal(self) -> bool:
        """Return whether the last timestep is pure noise."""
        return bool(self.alpha_bar[-1] == 0)


def sigma_from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """Return the noise level of a signal power."""
    return ((1.0 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_from_log_snr(log_snr: Tensor) -> Tensor:
    """Return the signal power of a log signal-to-noise ratio."""
    return torch.sigmoid(log_snr)


def alpha_bar_from_betas(betas: Tensor) -> Tensor:
    """Return the signal power after each of the given betas."""
    return torch.cumprod(1.0 - betas.double(), dim=0)


def linear_schedule(start: float, end: float, num_timesteps: int) -> NoiseSchedule:
    """Return the schedule with linearly rising beta.

    Args:
        start: First beta, in (0, 1).
        end: Last beta, in (0, 1).
        num_timesteps: T.

    Source: Ho et al. 2020, arXiv:2006.11239, section 4.
    """
    if not (0 < start < 1 and 0 < end < 1 and num_timesteps > 0):
        raise ValueError(
            f"The linear schedule has betas from {start} to {end} and {num_timesteps} timesteps; "
            "betas must be between 0 and 1, and at least one timestep is needed."
        )
    betas = torch.linspace(start, end, num_timesteps, dtype=torch.float64)
    return NoiseSchedule(alpha_bar_from_betas(betas))


def cosine_schedule(num_timesteps: int, offset: float = 0.008) -> NoiseSchedule:
    """Return the cosine schedule, which ends in pure noise.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17. Differs: the last beta is 1, not
    clipped to 0.999, so that the last timestep holds no signal, as the sampler's first does (Lin et
    al. 2023, arXiv:2305.08891).
    """
    position = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
    power = torch.cos((position + offset) / (1 + offset) * torch.pi / 2).square()
    alpha_bar = power[1:] / power[0]
    alpha_bar[-1] = 0.0
    return NoiseSchedule(alpha_bar)


def flow_schedule(num_timesteps: int) -> NoiseSchedule:
    """Return the schedule of flow matching: equal steps along the straight path to pure noise.

    On the path (1 - tau)·latents + tau·noise, tau rises linearly to 1. The signal power is that of
    the path scaled to power 1.

    Source: Liu et al. 2023, arXiv:2209.03003, section 2.1.
    """
    tau = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
    return NoiseSchedule((1 - tau).square() / ((1 - tau).square() + tau.square()))


def named_schedule(name: str) -> NoiseSchedule:
    """Return a schedule by name.

    Raises:
        ValueError: If there is no such schedule; the message lists all schedules.
    """
    if name == COSINE:
        return cosine_schedule(NUM_TIMESTEPS)
    if name == FLOW:
        return flow_schedule(NUM_TIMESTEPS)
    if name not in LINEAR_SCHEDULES:
        raise ValueError(f"There is no schedule '{name}'. Choose one of: {', '.join(SCHEDULES)}.")
    return linear_schedule(*LINEAR_SCHEDULES[name])
