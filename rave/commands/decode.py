"""`rave decode`: a folder of latents → a folder of audio of the same names, lengths and rates."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rave.command import (
    Result,
    add_backend,
    add_decoding,
    add_device,
    add_seed,
    add_weights,
    backend_settings,
    command_parser,
    open_codec,
)

if TYPE_CHECKING:
    from rave.bending import Bend
    from rave.codec import Array, Codec
    from rave.latents import LatentFile, LatentHeader

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
        type=Path,
        help="run folder of `rave train` or of acids-rave, or a .ts file, a program",
    )
    parser.add_argument("latents_dir", type=Path, help="folder of latents")
    parser.add_argument("out_audio_dir", type=Path, help="folder to write")
    add_decoding(parser)
    parser.add_argument("--force", action="store_true", help="replace audio of other settings")
    add_weights(parser)
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Decode, and report levels and anything that looks wrong.

    Raises:
        ValueError: If codec or folders cannot be used, or no file is usable.
        OSError: If the output folder cannot be written; what was finished is kept.
    """
    from rave.batch import process_files
    from rave.bending import parse_bend
    from rave.files import Journal, check_output_folder, remove_partials
    from rave.latents import LatentHeader

    folder: Path = options.out_audio_dir
    bend = parse_bend(options.shift, options.scale)
    header = LatentHeader.read(options.latents_dir)
    check_output_folder(folder, options.latents_dir)
    codec = open_codec(options)
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
    # More audio in the folder may show a dimension to be informative that was noise before.
    informative = [int(dimension) for dimension in header.statistics.is_informative.nonzero()[0]]
    former = journal.records
    journal.forget(path for path, record in former.items() if record["informative"] != informative)
    report = process_files(
        {path: options.latents_dir / path for path in entries},
        lambda path, source: {
            "informative": informative,
            **decode_file(
                codec,
                header,
                entries[path],
                source,
                folder / audio_path(path),
                options.seed,
                as_encoded=options.as_encoded,
                is_codec_rate=options.codec_rate,
                bend=bend,
            ),
        },
        lambda path: folder / audio_path(path),
        journal,
        "Decoding",
    )
    if not report.records:
        raise ValueError(
            f"No file of '{options.latents_dir}' can be used. {report.summary('Decoded')}"
        )
    for path in set(former) - set(entries):
        (folder / audio_path(path)).unlink(missing_ok=True)
    warnings = {path: r["warnings"] for path, r in report.records.items() if r["warnings"]}
    for path, texts in warnings.items():
        for text in texts:
            print(f"rave decode: warning: {path}: {text}", file=sys.stderr)
    levels = {path: record["level_dbfs"] for path, record in report.records.items()}
    figures = {**report.figures, "level_dbfs": levels, "warnings": warnings}
    return Result(
        f"{report.summary('Decoded')}\n'{folder}' holds {len(levels)} audio files.",
        figures,
        num_skipped=len(report.skipped),
    )


def audio_path(latent_path: str) -> str:
    """Return where the audio of a latent file goes, relative to the output folder."""
    return latent_path.removesuffix(".npy") + ".wav"


def decode_file(
    codec: Codec,
    header: LatentHeader,
    entry: LatentFile,
    source: Path,
    path: Path,
    seed: int,
    *,
    as_encoded: bool,
    is_codec_rate: bool,
    bend: Bend,
) -> dict[str, Any]:
    """Write the audio of one latent file, whole or not at all.

    Args:
        codec: Decodes.
        header: Of the latent folder.
        entry: The file's.
        source: The .npy.
        path: The .wav to write.
        seed: Of the noise that stands for what latents do not say.
        as_encoded: Let no noise stand for dimensions that say nothing.
        is_codec_rate: Keep the codec's rate instead of returning to the source's.
        bend: What is done to the latents before.

    Returns:
        Level, limited samples, and warnings.

    Raises:
        SkipFile: If the latents cannot be read, are not finite, or are fewer than their audio.
        OSError: If `path` cannot be written.
    """
    import numpy as np

    from rave.audio import write_audio
    from rave.audio_blocks import LevelMeter, resample
    from rave.batch import SkipFile
    from rave.codec import DecoderNoise
    from rave.latents import read_latents

    try:
        latents = read_latents(source, header.latent_size, entry.num_frames)
    except ValueError as error:
        raise SkipFile(str(error)) from error
    if not np.isfinite(latents).all():
        raise SkipFile("it holds NaN or infinite latents. Encode or generate it again.")
    seconds = entry.source_num_samples / entry.source_sample_rate_hz
    if seconds > (entry.num_frames + 1) / header.frame_rate_hz:
        raise SkipFile(
            f"the header claims {entry.source_num_samples} samples for {entry.num_frames} frames. "
            "Encode it again."
        )
    latents = bend(latents, codec)
    noise = DecoderNoise(codec.format, header.statistics, seed, entry.path, as_encoded=as_encoded)
    meter = LevelMeter()
    rate_hz = codec.format.sample_rate_hz
    out_rate_hz = rate_hz if is_codec_rate else entry.source_sample_rate_hz
    num_samples = round(seconds * rate_hz) if is_codec_rate else entry.source_num_samples
    blocks = resample(meter(codec.decode_blocks(latents, noise)), rate_hz, out_rate_hz)
    quantizer = write_audio(path, blocks, out_rate_hz, codec.format.num_channels, num_samples)
    warnings = list(latent_warnings(header, latents))
    if meter.level_dbfs < SILENT_DBFS:
        warnings.append(
            f"the output is silent ({meter.level_dbfs:.0f} dBFS). If its source is not, the codec "
            "is not trained, or the latents are not its own."
        )
    if quantizer.num_limited_samples:
        warnings.append(
            f"{quantizer.num_limited_samples} samples beyond full scale were limited "
            f"(peak {quantizer.peak:.2f})."
        )
    return {"level_dbfs": round(meter.level_dbfs, 2), "warnings": warnings}


def latent_warnings(header: LatentHeader, latents: Array) -> Iterator[str]:
    """Yield what is wrong with latents (D, N) beside the statistics of the real music."""
    import numpy as np

    statistics = header.statistics
    kept = statistics.is_informative
    if not kept.any():
        yield "no dimension of this codec is informative, so its output says nothing. Train longer."
        return
    mean, std = (
        np.asarray(v, dtype=np.float32)[kept, None] for v in (statistics.mean, statistics.std)
    )
    power = float(np.square((latents[kept] - mean) / np.maximum(std, 1e-6)).mean())
    if not MIN_LATENT_POWER < power < MAX_LATENT_POWER:
        yield (
            f"its latents have {power:.2g} times the power of the music the codec knows "
            f"(mean {latents[kept].mean():.2f}, std {latents[kept].std():.2f}, extremes "
            f"{latents[kept].min():.1f} and {latents[kept].max():.1f}); "
            "the audio may be silent or noise."
        )
