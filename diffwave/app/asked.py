"""What a button asks the workshop for, from values as the page has them: some may be missing."""

from __future__ import annotations

from typing import Any

from diffwave.app.commands import Job
from diffwave.app.workshop import LERP, SLERP, Made, Sound, Workshop

WAYS = {"along a great circle": SLERP, "along a line": LERP}
NO_SOUND = "Record or drop a sound first."


class Asked:
    """One method for each button; each takes a job, seed and steps, then what its tab holds.

    Every one raises what the workshop's method of its name does.

    Args:
        shop: Does the work.
    """

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop

    def generate(
        self,
        job: Job,
        seed: int,
        steps: int,
        sound: Sound | None,
        seconds: Any,
        follow: list[str] | None,
        label: str | None,
        guidance: Any,
    ) -> Made:
        """Return new music, free or following the sound or a label."""
        length, scale = _number(seconds, "length"), _number(guidance, "guidance")
        return self.shop.generate(
            length, seed, steps, sound, follow or [], label or None, scale, job
        )

    def vary(self, job: Job, seed: int, steps: int, sound: Sound | None, strength: Any) -> Made:
        """Return a variation of the sound."""
        return self.shop.vary(_given(sound), _number(strength, "strength"), seed, steps, job)

    def inpaint(
        self, job: Job, seed: int, steps: int, sound: Sound | None, from_s: Any, to_s: Any
    ) -> Made:
        """Return the sound with a span made anew."""
        given, span = _given(sound), (_number(from_s, "start"), _number(to_s, "end"))
        return self.shop.inpaint(given, *span, seed, steps, job)

    def extend(self, job: Job, seed: int, steps: int, sound: Sound | None, seconds: Any) -> Made:
        """Return the sound and what comes after it."""
        return self.shop.extend(_given(sound), _number(seconds, "length"), seed, steps, job)

    def bend(self, job: Job, seed: int, _steps: int, sound: Sound | None, *sliders: Any) -> Made:
        """Return the sound bent; offset and stretch of each axis, one after the other."""
        shifts = [_number(value, "offset") for value in sliders[::2]]
        scales = [_number(value, "stretch") for value in sliders[1::2]]
        return self.shop.bend(_given(sound), shifts, scales, seed, job)

    def mix(
        self,
        job: Job,
        seed: int,
        _steps: int,
        sound: Sound | None,
        second: Sound | None,
        weight: Any,
        way: str,
    ) -> Made:
        """Return what lies between two sounds."""
        other = _given(second, "Record or drop a second sound first.")
        share = _number(weight, "weight")
        return self.shop.mix(_given(sound), other, share, WAYS.get(way, way), seed, job)


def _given(sound: Sound | None, otherwise: str = NO_SOUND) -> Sound:
    if sound is None:
        raise ValueError(otherwise)
    return sound


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"The {name} is not there; give a number.")
    return float(value)


def whole_number(value: Any, name: str) -> int:
    """Return a number of the page without what follows its point.

    Raises:
        ValueError: If there is none.
    """
    return int(_number(value, name))
