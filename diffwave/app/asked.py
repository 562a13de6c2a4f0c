"""What a button asks the workshop for, from values as the page has them: checked before work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffwave.app.commands import Job
from diffwave.app.kept import Made, Sound
from diffwave.app.workshop import LERP, MAX_SOUND_S, SLERP, Workshop
from rave.parsing import MAX_SEED

WAYS = {"along a great circle": SLERP, "along a line": LERP}
NO_SOUND = "Record or drop a sound first."


@dataclass(frozen=True)
class Bounds:
    """A number that the page asks for.

    Attributes:
        name: What it is, in a sentence.
        low: The least that it may be.
        high: The most that it may be.
        value: What it is at first.
        step: From one value to the next; 1 where it counts something.
    """

    name: str
    low: float
    high: float
    value: float = 0
    step: float = 1

    def check(self, given: Any) -> Any:
        """Return the number.

        Raises:
            ValueError: If it is none, or is out of bounds.
        """
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        if is_number and self.low <= given <= self.high:
            return given
        what = f"is {given!r}" if is_number else "is not there"
        raise ValueError(f"The {self.name} {what}; {self.low:g} to {self.high:.10g} is needed.")

    def whole(self, given: Any) -> int:
        """Return the number, which must be a whole one.

        Raises:
            ValueError: If it is none, or is out of bounds.
        """
        number = self.check(given)
        if number != int(number):
            raise ValueError(f"The {self.name} is {given!r}; a whole number is needed.")
        return int(number)


SEED = Bounds("seed", 0, MAX_SEED)
STEPS = Bounds("number of steps", 1, 200, 30)
LENGTH = Bounds("length in seconds", 1, 60, 10)
GUIDANCE = Bounds("guidance", 0, 6, 1, 0.1)
STRENGTH = Bounds("strength", 0, 1, 0.5, 0.05)
START = Bounds("start in seconds", 0, MAX_SOUND_S, 1, 0.01)
END = Bounds("end in seconds", 0, MAX_SOUND_S, 2, 0.01)
MORE = Bounds("number of seconds to add", 1, 60, 5)
OFFSET = Bounds("offset", -3, 3, 0, 0.1)
STRETCH = Bounds("stretch", 0, 3, 1, 0.1)
WEIGHT = Bounds("share of the second sound", 0, 1, 0.5, 0.01)


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
        length, scale = LENGTH.check(seconds), GUIDANCE.check(guidance)
        return self.shop.generate(
            length, seed, steps, sound, follow or [], label or None, scale, job
        )

    def vary(self, job: Job, seed: int, steps: int, sound: Sound | None, strength: Any) -> Made:
        """Return a variation of the sound."""
        return self.shop.vary(_given(sound), STRENGTH.check(strength), seed, steps, job)

    def inpaint(
        self, job: Job, seed: int, steps: int, sound: Sound | None, from_s: Any, to_s: Any
    ) -> Made:
        """Return the sound with a span made anew."""
        given, span = _given(sound), (START.check(from_s), END.check(to_s))
        return self.shop.inpaint(given, *span, seed, steps, job)

    def extend(self, job: Job, seed: int, steps: int, sound: Sound | None, seconds: Any) -> Made:
        """Return the sound and what comes after it."""
        return self.shop.extend(_given(sound), MORE.check(seconds), seed, steps, job)

    def bend(self, job: Job, seed: int, _steps: int, sound: Sound | None, *sliders: Any) -> Made:
        """Return the sound bent; offset and stretch of each axis, one after the other."""
        shifts = [OFFSET.check(value) for value in sliders[::2]]
        scales = [STRETCH.check(value) for value in sliders[1::2]]
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
        share = WEIGHT.check(weight)
        return self.shop.mix(_given(sound), other, share, WAYS.get(way, way), seed, job)


def _given(sound: Sound | None, otherwise: str = NO_SOUND) -> Sound:
    if sound is None:
        raise ValueError(otherwise)
    return sound
