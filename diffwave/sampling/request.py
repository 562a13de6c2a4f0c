"""What `python -m diffwave.inference` is asked for, in latent frames."""

from __future__ import annotations

import argparse
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


def _edit(options: argparse.Namespace) -> tuple[str, Path | None]:
    edits = {"vary": options.vary, "inpaint": options.inpaint, "continue": options.continued}
    return next(((k, p) for k, p in edits.items() if p is not None), ("generate", None))


def check_task(options: argparse.Namespace) -> None:
    """Check that each option is possible and goes with the others, as far as needs no run.

    Raises:
        ValueError: If one is not, or does not.
    """
    kind, path = _edit(options)
    for name, value, owner in (
        ("--strength", options.strength, "vary"),
        ("--from", options.from_s, "inpaint"),
        ("--to", options.to_s, "inpaint"),
    ):
        if value is not None and kind != owner:
            raise ValueError(f"{name} belongs to --{owner}, which was not given.")
    seconds, strength = options.seconds, options.strength
    if options.count is not None and options.count < 1:
        raise ValueError(f"--count is {options.count}; at least 1 is needed.")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds is {seconds}; a number above 0 is needed.")
    if strength is not None and not 0 <= strength <= 1:
        raise ValueError(f"--strength is {strength}; 0 (nothing changes) to 1 (all new) is needed.")
    if kind == "continue" and seconds is None:
        raise ValueError("--continue needs --seconds: how much to add.")
    if kind in ("vary", "inpaint") and seconds is not None:
        raise ValueError(f"--seconds does not go with --{kind}: the result is as long as '{path}'.")
    if kind == "inpaint" and (options.from_s is None or options.to_s is None):
        raise ValueError("--inpaint needs --from and --to, in seconds.")


def task_of(options: argparse.Namespace, trained: DiffusionRun, available: int | None) -> Task:
    """Return what the options of the command ask for.

    Args:
        options: Of `python -m diffwave.inference`, checked by `check_task`.
        trained: The run.
        available: Latent frames that there are conditions for; None if nothing is followed.

    Raises:
        ValueError: If options do not fit the run or the conditions.
    """
    rate_hz = trained.header.frame_rate_hz
    kind, path = _edit(options)
    seconds = options.seconds
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
    if kind == "continue":
        num_frames += max(round(seconds * rate_hz), 1)
    if kind == "inpaint":
        span = (round(options.from_s * rate_hz), round(options.to_s * rate_hz))
        if not 0 <= span[0] < span[1] <= num_frames:
            raise ValueError(
                f"--from {options.from_s} --to {options.to_s} is no span of '{path}', which lasts "
                f"{num_frames / rate_hz:.2f} s."
            )
    if available is not None and available < num_frames:
        raise ValueError(
            f"The condition lasts {available / rate_hz:.2f} s, the result "
            f"{num_frames / rate_hz:.2f} s; a condition covers all of it. Give a longer one."
        )
    strength = 0.5 if options.strength is None else options.strength
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
    header.check_matches(trained.header, f"'{path}'", f"run '{trained.folder}'")
    return given, gain_db
