"""Requests of the page: the limits of its numbers, and a method for each button."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffwave.app.commands import Job
from diffwave.app.session import LERP, MAX_SOUND_S, SLERP, Session
from diffwave.app.storage import Output, Sound
from rave.parsing import MAX_SEED

BLENDS = {"along a great circle": SLERP, "along a line": LERP}
NO_SOUND = "Record or drop a sound first."


@dataclass(frozen=True)
class Bounds:
    """Limits of a number on the page.

    Attributes:
        name: Name for messages.
        low: Smallest value.
        high: Largest value.
        value: Value when the page opens.
        step: Difference of neighbouring values.
    """

    name: str
    low: float
    high: float
    value: float = 0
    step: float = 1

    def check(self, value: Any) -> Any:
        """Return the number.

        Raises:
            ValueError: If `value` is not a number, or is out of bounds.
        """
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and self.low <= value <= self.high:
            return value
        what = f"is {value!r}" if is_number else "is missing"
        raise ValueError(f"The {self.name} {what}; {self.low:g} to {self.high:.10g} is needed.")

    def whole(self, value: Any) -> int:
        """Return the number as an integer.

        Raises:
            ValueError: If `value` is not a whole number, or is out of bounds.
        """
        number = self.check(value)
        if number != int(number):
            raise ValueError(f"The {self.name} is {value!r}; a whole number is needed.")
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


class Requests:
    """A method for each button. It takes job, seed and steps, then the values of its tab.

    Each checks the values, and raises what the session's method of its name raises.

    Args:
        session: The session that does the work.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

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
    ) -> Output:
        """Return new music, free or following the sound or a label."""
        length, scale = LENGTH.check(seconds), GUIDANCE.check(guidance)
        return self.session.generate(
            length, seed, steps, sound, follow or [], label or None, scale, job
        )

    def vary(self, job: Job, seed: int, steps: int, sound: Sound | None, strength: Any) -> Output:
        """Return a variation of the sound."""
        return self.session.vary(_needed(sound), STRENGTH.check(strength), seed, steps, job)

    def inpaint(
        self, job: Job, seed: int, steps: int, sound: Sound | None, from_s: Any, to_s: Any
    ) -> Output:
        """Return the sound with a span inpainted."""
        span = START.check(from_s), END.check(to_s)
        return self.session.inpaint(_needed(sound), *span, seed, steps, job)

    def extend(self, job: Job, seed: int, steps: int, sound: Sound | None, seconds: Any) -> Output:
        """Return the sound with a continuation."""
        return self.session.extend(_needed(sound), MORE.check(seconds), seed, steps, job)

    def bend(self, job: Job, seed: int, _steps: int, sound: Sound | None, *sliders: Any) -> Output:
        """Return the sound, bent; `sliders` are offset and stretch of each axis in turn."""
        shifts = [OFFSET.check(value) for value in sliders[::2]]
        scales = [STRETCH.check(value) for value in sliders[1::2]]
        return self.session.bend(_needed(sound), shifts, scales, seed, job)

    def mix(
        self,
        job: Job,
        seed: int,
        _steps: int,
        sound: Sound | None,
        second: Sound | None,
        weight: Any,
        blend: str,
    ) -> Output:
        """Return the blend of two sounds."""
        other = _needed(second, "Record or drop a second sound first.")
        share = WEIGHT.check(weight)
        return self.session.mix(_needed(sound), other, share, BLENDS.get(blend, blend), seed, job)


def _needed(sound: Sound | None, message: str = NO_SOUND) -> Sound:
    if sound is None:
        raise ValueError(message)
    return sound
