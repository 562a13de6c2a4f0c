"""Make audio with a waveform run of lmnt diffwave, and the spectrograms that such a run follows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffwave.conditions.spectrogram import LogMel, open_spectrogram
from diffwave.upstream.vocoder import Vocoder, read_vocoder
from diffwave.upstream.waveform import HOP_SAMPLES
from rave.api.result import Result
from rave.audio.blocks import WRITTEN
from rave.audio.io import list_audio_files, read_audio, write_audio
from rave.compute.device import choose_device
from rave.files.atomic import (
    check_no_source,
    check_output_folder,
    check_record,
    remove_partials,
)
from rave.files.errors import SkipFile
from rave.jobs.journal import Journal
from rave.jobs.loop import process_files, result_names
from rave.latents.folder import write_latents
from rave.parsing import check_seed, one_line

SUFFIXES = (".wav", ".flac")
SPEC = ".spec.npy"
AUDIO_JOURNAL, SPECTROGRAM_JOURNAL = ".inference.jsonl", ".preprocess.jsonl"
LMNT_RATE_HZ, LMNT_MELS = 22050, 80  # defaults of lmnt diffwave


@dataclass(frozen=True)
class Clip:
    """Length and spectrogram of the audio to generate.

    Attributes:
        num_samples: Length of the audio in samples.
        spectrogram: (1, M, F) spectrogram to follow, or None.
    """

    num_samples: int
    spectrogram: Tensor | None


def vocode_audio(
    run: str | Path,
    out: str | Path,
    *,
    spectrogram: str | Path | None = None,
    from_audio: str | Path | None = None,
    count: int | None = None,
    seconds: float | None = None,
    fast: bool = False,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
) -> Result:
    """Generate audio with a waveform run, from spectrograms or from noise.

    Args:
        run: Run folder of lmnt diffwave, or its weights.pt.
        out: Folder to write, or for one clip a file that ends in .wav or .flac.
        spectrogram: File of `make_vocoder_spectrograms` to follow, or a folder of them.
        from_audio: Audio file to follow, or a folder of them.
        count: Number of clips, each with its own noise. None: 1.
        seconds: Length of each clip, for a run without spectrograms. None: as in its training.
        fast: Use the run's short noise schedule.
        seed: Random seed of the first clip.
        device: auto, cpu, cuda, cuda:N or mps.
        force: Replace existing files.

    Raises:
        ValueError: If the run is not a waveform run, a value is not possible, or an input does not
            fit.
        AudioError: If the audio to follow cannot be read.
        OSError: If a file cannot be read or written.
    """
    run, out = Path(run), Path(out)
    vocoder = read_vocoder(run)
    if vocoder is None:
        raise ValueError(
            f"'{run}' is not a waveform run of lmnt diffwave. python -m diffwave.inference "
            "generates latents with a run of diffwave.train."
        )
    torch_device, seed = choose_device(device), check_seed(seed)
    vocoder.model.to(torch_device)
    betas = vocoder.model.fast_betas if fast else vocoder.model.betas
    vocoder.model.steps_of(betas)  # its checks only
    figures: dict[str, Any] = {
        "kind": "audio",
        "sample_rate_hz": vocoder.sample_rate_hz,
        "num_steps": len(betas),
        "train_steps": vocoder.num_steps,
    }
    sources = [Path(path) for path in (spectrogram, from_audio) if path is not None]
    is_audio = spectrogram is None
    for source in sources:
        if source.is_dir():
            if count is not None:
                raise ValueError(
                    f"--count does not work with a folder ('{source}'): one clip per file is made."
                )
            _check_condition(run, vocoder, spectrogram, from_audio, seconds)
            return _vocode_folder(source, out, vocoder, is_audio, fast, seed, force, figures)
    count = 1 if count is None else count
    paths = _outputs(out, count, force)
    check_no_source(paths, sources)
    _check_condition(run, vocoder, spectrogram, from_audio, seconds)
    if vocoder.num_samples is None:
        clip = _clip_of(sources[0], vocoder, is_audio=is_audio)
    else:
        clip = Clip(_num_samples(seconds, vocoder.num_samples, vocoder.sample_rate_hz), None)
    items, written = [], {}
    with tqdm(desc="audio", total=count * len(betas), unit="step", file=sys.stderr) as bar:
        for index, path in enumerate(paths):
            written[str(path)] = _write(path, vocoder, clip, seed + index, fast, bar.update)
            items.append({"file": str(path), "peak": written[str(path)]["peak"]})
    duration_s = clip.num_samples / vocoder.sample_rate_hz
    lines = [
        f"Made {count} of {duration_s:.2f} s at {vocoder.sample_rate_hz} Hz:",
        *(f"  {one_line(item['file'])}: peak {item['peak']:.2f}" for item in items),
    ]
    figures |= {"duration_s": duration_s, "items": items}
    return Result("\n".join(lines), figures, written=written)


def _vocode_folder(
    folder: Path,
    out: Path,
    vocoder: Vocoder,
    is_audio: bool,
    fast: bool,
    seed: int,
    force: bool,
    figures: dict[str, Any],
) -> Result:
    """Write the audio of every spectrogram, or of every recording, of a folder.

    Each result is the same as for that file alone.
    """
    check_output_folder(out, folder)
    if is_audio:
        sources = list_audio_files(folder)
    else:
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*" + SPEC)}
        sources = {name.removesuffix(SPEC): path for name, path in sorted(found.items())}
    if not sources:
        raise ValueError(f"'{folder}' holds no files that end in {SPEC}.")
    paths = result_names(sources, ".wav")
    outputs = {name: out / path for name, path in paths.items()}
    settings = {"run": vocoder.stamp, "is_audio": is_audio, "is_fast": fast, "seed": seed}
    journal = Journal(out / AUDIO_JOURNAL, settings, force=force)
    existing = [path for path in outputs.values() if path.exists()]
    if existing and not journal.path.exists() and not force:
        raise ValueError(
            f"'{existing[0]}' exists. Add --force to replace it, or choose another folder."
        )
    remove_partials(out)

    def work(name: str, source: Path) -> dict[str, Any]:
        try:
            clip = _clip_of(source, vocoder, is_audio=is_audio)
        except ValueError as error:
            raise SkipFile(str(error)) from error
        return _write(outputs[name], vocoder, clip, seed, fast)

    report = process_files(sources, work, paths, journal, "audio", partial(check_record, **WRITTEN))
    report.remove_stale()
    report.check_any(f"'{folder}'", "Made audio of")
    items = [
        {"file": str(outputs[name]), "peak": record["peak"]}
        for name, record in report.records.items()
    ]
    figures = {**figures, **report.figures, "items": items}
    written = {str(outputs[name]): record for name, record in report.records.items()}
    return Result(report.summary("Made audio of"), figures, len(report.skipped), written=written)


def make_vocoder_spectrograms(
    audio_dir: str | Path,
    out_dir: str | Path,
    *,
    sample_rate: int = LMNT_RATE_HZ,
    mels: int = LMNT_MELS,
    force: bool = False,
) -> Result:
    """Write FILE.spec.npy, (M, F), for each audio file, as lmnt diffwave's preprocess does.

    Args:
        audio_dir: Folder of audio files.
        out_dir: Folder to write; may be `audio_dir`.
        sample_rate: Sample rate in Hz.
        mels: M, mel bands.
        force: Replace a folder made with other settings.

    Raises:
        ValueError: If a value is not possible, or no file can be used.
        OSError: If a file cannot be written.
    """
    audio, out = Path(audio_dir), Path(out_dir)
    if mels < 1:
        raise ValueError(f"--mels is {mels}; at least 1 is needed.")
    if out.resolve() != audio.resolve():
        check_output_folder(out, audio)
    sources = list_audio_files(audio)
    paths = result_names(sources, SPEC, is_whole_name=True)
    transform = LogMel(sample_rate, HOP_SAMPLES, mels)
    settings = {"sample_rate_hz": sample_rate, "num_mels": mels}
    journal = Journal(out / SPECTROGRAM_JOURNAL, settings, force=force)
    remove_partials(out)

    def work(name: str, source: Path) -> dict[str, Any]:
        samples = read_audio(source, sample_rate, 1)[0]
        try:
            mel = transform.of_lmnt_diffwave(samples)
        except ValueError as error:
            raise SkipFile(str(error)) from error
        return {"num_frames": write_latents(out / paths[name], [mel], mels, is_durable=False)}

    check = partial(check_record, num_frames=int)
    report = process_files(sources, work, paths, journal, "Spectrograms", check)
    report.remove_stale()
    report.check_any(f"'{audio}'", "Made spectrograms of")
    figures = {"folder": str(out), **settings, **report.figures}
    return Result(report.summary("Made spectrograms of"), figures, len(report.skipped))


def _write(
    path: Path,
    vocoder: Vocoder,
    clip: Clip,
    seed: int,
    fast: bool,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Generate and write one file; return its `rave.audio.blocks.Quantizer.figures`."""
    device = vocoder.model.step_table.device
    spectrogram = None if clip.spectrogram is None else clip.spectrogram.to(device)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, clip.num_samples, generator=generator).to(device)
    audio = vocoder.model.sample(noise, spectrogram, generator, fast, progress)
    block = audio.cpu().numpy()
    return write_audio(path, [block], vocoder.sample_rate_hz, 1, clip.num_samples).figures


def _outputs(out: Path, count: int, is_forced: bool) -> list[Path]:
    """Return the files to write: OUT if it ends in .wav or .flac, else files in the folder OUT."""
    if count < 1:
        raise ValueError(f"--count is {count}; at least 1 is needed.")
    is_file = out.suffix.lower() in SUFFIXES
    if is_file and count > 1:
        raise ValueError(f"--count {count} needs a folder to write into, not '{out}'.")
    if not is_file and out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file; give a folder, or a name that ends in .wav or .flac.")
    paths = [out] if is_file else [out / f"generated_{index:03d}.wav" for index in range(count)]
    existing = [path for path in paths if path.exists()]
    if existing and not is_forced:
        raise ValueError(f"'{existing[0]}' exists. Add --force to replace it, or choose another.")
    return paths


def _num_samples(seconds: float | None, trained_samples: int, rate_hz: int) -> int:
    """Return the length in samples of a clip without a spectrogram."""
    if seconds is None:
        return trained_samples
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds is {seconds}; it must be above 0.")
    return max(round(seconds * rate_hz), 1)


def _check_condition(
    run: Path, vocoder: Vocoder, spectrogram: object, from_audio: object, seconds: float | None
) -> None:
    """Check that a spectrogram or audio is given if, and only if, the model needs it."""
    if vocoder.num_samples is not None:
        for name, value in (("--spectrogram", spectrogram), ("--from-audio", from_audio)):
            if value is not None:
                raise ValueError(f"'{run}' was trained without spectrograms. Leave out {name}.")
        return
    if seconds is not None:
        raise ValueError("--seconds works only without a spectrogram, which sets the length.")
    if (spectrogram is None) == (from_audio is None):
        raise ValueError(
            f"'{run}' needs a spectrogram: add --spectrogram F.spec.npy or --from-audio F (not "
            "both), with a file or a folder."
        )
    if spectrogram is None and not vocoder.has_known_window:
        raise ValueError(
            "The run was trained on spectrograms with a window other than 1024 samples, which "
            "cannot be made here. Give one with --spectrogram."
        )


def _clip_of(path: Path, vocoder: Vocoder, *, is_audio: bool) -> Clip:
    read = _spectrogram_of if is_audio else _read_spectrogram
    spectrogram = read(path, vocoder)
    return Clip(spectrogram.shape[1] * HOP_SAMPLES, spectrogram[None].to(torch.float32))


def _read_spectrogram(path: Path, vocoder: Vocoder) -> Tensor:
    spectrogram = np.array(open_spectrogram(path, vocoder.model.num_mels, None))
    if spectrogram.shape[1] == 0 or not np.isfinite(spectrogram).all():
        raise ValueError(f"'{path}' holds no frames, or NaN or infinite values.")
    return torch.from_numpy(spectrogram)


def _spectrogram_of(path: Path, vocoder: Vocoder) -> Tensor:
    transform = LogMel(vocoder.sample_rate_hz, HOP_SAMPLES, vocoder.model.num_mels)
    audio = read_audio(path, vocoder.sample_rate_hz, 1)[0]
    return torch.from_numpy(transform.of_lmnt_diffwave(audio))
