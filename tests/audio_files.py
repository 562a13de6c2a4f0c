"""Makes audio files for tests, common and odd."""

from pathlib import Path

import av
import numpy as np
import soundfile

from rave.audio.formats import decode_blocks
from rave.audio.io import AudioStream


def sine(frequency_hz, sample_rate_hz, duration_s=1.0, gain=0.5):
    """Return a sine, (1, T)."""
    times = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    return (gain * np.sin(2 * np.pi * frequency_hz * times))[None].astype(np.float32)


def noise(num_samples, num_channels=1, seed=0, gain=0.1):
    """Return white noise, (C, T)."""
    shape = (num_channels, num_samples)
    return (gain * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def write(path: Path, audio, sample_rate_hz=44100, **options):
    """Write audio (C, T) through libsndfile and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.T, sample_rate_hz, **options)
    return path


def write_with_av(path: Path, audio, sample_rate_hz=44100, codec="aac", layout="mono"):
    """Write audio (C, T) through PyAV and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sample_rate_hz, layout=layout)
        for start in range(0, audio.shape[1], 1024):
            samples = np.ascontiguousarray(audio[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(samples, "fltp", layout)
            frame.sample_rate, frame.pts = sample_rate_hz, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, fraction=0.5):
    """Cut a file off and return its path."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


def decoded(path):
    """Return the samples (C, T) of a file as they are in it."""
    return np.concatenate([block for _, block in decode_blocks(path)], axis=1)


def notes_of(path, num_channels=1, sample_rate_hz=44100):
    """Read a file; return its audio (C, T), and what a user should know of it."""
    stream = AudioStream(path, sample_rate_hz, num_channels)
    audio = np.concatenate(list(stream), axis=1)
    return audio, " ".join(stream.notes)


def joined(path, *parts):
    """Write files one behind the other and return the path."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
