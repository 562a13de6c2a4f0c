"""`rave encode`: a folder of audio → a folder of latents."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rave.api.result import Result
from rave.cli import (
    AUDIO_FOLDER,
    CODEC,
    add_backend,
    add_device,
    add_engine,
    add_level,
    add_seed,
    add_weights,
    backend_settings,
    codec_source,
    command_parser,
    open_engine,
)
from rave.parsing import existing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rave.codec import Array, Codec
    from rave.codec_source import CodecSource
    from rave.jobs.windows import Part
    from rave.latents.folder import LatentHeader
    from rave.levels import HeardAudio

    Sums: TypeAlias = list[tuple[NDArray[np.float64], int]]  # and frames, of each window

JOURNAL_NAME = ".encode.jsonl"
# Of a file, as in `rave.latents.folder.LatentFile`.
FIELDS = {"path": str, "num_frames": int, "source_sample_rate_hz": int, "source_num_samples": int}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `rave encode`."""
    parser = command_parser(
        "rave encode",
        "Write the latents of every audio file: one .npy each, and latents.json. "
        "Files that are done and unchanged are not encoded again.",
        "rave encode runs/piano recordings latents",
    )
    parser.add_argument(
        "codec",
        type=existing(CODEC),
        help="run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only "
        "files you trust)",
    )
    parser.add_argument("audio_dir", type=existing(AUDIO_FOLDER), help="folder of audio files")
    parser.add_argument("latents_dir", type=Path, help="folder to write")
    parser.add_argument(
        "--sample",
        action="store_true",
        help="draw from the posterior instead of writing its mean (not for training a diffusion "
        "model: collapsed dimensions turn to white noise)",
    )
    add_level(parser)
    parser.add_argument("--force", action="store_true", help="replace latents of other settings")
    add_weights(parser)
    add_device(parser)
    add_backend(parser)
    add_seed(parser)
    add_engine(parser)
    return parser


def run(options: argparse.Namespace) -> Result:
    """Encode, and report what the latents hold.

    Raises:
        ValueError: If codec or folders cannot be used, or no file is usable.
        OSError: If the latent folder cannot be written; what was finished is kept.
    """
    from rave.audio.io import list_audio_files
    from rave.files.atomic import check_output_folder

    sources = list_audio_files(options.audio_dir)
    check_output_folder(options.latents_dir, options.audio_dir)
    return encode_files(sources, options)


def encode_files(sources: Mapping[str, Path], options: argparse.Namespace) -> Result:
    """Encode some files into the folder of latents, and report what the latents hold.

    Args:
        sources: Name of each (relative, posix, unique) and its path.
        options: Of `rave encode`; its `audio_dir` is not looked at.

    Raises:
        ValueError: If codec or folders cannot be used, or no file is usable.
        OSError: If the latent folder cannot be written; what was finished is kept.
    """
    from rave.files.atomic import remove_partials
    from rave.held_out import recordings
    from rave.jobs.journal import Journal
    from rave.jobs.loop import process_files, result_names
    from rave.latents.folder import HEADER_NAME, POSTERIOR_MEAN, POSTERIOR_SAMPLE
    from rave.levels import levels_of, levels_to_match

    folder: Path = options.latents_dir
    engine = open_engine(options)
    opener = codec_source(options)
    codec = opener.codec
    contents = POSTERIOR_SAMPLE if options.sample else POSTERIOR_MEAN
    seed = options.seed if options.sample else None
    matched = {"match_level": levels_to_match(codec)} if options.match_level else {}
    settings = {
        "codec": codec.format.fingerprint,
        "contents": contents,
        "seed": seed,
        **matched,
        **backend_settings(options),
    }
    journal = Journal(folder / JOURNAL_NAME, settings, force=options.force)
    remove_partials(folder)
    paths = result_names(sources, ".npy")
    report = process_files(
        sources,
        Encoding(opener, folder, paths, seed, is_level_matched=options.match_level),
        paths,
        journal,
        "Encoding",
        lambda record: _check(record, codec.format.latent_size),
        engine,
        header=HEADER_NAME,
    )
    report.check_any(str(len(sources)), "Encoded")
    origins = recordings({name: sources[name] for name in report.records}, paths)
    header = _header(codec, contents, seed, report.records, origins, report.skipped)
    header.write(folder)
    report.remove_stale()
    levels = levels_of(codec.format, report.records)
    return _result(folder, header, report.summary("Encoded"), report.figures, levels)


@dataclass(frozen=True)
class Encoding:
    """The work on one audio file, or on parts of it (`rave.jobs.loop.DivisibleWork`).

    Args:
        opener: Opens the codec.
        folder: To write into.
        paths: Of the .npy of each name, relative to it.
        seed: Draw from the posterior with this seed; None: write its mean.
        is_level_matched: Bring each file to the level of the codec's training audio before.
    """

    opener: CodecSource
    folder: Path
    paths: Mapping[str, str]
    seed: int | None
    is_level_matched: bool = False

    def __call__(self, name: str, source: Path) -> dict[str, Any]:
        """Write the latents of one audio file, whole or not at all.

        Returns:
            Frames, source rate and length, sound, gain, and sums for the statistics.

        Raises:
            AudioError: If the file cannot be used.
            OSError: If the latents cannot be written.
        """
        from rave.jobs.windows import WHOLE

        audio = self._audio(source)
        sums: Sums = []
        blocks = self._windows(audio, WHOLE, sums)
        return self._write(name, blocks, sums, lambda: audio.record)

    def num_windows(self, name: str, source: Path) -> int:
        """Return how many windows a file has; a guess."""
        from rave.audio.formats import guess_duration_s
        from rave.jobs.windows import WINDOW_FRAMES

        codec_format = self.opener.codec.format
        frames = guess_duration_s(source) * codec_format.sample_rate_hz / codec_format.hop_samples
        return max(int(frames / WINDOW_FRAMES), 1)

    def do_part(
        self, name: str, source: Path, part: Part, path: Path
    ) -> tuple[Sums, dict[str, Any] | None]:
        """Write the latents of some windows; return their sums, and at the end what the file is.

        The file is read from its beginning, which takes a hundredth of the time of encoding it.

        Raises:
            AudioError: If the file cannot be used.
            OSError: If `path` cannot be written.
        """
        from rave.jobs.windows import write_blocks

        audio = self._audio(source)
        sums: Sums = []
        write_blocks(path, self._windows(audio, part, sums))
        return sums, audio.record if part.stop is None else None

    def join(
        self, name: str, source: Path, paths: Sequence[Path], results: Sequence[Any]
    ) -> dict[str, Any]:
        """Write the latents of all parts, and return what `__call__` does."""
        from rave.jobs.windows import WINDOW_FRAMES, read_blocks

        sums = [each for of_part, _ in results for each in of_part]
        blocks = read_blocks(paths, self.opener.codec.format.latent_size, WINDOW_FRAMES)
        return self._write(name, blocks, sums, lambda: results[-1][1])

    def _audio(self, source: Path) -> HeardAudio:
        from rave.levels import HeardAudio

        return HeardAudio(source, self.opener.codec.format, is_level_matched=self.is_level_matched)

    def _windows(self, audio: Iterable[Array], part: Part, sums: Sums) -> Iterator[Array]:
        """Yield the latents (D, n) of each window, and append its sums and number of frames."""
        from rave.jobs.windows import WINDOW_FRAMES
        from rave.latents.statistics import StatisticsAccumulator
        from rave.noise import PositionalNoise

        codec = self.opener.codec
        size, position = codec.format.latent_size, part.first * WINDOW_FRAMES
        for mean, std in codec.encode_blocks(audio, part=part):
            sums.append((StatisticsAccumulator.sums_of(mean, std), mean.shape[1]))
            if self.seed is None:
                yield mean
            else:
                noise = PositionalNoise(self.seed, "posterior", size)
                yield mean + std * noise.normal(position, position + mean.shape[1]).T
            position += mean.shape[1]

    def _write(
        self,
        name: str,
        blocks: Iterable[Array],
        sums: Sums,
        source: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        from rave.latents.folder import write_latents
        from rave.latents.statistics import StatisticsAccumulator

        size = self.opener.codec.format.latent_size
        num_frames = write_latents(self.folder / self.paths[name], blocks, size, is_durable=False)
        accumulator = StatisticsAccumulator(size)
        for values, count in sums:
            accumulator.add_sums(values, count)
        return {
            "num_frames": num_frames,
            **source(),
            "sums": accumulator.record(),
        }


def _check(record: dict[str, Any], latent_size: int) -> None:
    from rave.audio.sound import Sound
    from rave.files.atomic import check_record
    from rave.latents.statistics import StatisticsAccumulator

    check_record(record, **FIELDS, gain_db=float | None, sound=Sound | None, sums=dict)
    StatisticsAccumulator(latent_size).merge(record["sums"])


def _header(
    codec: Codec,
    contents: str,
    seed: int | None,
    records: dict[str, dict[str, Any]],
    origins: dict[str, str],
    skipped: dict[str, str],
) -> LatentHeader:
    from rave.latents.folder import LatentFile, LatentHeader
    from rave.latents.statistics import StatisticsAccumulator

    sums = StatisticsAccumulator(codec.format.latent_size)
    files = []
    for name, record in records.items():
        sums.merge(record["sums"])
        known = {field: record[field] for field in FIELDS}
        # Before 2026-12 no audio was brought to another level.
        known["gain_db"] = record.get("gain_db", 0.0)
        files.append(LatentFile(source=name, recording=origins[name], **known))
    return LatentHeader(
        codec=codec.format.fingerprint,
        codec_path=str(codec.path),
        sample_rate_hz=codec.format.sample_rate_hz,
        hop_samples=codec.format.hop_samples,
        latent_size=codec.format.latent_size,
        contents=contents,
        statistics=sums.statistics(),
        files=files,
        seed=seed,
        skipped=skipped,
    )


def _result(
    folder: Path,
    header: LatentHeader,
    summary: str,
    counts: dict[str, Any],
    levels: dict[str, dict[str, Any]],
) -> Result:
    from rave.levels import level_lines

    statistics = header.statistics
    num_informative = int(statistics.is_informative.sum())
    figures = {
        **counts,
        "levels": levels,
        "num_frames": statistics.num_frames,
        "frame_rate_hz": header.frame_rate_hz,
        "latent_size": header.latent_size,
        "num_informative": num_informative,
        "information_nats_per_frame": float(statistics.information.sum()),
        "kl_nats_per_frame": sum(statistics.kl),
    }
    text = (
        f"{summary}\n'{folder}' holds {statistics.num_frames} frames of {header.latent_size} "
        f"dimensions at {header.frame_rate_hz:.2f} Hz; {num_informative} dimensions are "
        f"informative, {statistics.information.sum():.1f} nats a frame."
    )
    return Result("\n".join([text, *level_lines(levels)]), figures, num_skipped=len(header.skipped))
