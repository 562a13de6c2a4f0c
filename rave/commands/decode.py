"""`rave decode`: a folder of latents → a folder of audio of the same names, lengths and rates."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.api.result import Result
from rave.cli import (
    CODEC,
    LATENTS,
    add_backend,
    add_decoding,
    add_device,
    add_engine,
    add_seed,
    add_weights,
    backend_settings,
    codec_source,
    command_parser,
    open_engine,
)
from rave.parsing import existing

if TYPE_CHECKING:
    from rave.codec import Array, Codec
    from rave.codec_source import CodecSource
    from rave.jobs.windows import Part
    from rave.latents.bending import Bend
    from rave.latents.folder import LatentFile, LatentHeader
    from rave.noise import DecoderNoise

JOURNAL_NAME = ".decode.jsonl"
SILENT_DBFS = -70.0
# Power of the informative latents relative to the real music's; outside, they are far from it.
MIN_LATENT_POWER, MAX_LATENT_POWER = 0.05, 8.0


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave decode`."""
    parser = command_parser(
        "rave decode",
        "Write the audio of every latent file as 16-bit WAV, with the name, length and sample rate "
        "of the audio it was encoded from.",
        "rave decode runs/piano latents reconstructions",
    )
    parser.add_argument(
        "codec",
        type=existing(CODEC),
        help="run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only "
        "files you trust)",
    )
    parser.add_argument("latents_dir", type=existing(LATENTS), help="folder of latents")
    parser.add_argument("out_audio_dir", type=Path, help="folder to write")
    add_decoding(parser)
    parser.add_argument("--force", action="store_true", help="replace audio of other settings")
    add_weights(parser)
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    add_engine(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Decode, and report levels and anything that looks wrong.

    Raises:
        ValueError: If codec or folders cannot be used, or no file is usable.
        OSError: If the output folder cannot be written; what was finished is kept.
    """
    from rave.audio.blocks import WRITTEN
    from rave.files.atomic import check_output_folder, check_record, remove_partials
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files, result_names
    from rave.latents.bending import parse_bend
    from rave.latents.folder import LatentHeader

    folder: Path = options.out_audio_dir
    bend = parse_bend(options.shift, options.scale)
    header = LatentHeader.read(options.latents_dir)
    check_output_folder(folder, options.latents_dir)
    engine = open_engine(options)
    opener = codec_source(options)
    codec = opener.codec
    codec.check_latents(header, options.latents_dir)
    settings = {
        "codec": codec.format.fingerprint,
        "seed": options.seed,
        "is_as_encoded": options.as_encoded,
        "is_codec_rate": options.codec_rate,
        **bend.settings,
        **backend_settings(options),
    }
    journal = Journal(folder / JOURNAL_NAME, settings, force=options.force)
    remove_partials(folder)
    entries = {entry.path: entry for entry in header.files}
    noise = noise_digest(codec)
    journal.forget(
        path
        for path, record in journal.records.items()
        if path in entries and record.get("noise") != noise
    )
    paths = result_names(entries, ".wav")
    report = process_files(
        {path: options.latents_dir / path for path in entries},
        Decoding(
            opener,
            folder,
            paths,
            header,
            options.seed,
            as_encoded=options.as_encoded,
            is_codec_rate=options.codec_rate,
            bend=bend,
        ),
        paths,
        journal,
        "Decoding",
        partial(check_record, **WRITTEN, level_dbfs=float, warnings=list[str]),
        engine,
    )
    report.check_any(f"'{options.latents_dir}'", "Decoded")
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
    """Return what shows whether files were decoded with the same noise as now."""
    from hashlib import sha256

    arrays = b"".join(each.tobytes() for each in codec.format.uninformative)
    return sha256(arrays).hexdigest()[:16]


@dataclass(frozen=True)
class Decoding:
    """The work on one latent file, or on parts of it (`rave.jobs.loop.DivisibleWork`).

    Args:
        opener: Opens the codec.
        folder: To write into.
        paths: Of the audio of each latent file, relative to it.
        header: Of the latent folder.
        seed: Of the decoder's noise.
        as_encoded: Let no noise stand for the codec's uninformative dimensions.
        is_codec_rate: Keep the codec's rate instead of returning to the source's.
        bend: What is done to the latents before.
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
            What states its noise, level, peak, and warnings.

        Raises:
            SkipFile: If the latents cannot be read, are not finite, or are fewer than their audio.
            OSError: If the audio cannot be written.
        """
        latents = self._latents(name, source)
        blocks = self.opener.codec.network_blocks(latents, self._noise)
        return self._write(name, latents, blocks)

    def num_windows(self, name: str, source: Path) -> int:
        """Return how many windows a file has."""
        from rave.jobs.windows import WINDOW_FRAMES

        return -(-self._entries[name].num_frames // WINDOW_FRAMES)

    def do_part(self, name: str, source: Path, part: Part, path: Path) -> None:
        """Write what the network makes of some windows.

        Raises:
            SkipFile: As the whole.
            OSError: If `path` cannot be written.
        """
        from rave.jobs.windows import write_blocks

        latents = self._latents(name, source)
        write_blocks(path, self.opener.codec.network_blocks(latents, self._noise, part=part))

    def join(
        self, name: str, source: Path, paths: Sequence[Path], results: Sequence[Any]
    ) -> dict[str, Any]:
        """Write the audio of all parts, and return what `__call__` does."""
        from rave.jobs.windows import WINDOW_FRAMES, read_blocks

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

    def _latents(self, name: str, source: Path) -> Array:
        import numpy as np

        from rave.files.errors import SkipFile
        from rave.latents.folder import read_latents

        entry = self._entries[name]
        try:
            latents = read_latents(source, self.header.latent_size, entry.num_frames)
        except ValueError as error:
            raise SkipFile(str(error)) from error
        if not np.isfinite(latents).all():
            raise SkipFile("it holds NaN or infinite latents. Encode or generate it again.")
        if self._seconds(name) > (entry.num_frames + 1) / self.header.frame_rate_hz:
            raise SkipFile(
                f"the header claims {entry.source_num_samples} samples for {entry.num_frames} "
                "frames. Encode it again."
            )
        return self.bend(latents, self.opener.codec.principal_axes)

    def _write(self, name: str, latents: Array, blocks: Iterator[Array]) -> dict[str, Any]:
        from rave.audio.blocks import LevelMeter, amplified, resample
        from rave.audio.io import write_audio

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
                f"the output is silent ({meter.level_dbfs:.0f} dBFS). If its source is not, the "
                "codec is not trained, or the latents are not its own."
            )
        return {
            "noise": noise_digest(codec),
            "level_dbfs": round(meter.level_dbfs, 2),
            **quantizer.figures,
            "warnings": warnings,
        }


def latent_warnings(codec: Codec, header: LatentHeader, latents: Array) -> Iterator[str]:
    """Yield what is wrong with latents (D, N) beside the statistics of the real music."""
    import numpy as np

    known = codec.format.training_audio
    if known is not None and not known.statistics.is_informative.any():
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
            f"its latents have {power:.2g} times the power of the music the codec knows "
            f"(mean {latents[kept].mean():.2f}, std {latents[kept].std():.2f}, extremes "
            f"{latents[kept].min():.1f} and {latents[kept].max():.1f}); "
            "the audio may be silent or noise."
        )
