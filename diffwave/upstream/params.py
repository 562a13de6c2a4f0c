"""Values and weights of a checkpoint of lmnt diffwave; each is checked when it is read."""

from __future__ import annotations

import reprlib
from typing import Any

import torch
from torch import Tensor

from diffwave.schedule import NoiseSchedule, alpha_bar_from_betas

LARGEST_SIZE = 2**24  # largest size of a layer, a hop or a clip
MAX_DILATION_CYCLE = 32


class Params:
    """The `params` of a checkpoint.

    Args:
        params: Values by name.
        what: Name of the checkpoint in a message.
        remedy: Advice in a message about a missing value.
    """

    def __init__(
        self,
        params: dict[str, Any],
        what: str,
        remedy: str = "Train it again with the patches of this version.",
    ) -> None:
        self._params = params
        self.what = what
        self._remedy = remedy

    def _value(self, name: str) -> Any:
        if self._params.get(name) is None:
            raise ValueError(
                f"{self.what} has no '{name}' in its params, so its model cannot be built. "
                + self._remedy
            )
        return self._params[name]

    def refusal(self, name: str, needed: str) -> ValueError:
        """Return the error that states a value and what is needed instead."""
        value = reprlib.repr(self._params[name])
        return ValueError(f"{self.what} has {name} = {value} in its params; {needed} is needed.")

    def size(self, name: str, largest: int = LARGEST_SIZE) -> int:
        """Return a whole number from 1 to `largest`."""
        value = self._value(name)
        if type(value) is not int or not 1 <= value <= largest:
            raise self.refusal(name, f"a whole number from 1 to {largest}")
        return value

    def text(self, name: str) -> str:
        """Return a name."""
        value = self._value(name)
        if not isinstance(value, str):
            raise self.refusal(name, "a name")
        return value

    def betas(self, name: str, largest: float = 1.0) -> list[float]:
        """Return the betas of a noise schedule, the first above 0, none above `largest`."""
        betas = self._value(name)
        is_list = isinstance(betas, list) and all(isinstance(beta, float | int) for beta in betas)
        if not is_list or not betas or min(betas) < 0 or max(betas) > largest or betas[0] == 0:
            raise self.refusal(name, f"a list of betas from 0 to {largest:g} (the first above 0)")
        return [float(beta) for beta in betas]

    def schedule(self) -> NoiseSchedule:
        """Return the noise schedule."""
        betas = torch.tensor(self.betas("noise_schedule"), dtype=torch.float64)
        return NoiseSchedule(alpha_bar_from_betas(betas))


def checked_weight(weights: dict[str, Any], name: str, shape: torch.Size, what: str) -> Tensor:
    """Return a weight of a checkpoint.

    Raises:
        ValueError: If it is missing or has another shape; the message names it.
    """
    weight = weights.get(name)
    if not isinstance(weight, Tensor) or weight.shape != shape or not weight.is_floating_point():
        state = f"is {tuple(weight.shape)}" if isinstance(weight, Tensor) else "is missing"
        raise ValueError(f"{what}: weight '{name}' {state}; {tuple(shape)} is needed.")
    return weight
