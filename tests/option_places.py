"""What the commands of option_table.py read, made small."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from audio_files import noise, sine, write
from diffwave_data import settings
from numpy.typing import NDArray
from pytest import MonkeyPatch
from rave_models import remember
from rave_runs import RATE_HZ, TINY, checkpoint
from test_diffwave_experiments_runs import SMALL
from test_diffwave_waveform import GOLDEN, make_checkpoint
from test_diffwave_waveform import write_run as write_vocoder

import rave.codec
from diffwave import preprocess, train
from diffwave.experiments.catalogue import catalogue
from rave.evaluation.audio_statistics import AudioStatistics
from rave.evaluation.musicnn import EMBEDDING_SIZE, PATCH_SAMPLES
from rave.main_cli import main
from rave.notes.note import Note
from rave.notes.transcriber import FRAME_SAMPLES, NUM_PITCHES, Transcription
from rave.notes.transcriber import SAMPLE_RATE_HZ as NOTE_RATE_HZ
from rave.runs.checkpoint import last_checkpoint

PLAIN = (int, float, str, list, tuple)
AUDIO_RATE_HZ = 32000  # not the codec's
RAVE_SIZES = (*TINY, "MAX_STEPS=1", "PHASE_1_STEPS=1", "VALIDATE_EVERY_STEPS=1")
PRIOR_SIZES = (
    *("MAX_STEPS=2", "VALIDATE_EVERY=2", "BATCH_SIZE=2", "SEGMENT_FRAMES=16"),
    *("HIDDEN_CHANNELS=8", "SKIP_CHANNELS=8", "NUM_BLOCKS=2"),
)
EXPERIMENTS = ("precision", "cnn")
DIFFUSION_SIZES = ("MAX_STEPS=1", "BATCH_SIZE=2", "FIDELITY=1.0")


def set_words(names: tuple[str, ...]) -> str:
    """Return the words that give settings."""
    return " ".join(f"--set {name.replace(' ', '')}" for name in names)


@dataclass
class Places:
    """Where things are, by the names of the table; made when they are first asked for.

    Args:
        folder: To make them in.
        run: A trained codec.
    """

    folder: Path
    run: Path

    def __post_init__(self) -> None:
        self._made: dict[str, Any] = {
            "rave_sizes": set_words(RAVE_SIZES) + " --device cpu",
            "prior_sizes": set_words(PRIOR_SIZES),
            "diffusion_sizes": " ".join(settings(*DIFFUSION_SIZES)),
        }

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            kind, number = name.removeprefix("other_"), int(name.startswith("other_"))
            self._made[name] = getattr(self, f"_{kind}")(self.folder / name, number)
        return self._made[name]

    def _call(self, command: Any, *words: Any) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert command([str(word) for word in words]) == 0, words

    def _codec(self, path: Path, number: int) -> Path:
        """Return a codec that knows one latent of four to be uninformative."""
        shutil.copytree(self.run, path)
        if number:
            state = checkpoint(path)
            for name, weights in state["state_dict"].items():
                if name.endswith("weight.original0"):  # the norms of encoder and decoder
                    weights *= 2
            torch.save(state, last_checkpoint(path))
        remember(path, True, True, True, False)
        return path

    def _audio(self, path: Path, number: int) -> Path:
        for place, name in enumerate(("a/1.wav", "a/2.wav", "b/3.wav")):
            tone = sine(110 * (2 + place) * (1 + number), AUDIO_RATE_HZ, 0.3, 0.4)
            hiss = noise(tone.shape[1], 2, seed=place, gain=0.05)
            write(path / name, np.tile(tone, (2, 1)) + hiss, AUDIO_RATE_HZ)
        return path

    def _tone(self, path: Path, number: int) -> Path:
        return self[("audio", "other_audio")[number]] / "a" / "1.wav"

    def _long_tone(self, path: Path, number: int) -> Path:
        return write(path.with_suffix(".wav"), sine(150, RATE_HZ, 0.6), RATE_HZ)

    def _music(self, path: Path, number: int) -> Path:
        rng = np.random.default_rng(number)
        for name in ("1", "2", "3", "4"):
            notes = [sine(f, RATE_HZ, 0.6, 0.3) for f in 110 * 2 ** (rng.integers(0, 36, 11) / 12)]
            write(path / f"{name}.wav", np.concatenate(notes, axis=1), RATE_HZ)
        return path

    def _pieces(self, path: Path, number: int) -> Path:
        music = self[("music", "other_music")[number]]
        return shutil.copytree(music, path, ignore=shutil.ignore_patterns("[34].wav"))

    def _prepared(self, path: Path, number: int) -> Path:
        audio = self[("audio", "other_audio")[number]]
        self._call(main, "preprocess", audio, path, "--sample-rate", RATE_HZ)
        return path

    def _latents(self, path: Path, number: int) -> Path:
        audio = self[("audio", "other_audio")[number]]
        self._call(main, "encode", self["codec"], audio, path)
        return path

    def _music_latents(self, path: Path, number: int) -> Path:
        self._call(main, "encode", self["codec"], self["music"], path)
        return path

    def _shards(self, path: Path, number: int) -> Path:
        self._call(main, "shard", self[("latents", "other_latents")[number]], path)
        return path

    def _conditions(self, path: Path, latents: str, audio: str, *words: Any) -> Path:
        self._call(preprocess.main, self[latents], self[audio], path, *words)
        return path

    def _controls(self, path: Path, number: int) -> Path:
        """Return controls of the latents; the other ones are not of their own audio."""
        audio = ("audio", "other_audio")[number]
        return self._conditions(path, "latents", audio, "--controls", "loudness", "chroma")

    def _spectrograms(self, path: Path, number: int) -> Path:
        audio = ("audio", "other_audio")[number]
        return self._conditions(path, "latents", audio, "--mel-hop", 32, "--mels", 4)

    def _music_controls(self, path: Path, number: int) -> Path:
        audio = ("music", "other_music")[number]
        return self._conditions(path, "music_latents", audio, "--controls", "loudness")

    def _music_spectrograms(self, path: Path, number: int) -> Path:
        audio = ("music", "other_music")[number]
        return self._conditions(path, "music_latents", audio, "--mel-hop", 32, "--mels", 4)

    def _train(self, path: Path, latents: str, number: int, *words: Any) -> Path:
        sizes = self["diffusion_sizes"].split()
        options = ["--out", path, "--config", "tiny", "--seed", number, *sizes, *words]
        self._call(train.main, self[latents], *options)
        return path

    def _diffusion(self, path: Path, number: int) -> Path:
        """Return a run that follows all that there is."""
        followed = ["--controls", self["controls"], "--spectrograms", self["spectrograms"]]
        return self._train(path, "latents", number, *followed, "--labels")

    def _free(self, path: Path, number: int) -> Path:
        return self._train(path, "latents", number)

    def _music_run(self, path: Path, number: int) -> Path:
        followed = ["--controls", self["music_controls"]]
        followed += ["--spectrograms", self["music_spectrograms"]]
        held_out = ["--set", "HELD_OUT_FRACTION=0.5"]
        return self._train(path, "music_latents", number, *followed, *held_out)

    def _prior(self, path: Path, number: int) -> Path:
        sizes = self["prior_sizes"].split()
        options = ["--out", path, "--config", "prior/tiny", "--seed", number, *sizes]
        self._call(main, "train_prior", self["latents"], *options)
        return path

    def _free_vocoder(self, path: Path, number: int) -> Path:
        return self._vocoder(path, number, "unconditional")

    def _vocoder(self, path: Path, number: int, kind: str = "conditional") -> Path:
        with np.load(GOLDEN) as arrays:
            golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        checkpoint = make_checkpoint(golden, kind)
        for weight in checkpoint["model"].values():
            weight *= 1 + number / 10
        return write_vocoder(path, checkpoint)

    def _lmnt_mel(self, path: Path, number: int) -> Path:
        with np.load(GOLDEN) as arrays:
            np.save(path.with_suffix(".npy"), arrays["spectrogram"][0] / (1 + number))
        return path.with_suffix(".npy")

    def _clip(self, path: Path, number: int) -> Path:
        return self["latents"] / ("a/1.npy", "b/3.npy")[number]

    def _mel(self, path: Path, number: int) -> Path:
        return self["spectrograms"] / "a" / "1.npy"

    def _loudness(self, path: Path, number: int) -> Path:
        return self["controls"] / "loudness" / "a" / "1.npy"


@contextlib.contextmanager
def standing_in():
    """Let slow parts be small, and what is not installed on every machine be missing.

    Compiling TorchScript takes a second a file, so what would be compiled is written instead.
    """
    with MonkeyPatch.context() as patch:
        for name in ("FULL", "QUICK"):
            patch.setattr(f"diffwave.experiments.recipe.{name}", SMALL)
        patch.setattr("diffwave.experiments.catalogue.catalogue", few_experiments)
        patch.setattr("diffwave.experiments.catalogue.QUICK_NAMES", EXPERIMENTS[:1])
        patch.setattr("torch.set_num_threads", lambda number: print(number, "threads"))
        patch.setattr("rave.evaluation.folders.load_musicnn", lambda: None)
        patch.setattr("rave.evaluation.folders.Transcriber", Guesser)
        patch.setattr("rave.notes.transcriber.Transcriber", Guesser)
        patch.setattr("rave.evaluation.folders.embed", embed)
        patch.setattr("rave.evaluation.folders.measure", measured)
        patch.setattr("diffwave.app.server.serving", serving)
        patch.setattr("diffwave.app.server.open_browser", lambda *given: print("a browser"))
        patch.setattr("diffwave.app.server.threading", MagicMock(Event=interrupt))
        find, load = importlib.util.find_spec, rave.codec.load_codec
        patch.setattr(
            "rave.compute.backend.importlib.util.find_spec",
            lambda name: None if name == "openvino" else find(name),
        )
        patch.setattr("rave.export.torchscript.write_torchscript", write_parts)
        patch.setattr("rave.codec_format.write_torchscript", write_parts)
        patch.setattr("rave.streaming.nn_tilde.scripted", lambda module: module)
        patch.setattr("diffwave.streaming.nn_tilde.scripted", lambda module: module)
        patch.setattr("diffwave.streaming.nn_tilde.MAX_STEPS", 8)
        patch.setattr("diffwave.api.export._guess", lambda *given: torch.zeros(1))
        patch.setattr("rave.codec_source.noise_outputs", lambda *given: (torch.zeros(1),))
        patch.setattr(
            "rave.codec.load_codec",
            lambda path, *given, **more: (
                MagicMock(format=MagicMock(fingerprint=""))
                if Path(path).suffix == ".ts"
                else load(path, *given, **more)
            ),
        )
        yield


def write_parts(module: torch.nn.Module, form: Any, path: Path) -> None:
    """Write all values that a module holds."""
    with path.open("wb") as file:
        file.write(repr(form).encode())
        for name, part in module.named_modules():
            plain = {k: v for k, v in vars(part).items() if isinstance(v, PLAIN)}
            file.write(repr((name, type(part).__name__, plain)).encode())
            for tensor in [*part._parameters.values(), *part._buffers.values()]:
                file.write(b"" if tensor is None else tensor.detach().numpy().tobytes())


def few_experiments(scale: Any, seed: int = 0) -> list[Any]:
    """Return the experiments that take the least time."""
    return [each for each in catalogue(scale, seed) if each.name in EXPERIMENTS]


def embed(model: None, audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return embeddings of audio that nothing was listened to for: other audio has others."""
    rng = np.random.default_rng(zlib.crc32(audio.tobytes()))
    return rng.standard_normal((len(audio) // PATCH_SAMPLES, EMBEDDING_SIZE)).astype(np.float32)


class Guesser:
    """Stands in for the network that transcribes: other audio has other notes."""

    def transcribe(self, blocks: Iterable[NDArray[np.float32]]) -> Transcription:
        audio = np.concatenate([*blocks], axis=1)
        rng = np.random.default_rng(zlib.crc32(audio.tobytes()))
        duration_s = audio.size / NOTE_RATE_HZ
        starts = np.sort(rng.uniform(0, duration_s, 2 + round(2 * duration_s)))
        notes = [Note(s, s + rng.uniform(0.1, 0.6), int(rng.integers(40, 80))) for s in starts]
        sounds = rng.random((-(-audio.size // FRAME_SAMPLES), NUM_PITCHES)) < 0.05
        return Transcription(notes, np.packbits(sounds, axis=1), duration_s)


def measured(audio: NDArray[np.float32], sample_rate_hz: int) -> AudioStatistics:
    """Return statistics of which only length and power are those of the audio."""
    power, duration_s = float(np.square(audio).mean()), len(audio) / sample_rate_hz
    zeros, chroma = np.zeros((2, 3)), np.full((2, 12), 1 / 12)
    return AudioStatistics(
        duration_s, power, 1.0, sample_rate_hz / 4, 0.5, zeros, zeros, 2, zeros[0], chroma, zeros[0]
    )


@contextlib.contextmanager
def serving(shop: Any, port: int | None) -> Iterator[str]:
    """Print what would be served."""
    print(shop.folder, shop.codec_path, shop.run_path, port)
    yield "address"


def interrupt(*given: Any) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt
