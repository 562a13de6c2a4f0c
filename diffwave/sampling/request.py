"""What to make: a request in seconds, and the task that it is in latent frames of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diffwave.run import DiffusionRun
    from diffwave.sampling.editing import Sampling

DEFAULT_S = 10.0


@dataclass(frozen=True)
class Task:
    """What is asked for, in latent frames.

    Attributes:
        kind: generate, vary, inpaint or continue.
        num_frames: Of each result.
        given: Raw latents (D, N) to begin with, memory-mapped.
        span: Frames to make anew.
        strength: Of a variation.
        gain_db: That the audio of `given` was brought to the codec's training level with.
    """

    kind: str
    num_frames: int
    given: NDArray[Any] | None = None
    span: tuple[int, int] = (0, 0)
    strength: float = 1.0
    gain_db: float = 0.0

    def num_calls(self, sampling: Sampling) -> int:
        """Return how many times the model is called for one batch."""
        from diffwave.sampling.editing import steps_of

        windows, num_steps = sampling.windows, sampling.num_steps
        if self.kind in ("generate", "vary"):
            return windows.count(self.num_frames) * steps_of(self.strength, num_steps)
        if self.given is None or self.kind == "inpaint":
            return num_steps
        done, reach = self.given.shape[1], sampling.model.network.receptive_field_frames
        first = max(windows.num_frames - min(done, reach), 1)
        later = max(windows.num_frames - reach, 1)
        return num_steps * (1 + max(-(-(self.num_frames - done - first) // later), 0))

    def blocks(self, sampling: Sampling) -> Iterator[NDArray[Any]]:
        """Yield the results, (B, D, n) each."""
        import numpy as np

        from diffwave.sampling.editing import continue_clip, generate_long, inpaint, vary

        def given(start: int, stop: int) -> Iterator[NDArray[Any]]:
            """Yield frames as they were given, for each item."""
            assert self.given is not None
            for first in range(start, stop, sampling.windows.num_frames):
                part = np.array(
                    self.given[:, first : min(first + sampling.windows.num_frames, stop)]
                )
                yield np.repeat(part[None], len(sampling.indices), axis=0)

        if self.given is None:
            yield from (block.cpu().numpy() for block in generate_long(sampling, self.num_frames))
        elif self.kind == "vary":
            blocks = vary(sampling, self.given, self.strength)
            yield from (block.cpu().numpy() for block in blocks)
        elif self.kind == "inpaint":
            yield from given(0, self.span[0])
            yield inpaint(sampling, self.given, *self.span).cpu().numpy()
            yield from given(self.span[1], self.num_frames)
        else:
            length = self.given.shape[1]
            yield from given(0, length)
            added = continue_clip(sampling, self.given, self.num_frames - length)
            yield from (block.cpu().numpy() for block in added)


@dataclass(frozen=True)
class Request:
    """What to make, as it is asked for; checked as far as that needs no run.

    Attributes:
        count: Clips to make.
        seconds: Length of each, or what is added to a clip that is continued. None: as long as the
            conditions, or 10 s.
        vary: Latents to vary, a .npy file of shape (D, N).
        inpaint: Latents of which a span is replaced.
        continued: Latents to continue.
        strength: Of a variation: 0 changes nothing, 1 keeps nothing. None: 0.5.
        from_s: Start of the span to replace.
        to_s: End of the span to replace.
        sampler: Name of the sampler. None: the default one.
        window: Seconds sampled at a time. None: the default.

    Raises:
        ValueError: If a value is not possible, or two do not go together.
    """

    count: int = 1
    seconds: float | None = None
    vary: Path | None = None
    inpaint: Path | None = None
    continued: Path | None = None
    strength: float | None = None
    from_s: float | None = None
    to_s: float | None = None
    sampler: str | None = None
    window: float | None = None

    def __post_init__(self) -> None:
        """Check each value, and that it goes with the others."""
        kinds = list(self._edits)
        if len(kinds) > 1:
            raise ValueError(f"--{kinds[1]} does not go with --{kinds[0]}. Give one of them.")
        kind, seconds, strength = self.kind, self.seconds, self.strength
        for name, value, owner in (
            ("--strength", strength, "vary"),
            ("--from", self.from_s, "inpaint"),
            ("--to", self.to_s, "inpaint"),
        ):
            if value is not None and kind != owner:
                raise ValueError(f"{name} belongs to --{owner}, which was not given.")
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; at least 1 is needed.")
        if seconds is not None and not 0 < seconds < float("inf"):
            raise ValueError(f"--seconds is {seconds}; a number above 0 is needed.")
        if strength is not None and not 0 <= strength <= 1:
            raise ValueError(
                f"--strength is {strength}; 0 (nothing changes) to 1 (all new) is needed."
            )
        if kind == "continue" and seconds is None:
            raise ValueError("--continue needs --seconds: how much to add.")
        if kind in ("vary", "inpaint") and seconds is not None:
            raise ValueError(
                f"--seconds does not go with --{kind}: the result is as long as "
                f"'{self._edits[kind]}'."
            )
        if kind == "inpaint" and (self.from_s is None or self.to_s is None):
            raise ValueError("--inpaint needs --from and --to, in seconds.")
        if kind in ("inpaint", "continue") and self.sampler is not None:
            raise ValueError(
                f"--sampler does not go with --{kind}, which has a sampler of its own."
            )
        if kind == "inpaint" and self.window is not None:
            raise ValueError("--window does not go with --inpaint: a span is made in one piece.")

    @property
    def _edits(self) -> dict[str, Path]:
        edits = {"vary": self.vary, "inpaint": self.inpaint, "continue": self.continued}
        return {kind: path for kind, path in edits.items() if path is not None}

    @property
    def kind(self) -> str:
        """Return generate, vary, inpaint or continue."""
        return next(iter(self._edits), "generate")

    def task(self, trained: DiffusionRun, available: int | None) -> Task:
        """Return what is asked for, in latent frames of a run.

        Args:
            trained: The run.
            available: Latent frames that there are conditions for; None if nothing is followed.

        Raises:
            ValueError: If the request does not fit the run or the conditions.
        """
        rate_hz, kind, seconds = trained.header.frame_rate_hz, self.kind, self.seconds
        path = self._edits.get(kind)
        if path is None:
            if seconds is None and available is not None:
                return Task(kind, available)
            num_frames = max(round((DEFAULT_S if seconds is None else seconds) * rate_hz), 1)
            if available is not None and num_frames > available:
                raise ValueError(
                    f"--seconds {seconds} is longer than the condition, which lasts "
                    f"{available / rate_hz:.2f} s. Ask for less, or leave --seconds out."
                )
            return Task(kind, num_frames)
        given, gain_db = _read_given(path, trained)
        num_frames = given.shape[1]
        span = (0, 0)
        if seconds is not None:
            num_frames += max(round(seconds * rate_hz), 1)
        if self.from_s is not None and self.to_s is not None:
            span = (round(self.from_s * rate_hz), round(self.to_s * rate_hz))
            if not 0 <= span[0] < span[1] <= num_frames:
                raise ValueError(
                    f"--from {self.from_s} --to {self.to_s} is no span of '{path}', which lasts "
                    f"{num_frames / rate_hz:.2f} s."
                )
        if available is not None and available < num_frames:
            raise ValueError(
                f"The condition lasts {available / rate_hz:.2f} s, the result "
                f"{num_frames / rate_hz:.2f} s; a condition covers all of it. Give a longer one."
            )
        strength = 0.5 if self.strength is None else self.strength
        return Task(kind, num_frames, given, span, strength, gain_db)


def _read_given(path: Path, trained: DiffusionRun) -> tuple[NDArray[Any], float]:
    """Return raw latents to begin with, of the codec that the run was trained on; and the gain."""
    from rave.latents.folder import find_header, read_latents

    given = read_latents(path, trained.header.latent_size)
    if given.shape[1] == 0:
        raise ValueError(f"'{path}' holds no frames.")
    found = find_header(path)
    if found is None:
        return given, 0.0
    header, gain_db = found
    header.identity.check_same(trained.header.identity, f"'{path}'", f"run '{trained.folder}'")
    return given, gain_db
