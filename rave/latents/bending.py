"""Bend latents along the codec's principal axes. D latent size, N latent frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rave.compute.arrays import Float32Array


@dataclass(frozen=True)
class Bend:
    """Changes of latents along principal axes; axis 0 has the largest variance.

    Attributes:
        shift: Value added along each axis, in units of the latents.
        scale: Factor of the distance from the codec's mean along each axis, before the shift.

    Raises:
        ValueError: If there is no such axis, or a value is not finite.
    """

    shift: Mapping[int, float] = field(default_factory=dict)
    scale: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for axis, value in (*self.shift.items(), *self.scale.items()):
            if axis < 0 or not math.isfinite(value):
                raise ValueError(
                    f"Cannot bend axis {axis} by {value}; axes count from 0, and values must be "
                    "finite."
                )

    @property
    def settings(self) -> dict[str, dict[str, float]]:
        """Return it as JSON-able data; empty if nothing is bent."""
        both = {"shift": self.shift, "scale": self.scale}
        return {
            name: {str(axis): value for axis, value in sorted(values.items())}
            for name, values in both.items()
            if values
        }

    def __call__(
        self, latents: Float32Array, principal_axes: Callable[[], tuple[Float32Array, Float32Array]]
    ) -> Float32Array:
        """Return bent latents (D, N) of raw latents (D, N).

        Raises:
            ValueError: If the codec has no such axis.
        """
        changed = sorted({*self.shift, *self.scale})
        if not changed:
            return latents
        mean, axes = principal_axes()
        if changed[-1] >= len(axes):
            raise ValueError(
                f"Cannot bend axis {changed[-1]}; the latents have the axes 0 to {len(axes) - 1}."
            )
        rows = axes[changed]
        along = rows @ (latents - mean[:, None])
        scale, shift = (
            np.array([values.get(axis, usual) for axis in changed], dtype=np.float32)[:, None]
            for values, usual in ((self.scale, 1.0), (self.shift, 0.0))
        )
        return np.asarray(latents + rows.T @ ((scale - 1) * along + shift), dtype=np.float32)


def parse_bend(shift: Sequence[str], scale: Sequence[str]) -> Bend:
    """Return the bend that options AXIS=VALUE describe.

    Raises:
        ValueError: If an option has another form.
    """
    return Bend(_parsed("--shift", shift), _parsed("--scale", scale))


def _parsed(option: str, texts: Sequence[str]) -> dict[int, float]:
    values: dict[int, float] = {}
    for text in texts:
        axis, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not axis.isdecimal() or not math.isfinite(value):
            raise ValueError(f"{option} {text} is not AXIS=VALUE, such as 0=1.5.")
        values[int(axis)] = value
    return values
