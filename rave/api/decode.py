"""A folder of latents → a folder of audio of the same names, lengths and rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rave.api.result import Result
from rave.audio.blocks import WRITTEN, LevelMeter, amplified, resample
from rave.audio.io import write_audio
from rave.compute.arrays import Float32Array
from rave.files.atomic import check_output_folder, check_record, remove_partials
from rave.files.errors import SkipFile
from rave.jobs.journal import Journal
from rave.jobs.loop import process_files, result_names
from rave.jobs.windows import WINDOW_FRAMES, Part, read_blocks, write_blocks
from rave.latents.bending import Bend
from rave.latents.folder import LatentFile, LatentHeader, read_latents
from rave.parsing import check_seed

if TYPE_CHECKING:  # torch takes long to import; what is refused without it is refused at once
    from rave.codec import Codec
    from rave.codec_source import CodecSource
    from rave.jobs.loop import Engine
    from rave.noise import DecoderNoise

JOURNAL_NAME = ".decode.jsonl"
SILENT_DBFS = -70.0
# Usual power of the informative latents, relative to the training music's.
MIN_LATENT_POWER, MAX_LATENT_POWER = 0.05, 8.0


def decode_folder(
    codec: str | Path,
    latents_dir: str | Path,
    out_audio_dir: str | Path,
    *,
    as_encoded: bool = False,
    codec_rate: bool = False,
    shift: Mapping[int, float] | None = None,
    scale: Mapping[int, float] | None = None,
    force: bool = False,
    ema: bool = False,
    derivative: bool = False,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "float32",
    seed: int = 0,
    engine: Engine | None = None,
) -> Result:
    """Write the audio of every latent file as 16-bit WAV.

    Each has the name, length and sample rate of the audio that it was encoded from. Files that are
    done and unchanged are not decoded again.

    Args:
        codec: Run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only
            files you trust).
        latents_dir: Folder of latents that this codec encoded, or that were generated for it.
        out_audio_dir: Folder to write.
        as_encoded: Decode uninformative dimensions as stored, instead of as the noise that the
            decoder was trained on.
        codec_rate: Write at the codec's sample rate instead of each source's.
        shift: Value to add to the latents along each principal axis (0: largest variance).
        scale: Factor of their distance from the mean along each principal axis.
        force: Replace audio made with other settings.
        ema: Take the averaged weights of a run of acids-rave.
        derivative: The codec was trained on the derivative of audio (acids-rave).
        device: auto, cpu, cuda, cuda:N or mps.
        backend: auto, torch or openvino.
        precision: float32 or bfloat16, of encoder and decoder.
        seed: Random seed of the decoder's noise.
        engine: Engine that processes the files; None: this process, one file after the other.

    Returns:
        Counts of files, what was skipped, level and peak of each file, and what looks wrong.

    Raises:
        ValueError: If codec or folders cannot be used, or no file is usable.
        OSError: If the output folder cannot be written; what was finished is kept.
    """
    check_seed(seed)
    bend = Bend(shift or {}, scale or {})
    latents_dir, out_audio_dir = Path(latents_dir), Path(out_audio_dir)
    header = LatentHeader.read(latents_dir)
    check_output_folder(out_audio_dir, latents_dir)
    from rave.codec_source import CodecSource

    opener = CodecSource.of(codec, device, backend, precision, ema, derivative)
    return decode_latents(
        opener,
        header,
        latents_dir,
        out_audio_dir,
        as_encoded=as_encoded,
        codec_rate=codec_rate,
        bend=bend,
        force=force,
        seed=seed,
        engine=engine,
    )


def decode_latents(
    opener: CodecSource,
    header: LatentHeader,
    latents_dir: Path,
    folder: Path,
    *,
    as_encoded: bool,
    codec_rate: bool,
    bend: Bend,
    force: bool,
    seed: int,
    engine: Engine | None = None,
) -> Result:
    """Write the audio of latents whose header was read, as `decode_folder` does.

    Args:
        opener: Opens the codec.
        header: Header of `latents_dir`.
        latents_dir: Folder of latents.
        folder: Folder to write into.
        as_encoded: Decode uninformative dimensions as stored.
        codec_rate: Write at the codec's sample rate.
        bend: Change of the latents before decoding.
        force: Replace audio made with other settings.
        seed: Random seed of the decoder's noise.
        engine: Engine that processes the files; None: this process.

    Raises:
        ValueError: If the codec did not make the latents, or no file is usable.
        OSError: If the output folder cannot be written; what was finished is kept.
    """
    codec = opener.codec
    codec.check_latents(header, latents_dir)
    settings = {
        "codec": codec.format.fingerprint,
        "seed": seed,
        "is_as_encoded": as_encoded,
        "is_codec_rate": codec_rate,
        **bend.settings,
        **opener.settings,
    }
    journal = Journal(folder / JOURNAL_NAME, settings, force=force)
    remove_partials(folder)
    sources = {entry.path: latents_dir / entry.path for entry in header.files}
    noise = noise_digest(codec)
    journal.forget(
        path
        for path, record in journal.records.items()
        if path in sources and record.get("noise") != noise
    )
    paths = result_names(sources, ".wav")
    report = process_files(
        sources,
        Decoding(opener, folder, paths, header, seed, as_encoded, codec_rate, bend),
        paths,
        journal,
        "Decoding",
        partial(check_record, **WRITTEN, level_dbfs=float, warnings=list[str]),
        engine,
    )
    report.check_any(f"'{latents_dir}'", "Decoded")
    report.remove_stale()
    warnings = {path: r["warnings"] for path, r in report.records.items() if r["warnings"]}
    levels = {path: record["level_dbfs"] for path, record in report.records.items()}
    figures = {**report.figures, "level_dbfs": levels}
    return Result(
        f"{report.summary('Decoded')}\n'{folder}' holds {len(levels)} audio files.",
        figures,
        num_skipped=len(report.skipped),
        written=report.records,
        warnings=warnings,
    )


def noise_digest(codec: Codec) -> str:
    """Return a digest of the noise settings with which files are decoded."""
    arrays = b"".join(each.tobytes() for each in codec.format.uninformative)
    return sha256(arrays).hexdigest()[:16]


@dataclass(frozen=True)
class Decoding:
    """Decode one latent file, or parts of it (`rave.jobs.loop.DivisibleWork`).

    Args:
        opener: Opens the codec.
        folder: Folder to write into.
        paths: Path of the audio of each latent file, relative to it.
        header: Header of the latent folder.
        seed: Random seed of the decoder's noise.
        as_encoded: Decode uninformative dimensions as stored.
        is_codec_rate: Write at the codec's sample rate instead of the source's.
        bend: Change of the latents before decoding.
    """

    opener: CodecSource
    folder: Path
    paths: Mapping[str, str]
    header: LatentHeader
    seed: int
    as_encoded: bool
    is_codec_rate: bool
    bend: Bend

    def __call__(self, name: str, source: Path) -> dict[str, Any]:
        """Write the audio of one latent file, whole or not at all.

        Returns:
            Digest of the noise, level, peak, and warnings.

        Raises:
            SkipFile: If the latents cannot be read, are not finite, or are fewer than their audio.
            OSError: If the audio cannot be written.
        """
        latents = self._latents(name, source)
        blocks = self.opener.codec.network_blocks(latents, self._noise)
        return self._write(name, latents, blocks)

    def num_windows(self, name: str, source: Path) -> int:
        """Return how many windows a file has."""
        return -(-self._entries[name].num_frames // WINDOW_FRAMES)

    def do_part(self, name: str, source: Path, part: Part, path: Path) -> None:
        """Write the network's output for some windows.

        Raises:
            SkipFile: As `__call__`.
            OSError: If `path` cannot be written.
        """
        latents = self._latents(name, source)
        write_blocks(path, self.opener.codec.network_blocks(latents, self._noise, part=part))

    def join(
        self, name: str, source: Path, paths: Sequence[Path], results: Sequence[Any]
    ) -> dict[str, Any]:
        """Write the audio of all parts, and return what `__call__` does."""
        codec_format = self.opener.codec.format
        window_samples = WINDOW_FRAMES * codec_format.hop_samples
        blocks = read_blocks(paths, codec_format.num_channels, window_samples)
        return self._write(name, self._latents(name, source), blocks)

    @cached_property
    def _entries(self) -> dict[str, LatentFile]:
        return {entry.path: entry for entry in self.header.files}

    @property
    def _noise(self) -> DecoderNoise:
        from rave.noise import DecoderNoise

        return DecoderNoise(self.opener.codec.format, self.seed, as_encoded=self.as_encoded)

    def _seconds(self, name: str) -> float:
        entry = self._entries[name]
        return entry.source_num_samples / entry.source_sample_rate_hz

    def _latents(self, name: str, source: Path) -> Float32Array:
        entry = self._entries[name]
        try:
            latents = read_latents(source, self.header.latent_size, entry.num_frames)
        except ValueError as error:
            raise SkipFile(str(error)) from error
        if not np.isfinite(latents).all():
            raise SkipFile("it holds NaN or infinite latents. Encode or generate it again.")
        if self._seconds(name) > (entry.num_frames + 1) / self.header.frame_rate_hz:
            raise SkipFile(
                f"the header states {entry.source_num_samples} samples for {entry.num_frames} "
                "frames. Encode it again."
            )
        return self.bend(latents, self.opener.codec.principal_axes)

    def _write(
        self, name: str, latents: Float32Array, blocks: Iterator[Float32Array]
    ) -> dict[str, Any]:
        codec, entry = self.opener.codec, self._entries[name]
        meter = LevelMeter()
        rate_hz = codec.format.sample_rate_hz
        out_rate_hz = rate_hz if self.is_codec_rate else entry.source_sample_rate_hz
        num_samples = entry.source_num_samples
        if self.is_codec_rate:
            num_samples = round(self._seconds(name) * rate_hz)
        audio = amplified(codec.audio_of(blocks), -entry.gain_db)
        audio = resample(meter(audio), rate_hz, out_rate_hz)
        path = self.folder / self.paths[name]
        num_channels = codec.format.num_channels
        quantizer = write_audio(
            path, audio, out_rate_hz, num_channels, num_samples, is_durable=False
        )
        warnings = list(latent_warnings(codec, self.header, latents))
        if meter.level_dbfs < SILENT_DBFS:
            warnings.append(
                f"the output is silent ({meter.level_dbfs:.0f} dBFS). If its source is not silent, "
                "the codec is not trained, or the latents are from another codec."
            )
        return {
            "noise": noise_digest(codec),
            "level_dbfs": round(meter.level_dbfs, 2),
            **quantizer.figures,
            "warnings": warnings,
        }


def latent_warnings(codec: Codec, header: LatentHeader, latents: Float32Array) -> Iterator[str]:
    """Yield warnings about latents (D, N) that differ from the statistics of the real music."""
    training_audio = codec.format.training_audio
    if training_audio is not None and not training_audio.statistics.is_informative.any():
        yield "no dimension of this codec is informative, so its output is noise. Train longer."
        return
    kept = ~codec.format.uninformative[0][:, 0]
    mean, std = (
        np.asarray(each, dtype=np.float32)[kept, None]
        for each in (header.statistics.mean, header.statistics.std)
    )
    power = float(np.square(latents[kept] - mean).mean() / max(np.square(std).mean(), 1e-12))
    if not MIN_LATENT_POWER < power < MAX_LATENT_POWER:
        yield (
            f"its latents have {power:.2g} times the power of the training music "
            f"(mean {latents[kept].mean():.2f}, std {latents[kept].std():.2f}, extremes "
            f"{latents[kept].min():.1f} and {latents[kept].max():.1f}); "
            "the audio may be silent or noise."
        )
