"""Compare two folders of audio: levels and spectra, and, file by file, the log-spectral distance.

Example:
    python scripts/compare_audio.py recordings reconstructions --sample-rate 22050
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from numpy.typing import NDArray

from rave.audio import list_audio_files, read_audio
from rave.command import Result, command_parser, execute
from rave.losses import log_spectral_distance_db

NUM_MELS = 80


def parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = command_parser(
        "compare_audio.py",
        "Compare the levels and spectra of two folders of audio. Files of the same name are also "
        "compared one by one: log-spectral distance (mean over STFTs of 2048, 1024, 512 and 256, "
        "floor 60 dB under the loudest bin) and level.",
        "python scripts/compare_audio.py recordings reconstructions --sample-rate 22050",
    )
    parser.add_argument("reference_dir", type=Path, help="folder of real audio")
    parser.add_argument("audio_dir", type=Path, help="folder to compare with it")
    parser.add_argument("--sample-rate", type=int, default=44100, help="in Hz (default 44100)")
    parser.add_argument("--only", nargs="*", help="names without suffix; others are left out")
    parser.add_argument(
        "--follows", type=Path, help="recording whose loudness and chroma each file should follow"
    )
    return parser


def followed(audio: NDArray[np.float32], source: NDArray[np.float32], rate_hz: int) -> list[float]:
    """Return the correlations of loudness and chroma of two recordings (T,), from their starts."""
    curves = []
    for signal in (audio, source):
        magnitude = np.abs(librosa.stft(signal, n_fft=4096, hop_length=1024))
        loudness_db = librosa.amplitude_to_db(librosa.feature.rms(S=magnitude, frame_length=4096))
        chroma = librosa.feature.chroma_stft(S=np.square(magnitude), sr=rate_hz)
        curves.append((loudness_db, chroma))
    num_frames = min(loudness.shape[1] for loudness, _ in curves)
    pairs = zip(*curves, strict=True)
    return [
        float(np.corrcoef(a[:, :num_frames].ravel(), b[:, :num_frames].ravel())[0, 1])
        for a, b in pairs
    ]


def spectrum_statistics(audio: NDArray[np.float32], sample_rate_hz: int) -> dict[str, Any]:
    """Return level, brightness, noisiness and mean mel spectrum of audio (T,)."""
    magnitude = np.abs(librosa.stft(audio))
    power = librosa.feature.melspectrogram(
        S=np.square(magnitude), sr=sample_rate_hz, n_mels=NUM_MELS
    )
    mel_db = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
    rms = librosa.feature.rms(S=magnitude)[0]
    is_loud = rms > 0.05 * rms.max()
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=sample_rate_hz)[0]
    flatness = librosa.feature.spectral_flatness(S=magnitude)[0]
    return {
        "level_dbfs": float(20 * np.log10(max(np.sqrt(np.mean(np.square(audio))), 1e-10))),
        "peak": float(np.abs(audio).max()),
        "centroid_hz": float(centroid[is_loud].mean()) if is_loud.any() else 0.0,
        "flatness": float(flatness[is_loud].mean()) if is_loud.any() else 0.0,
        "mel_db": mel_db.mean(axis=1),
    }


def run(options: argparse.Namespace) -> Result:
    """Compare, and report a table."""
    folders = []
    for folder in (options.reference_dir, options.audio_dir):
        files = {str(Path(name).with_suffix("")): p for name, p in list_audio_files(folder).items()}
        if options.only:
            files = {name: path for name, path in files.items() if name in options.only}
        folders.append({n: read_audio(p, options.sample_rate, 1)[0] for n, p in files.items()})
    reference, other = (
        {name: spectrum_statistics(a, options.sample_rate) for name, a in folder.items()}
        for folder in folders
    )
    names = ("level_dbfs", "peak", "centroid_hz", "flatness")
    figures: dict[str, Any] = {}
    for side, group in (("reference", reference), ("audio", other)):
        figures[side] = {n: float(np.mean([f[n] for f in group.values()])) for n in names}
        figures[side]["num_files"] = len(group)
    spectra = [np.mean([f["mel_db"] for f in s.values()], axis=0) for s in (reference, other)]
    figures["mean_spectrum_difference_db"] = float(np.abs(spectra[0] - spectra[1]).mean())
    pairs = {}
    audio_of_reference, audio_of_other = folders
    for name in sorted(set(audio_of_reference) & set(audio_of_other)):
        x, y = (torch.from_numpy(a[name])[None, None] for a in (audio_of_reference, audio_of_other))
        if x.shape == y.shape:
            pairs[name] = {
                "log_spectral_distance_db": float(log_spectral_distance_db(x, y)),
                "silence_would_score_db": float(log_spectral_distance_db(x, 0 * y)),
                "level_difference_db": other[name]["level_dbfs"] - reference[name]["level_dbfs"],
            }
    figures["pairs"] = pairs
    lines = [f"{'':24}{'reference':>12}{'audio':>12}"]
    lines += [f"{n:24}{figures['reference'][n]:12.4g}{figures['audio'][n]:12.4g}" for n in names]
    lines.append(f"mean spectra differ by {figures['mean_spectrum_difference_db']:.2f} dB")
    for name, pair in pairs.items():
        lines.append(
            f"{name}: {pair['log_spectral_distance_db']:.2f} dB apart (silence "
            f"{pair['silence_would_score_db']:.2f}), level {pair['level_difference_db']:+.1f} dB"
        )
    if options.follows:
        source = read_audio(options.follows, options.sample_rate, 1)[0]
        figures["follows"] = {
            name: dict(
                zip(("loudness", "chroma"), followed(a, source, options.sample_rate), strict=True)
            )
            for name, a in audio_of_other.items()
        }
        lines += [
            f"{name}: correlation with {options.follows.name}: loudness {f['loudness']:.2f}, "
            f"chroma {f['chroma']:.2f}"
            for name, f in figures["follows"].items()
        ]
    if pairs:
        mean = np.mean([p["log_spectral_distance_db"] for p in pairs.values()])
        figures["log_spectral_distance_db"] = float(mean)
        lines.append(f"mean log-spectral distance {mean:.2f} dB over {len(pairs)} files")
    return Result("\n".join(lines), figures)


if __name__ == "__main__":
    sys.exit(execute(parser(), run))
