"""A request in seconds, and the same as a task in latent frames of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from diffwave.run import DiffusionRun
    from diffwave.sampling.generation import Sampling

DEFAULT_S = 10.0


@dataclass(frozen=True)
class Task:
    """A request in latent frames.

    Attributes:
        kind: generate, vary, inpaint or continue.
        num_frames: Frames of each result.
        clip: Raw latents (D, N) to edit, memory-mapped. None: nothing is edited.
        span: First frame to inpaint, and the frame after the last.
        strength: Strength of a variation, 0 to 1.
        gain_db: Gain that brought the audio of `clip` to the codec's training level.
    """

    kind: str
    num_frames: int
    clip: NDArray[Any] | None = None
    span: tuple[int, int] = (0, 0)
    strength: float = 1.0
    gain_db: float = 0.0

    def num_calls(self, sampling: Sampling) -> int:
        """Return the number of sampling steps of one batch, over all windows."""
        from diffwave.sampling.editing import steps_of

        windows, num_steps = sampling.windows_of(self.num_frames), sampling.num_steps
        if self.kind in ("generate", "vary"):
            return windows.count(self.num_frames) * steps_of(self.strength, num_steps)
        if self.clip is None or self.kind == "inpaint":
            return num_steps
        done, reach = self.clip.shape[1], sampling.model.network.receptive_field_frames
        first = max(windows.num_frames - min(done, reach), 1)
        later = max(windows.num_frames - reach, 1)
        return num_steps * (1 + max(-(-(self.num_frames - done - first) // later), 0))

    def blocks(self, sampling: Sampling) -> Iterator[Tensor]:
        """Yield the raw latents of the results, (B, D, n) each, `num_frames` frames in all."""
        from diffwave.sampling.editing import continue_clip, inpaint, unchanged, vary

        if self.clip is None:
            yield from sampling.stream(self.num_frames)
        elif self.kind == "vary":
            yield from vary(sampling, self.clip, self.strength)
        elif self.kind == "inpaint":
            yield from unchanged(sampling, self.clip, 0, self.span[0])
            yield inpaint(sampling, self.clip, *self.span)
            yield from unchanged(sampling, self.clip, self.span[1], self.num_frames)
        else:
            length = self.clip.shape[1]
            yield from unchanged(sampling, self.clip, 0, length)
            yield from continue_clip(sampling, self.clip, self.num_frames - length)


@dataclass(frozen=True)
class Request:
    """A request, checked as far as possible without a run.

    Attributes:
        count: Number of clips.
        seconds: Length of each, or of a continuation. None: as long as the conditions, or 10 s.
        vary: Latents to vary, a .npy file of shape (D, N).
        inpaint: Latents of which a span is inpainted.
        continued: Latents to continue.
        strength: Strength of a variation: 0 changes nothing, 1 keeps nothing. None: 0.5.
        from_s: Start of the span to inpaint.
        to_s: End of the span to inpaint.
        sampler: Name of the sampler. None: the default one.
        window: Seconds sampled at a time. None: the default.

    Raises:
        ValueError: If a value is out of range, or two values exclude each other.
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
                raise ValueError(f"{name} works only with --{owner}. Add it, or leave {name} out.")
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; at least 1 is needed.")
        if seconds is not None and not 0 < seconds < float("inf"):
            raise ValueError(f"--seconds is {seconds}; a number above 0 is needed.")
        if strength is not None and not 0 <= strength <= 1:
            raise ValueError(
                f"--strength is {strength}; 0 (nothing changes) to 1 (all new) is needed."
            )
        if kind == "continue" and seconds is None:
            raise ValueError("--continue needs --seconds: the length to add.")
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
            raise ValueError("--window does not go with --inpaint: a span is sampled at once.")

    @property
    def _edits(self) -> dict[str, Path]:
        edits = {"vary": self.vary, "inpaint": self.inpaint, "continue": self.continued}
        return {kind: path for kind, path in edits.items() if path is not None}

    @property
    def kind(self) -> str:
        """Return generate, vary, inpaint or continue."""
        return next(iter(self._edits), "generate")

    def task(self, trained: DiffusionRun, available: int | None) -> Task:
        """Return the request in latent frames of a run.

        Args:
            trained: The run.
            available: Latent frames that the conditions cover; None without conditions.

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
                    f"{available / rate_hz:.2f} s. Give fewer --seconds, or leave --seconds out."
                )
            return Task(kind, num_frames)
        clip, gain_db = _read_clip(path, trained)
        num_frames = clip.shape[1]
        span = (0, 0)
        if seconds is not None:
            num_frames += max(round(seconds * rate_hz), 1)
        if self.from_s is not None and self.to_s is not None:
            span = (round(self.from_s * rate_hz), round(self.to_s * rate_hz))
            if not 0 <= span[0] < span[1] <= num_frames:
                raise ValueError(
                    f"--from {self.from_s} --to {self.to_s} is not a span of '{path}', which lasts "
                    f"{num_frames / rate_hz:.2f} s. Give --from below --to, both within it."
                )
        if available is not None and available < num_frames:
            raise ValueError(
                f"The condition lasts {available / rate_hz:.2f} s, the result "
                f"{num_frames / rate_hz:.2f} s. Give a condition that is at least as long."
            )
        strength = 0.5 if self.strength is None else self.strength
        return Task(kind, num_frames, clip, span, strength, gain_db)


def _read_clip(path: Path, trained: DiffusionRun) -> tuple[NDArray[Any], float]:
    """Return raw latents to edit, of the codec of the run's training, and the gain of the audio."""
    from rave.latents.folder import find_header, read_latents

    clip = read_latents(path, trained.header.latent_size)
    if clip.shape[1] == 0:
        raise ValueError(f"'{path}' holds no frames.")
    found = find_header(path)
    if found is None:
        return clip, 0.0
    header, gain_db = found
    header.identity.check_same(trained.header.identity, f"'{path}'", f"run '{trained.folder}'")
    return clip, gain_db
