"""The work of the page: it adds sounds and makes results from them by commands."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffwave.api.inference import generate
from diffwave.app.commands import Command, Job, as_typed, command, rounded, run_command, short
from diffwave.app.storage import (
    Output,
    Record,
    Sound,
    file_name,
    new_folder,
    newest_results,
    store,
)
from diffwave.conditioner import LABEL, LabelConditioner
from diffwave.run import open_run
from rave.api.decode import decode_folder
from rave.api.encode import encode_folder
from rave.api.interpolate import interpolate_audio
from rave.api.result import Result
from rave.audio.formats import AUDIO_SUFFIXES
from rave.audio.io import AudioStream, write_audio
from rave.codec import load_codec
from rave.compute.arrays import Float32Array
from rave.compute.device import choose_device
from rave.latents.folder import LatentHeader, read_latents

# A longer sound is cut; a larger file is refused.
MAX_SOUND_S, MAX_FILE_GB = 300.0, 1
LERP, SLERP = "lerp", "slerp"
ENCODE, DECODE, INTERPOLATE = ("rave", "encode"), ("rave", "decode"), ("rave", "interpolate")
INFERENCE = ("python", "-m", "diffwave.inference")
AGAIN = Path("again")


class Session:
    """A codec, perhaps a diffusion model of its latents, and a folder for sounds and results.

    It runs one job at a time; others wait.

    Args:
        folder: Folder of sounds and results.
        codec: Run folder, or a .ts file.
        diffusion: Run folder of diffwave.train, or None.
        device: Device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ValueError: If a model cannot be opened, or the two do not match.
    """

    def __init__(
        self, folder: Path, codec: Path, diffusion: Path | None = None, device: str = "auto"
    ) -> None:
        self.folder, self.codec_path, self.run_path = folder.resolve(), codec, diffusion
        self._device = {} if device == "auto" else {"device": device}
        self.codec = load_codec(codec, choose_device(device))
        self._working = threading.Lock()
        self.follows: list[str] = []
        self.labels: list[str] = []
        if diffusion is not None:
            run = open_run(diffusion)
            run.header.identity.check_same(
                self.codec.format.identity,
                f"The diffusion model '{diffusion}'",
                f"the codec '{codec}'",
                "Give its own codec with --codec, or leave --diffusion out.",
            )
            self.follows = [name for name in run.model.conditioners if name != LABEL]
            if isinstance(labels := run.model.named_conditioners().get(LABEL), LabelConditioner):
                self.labels = labels.names
        self.folder.mkdir(parents=True, exist_ok=True)

    def add_sound(self, source: Path, job: Job | None = None) -> Sound:
        """Copy an audio file into the folder, cut if it is long, and encode it.

        Raises:
            ValueError: If the file cannot be used.
            OSError: If the folder cannot be written.
        """
        job = job or Job()
        suffix = source.suffix.lower()
        if suffix not in AUDIO_SUFFIXES:
            raise ValueError(
                f"'{source.name}' is not a supported audio file. Supported: "
                f"{' '.join(sorted(AUDIO_SUFFIXES))}."
            )
        name = file_name(source.stem, 60) or "sound"
        with job.turn(self._working), new_folder(self.folder, "sound") as folder:
            audio = folder / "audio" / f"{name}{suffix}"
            audio.parent.mkdir()
            seconds = self._seconds(source)
            if seconds > MAX_SOUND_S:
                minutes = f"{MAX_SOUND_S / 60:g} minutes"
                job.warn([f"Only the first {minutes} are used. Split the file to use the rest."])
                audio, seconds = audio.with_suffix(".wav"), MAX_SOUND_S
                self._cut(source, audio, job)
            else:
                shutil.copyfile(source, audio)
            latents = folder / "latents"
            encoded = run_command(self._encode(_short(audio.parent), _short(latents)), job)
            levels = encoded.figures["levels"].values()
            job.warn(each["remark"] for each in levels if each["remark"])
            for notes in encoded.figures["notes"].values():
                job.warn(notes)
            return Sound(audio, next(latents.glob("*.npy")), seconds, job.warnings)

    def results(self, count: int) -> list[Output]:
        """Return at most `count` results of the folder, the newest first."""
        return newest_results(self.folder, count)

    def axes_of(self, latents: Path) -> tuple[Float32Array, Float32Array]:
        """Return latents along their principal axes (D, N), widest first, and the axes' shares.

        The axes are the codec's; if it has none, the dimensions by their variance.
        """
        raw = np.array(read_latents(latents, self.codec.format.latent_size))
        try:
            mean, axes = self.codec.principal_axes()
            along = axes @ (raw - mean[:, None])
        except ValueError:
            along = raw[np.argsort(-raw.var(axis=1))]
        variance = along.var(axis=1)
        return along, variance / max(float(variance.sum()), 1e-12)

    def axes_of_result(self, result: Output) -> tuple[Float32Array, Float32Array] | None:
        """Return the axes of a result, or None if it has no latents of this codec."""
        if result.latents is None:
            return None
        try:
            folder = result.latents.parent
            self.codec.check_latents(LatentHeader.read(folder), folder)
            return self.axes_of(result.latents)
        except ValueError:
            return None

    def spreads(self, sound: Sound) -> Float32Array:
        """Return the standard deviation of a sound along each principal axis, (D,)."""
        return np.asarray(self.axes_of(sound.latents)[0].std(axis=1))

    def bend(
        self,
        sound: Sound,
        shifts: Sequence[float],
        scales: Sequence[float],
        seed: int = 0,
        job: Job | None = None,
    ) -> Output:
        """Return a sound bent along its first axes.

        Args:
            sound: Input.
            shifts: Offset of each of the first axes, in standard deviations of this sound.
            scales: Factor of each of the first axes; 1 does not change an axis.
            seed: Seed of the decoder's noise.
            job: May stop it.

        Raises:
            ValueError: If a command refuses; as of all methods below.
            OSError: If a file cannot be written; as of all methods below.
            Stopped: If it was stopped; as of all methods below.
        """
        spread = self.spreads(sound)
        scaled = {axis: rounded(scale) for axis, scale in enumerate(scales) if scale != 1}
        shifted = {
            axis: rounded(shift * float(spread[axis]), 4)
            for axis, shift in enumerate(shifts)
            if shift
        }
        bends = {"scale": scaled, "shift": shifted} if scaled or shifted else {}
        title = f"{sound.audio.stem}, bent" if bends else f"{sound.audio.stem}, through the codec"

        def commands(out: Path) -> list[Command]:
            return [self._decode(_short(sound.latents.parent), out, seed, **bends)]

        return self._make("bend", title, commands, "*", seed, job)

    def mix(
        self,
        first: Sound,
        second: Sound,
        weight: float,
        blend: str = SLERP,
        seed: int = 0,
        job: Job | None = None,
    ) -> Output:
        """Return the blend of two sounds, as long as the shorter; weight 0 is the first."""
        sources = [_short(sound.audio) for sound in (first, second)]
        if blend not in (LERP, SLERP):
            raise ValueError(f"Unknown blend '{blend}'. Choose {LERP} or {SLERP}.")

        def commands(out: Path) -> list[Command]:
            options: dict[str, Any] = {"weight": rounded(weight), "seed": seed}
            options |= {**self._level, **self._device}
            places = (self._codec, sources, out / "audio")
            return [command(INTERPOLATE, interpolate_audio, *places, **options)]

        title = f"{first.audio.stem} {1 - weight:.0%}, {second.audio.stem} {weight:.0%}"
        return self._make("mix", title, commands, blend, seed, job)

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
    ) -> Output:
        """Return new music, free or following parts of a sound or a label."""
        for name in [*follow, *([label] if label else [])]:
            if name not in [*self.follows, *self.labels]:
                known = ", ".join([*self.follows, *self.labels]) or "nothing"
                raise ValueError(f"The model follows {known}; it cannot follow {name}.")
        options: dict[str, Any] = {}
        if follow:
            if sound is None:
                raise ValueError("To follow a sound, record or drop one first.")
            options["from_audio"] = _short(sound.audio)
            if set(follow) != set(self.follows):
                options["follow"] = list(follow)
        if label:
            options["label"] = label
        if options and guidance != 1:
            options["guidance"] = rounded(guidance)
        if not follow or sound is None or seconds < sound.seconds:
            options["seconds"] = rounded(seconds)
        title = "New music"
        if followed := [*follow, *([f"label {label}"] if label else [])]:
            title += f", following {' and '.join(followed)}"
        return self._sample("generate", title, options, seed, steps, job)

    def vary(
        self, sound: Sound, strength: float, seed: int = 0, steps: int = 50, job: Job | None = None
    ) -> Output:
        """Return a variation of a sound; strength 0 changes nothing, 1 keeps nothing."""
        options = {"vary": _short(sound.latents), "strength": rounded(strength)}
        title = f"{sound.audio.stem}, varied by {strength:g}"
        return self._sample("vary", title, options, seed, steps, job)

    def inpaint(
        self,
        sound: Sound,
        from_s: float,
        to_s: float,
        seed: int = 0,
        steps: int = 25,
        job: Job | None = None,
    ) -> Output:
        """Return a sound with a span inpainted."""
        if not 0 <= from_s < to_s <= sound.seconds + 1 / self.codec.format.identity.frame_rate_hz:
            raise ValueError(
                f"The span from {from_s:g} s to {to_s:g} s is not within the sound, which lasts "
                f"{sound.seconds:.2f} s. Choose a start before the end, both within the sound."
            )
        span = {"from_s": rounded(from_s), "to_s": rounded(to_s)}
        options = {"inpaint": _short(sound.latents), **span}
        title = f"{sound.audio.stem}, inpainted from {from_s:g} s to {to_s:g} s"
        return self._sample("inpaint", title, options, seed, steps, job)

    def extend(
        self, sound: Sound, seconds: float, seed: int = 0, steps: int = 25, job: Job | None = None
    ) -> Output:
        """Return a sound with a continuation."""
        options = {"continued": _short(sound.latents), "seconds": rounded(seconds)}
        title = f"{sound.audio.stem}, continued by {seconds:g} s"
        return self._sample("continue", title, options, seed, steps, job)

    def _sample(
        self,
        kind: str,
        title: str,
        options: Mapping[str, Any],
        seed: int,
        steps: int,
        job: Job | None,
    ) -> Output:
        if self.run_path is None:
            raise ValueError("This needs a diffusion model. Start with rave app --diffusion RUN.")
        run = _short(self.run_path)
        options = {**options, "count": 1, "steps": steps, "seed": seed, **self._device}

        def commands(out: Path) -> list[Command]:
            latents = out / "latents"
            sample = command(INFERENCE, generate, run, latents, is_watched=True, **options)
            return [sample, self._decode(latents, out, seed)]

        return self._make(kind, title, commands, "*", seed, job)

    @property
    def _codec(self) -> Path:
        return _short(self.codec_path)

    @property
    def _level(self) -> dict[str, bool]:
        return {"match_level": True} if self.codec.format.is_level_known else {}

    def _encode(self, audio: Path, latents: Path) -> Command:
        options: dict[str, Any] = {**self._level, **self._device}
        return command(ENCODE, encode_folder, self._codec, audio, latents, **options)

    def _decode(self, latents: Path, out: Path, seed: int, **bends: Any) -> Command:
        options = {**bends, "seed": seed, **self._device}
        places = (self._codec, latents, out / "audio")
        return command(DECODE, decode_folder, *places, **options)

    def _make(
        self,
        kind: str,
        title: str,
        commands: Callable[[Path], list[Command]],
        stem: str,
        seed: int,
        job: Job | None,
    ) -> Output:
        job = job or Job()
        with job.turn(self._working), new_folder(self.folder, kind) as folder:
            for each in commands(_short(folder)):
                run_command(each, job, stem)
            audio = next((folder / "audio").glob(f"{stem}.wav"))
            again = as_typed(commands(AGAIN / folder.name))
            record = Record(title, self._seconds(audio), seed, again, job.warnings)
            return store(folder, audio, record)

    def _seconds(self, path: Path) -> float:
        """Return the duration of a file, or one above `MAX_SOUND_S` if it is longer than that."""
        rate_hz, count = self.codec.format.sample_rate_hz, 0
        for block in AudioStream(path, rate_hz, self.codec.format.num_channels):
            count += block.shape[1]
            if count > MAX_SOUND_S * rate_hz:
                break
        return count / rate_hz

    def _cut(self, source: Path, path: Path, job: Job) -> None:
        rate_hz, num_channels = self.codec.format.sample_rate_hz, self.codec.format.num_channels
        stream = AudioStream(source, rate_hz, num_channels)
        num_samples = round(MAX_SOUND_S * rate_hz)
        quantizer = write_audio(path, stream, rate_hz, num_channels, num_samples)
        limited = Result("", written={path.name: quantizer.figures}).warnings
        job.warn([*stream.notes, *limited.get(path.name, [])])


def _short(path: Path) -> Path:
    return Path(short(path))
