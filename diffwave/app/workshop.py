"""What the page can do, without the page: sounds come in, commands make others of them.

FOLDER/001-sound/audio/a.wav, latents/      a sound that was given, and its latents
FOLDER/002-vary/latents/, audio/            what was made; command.txt makes it again
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffwave.app.commands import INFERENCE, Command, Job, as_typed, run_command, short
from diffwave.conditioner import LABEL, LabelConditioner
from diffwave.run import open_run
from rave.audio import AudioStream, write_audio
from rave.audio_formats import AUDIO_SUFFIXES
from rave.bending import principal_axes
from rave.codec import load_codec
from rave.device import choose_device
from rave.latents import read_latents

Array = NDArray[np.float32]
# A sound is cut to this, and nothing longer is made: what one waits for in front of a page.
MAX_SOUND_S, MAX_MADE_S = 300.0, 300.0
MAX_SEED = 2**31 - 1
LERP, SLERP = "lerp", "slerp"
AGAIN = Path("again")


@dataclass(frozen=True)
class Sound:
    """A sound that was given.

    Attributes:
        audio: Its file.
        latents: The file of its latents.
        seconds: Its length.
        note: What was done to it on the way in; empty if nothing.
    """

    audio: Path
    latents: Path
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Made:
    """A sound that was made.

    Attributes:
        title: What it is, in a few words.
        audio: Its file, a WAV.
        latents: The file of its latents, if it has one.
        seconds: Its length.
        seed: Of the noise in it.
        command: Shell lines that make it again, in the folder `again`.
    """

    title: str
    audio: Path
    latents: Path | None
    seconds: float
    seed: int
    command: str


class Workshop:
    """A codec, perhaps a diffusion model of its latents, and a folder for sounds.

    Args:
        folder: For all that is given and made; kept.
        codec: Run folder, or a .ts file.
        diffusion: Run folder of diffwave.train, or None.
        device: As for the commands.

    Raises:
        ValueError: If a model cannot be opened, or they do not belong together.
    """

    def __init__(
        self, folder: Path, codec: Path, diffusion: Path | None = None, device: str = "auto"
    ) -> None:
        self.folder, self.codec_path, self.run_path = folder.resolve(), codec, diffusion
        self._device: tuple[str, ...] = () if device == "auto" else ("--device", device)
        self.codec = load_codec(codec, choose_device(device))
        self.follows: list[str] = []
        self.labels: list[str] = []
        if diffusion is not None:
            run = open_run(diffusion)
            self.codec.check_latents(run.header, diffusion)
            self.follows = [name for name in run.model.conditioners if name != LABEL]
            if isinstance(labels := run.model.named_conditioners().get(LABEL), LabelConditioner):
                self.labels = labels.names
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def frame_rate_hz(self) -> float:
        """Return latent frames per second."""
        return self.codec.format.sample_rate_hz / self.codec.format.hop_samples

    def add_sound(self, given: Path, job: Job | None = None) -> Sound:
        """Take in an audio file: a copy, cut if it is long, and its latents.

        Raises:
            ValueError: If it cannot be used.
            OSError: If the folder cannot be written.
        """
        job = job or Job()
        suffix = given.suffix.lower()
        if suffix not in AUDIO_SUFFIXES:
            raise ValueError(
                f"'{given.name}' is no audio file that is known. Files ending in "
                f"{' '.join(sorted(AUDIO_SUFFIXES))} are read."
            )
        name = re.sub(r"[^\w.-]+", "_", given.stem).strip("._-")[:60] or "sound"
        with self._new_folder("sound") as folder:
            audio, note = folder / "audio" / f"{name}{suffix}", ""
            audio.parent.mkdir()
            seconds = self._seconds(given)
            if seconds > MAX_SOUND_S:
                note = f"Only the first {MAX_SOUND_S / 60:.0f} minutes are taken."
                audio, seconds = audio.with_suffix(".wav"), MAX_SOUND_S
                self._cut(given, audio)
            else:
                shutil.copyfile(given, audio)
            latents = folder / "latents"
            places = (self._codec, short(audio.parent), short(latents))
            encoded = run_command(("rave", "encode", *places, *self._level, *self._device), job)
            for level in encoded.figures["levels"].values():
                note = f"{note} {level['remark'] or ''}".strip()
        return Sound(audio, latents / f"{name}.npy", seconds, note)

    def axes_of(self, latents: Path) -> tuple[Array, Array]:
        """Return latents along their principal axes (D, N), widest first, and the share of each.

        The axes are the codec's; where it does not tell them, the dimensions by their variance.
        """
        raw = np.array(read_latents(latents, self.codec.format.latent_size))
        try:
            mean, axes = principal_axes(self.codec)
            along = axes @ (raw - mean[:, None])
        except ValueError:
            along = raw[np.argsort(-raw.var(axis=1))]
        variance = along.var(axis=1)
        return along, variance / max(float(variance.sum()), 1e-12)

    def spreads(self, sound: Sound) -> Array:
        """Return the standard deviation of a sound along each principal axis, (D,)."""
        return np.asarray(self.axes_of(sound.latents)[0].std(axis=1))

    def bend(
        self,
        sound: Sound,
        shifts: Sequence[float],
        scales: Sequence[float],
        seed: int = 0,
        job: Job | None = None,
    ) -> Made:
        """Return a sound bent along its first axes.

        Args:
            sound: To bend.
            shifts: Of the first axes, in standard deviations of this sound.
            scales: Of the first axes; 1 leaves an axis as it is.
            seed: Of the decoder's noise.
            job: May stop it.

        Raises:
            ValueError: If a command refuses; so do all that follow.
            OSError: If something cannot be written; so do all that follow.
            Stopped: If it was stopped; so do all that follow.
        """
        spread = self.spreads(sound)
        bends = []
        for axis, (shift, scale) in enumerate(zip(shifts, scales, strict=True)):
            if scale != 1:
                bends += ["--scale", f"{axis}={scale:g}"]
            if shift:
                bends += ["--shift", f"{axis}={shift * spread[axis]:.4g}"]
        title = f"{sound.audio.stem}, bent" if bends else f"{sound.audio.stem}, through the codec"

        def commands(out: Path) -> list[Command]:
            source = short(sound.latents.parent)
            return [self._decode(source, out, seed, *bends)]

        return self._make("bend", title, commands, f"{sound.latents.stem}.wav", seed, job)

    def mix(
        self,
        first: Sound,
        second: Sound,
        weight: float,
        way: str = SLERP,
        seed: int = 0,
        job: Job | None = None,
    ) -> Made:
        """Return the blend of two sounds, cut to the shorter; weight 0 is the first."""
        sources = [short(sound.audio) for sound in (first, second)]
        if way not in (LERP, SLERP):
            raise ValueError(f"There is no way '{way}' to blend; {LERP} and {SLERP} there are.")

        def commands(out: Path) -> list[Command]:
            places = ("rave", "interpolate", self._codec, *sources, short(out / "audio"))
            options = ("--weight", f"{weight:g}", "--seed", str(seed), *self._level)
            return [(*places, *options, *self._device)]

        title = f"{first.audio.stem} {1 - weight:.0%}, {second.audio.stem} {weight:.0%}"
        return self._make("mix", title, commands, f"{way}.wav", seed, job)

    def generate(
        self,
        seconds: float,
        seed: int = 0,
        steps: int = 50,
        sound: Sound | None = None,
        follow: Sequence[str] = (),
        label: str | None = None,
        guidance: float = 1.0,
        job: Job | None = None,
    ) -> Made:
        """Return new music, free or following parts of a sound or a label."""
        _check_seconds(seconds)
        for name in [*follow, *([label] if label else [])]:
            if name not in [*self.follows, *self.labels]:
                known = ", ".join([*self.follows, *self.labels]) or "nothing"
                raise ValueError(f"The model follows {known}; it cannot follow {name}.")
        words: list[str] = []
        if follow:
            if sound is None:
                raise ValueError("To follow a sound, record or drop one first.")
            words += ["--from-audio", short(sound.audio)]
            if set(follow) != set(self.follows):
                words += [word for name in follow for word in ("--follow", name)]
        if label:
            words += [f"--label={label}"]
        if words and guidance != 1:
            words += ["--guidance", f"{guidance:g}"]
        if not follow or sound is None or seconds < sound.seconds:
            words += ["--seconds", f"{seconds:g}"]
        title = f"New, following {' and '.join(follow)}" if follow else "New"
        return self._sample("generate", title, words, seed, steps, job)

    def vary(
        self, sound: Sound, strength: float, seed: int = 0, steps: int = 50, job: Job | None = None
    ) -> Made:
        """Return a variation of a sound; strength 0 changes nothing, 1 leaves nothing."""
        words = ["--vary", short(sound.latents), "--strength", f"{strength:g}"]
        title = f"{sound.audio.stem}, varied by {strength:g}"
        return self._sample("vary", title, words, seed, steps, job)

    def inpaint(
        self,
        sound: Sound,
        from_s: float,
        to_s: float,
        seed: int = 0,
        steps: int = 25,
        job: Job | None = None,
    ) -> Made:
        """Return a sound with a span of it made anew."""
        if not 0 <= from_s < to_s <= sound.seconds + 1 / self.frame_rate_hz:
            raise ValueError(
                f"{from_s:g} s to {to_s:g} s is no span of the sound, which lasts "
                f"{sound.seconds:.2f} s. Choose the start before the end, both within it."
            )
        words = ["--inpaint", short(sound.latents), "--from", f"{from_s:g}", "--to", f"{to_s:g}"]
        title = f"{sound.audio.stem}, anew from {from_s:g} s to {to_s:g} s"
        return self._sample("inpaint", title, words, seed, steps, job)

    def extend(
        self, sound: Sound, seconds: float, seed: int = 0, steps: int = 25, job: Job | None = None
    ) -> Made:
        """Return a sound with a continuation."""
        _check_seconds(seconds)
        words = ["--continue", short(sound.latents), "--seconds", f"{seconds:g}"]
        title = f"{sound.audio.stem}, and {seconds:g} s more"
        return self._sample("continue", title, words, seed, steps, job)

    def _sample(
        self, kind: str, title: str, words: list[str], seed: int, steps: int, job: Job | None
    ) -> Made:
        if self.run_path is None:
            raise ValueError("This needs a diffusion model: start with rave app --diffusion RUN.")
        run = short(self.run_path)
        options = [*words, "--count", "1", "--steps", str(steps), "--seed", str(seed)]

        def commands(out: Path) -> list[Command]:
            latents = short(out / "latents")
            sample = (*INFERENCE, run, latents, *options, *self._device)
            return [sample, self._decode(latents, out, seed)]

        return self._make(kind, title, commands, "generated_000.wav", seed, job)

    @property
    def _codec(self) -> str:
        return short(self.codec_path)

    @property
    def _level(self) -> tuple[str, ...]:
        return ("--match-level",) if self.codec.format.is_level_known else ()

    def _decode(self, latents: str, out: Path, seed: int, *more: str) -> Command:
        places = ("rave", "decode", self._codec, latents, short(out / "audio"))
        return (*places, *more, "--seed", str(seed), *self._device)

    def _make(
        self,
        kind: str,
        title: str,
        commands: Callable[[Path], list[Command]],
        name: str,
        seed: int,
        job: Job | None,
    ) -> Made:
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"The seed is {seed}; 0 to {MAX_SEED} is needed.")
        with self._new_folder(kind) as folder:
            for command in commands(folder):
                run_command(command, job or Job())
            typed = as_typed(commands(AGAIN / folder.name))
            (folder / "command.txt").write_text(typed + "\n")
        audio, latents = folder / "audio" / name, folder / "latents" / "generated_000.npy"
        seconds = self._seconds(audio)
        return Made(title, audio, latents if latents.exists() else None, seconds, seed, typed)

    def _new_folder(self, kind: str) -> _NewFolder:
        return _NewFolder(self.folder, kind)

    def _seconds(self, path: Path) -> float:
        """Return how long a file is, or something longer than a sound may be."""
        rate_hz, count = self.codec.format.sample_rate_hz, 0
        for block in AudioStream(path, rate_hz, self.codec.format.num_channels):
            count += block.shape[1]
            if count > MAX_SOUND_S * rate_hz:
                break
        return count / rate_hz

    def _cut(self, given: Path, path: Path) -> None:
        rate_hz, num_channels = self.codec.format.sample_rate_hz, self.codec.format.num_channels
        stream = AudioStream(given, rate_hz, num_channels)
        write_audio(path, stream, rate_hz, num_channels, round(MAX_SOUND_S * rate_hz))


class _NewFolder:
    """The next numbered folder; removed if what fills it fails."""

    def __init__(self, parent: Path, kind: str) -> None:
        numbers = [int(path.name[:3]) for path in parent.glob("[0-9][0-9][0-9]-*")]
        self.path = parent / f"{max(numbers, default=0) + 1:03d}-{kind}"

    def __enter__(self) -> Path:
        self.path.mkdir()
        return self.path

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            shutil.rmtree(self.path, ignore_errors=True)


def _check_seconds(seconds: float) -> None:
    if not 0 < seconds <= MAX_MADE_S:
        raise ValueError(f"The length is {seconds:g} s; above 0 to {MAX_MADE_S:g} s is needed.")
